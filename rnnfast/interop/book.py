"""The lists of arrays of *Deep Learning from Scratch 2*, as its `save_params` pickles them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pickle import dump
from typing import Any

import numpy as np

from rnnfast import _check, cells
from rnnfast.cells import Cell
from rnnfast.files.atomic import write_atomically
from rnnfast.interop.archives import read_arrays
from rnnfast.interop.named import arrays_of, model_of
from rnnfast.interop.structure import directions
from rnnfast.layers.recurrent import Recurrent
from rnnfast.models.model import Model
from rnnfast.models.rnnlm import RNNLM

_CELLS = (cells.rnn, cells.gru, cells.lstm)


def from_book(
    source: str | os.PathLike[str] | Sequence[np.ndarray],
    *,
    cell: str | Cell | None = None,
) -> Any:
    """The model or the layers in a list of parameters of the book.

    Parameters
    ----------
    source : path or sequence of ndarray
        A file of the book's `save_params`, such as `Rnnlm.pkl`, which may come from a stranger: nothing in it
        is run. Or its list: ``[embed_W, Wx, Wh, b, ..., affine_W, affine_b]`` of `SimpleRnnlm`, `Rnnlm` and
        `BetterRnnlm`, or ``[Wx, Wh, b, ...]`` of layers alone, from bottom to top. float16 becomes float32.
    cell : {"rnn", "gru", "lstm"}, optional
        The cell that the layers must have; by default, 1, 3 or 4 blocks of columns tell it.

    Returns
    -------
    model : RNNLM, TimeRNN, TimeGRU, TimeLSTM or Stack
        On copies of the arrays. An `RNNLM` is tied if `affine_W` equals `embed_W.T`, as in `BetterRnnlm`.
        Dropout, which the list does not record, is 0.

    Raises
    ------
    CheckpointError
        The file is damaged, or holds anything but such a list.
    TypeError, ValueError
        The list is no such list, or its layers have another cell.
    OSError
        The file cannot be read.

    Examples
    --------
    >>> import rnnfast
    >>> rng = np.random.default_rng(0)
    >>> shapes = [(7, 3), (3, 16), (4, 16), (16,), (4, 7), (7,)]
    >>> params = [rng.standard_normal(shape).astype(np.float16) for shape in shapes]
    >>> from_book(params)
    RNNLM(vocab_size=7, embed_size=3, hidden_size=4, cell='lstm', layers=1, ...)
    """
    owner = "from_book"
    chosen = None if cell is None else _cell_of_book(owner, cell)
    if not isinstance(source, str | os.PathLike):
        return _with_cell(owner, _model(owner, list(source)), chosen, "the list")
    _check.training.readable(owner, source)
    arrays = read_arrays(source)
    try:
        model = _model(owner, arrays)
    except (TypeError, ValueError) as error:
        raise _check.training.malformed(source, str(error).removeprefix(f"{owner}: ").rstrip(".")) from None
    return _with_cell(owner, model, chosen, source)


def to_book(
    model: Any,
    path: str | os.PathLike[str] | None = None,
    *,
    dtype: np.typing.DTypeLike = np.float16,
) -> list[np.ndarray]:
    """The book's list of the parameters of a model or of layers, and with `path`, a pickle of it.

    Parameters
    ----------
    model : RNNLM, Recurrent or Stack
        With the cells RNN, GRU (``reset="before"``) and LSTM, in one direction.
    path : optional
        The file for the book's `load_params`; an older one stays until the new one is complete.
    dtype : float16, float32 or float64
        The book saves float16.

    Returns
    -------
    list of ndarray
        Copies. Tied weights occur twice, as in the book.

    Raises
    ------
    TypeError, ValueError
        The book has no such model, a value is NaN, infinite or too large for `dtype`.
    OSError
        The file cannot be written.

    Examples
    --------
    >>> import rnnfast
    >>> layer = rnnfast.TimeLSTM.from_sizes(3, 4)
    >>> [array.shape for array in to_book(layer)]
    [(3, 16), (4, 16), (16,)]
    """
    owner = "to_book"
    kind = np.dtype(
        _check.values.choice(owner, "dtype", np.dtype(dtype).name, ("float16", "float32", "float64"))
    )
    named = book_arrays(owner, model)
    params = [_rounded(owner, name, array, kind) for name, array in named.items()]
    if path is not None:
        with write_atomically(path) as file:
            dump(params, file)
    return params


def book_arrays(owner: str, model: Any) -> dict[str, np.ndarray]:
    """The arrays of the book's list by our names, not copies; tied weights are the `output_W` at the end."""
    for layer in _layers(owner, model):
        if all(layer.cell.fingerprint != known.fingerprint for known in _CELLS):
            raise _check.interop.not_representable(owner, "the book", layer.cell.name)
    arrays = arrays_of(model)
    if isinstance(model, RNNLM) and model.tied:
        arrays["output_W"] = model.output.params[0]
        arrays["output_b"] = arrays.pop("output_b")
    return arrays


def _rounded(owner: str, name: str, array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    _check.interop.finite_array(owner, name, array)
    with np.errstate(over="ignore"):
        rounded = array.astype(dtype)
    if (np.isinf(rounded) & np.isfinite(array)).any():
        raise ValueError(f"{owner}: {name} has values that {dtype} cannot hold; pass dtype=np.float32.")
    return rounded


def _cell_of_book(owner: str, cell: str | Cell) -> Cell:
    """The one of the book's three cells that a name or an equal cell means; ValueError for others."""
    for known in _CELLS:
        if isinstance(cell, Cell) and cell.fingerprint == known.fingerprint:
            return known
    names = tuple(known.name for known in _CELLS)
    return _CELLS[names.index(_check.values.choice(owner, "cell", cell, names))]


def _with_cell(owner: str, model: Any, cell: Cell | None, where: Any) -> Any:
    """The model, whose layers must have the cell that was asked for."""
    for layer in _layers(owner, model):
        if cell is not None and layer.cell is not cell:
            raise _check.interop.cell_of_file(owner, where, cell.name, layer.cell.name)
    return model


def _model(owner: str, arrays: list[Any]) -> Any:
    named = named_of_book(owner, arrays)
    for name, array in named.items():
        _check.interop.finite_array(owner, name, array)
    untied = dict(named)
    if "embed_W" in named and np.array_equal(named["embed_W"].T, named["output_W"]):
        del untied["output_W"]
    return model_of(owner, untied)


def named_of_book(owner: str, arrays: Sequence[Any]) -> dict[str, np.ndarray]:
    """Copies of the arrays of a list by our names, in float32 or float64."""
    kinds = [getattr(array, "dtype", None) for array in arrays]
    dtype = np.dtype(np.float64 if np.float64 in kinds else np.float32)
    names = [f"layer{place}_{name}" for place in range(len(arrays) // 3) for name in ("Wx", "Wh", "b")]
    if len(arrays) > 3 and np.ndim(arrays[2]) == 2:
        names = ["embed_W", *names[:-3], "output_W", "output_b"]
    if len(names) != len(arrays) or not names:
        raise ValueError(
            f"{owner}: the arrays must be embed_W, then Wx, Wh and b of each layer, then affine_W "
            f"and affine_b, or Wx, Wh and b of each layer alone; got {len(arrays)} arrays of "
            "other shapes."
        )
    return {name: _copied(owner, name, array, dtype) for name, array in zip(names, arrays, strict=True)}


def _copied(owner: str, name: str, value: Any, dtype: np.dtype) -> np.ndarray:
    array = _check.arrays.shape(
        owner, name, value, ("columns",) if name.endswith("_b") else ("rows", "columns")
    )
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise _check.interop.array_kind(owner, name, array.dtype.name)
    return np.array(array, dtype, order="C", subok=False)


def _layers(owner: str, model: Any) -> list[Recurrent]:
    """The layers of a model or a stack that reads in one direction."""
    if isinstance(model, RNNLM):
        return model.body.layers
    if isinstance(model, Model):
        raise _check.interop.no_place_for(owner, "the book's list", f"a {type(model).__name__}")
    both = directions(owner, model)
    if any(len(layers) > 1 for layers in both):
        raise ValueError(f"{owner}: the book has no list of layers in two directions.")
    return [layer for (layer,) in both]
