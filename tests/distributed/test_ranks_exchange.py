"""Sums and numbers over MPI ranks, by shared memory and by messages, against a naive tree."""

import pytest
from helpers import needs_jit
from ranks_helpers import needs_ranks, run_ranks

pytestmark = [
    needs_ranks,
    needs_jit,
]  # interpreted sums of large arrays take minutes; `test_tree.py` has small ones

START = """
import sys
import numpy as np
import reference
from rnnfast.training import Ranks

ranks = Ranks(_by_messages=sys.argv[1] == "messages")
"""

SUMS = (
    START
    + """
SHAPES = (0,), (1,), (31,), (33,), (7, 11), (0,), (2_000,), (300_001,), (5,)

def arrays(rank):
    rng = np.random.default_rng(rank)
    kinds = [(shape, dtype) for shape in SHAPES for dtype in (np.float32, np.float64)]
    return [(rng.standard_normal(s) * 10.0 ** rng.integers(-4, 5, s)).astype(d) for s, d in kinds]

def poison():
    if sys.argv[1] == "window" and ranks.size > 1:
        for window, scratch in ranks._exchange._chunks.values():
            scratch[:] = np.nan
        window[ranks.rank] = np.nan  # both types lie in the same memory
    elif ranks.size > 1:
        for buffer in ranks._exchange._workspace._buffers.values():
            buffer[:] = 255

expected = [reference.tree_sum(rows) for rows in zip(*map(arrays, range(ranks.size)))]
for several in (False, True, True):
    ranks.barrier()
    poison()
    ranks.barrier()
    actual = arrays(ranks.rank)
    if several:
        pending = [ranks.begin(actual[a:b]) for a, b in ((0, 3), (3, 3), (3, 5), (5, len(actual)))]
        pending[2].finish()
        pending[0].finish()
        pending[3].finish()
    else:
        ranks.begin(actual).finish()
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(one, other)
ranks.close()
print("equal")
"""
)

NUMBERS = (
    START
    + """
for first in ([0, 0, 0, 0], [3, 0, 5, 1], [63, 64, 0, 65], [4096, 4097, 9000, 0]):
    counts = [*first, 1, 2, 3, 4]
    parts = [np.arange(float(k)) + 1e6 * r for r, k in enumerate(counts[: ranks.size])]
    for _ in range(3):
        np.testing.assert_array_equal(ranks.rows(parts[ranks.rank]), np.concatenate(parts))
assert ranks.agreed("x" * 100_000 * (ranks.rank + 1)) == "x" * 100_000
assert ranks.agreed(None if ranks.rank else [1.5]) == [1.5]
for r in range(ranks.size):
    assert ranks.any(ranks.rank == r)
assert not ranks.any(False)
assert ranks.local_size == ranks.size
print("equal")
"""
)

SPECIAL = (
    START
    + """
array = np.array([np.nan if ranks.rank else 1, np.inf, np.inf if ranks.rank else -np.inf, 1e-40], np.float32)
ranks.begin([array]).finish()
np.testing.assert_array_equal(array[:3], [np.nan, np.inf, np.nan])
print(f"<{array[3]}>")
"""
)

WAITS = (
    START
    + """
import signal
import time

signal.signal(signal.SIGINT, signal.default_int_handler)

if ranks.rank == 0:
    ranks.barrier()
    before = time.process_time()
    ranks.rows(np.zeros(1))
    assert time.process_time() - before < 0.3
    ranks.check = lambda: signal.raise_signal(signal.SIGINT)
    grad = np.ones(10)
    pending = ranks.begin([grad])
    try:
        pending.finish()
        raise AssertionError("the other rank has not begun")
    except KeyboardInterrupt:
        ranks.check = lambda: None
    ranks.communicator.Barrier()
    pending.finish()
    assert grad.tolist() == [2] * 10
else:
    ranks.barrier()
    time.sleep(1)
    ranks.rows(np.zeros(1))
    ranks.communicator.Barrier()
    ranks.begin([np.ones(10)]).finish()
print("equal")
"""
)

KINDS = ("window", "messages")


def ended(ranks, code, *arguments):
    """The end of Python code on ranks; an exception on one of them ends all (`-m mpi4py`)."""
    return run_ranks(ranks, "-m", "mpi4py", "-c", code, *arguments)


def printed(ranks, code, *arguments):
    """What all ranks print."""
    done = ended(ranks, code, *arguments)
    assert done.code == 0, done.out + done.err
    return done.out


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
def test_sums_have_the_bits_of_the_tree_on_every_rank(ranks, kind):
    assert printed(ranks, SUMS, kind).count("equal") == ranks


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ranks", [1, 2, 8])
def test_every_rank_has_the_numbers_of_all_and_the_value_of_the_first(ranks, kind):
    assert printed(ranks, NUMBERS, kind).count("equal") == ranks


@pytest.mark.parametrize("kind", KINDS)
def test_nan_and_infinity_pass_and_denormals_count_as_zero(kind):
    assert printed(2, SPECIAL, kind).count("<0.0>") == 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_waiting_rank_sleeps_and_can_be_interrupted_and_go_on(kind):
    assert printed(2, WAITS, kind).count("equal") == 2


def test_a_number_of_ranks_that_is_no_power_of_two_is_one_sentence():
    done = ended(3, START, "window")
    assert done.code != 0
    assert "ValueError: Ranks: the number of ranks must be a power of two, got 3; start 2 or 4." in done.err


def test_what_is_no_communicator_or_no_array_is_one_sentence():
    code = """
import numpy as np
from mpi4py import MPI
from rnnfast.training import Ranks

def message(call):
    try:
        call()
    except (TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"

ranks = Ranks(MPI.COMM_SELF)
for wrong in (lambda: Ranks(3), lambda: Ranks(MPI.Intracomm()), lambda: ranks.begin([np.arange(3)]),
              lambda: ranks.begin([[1.0]]), lambda: ranks.begin([np.ones((4, 4))[:, 1]])):
    print(message(wrong))
"""
    actual = printed(1, code).splitlines()
    assert actual == [
        "TypeError: Ranks: communicator must be an mpi4py intracommunicator such as MPI.COMM_WORLD, got int.",
        "ValueError: Ranks: communicator must include this process, got MPI.COMM_NULL.",
        "TypeError: Ranks.begin: arrays must be float32 or float64 arrays, got int64.",
        "TypeError: Ranks.begin: arrays must be float32 or float64 arrays, got list.",
        "ValueError: Ranks.begin: arrays must be C-contiguous, aligned and writable.",
    ]
