"""Dropout: the mask against its definition, its statistics, and the state it resumes from."""

import numpy as np
import pytest
import reference
from rnnfast.kernels.elementwise.dropout import dropout_forward, dropout_keys

from rnnfast.layers.dropout import TimeDropout

DTYPES = (np.float32, np.float64)


def layer_and_input(ratio=0.5, shape=(3, 5, 7), dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    return TimeDropout(ratio, rng=rng), rng.standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.9])
def test_forward_and_backward_equal_the_naive_layer(ratio, dtype):
    layer, xs = layer_and_input(ratio, dtype=dtype)
    layer.rng_state = (2**64 - 3, 41)
    naive = reference.TimeDropout(ratio, 2**64 - 3, 41)
    for _ in range(3):
        out = np.full_like(xs, np.nan)
        actual = layer.forward(xs, out=out)
        assert actual is out
        np.testing.assert_allclose(actual, naive.forward(xs.astype(np.float64)), rtol=2 * np.finfo(dtype).eps)
        dout = xs * 3 + 1
        expected = naive.backward(dout.astype(np.float64))
        np.testing.assert_allclose(layer.backward(dout), expected, rtol=2 * np.finfo(dtype).eps)


def test_the_gradient_equals_central_differences():
    layer, xs = layer_and_input(0.4)
    state, weights = layer.rng_state, np.random.default_rng(1).standard_normal(xs.shape)

    def loss():
        layer.rng_state = state
        return float((layer.forward(xs) * weights).sum())

    expected = reference.central_differences(loss, xs)
    np.testing.assert_allclose(layer.backward(weights), expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("ratio", [0.05, 0.5, 0.8])
def test_the_share_of_dropped_elements_is_the_ratio_and_the_mean_is_kept(ratio):
    layer, _ = layer_and_input(ratio)
    ones = np.ones((4, 50, 100))
    masks = np.stack([layer.forward(ones).ravel() for _ in range(5)])
    count = masks.size
    deviation = np.sqrt(ratio * (1 - ratio) / count)
    assert abs((masks == 0).mean() - ratio) < 5 * deviation
    assert abs(masks.mean() - 1) < 5 * deviation / (1 - ratio)


def test_masks_of_neighbors_calls_and_seeds_are_uncorrelated():
    ones = np.ones((1, 200, 100))
    first, second = layer_and_input(seed=1)[0], layer_and_input(seed=2)[0]
    second.rng_state = (first.rng_state[0] + 1, 0)
    bits = [layer.forward(ones).ravel() - 1 for layer in (first, first, first, second)]
    limit = 5 / np.sqrt(ones.size)
    for lag in (1, 2, 7, 16, 64, 100):
        assert abs((bits[0][lag:] * bits[0][:-lag]).mean()) < limit
    for other in bits[1:]:
        for lag in range(1, 4):
            assert abs((bits[0][lag:] * other[:-lag]).mean()) < limit
        assert abs((bits[0] * other).mean()) < limit


def test_every_training_call_draws_a_new_mask_and_backward_uses_the_last():
    layer, _ = layer_and_input()
    ones = np.ones((2, 10, 10))
    first, second = layer.forward(ones), layer.forward(ones)
    assert (first != second).any()
    np.testing.assert_array_equal(layer.backward(ones), second)
    np.testing.assert_array_equal(layer.backward(ones), second)


def test_a_layer_with_the_same_state_draws_the_same_masks():
    layer, xs = layer_and_input(dtype=np.float32)
    layer.forward(xs)
    resumed = TimeDropout(0.5)
    resumed.rng_state = layer.rng_state
    for _ in range(3):
        np.testing.assert_array_equal(resumed.forward(xs), layer.forward(xs))
    assert resumed.rng_state == layer.rng_state


def test_two_layers_from_one_generator_draw_different_masks():
    rng = np.random.default_rng(0)
    ones = np.ones((2, 10, 10))
    assert (TimeDropout(rng=rng).forward(ones) != TimeDropout(rng=rng).forward(ones)).any()


def test_the_mask_does_not_depend_on_how_the_work_is_cut():
    ones = np.ones((10, 100), np.float32)
    whole, pieces = np.full_like(ones, np.nan), np.full_like(ones, np.nan)
    keys = dropout_keys(5, 6)
    dropout_forward(ones, 0, 100, *keys, 2**31, np.float32(2), whole)
    for start, stop in ((0, 1), (1, 38), (38, 50), (50, 100)):
        part = np.full((10, stop - start), np.nan, np.float32)
        ones_here = np.ascontiguousarray(ones[:, start:stop])
        dropout_forward(ones_here, start, 100, *keys, 2**31, np.float32(2), part)
        pieces[:, start:stop] = part
    np.testing.assert_array_equal(pieces, whole)


def test_outside_training_everything_passes_unchanged():
    layer, xs = layer_and_input()
    layer.train_flg = False
    state = layer.rng_state
    assert layer.forward(xs) is xs
    assert layer.backward(xs) is xs
    out = np.full_like(xs, np.nan)
    np.testing.assert_array_equal(layer.forward(xs, out=out), xs)
    assert layer.rng_state == state
    none_dropped, xs = layer_and_input(0.0)
    assert none_dropped.forward(xs) is xs


def test_input_and_output_may_be_the_same_array():
    layer, xs = layer_and_input()
    state = layer.rng_state
    expected = layer.forward(xs)
    layer.rng_state = state
    actual = xs.copy()
    assert layer.forward(actual, out=actual) is actual
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("shape", [(0, 5, 7), (3, 0, 7), (3, 5, 0)])
def test_empty_input_gives_empty_output(shape):
    layer, xs = layer_and_input(shape=shape)
    assert layer.forward(xs).shape == shape
    assert layer.backward(xs).shape == shape


def test_bad_input_is_refused():
    layer, xs = layer_and_input()
    for ratio, error in ((1.0, ValueError), (-0.1, ValueError), (np.nan, ValueError), ("half", TypeError)):
        with pytest.raises(error, match="TimeDropout: dropout_ratio must be"):
            TimeDropout(ratio)
    with pytest.raises(RuntimeError, match="call forward first"):
        TimeDropout().backward(xs)
    with pytest.raises(TypeError, match="float32 or float64"):
        layer.forward(xs.astype(int))
    with pytest.raises(TypeError, match="NumPy array"):
        layer.forward([[[1.0]]])
    with pytest.raises(ValueError, match=r"xs must be \(N, T, D\)"):
        layer.forward(xs[0])
    layer.forward(xs)
    with pytest.raises(ValueError, match="dout must be"):
        layer.backward(xs[:1])
    with pytest.raises(TypeError, match="dout must be float64"):
        layer.backward(xs.astype(np.float32))
    with pytest.raises(ValueError, match="shares memory"):
        layer.forward(xs[:2], out=xs[1:])
    with pytest.raises(TypeError, match=r"expected \(seed, counter\)"):
        layer.rng_state = 3
    with pytest.raises(ValueError, match="counter must be at least 0"):
        layer.rng_state = (1, -1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_mask_for_all_steps_is_that_of_the_first(dtype):
    layer = TimeDropout(0.5, per_step=False, rng=np.random.default_rng(3))
    ones = np.ones((4, 30, 20), dtype)
    hs = layer.forward(ones, out=np.full_like(ones, np.nan))
    assert set(np.unique(hs)) == {0, 2}
    assert (hs == hs[:, :1]).all()
    assert len({row.tobytes() for row in hs[:, 0]}) == 4
    np.testing.assert_array_equal(layer.backward(ones), hs)
    state = layer.rng_state
    assert not np.array_equal(layer.forward(ones), hs)
    layer.rng_state = state[0], state[1] - 1
    np.testing.assert_array_equal(layer.forward(ones), hs)
    with pytest.raises(TypeError, match=r"^TimeDropout: per_step must be True or False, got 1"):
        TimeDropout(per_step=1)
