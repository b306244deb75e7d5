"""Truncated BPTT against a brute-force oracle: the state runs on, the gradient ends at the window's edge."""

import numpy as np
import pytest
from helpers import assert_same_bits
from walk import CELLS, Walk

from rnnfast.layers import plans
from rnnfast.models import CBOWLM, RNNLM
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


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("k1", "k2"), [(4, 4), (4, 7), (4, 8), (4, 21), (1, 3), (5, 100)])
def test_gradients_reach_back_k2_steps_with_what_was_kept_of_them(cell, k1, k2):
    rng = np.random.default_rng(k2)
    model = RNNLM(6, 3, 4, cell=cell, layers=2, rng=rng, dtype=np.float64)
    for param in model.params:
        param[...] = rng.standard_normal(param.shape) * 0.6
    walk = Walk(cell, [param.copy() for param in model.params])
    rows, steps = 2, 18  # no multiple of 4 or 5
    ids = rng.integers(6, size=rows * steps + 1)
    start = 0
    for window in TruncatedBPTT(k1, k2).windows(model, ids, rows):
        stop = min(start + k1, steps)
        xs, ts = (ids[shift : shift + rows * steps].reshape(rows, steps)[:, start:stop] for shift in (0, 1))
        expected_loss, expected = walk.learn(xs, ts, stop - start + k2 - k1)
        np.testing.assert_allclose(window.loss, expected_loss, rtol=1e-12)
        for name, a, e in zip(model.parameter_names, model.grads, expected, strict=True):
            assert np.linalg.norm(a - e) <= 1e-12 * np.linalg.norm(e), (name, start)
        for param, grad, mirror in zip(model.params, model.grads, walk.params, strict=True):
            param -= 0.5 * grad
            mirror[...] = param
        start = stop
    assert start == steps


def test_tied_weights_get_both_gradients_in_overlapping_windows():
    rng = np.random.default_rng(4)
    ids = rng.integers(6, size=25)
    untied = RNNLM(6, 4, 4, rng=rng, dtype=np.float64)
    tied = RNNLM(6, 4, 4, tied=True, rng=rng, dtype=np.float64)
    for param, value in zip(tied.params, [*untied.params[:4], untied.params[5]], strict=True):
        param[...] = value
    untied.params[4][...] = untied.params[0].T
    windows = [TruncatedBPTT(5, 9).windows(model, ids, 2) for model in (untied, tied)]
    for _ in zip(*windows, strict=True):
        np.testing.assert_allclose(tied.grads[0], untied.grads[0] + untied.grads[4].T, rtol=1e-12)


def test_overlapping_windows_do_not_read_a_step_twice():
    rng = np.random.default_rng(5)
    model = model_with_large_weights(rng)
    read = []
    layer = model.body.layers[0]
    take = layer.read
    layer.read = lambda xs, out, **options: (read.append(out.shape[1]), take(xs, out, **options))[1]
    assert sum(1 for _ in TruncatedBPTT(4, 14).windows(model, rng.integers(6, size=41), 2)) == 5
    assert sum(read) == 20


@pytest.mark.parametrize("V", [6, 300])  # the words of a small vocabulary are looked up in products
@pytest.mark.parametrize("wrong", [-1, "V"])
def test_ids_that_no_word_has_are_refused_in_overlapping_windows(V, wrong):
    model = RNNLM(V, 4, 4, rng=np.random.default_rng(0))
    ids = np.random.default_rng(1).integers(V, size=400)
    ids[3] = V if wrong == "V" else wrong
    with pytest.raises(
        IndexError, match=rf"RNNLM\.forward: xs must hold ids from 0 to {V - 1}, got {ids[3]} "
    ):
        next(TruncatedBPTT(20, 40).windows(model, ids, 2))


def test_windows_whose_gates_are_made_again_keep_their_gradients(monkeypatch):
    """Twice: a window goes back in several updates."""
    rng = np.random.default_rng(6)
    ids = rng.integers(6, size=2401)
    results = []
    for kept in (plans.KEPT_BYTES, 0):
        monkeypatch.setattr(plans, "KEPT_BYTES", kept)
        model = RNNLM(6, 4, 4, cell="lstm", rng=np.random.default_rng(7))
        bptt = TruncatedBPTT(600, 1800)
        results.append([[g.copy() for g in model.grads] for _ in bptt.windows(model, ids, 1)])
    for actual, expected in zip(*results, strict=True):
        for a, e in zip(actual, expected, strict=True):
            assert_same_bits(a, e)


def test_windows_that_do_not_fit_are_refused():
    assert TruncatedBPTT(5, 5).k2 == TruncatedBPTT(5).k2 == 5
    assert repr(TruncatedBPTT(5, 10)) == "TruncatedBPTT(5, 10)"
    with pytest.raises(ValueError, match="k2 must be at least 5, got 4"):
        TruncatedBPTT(5, 4)
    with pytest.raises(ValueError, match="k1 must be at least 1, got 0"):
        TruncatedBPTT(0)
    with pytest.raises(TypeError, match=r"must be an RNNLM or a SequenceRegressor, got CBOWLM"):
        next(TruncatedBPTT(5, 6).windows(CBOWLM(6, 3), np.arange(6), 1))
