"""Labels of the losses: ids, one-hot rows, ignored ones, wrong ones; and the memory of the fused layer."""

import tracemalloc

import numpy as np
import pytest
from helpers import DTYPES, JIT, assert_same_bits, normal, poison

from rnnfast import TimeAffine, TimeAffineSoftmaxWithLoss, TimeSoftmaxWithLoss
from rnnfast.time_layers import SoftmaxWithLoss, cross_entropy_error

N, T, H, V = 3, 4, 5, 7


def both_layers(dtype=np.float32):
    """Each layer with inputs that fit it."""
    rng = np.random.default_rng(0)
    fused = TimeAffineSoftmaxWithLoss(normal(rng, (H, V), dtype), normal(rng, V, dtype))
    xs = normal(rng, (N, T, H), dtype)
    return [(fused, xs), (TimeSoftmaxWithLoss(), TimeAffine(*fused.params).forward(xs))]


def results(layer, xs, ts):
    return [np.array(layer.forward(xs, ts)), layer.backward(), *(grad.copy() for grad in layer.grads)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_hot_rows_and_ids_of_any_integer_type_give_the_same_bits(dtype):
    ids = np.random.default_rng(1).integers(0, V, (N, T))
    for layer, xs in both_layers(dtype):
        expected = results(layer, xs, ids)
        one_hot = np.eye(V)[ids]
        forms = [one_hot, one_hot.astype(bool), one_hot.astype(np.int8), np.asfortranarray(ids)]
        for ts in [*forms, *(ids.astype(kind) for kind in (np.int32, np.uint8, np.uint64, ">i8"))]:
            for actual, array in zip(results(layer, xs, ts), expected, strict=True):
                assert_same_bits(actual, array)


@pytest.mark.parametrize("dtype", DTYPES)
def test_ignored_labels_count_for_nothing(dtype):
    ts = np.random.default_rng(2).integers(0, V, (N, T))
    ts[:, 2] = ts[1, 0] = -1
    for layer, xs in both_layers(dtype):
        loss, dxs = results(layer, xs, ts)[:2]
        assert not dxs[ts == -1].any()
        kept = [
            layer.forward(xs[n : n + 1, t : t + 1], ts[n : n + 1, t : t + 1]) for n, t in np.argwhere(ts >= 0)
        ]
        np.testing.assert_allclose(loss, np.mean(kept), rtol=1e-15 * len(kept))
        changed = xs.copy()
        changed[ts == -1] = 100.0
        for actual, expected in zip(results(layer, changed, ts), results(layer, xs, ts), strict=True):
            np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_with_every_label_ignored_loss_and_gradients_are_zero(dtype):
    for layer, xs in both_layers(dtype):
        results(layer, xs, np.zeros((N, T), int))
        poison(layer)
        for actual in results(layer, xs, np.full((N, T), -1)):
            assert not actual.any()


def test_another_label_can_be_the_ignored_one():
    ts = np.array([[0, 1, 2, 3]] * N)
    other = np.where(ts == 2, -1, ts)
    for layer, xs in both_layers():
        expected = results(layer, xs, other)
        layer.ignore_label = 2
        for actual, array in zip(results(layer, xs, ts), expected, strict=True):
            assert_same_bits(actual, array)


def test_losses_are_those_of_each_position_and_leave_the_gradients_alone():
    ts = np.random.default_rng(3).integers(-1, V, (N, T))
    layer, xs = both_layers()[0]
    expected = results(layer, xs, ts)
    actual = layer.losses(xs[::-1].copy(), ts[::-1])
    assert actual.dtype == np.float64
    assert actual.sum() / (ts != -1).sum() == pytest.approx(float(expected[0]), rel=1e-15 * N * T)
    assert not actual[ts[::-1] == -1].any()
    for after, before in zip([layer.backward(), *layer.grads], expected[1:], strict=True):
        assert_same_bits(after, before)
    kept = actual.copy()
    layer.losses(xs, ts)
    assert_same_bits(actual, kept)


def test_a_transposed_table_may_be_the_output_matrix():
    layer, xs = both_layers()[0]
    ts = np.random.default_rng(4).integers(0, V, (N, T))
    table = np.ascontiguousarray(layer.params[0].T)
    tied = TimeAffineSoftmaxWithLoss(table.T, layer.params[1])
    assert np.shares_memory(tied.params[0], table)
    for _ in range(2):
        for actual, expected in zip(results(tied, xs, ts), results(layer, xs, ts), strict=True):
            assert_same_bits(actual, expected)
        table *= 2
        layer.params[0][...] *= 2


@pytest.mark.parametrize("dtype", DTYPES)
def test_other_memory_layouts_give_the_same_bits(dtype):
    ts = np.random.default_rng(5).integers(-1, V, (N, T))
    for layer, xs in both_layers(dtype):
        expected = results(layer, xs, ts)
        locked = xs.copy()
        locked.flags.writeable = False
        for relaid in (
            np.asfortranarray(xs),
            np.repeat(xs, 2, -1)[..., ::2],
            xs.astype(xs.dtype.newbyteorder(">")),
            locked,
        ):
            for actual, array in zip(results(layer, relaid, ts), expected, strict=True):
                assert_same_bits(actual, array)


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lambda ts: np.where(ts, ts, V), IndexError, r"ts must hold ids from 0 to 6, got 7 at \(0, 0\)"),
        (lambda ts: ts - 2, IndexError, r"ts must hold ids from 0 to 6, got -2 at \(0, 0\)"),
        (lambda ts: ts[:2], ValueError, r"ts must be \(3, 4\), got \(2, 4\)"),
        (lambda ts: ts.astype(float), TypeError, "ts must hold integers, got float64"),
        (lambda ts: ts.tolist(), TypeError, "ts must be a NumPy array, got list"),
        (lambda ts: np.zeros((N, T, V + 1)), ValueError, r"ts must be \(3, 4, 7\), got \(3, 4, 8\); one-hot"),
    ],
    ids=["too high", "too low", "shape", "floats", "list", "one-hot"],
)  # fmt: skip
def test_wrong_labels_are_refused_before_anything_changes(spoil, error, message):
    ts = np.arange(N * T).reshape(N, T) % V
    for layer, xs in both_layers():
        expected = results(layer, xs, ts)
        calls = [layer.forward] if isinstance(layer, TimeSoftmaxWithLoss) else [layer.forward, layer.losses]
        for call in calls:
            with pytest.raises(error, match=rf"^{type(layer).__name__}\.{call.__name__}: {message}"):
                call(-xs, spoil(ts))
        for after, before in zip([layer.backward(), *layer.grads], expected[1:], strict=True):
            assert_same_bits(after, before)


NOT_ONE_HOT = {
    "no 1": lambda row: row * 0,
    "two": lambda row: np.roll(row, 1) + row,
    "another value": lambda row: row * 2,
    "shares": lambda row: np.full_like(row, 1 / V),
    "smoothed": lambda row: row * 0.9 + 0.1 / V,
    "negative beside it": lambda row: row - np.roll(row, 1),
    "NaN": lambda row: np.where(row == 1, np.nan, row),
    "NaN beside it": lambda row: np.where(np.roll(row, 1) == 1, np.nan, row),
    "infinite": lambda row: np.where(row == 1, np.inf, row),
}


@pytest.mark.parametrize("case", NOT_ONE_HOT)
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_that_are_not_one_hot_are_refused(case, dtype):
    ts = np.eye(V, dtype=dtype)[np.random.default_rng(6).integers(0, V, (N, T))]
    ts[1, 2] = NOT_ONE_HOT[case](ts[1, 2])
    if case == "two":
        ts[2, 3] = 0  # there are as many 1 as rows again
    sentence = (
        r"ts with the shape of the scores must be one-hot, one 1 in each row, 0 elsewhere, "
        r"but the row at \(1, 2\) is not; pass ids \(3, 4\) to leave positions out\.$"
    )
    for layer, xs in both_layers():
        with pytest.raises(ValueError, match=rf"^{type(layer).__name__}\.forward: {sentence}"):
            layer.forward(xs, ts)
    with pytest.raises(ValueError, match=r"^TimeSoftmaxWithLoss\.forward: .*but the row at \(1, 0\)"):
        SoftmaxWithLoss().forward(both_layers()[1][1][:, 2].copy(), ts[:, 2])
    with pytest.raises(ValueError, match=r"^cross_entropy_error: t .*one-hot.*but the row at \(1,\)"):
        cross_entropy_error(np.full((N, V), 1 / V), ts[:, 2])


def test_one_hot_labels_of_another_kind_are_refused():
    for layer, xs in both_layers():
        for kind in (object, complex, "U1"):
            with pytest.raises(TypeError, match="ts must hold numbers, got"):
                layer.forward(xs, np.eye(V)[np.zeros((N, T), int)].astype(kind))


@pytest.mark.parametrize(
    "label", [1.0, "1", True, None, np.float32(1), 2**63, -(2**63) - 1, np.uint64(2**63)]
)
def test_a_label_to_ignore_is_an_integer_that_labels_can_hold(label):
    for layer, _ in both_layers():
        with pytest.raises((TypeError, ValueError), match=rf"^{type(layer).__name__}: ignore_label must be"):
            layer.ignore_label = label
        assert layer.ignore_label == -1
        for right in (0, np.int8(-5), 2**63 - 1, -(2**63)):
            layer.ignore_label = right
            assert layer.ignore_label == right
            assert type(layer.ignore_label) is int


def test_the_smallest_and_the_largest_label_can_be_ignored():
    expected = np.array([[0, 1, 2, -1]] * N)
    for layer, xs in both_layers():
        wanted = results(layer, xs, expected)
        for label in (-(2**63), 2**63 - 1):
            layer.ignore_label = label
            for actual, array in zip(
                results(layer, xs, np.where(expected == -1, label, expected)), wanted, strict=True
            ):
                assert_same_bits(actual, array)
        layer.ignore_label = -1


def test_wrong_inputs_are_refused():
    ts = np.zeros((N, T), int)
    for layer, xs in both_layers():
        owner = type(layer).__name__
        with pytest.raises(RuntimeError, match=rf"^{owner}\.backward: call forward first\.$"):
            layer.backward()
        with pytest.raises(
            ValueError, match=rf"^{owner}\.forward: xs must be \(N, T, [V5]\), got \(12, [57]\)"
        ):
            layer.forward(xs.reshape(N * T, -1), ts)
        with pytest.raises(TypeError, match=rf"^{owner}\.forward: .*got .*list"):
            layer.forward(xs.tolist(), ts)
        layer.forward(xs, ts)
        for dout in (np.nan, np.inf, "1", None, np.ones(2)):
            with pytest.raises((TypeError, ValueError), match=rf"^{owner}\.backward: dout must be"):
                layer.backward(dout)
    with pytest.raises(
        ValueError, match=r"^TimeSoftmaxWithLoss\.forward: V, the last axis of xs, must be at least 1"
    ):
        TimeSoftmaxWithLoss().forward(np.zeros((N, T, 0)), np.full((N, T), -1))


@pytest.mark.parametrize(("rows", "words", "wrong"), [(0, 3, "H, the rows"), (3, 0, "V, the columns")])
def test_a_matrix_without_rows_or_words_is_refused(rows, words, wrong):
    owner = "TimeAffineSoftmaxWithLoss"
    with pytest.raises(ValueError, match=rf"^{owner}: {wrong} of W, must be at least 1, got 0\.$"):
        TimeAffineSoftmaxWithLoss(np.ones((rows, words)), np.ones(words))


def test_a_gradient_is_not_written_over_parameters_or_gradients():
    layer = TimeAffineSoftmaxWithLoss(np.ones((1, 2)), np.ones(2))
    layer.forward(np.ones((1, 2, 1)), np.zeros((1, 2), int))
    for out in (*layer.params, *layer.grads):
        with pytest.raises(ValueError, match=r"^TimeAffineSoftmaxWithLoss\.backward: out shares memory"):
            layer.backward(out=out.reshape(1, 2, 1))


@pytest.mark.skipif(not JIT, reason="a million scores in plain Python take a minute")
def test_the_fused_layer_never_holds_all_scores():
    batch, steps, width, size = 8, 512, 2, 3000
    rng = np.random.default_rng(6)
    layer = TimeAffineSoftmaxWithLoss(normal(rng, (width, size), np.float32), np.zeros(size, np.float32))
    xs, ts = normal(rng, (batch, steps, width), np.float32), rng.integers(0, size, (batch, steps))
    scores = batch * steps * size * 4
    layer.forward(xs[:, :1], ts[:, :1])  # compiles
    tracemalloc.start()
    try:
        layer.forward(xs, ts)
        layer.backward()
        layer.losses(xs, ts)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert layer._workspace.nbytes < scores / 8
    assert peak < scores / 8
