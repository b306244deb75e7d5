"""Constants, given arrays and starts of cells: each where it was set, and none in the place of another."""

import copy
import pickle

import numpy as np
import pytest
from helpers import assert_same_bits, normal

import rnnfast
from rnnfast.cells import cell, constant, given, scalar, unit, zoneout


@cell(states=("h",))
def paced(a, h, *, pace=given(), floor=constant(0.1), gain=scalar(0.5)):
    return h + pace * gain * (a - h) + floor


@cell(states=("h",))
def floored(a, h, *, floor=constant(0.1)):
    return 0.5 * h + 0.5 * a + floor


def test_a_step_between_forward_and_backward_leaves_the_gradients():
    rng = np.random.default_rng(0)
    layer = paced.layer(3, 4, rng=rng)
    xs, pace = normal(rng, (2, 5, 3), np.float32), normal(rng, (2, 5), np.float32)
    dhs = normal(rng, (2, 5, 4), np.float32)
    layer.forward(xs, pace=pace)
    expected = layer.backward(dhs)
    layer.forward(xs, pace=pace)
    layer.step(xs[:, 0], pace=pace[:, 0])
    assert_same_bits(layer.backward(dhs), expected)
    with pytest.raises(TypeError, match="the cell needs the argument pace"):
        layer.forward(xs)
    assert_same_bits(layer.backward(dhs), expected)


def test_gradients_of_given_arrays_are_those_of_the_last_window():
    rng = np.random.default_rng(0)
    layer = paced.layer(3, 4, rng=rng)
    xs, pace = normal(rng, (2, 5, 3), np.float32), normal(rng, (2, 5), np.float32)
    layer.forward(xs, pace=pace)
    layer.backward(np.ones((2, 5, 4), np.float32))
    assert layer.given_gradients["pace"].shape == (2, 5, 4)
    layer.forward(xs[:, :3], pace=pace[:, :3])
    with pytest.raises(RuntimeError, match="call backward first"):
        _ = layer.given_gradients


def test_the_gradient_of_a_scalar_may_diverge():
    layer = paced.layer(3, 4, rng=np.random.default_rng(0), dtype=np.float64)
    layer.forward(np.ones((2, 5, 3)), pace=np.ones((2, 5)))
    dhs = np.ones((2, 5, 4))
    dhs[..., 0], dhs[..., 1] = np.inf, -np.inf
    with np.errstate(all="ignore"):
        layer.backward(dhs)
    assert not np.isfinite(layer.grads[-1]).any()


def test_a_model_predicts_with_the_constants_that_were_set():
    rng = np.random.default_rng(0)
    model = rnnfast.SequenceRegressor(3, 4, 1, cell=floored, rng=rng)
    xs = normal(rng, (2, 5, 3), np.float32)
    before = model.predict(xs)
    model.body.layers[0].constants["floor"] = 0.7
    after = model.predict(xs)
    assert np.abs(after - before).max() > 1e-3
    assert model.forward(xs, after) < 1e-12


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("ceiling", 1.0, ValueError, "the cell has no constant 'ceiling'; it has floor."),
        ("floor", np.nan, ValueError, "floor must be finite, got nan."),
        ("floor", np.inf, ValueError, "floor must be finite, got inf."),
        ("floor", "high", TypeError, "floor must be a number, got 'high'."),
        ("floor", None, TypeError, "floor must be a number, got None."),
    ],
)
def test_a_wrong_constant_is_one_sentence_where_it_is_set(name, value, error, message):
    layer = floored.layer(3, 4)
    for use in (
        lambda: layer.constants.__setitem__(name, value),
        lambda: layer.constants.update({name: value}),
        lambda: setattr(layer, "constants", {name: value}),
    ):
        with pytest.raises(error, match=f"^Recurrent.constants: {message}$"):
            use()
    assert layer.constants == {"floor": 0.1}


def test_constants_stay_and_are_copied_with_their_layer():
    layer = floored.layer(3, 4)
    for use in (lambda: layer.constants.pop("floor"), layer.constants.clear):
        with pytest.raises(
            TypeError, match=r"^Recurrent.constants: a constant such as 'floor' cannot be deleted"
        ):
            use()
    assert "ceiling" not in layer.constants
    layer.constants = {"floor": np.float32(0.5)}
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert copied.constants == {"floor": 0.5}
        copied.constants["floor"] = 0.75
    assert repr(layer.constants) == "{'floor': 0.5}"


def test_messages_about_states_say_the_names_of_the_cell():
    @cell(states=("s", "v"))
    def spikes(a, s, v):
        return a + s, v + a

    layer, state = spikes.layer(3, 4, stateful=True), np.zeros((2, 4), np.float32)
    with pytest.raises(ValueError, match=r"set_state: v belongs to s; leave it out\.$"):
        layer.set_state(v=state)
    with pytest.raises(ValueError, match=r"set_state: v must be \(2, 4\), got \(3, 4\); the shape of s\.$"):
        layer.set_state(state, np.zeros((3, 4), np.float32))
    other = rnnfast.TimeRNN.from_sizes(3, 4, stateful=True)
    other.set_state(state)
    with pytest.raises(
        ValueError, match=r"set_state: s, as get_state\(\) returns it, must be a tuple of 2 \(s, v\)"
    ):
        layer.set_state(rnnfast.State.of(other))


def test_a_cell_with_a_start_of_its_own_keeps_it_in_a_model_whatever_equal_cells_there_are():
    @cell(states=("h", "c"))
    def peephole_lstm(f, g, i, o, h, c, *, pf=unit(0.25), pi=unit(0.25), po=unit(0.25)):
        return rnnfast.cells.peephole_lstm.step(f, g, i, o, h, c, pf=pf, pi=pi, po=po)

    assert peephole_lstm.fingerprint == rnnfast.cells.peephole_lstm.fingerprint
    model = rnnfast.SequenceRegressor(3, 4, 1, cell=peephole_lstm, rng=np.random.default_rng(0))
    values = dict(zip(model.parameter_names, model.params, strict=True))
    assert (values["layer0_pf"] == 0.25).all()


def test_zoneout_of_zoneout_has_numbers_of_its_own():
    twice = zoneout(zoneout(rnnfast.cells.min_gru, 0.25), 0.5)
    assert sorted(role.value for role in twice.roles.values()) == [0.25, 0.5]
