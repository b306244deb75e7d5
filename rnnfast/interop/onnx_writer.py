"""An ONNX graph as it is written: nodes, their names, and arrays; formulas of cells and heads as nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rnnfast.kernels.cell.node import Node, in_order

# Operators of 2022, which ONNX Runtime has read since 1.12. None of those used here changes its meaning up to
# opset 21, the last one of ONNX Runtime 1.20.
OPSET, IR_VERSION = 17, 8
# A protocol buffer ends at 2 GiB.
MOST_BYTES = (1 << 31) - 1


class Placed(NamedTuple):
    """A parameter and the initializer of the file that holds it, as it is or in another layout."""

    parameter: str
    shape: tuple[int, ...]
    initializer: str


class Writer:
    """The nodes, inputs, outputs and initializers of a graph in one dtype.

    The names of values are counted, so equal graphs have equal bytes. The body of a Scan is a `Writer` of its
    own, whose nodes may read every value of the graph around it.

    Parameters
    ----------
    dtype : float32 or float64
    around : Writer, optional
        The graph of which this is a body.
    """

    def __init__(self, dtype: np.dtype, around: Writer | None = None) -> None:
        from onnx import helper

        self._helper = helper
        self.dtype = dtype
        self.nodes: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self.placed: list[Placed] = []
        self._whole: Writer = self if around is None else around._whole
        if around is None:
            self._arrays: dict[str, np.ndarray] = {}
            self._numbers: dict[str, str] = {}
            self._taken: set[str] = set()
            self._count = 0

    # Values.

    def _take(self, name: str) -> None:
        """ValueError if an input, an output or an array has this name."""
        if name in self._whole._taken:
            raise ValueError(f"to_onnx: two values have the name {name}; rename one in the step of the cell.")
        self._whole._taken.add(name)

    def fresh(self, kind: str) -> str:
        """A name for a value."""
        whole = self._whole
        whole._count += 1
        return f"{kind.lower()}.{whole._count}"

    def node(self, kind: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        """The one output of a node; `name` instead of a counted one."""
        (output,) = self.several(kind, inputs, [self.fresh(kind) if name is None else name], **attributes)
        return output

    def several(
        self, kind: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any
    ) -> list[str]:
        """The outputs of a node that has some; "" stands for one that is left out."""
        self.nodes.append(self._helper.make_node(kind, list(inputs), list(outputs), **attributes))
        return list(outputs)

    def split(self, value: str, sizes: Sequence[int], axis: int = -1) -> list[str]:
        """The parts of a value along an axis; a part of size 0 is ""."""
        if len(sizes) == 1:
            return [value]
        names = [self.fresh("split") if size else "" for size in sizes]
        wanted = [size for size in sizes if size]
        if len(wanted) == 1:
            return [value if size else "" for size in sizes]
        lengths = self.integers(wanted)
        self.several("Split", [value, lengths], [name for name in names if name], axis=axis)
        return names

    def joined(self, values: Sequence[str], axis: int) -> str:
        """Values side by side along an axis."""
        return values[0] if len(values) == 1 else self.node("Concat", *values, axis=axis)

    # Arrays.

    def array(self, name: str, array: np.ndarray, parameters: Sequence[tuple[str, np.ndarray]] = ()) -> str:
        """An initializer of the whole graph; `parameters` are those it holds, by name."""
        self._take(name)
        self._whole._arrays[name] = array
        self._whole.placed += [Placed(own, value.shape, name) for own, value in parameters]
        return name

    def parameter(self, name: str, array: np.ndarray) -> str:
        """An initializer that holds one parameter as it is."""
        return self.array(name, array, [(name, array)])

    def number(self, value: float) -> str:
        """A scalar of the graph's dtype."""
        return self._constant(np.asarray(value, self.dtype))

    def integers(self, values: Sequence[int] | int) -> str:
        """An int64 scalar or vector."""
        return self._constant(np.asarray(values, np.int64))

    def _constant(self, array: np.ndarray) -> str:
        numbers, key = self._whole._numbers, f"{array.dtype} {array.tolist()!r}"
        if key not in numbers:
            numbers[key] = self.array(self.fresh("constant"), array)
        return numbers[key]

    # Ends.

    def input(self, name: str, shape: Sequence[str | int], dtype: Any = None) -> str:
        """An input of the graph, or of the body; a string in its shape names an axis of any size."""
        self.inputs.append(self._end(name, shape, dtype))
        return name

    def output(self, name: str, value: str, shape: Sequence[str | int]) -> None:
        """An output of the graph, or of the body, that equals a value."""
        self.node("Identity", value, name=name)
        self.outputs.append(self._end(name, shape, None))

    def _end(self, name: str, shape: Sequence[str | int], dtype: Any) -> Any:
        self._take(name)
        kind = self.type_of(self.dtype if dtype is None else dtype)
        return self._helper.make_tensor_value_info(name, kind, list(shape))

    def type_of(self, dtype: Any) -> int:
        """The number of a dtype in ONNX."""
        return self._helper.np_dtype_to_tensor_dtype(np.dtype(dtype))

    def graph(self, name: str) -> Any:
        """The graph as a protocol buffer, with the initializers unless it is a body."""
        from onnx import numpy_helper

        arrays = self._arrays.items() if self._whole is self else ()
        initializers = [numpy_helper.from_array(np.ascontiguousarray(a), key) for key, a in arrays]
        return self._helper.make_graph(self.nodes, name, self.inputs, self.outputs, initializers)

    def nbytes(self) -> int:
        """Bytes of the initializers."""
        return sum(array.nbytes for array in self._whole._arrays.values())


# Formulas: one table of operations.


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
FUNCTIONS: dict[str, str | Callable[..., str]] = {
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
    operator, operands = FUNCTIONS[node.op], [known[operand] for operand in node.args]
    return graph.node(operator, *operands) if isinstance(operator, str) else operator(graph, *operands)
