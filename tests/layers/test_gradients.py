"""Clipping, norms and merging of gradients against their naive twins."""

import math

import numpy as np
import pytest
import reference
from helpers import DTYPES, arrays, distance, sized
from rnnfast.kernels.elementwise import optim as kernels

from rnnfast import optim
from rnnfast.layers.base import Workspace


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("max_norm", [0.0, 0.5, 1e3])
def test_clip_by_norm_equals_the_naive_formula(dtype, max_norm):
    actual = arrays(5, dtype=dtype)
    expected = [grad.astype(np.float64) for grad in actual]
    norm = optim.clip_by_norm(actual, max_norm)
    assert norm == pytest.approx(reference.clip_by_norm(expected, max_norm), rel=1e-14)
    if max_norm:
        assert distance(actual, expected) <= 4 * np.finfo(dtype).eps
    else:
        assert all((grad == 0).all() for grad in actual)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_clip_by_norm_reports_numbers_that_are_not_finite_and_leaves_the_gradients_alone(bad):
    actual = arrays(5, dtype=np.float32)
    actual[2][3, 4] = bad
    expected = [grad.copy() for grad in actual]
    norm = optim.clip_by_norm(actual, 0.1)
    assert not math.isfinite(norm)
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(a, e)


def test_clipping_reaches_views_of_any_layout():
    base = arrays(6, [(6, 8)])[0]
    for view in (base.T, base[::2], base[:, ::3]):
        expected = [view.copy()]
        optim.clip_by_norm([view], 1.0)
        reference.clip_by_norm(expected, 1.0)
        np.testing.assert_allclose(view, expected[0], rtol=1e-14)
        optim.clip_by_value([view], 0.1)
        reference.clip_by_value(expected, 0.1)
        np.testing.assert_allclose(view, expected[0], rtol=1e-14)


@pytest.mark.parametrize("dtype", DTYPES)
def test_clip_by_value_clamps_and_keeps_nan(dtype):
    actual = [np.array([-9, -1, -0.5, 0, 0.5, 1, 9, np.nan, np.inf, -np.inf] * 7, dtype)]
    expected = [actual[0].copy()]
    optim.clip_by_value(actual, 1)
    reference.clip_by_value(expected, 1)
    np.testing.assert_array_equal(actual[0], expected[0])


@pytest.mark.parametrize("limit", [-1.0, math.nan])
def test_limits_that_make_no_sense_are_refused(limit):
    with pytest.raises(ValueError, match="max_norm"):
        optim.clip_by_norm([np.ones(2)], limit)
    with pytest.raises(ValueError, match="limit"):
        optim.clip_by_value([np.ones(2)], limit)


def test_the_norm_of_many_float32_numbers_keeps_its_digits():
    count = sized(3_000_017, 3000)
    grad = np.full(count, 0.1, np.float32)
    expected = math.sqrt(float(np.float32(0.1)) ** 2 * count)
    assert optim.global_norm([grad]) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 127, 128, 129, 1000])
def test_squares_are_summed_in_the_documented_order(count):
    x = np.random.default_rng(count).standard_normal(count)
    lanes = [0.0] * 16
    whole = count - count % 128
    for start in range(0, whole, 128):
        for j in range(16):
            s = [x[start + j + 16 * row] * x[start + j + 16 * row] for row in range(8)]
            lanes[j] += ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]))
    for i in range(count - whole):
        lanes[i % 16] += x[whole + i] * x[whole + i]
    for half in (8, 4, 2, 1):
        for j in range(half):
            lanes[j] += lanes[j + half]
    actual = np.full(16, np.nan)
    assert kernels.squared_norm(x, actual) == lanes[0]
    np.testing.assert_array_equal(actual, lanes)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_bad_number_is_found_wherever_it_is(bad, dtype):
    for count in (1, 17, 4096, 4097, 9000):
        x = np.full(count, np.finfo(dtype).max, dtype)
        assert optim.all_finite([np.ones(3), x])
        for where in {0, count // 2, count - 1}:
            x[where] = bad
            assert not optim.all_finite([np.ones(3), x])
            x[where] = 0


def test_gradients_of_the_same_memory_are_added_also_when_transposed():
    W, b, square = np.zeros((2, 3)), np.zeros(3), np.zeros((2, 2))
    params = [W, b, W.T, square, W, square.T, W[:]]
    grads = arrays(7, [param.shape for param in params])
    before = [grad.copy() for grad in grads]
    merged_params, merged_grads = optim.merge_shared(params, grads)
    assert [id(param) for param in merged_params] == [id(W), id(b), id(square)]
    np.testing.assert_allclose(merged_grads[0], before[0] + before[2].T + before[4] + before[6], rtol=1e-15)
    assert merged_grads[1] is grads[1]
    np.testing.assert_allclose(merged_grads[2], before[3] + before[5].T, rtol=1e-15)
    for grad, kept in zip(grads, before, strict=True):
        np.testing.assert_array_equal(grad, kept)


def test_arrays_that_only_look_alike_are_not_merged():
    whole = np.zeros((4, 4))
    params = [np.zeros((2, 2)), np.zeros((2, 2)), whole, whole[:2], whole[2:], whole[:, :2], np.zeros((0, 3))]
    params.append(params[-1])
    grads = [np.ones_like(param) for param in params]
    merged_params, merged_grads = optim.merge_shared(params, grads)
    assert all(m is p for m, p in zip(merged_params, params, strict=True))
    assert all(m is g for m, g in zip(merged_grads, grads, strict=True))


def test_merging_twice_with_a_workspace_gives_the_same_memory_and_values():
    W = np.zeros((2, 3))
    grads = arrays(8, [(2, 3), (3, 2)])
    workspace = Workspace()
    first = optim.merge_shared([W, W.T], grads, workspace=workspace)[1][0]
    kept = first.copy()
    second = optim.merge_shared([W, W.T], grads, workspace=workspace)[1][0]
    assert np.may_share_memory(first, second)
    np.testing.assert_array_equal(second, kept)
