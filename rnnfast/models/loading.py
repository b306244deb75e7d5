"""Load a saved model of any class."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.models.cbow import CBOWLM
from rnnfast.models.model import Model
from rnnfast.models.network import Network
from rnnfast.models.regressor import SequenceRegressor
from rnnfast.models.rnnlm import RNNLM
from rnnfast.models.weights import SavedModel, read_weights

_MODELS: dict[str, type[Model]] = {
    "RNNLM": RNNLM,
    "CBOWLM": CBOWLM,
    "SequenceRegressor": SequenceRegressor,
    "Network": Network,
}


def load_model(path: str | os.PathLike[str], *, rng: np.random.Generator | None = None) -> RNNLM | CBOWLM:
    """Load a model of any class from a file of its `save`, with a fresh state.

    Parameters
    ----------
    path
        The file.
    rng : numpy.random.Generator, optional
        Used by dropout in further training.

    Raises
    ------
    CheckpointError
        The file is damaged or holds no model of rnnfast, or the program has not defined the model's cell.
        The message names the file.
    OSError
        The file cannot be read.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "model.safetensors"
    ...     CBOWLM(7, 4).save(path)
    ...     type(load_model(path)).__name__
    'CBOWLM'
    """
    _check.training.readable("load_model", path)
    return load_with_notes(path, rng=rng)[0]


def load_with_notes(
    path: str | os.PathLike[str], *, rng: np.random.Generator | None = None
) -> tuple[RNNLM | CBOWLM, dict[str, Any]]:
    """The model as from `load_model`, and the notes saved with it."""
    saved = read_weights(path, expected_tensors)
    return model_from(saved, rng=rng), saved.notes


def model_from(saved: SavedModel, *, rng: np.random.Generator | None = None) -> Any:
    """A model of any class on the arrays of a file, as from `Model.from_saved`."""
    return _MODELS[saved.config["model"]].from_saved(saved, rng=rng)


def expected_tensors(config: dict[str, Any]) -> tuple[np.dtype, dict[str, tuple[int, ...]]]:
    """The dtype, and each array's name and shape, for a saved configuration of any class; ValueError if it is
    invalid."""
    kind = config.get("model")
    if not isinstance(kind, str) or kind not in _MODELS:
        raise ValueError(f"model must be {' or '.join(_MODELS)}, got {kind!r}")
    return _MODELS[kind].expected_tensors(config)
