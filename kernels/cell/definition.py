"""A recurrent cell: the names of its gates and states, and one step as a formula without branches.

    a = x_t Wx + h_{t-1} Wh + b, one block of columns per gate;   states_t = formula(a, states_{t-1})

The first state is the output and is multiplied by Wh. A unit sees only its own gates and states; units mix
through Wx and Wh. Everything else is derived from the formula: `schedule` has the gradient and the values
kept for it, `recurrence` the time loop.

A gate enters the product in one of three ways:

* plain: a = x Wx + h Wh + b;
* apart: `n.x` = x Wx + b and `n.h` = h Wh + bhh, for a formula that treats them differently;
* again: `n(operand)` = x Wx + b + operand Wh, with an operand computed by the step instead of h.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from .expression import TRANSCENDENTAL, Graph
from .node import FormulaError, Node, Unfinished, in_order

ACTIVATIONS = ("sigmoid", "tanh", "relu")
_ARITHMETIC = ("add", "sub", "mul", "div", "neg")
# Compiling takes more than linear time in a chain of functions. On a busy AMD EPYC, forward and backward of
# 6,000 operations took 20 s and of 150 times tanh 32 s; forward alone of 1,500 times tanh took 390 s.
FUNCTION_COST, MOST_OPERATIONS = 20, 10_000


class ResultError(FormulaError):
    """A formula does not return one number for each state."""


class Apart(Unfinished):
    """A gate with two separate products, `x` and `h`."""

    def __init__(self, name: str, x: Node, h: Node) -> None:
        self.how = f"the products of the gate {name} are apart; use {name}.x and {name}.h"
        self.x, self.h = x, h


class Again(Unfinished):
    """A gate whose product with Wh has an operand computed by the step."""

    def __init__(self, name: str, gate: Node) -> None:
        self.how = f"the gate {name} waits for the operand of its product; use {name}(operand)"
        self._name, self._gate = name, gate
        self.operand: Node | None = None

    def __call__(self, operand: Any) -> Node:
        node = self._gate.graph.as_number(operand)
        if self.operand is not None and self.operand is not node:
            raise FormulaError(f"the gate {self._name} takes one operand, and was given two")
        self.operand = node
        return self._gate


class Cell:
    """A recurrent cell.

    Parameters
    ----------
    name : str
        Name in messages.
    formula : callable
        One step. Takes gates, states, then `units` and `given` by name; returns the next state or a tuple.
    gates, states : sequence of str
        Names of the column blocks of Wx, Wh and b, and of the states.
    product : bool
        Whether h_{t-1} is multiplied by a matrix Wh.
    apart, again : sequence of str
        Gates with that kind of product. They come last, and a cell has only one of the two kinds.
    units : sequence of str
        Arguments that are one number for each unit.
    trained : sequence of str
        Arguments of `units` that have a gradient.
    given : sequence of str
        Arguments that are one number for each sequence, step and unit.
    wanted : sequence of str
        Arguments of `given` that have a gradient.

    Raises
    ------
    FormulaError
        The formula cannot be compiled.
    """

    def __init__(
        self,
        name: str,
        formula: Callable,
        gates: Sequence[str],
        states: Sequence[str],
        *,
        product: bool = True,
        apart: Sequence[str] = (),
        again: Sequence[str] = (),
        units: Sequence[str] = (),
        trained: Sequence[str] = (),
        given: Sequence[str] = (),
        wanted: Sequence[str] = (),
    ) -> None:
        self.name, self.formula = name, formula
        self.gates, self.states = tuple(gates), tuple(states)
        self.product, self.apart, self.again = product, tuple(apart), tuple(again)
        self.units, self.trained = tuple(units), tuple(trained)
        self.given, self.wanted = tuple(given), tuple(wanted)
        self._trace()

    def _trace(self) -> None:
        graph = self.graph = Graph()
        self.inputs = {n: graph.input(n) for n in (*self.gates, *self.states, *self.units, *self.given)}
        arguments: list[Any] = []
        for gate in self.gates:
            if gate in self.apart:
                x, h = (graph.input(f"{gate}.{part}") for part in ("x", "h"))
                self.inputs |= {gate: x, f"{gate}.h": h}
                arguments.append(Apart(gate, x, h))
            else:
                node = self.inputs[gate]
                arguments.append(Again(gate, node) if gate in self.again else node)
        arguments += [self.inputs[state] for state in self.states]
        after = self.formula(*arguments, **{n: self.inputs[n] for n in (*self.units, *self.given)})
        self.after = self._results(after)
        operands = {a.operand for a in arguments if isinstance(a, Again)}
        if None in operands or len(operands) > 1:
            raise FormulaError(
                f"all of the gates {', '.join(self.again)} must be called with one and the same operand"
            )
        self.operand: Node | None = operands.pop() if operands else None
        if self.operand is not None and not set(self.again_inputs).isdisjoint(in_order([self.operand])):
            raise FormulaError("the operand of a second product cannot depend on that product")
        self._check_length()

    def _check_length(self) -> None:
        """FormulaError if the step is too long to be compiled."""
        nodes = in_order([*self.after, *([] if self.operand is None else [self.operand])])
        operations = sum(FUNCTION_COST if node.op in TRANSCENDENTAL else 1 for node in nodes)
        if operations > MOST_OPERATIONS:
            raise FormulaError(
                f"the step has {operations:,} operations, where a function such as tanh counts as "
                f"{FUNCTION_COST}, and at most {MOST_OPERATIONS:,} are compiled; write a shorter one"
            )

    def _results(self, after: Any) -> tuple[Node, ...]:
        """The checked results of a step: one number per state."""
        count = len(self.states)
        states = f"the state{'s' * (count > 1)} {', '.join(self.states)}"
        if after is None:
            raise ResultError(f"the step returns nothing; it must return {states}")
        after = after if isinstance(after, tuple | list) else (after,)
        if len(after) != count:
            values = "1 value" if len(after) == 1 else f"{len(after)} values"
            raise ResultError(f"the step returns {values}; it must return {states}")
        nodes = []
        for name, value in zip(self.states, after, strict=True):
            try:
                node = self.graph.as_node(value)
            except FormulaError as error:
                raise ResultError(f"the step returns no number for the state {name}: {error}") from None
            if node.is_condition:
                raise ResultError(f"the state {name} is a comparison; use where({node}, 1, 0)")
            nodes.append(node)
        return tuple(nodes)

    @functools.cached_property
    def activations(self) -> dict[str, Node]:
        """The first sigmoid, tanh or relu of each gate that has one, with only arithmetic before it."""
        order = in_order([*self.after, *([] if self.operand is None else [self.operand])])
        found = {}
        for gate in self.gates:
            reached = {self.inputs[name] for name in (gate, f"{gate}.h") if name in self.inputs}
            for node in order:
                if node.op in ("input", "constant") or reached.isdisjoint(node.args):
                    continue
                if node.op in ACTIVATIONS:
                    found[gate] = node
                    break
                if node.op in _ARITHMETIC:
                    reached.add(node)
        return found

    @property
    def again_inputs(self) -> tuple[Node, ...]:
        """The gates with a second product."""
        return tuple(self.inputs[gate] for gate in self.again)

    @property
    def plain(self) -> int:
        """The number of gates, the first ones, whose first product has h."""
        return len(self.gates) - self.late if self.product else 0

    @property
    def late(self) -> int:
        """The number of gates, the last ones, that are apart or again."""
        return len(self.apart) or len(self.again)

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of the computation of the cell, independent of its names."""
        lines = [f"{len(self.gates)} {len(self.states)} {self.product} {len(self.apart)} {len(self.again)}"]
        places = {node: str(i) for i, node in enumerate(self.inputs.values())}
        lines += [f"{n in self.trained}" for n in self.units] + [
            f"given {n in self.wanted}" for n in self.given
        ]
        outputs = [*self.after, *([] if self.operand is None else [self.operand])]
        slopes = {node: node.slope for node in in_order(outputs) if node.slope is not None}
        outputs += slopes.values()
        for node in in_order(outputs):
            if node not in places:
                args = node.args if node.op == "constant" else [places[a] for a in node.args]
                places[node] = str(len(places))
                lines.append(f"{places[node]} {node.op} {args!r}")
        lines += [places[node] for node in outputs]
        lines += [f"{places[step]} {places[slope]}" for step, slope in slopes.items()]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def __repr__(self) -> str:
        return f"<cell {self.name}({', '.join((*self.gates, *self.states))})>"
