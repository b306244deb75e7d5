"""An ONNX graph as steps that run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from rnnfast.interop.onnx_operators import OPERATORS
from rnnfast.interop.onnx_reading import RECURRENT, Node
from rnnfast.interop.onnx_recurrent import WEIGHTS, RecurrentNode, Shared, recurrent_node
from rnnfast.interop.onnx_shapes import Sequence
from rnnfast.layers.bidirectional import Bidirectional
from rnnfast.layers.recurrent import Recurrent

# What an operator raises for inputs that do not fit.
WRONG = (RuntimeError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError, AssertionError)
LARGEST_NUMBER = 8  # bytes
# Operators whose numbers may take more bytes than those of their inputs.
_WIDENING = ("ArgMax", "ArgMin", "Cast", "CastLike", "ConstantOfShape", "Shape", "Size", "TopK")

Arrays = dict[str, np.ndarray]


class TooLarge(ValueError):
    """A result would be larger than allowed."""


class NodeFailed(ValueError):
    """A node cannot be computed; the message names it."""

    def __init__(self, node: Node, error: Exception) -> None:
        what = str(error) or type(error).__name__
        what = f"there is no {what}" if isinstance(error, KeyError) else what
        super().__init__(f"the node {node.name!r} ({node.op}) cannot be computed: {what.rstrip('.')}")


class Step:
    """One node that runs, with the programs inside it or, of a recurrent node, its layer."""

    def __init__(self, node: Node, bodies: dict[str, Program] | None = None) -> None:
        self.node = node
        self.bodies = bodies or {}
        self.recurrent: RecurrentNode | None = None
        self.last: list[str] = []  # values that no later step reads

    def inputs(self) -> list[str]:
        """Names of the inputs; "" for one that is left out, or that a layer holds."""
        held = WEIGHTS.values() if self.recurrent is not None else ()
        return ["" if place in held else name for place, name in enumerate(self.node.inputs)]

    def reads(self) -> set[str]:
        """Names of values that this step reads, also inside its programs."""
        names = set(self.inputs()) - {""}
        return names.union(*(body.reads() for body in self.bodies.values()))


class Program:
    """A graph, or a graph inside a node, as steps.

    Attributes
    ----------
    steps : list of Step
    constants : dict of str to ndarray
        Read-only arrays that the steps read.
    inputs, outputs : list of str
    opset : int
    refused : list of str
        Why steps cannot run, one sentence each.
    held : dict of str to tuple of int
        The shapes of the file's arrays of floats by name.
    origins : dict of str to tuple of str
        The inputs of each node of constants, by the names of its outputs.
    kept : set of str
        Constants that stay though no step reads them.
    """

    def __init__(self, inputs: list[str], outputs: list[str], opset: int) -> None:
        self.steps: list[Step] = []
        self.constants: Arrays = {}
        self.inputs, self.outputs, self.opset = inputs, outputs, opset
        self.refused: list[str] = []
        self.held: dict[str, tuple[int, ...]] = {}
        self.origins: dict[str, tuple[str, ...]] = {}
        self.kept: set[str] = set()

    # Reading.

    def reads(self) -> set[str]:
        """Names of values from outside."""
        made = {*self.inputs, *self.constants}.union(*(step.node.outputs for step in self.steps))
        return set(self.outputs).union(*(step.reads() for step in self.steps)) - made

    def nested(self) -> Iterator[Program]:
        """This program and all inside it."""
        yield self
        for step in self.steps:
            for body in step.bodies.values():
                yield from body.nested()

    def drop_constants(self) -> None:
        """Forget constants that no step reads, here and inside."""
        for program in self.nested():
            read = program.kept.union(program.outputs, *(step.reads() for step in program.steps))
            program.constants = {name: array for name, array in program.constants.items() if name in read}

    def make_layers(self, outer: Mapping[str, np.ndarray], shared: Shared) -> None:
        """Make the layers of recurrent nodes, here and inside."""
        constants = {**outer, **self.constants}
        for step in self.steps:
            if step.node.op in RECURRENT:
                try:
                    step.recurrent = recurrent_node(step.node, constants, shared)
                except ValueError as error:
                    self.refused.append(f"{step.node.op} {step.node.name!r}: {error}")
            for body in step.bodies.values():
                body.make_layers(constants, shared)

    def finish(self) -> None:
        """Align the constants, and find when a value is read for the last time."""
        for program in self.nested():
            for name, array in program.constants.items():
                program.constants[name] = np.require(array, array.dtype.newbyteorder("="), "A")
                program.constants[name].flags.writeable = False
            later = {*program.outputs, *program.constants}
            for step in reversed(program.steps):
                names = step.reads() | set(step.node.outputs)
                step.last = sorted(names - later)
                later |= names

    def layers(self) -> dict[str, Recurrent | Bidirectional]:
        """The layers of recurrent nodes by name; a second node of a name has its first output added."""
        found: dict[str, Recurrent | Bidirectional] = {}
        for program in self.nested():
            for step in program.steps:
                if step.recurrent is not None:
                    name = step.node.name
                    while name in found:
                        name += f" {len(found)}"
                    found[name] = step.recurrent.layer
        return found

    def homes(self, values: Iterable[str]) -> list[tuple[str, tuple[int, ...]]]:
        """The file's arrays that constants were computed from, name and shape."""
        found, seen, open_names = [], set(), list(values)[::-1]
        while open_names:
            name = open_names.pop()
            if name not in seen and name in self.held:
                found.append((name, self.held[name]))
            elif name not in seen:
                open_names.extend(self.origins.get(name, ())[::-1])
            seen.add(name)
        return found

    # Running.

    def run(self, given: Mapping[str, np.ndarray], memory: int) -> Arrays:
        """The outputs by name, from the values of `given`, which are those of an outer program too."""
        values = {**given, **self.constants}
        for step in self.steps:
            inputs = [values[name] if name else None for name in step.inputs()]
            try:
                results = self._results(step, inputs, values, memory)
            except NodeFailed:  # a node inside this one
                raise
            except WRONG as error:
                raise NodeFailed(step.node, error) from None
            values.update(named(step.node, results))
            for name in step.last:
                values.pop(name, None)
        return {name: values[name] for name in self.outputs}

    def _results(self, step: Step, inputs: list[Any], values: Arrays, memory: int) -> list[np.ndarray]:
        if step.recurrent is not None:
            _allow(step.recurrent.size(inputs), memory)
            return step.recurrent.run(inputs)
        if step.node.op == "If":
            body = step.bodies["then_branch" if inputs[0].reshape(()) else "else_branch"]
            return list(body.run(values, memory).values())
        if step.node.op == "Scan":
            return _scan(step, inputs, values, memory)
        return computed(step.node, inputs, self.opset, memory)


def named(node: Node, results: list[np.ndarray]) -> Arrays:
    """The results of a node by the names that it gives them."""
    if any(node.outputs[len(results) :]):
        names = node.outputs[len(results) :]
        raise NodeFailed(node, ValueError(f"its outputs {', '.join(names)} are not served"))
    return {name: array for name, array in zip(node.outputs, results, strict=False) if name}


def _allow(elements: int, memory: int, itemsize: int = LARGEST_NUMBER) -> None:
    if elements * itemsize > memory:
        raise TooLarge(
            f"its result of {elements:.3g} numbers takes more than the {memory} bytes of graph.memory"
        )


def computed(node: Node, inputs: list[Any], opset: int, memory: int) -> list[np.ndarray]:
    """The results of an operator; TooLarge before anything is made that takes more than `memory` bytes."""
    operator = OPERATORS[node.op]
    attributes = {"outputs": len(node.outputs), **node.attributes}
    are_several = [isinstance(one, Sequence) for one in inputs]
    if any(are_several) != (node.op == "SequenceAt") or any(are_several[1:]):
        raise ValueError("an input is a sequence of tensors, or should be one")
    widths = [array.itemsize for array in inputs if isinstance(array, np.ndarray | np.generic)]
    itemsize = max(widths, default=LARGEST_NUMBER) if node.op not in _WIDENING else LARGEST_NUMBER
    _allow(operator.size(inputs, attributes, opset), memory, itemsize)
    found = operator.run(inputs, attributes, opset)
    results = list(found) if isinstance(found, tuple | list) else [found]
    if node.op == "SplitToSequence":
        return results
    results = [np.asarray(one) for one in results]
    for array in results:  # an axis of no bytes may be as long as it likes
        _allow(math.prod(max(1, length) for length in array.shape) if not array.size else 0, memory)
    return results


def _scan(step: Step, inputs: list[Any], values: Arrays, memory: int) -> list[np.ndarray]:
    """The states and the stacked outputs of a Scan: its body runs once per step of its inputs."""
    node, body = step.node, step.bodies["body"]
    count = len(inputs) - int(node.attributes["num_scan_inputs"])
    states = list(inputs[:count])
    over = list(inputs[count:])
    outputs = len(body.outputs) - count
    axes, backwards, axes_out, backwards_out = (
        _per_array(node, name, length)
        for name, length in (
            ("scan_input_axes", len(over)),
            ("scan_input_directions", len(over)),
            ("scan_output_axes", outputs),
            ("scan_output_directions", outputs),
        )
    )
    over = [np.moveaxis(x, axis, 0) for x, axis in zip(over, axes, strict=True)]
    over = [x[::-1] if back else x for x, back in zip(over, backwards, strict=True)]
    lengths = {x.shape[0] for x in over}
    if lengths == {0}:
        raise ValueError("its inputs have no steps, and a Scan needs one or more")
    if len(lengths) != 1:
        raise ValueError(f"its inputs have {sorted(lengths)} steps")
    kept: list[list[np.ndarray]] = [[] for _ in range(outputs)]
    for now in zip(*over, strict=True):
        given = dict(zip(body.inputs, (*states, *now), strict=True))
        results = list(body.run({**values, **given}, memory).values())
        states = results[:count]
        for place, result in zip(kept, results[count:], strict=True):
            place.append(result)
    for place in kept:
        _allow(place[0].size * len(place), memory)
    stacked = [np.stack(place[::-1] if back else place, axis)
               for place, axis, back in zip(kept, axes_out, backwards_out, strict=True)]  # fmt: skip
    return [*states, *stacked]


def _per_array(node: Node, name: str, length: int) -> list[int]:
    """An attribute with one number per array; zeros by default."""
    return [int(number) for number in np.asarray(node.attributes.get(name, [0] * length)).ravel()]
