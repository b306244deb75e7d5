"""Recurrent layers as nodes of ONNX: the operators RNN, LSTM and GRU, and Scan for all other cells."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rnnfast import cells
from rnnfast.cells import Cell
from rnnfast.interop.structure import LAYOUTS, Layout, parameters, to_library
from rnnfast.kernels.cell.node import Node, in_order
from rnnfast.layers.recurrent import Recurrent


class Operator(NamedTuple):
    """A cell that ONNX has: the operator that computes it, its attributes, and the activation that each
    direction names, if the operator has a choice."""

    cell: Cell
    kind: str
    attributes: dict[str, Any]
    activation: str | None = None

    @property
    def layout(self) -> Layout:
        """How the operator stores the parameters."""
        return LAYOUTS["ONNX"][self.cell]


OPERATORS = (
    Operator(cells.rnn, "RNN", {}, "Tanh"),
    Operator(cells.rnn_relu, "RNN", {}, "Relu"),
    Operator(cells.lstm, "LSTM", {}),
    Operator(cells.peephole_lstm, "LSTM", {}),
    Operator(cells.gru, "GRU", {"linear_before_reset": 0}),
    Operator(cells.gru_after, "GRU", {"linear_before_reset": 1}),
)


# The input of an operator that holds each parameter of its cell; the others are peepholes, in P.
HOMES = {"Wx": "W", "Wh": "R", "b": "B", "bhh": "B"}


class Direction(NamedTuple):
    """A layer that reads in one direction, with the names of its values.

    Attributes
    ----------
    name : str
        The start of its names.
    layer : Recurrent
    states : list of str
        Its initial states (N, H).
    given : dict of str to str
        Its given arrays (T, N, H).
    """

    name: str
    layer: Recurrent
    states: list[str]
    given: dict[str, str]


class Steps(NamedTuple):
    """The sequences as values of the graph; all but the inputs are "" unless the file takes lengths.

    Attributes
    ----------
    xs : str
        Inputs (T, N, D).
    lengths : str
        Steps of each sequence (N,).
    inside : str
        Whether each step is before the end of its sequence (T, N, 1).
    begun : str
        Whether each sequence has a step (N, 1).
    """

    xs: str
    lengths: str = ""
    inside: str = ""
    begun: str = ""


def write_layer(graph: Writer, both: Sequence[Direction], steps: Steps) -> tuple[str, list[list[str]]]:
    """The outputs (T, N, H) of one or two directions side by side, and the final states of each."""
    operators = [operator_of(one.layer.cell) for one in both]
    known = [operator for operator in operators if operator is not None]
    if len(known) == 2 and _are_one(both, known):
        return _write_operator(graph, known, both, steps, "bidirectional")
    found = []
    for one, operator, way in zip(both, operators, ("forward", "reverse"), strict=False):
        if operator is None:
            found.append(write_scan(graph, one, steps, reverse=way == "reverse"))
        else:
            hs, (final,) = _write_operator(graph, [operator], [one], steps, way)
            found.append((hs, final))
    return graph.joined([hs for hs, _ in found], axis=2), [final for _, final in found]


def operator_of(cell: Cell) -> Operator | None:
    """The operator that computes a cell, whatever its names are; None if there is none."""
    return next((one for one in OPERATORS if one.cell.fingerprint == cell.fingerprint), None)


def _are_one(both: Sequence[Direction], operators: Sequence[Operator]) -> bool:
    """Whether one node can compute two directions."""
    ahead, back = operators
    return (
        (ahead.kind, ahead.attributes) == (back.kind, back.attributes)
        and bool(ahead.layout.peepholes) == bool(back.layout.peepholes)
        and both[0].layer.hidden_size == both[1].layer.hidden_size
    )


def _write_operator(
    graph: Writer, operators: Sequence[Operator], both: Sequence[Direction], steps: Steps, direction: str
) -> tuple[str, list[list[str]]]:
    """The outputs (T, N, H) of one node for one or two directions, and the final states of each."""
    hidden, kind = both[0].layer.hidden_size, operators[0].kind
    weights = _weights(graph, operators, both)
    initial = [
        graph.joined([graph.node("Unsqueeze", state, graph.integers([0])) for state in states], axis=0)
        for states in zip(*(one.states for one in both), strict=True)
    ]
    inputs = [steps.xs, weights["W"], weights["R"], weights["B"], steps.lengths, *initial]
    if "P" in weights:
        inputs.append(weights["P"])
    attributes = {"hidden_size": hidden, "direction": direction, **operators[0].attributes}
    if operators[0].activation is not None:
        attributes["activations"] = [operator.activation for operator in operators]
    hs, *final = graph.several(
        kind, inputs, [graph.fresh(kind) for _ in range(1 + len(initial))], **attributes
    )
    if len(both) == 2:  # (T, 2, N, H) -> (T, N, 2 H)
        hs = graph.node("Transpose", hs, perm=[0, 2, 1, 3])
        hs = graph.node("Reshape", hs, graph.integers([0, 0, 2 * hidden]))
    else:
        hs = graph.node("Squeeze", hs, graph.integers([1]))
    apart = [graph.split(state, [1] * len(both), axis=0) for state in final]  # by state, then by direction
    flat = [[graph.node("Squeeze", part, graph.integers([0])) for part in parts] for parts in apart]
    finals = [list(states) for states in zip(*flat, strict=True)]
    if steps.lengths:  # of a sequence without steps, ONNX Runtime sets the final state to zero
        finals = [
            [graph.node("Where", steps.begun, new, old) for new, old in zip(final, one.states, strict=True)]
            for final, one in zip(finals, both, strict=True)
        ]
    return hs, finals


def _weights(graph: Writer, operators: Sequence[Operator], both: Sequence[Direction]) -> dict[str, str]:
    """The initializers W (dirs, G*H, D), R (dirs, G*H, H), B (dirs, 2*G*H) and, with peepholes, P (dirs, 3*H)
    of a node."""
    arrays: dict[str, list[np.ndarray]] = {"W": [], "R": [], "B": [], "P": []}
    held: dict[str, list[tuple[str, np.ndarray]]] = {"W": [], "R": [], "B": [], "P": []}
    for operator, one in zip(operators, both, strict=True):
        cell, layout, own = operator.cell, operator.layout, parameters(one.layer)
        params = dict(zip(cell.shapes(1, 1), own.values(), strict=True))
        moved = to_library(cell, layout, params)
        summed = slice(-params["bhh"].size if "bhh" in params else None)
        moved.bh[summed] = -0.0  # b + -0.0 has the bits of b, also where b is 0.0
        arrays["W"].append(moved.wx)
        arrays["R"].append(moved.wh)
        arrays["B"].append(np.concatenate([moved.bx, moved.bh]))
        if layout.peepholes:
            arrays["P"].append(np.concatenate([params[name] for name in layout.peepholes]))
        for name, value in own.items():
            held[HOMES.get(name, "P")].append((f"{one.name}_{name}", value))
    return {
        name: graph.array(f"{both[0].name}_{name}", np.stack(parts), held[name])
        for name, parts in arrays.items()
        if parts
    }


# Other cells: the body of a Scan is the cell's formula, one step.


def write_scan(graph: Writer, one: Direction, steps: Steps, *, reverse: bool) -> tuple[str, list[str]]:
    """The outputs (T, N, H) of a layer, and its final states (N, H).

    The product of the inputs of all steps with Wx comes before the Scan. After the end of a sequence, the
    body keeps the state. So in reverse, a sequence begins at its own end.
    """
    step = _Step(graph, one)
    projected = graph.node("Add", graph.node("MatMul", steps.xs, step.arrays["Wx"]), step.arrays["b"])
    scanned = [projected, *one.given.values(), *([steps.inside] if steps.inside else [])]
    body = step.body(bool(steps.inside))
    outputs = [graph.fresh("scan") for _ in (*one.states, "hs")]
    *final, hs = graph.several(
        "Scan",
        [*one.states, *scanned],
        outputs,
        body=body.graph(f"{one.name}_step"),
        num_scan_inputs=len(scanned),
        scan_input_directions=[int(reverse)] * len(scanned),
        scan_output_directions=[int(reverse)],
    )
    return hs, final


class _Step:
    """One step of a cell, as the body of a Scan in a graph.

    Attributes
    ----------
    arrays : dict of str to str
        The initializers of the layer's parameters.
    """

    def __init__(self, graph: Writer, one: Direction) -> None:
        self._graph, self._given = graph, one.given
        self._layer, self._cell = one.layer, one.layer.cell
        self._width = one.layer.hidden_size
        self.arrays = {
            name: graph.parameter(f"{one.name}_{name}", value)
            for name, value in parameters(one.layer).items()
        }

    def body(self, masked: bool) -> Writer:
        """The step as a graph: it reads the states, the row x_t Wx + b, rows of the given arrays, and, if
        `masked`, whether each sequence goes on; it writes the next states and the output."""
        equations, columns = self._cell.equations, len(self._cell.gates) * self._width
        body = Writer(self._graph.dtype, self._graph)
        row = ("batch", self._width)
        states = [body.input(body.fresh("state"), row) for _ in self._cell.states]
        projected = body.input(body.fresh("projected"), ("batch", columns))
        known = dict(zip((equations.inputs[name] for name in self._cell.states), states, strict=True))
        for name in self._given:
            known[equations.inputs[name]] = body.input(body.fresh("given"), row)
        inside = body.input(body.fresh("inside"), ("batch", 1), np.bool_) if masked else None
        known |= self._of_units()
        self._products(body, projected, states[0], known)
        after = [self._row(body, node, known, states[0]) for node in equations.after]
        hs = after[0]
        if inside is not None:
            hs = body.node("Where", inside, hs, body.number(0))
            after = [body.node("Where", inside, new, old) for new, old in zip(after, states, strict=True)]
        for value in (*after, hs):
            body.output(body.fresh("next"), value, row)
        return body

    def _of_units(self) -> dict[Node, str]:
        """The arguments that are the same at every step: parameters, constants, and means of random ones."""
        equations, roles, graph = self._cell.equations, self._cell.roles, self._graph
        known = {}
        if self._cell.product == "diagonal":
            sizes = [self._width] * len(self._cell.gates)
            for gate, part in zip(self._cell.gates, graph.split(self.arrays["Wh"], sizes), strict=True):
                known[equations.inputs[f"Wh.{gate}"]] = part
        for name, role in roles.items():
            if role.is_random:
                known[equations.inputs[name]] = graph.number(role.mean)
            elif role.kind == "constant":
                known[equations.inputs[name]] = graph.number(self._layer.constants[name])
            elif role.is_trained:
                known[equations.inputs[name]] = self.arrays[name]
        return known

    def _products(self, body: Writer, projected: str, h: str, known: dict[Node, str]) -> None:
        """Add the gates to the known values, each with its product with Wh."""
        cell, equations, width = self._cell, self._cell.equations, self._width
        gates = [equations.inputs[gate] for gate in cell.gates]
        late = equations.late
        plain = len(gates) - late
        sizes = [plain * width, late * width]
        first, second = body.split(projected, sizes) if late else (projected, "")
        wh_first = wh_second = ""
        if cell.product == "h":
            wh = self.arrays["Wh"]
            wh_first, wh_second = self._graph.split(wh, sizes) if late else (wh, "")
        if plain:
            if wh_first:
                first = body.node("Add", first, body.node("MatMul", h, wh_first))
            known |= dict(zip(gates[:plain], body.split(first, [width] * plain), strict=True))
        if cell.apart:
            recurrent = body.node("Add", body.node("MatMul", h, wh_second), self.arrays["bhh"])
            names = [equations.inputs[f"{gate}.h"] for gate in cell.apart]
            known |= dict(zip(names, body.split(recurrent, [width] * late), strict=True))
        elif cell.again:
            assert equations.operand is not None
            operand = self._row(body, equations.operand, known, h)
            second = body.node("Add", second, body.node("MatMul", operand, wh_second))
        if late:
            known |= dict(zip(gates[plain:], body.split(second, [width] * late), strict=True))

    def _row(self, body: Writer, node: Node, known: dict[Node, str], like: str) -> str:
        """The value of a node as (N, H), which a constant or a parameter alone is not."""
        equations = self._cell.equations
        same = {equations.inputs[name] for name in equations.units}
        same |= {equations.inputs[name] for name in self._cell.random}
        (value,) = write_formula(body, [node], known)
        reads_a_row = any(n.op == "input" and n not in same for n in in_order([node]))
        return value if reads_a_row else body.node("Expand", value, body.node("Shape", like))


# An ONNX graph as it is written: nodes, their names, and arrays; formulas of cells and heads as nodes.


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
