"""Derived gradients: of every operation, at ties and kinks, with surrogates, and where none arrives."""

import numpy as np
import pytest
from rnnfast.kernels.cell.derive import gradient
from rnnfast.kernels.cell.expression import OPERATIONS, Graph, evaluate

from rnnfast.cells import (
    exp,
    log,
    maximum,
    minimum,
    relu,
    sigmoid,
    softplus,
    sqrt,
    step,
    stop_gradient,
    tanh,
    where,
)

FORMULAS = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "neg": lambda a, b: -a + b,
    "abs": lambda a, b: abs(a) * b,
    "select": lambda a, b: where(a > b, a * b, a + 2 * b),
    "nested select": lambda a, b: where(a <= 0, where(b < 0, a, b), a * a),
    "sigmoid": lambda a, b: sigmoid(a * b),
    "tanh": lambda a, b: tanh(a + b),
    "exp": lambda a, b: exp(a - b),
    "log": lambda a, b: log(2.5 + tanh(a) + b * b),
    "sqrt": lambda a, b: sqrt(1 + a * a) * b,
    "softplus": lambda a, b: softplus(3 * a) * b,
    "relu": lambda a, b: relu(a + b) * a,
    "maximum": lambda a, b: maximum(a, b * b),
    "minimum": lambda a, b: minimum(a, b) * a,
    "square": lambda a, b: (a + b) * (a + b),
    "power": lambda a, b: (a - b) ** 5,
    "shared": lambda a, b: tanh(a) * tanh(a) + sigmoid(tanh(a)) * b,
    "difference of products": lambda a, b: sigmoid(b) * a - sigmoid(b) * tanh(a),
    "gru": lambda a, b: sigmoid(a) * tanh(b) + (1 - sigmoid(a)) * b,
    "constant factor": lambda a, b: 2 * a + 2 * b + 0.5 * (a * b),
}
LEFT_OUT = {"lt", "le", "gt", "fma", "step", "stop"}  # conditions, made by `contracted` later, and see below


def derived(formula, *values, d=1.0):
    """The gradient of a formula with respect to each operand at these values; None where none arrives."""
    graph = Graph()
    inputs = [graph.input(f"x{i}") for i in range(len(values))]
    arriving = graph.input("d")
    gradients = gradient([(graph.as_node(formula(*inputs)), arriving)], inputs)
    known = dict(zip((*inputs, arriving), map(np.asarray, (*values, d)), strict=True))
    return [None if g is None else evaluate([g], known)[0] for g in gradients]


@pytest.mark.parametrize("name", FORMULAS)
def test_the_derivative_equals_central_differences(name):
    formula, eps = FORMULAS[name], 1e-6
    rng = np.random.default_rng(0)
    a, b, d = rng.standard_normal((3, 200)) * 1.5
    actual = derived(formula, a, b, d=d)
    for index in range(2):
        up, down = [a, b], [a, b]
        up[index], down[index] = up[index] + eps, down[index] - eps
        expected = d * (formula(*up) - formula(*down)) / (2 * eps)
        np.testing.assert_allclose(actual[index], expected, rtol=1e-6, atol=1e-6)


def test_every_operation_is_among_the_formulas():
    used = set()

    def note(node):
        used.add(node.op)
        if node.op not in ("input", "constant"):
            for arg in node.args:
                note(arg)

    for formula in FORMULAS.values():
        graph = Graph()
        note(formula(graph.input("a"), graph.input("b")))
    assert set(OPERATIONS) - LEFT_OUT <= used


@pytest.mark.parametrize("extreme", [maximum, minimum])
def test_each_of_two_equal_operands_has_half_of_the_gradient(extreme):
    assert derived(extreme, 1.5, 1.5, d=3.0) == [1.5, 1.5]
    assert derived(extreme, 1.5, 2.5, d=3.0) == ([0.0, 3.0] if extreme is maximum else [3.0, 0.0])
    assert derived(lambda a, b: extreme(a, a), 1.5, 0.0, d=3.0)[0] == 3.0
    assert derived(lambda a: extreme(a, 0.0), 0.0, d=3.0) == [1.5]


def test_the_gradient_of_a_choice_goes_to_what_was_chosen():
    for condition, expected in ((-1.0, [None, 0.0, 2.0]), (1.0, [None, 2.0, 0.0])):
        assert derived(lambda c, a, b: where(c > 0, a, b), condition, 3.0, 4.0, d=2.0) == expected


def test_a_nan_in_what_was_not_chosen_does_no_harm():
    assert derived(lambda a: where(a > 0, log(a), a), -1.0) == [1.0]
    assert derived(lambda a, b: where(a > 0, b, a), -1.0, np.nan) == [1.0, 0.0]


def test_at_their_kinks_relu_and_abs_have_no_slope():
    for zero in (0.0, -0.0):
        assert derived(relu, zero) == [0.0]
        assert derived(abs, zero) == [0.0]


def test_a_step_has_the_slope_of_its_surrogate():
    x = np.linspace(-2, 2, 41)
    np.testing.assert_allclose(derived(step, x, d=3.0)[0], 3 / (1 + 10 * np.abs(x)) ** 2, rtol=1e-14)
    own = derived(lambda a: step(a, surrogate=lambda u: sigmoid(u) * (1 - sigmoid(u))), x, d=3.0)[0]
    np.testing.assert_allclose(own, 3 * sigmoid(x) * (1 - sigmoid(x)), rtol=1e-14)
    np.testing.assert_array_equal(step(x), x > 0)


def test_two_steps_of_one_operand_have_a_surrogate_each():
    x = np.linspace(-2, 2, 41)
    for first, second in ((sigmoid, tanh), (tanh, sigmoid)):

        def both(a, b, one=first, other=second):
            return step(a, surrogate=one) * b + step(a, surrogate=other) * (1 - b)

        actual = derived(both, x, 0.25)[0]
        np.testing.assert_allclose(actual, 0.25 * first(x) + 0.75 * second(x), rtol=1e-13)


def test_no_gradient_passes_a_stop():
    assert derived(stop_gradient, 2.0) == [None]
    assert derived(lambda a, b: stop_gradient(a) * b, 2.0, 3.0) == [None, 2.0]
    assert derived(lambda a: a * stop_gradient(tanh(a)), 2.0) == [np.tanh(2.0)]


def test_an_operand_that_is_not_read_has_no_gradient():
    assert derived(lambda a, b: a + 0 * 1.0, 1.0, 2.0) == [1.0, None]
    assert derived(lambda a: where(a > 0, 1.0, 2.0), 1.0) == [None]


def test_gradients_of_several_outputs_are_added():
    graph = Graph()
    a, d, e = (graph.input(name) for name in "ade")
    out = tanh(a)
    (both,) = gradient([(out, d), (out * a, e), (a, e)], [a])
    known = {a: np.float64(0.7), d: 2.0, e: 3.0}
    slope = 1 - np.tanh(0.7) ** 2
    np.testing.assert_allclose(evaluate([both], known)[0], 2 * slope + 3 * (np.tanh(0.7) + 0.7 * slope) + 3)


def test_gradients_of_values_in_between_can_be_wanted():
    graph = Graph()
    a, d = graph.input("a"), graph.input("d")
    middle = tanh(a)
    wanted = gradient([(middle * middle, d)], [middle, a])
    assert evaluate([wanted[0]], {a: np.float64(0.3), d: 1.0})[0] == 2 * np.tanh(0.3)
    np.testing.assert_allclose(
        evaluate([wanted[1]], {a: np.float64(0.3), d: 1.0})[0], 2 * np.tanh(0.3) * (1 - np.tanh(0.3) ** 2)
    )


def test_derivatives_are_written_in_what_functions_return():
    """The backward pass then need not take a sigmoid again."""
    graph = Graph()
    a, d = graph.input("a"), graph.input("d")
    for function in (sigmoid, tanh, exp, sqrt, relu):
        y = function(a)
        (g,) = gradient([(y, d)], [a])
        value = evaluate([g], {y: np.float64(0.4), d: np.float64(1.0)})[0]
        assert np.isfinite(value)  # with the value alone known, not the operand


def test_two_products_with_a_factor_in_common_are_one_product():
    graph = Graph()
    z, a, b, d = (graph.input(name) for name in "zabd")
    (g,) = gradient([(z * a + (1 - z) * b, d)], [z])
    assert g is d * (a - b)
