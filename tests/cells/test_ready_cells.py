"""Values and gradients of every ready cell, and of cells with all that one may have."""

import numpy as np
import pytest
from helpers import DTYPES, assert_same_bits, relative_distance, sized
from reference import TimeCell
from user_cells import CELLS, RANDOM, CellWindow, drawn, layer_of, run_all

import rnnfast
from rnnfast import cells
from rnnfast.cells import _check_gradient
from rnnfast.cells._check_gradient import largest_difference

# Compiling a cell takes 5 s for each type: float32 for all, float64 where code differs from that of others.
BOTH = ["lstm", "everything"]


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize(
    "options", [{}, {"lengths": True, "resets": True}], ids=["full", "lengths and resets"]
)
def test_outputs_and_states_equal_the_step_in_numpy(name, options):
    layer = layer_of(name)
    window = CellWindow(layer, 4, 7, **options)
    hs = window.forward(layer)
    expected, states = TimeCell(layer).forward(window, drawn(layer, 4, 7))
    assert relative_distance(hs, expected) <= 1e-5
    for state, actual in zip(states, layer.get_state(), strict=True):
        assert relative_distance(actual, state) <= 1e-5
    for n, length in enumerate(window.options.get("lengths", ())):
        assert not hs[n, length:].any()


@pytest.mark.parametrize("name", CELLS)
def test_gradients_in_float32_equal_central_differences(name):
    difference = largest_difference(CELLS[name], 5, 6, np.random.default_rng(0), np.float32)
    assert 0 < difference <= 1e-5


@pytest.mark.parametrize("name", BOTH)
def test_gradients_in_float64_equal_central_differences(name):
    assert 0 < CELLS[name].check(rng=np.random.default_rng(0)) <= 1e-8


def test_the_check_takes_functions_and_kinks_of_steps_and_operands_of_units_alone():
    """A step is exactly 0, where abs, relu and maximum have their kinks."""

    @rnnfast.cell(states=("h",), again=("n",))
    def spiked(z, n, h, *, rate=cells.unit(0.3)):
        first, second = cells.step(z), cells.step(h - 0.5)
        kinks = abs(first) + cells.relu(second) + cells.maximum(first, 0) * z
        return 0.5 * h + 0.3 * cells.sigmoid(first) + 0.1 * kinks * cells.tanh(n(rate * rate))

    assert 0 < spiked.check(rng=np.random.default_rng(0)) < 1e-7


def test_the_check_sees_a_wrong_gradient(monkeypatch):
    original = _check_gradient._compiled

    def wrong(*arguments):
        values, arriving, derived = original(*arguments)
        derived["Wh"][0, 0] += 1e-3 * np.linalg.norm(derived["Wh"])
        return values, arriving, derived

    monkeypatch.setattr(_check_gradient, "_compiled", wrong)
    with pytest.raises(
        AssertionError, match=r"^lstm\.check: the gradient of Wh differs .* by 1\.0e-03 of its norm"
    ):
        cells.lstm.check(rng=np.random.default_rng(0))


def test_the_check_sees_what_is_not_finite_and_wrong_sizes(monkeypatch):
    original = _check_gradient._compiled

    def wrong(*arguments):
        values, arriving, derived = original(*arguments)
        derived["b"][0] = np.nan
        return values, arriving, derived

    monkeypatch.setattr(_check_gradient, "_compiled", wrong)
    with pytest.raises(AssertionError, match=r"the gradient of b differs"):
        cells.lstm.check(rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"^lstm\.check: hidden_size must be at least 1, got 0"):
        cells.lstm.check(hidden_size=0)


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize(
    "options", [{}, {"lengths": True, "resets": True}], ids=["full", "lengths and resets"]
)
def test_both_types_give_the_same_up_to_rounding(name, options):
    single, double = (layer_of(name, dtype=dtype) for dtype in DTYPES)
    window = CellWindow(single, 3, sized(9, 5), **options)
    for param, wide in zip(single.params, double.params, strict=True):
        wide[...] = param
    wide = CellWindow(single, 3, sized(9, 5), **options)
    for field in ("xs", "dhs"):
        setattr(wide, field, getattr(wide, field).astype(np.float64))
    wide.state = [state.astype(np.float64) for state in wide.state]
    wide.given = {name: array.astype(np.float64) for name, array in wide.given.items()}
    wide.next_gradient = {name: array.astype(np.float64) for name, array in wide.next_gradient.items()}
    actual, expected = run_all(single, window), run_all(double, wide)
    assert actual.keys() == expected.keys()
    for result in expected:
        assert relative_distance(actual[result], expected[result]) <= 1e-5, result


# What a layer of a cell offers.


def test_parameters_have_names_shapes_and_starts():
    layer = CELLS["everything"].layer(3, 5, rng=np.random.default_rng(0))
    assert layer.parameter_names == ("Wx", "Wh", "b", "bhh", "alpha", "gain")
    assert [param.shape for param in layer.params] == [(3, 10), (5, 10), (10,), (5,), (5,), (1,)]
    assert (layer.params[4] == np.float32(0.3)).all()
    assert layer.constants == {"tau": 1.25}
    diagonal = cells.ind_rnn.layer(3, 5, rng=np.random.default_rng(0))
    assert [param.shape for param in diagonal.params] == [(3, 5), (5,), (5,)]
    assert (diagonal.params[1] >= 0).all()
    assert cells.min_gru.layer(3, 5).parameter_names == ("Wx", "b")
    for name, one in CELLS.items():
        shapes = one.shapes(3, 5)
        assert [param.shape for param in layer_of(name).params] == [*shapes.values()]


def test_a_given_array_may_have_one_number_for_all_units():
    layer = layer_of("driven")
    window = CellWindow(layer, 3, 6)
    flat = window.given["drive"][..., 0].copy()
    window.given["drive"][...] = flat[..., np.newaxis]
    expected = run_all(layer, window)
    window.given["drive"] = flat
    actual = run_all(layer, window)
    for name, array in expected.items():
        assert_same_bits(actual[name], array)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (
            {},
            TypeError,
            r"^Recurrent\.forward: the cell needs the argument drive, an array \(N, T, H\) or \(N, T\)\.$",
        ),
        ({"drive": np.zeros((2, 4, 5))}, TypeError, "drive must be float32, .* got float64"),
        ({"drive": np.zeros((2, 3, 5), np.float32)}, ValueError, r"drive must be \(2, 4, 5\)"),
        (
            {"drive": np.zeros((2, 4), np.float32), "x": 1},
            TypeError,
            "unknown argument x; it takes drive",
        ),
        (
            {"drive": np.zeros((2, 4), np.float32), "resets": 1},
            TypeError,
            r"unknown argument resets; did you mean reset\?",
        ),
    ],
)
def test_wrong_given_arrays_are_named_and_the_state_stays(given, error, message):
    layer, xs = layer_of("driven"), np.zeros((2, 4, 3), np.float32)
    layer.forward(xs, drive=np.ones((2, 4), np.float32))
    before = layer.get_state()
    with pytest.raises(error, match=message):
        layer.forward(xs, **given)
    for now, then in zip(layer.get_state(), before, strict=True):
        assert_same_bits(now, then)


def test_a_constant_may_be_set():
    layer, window = layer_of("driven"), None
    window = CellWindow(layer, 2, 5)
    before = window.forward(layer)
    layer.constants["floor"] = 0.25
    after = window.forward(layer)
    assert before.min() < 0.25
    assert after.min() == 0.25
    expected, _ = TimeCell(layer).forward(window, {})
    assert relative_distance(after, expected) <= 1e-5


@pytest.mark.parametrize("name", RANDOM)
def test_when_predicting_random_numbers_are_their_mean(name):
    layer = layer_of(name)
    window = CellWindow(layer, 2, 5)
    layer.train_flg = False
    hs, state = window.forward(layer), layer.rng_state
    means = {arg: np.full((2, 5, 5), layer.cell.roles[arg].mean) for arg in layer.cell.random}
    expected, _ = TimeCell(layer).forward(window, means)
    assert relative_distance(hs, expected) <= 1e-5
    assert state[1] == 0  # nothing was drawn
    layer.train_flg = True
    assert not np.array_equal(window.forward(layer), hs)
    assert layer.rng_state[1] == 5


@pytest.mark.parametrize("name", RANDOM)
def test_each_window_and_each_layer_draws_its_own_numbers(name):
    layer, other = layer_of(name), layer_of(name, seed=1)
    window = CellWindow(layer, 2, 5)
    first = window.forward(layer)
    layer.set_state(*window.state)
    second = layer.forward(window.xs, **window.given)
    assert not np.array_equal(first, second)
    assert_same_bits(window.forward(layer), first)
    assert other.rng_state[0] != layer.rng_state[0]


def test_a_cell_without_any_gradient_has_gradients_of_zero():
    stopped = rnnfast.cell(lambda a, h: cells.stop_gradient(a) + 1, states="h", product=None)
    layer = stopped.layer(2, 3, rng=np.random.default_rng(0))
    hs = layer.forward(np.ones((2, 3, 2), np.float32))
    assert not layer.backward(np.ones_like(hs)).any()
    assert not any(grad.any() for grad in layer.grads)
