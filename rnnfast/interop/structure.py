"""Layers as other libraries see them: from bottom to top, each with one or two directions; their arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rnnfast import _check, cells
from rnnfast.cells import Cell
from rnnfast.layers.bidirectional import Bidirectional
from rnnfast.layers.gru import TimeGRU
from rnnfast.layers.lstm import TimeLSTM
from rnnfast.layers.recurrent import Recurrent
from rnnfast.layers.rnn import TimeRNN
from rnnfast.layers.stack import Stack

# How other libraries store a recurrent layer: order of gates, signs, transposition, biases; one table.


class Layout(NamedTuple):
    """One cell in the form of another library.

    Attributes
    ----------
    gates : str
        The cell's gates in the library's order, each a letter.
    transposed : bool
        Whether weights are (G*H, D) and (G*H, H).
    biases : {"two", "one", "recurrent", "candidate"}
        Which biases there are beside that of the inputs: a second one for the state ("two"), none ("one"),
        the second one only ("recurrent"), or the second one for the last block only ("candidate").
    negated : str
        Gates whose value is 1 minus the cell's: 1 - sigmoid(a) = sigmoid(-a).
    peepholes : tuple of str
        The cell's parameters (H,) through which gates read the cell state, in the library's order.
    """

    gates: str
    transposed: bool
    biases: str
    negated: str = ""
    peepholes: tuple[str, ...] = ()


class Arrays(NamedTuple):
    """A layer's arrays in a library's order of gates: weights of inputs and of the state, and both biases
    (G*H,).

    The layer adds the two biases, but the second one of a GRU's last gate is reset.
    """

    wx: np.ndarray
    wh: np.ndarray
    bx: np.ndarray
    bh: np.ndarray


# The gates of `rnnfast.cells`: f g i o of lstm, z r n of gru and gru_after, a of rnn and rnn_relu. PyTorch,
# Keras, Flax and ONNX let z keep the state; here, as in the book, it replaces it. Cells that are missing
# compute another function than any layer of the library.
LAYOUTS: Mapping[str, Mapping[Cell, Layout]] = {
    "torch": {
        cells.rnn: Layout("a", True, "two"),
        cells.rnn_relu: Layout("a", True, "two"),
        cells.lstm: Layout("ifgo", True, "two"),
        cells.gru_after: Layout("rzn", True, "two", negated="z"),
    },
    "keras": {
        cells.rnn: Layout("a", False, "one"),
        cells.rnn_relu: Layout("a", False, "one"),
        cells.lstm: Layout("ifgo", False, "one"),
        cells.gru: Layout("zrn", False, "one", negated="z"),
        cells.gru_after: Layout("zrn", False, "two", negated="z"),
    },
    "flax nnx": {
        cells.rnn: Layout("a", False, "one"),
        cells.rnn_relu: Layout("a", False, "one"),
        cells.lstm: Layout("ifgo", False, "recurrent"),
        cells.gru_after: Layout("rzn", False, "one", negated="z"),
    },
    "flax linen": {
        cells.rnn: Layout("a", False, "one"),
        cells.rnn_relu: Layout("a", False, "one"),
        cells.lstm: Layout("ifgo", False, "recurrent"),
        cells.gru_after: Layout("rzn", False, "candidate", negated="z"),
    },
    "ONNX": {
        cells.rnn: Layout("a", True, "two"),
        cells.rnn_relu: Layout("a", True, "two"),
        cells.lstm: Layout("iofg", True, "two"),
        cells.gru: Layout("zrn", True, "two", negated="z"),
        cells.gru_after: Layout("zrn", True, "two", negated="z"),
        cells.peephole_lstm: Layout("iofg", True, "two", peepholes=("pi", "po", "pf")),
    },
}


def cell_with(gates: int, activation: str = "tanh", reset: str = "after") -> Cell:
    """The cell of RNN, GRU or LSTM with 1, 3 or 4 gates; `activation` is that of an RNN, `reset` of a GRU."""
    rnn = cells.rnn_relu if activation == "relu" else cells.rnn
    return {1: rnn, 3: cells.gru_after if reset == "after" else cells.gru, 4: cells.lstm}[gates]


def cell_of(owner: str, library: str, cell: Cell) -> Cell:
    """The cell of `LAYOUTS` that computes what this cell computes, under its own names of gates; ValueError
    if none of the library's layers does."""
    for known in LAYOUTS[library]:
        if cell.fingerprint == known.fingerprint:
            return known
    raise _check.interop.not_representable(owner, library, cell.name)


def to_library(cell: Cell, layout: Layout, params: Mapping[str, np.ndarray]) -> Arrays:
    """The arrays of a library from parameters by name: Wx (D, G*H), Wh (H, G*H), b (G*H,), and bhh (H,) of
    `gru_after`."""
    wx, wh, bx = (
        _moved(params[name], cell.gates, tuple(layout.gates), layout.negated) for name in ("Wx", "Wh", "b")
    )
    bh = np.zeros_like(bx)
    if "bhh" in params:
        bh[-params["bhh"].size :] = params["bhh"]
    if layout.transposed:
        wx, wh = (np.ascontiguousarray(array.T) for array in (wx, wh))
    return Arrays(wx, wh, bx, bh)


def from_library(cell: Cell, layout: Layout, arrays: Arrays) -> dict[str, np.ndarray]:
    """The inverse of `to_library`; both biases of a gate become their sum where the cell has one."""
    wx, wh, b, bh = with_one_bias(cell, arrays)
    if layout.transposed:
        wx, wh = wx.T, wh.T
    apart = {"bhh": bh[-wh.shape[0] :]} if cell.apart else {}
    given = {"Wx": wx, "Wh": wh, "b": b}
    moved = {
        name: _moved(array, tuple(layout.gates), cell.gates, layout.negated) for name, array in given.items()
    }
    return {**moved, **apart}


def with_one_bias(cell: Cell, arrays: Arrays) -> Arrays:
    """The same layer with the sum of both biases in the first one, and the second one only where it is
    reset."""
    b, reset = arrays.bx + arrays.bh, np.zeros_like(arrays.bh)
    if cell.apart:
        width = b.size // len(cell.gates)
        b[-width:], reset[-width:] = arrays.bx[-width:], arrays.bh[-width:]
    return arrays._replace(bx=b, bh=reset)


def where_biases_are(owner: str, library: str, layout: Layout, arrays: Arrays) -> Arrays:
    """The same layer with biases only where the library has them; ValueError for a reset bias without a
    place."""
    bx, bh = arrays.bx, arrays.bh
    if layout.biases == "recurrent":
        return arrays._replace(bx=np.zeros_like(bx), bh=bx + bh)
    if layout.biases == "one" and bh.any():
        raise ValueError(
            f"{owner}: {library} has no place for the recurrent bias bhh of a GRU, and it is not "
            "zero; PyTorch, Keras and Flax linen have one."
        )
    return arrays


def _moved(array: np.ndarray, have: tuple[str, ...], want: tuple[str, ...], negated: str) -> np.ndarray:
    """The blocks of the last axis in another order, those of `negated` gates with the other sign; a copy."""
    blocks = dict(zip(have, np.split(array, len(have), axis=-1), strict=True))
    return np.concatenate([-blocks[gate] if gate in negated else blocks[gate] for gate in want], axis=-1)


# A layer, and what is made of layers.
Layers = Recurrent | Bidirectional | Stack
# A library's arrays for each direction of each layer, from bottom to top, and the cell that they are of.
Sides = list[tuple[tuple[Cell, Arrays], ...]]


def directions(owner: str, model: Any) -> list[tuple[Recurrent, ...]]:
    """The layers of a layer or a stack from bottom to top, each as the one that reads forwards and, if there
    is one, that which reads backwards."""
    _check.objects.instances(owner, [model], (Recurrent, Bidirectional, Stack))
    layers = model.layers if isinstance(model, Stack) else [model]
    return [
        (one.layer_forward, one.layer_backward) if isinstance(one, Bidirectional) else (one,)
        for one in layers
    ]


def parameters(layer: Recurrent) -> dict[str, np.ndarray]:
    """A layer's parameters by name."""
    return dict(zip(layer.parameter_names, layer.params, strict=True))


def layer_of(cell: Cell, params: Mapping[str, Any], stateful: bool = False) -> Recurrent:
    """The layer of a cell on these parameters, one of the book's layers where there is one."""
    if cell is cells.lstm:
        return TimeLSTM(**params, stateful=stateful)
    if cell in (cells.gru, cells.gru_after):
        return TimeGRU(**params, stateful=stateful, reset="after" if cell is cells.gru_after else "before")
    if cell in (cells.rnn, cells.rnn_relu):
        return TimeRNN(**params, stateful=stateful, activation="tanh" if cell is cells.rnn else "relu")
    return Recurrent(cell, list(params.values()), stateful)


def assembled(layers: Sequence[Sequence[Recurrent]], dropout: float = 0.0) -> Layers:
    """One layer, or a `Stack` of several, from the directions of each."""
    made = [Bidirectional(*both) if len(both) == 2 else both[0] for both in layers]
    return made[0] if len(made) == 1 else Stack(made, dropout)


def sides_of(owner: str, library: str, model: Any) -> Sides:
    """The arrays of a layer or a stack in the form of a library; copies. ValueError for a NaN or infinity."""

    def side(layer: Recurrent, place: str) -> tuple[Cell, Arrays]:
        cell = cell_of(owner, library, layer.cell)
        for name, param in parameters(layer).items():
            _check.interop.finite_array(owner, f"{name} of layer {place}", param)
        layout = LAYOUTS[library][cell]
        arrays = to_library(cell, layout, parameters(layer))
        return cell, where_biases_are(owner, library, layout, arrays)

    return [
        tuple(side(layer, f"{number}{end}") for layer, end in zip(both, ("", " (backwards)"), strict=False))
        for number, both in enumerate(directions(owner, model))
    ]


def layers_of(
    owner: str, library: str, sides: Sides, stateful: Sequence[bool], dropout: float = 0.0
) -> Layers:
    """The inverse of `sides_of`; one entry of `stateful` for each layer. ValueError if one layer does not fit
    another."""

    def layer(cell: Cell, arrays: Arrays, stateful: bool) -> Recurrent:
        return layer_of(cell, from_library(cell, LAYOUTS[library][cell], arrays), stateful)

    made = [[layer(*side, carries) for side in both] for both, carries in zip(sides, stateful, strict=True)]
    _check_sizes(owner, made)
    return assembled(made, dropout)


def _check_sizes(owner: str, layers: Sequence[Sequence[Recurrent]]) -> None:
    size, why = layers[0][0].input_size, "the input size of the other direction"
    for number, both in enumerate(layers):
        for layer, end in zip(both, ("", " (backwards)"), strict=False):
            if layer.input_size != size:
                raise ValueError(
                    f"{owner}: the input size of layer {number}{end} must be {size}, {why}, got "
                    f"{layer.input_size}."
                )
        size, why = sum(layer.hidden_size for layer in both), f"what layer {number} puts out"


# Arrays and tensors of other libraries.

HALVES = ("float16", "bfloat16")  # both fit into float32


def copied(owner: str, name: str, value: Any, dtype: np.dtype | None = None) -> np.ndarray:
    """A C-ordered copy of an array or tensor of any library, in float32 or float64.

    `dtype` converts it; without one, only float32 and float64 are accepted, and kept.
    """
    is_tensor = hasattr(value, "detach")
    if not (is_tensor or hasattr(value, "__array__")) or isinstance(value, np.ndarray):
        value = _check.arrays.shape(owner, name, value, ("...",) if np.ndim(value) else ())
    kind = getattr(value.dtype, "name", str(value.dtype).rpartition(".")[2])
    if kind not in ("float32", "float64") and (dtype is None or kind not in HALVES):
        raise _check.interop.array_kind(owner, name, kind)
    if getattr(value, "is_meta", False):
        raise ValueError(
            f"{owner}: {name} is on the device meta, which holds no numbers; load the weights into it first."
        )
    if is_tensor:
        value = value.detach().cpu()
        value = (value.float() if kind in HALVES else value).numpy()
    return np.array(np.asarray(value), np.dtype(kind) if dtype is None else dtype, order="C")


def copied_all(owner: str, given: dict[str, Any], dtype: np.dtype | None) -> dict[str, np.ndarray]:
    """Copies of all arrays of a model, which must be finite and of one dtype."""
    copies = {name: copied(owner, name, value, dtype) for name, value in given.items()}
    first = next(iter(copies.values()))
    for name, array in copies.items():
        if array.dtype != first.dtype:
            raise TypeError(
                f"{owner}: {name} must be {first.dtype.name}, the dtype of the first array, got "
                f"{array.dtype.name}; pass dtype=np.{first.dtype.name} to convert all."
            )
        _check.interop.finite_array(owner, name, array)
    return copies
