"""Tiles that do not fill their vectors, on targets without masked moves.

There a masked load or store is a branch for each lane: the tile with masks has 82 KB of code on a Cortex-A76,
17 KB this way. So its loops move only whole vectors, and a tile with columns beyond the edge reads and writes
copies on the stack that have room for these columns.
"""

from __future__ import annotations

from typing import NamedTuple

from llvmlite import ir
from numba.core import cgutils

from ..codegen.vectors import VectorWriter

_I64 = ir.IntType(64)


class Matrix(NamedTuple):
    """The place of a matrix, and the distance between its rows in elements."""

    place: ir.Value
    row: ir.Value


class TileEdge:
    """The copies that a tile function works on if some vector of its tile is not filled.

    writer   the writer of the function
    builder  at the end of the function's first block
    shape    rows and columns of the tile
    most     the largest numbers of rows and columns of a tile
    """

    def __init__(
        self, writer: VectorWriter, builder: ir.IRBuilder,
        shape: tuple[ir.Value, ir.Value], most: tuple[int, int],
    ) -> None:  # fmt: skip
        self.writer, self.shape, self.most = writer, shape, most
        room = _I64(most[1])
        for vectors in (2, 1):
            fits = builder.icmp_signed("<=", shape[1], _I64(vectors * writer.lanes))
            room = builder.select(fits, _I64(vectors * writer.lanes), room)
        self.is_needed = builder.icmp_signed("<", shape[1], room)
        self.spare = [
            Matrix(builder.alloca(writer.scalar, rows * most[1]), _I64(most[1]))
            for rows in (1, most[0], most[0])
        ]

    def copy(self, builder: ir.IRBuilder, matrix: Matrix, is_read: ir.Value) -> Matrix:
        """The start or C, or a copy if one is needed; the copy is filled if it is read."""
        copy = self.spare.pop()
        with builder.if_then(builder.and_(self.is_needed, is_read)):
            self._copy(builder, self.shape, matrix, copy)
        return Matrix(*(builder.select(self.is_needed, *pair) for pair in zip(copy, matrix, strict=True)))

    def copy_last_row(self, builder: ir.IRBuilder, depth: ir.Value, b: Matrix, panel: ir.Value) -> ir.Value:
        """The place of a copy of the last row of B, with this distance between its panels."""
        copy, width = self.spare.pop(0), 2 * self.writer.lanes
        is_read = builder.icmp_signed(">", depth, _I64(0))
        with builder.if_then(builder.and_(self.is_needed, is_read)):
            row = builder.gep(b.place, [builder.mul(builder.sub(depth, _I64(1)), b.row)])
            for first in range(0, self.most[1], width):
                left = builder.sub(self.shape[1], _I64(first))
                cols = builder.select(builder.icmp_signed("<", left, _I64(width)), left, _I64(width))
                source = builder.gep(row, [builder.mul(panel, _I64(first // width))])
                target = builder.gep(copy.place, [_I64(first)])
                self._copy(builder, (_I64(1), cols), Matrix(source, b.row), Matrix(target, copy.row))
        return copy.place

    def write_back(self, builder: ir.IRBuilder, copy: Matrix, c: Matrix, end: ir.Block) -> ir.Block:
        """The block that writes the copy, if there is one, to C and continues at `end`."""
        done = builder.append_basic_block("tile_done")
        with builder.goto_block(done):
            with builder.if_then(self.is_needed):
                self._copy(builder, self.shape, copy, c)
            builder.branch(end)
        return done

    def _copy(
        self, builder: ir.IRBuilder, shape: tuple[ir.Value, ir.Value], source: Matrix, target: Matrix
    ) -> None:
        name = f"rnnfast_copy_{self.writer.suffix}"
        if name not in self.writer.module.globals:
            self._define_copy(name)
        builder.call(self.writer.module.globals[name], [*shape, *source, *target])

    def _define_copy(self, name: str) -> None:
        """Define the copy function; it takes the numbers of rows and columns, the source and the target."""
        pointer = self.writer.scalar.as_pointer()
        function = self.writer.new_function(name, [_I64, _I64, pointer, _I64, pointer, _I64], "optsize")
        function.linkage = "internal"
        rows, cols, source, source_row, target, target_row = function.args
        builder = ir.IRBuilder(function.append_basic_block("entry"))
        with cgutils.for_range(builder, rows) as row:
            here, there = (
                builder.gep(place, [builder.mul(stride, row.index)])
                for place, stride in ((source, source_row), (target, target_row))
            )
            with cgutils.for_range(builder, cols) as col:
                builder.store(builder.load(builder.gep(here, [col.index])), builder.gep(there, [col.index]))
        builder.ret_void()
