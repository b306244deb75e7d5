"""A model as one safetensors file: named arrays, with the model's configuration in the metadata."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rnnfast import _check
from rnnfast.files.tensors import Spec, read_tensors, write_tensors
from rnnfast.models.cells import saved_constants

FORMAT = "rnnfast-1"


class SavedModel(NamedTuple):
    """The content of a file: the model's configuration, its arrays by name, the notes stored with it, and the
    constants of each layer's cell, if the file has any."""

    config: dict[str, Any]
    tensors: dict[str, np.ndarray]
    notes: dict[str, Any]
    constants: Sequence[Mapping[str, float]] = ()


def write_weights(
    path: str | os.PathLike[str],
    tensors: Mapping[str, np.ndarray],
    config: Mapping[str, Any],
    notes: Mapping[str, Any] | None = None,
    constants: Sequence[Mapping[str, float]] = (),
) -> None:
    """Write arrays and their configuration as one safetensors file, atomically.

    Parameters
    ----------
    path
        The file to write; an older one stays until the new one is complete.
    tensors
        Name to float32 or float64 array, any shape and layout.
    config
        The model's constructor arguments as JSON values, kept in the file's metadata.
    notes
        More JSON values, stored in the file.
    constants
        The constants of each layer's cell.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    own = {"constants": [dict(values) for values in constants]} if constants else {}
    write_tensors(path, FORMAT, tensors, {"model": dict(config), "notes": dict(notes or {}), **own})


def read_weights(
    path: str | os.PathLike[str],
    expect: Callable[[dict[str, Any]], tuple[np.dtype, dict[str, tuple[int, ...]]]],
) -> SavedModel:
    """Read a file of `write_weights`.

    Parameters
    ----------
    path
        The file.
    expect
        Called with the configuration; returns the dtype and the shape of every tensor the file must hold, or
        raises `ValueError` or `TypeError` if the configuration is invalid.

    Returns
    -------
    SavedModel
        Its arrays are C-contiguous, in native byte order.

    Raises
    ------
    CheckpointError
        The file is damaged or does not match its configuration, or the program has not defined the model's
        cell. The message names the file.
    OSError
        The file cannot be read.
    """

    def specs(described: dict[str, Any]) -> dict[str, Spec]:
        config, notes = described.get("model"), described.get("notes")
        if not isinstance(config, dict) or not isinstance(notes, dict):
            raise ValueError("it lacks the model or the notes")
        try:
            dtype, shapes = expect(config)
            saved_constants(config, described.get("constants"))
        except _check.CellMissing as error:
            raise _check.objects.cell_missing(error.name, error.fingerprint, path) from None
        return {name: Spec(dtype, shape) for name, shape in shapes.items()}

    described, tensors = read_tensors(path, FORMAT, specs)
    config, constants = described["model"], described.get("constants")
    return SavedModel(config, tensors, described["notes"], saved_constants(config, constants))
