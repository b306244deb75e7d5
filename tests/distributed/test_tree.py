"""Sums over ranks: the tree, and the exchange through a window, here between threads."""

import threading

import numpy as np
import pytest
import reference
from helpers import DTYPES
from rnnfast.kernels.team import tree

RANKS = (1, 2, 4, 8, 16)
SIZES = (0, 1, 31, 32, 33, 511, 512, 513, 1500)
CHUNK = 256  # elements, so that the larger of these arrays pass in several chunks


def draws(ranks, size, dtype, seed=0):
    """Numbers of many magnitudes, for which every order of adding gives other bits."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((ranks, size)) * 10.0 ** rng.integers(-4, 5, (ranks, size))).astype(dtype)


def aligned(shape, dtype):
    """A NaN array that begins at a multiple of 64 bytes."""
    count = int(np.prod(shape))
    raw = np.empty(count * np.dtype(dtype).itemsize + 64, np.uint8)
    array = raw[-raw.ctypes.data % 64 :][: count * np.dtype(dtype).itemsize].view(dtype).reshape(shape)
    array[...] = np.nan
    return array


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ranks", RANKS)
def test_the_tree_adds_neighbours_then_pairs_of_pairs(ranks, dtype):
    for size in SIZES:
        rows = draws(ranks, size, dtype)
        expected = reference.tree_sum(rows)
        tree.tree_sum(rows)
        np.testing.assert_array_equal(rows[0], expected)


def test_the_tree_differs_from_a_running_sum():
    """The draws can tell orders apart."""
    rows = draws(8, 512, np.float32)
    running = rows[0].copy()
    for row in rows[1:]:
        running += row
    assert (running != reference.tree_sum(rows)).sum() > 100


def test_nan_and_infinity_pass_and_denormals_count_as_zero():
    rows = np.array([[np.nan, np.inf, np.inf, 1e-40, 1e-45], [1, 1, -np.inf, 0, 0]], np.float32)
    with np.errstate(invalid="ignore"):
        tree.tree_sum(rows)
    np.testing.assert_array_equal(rows[0, :3], [np.nan, np.inf, np.nan])
    if not hasattr(tree.tree_sum, "py_func"):
        return  # interpreted: NumPy keeps denormals
    np.testing.assert_array_equal(rows[0, 3:], [0, 0])


class Window:
    """What ranks share, and their numbers of chunks so far."""

    def __init__(self, ranks, dtype):
        self.flags = np.zeros((ranks, tree.FLAGS), np.int64)
        self.window = aligned((ranks, 2, CHUNK), dtype)
        self.scratch = [aligned((ranks, tree.BLOCK), dtype) for _ in range(ranks)]
        self.before = [0] * ranks

    def exchange(self, rank, array):
        """One try; whether it is complete."""
        arguments = self.flags, self.window, array, self.scratch[rank]
        if not tree.tree_exchange(rank, self.before[rank], *arguments):
            return False
        self.before[rank] += -(-array.size // CHUNK)
        return True


def together(ranks, work):
    """Run `work(rank)` on a thread for each rank; an error of one is raised here."""
    errors = []

    def run(rank):
        try:
            work(rank)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in range(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not errors, errors
    assert not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ranks", RANKS)
def test_an_exchange_leaves_the_tree_sum_with_every_rank(ranks, dtype):
    """One array after the other, through a window that holds NaN at first."""
    shared = Window(ranks, dtype)
    parts = [draws(ranks, size, dtype, seed) for seed, size in enumerate(SIZES)]
    actual = [part.copy() for part in parts]

    def work(rank):
        for part in actual:
            while not shared.exchange(rank, part[rank]):
                pass

    together(ranks, work)
    for part, sums in zip(parts, actual, strict=True):
        for one in sums:
            np.testing.assert_array_equal(one, reference.tree_sum(part))


def test_an_exchange_returns_while_the_other_rank_is_away_and_continues_afterwards():
    shared, part = Window(2, np.float64), draws(2, 5 * CHUNK + 7, np.float64)
    expected = reference.tree_sum(part)
    complete = [False, False]
    assert not shared.exchange(0, part[0])
    for _ in range(100):
        for rank in (1, 0):
            complete[rank] = complete[rank] or shared.exchange(rank, part[rank])
    assert complete == [True, True]
    np.testing.assert_array_equal(part, [expected, expected])


def test_nobody_passes_a_meeting_before_the_last_has_come():
    flags = np.zeros((4, tree.FLAGS), np.int64)
    for rank in range(3):
        assert not tree.ranks_met(rank, 1, flags)
    assert tree.ranks_met(3, 1, flags)
    assert tree.ranks_met(0, 1, flags)
    assert not tree.ranks_met(0, 2, flags)


def test_flags_lie_on_lines_of_their_own():
    """128 bytes apart, also from those of the next rank."""
    places = sorted([tree.PUT, tree.ADDED, tree.TAKEN, tree.MET])
    assert np.diff([*places, places[0] + tree.FLAGS]).min() >= 128 // 8
    assert tree.CHUNK_BYTES % (8 * tree.GRAIN) == 0
