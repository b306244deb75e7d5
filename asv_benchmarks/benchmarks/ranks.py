"""Sums over ranks: the tree of a few rows, and an exchange between two threads that act as ranks."""

import functools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from rnnfast.kernels.team.tree import BLOCK, CHUNK_BYTES, FLAGS, ranks_met, tree_exchange, tree_sum

from .measuring import Timed, aligned, assert_agrees

COUNT = 1_000_000


def _rows(ranks):
    return aligned(np.random.default_rng(0).standard_normal((ranks, COUNT // ranks)))


def _numpy_sum(rows):
    rows[0] = rows.sum(axis=0)


@functools.cache
def _sum(ranks, library):
    """A call that sums rows; zeros below the first keep its value."""
    rows, expected = _rows(ranks), _rows(ranks).astype(np.float64).sum(axis=0)
    call = functools.partial(tree_sum if library == "rnnfast" else _numpy_sum, rows)
    call()
    assert_agrees("tree_sum", rows[0], expected, ranks)
    rows[1:] = 0
    return call


class TreeSum(Timed):
    """A million numbers in rows."""

    params = ([2, 8], ["rnnfast", "numpy"])
    param_names = ("ranks", "library")

    def setup(self, ranks, library):
        self.call = _sum(ranks, library)

    def time_sum(self, ranks, library):
        self.call()


class _Pair:
    """Two threads that meet, and then exchange an array each."""

    def __init__(self):
        self.flags = np.zeros((2, FLAGS), np.int64)
        self.window = aligned(np.zeros((2, 2, CHUNK_BYTES // 4)))
        self.scratch = [aligned(np.zeros((2, BLOCK))) for _ in range(2)]
        self.arrays = list(_rows(2))
        self.meetings = self.passed = 0
        self.other = ThreadPoolExecutor(1)

    def work(self, rank):
        while not ranks_met(rank, self.meetings, self.flags):
            pass
        arguments = self.flags, self.window, self.arrays[rank], self.scratch[rank]
        while not tree_exchange(rank, self.passed, *arguments):
            pass

    def exchange(self):
        self.meetings += 1
        other = self.other.submit(self.work, 1)
        self.work(0)
        other.result()
        self.passed += -(-self.arrays[0].size // self.window.shape[2])


@functools.cache
def _pair():
    pair = _Pair()
    expected = np.sum(pair.arrays, axis=0, dtype=np.float64)
    pair.exchange()
    for array in pair.arrays:
        assert_agrees("tree_exchange", array, expected, 2)
        array[:] = 0
    return pair


class Exchange(Timed):
    """Half a million numbers on each of two threads."""

    def setup(self):
        self.pair = _pair()

    def time_exchange(self):
        self.pair.exchange()
