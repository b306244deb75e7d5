"""A cell as text: its equations, the derived gradient of a step, cached values, operations per unit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from rnnfast.kernels.cell.derive import gradient
from rnnfast.kernels.cell.node import Node, in_order, text_of
from rnnfast.kernels.cell.schedule import Program, Schedule

LEAVES = ("input", "constant")


def described(cell: Any) -> str:
    """The text of `Cell.describe`."""
    schedule = Schedule(cell.equations)
    text = _Text(cell, schedule)
    forward, backward = _operations(schedule.forward), _operations(schedule.backward)
    parts = {
        "Step": [*_products(cell), *text.step()],
        "Gradient of a step": text.gradient(),
        "Kept for the backward pass": [", ".join(text.kept())],
        "Operations a unit": [f"{forward} forward, {backward} backward, and the products"],
    }
    lines = [f"{cell.name}: gates {', '.join(cell.gates)}; states {', '.join(cell.states)}"]
    for title, block in parts.items():
        lines += [f"  {title}", *(f"    {line}" for line in block)]
    return "\n".join(lines)


def _operations(direction: Iterable[tuple[Program, ...]]) -> int:
    return sum(program.operations for part in direction for program in part)


def _products(cell: Any) -> list[str]:
    """The equations of the gates; gates with the same kind of product share a line."""
    h, late = cell.states[0], cell.apart or cell.again
    plain = ", ".join(cell.gates[: len(cell.gates) - len(late)])
    product = f" + {h} Wh" if cell.product == "h" else ""
    lines = [f"{plain} = x_t Wx{product} + b"] if plain else []
    if cell.apart:
        lines.append(f"{', '.join(f'{gate}.x' for gate in cell.apart)} = x_t Wx + b")
        lines.append(f"{', '.join(f'{gate}.h' for gate in cell.apart)} = {h} Wh + bhh")
    if cell.again:
        lines.append(f"{', '.join(cell.again)} = x_t Wx + operand Wh + b")
    return lines


def _through(gates: Sequence[str], weights: str) -> str:
    """The gradient through a product."""
    gradients = ", ".join(f"d{gate}" for gate in gates)
    return f"{gradients} {weights}^T" if len(gates) == 1 else f"({gradients}) {weights}^T"


class _Text:
    """The lines of a step and of its gradient; a value used more than once has a name."""

    def __init__(self, cell: Any, schedule: Schedule) -> None:
        self._cell, self._schedule, equations = cell, schedule, cell.equations
        graph = equations.graph
        inputs = equations.inputs
        arriving = [graph.input(f"gradient of {state}") for state in cell.states]
        d_operand = graph.input("gradient of operand")
        self._gates = [*cell.gates, *(f"{gate}.h" for gate in cell.apart)]
        wanted = [
            inputs[name] for name in (*self._gates, *cell.states, *equations.trained, *equations.wanted)
        ]
        first = gradient(zip(equations.after, arriving, strict=True), wanted)
        second: list[Node | None] = [None] * len(wanted)
        if equations.operand is not None:
            second = gradient([(equations.operand, d_operand)], wanted)
        # The gradient of each input, and whether it depends on the gradient of the operand.
        self._gradients: dict[str, tuple[Node, bool]] = {}
        for node, one, two in zip(wanted, first, second, strict=True):
            total = graph.constant(0) if one is None else one
            self._gradients[node.args[0]] = total if two is None else two + total, two is not None
        operand = [] if equations.operand is None else [equations.operand]
        self._made = [*equations.after, *operand]
        self._names = {node: f"d{state}_t" for node, state in zip(arriving, cell.states, strict=True)}
        self._names[d_operand] = "doperand"
        self._taken = {
            *inputs,
            *(n.args[0] for n in wanted),
            *(f"d{n.args[0]}" for n in wanted),
            *self._names.values(),
        }
        self._said: set[Node] = set()
        self._give_names(
            [*zip(operand, ["operand"], strict=False), *zip(equations.after, cell.states, strict=True)]
        )

    def _give_names(self, makes: list[tuple[Node, str]]) -> None:
        """Name states, cached values, and values used more than once."""
        for node, name in makes:
            if node.op not in LEAVES and node not in self._names:
                self._names[node] = self._free(name if name == "operand" else f"{name}_t")
        outputs = [*self._made, *(node for node, _ in self._gradients.values())]
        order = in_order(outputs)
        gradients = {
            node: f"d{name}" for name, (node, _) in reversed(self._gradients.items()) if self._is_whole(name)
        }
        uses = Counter(a for node in order if node.op not in LEAVES for a in node.args) + Counter(outputs)
        kept, numbers = set(self._schedule.kept), 0
        for node in order:
            is_used_again = uses[node] > 1 and node.op != "neg" and not node.is_condition
            if node.op in LEAVES or node in self._names or not (is_used_again or node in kept):
                continue
            of = self._value(node.args[0]).replace(".", "_") if len(node.args) == 1 else ""
            if node in gradients:
                self._names[node] = gradients[node]
            elif of.isidentifier():
                self._names[node] = self._free(f"{node.op}_{of}")
            else:
                numbers += 1
                self._names[node] = self._free(f"t{numbers}")

    def _free(self, name: str) -> str:
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name

    def _named(self, outputs: Iterable[Node]) -> list[str]:
        """A line for each named value that the outputs depend on and that has no line yet."""
        lines = []
        for node in in_order(outputs):
            if node in self._names and node.op not in LEAVES and node not in self._said:
                self._said.add(node)
                lines.append(f"{self._names[node]} = {text_of(node, self._names)}")
        return lines

    def _value(self, node: Node) -> str:
        return self._names.get(node) or text_of(node, self._names)

    def step(self) -> list[str]:
        """The lines of the step; a state that equals another named value comes last."""
        lines, equations = self._named(self._made), self._cell.equations
        if equations.operand is not None and self._names.get(equations.operand) != "operand":
            lines.append(f"operand = {self._value(equations.operand)}")
        for state, node in zip(self._cell.states, equations.after, strict=True):
            if not any(line.startswith(f"{state}_t = ") for line in lines):
                lines.append(f"{state}_t = {self._value(node)}")
        return lines

    def gradient(self) -> list[str]:
        """The lines of the gradient; those that depend on the operand's gradient come last."""
        cell, lines = self._cell, []
        for waits in (False, True):
            if waits and cell.again:
                lines.append(f"doperand = {_through(cell.again, 'Wh')}")
            chosen = {name: node for name, (node, is_late) in self._gradients.items() if is_late == waits}
            lines += self._named(chosen.values())
            for name, node in chosen.items():
                if self._names.get(node) != f"d{name}":
                    lines.append(f"d{name} = {self._gradient(name, node)}")
        return [*lines, f"dx_t = {_through([g.removesuffix('.x') for g in cell.gates], 'Wx')}"]

    @property
    def _plain(self) -> list[str]:
        """The gates whose first product reads the output state."""
        late = (*self._cell.apart, *self._cell.again)
        return [gate for gate in self._gates if gate not in late] if self._cell.product == "h" else []

    def _is_whole(self, name: str) -> bool:
        """Whether the gradient of an input comes from the formula alone."""
        return name not in self._cell.equations.trained and not (name == self._cell.states[0] and self._plain)

    def _gradient(self, name: str, node: Node) -> str:
        """The gradient of an input; for the output state it includes the gradient through the product."""
        own = self._value(node)
        if self._is_whole(name):
            return own
        if name in self._cell.equations.trained:
            return f"sum over sequences and steps of {own}"
        return _through(self._plain, "Wh") if own == "0" else f"{own} + {_through(self._plain, 'Wh')}"

    def kept(self) -> list[str]:
        """The values cached by forward: states, results of functions, and gates that backward reads."""
        states = [f"{state}_t" for state in self._cell.states]
        functions = [self._value(node) for node in self._schedule.kept]
        gates = sorted(self._schedule.needed, key=lambda node: node.index)
        return [*states, *functions, *(node.args[0] for node in gates)]
