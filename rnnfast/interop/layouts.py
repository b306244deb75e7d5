"""How other libraries store a recurrent layer: order of gates, signs, transposition, biases; one table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from rnnfast import _check, cells
from rnnfast.cells import Cell


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
