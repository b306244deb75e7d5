"""What gates let through, read off the tape of a layer, compared with the equations of its cell in NumPy."""

import numpy as np
import pytest
from rnnfast.kernels.cell.expression import evaluate

import rnnfast
from rnnfast.cells import READY, exp, gru, li_gru, lstm, min_gru, relu, sigmoid, stop_gradient, tanh, zoneout
from rnnfast.layers import plans
from rnnfast.layers.recurrent import Recurrent

WEIGHT, DRIVE = rnnfast.unit(0.3), rnnfast.given()


@rnnfast.cell(states=("h", "c"))
def peeping_relu(a, n, h, c, *, p=WEIGHT, drive=DRIVE):
    """A relu that is not kept, and that sees a state, a unit and a given array."""
    c = relu(n + p * c + drive) * 0.5 + sigmoid(a) * c
    return tanh(c), c


@rnnfast.cell(states=("h",))
def blocked(a, n, h):
    """No gradient needs the activation of one gate; the other has none."""
    return stop_gradient(sigmoid(a)) + exp(-n * n)


CELLS = (lstm, gru, rnnfast.cells.gru_after, li_gru, rnnfast.cells.peephole_lstm, rnnfast.cells.slstm,
         rnnfast.cells.leaky, rnnfast.cells.rnn_relu, peeping_relu)  # fmt: skip


def layer_of(cell, seed=0):
    rng = np.random.default_rng(seed)
    layer = cell.layer(3, 5, rng=rng, dtype=np.float64, stateful=True)
    for param in layer.params:
        param[...] = rng.standard_normal(param.shape) * 0.7
    layer.train_flg = False
    return layer


def window(layer, N, T, *, lengths=False, resets=False, seed=1):
    rng = np.random.default_rng(seed)
    options = {name: rng.standard_normal((N, T, 5)) for name in layer.cell.rows if name == "drive"}
    if lengths:
        options["lengths"] = rng.integers(0, T + 1, N)
        options["lengths"][0] = T
    if resets:
        options["reset"] = rng.random((N, T)) < 0.2
    return rng.standard_normal((N, T, 3)), options


def by_hand(layer, xs, options, state):
    """The argument of each activation, step by step, with functions that write down what they are given."""
    cell, H = layer.cell, layer.hidden_size
    named = dict(zip(layer.parameter_names, layer.params, strict=True))
    N, T, _ = xs.shape
    states = [s.copy() for s in state]
    found = {gate: np.zeros((N, T, H)) for gate in cell.activations}
    equations = cell.equations
    for t in range(T):
        for s in states:
            if "reset" in options:
                s[options["reset"][:, t]] = 0
        alive = np.ones(N, bool) if "lengths" not in options else options["lengths"] > t
        sums = xs[:, t] @ named["Wx"] + named["b"]
        known = dict(zip((equations.inputs[s] for s in cell.states), states, strict=True))
        for name in (*equations.units, *equations.given):
            role = cell.roles[name]
            value = named.get(name, role.mean if role.is_random else role.value)
            known[equations.inputs[name]] = options[name][:, t] if name in options else value
        blocks = np.split(sums, len(cell.gates), axis=1)
        weights = np.split(named["Wh"], len(cell.gates), axis=1)
        for gate, x, w in zip(cell.gates, blocks, weights, strict=True):
            if gate in cell.apart:
                known[equations.inputs[gate]] = x
                known[equations.inputs[f"{gate}.h"]] = states[0] @ w + named["bhh"]
            elif gate not in cell.again:
                known[equations.inputs[gate]] = x + states[0] @ w
        if cell.again:
            (operand,) = evaluate([equations.operand], known)
            for gate, x, w in zip(cell.gates, blocks, weights, strict=True):
                if gate in cell.again:
                    known[equations.inputs[gate]] = x + operand @ w
        wanted = [equations.activations[gate] for gate in found]
        after = evaluate([*wanted, *equations.after], known)
        for array, value in zip(found.values(), after, strict=False):
            array[alive, t] = value[alive]
        states = [np.where(alive[:, None], a, s) for a, s in zip(after[len(wanted) :], states, strict=True)]
    return found


def assert_right(layer, xs, options, state):
    expected = by_hand(layer, xs, options, state)
    actual = layer.activations()
    assert list(actual) == list(expected)
    for gate, (kind, values) in actual.items():
        assert kind == layer.cell.activations[gate]
        np.testing.assert_allclose(values, expected[gate], rtol=1e-10, atol=1e-12, err_msg=gate)


def test_each_ready_cell_says_which_activation_each_of_its_gates_has():
    found = {cell.name: cell.activations for cell in READY}
    assert found["rnn"] == {"a": "tanh"}
    assert found["relu"] == found["ind_rnn"] == found["leaky"] == {"a": "relu"}
    assert found["lstm"] == {"f": "sigmoid", "g": "tanh", "i": "sigmoid", "o": "sigmoid"}
    assert found["peephole_lstm"] == found["lstm"]
    assert found["gru"] == found["gru_after"] == {"z": "sigmoid", "r": "sigmoid", "n": "tanh"}
    assert found["li_gru"] == {"z": "sigmoid", "n": "relu"}
    assert found["slstm"] == {"z": "tanh", "o": "sigmoid"}
    assert found["min_gru"] == {"z": "sigmoid"}
    assert found["lif"] == {}
    assert zoneout(lstm, 0.1).activations == lstm.activations


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
@pytest.mark.parametrize("options", [{}, {"lengths": True, "resets": True}], ids=["whole", "cut"])
@pytest.mark.parametrize("how", ["kept", "not kept", "too long to keep", "after backward"])
def test_activations_are_those_of_the_equations_however_the_window_was_read(cell, options, how, monkeypatch):
    layer = layer_of(cell)
    rng = np.random.default_rng(2)
    N, T = (6, 200) if how != "kept" or not options else (3, 9)  # two blocks of the time grid and a half
    state = [rng.standard_normal((N, 5)) for _ in cell.states]
    layer.set_state(*state)
    if how in ("too long to keep", "after backward"):
        monkeypatch.setattr(plans, "KEPT_BYTES", 0)
    xs, told = window(layer, N, T, **options)
    hs = layer.forward(xs, keep=how != "not kept", **told)
    if how == "after backward":
        layer.backward(np.ones_like(hs))
    assert_right(layer, xs, told, state)


def test_reading_activations_changes_nothing_that_backward_needs(monkeypatch):
    twins = [layer_of(lstm) for _ in range(2)]
    xs, _ = window(twins[0], 6, 200)
    for keep in (True, False):
        for layer in twins:
            hs = layer.forward(xs, keep=keep)
        twins[0].activations()
        for layer in twins:
            layer.backward(np.ones_like(hs))
        for left, right in zip(twins[0].grads, twins[1].grads, strict=True):
            np.testing.assert_array_equal(left, right)
        np.testing.assert_array_equal(twins[0].get_state()[1], twins[1].get_state()[1])


def test_pieces_have_the_bits_of_the_whole():
    layer = layer_of(zoneout(lstm, 0.2))
    layer.train_flg = True
    xs, _ = window(layer, 6, 200)
    layer.rng_state = 3, 0
    layer.forward(xs)
    whole = layer.activations()
    layer.reset_state()
    layer.rng_state = 3, 0
    layer.forward(xs, keep=False)
    for gate, (_, values) in layer.activations().items():
        np.testing.assert_array_equal(values, whole[gate].values)


def test_words_of_a_table_are_read_again_too():
    layer = layer_of(lstm)
    rng = np.random.default_rng(3)
    words, ids = rng.standard_normal((4, 3)), rng.integers(4, size=(6, 200))
    layer.read(rnnfast.layers.window.Lookup(ids, words, np.zeros_like(words)), keep=False)
    pieces = layer.activations()
    layer.reset_state()
    layer.forward(words[ids])
    for gate, (_, values) in layer.activations().items():
        np.testing.assert_array_equal(pieces[gate].values, values)


def test_gates_without_an_activation_and_those_no_gradient_needs_are_left_out():
    layer = layer_of(blocked)
    layer.forward(window(layer, 2, 4)[0])
    assert blocked.activations == {"a": "sigmoid"}
    assert layer.activations() == {}
    layer = layer_of(min_gru)
    layer.forward(window(layer, 2, 4)[0])
    assert list(layer.activations()) == ["z"]


def test_before_a_window_there_are_no_activations():
    with pytest.raises(RuntimeError, match=r"Recurrent\.activations: call forward first"):
        lstm.layer(2, 3).activations()
    layer = layer_of(lstm)
    layer.forward(np.zeros((0, 4, 3)))
    assert layer.activations()["f"].values.shape == (0, 4, 5)


def test_cells_that_say_the_same_share_their_code_and_keep_their_names():
    @rnnfast.cell(states=("y", "m"))
    def renamed(forget, candidate, take, show, y, m):
        m = sigmoid(forget) * m + tanh(candidate) * sigmoid(take)
        return sigmoid(show) * tanh(m), m

    layers = [Recurrent(cell, layer_of(lstm).params) for cell in (lstm, renamed)]
    xs, _ = window(layers[0], 2, 5)
    for layer in layers:
        layer.forward(xs)
    first, second = (layer.activations() for layer in layers)
    assert list(second) == ["forget", "candidate", "take", "show"]
    for left, right in zip(first.values(), second.values(), strict=True):
        np.testing.assert_array_equal(left.values, right.values)
