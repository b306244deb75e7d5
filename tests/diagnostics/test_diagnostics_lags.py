"""Gradients by lag against derivatives by brute force."""

import numpy as np
import pytest

from rnnfast import CBOWLM, RNNLM, SequenceRegressor
from rnnfast.diagnostics import gradient_by_lag, spectral_radius

CELLS = ("rnn", "relu", "lstm", "gru")
H, T = 3, 7


def sigmoid(values):
    return 1 / (1 + np.exp(-values))


def cell_step(cell, x, h, c, Wx, Wh, b):
    if cell in ("rnn", "relu"):
        sums = x @ Wx + h @ Wh + b
        return (np.tanh(sums) if cell == "rnn" else np.maximum(sums, 0)), c
    if cell == "lstm":
        f, g, i, o = np.split(x @ Wx + h @ Wh + b, 4)
        c = sigmoid(f) * c + np.tanh(g) * sigmoid(i)
        return sigmoid(o) * np.tanh(c), c
    z, r = (sigmoid(s) for s in np.split(x @ Wx[:, : 2 * H] + h @ Wh[:, : 2 * H] + b[: 2 * H], 2))
    hat = np.tanh(x @ Wx[:, 2 * H :] + (r * h) @ Wh[:, 2 * H :] + b[2 * H :])
    return (1 - z) * h + z * hat, c


def loss_at(model, xs, ts, t, moved=None):
    """The loss of step t of one sequence; `moved` is (layer, step, 0 for h or 1 for c, what is added)."""
    params = dict(zip(model.parameter_names, model.params, strict=True))
    count = model.config["layers"]
    states = [[np.zeros(H), np.zeros(H)] for _ in range(count)]
    for step in range(t + 1):
        below = params["embed_W"][xs[step]] if "embed_W" in params else xs[step]
        for layer in range(count):
            weights = [params[f"layer{layer}_{name}"] for name in ("Wx", "Wh", "b")]
            states[layer] = list(cell_step(model.config["cell"], below, *states[layer], *weights))
            if moved is not None and moved[:2] == (layer, step):
                states[layer][moved[2]] = states[layer][moved[2]] + moved[3]
            below = states[layer][0]
    scores = below @ params["output_W"] + params["output_b"]
    if "embed_W" in params:
        return np.log(np.exp(scores).sum()) - scores[ts[t]]
    return np.mean((scores - (ts if ts.ndim == 1 else ts[t])) ** 2)


def brute_norm(model, xs, ts, t, layer, lag, state=0):
    eps = 1e-6
    moves = [(layer, t - lag, state, eps * unit) for unit in np.eye(H)]
    back = [(*move[:3], -move[3]) for move in moves]
    slopes = [
        loss_at(model, xs, ts, t, a) - loss_at(model, xs, ts, t, b) for a, b in zip(moves, back, strict=True)
    ]
    return np.linalg.norm(slopes) / (2 * eps)


def brute(model, xs, ts, targets, lags, state=0):
    """The mean over the sequences, (L, J, K + 1)."""
    return np.array([
        [
            [np.mean([brute_norm(model, x, y, t, layer, lag, state) for x, y in zip(xs, ts, strict=True)])
             for lag in range(lags + 1)]
            for t in targets
        ]
        for layer in range(model.config["layers"])
    ])  # fmt: skip


def lively(model, rng, scale=0.8):
    for param in model.params:
        param[...] = rng.standard_normal(param.shape) * scale
    return model


def text(rng, rows=2):
    return rng.integers(5, size=(rows, T)), rng.integers(5, size=(rows, T))


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_norms_of_a_language_model_are_those_of_central_differences(cell, layers):
    rng = np.random.default_rng(layers)
    model = lively(RNNLM(5, 2, H, cell=cell, layers=layers, dropout=0.5, rng=rng, dtype=np.float64), rng)
    xs, ts = text(rng)
    found = gradient_by_lag(model, xs, ts, 3, targets=[4, 6])
    np.testing.assert_array_equal(found.lags, [0, 1, 2, 3])
    np.testing.assert_array_equal(found.targets, [4, 6])
    np.testing.assert_allclose(found.h_norms, brute(model, xs, ts, (4, 6), 3), rtol=1e-6, atol=1e-8)
    assert (found.h_norms > 1e-6).any(axis=(1, 2)).all()
    np.testing.assert_allclose(found.mean(), found.h_norms.mean(axis=1))
    if cell == "lstm":
        expected = brute(model, xs, ts, (4, 6), 3, state=1)
        np.testing.assert_allclose(found.norms["c"], expected, rtol=1e-6, atol=1e-8)
        assert (found.norms["c"][..., 1:] > 1e-6).all()
        np.testing.assert_allclose(found.means()["c"], found.norms["c"].mean(axis=1))
    else:
        assert list(found.norms) == ["h"]


@pytest.mark.parametrize("every_step", [True, False])
@pytest.mark.parametrize("cell", CELLS)
def test_norms_of_a_regressor_are_those_of_central_differences(cell, every_step):
    rng = np.random.default_rng(2)
    model = lively(SequenceRegressor(2, H, 2, cell=cell, layers=2, rng=rng, dtype=np.float64), rng)
    xs = rng.standard_normal((2, T, 2))
    ts = rng.standard_normal((2, T, 2) if every_step else (2, 2))
    found = gradient_by_lag(model, xs, ts)
    targets = range(3, T) if every_step else [T - 1]
    lags = T // 2 if every_step else T - 1
    np.testing.assert_array_equal(found.targets, targets)
    np.testing.assert_allclose(found.h_norms, brute(model, xs, ts, targets, lags), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("radius", [0.7, 1.1])
def test_gradients_of_a_linear_recurrence_go_with_the_powers_of_its_spectral_radius(radius):
    """A relu that is always on is linear, and a permutation times a number changes no length but by it."""
    rng = np.random.default_rng(3)
    model = lively(SequenceRegressor(1, H, 1, cell="relu", rng=rng, dtype=np.float64), rng)
    params = dict(zip(model.parameter_names, model.params, strict=True))
    params["layer0_Wh"][...] = radius * np.roll(np.eye(H), 1, axis=0)
    params["layer0_b"][...] = 10
    assert spectral_radius(model).radii == pytest.approx(radius)
    found = gradient_by_lag(model, np.ones((1, 60, 1)), np.ones((1, 60, 1)), lags=30)
    expected = found.h_norms[..., :1] * radius ** np.arange(31)
    assert (found.h_norms[..., 0] > 0.1).all()
    np.testing.assert_allclose(found.h_norms, expected, rtol=1e-10)


def test_targets_that_are_ignored_count_for_nothing():
    rng = np.random.default_rng(4)
    model = lively(RNNLM(5, 2, H, rng=rng, dtype=np.float64), rng)
    xs, ts = text(rng)
    ts[0, 4], ts[:, 5] = -1, -1
    found = gradient_by_lag(model, xs, ts, 2, targets=[4, 5, 6])
    np.testing.assert_allclose(found.h_norms[:, 0], brute(model, xs[1:], ts[1:], [4], 2)[:, 0], rtol=1e-6)
    assert np.isnan(found.h_norms[:, 1]).all()
    np.testing.assert_allclose(found.h_norms[:, 2], brute(model, xs, ts, [6], 2)[:, 0], rtol=1e-6)
    np.testing.assert_allclose(found.mean(), found.h_norms[:, [0, 2]].mean(axis=1))
    np.testing.assert_array_equal(gradient_by_lag(model, xs, ts, 2).targets, [2, 3, 4, 6])


def test_looking_leaves_a_model_between_forward_and_backward_as_it_is():
    rng = np.random.default_rng(5)
    options = {"cell": "lstm", "layers": 2, "dropout": 0.5, "tied": True, "dtype": np.float64}
    twins = [RNNLM(5, H, H, rng=np.random.default_rng(6), **options) for _ in range(2)]
    xs, ts = text(rng)
    for model in twins:
        model.forward(xs, ts)
    first = gradient_by_lag(twins[0], xs[:1], ts[:1])
    assert twins[0].train_flg
    for model in twins:
        model.backward()
    for left, right in zip(twins[0].grads, twins[1].grads, strict=True):
        np.testing.assert_array_equal(left, right)
    np.testing.assert_array_equal(twins[0].get_state()[1][0], twins[1].get_state()[1][0])
    assert twins[0].rng_state == twins[1].rng_state
    np.testing.assert_array_equal(gradient_by_lag(twins[0], xs[:1], ts[:1]).h_norms, first.h_norms)


def test_targets_are_spread_over_a_long_sequence():
    model = RNNLM(5, H, H, rng=np.random.default_rng(8))
    ids = np.random.default_rng(9).integers(5, size=(1, 301))
    found = gradient_by_lag(model, ids[:, :-1], ids[:, 1:])
    assert (found.lags[-1], found.targets.size) == (100, 16)
    assert (found.targets[0], found.targets[-1]) == (100, 299)
    assert np.ptp(np.diff(found.targets)) <= 1


def test_input_that_cannot_be_used_is_refused_in_one_line():
    model = RNNLM(5, H, H)
    xs, ts = text(np.random.default_rng(10))
    with pytest.raises(TypeError, match=r"gradient_by_lag: the model must be an RNNLM or .*, got CBOWLM"):
        gradient_by_lag(CBOWLM(5, 2), xs, ts)
    with pytest.raises(ValueError, match="lags must be at most 6, got 7"):
        gradient_by_lag(model, xs, ts, 7)
    with pytest.raises(ValueError, match=r"targets\[1\] must be at least 3, got 2"):
        gradient_by_lag(model, xs, ts, 3, targets=[4, 2])
    with pytest.raises(ValueError, match="ts must have a target at step 3 or later, got none"):
        gradient_by_lag(model, xs, np.where(np.arange(T) < 3, ts, -1), 3)
    with pytest.raises(ValueError, match="ts must have a target at the steps of `targets`, got none"):
        gradient_by_lag(model, xs, ts, 3, targets=[])
    with pytest.raises(ValueError, match=r"ts must be \(2, 7\), got \(2, 6\)"):
        gradient_by_lag(model, xs, ts[:, 1:])
    with pytest.raises(IndexError, match="xs must hold ids from 0 to 4, got 5"):
        gradient_by_lag(model, np.full_like(xs, 5), ts)
    with pytest.raises(ValueError, match="the number of steps in xs must be at least 1, got 0"):
        gradient_by_lag(model, xs[:, :0], ts[:, :0])
