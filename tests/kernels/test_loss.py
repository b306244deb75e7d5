"""Softmax with loss, on given scores and fused with its affine layer: values, gradients, extremes, labels."""

import math

import numpy as np
import pytest
import reference
from helpers import DTYPES, assert_same_bits, normal, poison, poisoned, relative_distance, sized
from rnnfast.kernels.losses.fused_loss import SLAB_WORDS, loss_block_rows
from rnnfast.kernels.losses.softmax import LANES
from rnnfast.kernels.product.tile import panel_width

from rnnfast import TimeAffine, TimeAffineSoftmaxWithLoss, TimeSoftmaxWithLoss

WIDTH = panel_width(np.dtype(np.float32))
BLOCK_ROWS = loss_block_rows(1, 1_000_000, 4)  # for a small vocabulary
TOLERANCE = {np.float32: 1e-5, np.float64: 1e-11}

# (N, T, H, V): V around vectors, panels, lanes of sums and slabs of words; rows around one block of the loss.
EDGES = [1, 2, WIDTH // 2, WIDTH - 1, WIDTH, WIDTH + 1, LANES - 1, LANES, LANES + 1]
EDGES += [SLAB_WORDS - 1, SLAB_WORDS, SLAB_WORDS + 1, sized(2, 1) * SLAB_WORDS + WIDTH + 3]
VOCABULARIES = sorted(set(EDGES))
SIZES = [(2, 3, 5, V) for V in VOCABULARIES] + [
    (1, 1, 1, 3),
    (1, BLOCK_ROWS, 3, 4),
    (1, BLOCK_ROWS + 1, 3, 4),
    (3, 2 * (BLOCK_ROWS // 3) + 5, WIDTH + 1, 4),
    (BLOCK_ROWS - 1, 2, 2, 5),
    (BLOCK_ROWS + 2, 2, 2, 5),
    (sized(7, 2), sized(40, 9), 9, LANES + 5),
]


def fused_layer(H, V, dtype, seed=0):
    rng = np.random.default_rng(seed)
    return TimeAffineSoftmaxWithLoss(normal(rng, (H, V), dtype) * dtype(0.7), normal(rng, V, dtype))


def labels(rng, N, T, V, ignored=True):
    return rng.integers(-1 if ignored else 0, V, (N, T))


def run_fused(layer, xs, ts, dout=1.0):
    """Results of one forward and backward; all that must be overwritten is poisoned first."""
    dxs = poisoned(xs.shape, xs.dtype)
    poison(layer)
    loss = layer.forward(xs, ts)
    poison(layer, keep=layer._gradients)
    assert layer.backward(dout, out=dxs) is dxs
    return {"loss": np.array(loss), "dxs": dxs, "dW": layer.grads[0].copy(), "db": layer.grads[1].copy()}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_fused_layer_equals_the_reference(size, dtype):
    N, T, H, V = size
    rng = np.random.default_rng(1)
    layer = fused_layer(H, V, dtype)
    xs, ts = normal(rng, (N, T, H), dtype), labels(rng, N, T, V)
    ts[0, 0] = V - 1
    actual = run_fused(layer, xs, ts, dout=0.5)
    twin = reference.TimeAffineSoftmaxWithLoss(*(param.astype(np.float64) for param in layer.params))
    expected = {"loss": np.array(twin.forward(xs.astype(np.float64), ts)), "dxs": twin.backward(0.5)}
    expected |= {"dW": twin.grads[0], "db": twin.grads[1]}
    for name in expected:
        assert relative_distance(actual[name], expected[name]) <= TOLERANCE[dtype], name
    assert relative_distance(layer.losses(xs, ts), twin.losses(xs.astype(np.float64), ts)) <= TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("V", VOCABULARIES)
def test_the_loss_of_given_scores_equals_the_reference(V, dtype):
    rng = np.random.default_rng(2)
    layer, twin = TimeSoftmaxWithLoss(), reference.TimeSoftmaxWithLoss()
    xs, ts = normal(rng, (3, 4, V), dtype) * dtype(3), labels(rng, 3, 4, V)
    for _ in range(2):  # the second time over poisoned scratch
        loss = layer.forward(xs, ts)
        expected = twin.forward(xs.astype(np.float64), ts)
        assert abs(loss - expected) <= TOLERANCE[dtype] * max(1, expected)
        actual, expected = layer.backward(2.0), twin.backward(2.0)
        assert relative_distance(actual, expected) <= TOLERANCE[dtype]
        poison(layer)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("V", VOCABULARIES)
def test_fused_and_separate_layers_agree(V, dtype):
    """They differ in the order of their sums over H and V."""
    rng = np.random.default_rng(3)
    fused = fused_layer(6, V, dtype)
    affine, softmax = TimeAffine(*fused.params), TimeSoftmaxWithLoss()
    xs, ts = normal(rng, (4, sized(45, 9), 6), dtype), labels(rng, 4, sized(45, 9), V)
    actual = run_fused(fused, xs, ts)
    loss = softmax.forward(affine.forward(xs), ts)
    assert abs(actual["loss"] - loss) <= (V + 8) * np.finfo(dtype).eps * max(1, loss)
    expected = {"dxs": affine.backward(softmax.backward()), "dW": affine.grads[0], "db": affine.grads[1]}
    for name in expected:
        assert relative_distance(actual[name], expected[name]) <= TOLERANCE[dtype], name


def test_every_gradient_equals_central_differences():
    rng = np.random.default_rng(4)
    fused, separate = fused_layer(3, 5, np.float64), TimeSoftmaxWithLoss()
    xs, scores, ts = rng.standard_normal((2, 4, 3)), rng.standard_normal((2, 4, 5)), labels(rng, 2, 4, 5)
    fused.forward(xs, ts)
    actual = [fused.backward(), *(grad.copy() for grad in fused.grads)]
    for name, array, gradient in zip("xWb", (xs, *fused.params), actual, strict=True):
        expected = reference.central_differences(lambda: fused.forward(xs, ts), array, step=1e-6)
        assert relative_distance(gradient, expected) <= 1e-5, name
    separate.forward(scores, ts)
    actual = separate.backward()
    expected = reference.central_differences(lambda: separate.forward(scores, ts), scores, step=1e-6)
    assert relative_distance(actual, expected) <= 1e-5


def layers_of_scores(V, dtype):
    """Both layers, the fused one with an identity matrix, so that its inputs are its scores."""
    return [TimeAffineSoftmaxWithLoss(np.eye(V, dtype=dtype), np.zeros(V, dtype)), TimeSoftmaxWithLoss()]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("V", [40, SLAB_WORDS + 9])
def test_extreme_scores_give_finite_losses_and_gradients(V, dtype):
    rng = np.random.default_rng(5)
    lowest = dtype(-1e30)  # as good as -inf
    last = V - 1  # in the last slab
    scores = np.zeros((1, 9, V), dtype)
    scores[0, 0] = 1e4
    scores[0, 1] = -1e4
    scores[0, 2] = np.where(rng.integers(0, 2, V), 1e4, -1e4)
    scores[0, 2, :2] = 1e4, -1e4
    scores[0, 3, 1:] = lowest
    scores[0, 4, :last] = lowest
    scores[0, 5, 0] = 1e4  # the label is another: its exponential underflows to 0
    scores[0, 6, last] = 1e4
    scores[0, 7] = np.linspace(-120, 0, V)
    scores[0, 8] = np.linspace(0, -120, V)
    ts = np.array([[0, 1, 1, 0, last, 5, 0, 0, last]])
    twin = reference.TimeSoftmaxWithLoss()
    expected = twin.losses(scores.astype(np.float64), ts)
    eps = np.finfo(dtype).eps
    for layer in layers_of_scores(V, dtype):
        loss, dxs = layer.forward(scores, ts), layer.backward()
        assert math.isfinite(loss)
        assert abs(loss - expected.mean()) <= 8 * eps * expected.mean()
        assert np.isfinite(dxs).all()
        assert np.abs(dxs - twin.backward()).max() <= 8 * eps
    actual = layers_of_scores(V, dtype)[0].losses(scores, ts)
    np.testing.assert_allclose(actual, expected, rtol=8 * eps, atol=8 * eps)


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_in_one_score_makes_its_row_nan_and_no_other(dtype):
    rng = np.random.default_rng(6)
    scores, ts = normal(rng, (2, 3, 40), dtype), labels(rng, 2, 3, 40, ignored=False)
    layer = TimeSoftmaxWithLoss()
    layer.forward(scores, ts)
    expected = layer.backward()
    scores[1, 1, 7] = np.nan
    assert math.isnan(layer.forward(scores, ts))
    actual = layer.backward()
    assert np.isnan(actual[1, 1]).all()
    actual[1, 1] = expected[1, 1]
    assert_same_bits(actual, expected)
    fused = fused_layer(4, 40, dtype)
    xs = normal(rng, (2, 3, 4), dtype)
    expected = fused.losses(xs, ts)
    xs[1, 1, 0] = np.nan
    actual = fused.losses(xs, ts)
    assert np.isnan(actual[1, 1])
    actual[1, 1] = expected[1, 1]
    assert_same_bits(actual, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_word_has_probability_one(dtype):
    layer = fused_layer(4, 1, dtype)
    actual = run_fused(layer, normal(np.random.default_rng(7), (2, 3, 4), dtype), np.zeros((2, 3), int))
    assert not any(array.any() for array in actual.values())


@pytest.mark.parametrize("dtype", DTYPES)
def test_backward_is_linear_in_what_comes_in_and_may_be_repeated(dtype):
    rng = np.random.default_rng(8)
    fused, separate = fused_layer(4, 9, dtype), TimeSoftmaxWithLoss()
    xs, scores, ts = normal(rng, (2, 3, 4), dtype), normal(rng, (2, 3, 9), dtype), labels(rng, 2, 3, 9)
    fused.forward(xs, ts)
    separate.forward(scores, ts)
    expected = [fused.backward(), *(grad.copy() for grad in fused.grads), separate.backward()]
    for dout in (1.0, -4.0, 0.0, 1.0, 0.5):  # powers of two: exact
        actual = [fused.backward(dout), *fused.grads, separate.backward(dout)]
        for scaled, once in zip(actual, expected, strict=True):
            np.testing.assert_array_equal(scaled, once * dtype(dout))


@pytest.mark.parametrize(("N", "T"), [(0, 3), (3, 0)])
def test_empty_windows_have_loss_zero_and_zero_gradients(N, T):
    fused, separate = fused_layer(4, 5, np.float32), TimeSoftmaxWithLoss()
    ts = np.zeros((N, T), int)
    actual = run_fused(fused, np.zeros((N, T, 4), np.float32), ts)
    assert actual["dxs"].shape == (N, T, 4)
    assert not any(array.any() for array in actual.values())
    assert separate.forward(np.zeros((N, T, 5), np.float32), ts) == 0.0
    assert separate.backward().shape == (N, T, 5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_scores_may_all_be_as_low_as_the_type_goes(dtype):
    lowest = np.finfo(dtype).min
    b = np.array([lowest, lowest, lowest, lowest / 2], dtype)
    layer = TimeAffineSoftmaxWithLoss(np.zeros((2, 4), dtype), b)
    xs, ts = np.zeros((1, 2, 2), dtype), np.array([[3, 3]])
    assert layer.forward(xs, ts) == 0
    assert np.isfinite(layer.backward()).all()
    b[...] = lowest
    assert layer.forward(xs, ts) == pytest.approx(np.log(4), rel=1e-6)
