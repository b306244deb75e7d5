"""How a batch is cut into blocks of rows, and which of them this process has."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from rnnfast.layers.blocks import Blocks
from rnnfast.layers.rows import falling_order

# A batch is cut into the largest of these numbers of blocks that leaves LEAST_ROWS rows to each block.
_NUMBERS, LEAST_ROWS = (8, 4, 2), 5


def blocks_of(batch_size: int) -> int:
    """The number of blocks of a batch: 8, 4, 2 or 1.

    Examples
    --------
    >>> [blocks_of(size) for size in (8, 10, 20, 40, 500)]
    [1, 2, 4, 8, 8]
    """
    return next((number for number in _NUMBERS if batch_size >= number * LEAST_ROWS), 1)


class Cut(NamedTuple):
    """The rows of a batch on this process, and their blocks."""

    rows: np.ndarray  # places in the batch
    blocks: Blocks
    among: slice  # places of the rows among those of all processes


class BatchBlocks:
    """Cuts batches into a fixed number of blocks, of which each process has the same number.

    Parameters
    ----------
    number : int
        Blocks of a batch, a power of two.
    ranks : Ranks, optional
        The processes, whose number divides `number`; one by default.
    """

    def __init__(self, number: int, ranks: Any = None) -> None:
        self.number, self._ranks = number, ranks
        self._known: dict[int, Cut] = {}

    def among(self, count: int) -> slice:
        """The places of this process's rows among the `count` rows of a batch, in the order of blocks."""
        return self.cut(count).among

    def cut(self, count: int, lengths: np.ndarray | None = None) -> Cut:
        """The part of this process in a batch of `count` rows.

        With lengths (count,), rows are dealt out by falling length, so that blocks have equal work.
        """
        if lengths is None and count in self._known:
            return self._known[count]
        number, ranks = self.number, self._ranks
        order = np.arange(count)
        if lengths is None:
            parts = np.array_split(order, number)
        else:
            falling = falling_order(lengths)
            parts = [falling[place::number] for place in range(number)]
        bounds = np.concatenate(([0], np.cumsum([part.size for part in parts])))
        size, rank = (1, 0) if ranks is None else (ranks.size, ranks.rank)
        own = slice(rank * number // size, (rank + 1) * number // size)
        first, last = bounds[own.start], bounds[own.stop]
        exchange = ranks if size > 1 else None
        least = int(np.diff(bounds).min())
        blocks = Blocks(bounds[own.start : own.stop + 1] - first, int(first), least, exchange)
        found = Cut(np.concatenate(parts)[first:last], blocks, slice(int(first), int(last)))
        if lengths is None:
            self._known[count] = found
        return found
