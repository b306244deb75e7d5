"""Packing and blocking around the tile: C = start + A B for operands of any size.

B is packed once into panels of `panel_width` columns, (panels, depth, panel_width), padded with zeros, and
can then be used in any number of products. A is read in place, by row and column stride, so that one routine
computes `A B`, `A^T B` and products of strided (N, T, D) rows. Operands are tuples of a flat array, the
offset of the first element and strides, counted in elements. With this single array type Numba compiles one
gemm per dtype.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from .._jit import inline, inner, kernel
from ..codegen.vectors import VECTOR_BYTES, copy_panel_edge, copy_panel_row, transpose_block
from .bfloat16 import PAIRS, pack_pairs, pairs_of
from .tile import FEW_ROWS, MAX_ROWS, PANEL_BYTES, WIDE, panel_width, tile

# Bytes of A in one pass over the panels of B: half of a 1 MiB L2 cache. Blocks have about equal heights: with
# blocks of 60 and 4 rows instead, the second of which reads all of B again, an LSTM of (64, 50, 1024, 1024)
# took 1.05 times as long on Granite Rapids. There 256 KiB took 1.03 times as long for (32, 256, 256, 512),
# 1 MiB 1.04.
BLOCK_BYTES = 512 * 1024

# Small matrices used few times are not packed, unless their rows would share cache sets. LSTM forward without
# packing, relative to its time with packing: 0.83 at (10, 5, 100, 100), 0.95 at (10, 20, 100, 100), 1.11 at
# (1, 50, 100, 100); 1.1 to 1.6 if the rows of W are multiples of 512 bytes.
UNPACKED_BYTES, UNPACKED_USES, SHARED_SETS = 512 * 1024, 16, 512
# Large matrices are packed from the third use on. An LSTM of 650 units forward, relative to its time with
# packing: one step 0.60, two steps 0.77, four steps 1.2.
FEW_USES = 2
MANY = np.int64(2**62)  # uses of a matrix that is always packed
READY = np.int64(2**62 + 1)  # uses of a matrix whose packed form an earlier call has made


def packed_size(depth: int, cols: int, dtype: np.dtype) -> int:
    """Elements of the packed form of a (depth, cols) matrix."""
    width = panel_width(dtype)
    return -(-cols // width) * depth * width


def packed_shape(depth: int, cols: int, dtype: np.dtype, rounds: bool) -> tuple[tuple[int], np.dtype]:
    """The shape and the type of the packed form of a (depth, cols) matrix, in pairs if it is rounded."""
    if rounds:
        return (packed_size(-(-depth // 2), cols, PAIRS),), PAIRS
    return (packed_size(depth, cols, dtype),), dtype


# Constants in operands. As Python literals they would be separate types, and each combination would compile
# another gemm; a function that converts them takes 30 ms to inline at each call.
ZERO, ONE = np.int64(0), np.int64(1)


@inner
def _pack_block(depth, count, flat, first, row_stride, col_stride, packed, place):
    """One panel: packed[place + k width + j] = flat[first + k row_stride + j col_stride], 0 from `count` on.

    If rows of the matrix are contiguous columns of the panel, square blocks are transposed in registers.
    """
    width = PANEL_BYTES // flat.itemsize
    lanes = VECTOR_BYTES // flat.itemsize
    whole_rows, whole_cols = 0, 0
    if row_stride == 1:
        whole_rows, whole_cols = depth // lanes * lanes, count // lanes * lanes
        for j in range(0, whole_cols, lanes):
            for k in range(0, whole_rows, lanes):
                transpose_block(
                    flat, first + j * col_stride + k, col_stride, packed, place + k * width + j, width
                )
    for k in range(depth):
        target = place + k * width
        for j in range(whole_cols if k < whole_rows else 0, count):
            packed[target + j] = flat[first + k * row_stride + j * col_stride]
        for j in range(count, width):
            packed[target + j] = 0


@inner
def pack(part, parts, depth, cols, w, packed):
    """packed[j // width, k, j % width] = w[k, j], zero beyond the last column; one part of the panels.

    w       (array, first, row stride, column stride)   (depth, cols), read
    packed  (packed_size(depth, cols),)                 overwritten
    """
    flat, first, row_stride, col_stride = w
    width = PANEL_BYTES // flat.itemsize
    panels = (cols + width - 1) // width
    begin, end = panels * part // parts * width, min(panels * (part + 1) // parts * width, cols)
    if col_stride == 1:
        # Row by row, so that W is read in order: of 650 x 650 cold floats each took 0.42 ns, 0.59 by panels.
        whole = min(end, cols // width * width)
        for k in range(depth):
            row = first + k * row_stride
            for left in range(begin, whole, width):
                copy_panel_row(flat, row + left, packed, left * depth + k * width)
            if whole < end:
                copy_panel_edge(flat, row + whole, end - whole, packed, whole * depth + k * width)
    else:
        for left in range(begin, end, width):
            start, place = first + left * col_stride, left * depth
            _pack_block(depth, min(width, cols - left), flat, start, row_stride, col_stride, packed, place)


@inline
def packed_view(packed, depth):
    """The operand for a packed matrix of `depth` rows."""
    width = PANEL_BYTES // packed.itemsize
    return (packed, ZERO, np.int64(width), depth * width)


class Packing(NamedTuple):
    """How operands are packed: `pack_weights`, `pack_for` and `elements` of `packing`."""

    weights: Any
    weights_for: Any
    elements: Any


@functools.cache
def packing(rounds: bool) -> Packing:
    """The functions that pack operands; `rounds` says that they are rounded to bfloat16, in pairs."""
    ROUNDS = bool(rounds)

    @inline
    def pack_weights(part, parts, depth, cols, w, packed):
        """`pack`, or `pack_pairs` if operands are rounded."""
        if ROUNDS:
            pack_pairs(part, parts, depth, cols, w, packed)
        else:
            pack(part, parts, depth, cols, w, packed)

    @inline
    def pack_for(uses, part, parts, depth, cols, w, packed):
        """The operand B for a matrix used by `uses` tiles of rows: W in place or packed; in pairs always
        packed.

        w       (array, first, row stride, column stride)   (depth, cols), read
        packed  (packed_size(depth, cols),)                 scratch; read if `uses` is READY
        """
        if ROUNDS:
            if uses != READY:
                pack_pairs(part, parts, depth, cols, w, packed)
            b = packed_view(packed, pairs_of(depth))
        else:
            array, first, row_stride, col_stride = w
            b = (array, first, row_stride, np.int64(PANEL_BYTES // packed.itemsize))
            row_bytes = row_stride * packed.itemsize
            is_small = uses <= UNPACKED_USES and depth * row_bytes <= UNPACKED_BYTES
            in_place = col_stride == 1 and (is_small or uses <= FEW_USES)
            if not (in_place and row_bytes % SHARED_SETS and row_bytes >= VECTOR_BYTES):
                if uses != READY:
                    pack(part, parts, depth, cols, w, packed)
                b = packed_view(packed, depth)
        return b

    @inline
    def elements(depth):
        """Elements of an operand that hold `depth` values."""
        count = depth
        if ROUNDS:
            count = pairs_of(depth)
        return count

    return Packing(pack_weights, pack_for, elements)


@inner
def gemm(rows, cols, depth, a, b, start, c, mode):
    """C = start + A B; `mode` as in `tile`.

    a      (array, first, row stride, column stride)   (rows, depth), read
    b      (array, first, row stride, panel stride)    (depth, cols), read: see `tile`
    start  (array, first, row stride, panel stride)    (rows, cols), read if FROM_START
    c      (array, first, row stride, panel stride)    (rows, cols), overwritten or accumulated

    Of operands in pairs `depth` counts the pairs.

    A panel stride is the distance from one group of panel_width columns to the next; in plain matrices it is
    panel_width.
    """
    a_array, a_first, a_row, a_col = a
    b_array, b_first, b_row, b_panel = b
    start_array, start_first, start_row, start_panel = start
    c_array, c_first, c_row, c_panel = c
    width = PANEL_BYTES // a_array.itemsize
    block_rows, together = rows, 1
    if rows > MAX_ROWS:
        blocks = max(1, (rows * depth * a_array.itemsize + BLOCK_BYTES - 1) // BLOCK_BYTES)
        block_rows = ((rows + MAX_ROWS - 1) // MAX_ROWS + blocks - 1) // blocks * MAX_ROWS
    elif rows <= FEW_ROWS and c_panel == width and start_panel == width:
        together = WIDE
    top = 0  # no ranges: they divide by their step, which takes 5 % of a product of 1 x 32 x 32
    while top < rows:
        height = min(block_rows, rows - top)
        tiles, shorter, taller = 1, height, 0
        if height > MAX_ROWS:
            tiles = (height + MAX_ROWS - 1) // MAX_ROWS
            shorter = height // tiles  # tiles have equal heights: 20 as 10 + 10, not 12 + 8
            taller = height - shorter * tiles
        panel = 0
        while panel * width < cols:
            count = min(width * together, cols - panel * width)
            row = top
            for index in range(tiles):
                rows_here = shorter + 1 if index < taller else shorter
                if index + 1 < tiles:
                    following = c_first + (row + rows_here) * c_row + panel * c_panel
                else:
                    following = c_first + top * c_row + (panel + together) * c_panel
                tile(
                    rows_here,
                    count,
                    depth,
                    (a_array, a_first + row * a_row, a_row, a_col),
                    (b_array, b_first + panel * b_panel, b_row, b_panel),
                    (start_array, start_first + row * start_row + panel * start_panel, start_row),
                    (c_array, c_first + row * c_row + panel * c_panel, c_row, following),
                    mode,
                )
                row += rows_here
            panel += together
        top += height


@kernel
def pack_forward(w, packed):
    """packed = w in panels, as `pack`.

    w       (depth, cols)                 read
    packed  (packed_size(depth, cols),)   overwritten
    """
    pack(ZERO, ONE, w.shape[0], w.shape[1], (w.reshape(-1), ZERO, w.shape[1], ONE), packed)


@kernel
def gemm_forward(a, packed, b, c, mode):
    """C = b + A B with B packed, for tests and benchmarks; `mode` as in `tile`.

    a       (rows, depth)                 read
    packed  (packed_size(depth, cols),)   read
    b       (cols,)                       read if FROM_START
    c       (rows, cols)                  overwritten or accumulated
    """
    rows, depth = a.shape
    cols = c.shape[1]
    width = PANEL_BYTES // a.itemsize
    gemm(
        rows,
        cols,
        depth,
        (a.reshape(-1), ZERO, depth, ONE),
        packed_view(packed, depth),
        (b, ZERO, ZERO, width),
        (c.reshape(-1), ZERO, cols, width),
        mode,
    )
