"""A model as one safetensors file: named arrays, with the model's configuration in the metadata."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rnnfast import _check
from rnnfast.cells import READY, Cell, defined
from rnnfast.files.tensors import Spec, read_tensors, write_tensors
from rnnfast.layers.carrying import Constants
from rnnfast.layers.recurrent import Recurrent

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


# The recurrent layers of a model: their parameters by name, and the initial values.


# Far more layers than can be trained; a damaged file could otherwise ask for a billion.
MOST_LAYERS = 1000


def cell_of(owner: str, cell: Any, name: str = "cell") -> Cell:
    """The cell for a name in `rnnfast.cells`, an entry of a saved model, or a cell.

    `name` is the name of the argument, for errors.
    """
    if isinstance(cell, dict) and set(cell) == {"name", "fingerprint"}:
        cell = defined(str(cell["name"]), str(cell["fingerprint"]))
    if isinstance(cell, Cell):
        if cell.equations.wanted:
            raise ValueError(
                f"{owner}: the cell {cell.name!r} takes the given array {cell.equations.wanted[0]}, "
                "which only its layer can be given; choose another cell."
            )
        return cell
    called = {name: ready for ready in READY for name in ready.names}
    known = called.get(cell.lower()) if isinstance(cell, str) else None
    return known or called[_check.values.choice(owner, name, cell, tuple(ready.name for ready in READY))]


def named_cell(owner: str, cell: str, name: str = "cell") -> Cell:
    """The ready cell of this name, or a user's own cell as `module:name`; imports the module.

    Importing runs the module, so the text must come from the user, never from a file.
    """
    if ":" not in cell:
        return cell_of(owner, cell, name)
    module, _, attribute = cell.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a module can raise anything
        raise _check.objects.cell_not_found(owner, name, cell, error) from error
    if not isinstance(found, Cell):
        raise _check.objects.not_a_cell(owner, name, cell, found)
    return cell_of(owner, found)


def saved_cell(owner: str, cell: Any) -> str | dict[str, str]:
    """The entry of a cell in a saved model: the name of a ready cell, else a name and the fingerprint.

    An existing entry is kept, even if this program's equal cell has a different name.
    """
    found = cell_of(owner, cell)
    if isinstance(cell, dict):
        return {key: str(text) for key, text in cell.items()}
    if any(found is ready for ready in READY):
        return found.name
    return {"name": found.name, "fingerprint": found.fingerprint}


def saved_constants(config: Mapping[str, Any], values: Any) -> list[Constants]:
    """The constants of each layer, read from a file; ValueError or TypeError if they do not fit the cell."""
    if values is None:  # a file without constants
        return []
    cell, layers = cell_of("its cell", config["cell"]), config["layers"]
    if config.get("bidirectional"):
        layers *= 2
    if not isinstance(values, list) or len(values) != layers:
        raise ValueError(f"its constants must be a list of {layers}, one per layer")
    constants = [Constants("its constants", cell) for _ in values]
    for own, given in zip(constants, values, strict=True):
        own.update(given)
    return constants


def recurrent_shapes(
    cell: Cell, layers: int, input_size: int, hidden_size: int
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters of stacked recurrent layers, from bottom to top."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(layers):
        own = cell.shapes(hidden_size if layer else input_size, hidden_size)
        shapes |= {f"layer{layer}_{name}": shape for name, shape in own.items()}
    return shapes


def recurrent_layers(
    cell: Cell, layers: int, arrays: Mapping[str, np.ndarray], rng: np.random.Generator | None = None
) -> list[Recurrent]:
    """Layers on arrays named as in `recurrent_shapes`."""
    names = list(cell.shapes(1, 1))
    return [
        Recurrent(cell, [arrays[f"layer{layer}_{name}"] for name in names], stateful=True, rng=rng)
        for layer in range(layers)
    ]


def initial_values(
    name: str, shape: tuple[int, ...], rng: np.random.Generator, cell: Cell | None
) -> np.ndarray:
    """The initial values of a parameter, as in the book: embedding randn / 100, weights
    randn / sqrt(fan-in), biases zero; a cell may define its own."""
    prefix, _, own = name.partition("_")
    if name == "embed_W":
        if cell is not None and "words" in cell.start:
            return cell.initial("words", shape, rng)
        return rng.standard_normal(shape) / 100
    if cell is not None and prefix.startswith("layer"):
        return cell.initial(own, shape, rng)
    return np.zeros(shape) if len(shape) == 1 else rng.standard_normal(shape) / np.sqrt(shape[0])
