"""Operands of products in bfloat16: rounding, and two values of k in each 32-bit element.

A product of two numbers in bfloat16 is exact in float32. Operands are rounded to nearest, ties to even, and
stored in pairs along k: one int32 has the value of an even k in its high half and that of k + 1 in its low
half. AVX512_BF16 multiplies pairs in one instruction, `vdpbf16ps`, which adds the product of the high halves
first and rounds after each addition. So every element of a result is one chain of float32 multiply-adds over
k ascending on rounded operands, with the same bits with or without the instruction. (ARM's `bfdot`, used
where the processor has it, first adds the two products of a pair, rounded to odd: there bits differ.)

After an odd number of values the low half of the last pair is 0 in A and -0 in B, whose product changes no
sum. Numbers too small to be normal count as zero in products, as everywhere in kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from .._jit import inline, inner, intrinsic
from ..codegen.vectors import VECTOR_BYTES, Target, VectorWriter, clear_span, transposed

_I64, _I32 = ir.IntType(64), ir.IntType(32)

PAIRS = np.dtype(np.int32)  # the type of arrays of pairs

# The low halves that stand for no value, in A and in B: 0 and -0.
NO_FACTOR, NO_TERM = np.int32(0), np.int32(0x8000)

_HIGH = -(1 << 16)  # the mask of the high half
_QUIET = 0x00400000  # the bit of a NaN that survives when its low half is cut off


class _Bfloat(ir.Type):
    """LLVM's type bfloat, which llvmlite does not know."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Bfloat)

    def __hash__(self) -> int:
        return hash(_Bfloat)


def _product_of_pairs(target: Target, lanes: int) -> str:
    """The instruction of a target for a product of pairs, or "" if it has none."""
    if lanes == 16 and "+avx512bf16" in target.features.split(","):
        return "llvm.x86.avx512bf16.dpbf16ps.512"
    if target.is_arm64 and "+bf16" in target.features.split(",") and lanes == 4:
        # bfmmla multiplies blocks of 2 x 4 and 4 x 2: A and B would need another layout.
        return "llvm.aarch64.neon.bfdot.v4f32.v8bf16"
    return ""


class PairWriter(VectorWriter):
    """Writes functions on pairs; their vectors are typed as float32."""

    def multiply_add(self, builder: ir.IRBuilder, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """The two products of each lane's pairs, added to c one after the other."""
        if name := _product_of_pairs(self.target, self.lanes):
            halves = ir.VectorType(_Bfloat(), 2 * self.lanes)
            function = self.declare(name, self.vector, [self.vector, halves, halves])
            return builder.call(function, [c, builder.bitcast(a, halves), builder.bitcast(b, halves)])
        high = super().multiply_add(builder, self.high_half(builder, a), self.high_half(builder, b), c)
        return super().multiply_add(builder, self.low_half(builder, a), self.low_half(builder, b), high)

    def whole(self, value: int) -> ir.Constant:
        """An integer in each lane."""
        return ir.Constant(ir.VectorType(_I32, self.lanes), [value] * self.lanes)

    def high_half(self, builder: ir.IRBuilder, pairs: ir.Value) -> ir.Value:
        """The high halves of pairs as floats."""
        bits = builder.bitcast(pairs, ir.VectorType(_I32, self.lanes))
        return builder.bitcast(builder.and_(bits, self.whole(_HIGH)), self.vector)

    def low_half(self, builder: ir.IRBuilder, pairs: ir.Value) -> ir.Value:
        """The low halves of pairs as floats."""
        bits = builder.bitcast(pairs, ir.VectorType(_I32, self.lanes))
        return builder.bitcast(builder.shl(bits, self.whole(16)), self.vector)

    def rounded(self, builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
        """The bits of floats rounded to bfloat16, in the high halves; the low halves are undefined."""
        bits = builder.bitcast(value, ir.VectorType(_I32, self.lanes))
        is_odd = builder.and_(builder.lshr(bits, self.whole(16)), self.whole(1))
        nearest = builder.add(builder.add(bits, self.whole(0x7FFF)), is_odd)
        is_nan = builder.fcmp_unordered("uno", value, value)
        return builder.select(is_nan, builder.or_(bits, self.whole(_QUIET)), nearest)

    def pair(self, builder: ir.IRBuilder, high: ir.Value, low: ir.Value) -> ir.Value:
        """Pairs of rounded floats, or of a rounded float and a constant low half."""
        upper = builder.and_(self.rounded(builder, high), self.whole(_HIGH))
        if low.type == self.vector:
            low = builder.lshr(self.rounded(builder, low), self.whole(16))
        return builder.bitcast(builder.or_(upper, low), self.vector)

    def neighbours(self, builder: ir.IRBuilder, place: ir.Value) -> ir.Value:
        """The pairs of 2 `lanes` consecutive floats."""
        parts = [self.load(builder, self.place(builder, place, j * self.lanes)) for j in range(2)]
        picks = [
            ir.Constant(ir.VectorType(_I32, self.lanes), list(range(odd, 2 * self.lanes, 2)))
            for odd in range(2)
        ]
        return self.pair(builder, *(builder.shuffle_vector(*parts, pick) for pick in picks))


def _floats(context: Any, builder: ir.IRBuilder, kind: Any, array: ir.Value, first: ir.Value) -> ir.Value:
    """The place of an element, as one of a float."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [first]), ir.FloatType().as_pointer())


def _are(source: Any, target: Any) -> bool:
    """Whether these are arrays of floats and of pairs."""
    return (source.dtype, target.dtype, source.layout, target.layout) == (
        types.float32, types.int32, "C", "C",
    )  # fmt: skip


def round_to_bfloat16(values: np.ndarray) -> np.ndarray:
    """Float32 numbers rounded to bfloat16, to nearest, ties to even; in float32, of the same shape."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    nearest = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    chosen = np.where(np.isnan(values), bits | np.uint32(_QUIET), nearest) & np.uint32(_HIGH & 0xFFFFFFFF)
    return chosen.view(np.float32)


def _pairs_twin(high: np.ndarray, low: Any) -> np.ndarray:
    upper = round_to_bfloat16(high).view(np.int32)
    if isinstance(low, np.ndarray):
        low = (round_to_bfloat16(low).view(np.uint32) >> np.uint32(16)).view(np.int32)
    return upper | low


def halves_of(pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The high and the low halves of pairs as float32, for twins and tests."""
    bits = pairs.view(np.uint32)
    return (bits & np.uint32(_HIGH & 0xFFFFFFFF)).view(np.float32), (bits << np.uint32(16)).view(np.float32)


def _pair_rows_twin(source, first, second, target, place, count):
    flat, to = source.reshape(-1), target.reshape(-1)
    to[place : place + count] = _pairs_twin(flat[first : first + count], flat[second : second + count])


@intrinsic(_pair_rows_twin)
def pair_rows(typing_context, source, first, second, target, place, count):
    """target[place + j] = the pair (source[first + j], source[second + j]) for j < count; flat arrays."""
    i64 = types.int64
    if not _are(source, target):
        return None

    def codegen(context, builder, signature, arguments):
        of, first, second, to, place, count = arguments
        rows = [_floats(context, builder, source, of, at) for at in (first, second)]

        def pairs(writer: PairWriter, at: ir.Value) -> ir.Value:
            values = (writer.load(builder, writer.place(builder, row, at)) for row in rows)
            return writer.pair(builder, *values)

        _by_vectors(builder, _floats(context, builder, target, to, place), count, pairs)
        return context.get_dummy_value()

    return types.void(source, i64, i64, target, i64, i64), codegen


def _by_vectors(
    builder: ir.IRBuilder,
    target: ir.Value,
    count: ir.Value,
    pairs: Callable[[PairWriter, ir.Value], ir.Value],
) -> None:
    """Write `count` pairs, vector by vector; `pairs(writer, at)` makes a vector of them from pair `at` on."""
    done = _I64(0)
    for lanes in (VECTOR_BYTES // 4, 1):
        writer = PairWriter(builder.module, types.float32, lanes=lanes)
        whole = builder.udiv(builder.sub(count, done), _I64(lanes))
        with cgutils.for_range(builder, whole) as loop:
            at = builder.add(done, builder.mul(loop.index, _I64(lanes)))
            writer.store(builder, pairs(writer, at), writer.place(builder, target, at))
        done = builder.add(done, builder.mul(whole, _I64(lanes)))


def _pair_last_row_twin(source, first, low, target, place, count):
    target.reshape(-1)[place : place + count] = _pairs_twin(source.reshape(-1)[first : first + count], low)


@intrinsic(_pair_last_row_twin)
def pair_last_row(typing_context, source, first, low, target, place, count):
    """target[place + j] = the pair of source[first + j] and the low half `low`, for j < count."""
    i64 = types.int64
    if not _are(source, target):
        return None

    def codegen(context, builder, signature, arguments):
        of, first, low, to, place, count = arguments
        row = _floats(context, builder, source, of, first)

        def pairs(writer: PairWriter, at: ir.Value) -> ir.Value:
            value = writer.load(builder, writer.place(builder, row, at))
            return writer.pair(builder, value, writer.splat(builder, low))

        _by_vectors(builder, _floats(context, builder, target, to, place), count, pairs)
        return context.get_dummy_value()

    return types.void(source, i64, types.int32, target, i64, i64), codegen


def _pair_neighbours_twin(source, first, target, place, count):
    values = source.reshape(-1)[first : first + 2 * count]
    target.reshape(-1)[place : place + count] = _pairs_twin(values[::2], values[1::2])


@intrinsic(_pair_neighbours_twin)
def pair_neighbours(typing_context, source, first, target, place, count):
    """target[place + i] = the pair (source[first + 2 i], source[first + 2 i + 1]) for i < count."""
    i64 = types.int64
    if not _are(source, target):
        return None

    def codegen(context, builder, signature, arguments):
        of, first, to, place, count = arguments
        row = _floats(context, builder, source, of, first)

        def pairs(writer: PairWriter, at: ir.Value) -> ir.Value:
            return writer.neighbours(builder, builder.gep(row, [builder.mul(at, _I64(2))]))

        _by_vectors(builder, _floats(context, builder, target, to, place), count, pairs)
        return context.get_dummy_value()

    return types.void(source, i64, target, i64, i64), codegen


def _pair_block_twin(source, first, source_row, target, place, target_row):
    lanes = VECTOR_BYTES // 4
    index = np.arange(lanes)
    block = source[first + index[:, None] * source_row + np.arange(2 * lanes)]
    target[place + index[:, None] * target_row + index] = _pairs_twin(block[:, ::2], block[:, 1::2]).T


@intrinsic(_pair_block_twin)
def _pair_block(typing_context, source, first, source_row, target, place, target_row):
    """target[i, j] = the pair (source[j, 2 i], source[j, 2 i + 1]) for a square as wide as a vector."""
    i64 = types.int64
    if not _are(source, target):
        return None

    def codegen(context, builder, signature, arguments):
        of, first, source_row, to, place, target_row = arguments
        writer = PairWriter(builder.module, types.float32)
        start = _floats(context, builder, source, of, first)
        end = _floats(context, builder, target, to, place)
        rows = [
            writer.neighbours(builder, builder.gep(start, [builder.mul(source_row, _I64(j))]))
            for j in range(writer.lanes)
        ]
        for i, row in enumerate(transposed(builder, rows)):
            at = builder.mul(target_row, _I64(i))
            writer.store(builder, row, writer.place(builder, end, at))
        return context.get_dummy_value()

    return types.void(source, i64, i64, target, i64, i64), codegen


@inline
def pairs_of(depth):
    """Pairs that hold `depth` values."""
    return (depth + 1) // 2


@inner
def _pack_panel(depth, count, flat, first, row_stride, col_stride, packed, place, width):
    """One panel of pairs; 0 in columns from `count` on."""
    lanes = VECTOR_BYTES // 4
    whole_pairs, whole_cols = 0, 0
    if row_stride == 1:
        whole_pairs, whole_cols = depth // 2 // lanes * lanes, count // lanes * lanes
        for j in range(0, whole_cols, lanes):
            for k in range(0, whole_pairs, lanes):
                corner = first + j * col_stride + 2 * k
                _pair_block(flat, corner, col_stride, packed, place + k * width + j, width)
    for k in range(pairs_of(depth)):
        target, at = place + k * width, first + 2 * k * row_stride
        for j in range(whole_cols if k < whole_pairs else 0, count):
            here = at + j * col_stride
            if 2 * k + 1 < depth:
                pair_rows(flat, here, here + row_stride, packed, target + j, 1)
            else:
                pair_last_row(flat, here, NO_TERM, packed, target + j, 1)
        clear_span(packed, target + count, width - count)


@inner
def pack_pairs(part, parts, depth, cols, w, packed):
    """`pack` for pairs: packed[j // width, k // 2, j % width] = (w[k, j], w[k + 1, j]) for even k.

    w       (array, first, row stride, column stride)   (depth, cols), float32, read
    packed  (packed_size(pairs_of(depth), cols),)       int32, overwritten in one part of the panels
    """
    flat, first, row_stride, col_stride = w
    width = 2 * VECTOR_BYTES // 4
    panels, pairs = (cols + width - 1) // width, pairs_of(depth)
    begin, end = panels * part // parts * width, min(panels * (part + 1) // parts * width, cols)
    if col_stride == 1:  # row by row, as in `pack`
        for k in range(pairs):
            row = first + 2 * k * row_stride
            for left in range(begin, end, width):
                count, target = min(width, cols - left), packed[left * pairs + k * width :]
                if 2 * k + 1 < depth:
                    pair_rows(flat, row + left, row + row_stride + left, target, 0, count)
                else:
                    pair_last_row(flat, row + left, NO_TERM, target, 0, count)
                clear_span(target, count, width - count)
    else:
        for left in range(begin, end, width):
            count, place = min(width, cols - left), first + left * col_stride
            _pack_panel(depth, count, flat, place, row_stride, col_stride, packed, left * pairs, width)


@inner
def columns_in_pairs(begin, end, depth, a, target, column):
    """Rows begin .. end of a matrix in pairs of columns, an operand A.

    a       (array, first, row)   rows of `depth` floats, read
    target  (.., row)             int32, columns from `column` on overwritten in these rows
    """
    flat, first, a_row = a
    for i in range(begin, end):
        at, place = first + i * a_row, i * target.shape[1] + column
        pair_neighbours(flat, at, target, place, depth // 2)
        if depth % 2:
            pair_last_row(flat, at + depth - 1, NO_FACTOR, target, place + depth // 2, 1)


@inner
def rows_in_pairs(begin, end, rows, cols, low, source, target, column):
    """Pairs begin .. end of the rows of a block, last row first: operands of weight gradients.

    low     NO_FACTOR for an operand A, NO_TERM for an operand B
    source  (rows.., row)     `cols` columns from `column` on, read
    target  (pairs.., row)    int32, these columns overwritten in rows begin .. end
    """
    flat, row, to_row = source.reshape(-1), source.shape[1], target.shape[1]
    for k in range(begin, end):
        last, place = rows - 1 - 2 * k, k * to_row + column
        if last > 0:
            pair_rows(flat, last * row + column, (last - 1) * row + column, target, place, cols)
        else:
            pair_last_row(flat, last * row + column, low, target, place, cols)
