"""Formulas as graphs: the operations of a Python function, recorded for differentiation and splitting.

A function is called with nodes instead of numbers. Each operation gives a new node; equal operations on equal
operands give the same node, so common subexpressions are shared. `evaluate` runs a graph on `Lanes`, which
writes instructions, or on NumPy arrays.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from ..codegen import activations, logarithm
from ..codegen.simd import fma, select, sqrt
from .node import COMPARISONS, FormulaError, Node, Unfinished, in_order


def _step(x: Any) -> Any:
    """1 where x > 0, else 0, in the type of x."""
    kind = getattr(x, "dtype", np.dtype(np.float64)).type
    return select(x > 0, kind(1), kind(0))


OPERATIONS: dict[str, Callable] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "neg": operator.neg,
    "abs": abs,
    "fma": fma,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "select": select,
    "sigmoid": activations.sigmoid,
    "tanh": activations.tanh,
    "exp": activations.exp,
    "log": logarithm.log,
    "sqrt": sqrt,
    "softplus": logarithm.softplus,
    "relu": lambda x: select(x <= 0, 0, x),
    "step": _step,
    "stop": lambda x: x,
    # Written so that a NaN in either operand gives NaN.
    "maximum": lambda a, b: select(b <= a, a, select(a <= b, b, a + b)),
    "minimum": lambda a, b: select(a <= b, a, select(b <= a, b, a + b)),
}
# Operations of tens of cycles: kept for the backward pass if there is room, not recomputed.
TRANSCENDENTAL = ("sigmoid", "tanh", "exp", "log", "sqrt", "softplus")


class Graph:
    """The nodes of one formula and of its derivatives."""

    def __init__(self) -> None:
        self._known: dict[tuple, Node] = {}
        self._indices = itertools.count()

    def input(self, name: str) -> Node:
        """The input of this name."""
        return self._node("input", (name,))

    def constant(self, value: float) -> Node:
        """A number."""
        return self._node("constant", (float(value),))

    def as_node(self, value: Any) -> Node:
        """A node for an operand."""
        if isinstance(value, Node):
            if value.graph is not self:
                raise FormulaError("a value of one formula was used in another")
            return value
        if isinstance(value, Unfinished):
            raise FormulaError(value.how)
        if isinstance(value, bool | np.bool_) or not isinstance(
            value, int | float | np.integer | np.floating
        ):
            raise FormulaError(
                f"an operand must be a value of the step or a number, got {type(value).__name__}"
            )
        return self.constant(float(value))

    def as_number(self, value: Any) -> Node:
        """A node for an operand that is a number, not true or false."""
        node = self.as_node(value)
        if node.is_condition:
            raise FormulaError(
                "a comparison is no number: it can only be the condition of where(condition, a, b)"
            )
        return node

    def apply(self, op: str, *operands: Any) -> Node:
        """The node of an operation, or a simpler one that is equal."""
        conditions = operands[: op == "select"]
        for condition in conditions:
            self._check_condition(condition)
        args = (*map(self.as_node, conditions), *map(self.as_number, operands[len(conditions) :]))
        simpler = _simpler(self, op, args)
        return self._node(op, args) if simpler is None else simpler

    def step(self, operand: Any, surrogate: Callable[[Node], Any]) -> Node:
        """1 where the operand is above 0, else 0, with `surrogate(operand)` as derivative."""
        x = self.as_number(operand)
        index = next(self._indices)  # before the nodes of the slope: fingerprints follow this order
        slope = surrogate(x)
        if not isinstance(slope, Node):
            raise FormulaError("the surrogate of a step must be a function of its operand")
        simpler = _simpler(self, "step", (x,))
        return self._node("step", (x,), self.as_number(slope), index) if simpler is None else simpler

    @staticmethod
    def _check_condition(value: Any) -> None:
        if isinstance(value, Unfinished):
            raise FormulaError(value.how)
        if not isinstance(value, Node) or not value.is_condition:
            shown = repr(value) if isinstance(value, Node | bool | int | float) else type(value).__name__
            raise FormulaError(f"the condition of where must be a comparison such as a > 0, got {shown}")

    def _node(self, op: str, args: tuple, slope: Node | None = None, index: int | None = None) -> Node:
        key = op, repr(args) if op == "constant" else args, slope  # 0 == -0
        if key not in self._known:
            index = next(self._indices) if index is None else index
            self._known[key] = Node(self, op, args, index, slope)
        return self._known[key]


def _simpler(graph: Graph, op: str, args: tuple[Node, ...]) -> Node | None:
    """A constant, an operand or its negation, if the operation is equal to it."""
    values = [a.args[0] if a.op == "constant" else None for a in args]
    if None not in values and op not in (*COMPARISONS, "select"):
        return graph.constant(OPERATIONS[op](*map(np.float64, values)))
    if op == "add" and 0 in values:
        return args[1 - values.index(0)]
    if op == "mul" and 1 in values:
        return args[1 - values.index(1)]
    if op in ("sub", "div") and values[1] == (0 if op == "sub" else 1):
        return args[0]
    if op == "sub" and values[0] == 0:
        return graph.apply("neg", args[1])
    if op == "neg" and args[0].op == "neg":
        return args[0].args[0]
    if op == "select" and args[1] is args[2]:
        return args[1]
    return None


def evaluate(outputs: Iterable[Node], known: Mapping[Node, Any], constant: Callable = float) -> tuple:
    """The values of the outputs, computed from known values."""
    outputs, values = tuple(outputs), dict(known)
    for node in in_order(outputs, known):
        if node.op == "constant":
            values[node] = constant(node.args[0])
        elif node not in values:
            values[node] = OPERATIONS[node.op](*(values[a] for a in node.args))
    return tuple(values[node] for node in outputs)


def contracted(outputs: Iterable[Node]) -> dict[Node, Node]:
    """Each node of a formula and its twin, in which a product used only in one sum becomes a multiply-add.

    LLVM is not allowed to do this. Of two products in one sum the left one is used, so that the formula alone
    determines the bits.
    """
    outputs = tuple(outputs)
    order = in_order(outputs)
    uses: dict[Node, int] = dict.fromkeys(order, 0)
    for node in (*outputs, *(a for n in order if n.op not in ("input", "constant") for a in n.args)):
        uses[node] += 1
    twins: dict[Node, Node] = {}
    for node in order:
        if node.op in ("input", "constant"):
            twins[node] = node
            continue
        args = tuple(twins[a] for a in node.args)
        twins[node] = node.graph.apply(node.op, *args)
        if node.op in ("add", "sub"):
            for side in range(2):
                product = node.args[side]
                if product.op == "mul" and uses[product] == 1:
                    a, b = (twins[x] for x in product.args)
                    other = args[1 - side]
                    if node.op == "sub":
                        a, other = (a, -other) if side == 0 else (-a, other)
                    twins[node] = node.graph.apply("fma", a, b, other)
                    break
    return twins


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x))

    >>> float(sigmoid(0.0))
    0.5
    """
    return function_of("sigmoid", x)


def tanh(x: Any) -> Any:
    """The hyperbolic tangent.

    >>> float(tanh(0.0))
    0.0
    """
    return function_of("tanh", x)


def relu(x: Any) -> Any:
    """max(x, 0); NaN stays NaN. Its derivative at 0 is 0.

    >>> float(relu(-1.0))
    0.0
    """
    return function_of("relu", x)


def function_of(op: str, *operands: Any) -> Any:
    """A recorded operation, or its result on arrays and numbers if no operand belongs to a formula.

    The result has the type of the arrays, float64 if there are numbers alone.
    """
    for operand in operands:
        if isinstance(operand, Unfinished):
            raise FormulaError(operand.how)
        if isinstance(operand, Node):
            return operand.graph.apply(op, *operands)
    numbers = operands[1:] if op == "select" else operands
    kinds = [a.dtype for a in numbers if isinstance(a, np.ndarray | np.generic) and a.dtype.kind == "f"]
    dtype = np.result_type(*kinds) if kinds else np.dtype(np.float64)
    arrays = [np.asarray(a, dtype) for a in numbers]
    result = OPERATIONS[op](*(np.asarray(a) for a in operands[: -len(numbers)]), *arrays)
    return np.asarray(result, dtype)[()]
