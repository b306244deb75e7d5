"""What a recurrent cell is: the names of its gates and states, and one step as a formula without branches.

    a = x_t Wx + h_{t-1} Wh + b, in one block of columns a gate;   states_t = formula(a, states_{t-1})

The first state is the output, and what meets Wh. A unit sees only its own gates and states; units mix through
Wx and Wh. Everything else follows from the formula: `schedule` has the gradient and what is kept for it,
`recurrence` the time loop.

A gate enters the product in one of three ways:

* plain: a = x Wx + h Wh + b;
* apart: `n.x` = x Wx + b and `n.h` = h Wh + bhh, for a formula that treats them differently;
* again: `n(operand)` = x Wx + b + operand Wh, with an operand of the step's own making in place of h.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from .expression import FormulaError, Graph, Node, Unfinished, in_order, text_of

ACTIVATIONS = ("sigmoid", "tanh", "relu")
_ARITHMETIC = ("add", "sub", "mul", "div", "neg")


class ResultError(FormulaError):
    """What a formula returns is not one number for each state."""


class Apart(Unfinished):
    """A gate whose two products stay apart: `x` and `h`."""

    def __init__(self, name: str, x: Node, h: Node) -> None:
        self.how = f"the products of the gate {name} are apart; use {name}.x and {name}.h"
        self.x, self.h = x, h


class Again(Unfinished):
    """A gate whose product with Wh takes an operand of the step's own making."""

    def __init__(self, name: str, gate: Node) -> None:
        self.how = f"the gate {name} waits for the operand of its product; use {name}(operand)"
        self._name, self._gate = name, gate
        self.operand: Node | None = None

    def __call__(self, operand: Any) -> Node:
        node = self._gate.graph.as_node(operand)
        if self.operand is not None and self.operand is not node:
            raise FormulaError(f"the gate {self._name} takes one operand, and was given two")
        self.operand = node
        return self._gate


class Cell:
    """A recurrent cell.

    Parameters
    ----------
    name : str
        What messages call it.
    formula : callable
        One step: gates, states and then `units` and `given` by name, to the states after it, a tuple or one.
    gates, states : sequence of str
        Names of the blocks of columns of Wx, Wh and b, and of the states.
    product : bool
        Whether h_{t-1} meets a matrix Wh.
    apart, again : sequence of str
        Gates that enter the product so. They come last, and only one of the two kinds may be there.
    units : sequence of str
        Arguments that are one number for each unit.
    trained : sequence of str
        Those of them that have a gradient.
    given : sequence of str
        Arguments that are one number for each sequence, step and unit.
    wanted : sequence of str
        Those of them that have a gradient.

    Raises
    ------
    FormulaError
        The formula says what cannot be compiled.
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

    def _results(self, after: Any) -> tuple[Node, ...]:
        """What a step returns, checked: one number a state."""
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
                raise ResultError(f"the state {name} is a comparison; use where({text_of(node)}, 1, 0)")
            nodes.append(node)
        return tuple(nodes)

    @functools.cached_property
    def activations(self) -> dict[str, Node]:
        """The first sigmoid, tanh or relu of each gate that has one: only arithmetic lies before it."""
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
        """The gates that wait for a second product."""
        return tuple(self.inputs[gate] for gate in self.again)

    @property
    def plain(self) -> int:
        """How many gates, the first ones, take h in the first product."""
        return len(self.gates) - self.late if self.product else 0

    @property
    def late(self) -> int:
        """How many gates, the last ones, are apart or again."""
        return len(self.apart) or len(self.again)

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of what the cell computes: the same for two that say the same, whatever their names."""
        lines = [f"{len(self.gates)} {len(self.states)} {self.product} {len(self.apart)} {len(self.again)}"]
        places = {node: str(i) for i, node in enumerate(self.inputs.values())}
        lines += [f"{n in self.trained}" for n in self.units] + [
            f"given {n in self.wanted}" for n in self.given
        ]
        outputs = [*self.after, *([] if self.operand is None else [self.operand])]
        slopes = {node: self.graph.slopes[node] for node in in_order(outputs) if node in self.graph.slopes}
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
