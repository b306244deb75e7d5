"""The loops of a tile over k, and how they read A.

Every processor has the loop that loads an element of each row of A and spreads it over a vector. ARM
multiplies by an element of a vector, so there a load of a vector of A serves several multiply-adds: four k of
a row where A is contiguous along k, four rows of a column where A is transposed (float64: two). The order of
the sums is that of k in each loop.

With 16 registers, tiles are half as high and vectors half as wide as with AVX-512, and the loop's own
instructions weigh more. Where A is contiguous along k, four k a round spare its pointers and its prefetches:
23 instructions per k of 6 x 2 vectors, 28 in the loop of single k. By llvm-mca, Haswell takes 0.50 and 0.60
cycles per multiply-add; on Zen 4, 64 x 1024 x 4096 takes 0.95 of the time.

Cycles per multiply-add by llvm-mca on ARM, 12 x 2 vectors with single elements and 8 x 2 along k: Neoverse
N1 0.57 and 0.50, V1 0.30 and 0.25, V2 0.31 and 0.25, Apple M1 0.48 and 0.33. The second of each is the least
that the model allows. Tiles of 6 x 4 and 8 x 3 vectors along k spill.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from llvmlite import ir
from numba import types

from ..codegen.vectors import TARGET, Target, VectorWriter

# A multiply-add takes 4 cycles on Zen and Intel and two begin in each, so that eight sums are needed at once;
# one row of one panel has two. A tile of up to three rows therefore uses two panels. (Four panels for one
# row: 0.93 of the time for an LSTM of 32 units, 1.12 for one of 256, whose weights are in the L3 cache.)
FEW_ROWS, WIDE = 3, 2

LINE_BYTES = 64

# Distance of the prefetch of B. A product of 64 x 1024 x 4096 on Zen 5, whose B is 16 MB, took 1.32 times as
# long without, 1.06 at 32 rows. A is prefetched, too: weight gradients read it across its rows, so that each
# k is in another cache line; 480 x 256 x 512 on Granite Rapids took 1.2 times as long without.
ROWS_AHEAD, COLUMNS_AHEAD = 48, 16

_I32, _I64 = ir.IntType(32), ir.IntType(64)


# The row of each group of four that a pointer points to. It is the last to be read, since ARM moves a pointer
# in the instruction of its last use.
BASE = 3


class Columns(NamedTuple):
    """The place of a column of A, in bytes: row i at groups[i // 4] + offsets[i % 4]; `step` to the next."""

    height: int
    groups: list[ir.Value]
    offsets: list[ir.Value]
    step: ir.Value


class Place(NamedTuple):
    """How far a tile is: groups of the next column of A, the next row in each panel of B, and the sums."""

    a: list[ir.Value]
    b: list[ir.Value]
    sums: list[ir.Value]


class _Loop(NamedTuple):
    """A loop that takes `at_once` k a round, a power of two, if the stride, where there is one, is 1.

    A round gets its columns of A from `read` and moves A by `step` bytes. It prefetches B every `fetch_every`
    k.
    """

    name: str
    at_once: int
    step: ir.Value
    read: Callable[[ir.IRBuilder, Columns], list[list[ir.Value]]]
    fetch_every: int = 1
    stride: ir.Value | None = None


def phi(builder: ir.IRBuilder, value: ir.Value, block: ir.Block) -> ir.PhiInstr:
    """A value that is `value` if control comes from the block."""
    merged = builder.phi(value.type)
    merged.add_incoming(value, block)
    return merged


def join(
    builder: ir.IRBuilder, block: ir.Block, values: list, other: ir.Block, others: list
) -> list[ir.Value]:
    """Merge `values` from one preceding block with `others` from the other."""
    merged = [phi(builder, value, block) for value in values]
    for running, value in zip(merged, others, strict=True):
        running.add_incoming(value, other)
    return merged


class LoopWriter(VectorWriter):
    """Writes loops over k; the function's arguments include the strides `a_row`, `a_col` and `b_row`."""

    a_row: ir.Value
    a_col: ir.Value
    b_row: ir.Value

    def __init__(self, module: ir.Module, dtype: types.Float, target: Target = TARGET) -> None:
        super().__init__(module, dtype, target)
        self.bytes = ir.IntType(8).as_pointer()
        self._fetch = self.declare("llvm.prefetch.p0", ir.VoidType(), [self.bytes, _I32, _I32, _I32])

    def write_loops(self, builder: ir.IRBuilder, a: Columns, place: Place, count: ir.Value) -> Place:
        """Write the loops for a tile of this size and leave the builder behind them.

        Each takes as many of the `count` k as it can, the last one all that are left.
        """
        size = f"{a.height}x{len(place.sums) // a.height}"
        for loop in self._loops(builder, a):
            before, body, after = (
                builder.block,
                *(builder.append_basic_block(f"{part}{loop.name}{size}") for part in ("loop", "after")),
            )
            rounds = builder.ashr(count, _I64(loop.at_once.bit_length() - 1))
            left = builder.and_(count, _I64(loop.at_once - 1))
            is_taken = builder.icmp_signed(">", rounds, _I64(0))
            if loop.stride is not None:
                is_taken = builder.and_(is_taken, builder.icmp_signed("==", loop.stride, _I64(1)))
            builder.cbranch(is_taken, body, after)
            later = self._write_loop(loop, (before, body, after), rounds, a, place)
            builder.position_at_end(after)
            place = Place(
                *(join(builder, before, old, body, new) for old, new in zip(place, later, strict=True))
            )
            (count,) = join(builder, before, [count], body, [left])
        return place

    def _loops(self, builder: ir.IRBuilder, a: Columns) -> list[_Loop]:
        """The loops for this height; the last one takes every k."""
        loops = []
        if self.target.multiplies_by_element:
            count = self.lanes
            step = _I64(count * self.itemsize)
            loops.append(_Loop("_along_k", count, step, self._along_k, count, self.a_col))
            if a.height >= count:
                step = builder.mul(a.step, _I64(count))
                loops.append(_Loop("_along_rows", count, step, self._along_rows, stride=self.a_row))
        elif self.target.vector_registers < 32 and a.height > FEW_ROWS:
            step = _I64(4 * self.itemsize)
            loops.append(_Loop("_along_k", 4, step, self._elements_along_k, stride=self.a_col))
        return [*loops, _Loop("", 1, a.step, self._by_element)]

    def _write_loop(
        self, loop: _Loop, blocks: tuple[ir.Block, ir.Block, ir.Block], rounds: ir.Value,
        a: Columns, first: Place,
    ) -> Place:  # fmt: skip
        """Write a loop from `first` on into the second of three blocks. Returns the place after it."""
        before, body, after = blocks
        builder = ir.IRBuilder(body)
        counter = phi(builder, rounds, before)
        groups, panels, sums = ([phi(builder, value, before) for value in values] for values in first)
        here = a._replace(groups=[self.opaque(builder, pointer) for pointer in groups])
        rows = panels if loop.at_once == 1 else [self.opaque(builder, pointer) for pointer in panels]
        vectors, totals = len(sums) // a.height, sums
        for k, column in enumerate(loop.read(builder, here)):
            if a.height > FEW_ROWS and k % loop.fetch_every == 0:
                self._prefetch_b(builder, rows[0], vectors)
            totals = self.multiply(builder, column, self.row_of_b(builder, rows, [None] * vectors), totals)
            rows = [builder.gep(row, [self.b_row]) for row in rows]
        following = [builder.gep(pointer, [loop.step]) for pointer in here.groups]
        fewer = builder.sub(counter, _I64(1))
        running, later = [counter, *groups, *panels, *sums], [fewer, *following, *rows, *totals]
        for value, next_value in zip(running, later, strict=True):
            value.add_incoming(next_value, body)
        builder.cbranch(builder.icmp_signed("!=", fewer, _I64(0)), body, after)
        return Place(following, rows, totals)

    def multiply(
        self, builder: ir.IRBuilder, column: list[ir.Value], row: list[ir.Value], sums: list[ir.Value]
    ) -> list[ir.Value]:
        """The sums after one k, which adds a column of A times a row of B."""
        return [
            self.multiply_add(builder, column[n // len(row)], row[n % len(row)], total)
            for n, total in enumerate(sums)
        ]

    def row_of_b(self, builder: ir.IRBuilder, panels: list[ir.Value], inside: list) -> list[ir.Value]:
        """A vector of a row of B for each mask."""
        return [
            self.load(builder, self.place(builder, panels[j // 2], j % 2 * self.lanes), mask)
            for j, mask in enumerate(inside)
        ]

    def column_of_a(self, builder: ir.IRBuilder, a: Columns) -> list[ir.Value]:
        """A vector for each row, with the row's element in all lanes."""
        column = []
        for i in range(a.height):
            place = builder.gep(a.groups[i // 4], [a.offsets[i % 4]])
            value = builder.load(builder.bitcast(place, self.scalar.as_pointer()))
            value.align = self.itemsize
            column.append(self.splat(builder, value))
        return column

    def _by_element(self, builder: ir.IRBuilder, a: Columns) -> list[list[ir.Value]]:
        """One column, element by element."""
        self._prefetch_a(builder, a, a.groups[:: max(1, len(a.groups) - 1)])
        return [self.column_of_a(builder, a)]

    def _elements_along_k(self, builder: ir.IRBuilder, a: Columns) -> list[list[ir.Value]]:
        """Four columns, element by element."""
        places = [[builder.gep(group, [_I64(k * self.itemsize)]) for group in a.groups] for k in range(4)]
        return [self.column_of_a(builder, a._replace(groups=groups)) for groups in places]

    def _along_k(self, builder: ir.IRBuilder, a: Columns) -> list[list[ir.Value]]:
        """As many columns as a vector has lanes, from one vector of each row."""
        rows = [
            self._vector_of_a(builder, builder.gep(a.groups[i // 4], [a.offsets[i % 4]]))
            for i in range(a.height)
        ]
        return [[self._lane(builder, row, lane) for row in rows] for lane in range(self.lanes)]

    def _along_rows(self, builder: ir.IRBuilder, a: Columns) -> list[list[ir.Value]]:
        """As many columns, each from vectors of neighbouring rows; the last one overlaps the one before."""
        columns, pointer = [], a.groups[0]
        firsts = [min(i, a.height - self.lanes) for i in range(0, a.height, self.lanes)]
        sources = [firsts[i // self.lanes] for i in range(a.height)]
        for _ in range(self.lanes):
            self._prefetch_a(builder, a, [pointer])
            vectors = {
                row: self._vector_of_a(builder, builder.gep(pointer, [_I64((row - BASE) * self.itemsize)]))
                for row in firsts
            }
            columns.append([self._lane(builder, vectors[s], i - s) for i, s in enumerate(sources)])
            pointer = builder.gep(pointer, [a.step])
        return columns

    def _vector_of_a(self, builder: ir.IRBuilder, place: ir.Value) -> ir.Value:
        return self.load(builder, builder.bitcast(place, self.vector.as_pointer()))

    def _lane(self, builder: ir.IRBuilder, vector: ir.Value, lane: int) -> ir.Value:
        """A vector with one lane of another in all lanes."""
        everywhere = ir.Constant(ir.VectorType(_I32, self.lanes), [lane] * self.lanes)
        return builder.shuffle_vector(vector, ir.Constant(self.vector, ir.Undefined), everywhere)

    def first_column(self, builder: ir.IRBuilder, a: ir.Value, height: int) -> Columns:
        """The first column of A. Rows are addressed as four offsets from one moving pointer per group of
        four: three pointers and three multiples of the stride fit the general registers, twelve pointers
        would spill. The offsets are hidden from the compiler, which would otherwise use twelve pointers."""
        row, step = (builder.mul(stride, _I64(self.itemsize)) for stride in (self.a_row, self.a_col))
        offsets = [self.opaque(builder, builder.mul(row, _I64(i - BASE))) for i in range(BASE)]
        groups = [
            builder.bitcast(builder.gep(a, [builder.mul(self.a_row, _I64(i + BASE))]), self.bytes)
            for i in range(0, height, 4)
        ]
        return Columns(height, groups, [*offsets, _I64(0)], self.opaque(builder, step))

    @staticmethod
    def opaque(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
        """The value after an empty piece of assembly, which hides its origin from the compiler."""
        return builder.asm(ir.FunctionType(value.type, [value.type]), "", "=r,0", [value], False)

    def prefetch(self, builder: ir.IRBuilder, pointer: ir.Value, to_write: bool = False) -> None:
        """Fetch a cache line ahead."""
        hints = (int(to_write), 3, 1)  # read or write, all levels of the cache, data
        line = builder.bitcast(pointer, self.bytes)
        builder.call(self._fetch, [line, *map(_I32, hints)])

    def _prefetch_a(self, builder: ir.IRBuilder, a: Columns, pointers: list[ir.Value]) -> None:
        """Prefetch these rows of A some columns ahead."""
        if a.height > FEW_ROWS:
            further = builder.mul(a.step, _I64(COLUMNS_AHEAD))
            for pointer in pointers:
                self.prefetch(builder, builder.gep(pointer, [further]))

    def _prefetch_b(self, builder: ir.IRBuilder, b: ir.Value, vectors: int) -> None:
        """Prefetch B some rows ahead, continuing into the next panel: the processor's own prefetchers stop at
        each page."""
        ahead = builder.gep(b, [builder.mul(self.b_row, _I64(ROWS_AHEAD))])
        for place in range(0, vectors * self.target.vector_bytes, LINE_BYTES):
            self.prefetch(builder, builder.gep(ahead, [_I64(place // self.itemsize)]))
