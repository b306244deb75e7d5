"""Blocks of the rows of a batch, whose gradients are added by a pairwise tree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from rnnfast.engine import threads
from rnnfast.kernels.recurrence.groups import add_gradients
from rnnfast.kernels.recurrence.sequence import time_grid
from rnnfast.layers.rows import Rows


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
