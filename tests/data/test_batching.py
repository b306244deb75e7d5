"""Windows: rows go on where they stopped, every target is the next token, nothing is scored twice."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnnfast.data import CorpusError, WindowBatches, evaluation_windows

SIZES = st.tuples(st.integers(1, 7), st.integers(1, 9), st.integers(0, 60))


@given(SIZES)
def test_each_row_reads_its_share_in_order_and_targets_are_the_next_tokens(sizes):
    batch_size, time_size, more = sizes
    ids = np.random.default_rng(0).integers(0, 1000, batch_size * time_size + 1 + more)
    windows = WindowBatches(ids, batch_size, time_size)
    pairs = [(xs.copy(), ts.copy()) for xs, ts in windows]
    xs = np.concatenate([pair[0] for pair in pairs], axis=1)
    ts = np.concatenate([pair[1] for pair in pairs], axis=1)
    jump = (len(ids) - 1) // batch_size
    for row in range(batch_size):
        np.testing.assert_array_equal(xs[row], ids[row * jump : (row + 1) * jump])
        np.testing.assert_array_equal(ts[row], ids[row * jump + 1 : (row + 1) * jump + 1])
    assert len(windows) == len(pairs)
    assert windows.jump == jump
    assert windows.skipped == len(ids) - 1 - jump * batch_size < batch_size


@given(SIZES)
def test_windows_are_full_but_the_last_and_ready_for_kernels(sizes):
    batch_size, time_size, more = sizes
    ids = np.arange(batch_size * time_size + 1 + more, dtype=np.uint16)
    windows = WindowBatches(ids, batch_size, time_size)
    for number, pair in enumerate(windows):
        steps = min(time_size, windows.jump - number * time_size)
        for array in pair:
            assert array.shape == (batch_size, steps)
            assert array.dtype == np.int64
            assert array.flags.c_contiguous
            assert array.flags.aligned
            assert array.flags.writeable
    assert number == len(windows) - 1


@given(st.integers(2, 50), st.integers(1, 60))
def test_evaluation_scores_each_token_but_the_first_once_at_any_window(tokens, time_size):
    ids = np.arange(tokens)
    actual_xs, actual_ts = [], []
    for xs, ts in evaluation_windows(ids, time_size):
        assert xs.shape[0] == 1
        assert 1 <= xs.shape[1] <= time_size
        actual_xs += xs[0].tolist()
        actual_ts += ts[0].tolist()
    assert actual_xs == list(range(tokens - 1))
    assert actual_ts == list(range(1, tokens))


def test_a_pass_can_go_on_from_any_window():
    ids = np.arange(101)
    expected = [(xs.copy(), ts.copy()) for xs, ts in WindowBatches(ids, 3, 5)]
    windows = WindowBatches(ids, 3, 5)
    for number in (4, 6, 0):
        np.testing.assert_array_equal(windows[number], expected[number])
    assert len(list(windows)) == len(list(windows)) == len(expected)


@pytest.mark.parametrize("window", [-1, 3])
def test_windows_that_are_not_there_are_an_index_error(window):
    with pytest.raises(IndexError, match=rf"numbered 0 to 2, got {window}"):
        WindowBatches(np.arange(13), 2, 2)[window]


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.int32, np.int64, np.uint64, ">i4"])
def test_any_integer_type_gives_the_same_windows(dtype):
    ids = np.arange(31).astype(dtype)
    for (xs, ts), (expected_xs, expected_ts) in zip(
        WindowBatches(ids, 2, 4), WindowBatches(np.arange(31), 2, 4), strict=True
    ):
        np.testing.assert_array_equal(xs, expected_xs)
        np.testing.assert_array_equal(ts, expected_ts)


def test_the_text_is_not_copied_and_windows_share_two_buffers():
    ids = np.zeros(4_000_001, dtype=np.uint16)
    ids.flags.writeable = False
    for source in (ids, np.zeros(8_000_002, dtype=np.uint16)[::2]):
        tracemalloc.start()
        windows = WindowBatches(source, 20, 35)
        addresses = {pair[0].ctypes.data for pair in windows}
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(addresses) == 1
        assert peak < 100_000


def test_a_text_too_short_says_how_many_tokens_there_are_and_are_needed():
    WindowBatches(np.arange(701), 20, 35)
    with pytest.raises(
        CorpusError, match=r"^WindowBatches: .*batch size 20 and window 35: 701 tokens are needed, got 700; "
    ):
        WindowBatches(np.arange(700), 20, 35)
    with pytest.raises(CorpusError, match=r"2 tokens are needed, got 1; give more text\."):
        evaluation_windows(np.arange(1), 35)


@pytest.mark.parametrize(
    "make", [lambda ids: WindowBatches(ids, 1, 1), lambda ids: evaluation_windows(ids, 1)]
)
@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        ([1, 2, 3], TypeError, "ids must be a NumPy array, got list"),
        (np.arange(4.0), TypeError, "ids must hold integers, got float64"),
        (np.zeros(4, bool), TypeError, "ids must hold integers, got bool"),
        (np.zeros((2, 2), int), ValueError, r"ids must be \(tokens,\), got \(2, 2\)"),
    ],
)
def test_anything_but_one_row_of_integers_is_refused(make, ids, error, message):
    with pytest.raises(error, match=message):
        make(ids)


@pytest.mark.parametrize(("batch_size", "time_size"), [(0, 1), (1, 0), (-1, 1)])
def test_sizes_below_one_are_refused(batch_size, time_size):
    with pytest.raises(ValueError, match="must be at least 1"):
        WindowBatches(np.arange(9), batch_size, time_size)
