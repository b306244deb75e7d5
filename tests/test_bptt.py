"""Truncated BPTT against a brute-force oracle: the state runs on, the gradient ends at the window's edge."""

import numpy as np
import pytest

from rnnfast.models import RNNLM
from rnnfast.training import TruncatedBPTT


def loss_of_window(params, h, xs, ts):
    """Mean loss of a window that begins in state `h`, and the state after it; plain NumPy, one layer."""
    embed_W, Wx, Wh, b, W, bias = params
    total = 0.0
    for t in range(xs.shape[1]):
        h = np.tanh(h @ Wh + embed_W[xs[:, t]] @ Wx + b)
        scores = h @ W + bias
        total += (np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(len(xs)), ts[:, t]]).sum()
    return total / ts.size, h


def gradient_of_window(params, h, xs, ts, eps=1e-5):
    """Central differences with `h` held fixed: what truncation means."""
    grads = [np.full(param.shape, np.nan) for param in params]
    for param, grad in zip(params, grads, strict=True):
        for index in np.ndindex(param.shape):
            kept = param[index]
            param[index] = kept + eps
            above = loss_of_window(params, h, xs, ts)[0]
            param[index] = kept - eps
            below = loss_of_window(params, h, xs, ts)[0]
            param[index] = kept
            grad[index] = (above - below) / (2 * eps)
    return grads


def model_with_large_weights(rng):
    model = RNNLM(6, 3, 4, rng=rng, dtype=np.float64)
    for param in model.params:
        param[...] = rng.standard_normal(param.shape) * 0.6
    return model


def test_each_window_has_the_running_state_and_the_gradient_of_its_own_steps_only():
    rng = np.random.default_rng(0)
    model = model_with_large_weights(rng)
    ids = rng.integers(6, size=33)
    rows, k1 = 2, 5
    jump = (len(ids) - 1) // rows
    oracle = [param.copy() for param in model.params]
    h, start, seen = np.zeros((rows, 4)), 0, 0
    for window in TruncatedBPTT(k1).windows(model, ids, rows):
        stop = min(start + k1, jump)
        xs = np.array([ids[n * jump + start : n * jump + stop] for n in range(rows)])
        ts = np.array([ids[n * jump + start + 1 : n * jump + stop + 1] for n in range(rows)])
        expected_loss, h_after = loss_of_window(oracle, h, xs, ts)
        np.testing.assert_allclose(window.loss, expected_loss, rtol=1e-12)
        for actual, expected in zip(model.grads, gradient_of_window(oracle, h, xs, ts), strict=True):
            assert np.linalg.norm(actual - expected) < 1e-5 * np.linalg.norm(expected)
        # An update between windows: the state is the one the old parameters left.
        for param, grad, mirror in zip(model.params, model.grads, oracle, strict=True):
            param -= 0.5 * grad
            mirror[...] = param
        h, start = h_after, stop
        seen += window.tokens
        assert (window.number, window.windows) == (seen // (rows * k1) + (seen % (rows * k1) > 0), 4)
    assert seen == rows * jump


def test_the_gradient_of_a_longer_window_differs_so_truncation_is_real():
    rng = np.random.default_rng(1)
    ids = rng.integers(6, size=13)
    model = model_with_large_weights(rng)
    *_, _ = TruncatedBPTT(6).windows(model, ids, 1)
    short = model.grads[1].copy()
    windows = TruncatedBPTT(12).windows(model, ids, 1)
    next(windows)
    assert np.abs(short - model.grads[1]).max() > 1e-4


def test_every_pass_begins_with_a_fresh_state():
    rng = np.random.default_rng(2)
    model = model_with_large_weights(rng)
    ids = rng.integers(6, size=21)
    first, second = ([window.loss for window in TruncatedBPTT(4).windows(model, ids, 2)] for _ in range(2))
    assert first == second


def test_a_memory_map_gives_the_windows_of_the_array(tmp_path):
    rng = np.random.default_rng(3)
    model = model_with_large_weights(rng)
    ids = rng.integers(6, size=40)
    mapped = np.memmap(tmp_path / "ids", dtype=np.uint16, mode="w+", shape=ids.shape)
    mapped[...] = ids
    expected = [window.loss for window in TruncatedBPTT(4).windows(model, ids, 3)]
    actual = [window.loss for window in TruncatedBPTT(4).windows(model, mapped, 3)]
    assert actual == expected


def test_overlapping_windows_are_refused_and_equal_lengths_are_not():
    assert TruncatedBPTT(5, 5).k2 == TruncatedBPTT(5).k2 == 5
    with pytest.raises(ValueError, match="k2 must be None or equal to k1, got k1=5 and k2=10"):
        TruncatedBPTT(5, 10)
    with pytest.raises(ValueError, match="k1 must be at least 1, got 0"):
        TruncatedBPTT(0)
