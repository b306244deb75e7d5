"""Spectral radii, saturated gates, the curve of truncation, and the pictures of them all."""

import io
import sys

import matplotlib.image
import numpy as np
import pytest
import reference

import rnnfast
from rnnfast import CBOWLM, RNNLM, SequenceRegressor
from rnnfast.cells import READY, gru, lstm, rnn, tanh, where
from rnnfast.diagnostics import (
    GradientByLag,
    gate_saturation,
    gradient_by_lag,
    plot_gate_saturation,
    plot_gradient_by_lag,
    plot_spectral_radius,
    plot_truncation_bias,
    spectral_radius,
    truncation_bias,
    truncation_curve,
)

H = 4
GATES = {cell.name: cell.gates for cell in (rnn, lstm, gru)}


def model_of(cell, layers=1, seed=0):
    rng = np.random.default_rng(seed)
    model = RNNLM(5, H, H, cell=cell, layers=layers, rng=rng, dtype=np.float64)
    for param in model.params:
        param[...] = rng.standard_normal(param.shape)
    return model


def param(model, name):
    return model.params[model.parameter_names.index(name)]


def ids(rows=3, steps=9):
    return np.random.default_rng(1).integers(5, size=(rows, steps))


def test_the_spectral_radius_of_known_matrices():
    model = model_of("lstm", layers=2)
    turn = np.array([[0.0, -1.0], [1.0, 0.0]])
    known = [
        np.diag([0.1, -0.9, 0.5, 0.2]),
        np.kron(np.diag([0.6, 0.3]), turn),  # complex pairs, 0.6 i and 0.3 i
        np.diag([5.0, 0, 0], k=1),  # nilpotent: radius 0, norm 5
        2 * np.roll(np.eye(H), 1, axis=0),
    ]
    param(model, "layer1_Wh")[...] = np.concatenate(known, axis=1)
    found = spectral_radius(model)
    assert found.gates == ("f", "g", "i", "o")
    np.testing.assert_allclose(found.radii[1], [0.9, 0.6, 0.0, 2.0], atol=1e-12)
    np.testing.assert_allclose(found.norms[1], [0.9, 0.6, 5.0, 2.0], rtol=1e-12)
    blocks = np.split(param(model, "layer0_Wh"), 4, axis=1)
    np.testing.assert_allclose(
        found.radii[0], [np.abs(np.linalg.eigvals(b)).max() for b in blocks], rtol=1e-12
    )
    np.testing.assert_allclose(found.norms[0], [np.linalg.svd(b)[1][0] for b in blocks], rtol=1e-12)


@pytest.mark.parametrize("cell", ["rnn", "gru"])
def test_each_gate_has_its_own_matrix(cell):
    model = model_of(cell)
    gates = len(GATES[cell])
    param(model, "layer0_Wh")[...] = np.concatenate([(g + 1) * np.eye(H) for g in range(gates)], axis=1)
    found = spectral_radius(model)
    assert found.gates == GATES[cell]
    np.testing.assert_allclose(found.radii, [np.arange(1, gates + 1)])


def test_weights_that_are_not_finite_have_no_spectral_radius():
    model = model_of("rnn", layers=2)
    param(model, "layer1_Wh")[0, 0] = np.nan
    with pytest.raises(ValueError, match="spectral_radius: layer1_Wh must be finite"):
        spectral_radius(model)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_saturation_of_gates_whose_biases_are_set_by_hand(cell):
    """Without weights, each gate is its bias: shut, open, a quarter of the units open, or in between."""
    model = model_of(cell, layers=2)
    for values in model.params:
        values[...] = 0
    gates = len(GATES[cell])
    biases = {"rnn": [-10], "lstm": [-10, 10, [10, 0, 0, 0], 0], "gru": [[10, -10, 0, 0], -10, 10]}[cell]
    param(model, "layer1_b").reshape(gates, H)[...] = np.array([np.broadcast_to(b, H) for b in biases])
    found = gate_saturation(model, ids())
    low = {"rnn": [1], "lstm": [1, 0, 0, 0], "gru": [0.25, 1, 0]}[cell]
    high = {"rnn": [0], "lstm": [0, 1, 0.25, 0], "gru": [0.25, 0, 1]}[cell]
    assert found.gates == GATES[cell]
    np.testing.assert_array_equal(found.low, [np.zeros(gates), low])
    np.testing.assert_array_equal(found.high, [np.zeros(gates), high])


def test_limits_of_a_sigmoid_and_of_a_tanh():
    model = model_of("lstm")
    for values in model.params:
        values[...] = 0
    bias = param(model, "layer0_b").reshape(4, H)
    bias[0] = np.log([0.049 / 0.951, 0.051 / 0.949, 0.949 / 0.051, 0.951 / 0.049])
    bias[1] = np.arctanh([-0.951, -0.949, 0.949, 0.951])
    found = gate_saturation(model, ids())
    np.testing.assert_array_equal(found.low, [[0.25, 0.25, 0, 0]])
    np.testing.assert_array_equal(found.high, [[0.25, 0.25, 0, 0]])
    np.testing.assert_array_equal(gate_saturation(model, ids(), low=0.1, high=0.9).low, [[0.5, 0.5, 0, 0]])


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_activations_are_those_of_the_reference_step_by_step(cell):
    model, xs = model_of(cell, layers=2, seed=2), ids()
    kinds = {"rnn": reference.RNN, "lstm": reference.LSTM, "gru": reference.GRU}
    states = [[np.zeros((len(xs), H))] * (2 if cell == "lstm" else 1) for _ in range(2)]
    seen = [[], []]
    for x in xs.T:
        below = param(model, "embed_W")[x]
        for layer in range(2):
            Wx, Wh, b = (param(model, f"layer{layer}_{name}") for name in ("Wx", "Wh", "b"))
            h = states[layer][0]
            after = kinds[cell](Wx, Wh, b).forward(below, *states[layer])
            sums = below @ Wx + h @ Wh + b
            if cell == "gru":
                r = reference.sigmoid(sums[:, H : 2 * H])
                sums[:, 2 * H :] = below @ Wx[:, 2 * H :] + (r * h) @ Wh[:, 2 * H :] + b[2 * H :]
            seen[layer].append(np.split(sums, len(GATES[cell]), axis=1))
            states[layer] = list(after) if cell == "lstm" else [after]
            below = states[layer][0]
    tanh = {"rnn": [0], "lstm": [1], "gru": [2]}[cell]
    limits = [np.arctanh(0.95) if g in tanh else np.log(19) for g in range(len(GATES[cell]))]
    sums = np.array(seen).swapaxes(1, 2)  # (L, gates, T, N, H)
    limits = np.array(limits)[:, np.newaxis, np.newaxis, np.newaxis]
    found = gate_saturation(model, xs)
    np.testing.assert_allclose(found.low, (sums < -limits).mean(axis=(2, 3, 4)))
    np.testing.assert_allclose(found.high, (sums > limits).mean(axis=(2, 3, 4)))
    assert (found.low > 0).any()
    assert (found.high > 0).any()


def test_a_relu_is_saturated_where_it_is_zero():
    model = model_of("relu")
    param(model, "layer0_Wh")[...] = 0
    param(model, "layer0_Wx")[...] = 0
    param(model, "layer0_b")[...] = [-1, 1, 1, 1]
    found = gate_saturation(model, ids())
    assert (found.low.tolist(), found.high.tolist()) == ([[0.25]], [[0.0]])


@pytest.mark.parametrize("cell", READY, ids=lambda cell: cell.name)
def test_every_ready_cell_can_be_looked_into(cell):
    model, xs = model_of(cell, layers=2), ids()
    found = gate_saturation(model, xs)
    assert found.gates == tuple(cell.activations)
    assert found.low.shape == found.high.shape == (2, len(found.gates))
    assert ((found.low >= 0) & (found.high >= 0) & (found.low + found.high <= 1)).all()
    lags = gradient_by_lag(model, xs, xs, lags=3)
    assert tuple(lags.norms) == cell.states
    assert all(np.isfinite(norms).all() for norms in lags.norms.values())
    for ax in (plot_gate_saturation(found), plot_gradient_by_lag(lags)):
        assert drawn(ax).size


def test_the_leak_and_the_gates_of_an_slstm_are_saturated_where_their_equations_say():
    """Without weights, a leaky unit goes towards its bias, and z and o of an sLSTM follow theirs."""
    model = model_of("leaky")
    for values in model.params[1:]:
        values[...] = 0
    param(model, "layer0_alpha")[...] = 0.5
    param(model, "layer0_b")[...] = [-1, 1, 1, 0]
    found = gate_saturation(model, ids())
    assert (found.gates, found.low.tolist(), found.high.tolist()) == (("a",), [[0.5]], [[0.0]])
    model = model_of("slstm")
    for values in model.params[1:]:
        values[...] = 0
    bias = dict(zip("fzio", param(model, "layer0_b").reshape(4, H), strict=True))
    bias["z"][...] = [-3, 3, 3, 0]
    bias["o"][...] = [-9, -9, -9, 9]
    found = gate_saturation(model, ids())
    assert found.gates == ("z", "o")
    np.testing.assert_array_equal(found.low, [[0.25, 0.75]])
    np.testing.assert_array_equal(found.high, [[0.5, 0.25]])


def test_noise_is_off_and_constants_are_those_of_the_model():
    model, xs = model_of("leaky", seed=3), ids(2, 40)
    assert gate_saturation(model, xs).low.tolist() == gate_saturation(model, xs).low.tolist()
    model = model_of("lif")
    before = gradient_by_lag(model, xs, xs, lags=4).norms["v"]
    model.body.layers[0].constants["beta"] = 0.1
    assert (gradient_by_lag(model, xs, xs, lags=4).norms["v"] != before).any()


def test_a_cell_of_a_users_own_can_be_looked_into():
    @rnnfast.cell(states=("y",))
    def mine(stay, new, y):
        return where(stay > 0, y, tanh(new))

    found = gate_saturation(model_of(mine), ids())
    assert found.gates == ("new",)
    assert 0 < found.low[0, 0] + found.high[0, 0] < 1


def test_a_long_window_is_measured_as_a_short_one(monkeypatch):
    model, xs = model_of("gru"), ids(6, 200)
    whole = gate_saturation(model, xs)
    monkeypatch.setattr("rnnfast.layers.plans.KEPT_BYTES", 0)
    np.testing.assert_array_equal(gate_saturation(model, xs).low, whole.low)


def test_one_weight_a_unit_has_a_spectral_radius_and_no_weights_have_none():
    model = model_of("ind_rnn", layers=2)
    param(model, "layer0_Wh")[...] = [0.5, -2.0, 0.1, 0.0]
    found = spectral_radius(model)
    assert found.gates == ("a",)
    assert (found.radii[0, 0], found.norms[0, 0]) == (2.0, 2.0)
    with pytest.raises(ValueError, match="spectral_radius: the cell min_gru has no recurrent weights"):
        spectral_radius(model_of("min_gru"))


def test_measuring_gates_leaves_the_state_alone_and_checks_its_input():
    model = SequenceRegressor(2, H, 1, cell="gru", rng=np.random.default_rng(3), dtype=np.float64)
    xs = np.random.default_rng(4).standard_normal((2, 5, 2))
    model.predict(xs, carry=True)
    before = model.get_state()[0][0]
    first = gate_saturation(model, xs[:1])
    np.testing.assert_array_equal(gate_saturation(model, xs[:1]).low, first.low)
    np.testing.assert_array_equal(model.get_state()[0][0], before)
    with pytest.raises(ValueError, match=r"gate_saturation: xs must be \(N, T, 2\), got \(2, 5, 1\)"):
        gate_saturation(model, xs[..., :1].copy())
    with pytest.raises(ValueError, match="the number of sequences in xs must be at least 1, got 0"):
        gate_saturation(model, xs[:0])
    with pytest.raises(ValueError, match="high must be from 0 to 1, got 95"):
        gate_saturation(model, xs, high=95)
    with pytest.raises(TypeError, match="got CBOWLM; other models have no recurrence"):
        spectral_radius(CBOWLM(5, 2))


def test_the_curve_of_truncation_has_the_bias_of_each_window():
    model, xs = model_of("rnn", seed=5), ids(2, 20)
    curve = truncation_curve(model, xs, xs[:, ::-1].copy())
    np.testing.assert_array_equal(curve.ks, [1, 2, 4, 8, 16])
    for k, *expected in zip(*curve, strict=True):
        assert tuple(expected) == truncation_bias(model, xs, xs[:, ::-1].copy(), int(k))
    assert curve.relative_errors[0] > 1e-3
    assert truncation_curve(model, xs, xs, [20]).relative_errors[0] < 1e-12
    assert truncation_curve(model, xs[:, :1], xs[:, :1]).ks.tolist() == [1]
    with pytest.raises(ValueError, match=r"truncation_curve: ks\[1\] must be at least 1, got 0"):
        truncation_curve(model, xs, xs, [1, 0])
    with pytest.raises(ValueError, match="ks must hold at least one window"):
        truncation_curve(model, xs, xs, [])


def pictures():
    model, xs = model_of("lstm", layers=2), ids(2, 20)
    return {
        plot_gradient_by_lag: gradient_by_lag(model, xs, xs),
        plot_truncation_bias: truncation_curve(model, xs, xs),
        plot_spectral_radius: spectral_radius(model),
        plot_gate_saturation: gate_saturation(model, xs),
    }


def drawn(ax):
    """The pixels of a figure."""
    file = io.BytesIO()
    ax.figure.savefig(file, format="png")
    file.seek(0)
    return matplotlib.image.imread(file)[..., :3]


def test_pictures_are_drawn_on_new_axes_and_on_given_ones():
    for plot, found in pictures().items():
        ax = plot(found)
        pixels = drawn(ax)
        assert pixels.shape[0] > 400, plot.__name__
        color = np.array([0x1F, 0x5F, 0xBF]) / 255
        assert (np.abs(pixels - color).max(axis=-1) < 0.03).sum() > 100, plot.__name__
        given = ax.figure.add_subplot()
        assert plot(found, ax=given) is given
        assert given.get_title(loc="left") == ax.get_title(loc="left") != ""


def test_the_lines_and_bars_are_the_numbers():
    (lag, lags), (bias, curve), (radius, radii), (gates, shares) = pictures().items()
    ax = lag(lags)
    lines = {line.get_label(): line.get_ydata() for line in ax.get_lines()}
    np.testing.assert_array_equal(lines["layer1, h"], lags.mean()[1])
    np.testing.assert_array_equal(lines["layer0, c"][1:], lags.means()["c"][0, 1:])
    assert ax.get_yscale() == "log"
    ax = bias(curve)
    np.testing.assert_array_equal(ax.get_lines()[0].get_xydata(), np.stack(curve[:2], axis=1))
    np.testing.assert_array_equal(ax.get_lines()[1].get_ydata(), 1 - curve.cosines)
    heights = [bar.get_height() for bar in radius(radii).patches]
    np.testing.assert_array_equal(heights, radii.radii.ravel())
    heights = [bar.get_height() for bar in gates(shares).patches]
    np.testing.assert_array_equal(heights, np.append(shares.high, -shares.low))


def test_a_gradient_that_is_zero_everywhere_still_makes_a_picture():
    zero = GradientByLag(np.arange(3), np.array([5]), {"h": np.zeros((1, 1, 3))})
    ax = plot_gradient_by_lag(zero)
    assert ax.get_yscale() == "linear"
    assert drawn(ax).size


def test_without_matplotlib_one_sentence_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    for plot, found in pictures().items():
        sentence = f"{plot.__name__}: drawing needs matplotlib: pip install"
        with pytest.raises(ImportError, match=sentence):
            plot(found)
