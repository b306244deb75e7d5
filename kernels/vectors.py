"""Work on whole vectors and rows, written as IR: copies, and a transposition in registers.

LLVM does not find these by itself: a copy between slices that may overlap is checked anew for each short row,
and a transposing loop becomes scalar loads and stores (1.7 ns an element of a 650 x 650 matrix; 0.3 ns this
way). Rows are copied by memcpy: a loop is as fast, but LLVM needs 30 ms to vectorise each.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target

from ._jit import intrinsic


def _vector_bytes() -> int:
    """Width of the vectors of Numba's own target, which NUMBA_CPU_NAME and NUMBA_CPU_FEATURES may narrow."""
    features = cpu_target.target_context.codegen().magic_tuple()[2]
    if "+avx512f" in features:
        return 64
    return 32 if "+avx2" in features else 16


def _vector_registers() -> int:
    """How many vector registers the target has."""
    triple, _, features = cpu_target.target_context.codegen().magic_tuple()
    many = "+avx512f" in features or str(triple).startswith(("aarch64", "arm64"))
    return 32 if many else 16


VECTOR_BYTES = _vector_bytes()
VECTOR_REGISTERS = _vector_registers()


class _Moves:
    """Loads and stores of vectors from and to flat arrays, aligned to their elements only."""

    def __init__(
        self, context: Any, builder: ir.IRBuilder, kind: Any, source: ir.Value, target: ir.Value
    ) -> None:
        self.builder = builder
        self.itemsize = kind.dtype.bitwidth // 8
        self.lanes = VECTOR_BYTES // self.itemsize
        scalar = ir.FloatType() if kind.dtype == types.float32 else ir.DoubleType()
        self.vector = ir.VectorType(scalar, self.lanes)
        self.source, self.target = (
            context.make_array(kind)(context, builder, a).data for a in (source, target)
        )

    def _place(self, base: ir.Value, offset: ir.Value) -> ir.Value:
        return self.builder.bitcast(self.builder.gep(base, [offset]), self.vector.as_pointer())

    def load(self, offset: ir.Value) -> ir.Value:
        value = self.builder.load(self._place(self.source, offset))
        value.align = self.itemsize
        return value

    def store(self, value: ir.Value, offset: ir.Value) -> None:
        store = self.builder.store(value, self._place(self.target, offset))
        store.align = self.itemsize

    def offset(self, first: ir.Value, stride: ir.Value, count: int) -> ir.Value:
        return self.builder.add(first, self.builder.mul(stride, ir.Constant(first.type, count)))


def _copy_twin(source, source_first, target, target_first):
    count = 2 * VECTOR_BYTES // source.itemsize
    target[target_first : target_first + count] = source[source_first : source_first + count]


@intrinsic(_copy_twin)
def copy_panel_row(typing_context, source, source_first, target, target_first):
    """target[target_first + j] = source[source_first + j] for the columns j of one panel; flat arrays."""
    signature = types.void(source, types.int64, target, types.int64)

    def codegen(context, builder, signature, arguments):
        source_array, source_first, target_array, target_first = arguments
        moves = _Moves(context, builder, source, source_array, target_array)
        step = ir.Constant(source_first.type, moves.lanes)
        values = [moves.load(moves.offset(source_first, step, j)) for j in range(2)]
        for j, value in enumerate(values):
            moves.store(value, moves.offset(target_first, step, j))
        return context.get_dummy_value()

    return signature, codegen


def _copy_row_twin(source, target):
    target[:] = source[: target.size]


@intrinsic(_copy_row_twin)
def copy_row(typing_context, source, target):
    """target[j] = source[j] for the columns j of target; contiguous rows that do not overlap."""
    if source.dtype != target.dtype or (source.layout, target.layout) != ("C", "C"):
        return None

    def codegen(context, builder, signature, arguments):
        of, to = (
            context.make_array(kind)(context, builder, value)
            for kind, value in zip(signature.args, arguments, strict=True)
        )
        cgutils.raw_memcpy(builder, to.data, of.data, to.nitems, to.itemsize)
        return context.get_dummy_value()

    return types.void(source, target), codegen


def _clear_row_twin(target):
    target[:] = 0


@intrinsic(_clear_row_twin)
def clear_row(typing_context, target):
    """target[j] = 0, a contiguous row."""
    if target.layout != "C":
        return None

    def codegen(context, builder, signature, arguments):
        row = context.make_array(target)(context, builder, arguments[0])
        cgutils.memset(builder, row.data, builder.mul(row.nitems, row.itemsize), 0)
        return context.get_dummy_value()

    return types.void(target), codegen


def _transpose_twin(source, source_first, source_row, target, target_first, target_row):
    index = np.arange(VECTOR_BYTES // source.itemsize)
    block = source[source_first + index[:, None] * source_row + index]
    target[target_first + index[:, None] * target_row + index] = block.T


@intrinsic(_transpose_twin)
def transpose_block(typing_context, source, source_first, source_row, target, target_first, target_row):
    """target[i, j] = source[j, i] for a square as wide as a vector; flat arrays, distances between rows.

    Bit by bit, rows whose numbers differ in that bit exchange the halves of their lanes that differ in it.
    """
    i64 = types.int64
    signature = types.void(source, i64, i64, target, i64, i64)

    def codegen(context, builder, signature, arguments):
        source_array, source_first, source_row, target_array, target_first, target_row = arguments
        moves = _Moves(context, builder, source, source_array, target_array)
        lanes = moves.lanes
        rows = [moves.load(moves.offset(source_first, source_row, i)) for i in range(lanes)]
        bit = 1
        while bit < lanes:
            low = [lane if not lane & bit else lanes + lane - bit for lane in range(lanes)]
            high = [lanes + lane if lane & bit else lane + bit for lane in range(lanes)]
            masks = [ir.Constant(ir.VectorType(ir.IntType(32), lanes), picks) for picks in (low, high)]
            for i in range(lanes):
                if not i & bit:
                    pair = rows[i], rows[i | bit]
                    rows[i], rows[i | bit] = (builder.shuffle_vector(*pair, mask) for mask in masks)
            bit *= 2
        for i, row in enumerate(rows):
            moves.store(row, moves.offset(target_first, target_row, i))
        return context.get_dummy_value()

    return signature, codegen
