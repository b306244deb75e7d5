"""Recurrent layers as nodes of ONNX: the operators RNN, LSTM and GRU, and Scan for all other cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from rnnfast import cells
from rnnfast.cells import Cell
from rnnfast.interop.layouts import LAYOUTS, Layout, to_library
from rnnfast.interop.onnx_recurrent import HOMES
from rnnfast.interop.onnx_scan import Direction, Steps, write_scan
from rnnfast.interop.onnx_writer import Writer
from rnnfast.interop.structure import parameters


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
