"""Any cell as a Scan: its body is the cell's formula, one step."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rnnfast.interop.onnx_formula import write_formula
from rnnfast.interop.onnx_writer import Writer
from rnnfast.interop.structure import parameters
from rnnfast.kernels.cell.node import Node, in_order
from rnnfast.layers.recurrent import Recurrent


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
