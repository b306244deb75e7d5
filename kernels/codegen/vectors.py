"""Vectors of the target in IR, and work on whole vectors and rows: copies, and a transposition in registers.

LLVM does not generate these by itself: a copy between slices is checked for overlap at each short row, and a
transposing loop becomes scalar loads and stores (1.7 ns per element of a 650 x 650 matrix; 0.3 ns this way).
Rows are copied by memcpy: a loop is as fast, but LLVM needs 30 ms to vectorize each.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target

from .._jit import intrinsic


class Target(NamedTuple):
    """A processor as LLVM knows it: its triple, and its features as one string."""

    triple: str
    features: str

    @property
    def is_arm64(self) -> bool:
        return self.triple.startswith(("aarch64", "arm64"))

    @property
    def vector_bytes(self) -> int:
        """Width of its vectors."""
        if "+avx512f" in self.features:
            return 64
        return 32 if "+avx2" in self.features else 16

    @property
    def vector_registers(self) -> int:
        """The number of its vector registers."""
        return 32 if "+avx512f" in self.features or self.is_arm64 else 16

    @property
    def multiply_add(self) -> str:
        """LLVM's name of a multiply-add.

        `fma` is always rounded once; without an instruction for it, it calls libm, which is 14 times slower.
        `fmuladd` may be split: on ARM, LLVM turns a loop over a scalar sum into products and an ordered sum,
        rounded twice.
        """
        return "fma" if self.is_arm64 or "+fma" in self.features.split(",") else "fmuladd"

    @property
    def multiplies_by_element(self) -> bool:
        """Whether a multiply-add takes one lane of a vector as its factor."""
        return self.is_arm64

    @property
    def has_masked_moves(self) -> bool:
        """Whether a load or store of some lanes is one instruction and not a branch for each lane."""
        return "+avx" in self.features or "+sve" in self.features


def _numba_target() -> Target:
    """Numba's own target, which NUMBA_CPU_NAME and NUMBA_CPU_FEATURES may narrow."""
    triple, _, features = cpu_target.target_context.codegen().magic_tuple()
    return Target(str(triple), features)


TARGET = _numba_target()
VECTOR_BYTES = TARGET.vector_bytes
VECTOR_REGISTERS = TARGET.vector_registers


_I32, _I64 = ir.IntType(32), ir.IntType(64)


class VectorWriter:
    """Writes the common parts of functions on vectors of one type into their LLVM module.

    Arrays of int32 are moved as float32. Vectors are aligned to their elements only. LLVM's functions are
    declared by their full names (`llvm.fmuladd.v16f32`): the short form cannot name vector types. `lanes`
    other than the target's are for the remainder of whole vectors.
    """

    def __init__(
        self, module: ir.Module, dtype: types.Float, target: Target = TARGET, lanes: int | None = None
    ) -> None:
        self.module = module
        self.dtype = dtype
        self.target = target
        self.scalar = ir.FloatType() if dtype.bitwidth == 32 else ir.DoubleType()
        self.itemsize = dtype.bitwidth // 8
        self.lanes = target.vector_bytes // self.itemsize if lanes is None else lanes
        self.vector = ir.VectorType(self.scalar, self.lanes)
        self.zero = ir.Constant(self.vector, [0.0] * self.lanes)
        self.suffix = f"v{self.lanes}f{8 * self.itemsize}"

    def declare(self, name: str, result: ir.Type, arguments: list) -> ir.Function:
        """A function of LLVM's, or one that is linked by its name."""
        return cgutils.get_or_insert_function(self.module, ir.FunctionType(result, arguments), name)

    def new_function(self, name: str, arguments: list, *attributes: str) -> ir.Function:
        """A function that this module defines, not to be inlined."""
        function = ir.Function(self.module, ir.FunctionType(ir.VoidType(), arguments), name)
        for attribute in ("noinline", "nounwind", *attributes):
            function.attributes.add(attribute)
        return function

    def splat(self, builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
        """A vector with `value` in each lane."""
        undefined = ir.Constant(ir.VectorType(value.type, self.lanes), ir.Undefined)
        first = builder.insert_element(undefined, value, _I32(0))
        everywhere = ir.Constant(ir.VectorType(_I32, self.lanes), [0] * self.lanes)
        return builder.shuffle_vector(first, undefined, everywhere)

    def multiply_add(self, builder: ir.IRBuilder, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """a b + c in each lane."""
        name = f"llvm.{self.target.multiply_add}.{self.suffix}"
        function = self.declare(name, self.vector, [self.vector] * 3)
        return builder.call(function, [a, b, c])

    def lanes_before(self, builder: ir.IRBuilder, count: ir.Value, first: int = 0) -> ir.Value:
        """The mask of those lanes `first`, `first` + 1, .. that are below `count`."""
        index = ir.Constant(ir.VectorType(_I32, self.lanes), list(range(first, first + self.lanes)))
        return builder.icmp_signed("<", index, self.splat(builder, builder.trunc(count, _I32)))

    def place(self, builder: ir.IRBuilder, base: ir.Value, offset: ir.Value | int) -> ir.Value:
        """Pointer to the vector that begins that number of elements from `base`."""
        offset = _I64(offset) if isinstance(offset, int) else offset
        return builder.bitcast(builder.gep(base, [offset]), self.vector.as_pointer())

    def load(self, builder: ir.IRBuilder, place: ir.Value, inside: ir.Value | None = None) -> ir.Value:
        """Load a vector; lanes outside the mask `inside`, if there is one, are 0."""
        if inside is None:
            value = builder.load(place)
            value.align = self.itemsize
            return value
        kinds = [place.type, _I32, inside.type, self.vector]
        function = self.declare(f"llvm.masked.load.{self.suffix}.p0", self.vector, kinds)
        return builder.call(function, [place, _I32(self.itemsize), inside, self.zero])

    def store(
        self, builder: ir.IRBuilder, value: ir.Value, place: ir.Value, inside: ir.Value | None = None
    ) -> None:
        """Write a vector, or the lanes in the mask."""
        if inside is None:
            builder.store(value, place).align = self.itemsize
            return
        kinds = [self.vector, place.type, _I32, inside.type]
        function = self.declare(f"llvm.masked.store.{self.suffix}.p0", ir.VoidType(), kinds)
        builder.call(function, [value, place, _I32(self.itemsize), inside])


class _Moves(VectorWriter):
    """Loads and stores of vectors from and to flat arrays."""

    def __init__(
        self, context: Any, builder: ir.IRBuilder, kind: Any, source: ir.Value, target: ir.Value
    ) -> None:
        super().__init__(builder.module, kind.dtype)
        self.builder = builder
        self.source, self.target = (
            context.make_array(kind)(context, builder, a).data for a in (source, target)
        )

    def get(self, first: ir.Value, stride: ir.Value, count: int, inside: ir.Value | None = None) -> ir.Value:
        """The vector `count` strides after `first` in the source; 0 outside the mask, if there is one."""
        place = self.place(self.builder, self.source, self._at(first, stride, count))
        return self.load(self.builder, place, inside)

    def put(self, value: ir.Value, first: ir.Value, stride: ir.Value, count: int) -> None:
        """Write a vector to the place `count` strides after `first` in the target."""
        place = self.place(self.builder, self.target, self._at(first, stride, count))
        self.store(self.builder, value, place)

    def _at(self, first: ir.Value, stride: ir.Value, count: int) -> ir.Value:
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
        values = [moves.get(source_first, step, j) for j in range(2)]
        for j, value in enumerate(values):
            moves.put(value, target_first, step, j)
        return context.get_dummy_value()

    return signature, codegen


def _copy_edge_twin(source, source_first, count, target, target_first):
    width = 2 * VECTOR_BYTES // source.itemsize
    target[target_first : target_first + width] = 0
    target[target_first : target_first + count] = source[source_first : source_first + count]


@intrinsic(_copy_edge_twin)
def copy_panel_edge(typing_context, source, source_first, count, target, target_first):
    """`copy_panel_row` of the first `count` columns; the others are 0."""
    i64 = types.int64
    signature = types.void(source, i64, i64, target, i64)

    def codegen(context, builder, signature, arguments):
        source_array, source_first, count, target_array, target_first = arguments
        moves = _Moves(context, builder, source, source_array, target_array)
        step = ir.Constant(source_first.type, moves.lanes)
        for j in range(2):
            inside = moves.lanes_before(builder, count, j * moves.lanes)
            moves.put(moves.get(source_first, step, j, inside), target_first, step, j)
        return context.get_dummy_value()

    return signature, codegen


def _copy_span_twin(source, first, target, place, count):
    of, to = source.reshape(-1), target.reshape(-1)
    assert 0 <= first <= of.size - count
    assert 0 <= place <= to.size - count
    to[place : place + count] = of[first : first + count]


@intrinsic(_copy_span_twin)
def copy_span(typing_context, source, first, target, place, count):
    """target[place + j] = source[first + j] for j < count: contiguous arrays, counted as flat ones.

    The two spans do not overlap. Slices would compile to more code: they made kernels a sixth longer.
    """
    if source.dtype != target.dtype or (source.layout, target.layout) != ("C", "C"):
        return None
    i64 = types.int64

    def codegen(context, builder, signature, arguments):
        source_array, first, target_array, place, count = arguments
        of = context.make_array(source)(context, builder, source_array)
        to = context.make_array(target)(context, builder, target_array)
        start, end = builder.gep(of.data, [first]), builder.gep(to.data, [place])
        cgutils.raw_memcpy(builder, end, start, count, to.itemsize)
        return context.get_dummy_value()

    return types.void(source, i64, target, i64, i64), codegen


def _stream_span_twin(source, first, target, place, count):
    assert not count or target.reshape(-1)[place:].ctypes.data % VECTOR_BYTES == 0
    _copy_span_twin(source, first, target, place, count)


@intrinsic(_stream_span_twin)
def stream_span(typing_context, source, first, target, place, count):
    """`copy_span` past the caches, for a reader on another core; the target begins at a whole vector.

    Two cores that share no cache fetch lines from each other's caches at 2 GB/s, and from memory at 10 times
    that. `flags.post` orders these stores before the flag.
    """
    if source.dtype != target.dtype or (source.layout, target.layout) != ("C", "C"):
        return None
    i64 = types.int64

    def codegen(context, builder, signature, arguments):
        source_array, first, target_array, place, count = arguments
        of = context.make_array(source)(context, builder, source_array)
        to = context.make_array(target)(context, builder, target_array)
        start, end = builder.gep(of.data, [first]), builder.gep(to.data, [place])
        writer = VectorWriter(builder.module, source.dtype)
        lanes = ir.Constant(_I64, writer.lanes)
        mark = builder.module.add_metadata([ir.Constant(_I32, 1)])
        whole = builder.udiv(count, lanes)
        with cgutils.for_range(builder, whole) as loop:
            offset = builder.mul(loop.index, lanes)
            value = writer.load(builder, writer.place(builder, start, offset))
            store = builder.store(value, writer.place(builder, end, offset))
            store.align = VECTOR_BYTES
            store.set_metadata("nontemporal", mark)
        done = builder.mul(whole, lanes)
        rest = builder.sub(count, done)
        cgutils.raw_memcpy(builder, builder.gep(end, [done]), builder.gep(start, [done]), rest, to.itemsize)
        return context.get_dummy_value()

    return types.void(source, i64, target, i64, i64), codegen


def _clear_span_twin(target, place, count):
    flat = target.reshape(-1)
    assert 0 <= place <= flat.size - count
    flat[place : place + count] = 0


@intrinsic(_clear_span_twin)
def clear_span(typing_context, target, place, count):
    """target[place + j] = 0 for j < count: a contiguous array, counted as a flat one."""
    if target.layout != "C":
        return None
    i64 = types.int64

    def codegen(context, builder, signature, arguments):
        target_array, place, count = arguments
        array = context.make_array(target)(context, builder, target_array)
        start = builder.gep(array.data, [place])
        cgutils.memset(builder, start, builder.mul(count, array.itemsize), 0)
        return context.get_dummy_value()

    return types.void(target, i64, i64), codegen


def transposed(builder: ir.IRBuilder, rows: list[ir.Value]) -> list[ir.Value]:
    """A square of vectors, transposed in registers.

    For each bit, rows whose numbers differ in that bit exchange the lanes whose numbers differ in it.
    """
    rows, lanes, bit = [*rows], len(rows), 1
    while bit < lanes:
        low = [lane if not lane & bit else lanes + lane - bit for lane in range(lanes)]
        high = [lanes + lane if lane & bit else lane + bit for lane in range(lanes)]
        masks = [ir.Constant(ir.VectorType(_I32, lanes), picks) for picks in (low, high)]
        for i in range(lanes):
            if not i & bit:
                pair = rows[i], rows[i | bit]
                rows[i], rows[i | bit] = (builder.shuffle_vector(*pair, mask) for mask in masks)
        bit *= 2
    return rows


def _transpose_twin(source, source_first, source_row, target, target_first, target_row):
    index = np.arange(VECTOR_BYTES // source.itemsize)
    block = source[source_first + index[:, None] * source_row + index]
    target[target_first + index[:, None] * target_row + index] = block.T


@intrinsic(_transpose_twin)
def transpose_block(typing_context, source, source_first, source_row, target, target_first, target_row):
    """target[i, j] = source[j, i] for a square as wide as a vector; flat arrays with row strides."""
    i64 = types.int64
    signature = types.void(source, i64, i64, target, i64, i64)

    def codegen(context, builder, signature, arguments):
        source_array, source_first, source_row, target_array, target_first, target_row = arguments
        moves = _Moves(context, builder, source, source_array, target_array)
        rows = [moves.get(source_first, source_row, i) for i in range(moves.lanes)]
        for i, row in enumerate(transposed(builder, rows)):
            moves.put(row, target_first, target_row, i)
        return context.get_dummy_value()

    return signature, codegen
