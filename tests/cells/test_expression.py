"""Formulas as graphs: equal operations are one node, products go into multiply-adds, mistakes are named."""

import copy
import itertools
import math
import operator

import numpy as np
import pytest
from helpers import DTYPES, normal
from rnnfast.kernels.cell.expression import (
    OPERATIONS,
    Graph,
    contracted,
    evaluate,
    function_of,
    relu,
    sigmoid,
    tanh,
)
from rnnfast.kernels.cell.node import COMPARISONS, FormulaError, in_order, text_of


@pytest.fixture
def names():
    graph = Graph()
    return tuple(graph.input(name) for name in "abc")


# Equal operations.


def test_equal_operations_on_equal_operands_are_one_node(names):
    a, b, _ = names
    assert a + b is a + b
    assert tanh(a * b) is tanh(a * b)
    assert a.graph.input("a") is a
    assert a * 2 is a * 2.0
    assert a * 2 is a * np.float32(2)


def test_operations_that_differ_are_different_nodes(names):
    a, b, _ = names
    assert (
        len({id(node) for node in (a + b, b + a, a - b, a * b, a / b, a < b, b < a, a <= b, a + 2, a + 3)})
        == 10
    )


def test_the_two_zeros_are_different_constants(names):
    a, _, _ = names
    positive, negative = a * 0.0, a * -0.0
    assert positive is not negative
    for node, sign in ((positive, 0), (negative, 1)):
        assert np.signbit(evaluate([node], {a: 3.0})[0]) == sign


# Simplification.


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda a, b: a + 0, lambda a, b: a),
        (lambda a, b: 0 + a, lambda a, b: a),
        (lambda a, b: a - 0, lambda a, b: a),
        (lambda a, b: 0 - a, lambda a, b: -a),
        (lambda a, b: a * 1, lambda a, b: a),
        (lambda a, b: 1 * a, lambda a, b: a),
        (lambda a, b: a / 1, lambda a, b: a),
        (lambda a, b: 0 - (0 - a), lambda a, b: a),
        (lambda a, b: function_of("select", a < b, b, b), lambda a, b: b),
        (lambda a, b: a + (b.graph.constant(2) * 3 - 6), lambda a, b: a),
        (lambda a, b: a**1, lambda a, b: a),
        (lambda a, b: a**3, lambda a, b: a * a * a),
    ],
    ids=range(12),
)
def test_what_comes_to_an_operand_is_that_operand(make, expected, names):
    a, b, _ = names
    assert make(a, b) is expected(a, b)


def test_zero_times_a_value_is_not_zero(names):
    """It is NaN where the value is not finite."""
    a, _, _ = names
    assert (0 * a).op == "mul"
    assert np.isnan(evaluate([0 * a], {a: np.inf})[0])


def test_operations_on_constants_are_calculated_in_float64(names):
    a, _, _ = names
    two = a.graph.constant(2)
    assert tanh(two).args == (np.tanh(2),)
    assert (two / 3).args == (2 / 3,)


# Values.


def test_a_graph_gives_the_values_of_the_function_it_was_made_of(names):
    rng = np.random.default_rng(0)
    known = {node: rng.standard_normal((3, 4)) for node in names}

    def function(a, b, c):
        d = sigmoid(a) * b
        return relu(d - c) / (2 + abs(c)), (d + 1) ** 2

    for actual, expected in zip(evaluate(function(*names), known), function(*known.values()), strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_values_that_are_known_are_not_calculated_again(names):
    a, b, _ = names
    product = a * b
    assert evaluate([product + 1, product], {product: 5.0}) == (6.0, 5.0)
    assert in_order([product + 1], [product])[0] is product


def test_operands_come_before_what_is_made_of_them(names):
    a, b, c = names
    order = in_order([tanh(a * b) - c, a * b])
    places = {node: place for place, node in enumerate(order)}
    assert len(order) == 6
    assert all(places[arg] < places[node] for node in order if node.op != "input" for arg in node.args)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", [op for op in OPERATIONS if op not in ("lt", "le", "gt")])
def test_functions_of_arrays_keep_their_type_and_shape(op, dtype):
    x = np.abs(normal(np.random.default_rng(0), (2, 3), dtype)) + dtype(0.5)
    operands = {"select": (x > 1, x, x), "fma": (x, x, x)}.get(op, (x,))
    if op in ("add", "sub", "mul", "div", "maximum", "minimum"):
        operands = x, 2.0
    result = function_of(op, *operands)
    assert (result.dtype, result.shape) == (x.dtype, x.shape)


@pytest.mark.parametrize("op", ["sigmoid", "tanh", "exp", "softplus", "relu", "step"])
def test_functions_of_whole_numbers_calculate_in_float64(op):
    actual = function_of(op, 2)
    assert isinstance(actual, float)
    assert actual == function_of(op, 2.0)
    assert function_of(op, np.array([2, -1])).dtype == np.float64


# Multiply-adds.


def test_a_product_that_only_goes_into_one_sum_is_a_multiply_add(names):
    a, b, c = names
    for total, expected in [
        (a * b + c, (a, b, c)),
        (c + a * b, (a, b, c)),
        (a * b - c, (a, b, -c)),
        (c - a * b, (-a, b, c)),
    ]:
        assert contracted([total])[total] is a.graph.apply("fma", *expected)


def test_of_two_products_in_a_sum_the_left_one_is_taken(names):
    a, b, c = names
    total = a * b + b * c
    twin = contracted([total])[total]
    assert twin.op == "fma"
    assert twin.args[0] is a
    assert twin.args[2] is b * c


def test_a_product_that_is_used_twice_stays_a_product(names):
    a, b, c = names
    product = a * b
    for outputs in ([product + c, tanh(product)], [product + c, product], [product + product]):
        twins = contracted(outputs)
        assert all(twins[node].op != "fma" for node in outputs)
    other = product + c * c  # the right one, if the left one is used elsewhere
    twin = contracted([other, product])[other]
    assert twin.op == "fma"
    assert twin.args[2] is product


def test_a_contracted_formula_has_the_same_values(names):
    rng = np.random.default_rng(1)
    a, b, c = names
    known = {node: rng.standard_normal(50) for node in names}
    outputs = [a * b + c * c, c - a * b, sigmoid(a * b - c) * b + tanh(c), a - b * c * a]
    twins = contracted(outputs)
    for actual, expected in zip(
        evaluate([twins[node] for node in outputs], known), evaluate(outputs, known), strict=True
    ):
        np.testing.assert_allclose(actual, expected, rtol=1e-14, atol=1e-15)


# Text.


@pytest.mark.parametrize(
    "text",
    [
        "a + b * c", "(a + b) * c", "a - (b - c)", "a - b - c", "a + (b + c)", "a / (b * c)", "a / b / c",
        "-a * b", "-(a * b)", "a - (-b)", "a * (-b)", "sigmoid(a + b) * c", "where(a <= b, c, 0)",
        "1 - a * a", "abs(a) + 0.5", "a + (-2)", "-a + b", "2 * (a - 1)",
    ],
)  # fmt: skip
def test_the_text_of_a_node_is_the_python_that_makes_it(text, names):
    given = {"a": names[0], "b": names[1], "c": names[2], "sigmoid": sigmoid}
    given["where"] = lambda *operands: function_of("select", *operands)
    node = eval(text, given)
    assert eval(text_of(node), given) is node
    assert text_of(node) in (text, text.replace("-a * b", "(-a) * b"))


def test_nodes_with_a_name_are_shown_by_it(names):
    a, b, c = names
    product = a * b
    assert text_of(product + c, {product: "p", c: "q"}) == "p + q"
    assert text_of(product, {product: "p"}) == "a * b"


# What cannot be said.


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda a, b: a if a > b else b, "a branch on a value"),
        (lambda a, b: max(a, b), "a branch on a value"),
        (lambda a, b: a and b, "a branch on a value"),
        (lambda a, b: not a, "a branch on a value"),
        (lambda a, b: a == b, "two values of a step cannot be compared with == or !="),
        (lambda a, b: a != 0, "two values of a step cannot be compared with == or !="),
        (lambda a, b: a in (b, 1), "two values of a step cannot be compared with == or !="),
        (lambda a, b: float(a), "a function of numbers"),
        (lambda a, b: complex(a), "a function of numbers"),
        (lambda a, b: int(a), "cannot be a count or an index"),
        (lambda a, b: range(a), "cannot be a count or an index"),
        (lambda a, b: [1, 2][a], "cannot be a count or an index"),
        (lambda a, b: round(a), "cannot be a count or an index"),
        (lambda a, b: round(a, 2), "cannot be a count or an index"),
        (lambda a, b: math.floor(a), "cannot be a count or an index"),
        (lambda a, b: f"{a:.2f}", "has no digits for the format '.2f'"),
        (lambda a, b: a[0], "it has no elements"),
        (lambda a, b: len(a), "it has no elements"),
        (lambda a, b: [*a], "it has no elements"),
        (lambda a, b: a**0.5, "a power must be a whole number from 1 to 8"),
        (lambda a, b: a**True, "a power must be a whole number from 1 to 8"),
        (lambda a, b: a + True, "an operand must be a value of the step or a number, got bool"),
        (lambda a, b: a + "b", "an operand must be a value of the step or a number, got str"),
        (lambda a, b: a * np.ones(3), "an operand must be a value of the step or a number, got ndarray"),
        (lambda a, b: (a > b) * a, "a comparison is no number"),
        (lambda a, b: function_of("select", a, a, b), "where must be a comparison such as a > 0"),
        (lambda a, b: tanh(a < b), "a comparison is no number"),
        (lambda a, b: a.graph.step(a, lambda x: x > 0), "a comparison is no number"),
        (lambda a, b: a.graph.step(a > b, lambda x: x), "a comparison is no number"),
        (lambda a, b: a.graph.step(a, lambda x: 1.0), "must be a function of its operand"),
        (lambda a, b: a + Graph().input("a"), "a value of one formula was used in another"),
        (lambda a, b: np.add(a, b, where=False), "add of NumPy takes two operands here, got where as well"),
        (lambda a, b: np.add(a, b, casting="no", order="C"), "got casting, order as well"),
        (lambda a, b: np.subtract(a, b, dtype=np.float32), "got dtype as well"),
        (lambda a, b: np.add(a, b, subok=False), "got subok as well"),
        (lambda a, b: np.add(a, b, np.empty(3)), "got out as well"),
        (lambda a, b: np.add(1.0, 2.0, out=a), "got out as well"),
        (lambda a, b: np.add.reduce(a), "add.reduce of NumPy is not known here"),
        (lambda a, b: np.multiply.outer(a, b), "multiply.outer of NumPy is not known here"),
        (lambda a, b: np.add.at(a, 0, b), "add.at of NumPy is not known here"),
        (lambda a, b: np.sum(a, axis=0), "sum of NumPy is not known here"),
        (lambda a, b: np.where(a > b, a, b), "where of NumPy is not known here"),
        (lambda a, b: np.float64(2) == a, "two values of a step cannot be compared with == or !="),
    ],
    ids=itertools.count(),
)
def test_what_cannot_be_compiled_is_an_error(use, message, names):
    with pytest.raises(FormulaError, match=message):
        use(*names[:2])


def test_numbers_of_numpy_are_compared_like_those_of_python(names):
    a, _, _ = names
    for compare in (operator.lt, operator.le, operator.gt, operator.ge):
        for x in (1.0, 2.0, 3.0):
            assert evaluate([compare(np.float32(2), a)], {a: x})[0] == compare(2.0, x)
            assert evaluate([compare(a, np.float32(2))], {a: x})[0] == compare(x, 2.0)
    assert np.array(2.0) * a is 2.0 * a


def test_a_copy_of_a_value_is_that_value(names):
    a, _, _ = names
    assert copy.copy(a) is copy.deepcopy(a) is a


def test_the_surrogate_of_a_step_belongs_to_it(names):
    a, b, _ = names
    one, same, other = (a.graph.step(a, lambda x, k=k: k * x) for k in (2, 2, 3))
    assert one is same
    assert one is not other
    assert (one.slope, other.slope) == (2 * a, 3 * a)
    assert (one.args, other.args) == ((a,), (a,))
    assert one is not a.graph.step(b, lambda x: 2 * a)


@pytest.mark.parametrize("dtype", DTYPES)
def test_functions_of_a_step_calculate_in_the_type_of_its_operand(names, dtype):
    a, _, _ = names
    x = np.array([-1.0, 0.0, 2.0], dtype)
    (actual,) = evaluate([sigmoid(a.graph.step(a, abs))], {a: x}, dtype)
    assert actual.dtype == dtype
    np.testing.assert_array_equal(actual, sigmoid(np.array([0, 0, 1], dtype)))


def test_the_text_of_a_long_chain_has_no_recursion_and_that_of_shared_values_an_end(names):
    a, b, _ = names
    chain = shared = a
    for _ in range(3000):
        chain, shared = tanh(chain + b), shared * shared
    assert text_of(chain).count("tanh") == 3000
    assert repr(chain).startswith("tanh(tanh(")
    assert len(repr(chain)) < 100
    assert len(repr(shared)) < 300


def test_comparisons_are_conditions(names):
    a, b, _ = names
    for compare in (operator.lt, operator.le, operator.gt, operator.ge):
        node = compare(a, b)
        assert node.is_condition
        assert node.op in COMPARISONS
        for x, y in ((1.0, 2.0), (2.0, 2.0), (3.0, 2.0), (np.nan, 2.0)):
            assert evaluate([node], {a: x, b: y})[0] == compare(x, y)
    assert not (a + b).is_condition
