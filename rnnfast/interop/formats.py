"""Files of models and layers, one entry a format; and `convert`, from one to another."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from shutil import copyfileobj
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from rnnfast import _check
from rnnfast.cells import Cell
from rnnfast.files.atomic import write_atomically
from rnnfast.files.tensors import form_of
from rnnfast.interop.archives import read_npz, read_pt, read_safetensors, write_layers, write_npz, write_pt
from rnnfast.interop.book import book_arrays, from_book, to_book
from rnnfast.interop.named import (
    agree,
    arrays_of,
    cells_of,
    computed,
    described_model,
    description_of,
    lost_settings,
    model_of,
)
from rnnfast.interop.torch import is_state_dict, model_of_state_dict, state_dict_of
from rnnfast.layers.bidirectional import Bidirectional
from rnnfast.layers.recurrent import Recurrent
from rnnfast.layers.stack import Stack
from rnnfast.models.loading import load_model
from rnnfast.models.model import Model
from rnnfast.models.regressor import SequenceRegressor
from rnnfast.models.rnnlm import RNNLM
from rnnfast.models.weights import FORMAT, cell_of

KINDS = (RNNLM, SequenceRegressor, Recurrent, Bidirectional, Stack)


class Entry(NamedTuple):
    """An array of a file."""

    name: str
    shape: tuple[int, ...]


# The arrays of a file that hold each parameter.
Places = Mapping[str, list[Entry]]


class Read(NamedTuple):
    """What a file holds."""

    model: Any
    places: Places


class Written(NamedTuple):
    """The arrays of a written file, and the difference if the writer has compared it."""

    places: Places
    difference: float | None = None


class Format(NamedTuple):
    """How files of one ending are read, with a cell for files that do not tell it, and written."""

    read: Callable[[Path, Cell | None], Read]
    write: Callable[[Any, Path], Written]


class Row(NamedTuple):
    """Where one parameter came from and went."""

    parameter: str
    shape: tuple[int, ...]
    read: list[Entry]
    written: list[Entry]


class Converted(NamedTuple):
    """The result of `convert`: the model in between, a row for each parameter, the largest difference between
    both sides on random input, and a sentence for each setting that the target does not keep."""

    model: Any
    rows: list[Row]
    difference: float
    notes: list[str]


def load(path: str | os.PathLike[str], *, cell: str | Cell | None = None) -> Any:
    """The model or layers in a file of any format that `convert` reads.

    Parameters
    ----------
    path
        The file; its ending tells the format.
    cell : str or Cell, optional
        The cell of all layers, where the file does not tell it.

    Returns
    -------
    model : RNNLM, SequenceRegressor, Recurrent, Bidirectional or Stack

    Raises
    ------
    CheckpointError, TypeError, ValueError, ModuleNotFoundError, OSError
        As in `convert`.

    Examples
    --------
    >>> import pathlib, tempfile, rnnfast
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "layer.npz")
    ...     converted = save(rnnfast.TimeLSTM.from_sizes(3, 4), path)
    ...     load(path)
    TimeLSTM(input_size=3, hidden_size=4, stateful=False)
    """
    return _read("load", Path(path), cell).model


def save(model: Any, path: str | os.PathLike[str]) -> Converted:
    """Write a model or layers in a format of `convert`, and compare the file with them on random input.

    Parameters
    ----------
    model : RNNLM, SequenceRegressor, Recurrent, Bidirectional or Stack
    path
        The file; its ending tells the format. An older one is replaced once the new one is complete.

    Raises
    ------
    TypeError, ValueError, ModuleNotFoundError, OSError
        As in `convert`.

    Examples
    --------
    >>> import pathlib, tempfile, rnnfast
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(rnnfast.TimeLSTM.from_sizes(3, 4), pathlib.Path(folder, "layer.npz")).difference
    0.0
    """
    _check.objects.instances("save", [model], KINDS)
    return _written("save", Read(model, {}), Path(path))


def convert(
    source: str | os.PathLike[str], target: str | os.PathLike[str], *, cell: str | Cell | None = None
) -> Converted:
    """Read a model or layers from one file, write another, and compare both on random input.

    The endings of the files tell their formats: .safetensors, .onnx, .npz, .pt and .pkl.

    Parameters
    ----------
    source, target
        The files, which may be the same; an older `target` is replaced once the new one is complete and has
        been compared.
    cell : str or Cell, optional
        The cell of all layers, where the file does not tell it.

    Raises
    ------
    CheckpointError
        The file is damaged, or holds no such model.
    TypeError, ValueError
        The format of the target cannot represent the model, or an ending is unknown.
    ModuleNotFoundError
        A package for one of the formats is not installed.
    OSError
        A file cannot be read or written.

    Examples
    --------
    >>> import pathlib, tempfile, rnnfast
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model, other = pathlib.Path(folder, "model.safetensors"), pathlib.Path(folder, "Rnnlm.pkl")
    ...     rnnfast.RNNLM(7, 3, 4).save(model)
    ...     convert(model, other).rows[1]
    Row(parameter='layer0_Wx', shape=(3, 4), read=[Entry(name='layer0_Wx', shape=(3, 4))],
        written=[Entry(name='[1]', shape=(3, 4))])
    """
    format_of(Path(target))  # before anything is read
    return _written("convert", _read("convert", Path(source), cell), Path(target))


def _read(owner: str, path: Path, given: str | Cell | None) -> Read:
    """What a file holds, with all layers of the cell that is given."""
    cell, form = None if given is None else cell_of(owner, given), format_of(path)
    _check.training.readable(owner, path)
    found = form.read(path, cell)
    if not isinstance(found.model, KINDS):
        raise _check.CheckpointError(f"{path}: a {type(found.model).__name__} has no other format.")
    for own in cells_of(found.model):
        if cell is not None and own.fingerprint != cell.fingerprint:
            raise _check.interop.cell_of_file("convert", path, cell.name, own.name)
    return found


def _written(owner: str, given: Read, target: Path) -> Converted:
    """Write a model, and read it again for a comparison."""
    model, writes = given.model, format_of(target)
    with _complete(target) as file:
        written = writes.write(model, file)
        again, difference = _read_again(writes, file, model), written.difference
        if difference is None:
            difference = agree(owner, str(target), computed(model), computed(again))
    rows = [
        Row(name, array.shape, given.places.get(name, []), written.places.get(name, []))
        for name, array in arrays_of(model).items()
    ]
    return Converted(model, rows, difference, lost_settings(model, again, target.suffix))


def _read_again(format: Format, file: Path, model: Any) -> Any:
    """The model in a file that was written."""
    first, *others = cells_of(model)
    return format.read(file, None if any(cell is not first for cell in others) else first).model


@contextmanager
def _complete(target: Path) -> Iterator[Path]:
    """A file beside `target` that replaces it at the end of the block; an exception leaves `target` as it
    was."""
    try:
        with TemporaryDirectory(prefix=".rnnfast-", dir=target.parent) as folder:
            file = Path(folder, target.name)
            yield file
            with open(file, "rb") as content, write_atomically(target) as replaced:
                copyfileobj(content, replaced)
    except OSError as error:
        error.filename = str(target)
        raise


def format_of(path: Path) -> Format:
    """The format of a file by its ending."""
    if path.suffix.lower() not in FORMATS:
        raise _check.interop.unknown_ending(path, tuple(FORMATS))
    return FORMATS[path.suffix.lower()]


def _as_they_are(arrays: Mapping[str, np.ndarray]) -> Places:
    return {name: [Entry(name, array.shape)] for name, array in arrays.items()}


def _by_names(names: Mapping[str, list[str]], arrays: Mapping[str, np.ndarray]) -> Places:
    return {ours: [Entry(name, arrays[name].shape) for name in theirs] for ours, theirs in names.items()}


def _check_finite(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """No NaN and no infinity in the arrays of a file; CheckpointError otherwise."""
    try:
        for name, array in arrays.items():
            _check.interop.finite_array("convert", name, array)
    except ValueError as error:
        raise _check.training.malformed(path, str(error).removeprefix("convert: ").rstrip(".")) from None


def _named_model(
    path: Path, arrays: dict[str, np.ndarray], description: dict[str, Any] | None, cell: Cell | None
) -> Read:
    """The model on arrays by our names or PyTorch's; CheckpointError if there is none."""
    arrays = {name: array.astype(np.float32) if array.dtype == np.float16 else array
              for name, array in arrays.items()}  # fmt: skip
    _check_finite(path, arrays)
    try:
        if description is not None:
            return Read(described_model("convert", arrays, description), _as_they_are(arrays))
        if is_state_dict(arrays):
            model, names = model_of_state_dict("convert", arrays, cell)
            return Read(model, _by_names(names, arrays))
        return Read(model_of("convert", arrays, cell), _as_they_are(arrays))
    except _check.CellMissing as error:
        raise _check.objects.cell_missing(error.name, error.fingerprint, path) from None
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        reason = str(error) if isinstance(error, ValueError | TypeError) else "its description is not valid"
        reason = reason.rpartition("convert: ")[2].removeprefix("from_torch: ")
        raise _check.training.malformed(path, reason.rstrip(".")) from None


def _read_safetensors(path: Path, cell: Cell | None) -> Read:
    if form_of(path) == FORMAT:
        model = load_model(path)
        _check_finite(path, arrays_of(model))
        return Read(model, _as_they_are(arrays_of(model)))
    return _named_model(path, *read_safetensors(path), cell)


def _write_safetensors(model: Any, path: Path) -> Written:
    arrays = arrays_of(model)
    if isinstance(model, Model):
        model.save(path)
    else:
        write_layers(path, arrays, description_of(model))
    return Written(_as_they_are(arrays))


def _write_npz(model: Any, path: Path) -> Written:
    arrays = arrays_of(model)
    write_npz(path, arrays, description_of(model))
    return Written(_as_they_are(arrays))


def _write_pt(model: Any, path: Path) -> Written:
    arrays, names = state_dict_of(model)
    write_pt(path, arrays)
    return Written(_by_names(names, arrays))


def _in_list(model: Any) -> Places:
    """The places of each parameter in the book's list; tied weights have two."""
    ours = arrays_of(model)
    places: dict[str, list[Entry]] = {}
    for place, (name, array) in enumerate(book_arrays("convert", model).items()):
        places.setdefault(name if name in ours else "embed_W", []).append(Entry(f"[{place}]", array.shape))
    return places


def _read_pkl(path: Path, cell: Cell | None) -> Read:
    model = from_book(path, cell=cell)
    return Read(model, _in_list(model))


def _write_pkl(model: Any, path: Path) -> Written:
    to_book(model, path, dtype=model.dtype)  # the book reads any dtype; its float16 would lose digits
    return Written(_in_list(model))


def _read_onnx(path: Path, cell: Cell | None) -> Read:
    from rnnfast.interop.onnx_import import from_onnx
    from rnnfast.interop.onnx_import import model_of as model_of_graph

    graph = from_onnx(path)
    try:
        model, homes = model_of_graph(graph)
    except _check.CheckpointError:
        raise
    except ValueError as error:
        reason = str(error).removeprefix("Graph.model: ").partition("; use ")[0]
        raise _check.training.malformed(path, reason.rstrip(".")) from None
    _check_finite(path, arrays_of(model))
    return Read(model, {ours: [Entry(*home) for home in theirs] for ours, theirs in homes.items()})


def _write_onnx(model: Any, path: Path) -> Written:
    from rnnfast.interop.onnx_export import to_onnx

    exported = to_onnx(model, path)
    places: dict[str, list[Entry]] = {}
    for parameter, shape, initializer in exported.placed:
        places.setdefault(parameter, []).append(Entry(initializer, shape))
    return Written(places, exported.difference)


FORMATS: Mapping[str, Format] = {
    ".safetensors": Format(_read_safetensors, _write_safetensors),
    ".onnx": Format(_read_onnx, _write_onnx),
    ".npz": Format(lambda path, cell: _named_model(path, *read_npz(path), cell), _write_npz),
    ".pt": Format(lambda path, cell: _named_model(path, *read_pt(path), cell), _write_pt),
    ".pkl": Format(_read_pkl, _write_pkl),
}
