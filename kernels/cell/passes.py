"""The passes of a schedule as vector IR: work on a unit stays in registers, with one load or store of each
operand."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types

from .._jit import intrinsic
from ..codegen.formula import FormulaWriter, Lanes
from .expression import evaluate
from .node import in_order
from .schedule import Program


def row_pass(programs: Sequence[Program]) -> Callable:
    """`run(count, places)`: runs the programs in turn over `count` units of a row.

    A place is (array, first, stride): a flat array, the position of the first unit of its first block of
    columns, and the distance between blocks. A row may be both read and written; rows do not overlap
    otherwise.
    """
    programs = tuple(programs)

    def twin(count, places):
        for program in programs:
            read = {node: _units(places[p], column, count) for node, (p, column) in program.reads}
            dtype = places[0][0].dtype.type
            results = evaluate((node for node, _ in program.writes), read, dtype)
            for (_, (place, column)), result in zip(program.writes, results, strict=True):
                _units(places[place], column, count)[...] = result

    @intrinsic(twin)
    def run(typing_context, count, places):
        """The programs over `count` units of a row."""
        arrays = [place[0] for place in places]
        if len({array.dtype for array in arrays}) != 1 or {a.layout for a in arrays} != {"C"}:
            return None

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            writer = FormulaWriter(builder.module, arrays[0].dtype)
            for program in programs:
                function = writer.function(
                    content_of(program), _traced(program), len(program.reads), len(program.writes)
                )
                rows = [
                    _row(context, builder, signature.args[1], arguments[1], where)
                    for _, where in (*program.reads, *program.writes)
                ]
                builder.call(function, [arguments[0], *rows])
            return context.get_dummy_value()

        pairs = types.Tuple([types.Tuple([place[0], types.int64, types.int64]) for place in places])
        return types.void(types.int64, pairs), codegen

    return run


def _units(place: tuple, column: int, count: int) -> Any:
    array, first, stride = place
    return array[first + column * stride :][:count]


def _row(
    context: Any, builder: ir.IRBuilder, kinds: Any, places: ir.Value, where: tuple[int, int]
) -> ir.Value:
    """Pointer to the first unit of an operand."""
    index, column = where
    place = builder.extract_value(places, index)
    array, first, stride = (builder.extract_value(place, entry) for entry in range(3))
    data = context.make_array(kinds[index][0])(context, builder, array).data
    return builder.gep(data, [builder.add(first, builder.mul(stride, ir.Constant(stride.type, column)))])


def _traced(program: Program) -> Callable:
    """The program as a function of its inputs."""
    nodes = [node for node, _ in program.reads]

    def formula(*values: Lanes) -> tuple[Lanes, ...]:
        known, first = dict(zip(nodes, values, strict=True)), values[0]
        return evaluate(
            (node for node, _ in program.writes), known, lambda value: first.wrap(first.operand(value))
        )

    return formula


def content_of(program: Program) -> str:
    """A name for the computation of the program."""
    numbers = {node: index for index, (node, _) in enumerate(program.reads)}
    lines = [str(len(numbers))]
    for node in in_order((node for node, _ in program.writes), numbers.copy()):
        if node not in numbers:
            numbers[node] = len(numbers)
            args = node.args if node.op == "constant" else [numbers[a] for a in node.args]
            lines.append(f"{node.op} {args!r}")
    lines.append(repr([numbers[node] for node, _ in program.writes]))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
