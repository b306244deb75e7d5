"""The formula of a cell or a head as nodes of ONNX, one table of operations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from rnnfast.interop.onnx_writer import Writer
from rnnfast.kernels.cell.node import Node, in_order


def _fma(graph: Writer, a: str, b: str, c: str) -> str:
    return graph.node("Add", graph.node("Mul", a, b), c)


def _softplus(graph: Writer, x: str) -> str:
    """relu(x) + log(1 + exp(-|x|)): ONNX Runtime has no Softplus of float64."""
    small = graph.node("Exp", graph.node("Neg", graph.node("Abs", x)))
    return graph.node(
        "Add", graph.node("Relu", x), graph.node("Log", graph.node("Add", graph.number(1), small))
    )


def _step(graph: Writer, x: str) -> str:
    return graph.node("Where", graph.node("Greater", x, graph.number(0)), graph.number(1), graph.number(0))


# `rnnfast.kernels.cell.expression.OPERATIONS` by name: an operator with the same operands, or a few of them.
OPERATORS: dict[str, str | Callable[..., str]] = {
    "add": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "div": "Div",
    "neg": "Neg",
    "abs": "Abs",
    "fma": _fma,
    "lt": "Less",
    "le": "LessOrEqual",
    "gt": "Greater",
    "select": "Where",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "exp": "Exp",
    "log": "Log",
    "sqrt": "Sqrt",
    "softplus": _softplus,
    "relu": "Relu",
    "step": _step,
    "stop": "Identity",
    "maximum": "Max",
    "minimum": "Min",
}


def write_formula(graph: Writer, outputs: Iterable[Node], known: dict[Node, str]) -> list[str]:
    """The values of the outputs, written as nodes that read known values; `known` gains all values."""
    outputs = tuple(outputs)
    for node in in_order(outputs, tuple(known)):
        if node not in known:
            known[node] = _written(graph, node, known)
    return [known[node] for node in outputs]


def _written(graph: Writer, node: Node, known: Mapping[Node, str]) -> str:
    if node.op == "constant":
        return graph.number(node.args[0])
    operator, operands = OPERATORS[node.op], [known[operand] for operand in node.args]
    return graph.node(operator, *operands) if isinstance(operator, str) else operator(graph, *operands)
