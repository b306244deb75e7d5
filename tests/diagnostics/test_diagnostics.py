"""The bias of truncation against brute force, and the window that is chosen by it."""

import numpy as np
import pytest
from walk import Walk

from rnnfast import CBOWLM, RNNLM, SequenceRegressor, Trainer, TruncatedBPTT, optim
from rnnfast.diagnostics import truncation_bias


def data(rng, rows=2, steps=23):
    ids = rng.integers(6, size=(rows, steps + 1))
    return ids[:, :-1].copy(), ids[:, 1:].copy()


def remembering(rng, cell="rnn", **options):
    """A model whose gradients go far back."""
    model = RNNLM(6, 4, 4, cell=cell, rng=rng, dtype=np.float64, **options)
    for param in model.params:
        param[...] = rng.standard_normal(param.shape) * 0.7
    return model


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize(("k", "k2"), [(5, None), (4, 7), (23, None), (1, 2)])
def test_the_bias_is_that_of_the_brute_force_gradients(cell, k, k2):
    rng = np.random.default_rng(k)
    model = remembering(rng, cell)
    xs, ts = data(rng)
    walk, whole = (Walk(cell, [param.copy() for param in model.params]) for _ in range(2))
    _, exact = whole.learn(xs, ts, 23)
    truncated = [np.zeros_like(grad) for grad in exact]
    for first in range(0, 23, k):
        window = slice(first, min(first + k, 23))
        count = xs[:, window].shape[1]
        for total, grad in zip(
            truncated, walk.learn(xs[:, window], ts[:, window], count + (k2 or k) - k)[1], strict=True
        ):
            total += grad * count / 23
    exact, truncated = (np.concatenate([grad.ravel() for grad in grads]) for grads in (exact, truncated))
    bias = truncation_bias(model, xs, ts, k, k2)
    expected = np.linalg.norm(truncated - exact) / np.linalg.norm(exact)
    assert bias.relative_error == pytest.approx(expected, rel=1e-9, abs=1e-12)
    norms = np.linalg.norm(truncated) * np.linalg.norm(exact)
    assert bias.cosine == pytest.approx(truncated @ exact / norms, rel=1e-12)
    assert (bias.relative_error < 1e-12) == (k == 23)


def test_measuring_leaves_state_parameters_and_dropout_alone():
    rng = np.random.default_rng(0)
    model = remembering(rng, dropout=0.5)
    xs, ts = data(rng)
    model.forward(xs, ts)
    state, drops, params = model.get_state(), model.rng_state, [param.copy() for param in model.params]
    first = truncation_bias(model, xs, ts, 3)
    assert truncation_bias(model, xs, ts, 3) == first
    np.testing.assert_array_equal(model.get_state()[0][0], state[0][0])
    assert model.rng_state == drops
    assert model.train_flg
    for param, before in zip(model.params, params, strict=True):
        np.testing.assert_array_equal(param, before)


def test_labels_that_are_ignored_do_not_weigh():
    rng = np.random.default_rng(1)
    model = remembering(rng)
    xs, ts = data(rng)
    ts[:, 8:] = -1
    assert truncation_bias(model, xs, ts, 8).relative_error < 1e-12
    assert truncation_bias(model, xs, np.full_like(ts, -1), 8) == (0.0, 1.0)


def test_with_a_target_at_the_last_step_truncation_misses_what_lies_before_the_last_window():
    rng = np.random.default_rng(2)
    model = SequenceRegressor(2, 5, 1, rng=rng, dtype=np.float64)
    xs, ts = rng.standard_normal((3, 20, 2)), rng.standard_normal((3, 1))
    errors = [truncation_bias(model, xs, ts, k).relative_error for k in (2, 5, 10, 20)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 0.01
    assert errors[-1] < 1e-12


def test_a_model_that_has_no_parts_is_refused():
    with pytest.raises(TypeError, match="truncation_bias: the model must be an RNNLM"):
        truncation_bias(CBOWLM(6, 3), *data(np.random.default_rng(3)), 4)
    with pytest.raises(ValueError, match="k2 must be at least 4, got 3"):
        truncation_bias(RNNLM(6, 3, 3), *data(np.random.default_rng(3)), 4, 3)


def test_the_window_is_the_shortest_whose_bias_is_tolerated():
    rng = np.random.default_rng(4)
    ids = rng.integers(6, size=2 * 400 + 1)
    model = remembering(rng)
    bptt = TruncatedBPTT(4, "auto", tolerance=0.02)
    next(bptt.windows(model, ids, 2))
    assert bptt.k2 in (8, 16, 32, 64, 128)
    xs, ts = (ids[shift : shift + 800].reshape(2, 400)[:, :256] for shift in (0, 1))
    assert bptt.bias == truncation_bias(model, xs, ts, 4, bptt.k2)
    assert bptt.bias.relative_error <= 0.02 < truncation_bias(model, xs, ts, 4, bptt.k2 // 2).relative_error
    model.params[2][...] = 0  # without a recurrent connection there is nothing to go back to
    next(bptt.windows(model, ids, 2))
    assert (bptt.k2, bptt.bias.relative_error < 1e-12) == (4, True)
    assert repr(bptt) == 'TruncatedBPTT(4, "auto", tolerance=0.02)'


def test_the_trainer_takes_a_window_that_is_measured():
    ids = np.arange(401) % 5
    model = RNNLM(5, 8, 8, rng=np.random.default_rng(5))
    bptt = TruncatedBPTT(4, "auto")
    history = Trainer(model, optim.Adam(lr=0.01), bptt).fit(ids, epochs=3, batch_size=2)
    assert history[-1]["train_perplexity"] < history[0]["train_perplexity"]
    assert bptt.k2 >= 4
    with pytest.raises(ValueError, match="k2 must be one of auto, got 'all'"):
        TruncatedBPTT(4, "all")
    with pytest.raises(ValueError, match="tolerance must be above 0"):
        TruncatedBPTT(4, "auto", tolerance=0.0)
