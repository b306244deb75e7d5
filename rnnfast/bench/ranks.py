"""The time of sums over ranks, beside MPI's own `Allreduce`."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from rnnfast.training.ranks import Ranks

SIZES = (1_000_000, 10_000_000)
_ROUND_NUMBERS = 200_000_000  # numbers summed for a size by each contender, at least
_ROUNDS = 15, 60


class Reduction(NamedTuple):
    """Median seconds of a sum of `size` float32 over the ranks, on the slowest rank."""

    size: int
    tree: float
    allreduce: float

    @property
    def speedup(self) -> float:
        """How many times as fast the tree is."""
        return self.allreduce / self.tree


def time_reduction(ranks: Ranks, sizes: Sequence[int] = SIZES) -> list[Reduction]:
    """Time the tree sum and `Allreduce`, in turn, on all ranks at the same time.

    Parameters
    ----------
    ranks : Ranks
        All of them call this function.
    sizes : sequence of int
        Numbers of float32 to sum.

    Returns
    -------
    reductions : list of Reduction
        One for each size, the same on every rank.
    """
    return [_time_size(ranks, size) for size in sizes]


def _time_size(ranks: Ranks, size: int) -> Reduction:
    communicator = ranks.communicator
    own, total = np.zeros(size, np.float32), np.zeros(size, np.float32)
    contenders: tuple[Callable[[], None], ...] = (
        lambda: ranks.begin([own]).finish(),
        lambda: communicator.Allreduce(own, total),
    )
    rounds = min(max(_ROUND_NUMBERS // max(size, 1), _ROUNDS[0]), _ROUNDS[1])
    slowest: list[list[float]] = [[], []]
    for _ in range(rounds):
        for call, times in zip(contenders, slowest, strict=True):
            call()  # fills caches with its own arrays
            ranks.barrier()
            began = time.perf_counter()
            call()
            times.append(float(ranks.rows(np.array([time.perf_counter() - began])).max()))
    return Reduction(size, *map(statistics.median, slowest))
