"""The execution of a cell: the reads and writes of each pass over its units, derived from its formula.

`derive` derives the gradient. The values of the forward pass that it needs determine a row of the tape:

* states before and after the step, units and given arrays are stored anyway;
* results of transcendental functions are kept unless their operand is a stored state: most replace the
  pre-activation they were computed from, which is no longer needed, the rest get additional columns;
* the backward pass recomputes all other values from these.

A step has two passes if a second product needs the first pass, or if one transcendental function follows
another; otherwise it has one. A processor cannot look far enough ahead to hide such a chain (LSTM, float32:
1.83 ns per unit in one pass, 1.44 in two).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from .definition import Cell
from .derive import gradient
from .expression import TRANSCENDENTAL, contracted
from .node import Node, in_order

# Places of the operands of a pass: rows, which the time loop knows by these numbers, and blocks of H columns
# in them.
TAPE, BEFORE, OTHERS, UNITS, GIVEN, AFTER, OUT, OPERAND = range(8)
ABOVE, DSTATES, DTS, DGIVEN, DOPERAND = range(6, 11)

Where = tuple[int, int]  # place, block of columns


class Program(NamedTuple):
    """One pass over the units of a row."""

    reads: tuple[tuple[Node, Where], ...]
    writes: tuple[tuple[Node, Where], ...]

    @property
    def operations(self) -> int:
        """Operations per unit; each function counts as one."""
        nodes = in_order((node for node, _ in self.writes), (node for node, _ in self.reads))
        made = {node for node in nodes if node.op not in ("input", "constant")}
        return len(made - {node for node, _ in self.reads})


def _program(writes: Iterable[tuple[Node, Where]], homes: Mapping[Node, Where]) -> Program:
    """The pass that computes the writes from stored values."""
    writes = tuple(writes)
    nodes = in_order((node for node, _ in writes), homes)
    reads = [(node, homes[node]) for node in nodes if node in homes]
    return Program(tuple(reads or [*homes.items()][:1]), writes)  # the reads determine the type of constants


class Schedule:
    """The passes of a cell and the layout of its rows.

    Attributes
    ----------
    kept : tuple of Node
        Values besides states that the forward pass keeps in a row of the tape.
    needed : set of Node
        Gates whose pre-activations the backward pass reads.
    columns : int
        Blocks of H columns in a row of the tape: gates, gates apart, additional kept values, other states.
    lasting : dict of Node to Where
        Places of forward values for the backward pass: states, units, given arrays, and values on the tape.
    others : int
        The first of the blocks with the states after the step, except the first state.
    in_place : bool
        The pre-activation of the only gate is computed in the place of the state; there is no tape.
    forward, recompute, backward : tuple of two tuples of Program
        The passes before and after the second product; the latter are empty without a second product. The
        passes of `recompute` only write the tape.
    gradients : int
        Blocks of columns in a row of gradients: gates, gates apart or the operand, units.
    passes : bool
        The gradient of h has a path that bypasses the products.
    can_remake : bool
        Blocks of the tape can be recomputed. Cells with a second product and several states always keep them,
        since their products would have to be computed step by step.
    """

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.can_remake = not (cell.again and len(cell.states) > 1)
        self._twins = contracted([*cell.after, *([] if cell.operand is None else [cell.operand])])
        self._raw = {cell.inputs[g]: (TAPE, i) for i, g in enumerate(cell.gates)}
        self._raw |= {cell.inputs[f"{g}.h"]: (TAPE, len(cell.gates) + i) for i, g in enumerate(cell.apart)}
        names = cell.inputs
        self._stored = {names[cell.states[0]]: (BEFORE, 0)}
        self._stored |= {names[s]: (OTHERS, i) for i, s in enumerate(cell.states[1:])}
        self._stored |= {names[u]: (UNITS, i) for i, u in enumerate(cell.units)}
        self._stored |= {names[g]: (GIVEN, i) for i, g in enumerate(cell.given)}
        self._derive()
        self._choose_kept()
        self._lay_out()
        self.forward = self._forward_passes()
        restricted = [[_restricted(p, (TAPE, OTHERS, OPERAND)) for p in part] for part in self.forward]
        self.recompute = tuple(tuple(p for p in part if p.writes) for part in restricted)
        self.backward = self._backward_passes()

    # The gradient.

    def _derive(self) -> None:
        """Derive the gradient of each input, from the states after the step and the second product."""
        cell, graph = self.cell, self.cell.graph
        # Names with a space: no argument of a cell has one.
        self._later = [graph.input(f"gradient of {name}") for name in cell.states]
        self._above = graph.input("gradient from above")
        arriving = [self._above + self._later[0], *self._later[1:]]
        units, given = ([cell.inputs[n] for n in names] for names in (cell.trained, cell.wanted))
        wanted = [*self._raw, *(cell.inputs[s] for s in cell.states), *units, *given]
        first = gradient(zip(cell.after, arriving, strict=True), wanted)
        self._first = {node: d for node, d in zip(wanted, first, strict=True) if d is not None}
        self._d_operand = graph.input("gradient of operand")
        self._second: dict[Node, Node] = {}
        if cell.operand is not None:
            second = gradient([(cell.operand, self._d_operand)], wanted)
            self._second = {node: d for node, d in zip(wanted, second, strict=True) if d is not None}
        h = cell.inputs[cell.states[0]]
        self.passes = h in self._first or h in self._second

    def _choose_kept(self) -> None:
        """Choose the forward values that the gradient needs and that are not stored anyway."""
        cell = self.cell
        made = set(in_order([*cell.after, *([] if cell.operand is None else [cell.operand])]))
        after = set(cell.after)
        found = {*self._stored, *after, self._above, self._d_operand, *self._later}
        kept: set[Node] = set()
        needed: set[Node] = set()
        operand = [] if cell.operand is None else [cell.operand]
        waiting = [*self._first.values(), *self._second.values(), *operand]
        while waiting:
            node = waiting.pop()
            if node in found or node.op == "constant":
                continue
            found.add(node)
            if node in self._raw:
                needed.add(node)
            elif node in made and node.op in TRANSCENDENTAL and node.args[0] not in after:
                kept.add(node)
            else:
                waiting += node.args
        self.kept = tuple(sorted(kept, key=lambda node: node.index))
        self.needed = frozenset(needed)

    # Places.

    def _lay_out(self) -> None:
        """Choose the places of kept values, and split the step into two parts."""
        cell, gates = self.cell, len(self._raw)
        self.in_place = (
            not self.kept and not self.needed and len(cell.states) == gates == 1 and not cell.again
        )
        self._late = self._late_nodes()
        early_raw = set(in_order(cell.after, [*self._stored, *(k for k in self.kept if k not in self._late)]))
        # A column is free for a value of the first part if the second does not read its pre-activation.
        read_late = {raw for raw in self._raw if self._late and raw in early_raw}
        free = {raw: where for raw, where in self._raw.items() if raw not in self.needed}
        self._homes: dict[Node, Where] = {}
        extra = gates
        for node in self.kept:
            ancestors = [raw for raw in in_order([node]) if raw in free]
            chosen = next((r for r in ancestors if node in self._late or r not in read_late), None)
            if chosen is None:
                self._homes[node] = TAPE, extra
                extra += 1
            else:
                self._homes[node] = free.pop(chosen)
        self.others = extra
        self.columns = 0 if self.in_place else extra + len(cell.states) - 1
        self._after = {cell.after[0]: (AFTER, 0)}
        for index, node in enumerate(cell.after[1:]):
            self._after.setdefault(node, (TAPE, self.others + index))
        self.lasting = {**self._stored, **self._after, **self._homes}
        self.lasting |= {raw: where for raw, where in self._raw.items() if raw in self.needed}
        self.late_gradients = len(cell.apart) or (1 if cell.again else 0)
        self.unit_gradients = len(cell.gates) + self.late_gradients
        self.gradients = self.unit_gradients + len(cell.trained)

    def _late_nodes(self) -> set[Node]:
        """The nodes of the second part of the step; empty if there is only one part."""
        cell = self.cell
        order = in_order([*cell.after, *([] if cell.operand is None else [cell.operand])])
        depends: set[Node] = set()
        if cell.again:
            waiting = set(cell.again_inputs)
            for node in order:
                is_waiting = node in waiting
                if is_waiting or (node.op not in ("input", "constant") and not depends.isdisjoint(node.args)):
                    depends.add(node)
            return depends | set(cell.after)
        level: dict[Node, int] = {}
        for node in order:
            args = () if node.op in ("input", "constant") else node.args
            level[node] = max((level[a] for a in args), default=0) + (node.op in TRANSCENDENTAL)
        last = max(level.values())
        late = {node for node in order if level[node] == last} if last > 1 else set()
        return late if self._can_cut(late) else set()

    def _can_cut(self, late: set[Node]) -> bool:
        """Whether all inputs of the second part are stored, and none is an overwritten state."""
        cell = self.cell
        done = {a for a in cell.after if a not in late}
        stops = {*self._stored, *done, *(k for k in self.kept if k not in late)}
        read = in_order([a for a in cell.after if a in late], stops)
        lost = {cell.inputs[s] for s, a in zip(cell.states, cell.after, strict=True) if a in done}
        makes = [n for n in read if n not in late and n not in stops and n.op in TRANSCENDENTAL]
        return bool(late) and not makes and lost.isdisjoint(read)

    # The passes.

    def _forward_passes(self) -> tuple[tuple[Program, ...], tuple[Program, ...]]:
        cell, twins = self.cell, self._twins
        early: list[tuple[Node, Where]] = []
        late: list[tuple[Node, Where]] = []
        for node, where in self._homes.items():
            (late if node in self._late else early).append((twins[node], where))
        for index, node in enumerate(cell.after):
            places = (
                [(AFTER, 0), (OUT, 0)]
                if not index
                else [(OTHERS, index - 1), (TAPE, self.others + index - 1)]
            )
            (late if node in self._late else early).extend((twins[node], where) for where in places)
        if cell.operand is not None:
            early.append((twins[cell.operand], (OPERAND, 0)))
        homes = {**self._raw, **self._stored}
        first = _program(early, homes)
        if not self._late:
            return (first,), ()
        overwritten = {where for _, where in early}
        homes = {node: where for node, where in homes.items() if where not in overwritten}
        homes |= {twins[n]: w for n, w in self._homes.items() if n not in self._late}
        homes |= {twins[n]: w for n, w in self._after.items() if n not in self._late}
        second = _program(late, homes)
        return ((first,), (second,)) if cell.again else ((first, second), ())

    def _backward_passes(self) -> tuple[tuple[Program, ...], tuple[Program, ...]]:
        cell, graph = self.cell, self.cell.graph
        homes = {**self.lasting}
        homes |= {self._above: (ABOVE, 0), self._d_operand: (DOPERAND, 0)}
        homes |= {node: (DSTATES, i) for i, node in enumerate(self._later)}
        targets: dict[Node, Where] = {raw: (DTS, i) for i, raw in enumerate(self._raw)}
        for i, name in enumerate(cell.states):
            targets[cell.inputs[name]] = DSTATES, i
        for i, name in enumerate(cell.trained):
            targets[cell.inputs[name]] = DTS, self.unit_gradients + i
        for i, name in enumerate(cell.wanted):
            targets[cell.inputs[name]] = DGIVEN, i
        h, zero = cell.inputs[cell.states[0]], graph.constant(0)
        first, second = [], []
        for node, where in targets.items():
            one, two = self._first.get(node), self._second.get(node)
            if one is not None:
                first.append((one, where))
            elif two is None and (node is not h or not (cell.plain or cell.apart)):
                first.append((zero, where))
            if two is not None:
                so_far = graph.input(f"so far {node.args[0]}")
                homes[so_far] = where
                second.append((two if one is None else so_far + two, where))
        if cell.operand is not None:
            second.append((cell.operand, (DTS, len(cell.gates))))
        made = ((_fused(first, homes),), (_fused(second, homes),) if second else ())
        return made


def _restricted(program: Program, places: tuple[int, ...]) -> Program:
    """The pass restricted to writes at these places."""
    return _program((w for w in program.writes if w[1][0] in places), dict(program.reads))


def _fused(writes: list[tuple[Node, Where]], homes: Mapping[Node, Where]) -> Program:
    """A pass with multiply-adds for products used only in one sum."""
    program = _program(writes, homes)
    graph = writes[0][0].graph
    stand_ins = {node: graph.input(f"@{where[0]}.{where[1]}") for node, where in program.reads}
    fresh = _replaced((node for node, _ in writes), stand_ins)
    twins = contracted(fresh)
    where_of = {stand_ins[node]: where for node, where in program.reads}
    return _program([(twins[f], where) for f, (_, where) in zip(fresh, writes, strict=True)], where_of)


def _replaced(outputs: Iterable[Node], known: Mapping[Node, Node]) -> list[Node]:
    """The outputs with the known nodes replaced."""
    outputs, values = list(outputs), dict(known)
    for node in in_order(outputs, known):
        if node not in values:
            is_leaf = node.op in ("input", "constant")
            values[node] = node if is_leaf else node.graph.apply(node.op, *(values[a] for a in node.args))
    return [values[node] for node in outputs]
