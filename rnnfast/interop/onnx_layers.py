"""Recurrent layers as nodes of ONNX: the operators RNN, LSTM and GRU, and Scan for all other cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rnnfast import cells
from rnnfast.cells import Cell
from rnnfast.interop.layouts import LAYOUTS, layout_of, to_library
from rnnfast.interop.onnx_scan import Direction, Steps, write_scan
from rnnfast.interop.onnx_writer import Writer
from rnnfast.interop.structure import parameters


class Operator(NamedTuple):
    """An operator of ONNX, its attributes, and the activation that a direction names, if it does."""

    kind: str
    attributes: dict[str, Any]
    activation: str | None = None


# The cells of `LAYOUTS["ONNX"]`.
OPERATORS: Mapping[Cell, Operator] = {
    cells.rnn: Operator("RNN", {}, "Tanh"),
    cells.rnn_relu: Operator("RNN", {}, "Relu"),
    cells.lstm: Operator("LSTM", {}),
    cells.peephole_lstm: Operator("LSTM", {}),
    cells.gru: Operator("GRU", {"linear_before_reset": 0}),
    cells.gru_after: Operator("GRU", {"linear_before_reset": 1}),
}


def write_layer(graph: Writer, both: Sequence[Direction], steps: Steps) -> tuple[str, list[list[str]]]:
    """The outputs (T, N, H) of one or two directions side by side, and the final states of each."""
    operators = [operator_of(one.layer.cell) for one in both]
    if operators[0] is not None and _are_one(both, operators):
        return _write_operator(graph, operators[0], both, steps, "bidirectional")
    found = []
    for one, operator, way in zip(both, operators, ("forward", "reverse"), strict=False):
        if operator is None:
            found.append(write_scan(graph, one, steps, reverse=way == "reverse"))
        else:
            hs, (final,) = _write_operator(graph, operator, [one], steps, way)
            found.append((hs, final))
    return graph.joined([hs for hs, _ in found], axis=2), [final for _, final in found]


def operator_of(cell: Cell) -> Operator | None:
    """The operator that computes a cell; None if there is none."""
    return next((OPERATORS[own] for own in LAYOUTS["ONNX"] if own.fingerprint == cell.fingerprint), None)


def _are_one(both: Sequence[Direction], operators: Sequence[Operator | None]) -> bool:
    """Whether there are two directions and one operator can compute both."""
    if len(both) == 1:
        return False
    ahead, back = operators
    peepholes = {cells.peephole_lstm.fingerprint == one.layer.cell.fingerprint for one in both}
    sizes = {one.layer.hidden_size for one in both}
    return (
        ahead is not None
        and back is not None
        and (ahead.kind, ahead.attributes) == (back.kind, back.attributes)
        and len(peepholes) == len(sizes) == 1
    )


def _write_operator(
    graph: Writer, operator: Operator, both: Sequence[Direction], steps: Steps, direction: str
) -> tuple[str, list[list[str]]]:
    """The outputs (T, N, H) of an operator, and the final states of each direction."""
    hidden, kind = both[0].layer.hidden_size, operator.kind
    weights = _weights(graph, both)
    initial = [
        graph.joined([graph.node("Unsqueeze", state, graph.integers([0])) for state in states], axis=0)
        for states in zip(*(one.states for one in both), strict=True)
    ]
    inputs = [steps.xs, weights["W"], weights["R"], weights["B"], steps.lengths, *initial]
    if "P" in weights:
        inputs.append(weights["P"])
    attributes = {"hidden_size": hidden, "direction": direction, **operator.attributes}
    named = [operator_of(one.layer.cell).activation for one in both]  # type: ignore[union-attr]
    if operator.activation is not None:
        attributes["activations"] = named
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


def _weights(graph: Writer, both: Sequence[Direction]) -> dict[str, str]:
    """The initializers W (dirs, G*H, D), R (dirs, G*H, H), B (dirs, 2*G*H) and, with peepholes, P (dirs, 3*H)
    of an operator."""
    arrays: dict[str, list[np.ndarray]] = {"W": [], "R": [], "B": [], "P": []}
    held: dict[str, list[tuple[str, np.ndarray]]] = {"W": [], "R": [], "B": [], "P": []}
    homes = {"Wx": "W", "Wh": "R", "b": "B", "bhh": "B"}
    for one in both:
        cell, params = one.layer.cell, parameters(one.layer)
        layout = layout_of("to_onnx", "ONNX", cell)
        moved = to_library(cell, layout, params)
        arrays["W"].append(moved.wx)
        arrays["R"].append(moved.wh)
        arrays["B"].append(np.concatenate([moved.bx, moved.bh]))
        if layout.peepholes:
            arrays["P"].append(np.concatenate([params[name] for name in layout.peepholes]))
        for name, value in params.items():
            held[homes.get(name, "P")].append((f"{one.name}_{name}", value))
    return {
        name: graph.array(f"{both[0].name}_{name}", np.stack(parts), held[name])
        for name, parts in arrays.items()
        if parts
    }
