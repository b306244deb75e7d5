"""The product of one row with a matrix read in place, as vector IR, for one step of a stream.

    sums[j] += source W[:, first + j]

A step reads each weight once, so packing them would cost more than the product. Every sum is one chain of
multiply-adds over k ascending, as in the tile, and stays in a register over all of k: a loop over k that
reads and writes the sums takes 3 cycles per vector on Zen 5, this one 1. A loop is generated for each number
of vectors up to MAX_VECTORS, and a wider matrix is divided evenly among several; columns beyond the edge are
masked in the last vector. Without masked moves the last vector overlaps the one before: their common sums are
computed twice, from the same start. Fewer columns than lanes are then computed one by one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from .._jit import intrinsic
from ..codegen.vectors import VectorWriter
from .bfloat16 import PairWriter, round_to_bfloat16

# Vectors of sums at a time: enough to hide the latency of the multiply-adds, and few enough for 16 registers.
MAX_VECTORS = 8

_I64 = ir.IntType(64)


class _RowWriter(VectorWriter):
    """Writes the product for one float type into an LLVM module; with one lane for narrow matrices."""

    NAME = "row"

    def function(self) -> ir.Function:
        """The function of this module: source, depth, weights, row, sums, cols; written at the first call."""
        name = f"rnnfast_{self.NAME}_{self.suffix}"
        if name in self.module.globals:
            return self.module.globals[name]
        p = self.scalar.as_pointer()
        function = self.new_function(name, [p, _I64, p, _I64, p, _I64])
        function.linkage = "internal"
        self._write(function)
        return function

    def _write(self, function: ir.Function) -> None:
        """Write the loop over groups of vectors, with a jump to the loop of the right width."""
        self.source, self.depth, self.weights, self.row, self.sums, cols = function.args
        entry, begin, group, join, done = (
            function.append_basic_block(label) for label in ("entry", "begin", "group", "join", "done")
        )
        builder = ir.IRBuilder(entry)
        some = builder.and_(
            builder.icmp_signed(">", cols, _I64(0)), builder.icmp_signed(">", self.depth, _I64(0))
        )
        if self.lanes > 1 and not self.target.has_masked_moves:
            with builder.if_then(builder.icmp_signed("<", cols, _I64(self.lanes))):
                narrow = type(self)(self.module, self.dtype, self.target, lanes=1)
                builder.call(narrow.function(), function.args)
                builder.branch(done)
        builder.cbranch(some, begin, done)
        most = MAX_VECTORS if self.lanes > 1 else 1

        builder.position_at_end(begin)
        vectors = builder.udiv(builder.add(cols, _I64(self.lanes - 1)), _I64(self.lanes))
        groups = builder.udiv(builder.add(vectors, _I64(most - 1)), _I64(most))
        narrow = builder.udiv(vectors, groups)
        wider = builder.urem(vectors, groups)
        builder.branch(group)

        builder.position_at_end(group)
        index, first = builder.phi(_I64), builder.phi(_I64)
        index.add_incoming(_I64(0), begin)
        first.add_incoming(_I64(0), begin)
        width = builder.add(narrow, builder.zext(builder.icmp_signed("<", index, wider), _I64))
        after = builder.add(first, builder.mul(width, _I64(self.lanes)))
        last = builder.sub(cols, builder.sub(after, _I64(self.lanes)))  # columns in the last vector, or more
        if self.target.has_masked_moves:
            self.inside, self.overlap = self.lanes_before(builder, last), _I64(0)
        else:
            missing = builder.sub(_I64(self.lanes), last)
            is_partial = builder.icmp_signed(">", missing, _I64(0))
            self.inside, self.overlap = None, builder.select(is_partial, missing, _I64(0))
        self.first = first
        cases = builder.switch(width, done)
        for count in range(1, most + 1):
            case = function.append_basic_block(f"vectors{count}")
            cases.add_case(_I64(count), case)
            self._write_group(case, join, count)

        builder.position_at_end(join)
        following = builder.add(index, _I64(1))
        index.add_incoming(following, join)
        first.add_incoming(after, join)
        builder.cbranch(builder.icmp_signed("<", following, groups), group, done)
        builder.position_at_end(done)
        builder.ret_void()

    def _write_group(self, case: ir.Block, join: ir.Block, count: int) -> None:
        """Write the loop for `count` vectors of sums: load them, loop over k, store them."""
        builder = ir.IRBuilder(case)
        loop, end = (case.function.append_basic_block(f"{label}{count}") for label in ("loop", "end"))
        target = builder.gep(self.sums, [self.first])
        start = [self.load(builder, *self._vector(builder, target, j, count)) for j in range(count)]
        line = builder.gep(self.weights, [self.first])
        builder.branch(loop)

        builder.position_at_end(loop)
        k, weights = builder.phi(_I64), builder.phi(line.type)
        sums = [builder.phi(self.vector) for _ in start]
        value = builder.load(builder.gep(self.source, [k]))
        value.align = self.itemsize
        factor = self.splat(builder, value)
        vectors = [self._vector(builder, weights, j, count) for j in range(count)]
        after = [
            self.multiply_add(builder, factor, self.load(builder, *vector), running)
            for vector, running in zip(vectors, sums, strict=True)
        ]
        following = builder.add(k, _I64(1))
        incoming = [(k, _I64(0), following), (weights, line, builder.gep(weights, [self.row]))]
        incoming += list(zip(sums, start, after, strict=True))
        for phi, before, now in incoming:
            phi.add_incoming(before, case)
            phi.add_incoming(now, loop)
        builder.cbranch(builder.icmp_signed("<", following, self.depth), loop, end)

        builder.position_at_end(end)
        for j, total in enumerate(after):
            self.store(builder, total, *self._vector(builder, target, j, count))
        builder.branch(join)

    def _vector(
        self, builder: ir.IRBuilder, base: ir.Value, j: int, count: int
    ) -> tuple[ir.Value, ir.Value | None]:
        """The place of vector j and its mask; only a part of the last vector is inside the matrix."""
        if j < count - 1:
            return self.place(builder, base, j * self.lanes), None
        return self.place(builder, base, builder.sub(_I64(j * self.lanes), self.overlap)), self.inside


class _RoundedRowWriter(PairWriter, _RowWriter):
    """Writes the product of operands rounded to bfloat16."""

    NAME = "rounded_row"

    def multiply_add(self, builder: ir.IRBuilder, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        a, b = (self.high_half(builder, self.rounded(builder, value)) for value in (a, b))
        return VectorWriter.multiply_add(self, builder, a, b, c)


def _add_product_twin(source, weights, first, sums):
    for k in range(source.size):
        sums[:] = source[k] * weights[k, first : first + sums.size] + sums


def _add_rounded_twin(source, weights, first, sums):
    columns = np.ascontiguousarray(weights[:, first : first + sums.size])
    _add_product_twin(round_to_bfloat16(source), round_to_bfloat16(columns), 0, sums)


@intrinsic(_add_product_twin)
def add_product(typing_context, source, weights, first, sums):
    """sums[j] += source W over the columns j of W from `first` on, one chain over k, W read in place.

    source   (K,)            read
    weights  (K, columns)    read
    sums     (cols,)         accumulated
    """
    return _product_by(_RowWriter, source, weights, first, sums)


@intrinsic(_add_rounded_twin)
def add_rounded_product(typing_context, source, weights, first, sums):
    """`add_product` with source and W rounded to bfloat16 as they are read; float32 only."""
    return _product_by(_RoundedRowWriter, source, weights, first, sums)


def _product_by(writer: type[_RowWriter], source: Any, weights: Any, first: Any, sums: Any) -> Any:
    """The signature of a product and its code generator; None for other types."""
    if {kind.dtype for kind in (source, weights)} != {sums.dtype} or weights.ndim != 2:
        return None
    if {kind.layout for kind in (source, weights, sums)} != {"C"}:
        return None

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        function = writer(builder.module, sums.dtype).function()
        row, matrix, target = (
            context.make_array(signature.args[i])(context, builder, arguments[i]) for i in (0, 1, 3)
        )
        columns = builder.extract_value(matrix.shape, 1)
        corner = builder.gep(matrix.data, [arguments[2]])
        builder.call(function, [row.data, row.nitems, corner, columns, target.data, target.nitems])
        return context.get_dummy_value()

    return types.void(source, weights, types.int64, sums), codegen
