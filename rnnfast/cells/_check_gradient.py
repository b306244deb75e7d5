"""A cell's compiled gradient compared with central differences of its equations, step by step in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from rnnfast.kernels.cell.expression import OPERATIONS
from rnnfast.kernels.cell.node import Node, in_order
from rnnfast.kernels.elementwise.noise import bernoulli_forward, normal_forward

LIMIT = 1e-5
EPS = 1e-5  # the error of a difference is some 1e-10 from truncation, and as much from rounding
SEQUENCES, INPUT_SIZE = 2, 3

# What the first run decided, by time step and node: see `_PIECES`.
Memory = dict[tuple[int, Node], tuple[Any, ...]]


def largest_difference(
    cell: Any, hidden_size: int, steps: int, rng: np.random.Generator, dtype: type = np.float64
) -> float:
    """The result of `Cell.check`, also for a layer in float32."""
    values, arriving, derived = (
        {name: array.astype(np.float64) for name, array in arrays.items()}
        for arrays in _compiled(cell, hidden_size, steps, rng, dtype)
    )
    memory: Memory = {}
    made = _run(cell, values, memory)
    differences = {f"the output {name}": (derived.pop(f"the output {name}"), made[name]) for name in made}
    for name, gradient in derived.items():
        stack = _both_ways(values[name])
        results = _run(cell, {**values, name: stack}, memory)
        losses = sum(np.sum(results[key] * d, axis=tuple(range(-d.ndim, 0))) for key, d in arriving.items())
        up, down = np.split(np.broadcast_to(losses, len(stack)), 2)
        differences[f"the gradient of {name}"] = gradient, ((up - down) / (2 * EPS)).reshape(gradient.shape)
    return _largest(cell.name, differences)


def _largest(name: str, differences: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> float:
    """The largest relative distance by norm; small norms are replaced by a share of the largest one."""
    least = 1e-3 * max(np.linalg.norm(expected) for _, expected in differences.values())
    worst = 0.0
    for what, (actual, expected) in differences.items():
        scale = max(np.linalg.norm(actual), np.linalg.norm(expected), least) or 1.0
        distance = float(np.linalg.norm(actual - expected) / scale)
        if not distance <= LIMIT:
            raise AssertionError(
                f"{name}.check: {what} differs from that of the equations by {distance:.1e} of its norm."
            )
        worst = max(worst, distance)
    return worst


def _compiled(
    cell: Any, hidden_size: int, steps: int, rng: np.random.Generator, dtype: type
) -> tuple[dict[str, np.ndarray], ...]:
    """Values the cell reads, incoming gradients, and the outputs and gradients of the compiled layer."""
    layer = cell.layer(INPUT_SIZE, hidden_size, rng=rng, dtype=dtype, stateful=True)
    for param in layer.params:
        spread = rng.standard_normal((2, *param.shape)) / 10
        param[...] = np.where(param == 0, spread[0], param * (1 + spread[1]))
    rows, one = (SEQUENCES, steps, hidden_size), (SEQUENCES, hidden_size)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(dtype)

    values = {"xs": normal(*rows[:2], INPUT_SIZE)}
    states: dict[str, np.ndarray] = {name: rng.uniform(0.1, 0.9, one).astype(dtype) for name in cell.states}
    given = {name: normal(*rows) for name in cell.rows if cell.roles[name].kind == "given"}
    arriving = {"hs": normal(*rows), **{name: normal(*one) for name in cell.states}}
    layer.set_state(*states.values())
    derived = {"the output hs": layer.forward(values["xs"], **given)}
    derived |= {
        f"the output {name}": state for name, state in zip(cell.states, layer.get_state(), strict=True)
    }
    derived["xs"] = layer.backward(
        arriving["hs"], **{f"d{name}_next": arriving[name] for name in cell.states}
    )
    derived |= dict(zip(cell.states, layer.get_state_gradients(), strict=True))
    derived |= layer.given_gradients if given else {}
    derived |= dict(zip(layer.parameter_names, layer.grads, strict=True))
    values |= {**states, **given, **dict(zip(layer.parameter_names, layer.params, strict=True))}
    values |= {name: np.full(1, value, dtype) for name, value in layer.constants.items()}
    values |= {name: _drawn(cell, name, layer.rng_state[0], np.empty(rows, dtype)) for name in cell.random}
    return values, arriving, derived


def _drawn(cell: Any, name: str, seed: int, numbers: np.ndarray) -> np.ndarray:
    """The random numbers (N, T, H) of a new layer with this seed."""
    role = cell.roles[name]
    draw = normal_forward if role.kind == "normal" else bernoulli_forward
    draw(seed, cell.rows.index(name), 0, 0, role.value, numbers)
    return numbers


def _both_ways(array: np.ndarray) -> np.ndarray:
    """Copies of an array, (2 size, *shape), each with one element changed: first all up, then all down."""
    moves = EPS * np.eye(array.size).reshape(array.size, *array.shape)
    return np.concatenate([array + moves, array - moves])


def _run(cell: Any, values: Mapping[str, np.ndarray], memory: Memory) -> dict[str, np.ndarray]:
    """The outputs `hs` (..., N, T, H) and the states (..., N, H) after the last step.

    One of the values may have a leading axis of variants. The first run fills the memory; later runs use it.
    """
    equations, shape = cell.equations, values[cell.states[0]].shape[-2:]
    units = {equations.inputs[name]: _unit(cell, values, name, shape[1]) for name in equations.units}
    states, outputs = [values[name] for name in cell.states], []
    for t in range(values["xs"].shape[-2]):
        known = {**units, **{equations.inputs[name]: values[name][..., t, :] for name in cell.rows}}
        known |= {equations.inputs[name]: state for name, state in zip(cell.states, states, strict=True)}
        known |= _gates(cell, values, t, known, memory)
        after = _evaluated(equations.after, known, t, memory)
        states = [np.broadcast_to(value, np.broadcast_shapes(np.shape(value), shape)) for value in after]
        outputs.append(states[0])
    hs = np.stack(np.broadcast_arrays(*outputs), axis=-2)
    return {"hs": hs, **dict(zip(cell.states, states, strict=True))}


def _unit(cell: Any, values: Mapping[str, np.ndarray], name: str, width: int) -> np.ndarray:
    """A value per unit, (..., 1, H): an argument, or the weights of a diagonal product."""
    if name in values:
        return values[name][..., np.newaxis, :]
    first = cell.gates.index(name.removeprefix("Wh.")) * width
    return values["Wh"][..., np.newaxis, first : first + width]


def _gates(
    cell: Any, values: Mapping[str, np.ndarray], t: int, known: Mapping[Node, Any], memory: Memory
) -> dict[Node, np.ndarray]:
    """The gates (..., N, H) of a step, computed from the other inputs of the equations."""
    equations, count = cell.equations, len(cell.gates)
    of_inputs = values["xs"][..., t, :] @ values["Wx"] + values["b"][..., np.newaxis, :]
    gates = {
        equations.inputs[g]: a for g, a in zip(cell.gates, np.split(of_inputs, count, axis=-1), strict=True)
    }
    if cell.product != "h":
        return gates
    weights = dict(zip(cell.gates, np.split(values["Wh"], count, axis=-1), strict=True))
    h = known[equations.inputs[cell.states[0]]]
    for gate in cell.gates[: equations.plain]:
        gates[equations.inputs[gate]] = gates[equations.inputs[gate]] + h @ weights[gate]
    if cell.apart:
        biases = np.split(values["bhh"][..., np.newaxis, :], len(cell.apart), axis=-1)
        gates |= {
            equations.inputs[f"{g}.h"]: h @ weights[g] + b for g, b in zip(cell.apart, biases, strict=True)
        }
    if equations.operand is not None:
        (operand,) = _evaluated([equations.operand], {**known, **gates}, t, memory)
        operand = np.broadcast_to(operand, np.broadcast_shapes(np.shape(operand), np.shape(h)[-2:]))
        for gate in cell.again:
            gates[equations.inputs[gate]] = gates[equations.inputs[gate]] + operand @ weights[gate]
    return gates


def _evaluated(outputs: Iterable[Node], known: Mapping[Node, Any], t: int, memory: Memory) -> list[Any]:
    """The values of nodes; where an operation has a kink, on the piece of the first run."""
    outputs, values = list(outputs), dict(known)
    slopes = {node: node.slope for node in in_order(outputs, known) if node.slope is not None}
    for node in in_order([*outputs, *slopes.values()], known):
        if node.op == "constant":
            values[node] = node.args[0]
        elif node not in values:
            operands = tuple(values[a] for a in node.args)
            if (t, node) in memory:
                values[node] = _PIECES[node.op](*memory[t, node], *operands)
                continue
            values[node] = OPERATIONS[node.op](*operands)
            if node.op == "stop" or node.is_condition:
                memory[t, node] = (values[node],)
            elif node.op in _PIECES and node.op != "step":
                memory[t, node] = operands
    for node, slope in slopes.items():
        memory.setdefault((t, node), (values[node], values[slope], values[node.args[0]]))
    return [values[node] for node in outputs]


def _constant(value: Any, *_: Any) -> Any:
    return value


# Each operation that the first run decides, from what the memory has of that run and the operands now: as a
# function with the derivative that the gradient has there, also exactly at a kink, where relu and abs have 0.
_PIECES: dict[str, Callable] = {
    "stop": _constant,
    "lt": _constant,
    "le": _constant,
    "gt": _constant,
    "step": lambda value, slope, x0, x: value + slope * (x - x0),
    "relu": lambda x0, x: np.where(x0 <= 0, 0.0, x),
    "abs": lambda x0, x: np.sign(x0) * x,
    "maximum": lambda a0, b0, a, b: np.where(a0 > b0, a, np.where(a0 < b0, b, (a + b) / 2)),
    "minimum": lambda a0, b0, a, b: np.where(a0 < b0, a, np.where(a0 > b0, b, (a + b) / 2)),
}
