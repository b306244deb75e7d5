"""The values of a formula while it is traced: their operators, their order and their text.

A step runs once, on these nodes. What cannot be recorded is an error that says what to write instead.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

COMPARISONS = ("lt", "le", "gt")
# The functions of NumPy that its numbers call for an operator.
UFUNCS: dict[str, Callable] = {
    "add": operator.add, "subtract": operator.sub, "multiply": operator.mul, "divide": operator.truediv,
    "less": operator.lt, "less_equal": operator.le, "greater": operator.gt, "greater_equal": operator.ge,
    "equal": operator.eq, "not_equal": operator.ne,
}  # fmt: skip


class Node:
    """A value in a formula: an operation on others, an input or a constant.

    Attributes
    ----------
    op : str
        One of `OPERATIONS`, "input" or "constant".
    args : tuple
        The operands; the name of an input; the value of a constant.
    slope : Node or None
        What counts as the derivative of a step. Steps of one operand with different slopes are different
        nodes.
    """

    __slots__ = ("args", "graph", "index", "op", "slope")

    # With this method, NumPy's numbers leave arithmetic to this class.
    def __array_ufunc__(self, ufunc: Any, method: str, *operands: Any, **options: Any) -> Node:
        """Arithmetic of a NumPy number and a value of the step; other functions of NumPy, their methods and
        options are an error."""
        name = ufunc.__name__ if method == "__call__" else f"{ufunc.__name__}.{method}"
        if name not in UFUNCS:
            raise FormulaError(f"{name} of NumPy is not known here; use those of rnnfast.cells")
        if options:
            raise FormulaError(
                f"{name} of NumPy takes two operands here, got {', '.join(options)} as well; use the "
                "functions of rnnfast.cells"
            )
        numbers = (x[()] if isinstance(x, np.ndarray) else x for x in operands)  # compared as arrays of ()
        return UFUNCS[name](*map(self.graph.as_node, numbers))

    def __array_function__(self, function: Callable, *_: Any) -> Any:
        """An error, since other functions of NumPy would treat a node as an opaque object."""
        raise FormulaError(f"{function.__name__} of NumPy is not known here; use those of rnnfast.cells")

    def __array__(self, *_: Any, **__: Any) -> Any:
        """An error, since a node has numbers only when the cell runs."""
        raise FormulaError("a value of the step is no array; use the functions of rnnfast.cells")

    def __init__(self, graph: Any, op: str, args: tuple, index: int, slope: Node | None = None) -> None:
        self.graph, self.op, self.args, self.index, self.slope = graph, op, args, index, slope

    def __copy__(self, *_: Any) -> Node:
        return self  # nodes are compared by identity

    __deepcopy__ = __copy__

    def __add__(self, other: Any) -> Node:
        return self.graph.apply("add", self, other)

    def __radd__(self, other: Any) -> Node:
        return self.graph.apply("add", other, self)

    def __sub__(self, other: Any) -> Node:
        return self.graph.apply("sub", self, other)

    def __rsub__(self, other: Any) -> Node:
        return self.graph.apply("sub", other, self)

    def __mul__(self, other: Any) -> Node:
        return self.graph.apply("mul", self, other)

    def __rmul__(self, other: Any) -> Node:
        return self.graph.apply("mul", other, self)

    def __truediv__(self, other: Any) -> Node:
        return self.graph.apply("div", self, other)

    def __rtruediv__(self, other: Any) -> Node:
        return self.graph.apply("div", other, self)

    def __neg__(self) -> Node:
        return self.graph.apply("neg", self)

    def __abs__(self) -> Node:
        return self.graph.apply("abs", self)

    def __pow__(self, power: Any) -> Node:
        if type(power) is not int or not 1 <= power <= 8:
            raise FormulaError(
                f"a power must be a whole number from 1 to 8, got {power!r}; others are exp(p * log(x))"
            )
        result = self
        for _ in range(power - 1):
            result = result * self
        return result

    def __lt__(self, other: Any) -> Node:
        return self.graph.apply("lt", self, other)

    def __le__(self, other: Any) -> Node:
        return self.graph.apply("le", self, other)

    def __gt__(self, other: Any) -> Node:
        return self.graph.apply("gt", self, other)

    def __ge__(self, other: Any) -> Node:
        return self.graph.apply("le", other, self)

    def __eq__(self, other: object) -> bool:
        raise FormulaError(
            "two values of a step cannot be compared with == or !=, which floats seldom meet; use < or >"
        )

    __ne__ = __eq__
    __hash__ = object.__hash__  # dictionaries compare nodes by identity

    def __bool__(self) -> bool:
        raise FormulaError(
            "a branch on a value (if, and, or, while, max) cannot be compiled; use where(condition, a, b)"
        )

    def __float__(self) -> float:
        raise FormulaError(
            "a value of the step was given to float or to a function of numbers, but the step runs once, on "
            "symbols; use the functions of rnnfast.cells"
        )

    __complex__ = __float__

    def __int__(self) -> int:
        raise FormulaError(
            "a value of the step cannot be a count or an index (int, round, range), since the step runs "
            "once, on symbols; use where(condition, a, b), or loop over a number of Python"
        )

    __index__ = __trunc__ = __floor__ = __ceil__ = __int__

    def __round__(self, *_: Any) -> int:
        return self.__int__()

    def __format__(self, form: str) -> str:
        if form:
            raise FormulaError(
                f"a value of the step has no digits for the format {form!r}, since the step runs once, on "
                "symbols; leave the format out to see its formula"
            )
        return repr(self)

    def __iter__(self) -> Any:
        raise FormulaError(
            "a value of the step is one number for each unit, so it has no elements and no length"
        )

    __getitem__ = __len__ = lambda self, *_: self.__iter__()

    @property
    def is_condition(self) -> bool:
        """Whether this is true or false, not a number."""
        return self.op in COMPARISONS

    def __repr__(self) -> str:
        return text_of(self, most=60)


class FormulaError(TypeError):
    """A formula cannot be compiled."""


class Unfinished:
    """A placeholder for a value that a formula must request in another way.

    Attributes
    ----------
    how : str
        The right way, for messages.
    """

    how: str

    def _refuse(self, *_: Any) -> Any:
        raise FormulaError(self.how)

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _refuse
    __neg__ = __abs__ = __pow__ = __lt__ = __le__ = __gt__ = __ge__ = __eq__ = __ne__ = _refuse
    __bool__ = __float__ = __int__ = __index__ = __iter__ = __getitem__ = __len__ = _refuse
    __array__ = __array_ufunc__ = __array_function__ = _refuse
    __hash__ = object.__hash__


def in_order(outputs: Iterable[Node], stop: Iterable[Node] = ()) -> list[Node]:
    """All nodes that the outputs depend on, operands first; operands of nodes in `stop` are not followed."""
    ends = stop if isinstance(stop, Mapping) else set(stop)
    found, waiting = set(), list(outputs)
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            if node not in ends and node.op not in ("input", "constant"):
                waiting += node.args
    return sorted(found, key=lambda node: node.index)


# Precedence of operators; a right operand must have a higher one.
_INFIX = {"lt": ("<", 1), "le": ("<=", 1), "gt": (">", 1), "add": ("+", 2), "sub": ("-", 2)}
_INFIX |= {"mul": ("*", 4), "div": ("/", 4)}
_SIGN, _CALL = 3, 9


def text_of(node: Node, names: Mapping[Node, str] | None = None, most: int | None = None) -> str:
    """A node as Python source; operands with a name in `names` appear by it.

    Operands of more than `most` characters appear as ``...``: the text of a value that is used twice at each
    of 50 operations would have no end.
    """
    names = names or {}
    made: dict[Node, tuple[str, int]] = {}
    for one in in_order(() if node.op in ("input", "constant") else node.args, names):
        made[one] = (names[one], _CALL) if one in names else _text(one, made, most)
    return _text(node, made, most)[0]


def _text(node: Node, made: Mapping[Node, tuple[str, int]], most: int | None) -> tuple[str, int]:
    """The text of a node, and its precedence, from those of its operands."""
    if node.op == "input":
        return node.args[0], _CALL
    if node.op == "constant":
        return f"{node.args[0]:.9g}", _SIGN if np.signbit(node.args[0]) else _CALL

    def operand(index: int, least: int) -> str:
        text, level = made[node.args[index]]
        if most is not None and len(text) > most:
            return "..."
        return text if level >= least else f"({text})"

    if node.op in _INFIX:
        sign, level = _INFIX[node.op]
        return f"{operand(0, level)} {sign} {operand(1, level + 1 + (level == 2))}", level
    if node.op == "neg":
        return f"-{operand(0, _CALL)}", _SIGN
    name = {"select": "where", "stop": "stop_gradient"}.get(node.op, node.op)
    return f"{name}({', '.join(operand(index, 0) for index in range(len(node.args)))})", _CALL
