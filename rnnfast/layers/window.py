"""The parts of one window of a recurrent layer: threads, inputs, and the cache for backward."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from rnnfast import _check
from rnnfast.engine import threads
from rnnfast.kernels.recurrence.groups import add_gradients
from rnnfast.kernels.recurrence.sequence import time_grid

# The layout of a batch's steps in the time-major arrays of the recurrent kernels.


NO_RESETS = np.zeros((0, 0), np.bool_)


class Rows(NamedTuple):
    """The places of a batch's steps in time-major arrays, under the kernels' names."""

    offsets: np.ndarray
    order: np.ndarray
    blocks: np.ndarray
    resets: np.ndarray
    sequence_rows: np.ndarray
    step_rows: np.ndarray

    @classmethod
    def batch_first(cls, offsets: np.ndarray, order: np.ndarray, blocks: np.ndarray, resets: Any) -> Rows:
        """The caller's arrays are (N, T, ...)."""
        steps = offsets.size - 1
        return cls(offsets, order, blocks, resets, order * steps, np.arange(steps))


class Sorted(NamedTuple):
    """Lengths (N,) within a part of a window, and the order (N,) of the rows in the whole window."""

    lengths: np.ndarray
    order: np.ndarray


def falling_order(lengths: np.ndarray) -> np.ndarray:
    """The sequences by falling length (N,); equal lengths keep the order of the batch."""
    return np.argsort(-lengths, kind="stable").astype(np.int64, copy=False)


def offsets_of(lengths: np.ndarray, steps: int) -> np.ndarray:
    """The first row of each step, and the number of rows, of sequences of these lengths (N,)."""
    active = lengths.size - np.searchsorted(np.sort(lengths), np.arange(steps), side="right")
    return np.concatenate(([0], np.cumsum(active))).astype(np.int64, copy=False)


@functools.lru_cache(maxsize=64)
def full_grid(batch: int, steps: int) -> np.ndarray:
    """The time grid of sequences of equal lengths; not to be written to."""
    return time_grid(np.arange(steps + 1) * batch, batch)


def packed_rows(owner: str, batch: int, steps: int, lengths: Any, reset: Any, last: Rows | None) -> Rows:
    """The order of rows in time-major arrays: longest sequence first, no rows after its end; `last` if it
    fits. `lengths` may be the `Rows` of another layer for the same window."""
    if isinstance(lengths, Rows):
        return lengths
    resets = NO_RESETS if reset is None else _check.arrays.mask(owner, "reset", reset, (batch, steps)).copy()
    if lengths is not None:
        order = lengths.order if isinstance(lengths, Sorted) else None
        given = lengths.lengths if isinstance(lengths, Sorted) else lengths
        counted = _check.arrays.lengths(owner, given, batch, steps)
        order = falling_order(counted) if order is None else order
        offsets = offsets_of(counted, steps)
        return Rows.batch_first(offsets, order, time_grid(offsets, batch), resets)
    if last is None or (last.order.size, last.offsets.size) != (batch, steps + 1):
        offsets = np.arange(steps + 1) * batch
        last = Rows.batch_first(offsets, np.arange(batch), full_grid(batch, steps), NO_RESETS)
    return last if resets is last.resets else last._replace(resets=resets)


# Blocks of the rows of a batch, whose gradients are added by a pairwise tree.


class Blocks(NamedTuple):
    """The blocks of a batch whose rows are here.

    The gradient of a batch is the tree sum ((0 + 1) + (2 + 3)) + ... of the gradients of its blocks, each
    with the bits of a pass over this block alone. Other processes may hold blocks before and after these.

    Attributes
    ----------
    bounds : ndarray of int (blocks + 1,)
        The first row of each block here, and the number of rows.
    first : int
        The number of the first row here in the whole batch; random numbers depend on it.
    least : int
        Rows of the smallest block of the whole batch.
    exchange : Ranks or None
        The other processes.
    """

    bounds: np.ndarray
    first: int = 0
    least: int = 0
    exchange: Any = None

    @property
    def size(self) -> int:
        """Blocks here."""
        return self.bounds.size - 1

    def rows(self) -> list[slice]:
        """The rows of each block."""
        return [slice(int(first), int(last)) for first, last in pairwise(self.bounds)]

    def gathered(self, own: np.ndarray) -> np.ndarray:
        """Numbers (N,) of the rows here in float64, as those of the whole batch."""
        return own if self.exchange is None else self.exchange.rows(own)


class Groups(NamedTuple):
    """The blocks of a batch in the time-major arrays of the recurrent kernels, under the kernels' names."""

    bounds: np.ndarray
    places: np.ndarray
    orders: np.ndarray
    sequence_rows: np.ndarray
    step_rows: np.ndarray
    starts: np.ndarray
    grids: np.ndarray
    counts: np.ndarray
    most_rows: int  # of the largest block of a time grid

    @classmethod
    def of(cls, rows: Rows, blocks: Blocks) -> Groups:
        """The places of each block's sequences."""
        owner = np.searchsorted(blocks.bounds, rows.order, side="right") - 1
        places = np.argsort(owner, kind="stable").astype(np.int64, copy=False)
        active = np.diff(rows.offsets)
        starts, grids = [], []
        for own in blocks.rows():
            counts = np.searchsorted(places[own], active, side="left")
            starts.append(np.concatenate(([0], np.cumsum(counts))))
            grids.append(time_grid(starts[-1], own.stop - own.start))
        most = max(grid.size for grid in grids)
        padded = [np.pad(grid, (0, most - grid.size), mode="edge") for grid in grids]
        return cls(
            np.ascontiguousarray(blocks.bounds, np.int64),
            places,
            rows.order[places],
            rows.sequence_rows[places],
            rows.step_rows,
            np.array(starts, np.int64),
            np.array(padded, np.int64),
            np.array([grid.size - 1 for grid in grids], np.int64),
            max(int(np.diff(own[grid]).max(initial=0)) for own, grid in zip(starts, grids, strict=True)),
        )


def sum_by_blocks(
    blocks: Blocks,
    level: Callable[[int], Sequence[np.ndarray]],
    compute: Callable[[slice, Sequence[np.ndarray], bool], object],
    adds_once: Callable[[slice], bool] = lambda rows: False,
) -> Sequence[np.ndarray]:
    """The tree sum of the arrays that `compute(rows, arrays, adds)` fills, or adds to, for each block's rows.

    `level(l)` returns the arrays of level l of the tree's stack, always the same ones; the sum is in those of
    level 0. Where `adds_once(rows)`, a block can add its whole sum to the sum of the block before.
    """
    top = 0  # the level of the next block
    for number, rows in enumerate(blocks.rows(), start=1):
        joins = number % 2 == 0 and adds_once(rows)
        top -= joins
        compute(rows, level(top), joins)
        pairs = number // 2 if joins else number
        while pairs % 2 == 0:
            for total, term in zip(level(top - 1), level(top), strict=True):
                members = threads.members_for_bytes(3 * total.nbytes, total.size // 1024)
                threads.run(add_gradients, members, False, (total.reshape(-1), term.reshape(-1)))
            top, pairs = top - 1, pairs // 2
        top += 1
    return level(0)


class Reduction:
    """The sums of gradients over processes, begun layer by layer in a backward pass."""

    def __init__(self, blocks: Blocks | None) -> None:
        self._exchange = None if blocks is None else blocks.exchange
        self._pending: list[tuple[Any, Callable[[], object] | None]] = []

    def begin(self, arrays: Sequence[np.ndarray], then: Callable[[], object] | None = None) -> None:
        """Begin to sum arrays in place; `then` is called when the sums are there."""
        if self._exchange is not None:
            self._pending.append((self._exchange.begin(arrays), then))
        elif then is not None:
            then()

    def finish(self) -> None:
        """Wait for all sums."""
        for pending, then in self._pending:
            pending.finish()
            if then is not None:
                then()


@functools.cache
def nothing(dtype: np.dtype, axes: int) -> np.ndarray:
    """An empty array, in place of an array that a cell does not have."""
    return np.zeros((0,) * axes, dtype)


class Team(NamedTuple):
    """The number of threads for a window, and whether they split its units or its sequences."""

    members: int
    by_units: bool


class Lookup(NamedTuple):
    """Inputs that are rows of a table: ids (N, T), the table (V, D) and its gradient."""

    ids: np.ndarray
    words: np.ndarray
    dwords: np.ndarray


class Place(NamedTuple):
    """A window's part of a batch of sequences: its first step, the steps of the whole sequences, and the
    number of its first row."""

    first: int
    steps: int
    row: int = 0


class Part(NamedTuple):
    """Steps first .. last of a sequence of `steps`, and the options of the whole sequence."""

    first: int
    last: int
    steps: int
    lengths: np.ndarray | None = None
    order: np.ndarray | None = None
    reset: np.ndarray | None = None
    weights: np.ndarray | None = None  # (N, T) or (N, 1), of targets
    blocks: Blocks | None = None

    @property
    def place(self) -> Place:
        """The place of the part in the batch."""
        return Place(self.first, self.steps, 0 if self.blocks is None else self.blocks.first)

    def of(self, array: Any) -> Any:
        """These steps of an array (N, T, ...)."""
        return array[:, self.first : self.last]

    def ends(self, batch: int) -> np.ndarray:
        """The steps (N,) of each whole sequence."""
        return np.full(batch, self.steps) if self.lengths is None else self.lengths

    def options(self) -> dict[str, Any]:
        """The arguments `lengths`, `reset` and `blocks` of the layers for this part."""
        given: dict[str, Any] = {} if self.blocks is None else {"blocks": self.blocks}
        if self.lengths is not None:
            order = falling_order(self.lengths) if self.order is None else self.order
            inside = np.clip(self.lengths - self.first, 0, self.last - self.first)
            given["lengths"] = Sorted(inside, order)
        if self.reset is not None:
            given["reset"] = np.array(self.of(self.reset))
        return given


class Inputs(NamedTuple):
    """The inputs of a window: xs (N, T, D), or words (V, D) by ids (N, T); the unused arrays are empty."""

    xs: np.ndarray
    ids: np.ndarray | None
    words: np.ndarray
    dwords: np.ndarray


class Run(NamedTuple):
    """The cache of the last `forward` for `backward`; the tape holds the blocks of the time grid from
    `intact` on."""

    inputs: Inputs
    given: np.ndarray | None
    rows: Rows
    saved: tuple[np.ndarray | None, ...]
    intact: int
    groups: Groups | None = None
