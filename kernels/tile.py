"""The register-blocked tile: a small matrix product held in vector registers, written as vector IR.

    C[rows, cols] = start + A[rows, depth] B[depth, cols]        rows <= MAX_ROWS, cols <= panel_width
                                                             (FEW_ROWS and fewer: WIDE panel_width)

Every element of C is one chain of fused multiply-adds over k ascending, whatever the height of the tile or
the width of the vectors; this is what makes results independent of batch size, blocking and instruction set.

The MAX_ROWS x 2 vectors of accumulators live in registers as PHI nodes of the loop over k. A loop is
generated for each height and for one or two vectors of columns (few rows: up to four), so that no edge runs a
wider loop than it fills: on Zen 4 a 20-row product (two tiles of 10) reaches 114 of 117 GFLOP/s, like one of
24 rows. Columns beyond the edge are masked when C is read and written, and when B is with AVX-512; elsewhere
B must be readable up to whole panels.
"""

from __future__ import annotations

import functools

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from ._jit import intrinsic, library
from .vectors import VECTOR_BYTES, VECTOR_REGISTERS

# Two vectors of accumulators a row, and registers to spare for the operands: on AVX2, with 16 registers,
# twelve rows spill and reach 40 % of the peak, six rows 90 % (64 x 512 x 512).
MAX_ROWS = 12 if VECTOR_REGISTERS == 32 else 6

# A multiply-add takes 4 cycles on Zen and Intel and two begin in each, so that eight sums are needed at once;
# one row of one panel has two. A tile of up to three rows therefore takes two panels. (Four for one row: 0.93
# of the time of an LSTM of 32 units, 1.12 of one of 256, whose weights come from the L3 cache.)
FEW_ROWS, WIDE = 3, 2

# How a tile starts and ends; the flags combine. NumPy integers: Numba would compile a gemm for each literal.
OVERWRITE = np.int64(0)  # C = A B
FROM_START = np.int64(1)  # C = start + A B, one chain of multiply-adds beginning at `start`
ADD_TO = np.int64(2)  # C = C + (A B), the product summed first and added once


PANEL_BYTES = 2 * VECTOR_BYTES
LINE_BYTES = 64

# How far ahead of the sum B is fetched. A product of 64 x 1024 x 4096 on Zen 5, whose B is 16 MB, took 1.32
# times as long without, 1.06 at 32 rows.
ROWS_AHEAD = 48


# Where a masked load costs what any load costs, nothing beyond the last column of B is read.
MASKS_B = VECTOR_BYTES == 64

# What rows of a matrix are rounded up to that is read as B where it lies.
READABLE_BYTES = VECTOR_BYTES if MASKS_B else PANEL_BYTES


def panel_width(dtype: np.dtype) -> int:
    """Columns in one packed panel of B: two vectors."""
    return PANEL_BYTES // dtype.itemsize


_I1, _I32, _I64 = ir.IntType(1), ir.IntType(32), ir.IntType(64)


def _i64(value: int) -> ir.Constant:
    return ir.Constant(_I64, value)


def _splat(builder: ir.IRBuilder, value: ir.Value, lanes: int) -> ir.Value:
    """A vector with `value` in each lane."""
    undefined = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(_I32, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(_I32, lanes), [0] * lanes))


class _TileWriter:
    """Writes the tile function of one scalar type into an LLVM module."""

    def __init__(self, module: ir.Module, scalar: ir.Type, itemsize: int) -> None:
        self.module, self.scalar, self.itemsize = module, scalar, itemsize
        self.lanes = lanes = VECTOR_BYTES // itemsize
        self.vector = vector = ir.VectorType(scalar, lanes)
        self.zero = ir.Constant(vector, [0.0] * lanes)
        mask, pointer = ir.VectorType(_I1, lanes), vector.as_pointer()
        # Declared by full name: the short form cannot name vector types, and plain llvm.fma becomes a libm
        # call on targets without FMA (14 times slower than the multiply and add that fmuladd allows there).
        suffix = f"v{lanes}f{8 * itemsize}"
        self.fma = self._declare(f"llvm.fmuladd.{suffix}", vector, [vector] * 3)
        self.load = self._declare(f"llvm.masked.load.{suffix}.p0", vector, [pointer, _I32, mask, vector])
        self.store = self._declare(
            f"llvm.masked.store.{suffix}.p0", ir.VoidType(), [vector, pointer, _I32, mask]
        )
        self.align = ir.Constant(_I32, itemsize)
        self.bytes = ir.IntType(8).as_pointer()
        self.prefetch = self._declare("llvm.prefetch.p0", ir.VoidType(), [self.bytes, _I32, _I32, _I32])

    def _declare(self, name: str, result: ir.Type, arguments: list) -> ir.Function:
        return cgutils.get_or_insert_function(self.module, ir.FunctionType(result, arguments), name)

    @staticmethod
    def arguments(p: ir.Type) -> list:
        """Types of rows, cols, depth, a, strides, b, strides, start, stride, c, stride, next c, mode."""
        return [_I64, _I64, _I64, p, _I64, _I64, p, _I64, _I64, p, _I64, p, _I64, p, _I64]

    def define(self, name: str) -> ir.Function:
        """The function: masks first, then a jump to the loop of the right height and width."""
        kinds = ir.FunctionType(ir.VoidType(), self.arguments(self.scalar.as_pointer()))
        function = ir.Function(self.module, kinds, name)
        function.attributes.add("noinline")
        function.attributes.add("nounwind")
        function.attributes.add("optsize")
        rows, cols, self.depth, self.a, self.a_row, self.a_col = function.args[:6]
        self.b, self.b_row, self.b_panel, self.start, self.start_row = function.args[6:11]
        self.c, self.c_row, self.c_next, mode = function.args[11:]

        builder = ir.IRBuilder(function.append_basic_block("entry"))
        lanes = self.lanes
        self.cols = cols
        # A shift: the compiler cannot know that columns are no negative number.
        self.vectors_left = builder.lshr(builder.add(cols, _i64(lanes - 1)), _i64(lanes.bit_length() - 1))
        self.from_start, self.add_to = (
            builder.icmp_signed("!=", builder.and_(mode, _i64(int(flag))), _i64(0))
            for flag in (FROM_START, ADD_TO)
        )
        done = function.append_basic_block("done")
        heights = builder.switch(rows, done)
        for height in range(1, MAX_ROWS + 1):
            block = function.append_basic_block(f"tile{height}")
            heights.add_case(_i64(height), block)
            self._choose_width(block, done, height)
        builder.position_at_end(done)
        builder.ret_void()
        return function

    def _choose_width(self, block: ir.Block, done: ir.Block, height: int) -> None:
        """Go to the narrowest loop of this height that takes all columns."""
        vectors = 1
        widest = 2 * WIDE if height <= FEW_ROWS else 2
        while vectors < widest:
            fits, wider = (
                block.function.append_basic_block(f"tile{height}x{n}") for n in (vectors, 2 * vectors)
            )
            builder = ir.IRBuilder(block)
            builder.cbranch(builder.icmp_signed("<=", self.vectors_left, _i64(vectors)), fits, wider)
            self._write_tile(fits, done, height, vectors)
            block, vectors = wider, 2 * vectors
        self._write_tile(block, done, height, vectors)

    def _write_tile(self, case: ir.Block, done: ir.Block, height: int, vectors: int) -> None:
        """One tile of fixed size: load the start, loop over k, store."""
        builder = ir.IRBuilder(case)
        self.inside = [self._columns_inside(builder, j) for j in range(vectors)]
        cells = [(i, j) for i in range(height) for j in range(vectors)]
        start, begin, loop, end, add, store = (
            case.function.append_basic_block(f"{label}{height}x{vectors}")
            for label in ("start", "begin", "loop", "end", "add", "store")
        )
        builder.cbranch(self.from_start, start, begin)

        builder.position_at_end(start)
        loaded = [
            self._masked_load(builder, self._cell(builder, self.start, self.start_row, *ij), ij[1])
            for ij in cells
        ]
        builder.branch(begin)

        builder.position_at_end(begin)
        first = []
        for value in loaded:
            first.append(self._phi(builder, self.zero, case))
            first[-1].add_incoming(value, start)
        # Rows are addressed as four offsets from one moving pointer per group of four: three pointers and two
        # multiples of the stride fit the general registers, twelve pointers would spill.
        offsets = [builder.mul(self.a_row, _i64(i)) for i in range(min(height, 4))]
        groups = [builder.gep(self.a, [builder.mul(self.a_row, _i64(i))]) for i in range(0, height, 4)]
        panels = self._panels(builder, vectors)
        for i, j in cells:
            self._prefetch(builder, self._cell(builder, self.c_next, self.c_row, i, j), to_write=True)
        builder.cbranch(builder.icmp_signed(">", self.depth, _i64(0)), loop, end)

        after = self._write_loop(loop, begin, end, height, vectors, panels, groups, offsets, first)

        builder.position_at_end(end)
        totals = []
        for before, value in zip(first, after, strict=True):
            totals.append(self._phi(builder, before, begin))
            totals[-1].add_incoming(value, loop)
        builder.cbranch(self.add_to, add, store)

        builder.position_at_end(add)
        added = [
            builder.fadd(
                self._masked_load(builder, self._cell(builder, self.c, self.c_row, *ij), ij[1]), total
            )
            for ij, total in zip(cells, totals, strict=True)
        ]
        builder.branch(store)

        builder.position_at_end(store)
        results = []
        for total, value in zip(totals, added, strict=True):
            results.append(self._phi(builder, total, end))
            results[-1].add_incoming(value, add)
        for (i, j), value in zip(cells, results, strict=True):
            cell = self._cell(builder, self.c, self.c_row, i, j)
            builder.call(self.store, [value, cell, self.align, self.inside[j]])
        builder.branch(done)

    def _write_loop(
        self, loop: ir.Block, begin: ir.Block, end: ir.Block, height: int, vectors: int,
        panels: list[ir.Value], groups: list[ir.Value], offsets: list[ir.Value], first: list[ir.Value],
    ) -> list[ir.Value]:  # fmt: skip
        """The loop over k; the sums after it."""
        builder = ir.IRBuilder(loop)
        counter = self._phi(builder, self.depth, begin)
        b = [self._phi(builder, pointer, begin) for pointer in panels]
        group = [self._phi(builder, pointer, begin) for pointer in groups]
        sums = [self._phi(builder, value, begin) for value in first]
        b_vectors = [
            self._load_b(builder, builder.gep(b[j // 2], [_i64(j % 2 * self.lanes)]), j, vectors)
            for j in range(vectors)
        ]
        if height > FEW_ROWS:
            self._prefetch_ahead(builder, b[0], vectors)
        a_scalars = [
            self._load(builder, builder.gep(group[i // 4], [offsets[i % 4]]), self.scalar)
            for i in range(height)
        ]
        a_vectors = [_splat(builder, value, self.lanes) for value in a_scalars]
        after = [
            builder.call(self.fma, [a_vectors[n // vectors], b_vectors[n % vectors], total])
            for n, total in enumerate(sums)
        ]
        left = builder.sub(counter, _i64(1))
        counter.add_incoming(left, loop)
        for pointer in b:
            pointer.add_incoming(builder.gep(pointer, [self.b_row]), loop)
        for pointer in group:
            pointer.add_incoming(builder.gep(pointer, [self.a_col]), loop)
        for running, value in zip(sums, after, strict=True):
            running.add_incoming(value, loop)
        builder.cbranch(builder.icmp_signed("!=", left, _i64(0)), loop, end)
        return after

    def _panels(self, builder: ir.IRBuilder, vectors: int) -> list[ir.Value]:
        """Where the panels of B begin. The last one stands in for those that are not there, since nothing
        that comes of them is stored."""
        last = builder.lshr(builder.sub(self.vectors_left, _i64(1)), _i64(1))
        places = [
            builder.select(builder.icmp_signed("<", _i64(p), last), _i64(p), last)
            for p in range(1, vectors // 2)
        ]
        return [self.b, *(builder.gep(self.b, [builder.mul(self.b_panel, place)]) for place in places)]

    def _columns_inside(self, builder: ir.IRBuilder, j: int) -> ir.Value:
        """The mask of vector j: which of its columns there are."""
        lanes = self.lanes
        index = ir.Constant(ir.VectorType(_I32, lanes), list(range(j * lanes, (j + 1) * lanes)))
        return builder.icmp_signed("<", index, _splat(builder, builder.trunc(self.cols, _I32), lanes))

    def _prefetch(self, builder: ir.IRBuilder, pointer: ir.Value, to_write: bool = False) -> None:
        hints = (int(to_write), 3, 1)  # read or write, all levels of the cache, data
        line = builder.bitcast(pointer, self.bytes)
        builder.call(self.prefetch, [line, *(ir.Constant(_I32, hint) for hint in hints)])

    def _prefetch_ahead(self, builder: ir.IRBuilder, b: ir.Value, vectors: int) -> None:
        """Fetch B some rows ahead, over the end of the panel into the next: the processor's own prefetchers
        stop at each page."""
        ahead = builder.gep(b, [builder.mul(self.b_row, _i64(ROWS_AHEAD))])
        for place in range(0, vectors * VECTOR_BYTES, LINE_BYTES):
            self._prefetch(builder, builder.gep(ahead, [_i64(place // self.itemsize)]))

    def _masked_load(self, builder: ir.IRBuilder, cell: ir.Value, j: int) -> ir.Value:
        return builder.call(self.load, [cell, self.align, self.inside[j], self.zero])

    def _load_b(self, builder: ir.IRBuilder, place: ir.Value, j: int, vectors: int) -> ir.Value:
        """Vector j of so many of a row of B."""
        if not MASKS_B or j < vectors // 2:
            return self._load(builder, place, self.vector)
        place = builder.bitcast(place, self.vector.as_pointer())
        return builder.call(self.load, [place, self.align, self.inside[j], self.zero])

    def _phi(self, builder: ir.IRBuilder, value: ir.Value, block: ir.Block) -> ir.PhiInstr:
        phi = builder.phi(value.type)
        phi.add_incoming(value, block)
        return phi

    def _load(self, builder: ir.IRBuilder, pointer: ir.Value, kind: ir.Type) -> ir.Value:
        load = builder.load(builder.bitcast(pointer, kind.as_pointer()))
        load.align = self.itemsize  # operands are aligned to their elements only
        return load

    def _cell(self, builder: ir.IRBuilder, base: ir.Value, stride: ir.Value, i: int, j: int) -> ir.Value:
        """Pointer to vector j of row i of C or of the start."""
        offset = builder.add(builder.mul(stride, _i64(i)), _i64(j * self.lanes))
        return builder.bitcast(builder.gep(base, [offset]), self.vector.as_pointer())


def _tile_twin(rows, cols, depth, a, b, start, c, mode):
    """The tile in plain NumPy, for NUMBA_DISABLE_JIT; the order of the sums is the same."""
    a_array, a_first, a_row, a_col = a
    b_array, b_first, b_row, b_panel = b
    start_array, start_first, start_row = start
    c_array, c_first, c_row, _ = c
    j, width = np.arange(cols), panel_width(a_array.dtype)
    c_index = c_first + np.arange(rows)[:, None] * c_row + j
    if mode & FROM_START:
        total = start_array.reshape(-1)[start_first + np.arange(rows)[:, None] * start_row + j]
    else:
        total = np.zeros((rows, cols), a_array.dtype)
    a_flat, b_flat, c_flat = a_array.reshape(-1), b_array.reshape(-1), c_array.reshape(-1)
    for k in range(depth):
        a_column = a_flat[a_first + np.arange(rows) * a_row + k * a_col]
        total = total + a_column[:, None] * b_flat[b_first + k * b_row + j // width * b_panel + j % width]
    c_flat[c_index] = c_flat[c_index] + total if mode & ADD_TO else total


def _symbol(dtype: types.Float) -> str:
    """Name under which compiled kernels find the tile."""
    return f"rnnfast_tile_{dtype}"


@intrinsic(lambda like: None)
def _define_tile(typing_context, like):
    """Put the tile for the dtype of `like` into the module being compiled, as an exported function."""

    def codegen(context, builder, signature, arguments):
        scalar = ir.FloatType() if like.dtype == types.float32 else ir.DoubleType()
        _TileWriter(builder.module, scalar, like.dtype.bitwidth // 8).define(_symbol(like.dtype))
        return context.get_dummy_value()

    return types.void(like), codegen


@library
def _tile_library(like):
    """Holds the compiled tile, which other kernels call by symbol.

    Compiled into each of their libraries and into those of their inner functions, the 24 loops made a cold
    start three times as long.
    """
    _define_tile(like)


@functools.cache
def load_tile(dtype: types.Float) -> None:
    """Compile the tile, or load it from the cache, and give its address to the linker of later libraries."""
    result = _tile_library.get_compile_result(types.void(types.Array(dtype, 1, "C")))
    address = result.library.get_pointer_to_function(_symbol(dtype))
    llvm.add_symbol(_symbol(dtype), address)


@intrinsic(_tile_twin)
def tile(typing_context, rows, cols, depth, a, b, start, c, mode):
    """C = start + A B on one tile; `mode` combines OVERWRITE, FROM_START, ADD_TO.

    a      (array, first, row stride, column stride)  read
    b      (array, first, row stride, panel stride)   read, unless MASKS_B up to whole panels
    start  (array, first, row stride)                 read if FROM_START; row stride 0 repeats a row, a bias
    c      (array, first, row stride, next)           overwritten, or accumulated if ADD_TO; may be `start`

    `next` is where the tile after this one will begin; its lines of C are fetched while this one sums.
    Offsets and strides count elements from the start of the array's memory.
    """
    i64 = types.int64
    dtype = a[0].dtype
    operands = (types.Tuple([kind[0], *[i64] * (len(kind) - 1)]) for kind in (a, b, start, c))
    signature = types.void(i64, i64, i64, *operands, i64)

    def codegen(context, builder, signature, arguments):
        load_tile(dtype)
        pointer = (ir.FloatType() if dtype == types.float32 else ir.DoubleType()).as_pointer()
        kinds = ir.FunctionType(ir.VoidType(), _TileWriter.arguments(pointer))
        function = cgutils.get_or_insert_function(builder.module, kinds, _symbol(dtype))
        rows, cols, depth, *values, mode = arguments
        flat = [rows, cols, depth]
        for kind, value in zip(signature.args[3:7], values, strict=True):
            array, first, *strides = cgutils.unpack_tuple(builder, value)
            data = context.make_array(kind[0])(context, builder, array).data
            flat += [builder.gep(data, [first]), *strides]
        flat[-1] = builder.gep(data, [flat[-1]])  # the last entry of c is a place, too
        builder.call(function, [*flat, mode])
        return context.get_dummy_value()

    return signature, codegen
