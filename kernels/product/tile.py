"""The register-blocked tile: a small matrix product held in vector registers, written as vector IR.

    C[rows, cols] = start + A[rows, depth] B[depth, cols]        rows <= MAX_ROWS, cols <= panel_width
                                                             (FEW_ROWS and fewer: WIDE panel_width)

Every element of C is one chain of fused multiply-adds over k ascending, for any height of the tile and width
of the vectors. Therefore results are independent of batch size, blocking and instruction set.

The MAX_ROWS x 2 vectors of accumulators are kept in registers, as PHI nodes of the loop over k. A loop is
generated for each height and for one or two vectors of columns (few rows: up to four), so that no edge runs a
wider loop than it fills: on Zen 4 a 20-row product (two tiles of 10) reaches 114 of 117 GFLOP/s, like one of
24 rows. Columns beyond the edge are masked when C is read, and in the last row of B; its other rows are read
in whole vectors, since on Intel a masked load displaces a multiply-add. Only tiles with such columns write C
by masks: a masked store of AVX2 takes 12 cycles on Zen 4, so that a tile of 64 k took 1.35 times as long. On
a target without masked moves a partial tile is computed in a copy on the stack (`tile_edge.py`).
"""

from __future__ import annotations

import functools

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from .._jit import intrinsic, library
from ..codegen.vectors import TARGET, VECTOR_BYTES, Target
from .bfloat16 import PairWriter, halves_of
from .tile_edge import Matrix, TileEdge
from .tile_loop import FEW_ROWS, LINE_BYTES, WIDE, LoopWriter, Place, join


def most_rows(target: Target) -> int:
    """Rows of the tallest tile: two vectors of accumulators per row, with registers left for the operands.

    On AVX2, with 16 registers, twelve rows spill and reach 40 % of the peak, six rows 90 % (64 x 512 x 512).
    On ARM a vector of A is kept for each row.
    """
    if target.multiplies_by_element:
        return 8
    return 12 if target.vector_registers == 32 else 6


MAX_ROWS = most_rows(TARGET)

# Modes of the start and the end of a tile, which combine. NumPy integers: Numba would compile a gemm per
# literal.
OVERWRITE = np.int64(0)  # C = A B
FROM_START = np.int64(1)  # C = start + A B, one chain of multiply-adds beginning at `start`
ADD_TO = np.int64(2)  # C = C + (A B), the product summed first and added once

PANEL_BYTES = 2 * VECTOR_BYTES

# Row strides of scratch that is read in place as B are rounded up to this. All rows except the last are read
# in whole vectors, and tiles of few rows read up to one vector more. A stride of at least a vector and at
# least the columns keeps these reads inside the matrix; after a negative stride, another row has to follow.
READABLE_BYTES = max(LINE_BYTES, VECTOR_BYTES)


def panel_width(dtype: np.dtype) -> int:
    """Columns in one packed panel of B: two vectors."""
    return PANEL_BYTES // dtype.itemsize


_I64 = ir.IntType(64)


class _TileWriter(LoopWriter):
    """Writes the tile function for one float type into an LLVM module."""

    def __init__(self, module: ir.Module, dtype: types.Float, target: Target = TARGET) -> None:
        super().__init__(module, dtype, target)
        self.most_rows = most_rows(target)

    @staticmethod
    def arguments(p: ir.Type) -> list:
        """Types of rows, cols, depth, a, strides, b, strides, start, stride, c, stride, next c, mode."""
        return [_I64, _I64, _I64, p, _I64, _I64, p, _I64, _I64, p, _I64, p, _I64, p, _I64]

    def define(self, name: str) -> ir.Function:
        """The function: masks first, then a jump to the loop of the right height and width."""
        function = self.new_function(name, self.arguments(self.scalar.as_pointer()), "optsize")
        rows, cols, self.depth, self.a, self.a_row, self.a_col = function.args[:6]
        self.b, self.b_row, self.b_panel, self.start, self.start_row = function.args[6:11]
        self.c, self.c_row, self.c_next, mode = function.args[11:]
        self.c_next_row = self.c_row

        builder = ir.IRBuilder(function.append_basic_block("entry"))
        lanes = self.lanes
        self.cols = cols
        # A shift, since the compiler cannot know that columns are not negative.
        self.vectors_left = builder.lshr(builder.add(cols, _I64(lanes - 1)), _I64(lanes.bit_length() - 1))
        self.from_start, self.add_to = (
            builder.icmp_signed("!=", builder.and_(mode, _I64(int(flag))), _I64(0))
            for flag in (FROM_START, ADD_TO)
        )
        done = end = function.append_basic_block("done")
        if not self.target.has_masked_moves:
            edge = TileEdge(self, builder, (rows, cols), (self.most_rows, 2 * WIDE * lanes))
            self.last_row = edge.copy_last_row(builder, self.depth, Matrix(self.b, self.b_row), self.b_panel)
            start, c = Matrix(self.start, self.start_row), Matrix(self.c, self.c_row)
            self.start, self.start_row = edge.copy(builder, start, self.from_start)
            self.c, self.c_row = edge.copy(builder, c, self.add_to)
            done = edge.write_back(builder, Matrix(self.c, self.c_row), c, end)
        heights = builder.switch(rows, done)
        for height in range(1, self.most_rows + 1):
            block = function.append_basic_block(f"tile{height}")
            heights.add_case(_I64(height), block)
            self._choose_width(block, done, height)
        ir.IRBuilder(end).ret_void()
        return function

    def _choose_width(self, block: ir.Block, done: ir.Block, height: int) -> None:
        """Jump to the narrowest loop of this height that covers all columns."""
        vectors = 1
        widest = 2 * WIDE if height <= FEW_ROWS else 2
        while vectors < widest:
            fits, wider = (
                block.function.append_basic_block(f"tile{height}x{n}") for n in (vectors, 2 * vectors)
            )
            builder = ir.IRBuilder(block)
            builder.cbranch(builder.icmp_signed("<=", self.vectors_left, _I64(vectors)), fits, wider)
            self._write_tile(fits, done, height, vectors)
            block, vectors = wider, 2 * vectors
        self._write_tile(block, done, height, vectors)

    def _write_tile(self, case: ir.Block, done: ir.Block, height: int, vectors: int) -> None:
        """One tile of fixed size: load the start, loop over k, store; a last k apart if B is masked."""
        builder = ir.IRBuilder(case)
        self.inside: list = [None] * vectors  # all lanes, in the tile or on the stack
        if self.target.has_masked_moves:
            self.inside = [self.lanes_before(builder, self.cols, j * self.lanes) for j in range(vectors)]
        cells = [(i, j) for i in range(height) for j in range(vectors)]
        start, begin, edge, end, add, store, whole, part = (
            case.function.append_basic_block(f"{label}{height}x{vectors}")
            for label in ("start", "begin", "edge", "end", "add", "store", "whole", "part")
        )
        builder.cbranch(self.from_start, start, begin)

        builder.position_at_end(start)
        loaded = [
            self.load(builder, self._cell(builder, self.start, self.start_row, i, j), self.inside[j])
            for i, j in cells
        ]
        builder.branch(begin)

        builder.position_at_end(begin)
        first = join(builder, case, [self.zero] * len(cells), start, loaded)
        for i, j in cells:
            self.prefetch(builder, self._cell(builder, self.c_next, self.c_next_row, i, j), to_write=True)
        a, b = self.first_column(builder, self.a, height), self._panels(builder, vectors)
        partial = builder.icmp_signed("<", self.cols, _I64(vectors * self.lanes))
        count = builder.sub(self.depth, builder.zext(partial, _I64))
        groups, panels, sums = self.write_loops(builder, a, Place(a.groups, b, first), count)
        last, some = builder.block, builder.icmp_signed(">", self.depth, _I64(0))
        builder.cbranch(builder.and_(partial, some), edge, end)

        builder.position_at_end(edge)
        if not self.target.has_masked_moves:
            panels = [builder.gep(self.last_row, [_I64(2 * p * self.lanes)]) for p in range(len(panels))]
        column = self.column_of_a(builder, a._replace(groups=groups))
        at_edge = self.multiply(builder, column, self.row_of_b(builder, panels, self.inside), sums)
        builder.branch(end)

        builder.position_at_end(end)
        totals = join(builder, last, sums, edge, at_edge)
        builder.cbranch(self.add_to, add, store)

        builder.position_at_end(add)
        added = [
            builder.fadd(
                self.load(builder, self._cell(builder, self.c, self.c_row, i, j), self.inside[j]), total
            )
            for (i, j), total in zip(cells, totals, strict=True)
        ]
        builder.branch(store)

        builder.position_at_end(store)
        results = join(builder, end, totals, add, added)
        builder.cbranch(partial, part, whole)
        for block, masks in ((whole, [None] * vectors), (part, self.inside)):
            builder.position_at_end(block)
            for (i, j), value in zip(cells, results, strict=True):
                self.store(builder, value, self._cell(builder, self.c, self.c_row, i, j), masks[j])
            builder.branch(done)

    def _panels(self, builder: ir.IRBuilder, vectors: int) -> list[ir.Value]:
        """The places of the panels of B. The last panel replaces missing ones, whose results are not
        stored."""
        last = builder.lshr(builder.sub(self.vectors_left, _I64(1)), _I64(1))
        places = [
            builder.select(builder.icmp_signed("<", _I64(p), last), _I64(p), last)
            for p in range(1, vectors // 2)
        ]
        return [self.b, *(builder.gep(self.b, [builder.mul(self.b_panel, place)]) for place in places)]

    def _cell(self, builder: ir.IRBuilder, base: ir.Value, stride: ir.Value, i: int, j: int) -> ir.Value:
        """Pointer to vector j of row i of C or of the start."""
        return self.place(builder, builder.gep(base, [builder.mul(stride, _I64(i))]), j * self.lanes)


class _PairTileWriter(PairWriter, _TileWriter):
    """Writes the tile for operands in bfloat16, whose elements are pairs."""


def _tile_twin(rows, cols, depth, a, b, start, c, mode):
    """The tile in plain NumPy, for NUMBA_DISABLE_JIT; the order of the sums is the same."""
    a_array, a_first, a_row, a_col = a
    b_array, b_first, b_row, b_panel = b
    start_array, start_first, start_row = start
    c_array, c_first, c_row, _ = c
    i, j = np.arange(rows)[:, None], np.arange(cols)
    c_flat, c_index = c_array.reshape(-1), c_first + i * c_row + j
    if mode & FROM_START:
        total = start_array.reshape(-1)[start_first + i * start_row + j]
    else:
        total = np.zeros((rows, cols), c_array.dtype)
    k, width = np.arange(depth)[:, None], panel_width(a_array.dtype)
    columns = a_array.reshape(-1)[a_first + k * a_col + np.arange(rows) * a_row]
    of_b = b_array.reshape(-1)[b_first + k * b_row + j // width * b_panel + j % width]
    if a_array.dtype == np.int32:
        columns, of_b = (np.stack(halves_of(m), axis=1).reshape(2 * depth, -1) for m in (columns, of_b))
    for column, row in zip(columns[:, :, None], of_b, strict=True):
        total = total + column * row
    c_flat[c_index] = c_flat[c_index] + total if mode & ADD_TO else total


def _symbol(dtype: types.Number) -> str:
    """Name under which compiled kernels find the tile."""
    return f"rnnfast_tile_{dtype}"


@intrinsic(lambda like: None)
def _define_tile(typing_context, like):
    """Add the tile for the dtype of `like` to the module being compiled, as an exported function."""

    def codegen(context, builder, signature, arguments):
        is_pairs = like.dtype == types.int32
        writer = _PairTileWriter if is_pairs else _TileWriter
        writer(builder.module, types.float32 if is_pairs else like.dtype).define(_symbol(like.dtype))
        return context.get_dummy_value()

    return types.void(like), codegen


@library
def _tile_library(like):
    """Contains the compiled tile, which other kernels call by symbol.

    Compiling its 24 loops into the libraries of each kernel and its inner functions made a cold start three
    times as long.
    """
    _define_tile(like)


@functools.cache
def load_tile(dtype: types.Number) -> None:
    """Compile the tile, or load it from the cache, and give its address to the linker of later libraries."""
    result = _tile_library.get_compile_result(types.void(types.Array(dtype, 1, "C")))
    address = result.library.get_pointer_to_function(_symbol(dtype))
    llvm.add_symbol(_symbol(dtype), address)


@intrinsic(_tile_twin)
def tile(typing_context, rows, cols, depth, a, b, start, c, mode):
    """C = start + A B on one tile; `mode` combines OVERWRITE, FROM_START, ADD_TO.

    If A and B are arrays of int32, they have pairs in bfloat16: see bfloat16.py. C is then float32.

    a      (array, first, row stride, column stride)  read
    b      (array, first, row stride, panel stride)   read, all rows except the last in whole vectors
    start  (array, first, row stride)                 read if FROM_START; row stride 0 repeats a row, a bias
    c      (array, first, row stride, next)           overwritten, or accumulated if ADD_TO; may be `start`

    `next` is the place of the next tile; its lines of C are prefetched during the sums of this one.
    Offsets and strides count elements from the start of the array's memory.
    """
    i64 = types.int64
    dtype = a[0].dtype
    operands = (types.Tuple([kind[0], *[i64] * (len(kind) - 1)]) for kind in (a, b, start, c))
    signature = types.void(i64, i64, i64, *operands, i64)

    def codegen(context, builder, signature, arguments):
        load_tile(dtype)
        pointer = (ir.DoubleType() if dtype == types.float64 else ir.FloatType()).as_pointer()
        kinds = ir.FunctionType(ir.VoidType(), _TileWriter.arguments(pointer))
        function = cgutils.get_or_insert_function(builder.module, kinds, _symbol(dtype))
        rows, cols, depth, *values, mode = arguments
        flat = [rows, cols, depth]
        for kind, value in zip(signature.args[3:7], values, strict=True):
            array, first, *strides = cgutils.unpack_tuple(builder, value)
            data = context.make_array(kind[0])(context, builder, array).data
            flat += [builder.bitcast(builder.gep(data, [first]), pointer), *strides]
        flat[-1] = builder.gep(data, [flat[-1]])  # the last entry of c is a place, too
        builder.call(function, [*flat, mode])
        return context.get_dummy_value()

    return signature, codegen
