"""The memory of a recurrent layer for the windows of a pass, computed before the pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rnnfast.layers.base import Workspace
from rnnfast.layers.recurrent import Recurrent
from rnnfast.layers.window import NO_RESETS, Rows

_SMALL = 4096  # Python objects, and padding of buffers to cache lines


class Extent(NamedTuple):
    """The size of a window: sequences, steps, steps of all sequences, and blocks of the time grid."""

    batch: int
    steps: int
    rows: int
    blocks: int


class Footprint(NamedTuple):
    """The bytes of a layer, and whether it keeps the tape of all steps for `backward`."""

    bytes: int
    keeps: bool


def footprint(layer: Recurrent, extents: Sequence[Extent], words: int) -> Footprint:
    """The memory of `forward` and `backward` over windows of these sizes, one window after the other.

    It includes scratch, saved states, carried states and their gradients, but not inputs, outputs, parameters
    and their gradients. The layer's own plans allocate their arrays from a workspace that only records sizes.

    Parameters
    ----------
    extents
        The sizes of the windows, the one with the most blocks first.
    words
        Rows of the table in which inputs are looked up; 0 without a table.
    """
    tally = _Tally(None)
    keeps = _planned(layer, extents, words, tally)
    batch, steps = extents[0].batch, max(extent.steps for extent in extents)
    # Zeros, the carried state and the next one, arriving and given gradients.
    states = 5 * len(layer.cell.states) * batch * layer.hidden_size
    table = 2 * words * layer.input_size  # the copy, and its rows that occur
    # Offsets and time grid of this window, and of earlier windows in cached plans.
    places = 3 * (steps + 1 + batch + 2 * extents[0].blocks) * 8
    return Footprint(tally.total + (states + table) * layer.dtype.itemsize + places + _SMALL, keeps)


def make_room(layer: Recurrent, extents: Sequence[Extent], words: int) -> None:
    """Allocate the arrays of `footprint` in the layer's own workspace."""
    _planned(layer, extents, words, _Tally(layer.workspace))
    if words:
        shape = extents[0].batch, max(extent.steps for extent in extents)
        layer.workspace.take("ids", shape, np.dtype(np.int64))


def _planned(layer: Recurrent, extents: Sequence[Extent], words: int, tally: _Tally) -> bool:
    """Plan the windows on a twin of the layer; returns whether the first tape, and so every tape, is kept."""
    twin = object.__new__(type(layer))
    kept = []
    for extent in extents:
        rows = Rows(
            _repeated(extent.rows, extent.steps + 1),
            _repeated(0, extent.batch),
            _repeated(0, extent.blocks + 1),
            NO_RESETS,
            _repeated(0, extent.batch),
            _repeated(0, extent.steps),
        )
        twin.__dict__.update(layer.__dict__, _workspace=tally)
        kept.append(twin.plan_forward(extent.batch, rows, words, True).intact == 0)
        twin.plan_backward(extent.batch, rows, words, not kept[-1])  # recomputing the tape takes more scratch
        if kept[-1]:
            break  # later windows are smaller
    return kept[0]


def _repeated(value: int, count: int) -> np.ndarray:
    """An array of one repeated number that takes the memory of one element."""
    return np.ndarray((count,), np.int64, np.array(value, np.int64), strides=(0,))


class _Tally(Workspace):
    """Records the largest size of each array; returns arrays that take the memory of one element, or arrays
    of a real workspace."""

    def __init__(self, real: Workspace | None) -> None:
        super().__init__()
        self._real = real
        self._sizes: dict[str, int] = {}

    def take(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """An array of this shape."""
        size = math.prod(shape) * dtype.itemsize
        self._sizes[name] = max(self._sizes.get(name, 0), size)
        if self._real is not None:
            return self._real.take(name, shape, dtype)
        return np.ndarray(shape, dtype, np.zeros((), dtype), strides=(0,) * len(shape))

    @property
    def total(self) -> int:
        """Bytes of all arrays, each at its largest size, rounded to cache lines."""
        return sum(self._sizes.values()) + 256 * len(self._sizes)
