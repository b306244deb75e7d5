"""The register-blocked tile: every height, width, depth and mode, inside its borders and nowhere else."""

import ctypes
import mmap
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import DTYPES, assert_same_bits, laid_out, needs_jit, normal, poisoned
from rnnfast.kernels._jit import kernel
from rnnfast.kernels.codegen.simd import fma
from rnnfast.kernels.product.gemm import ONE, ZERO, gemm, packed_size, packing
from rnnfast.kernels.product.tile import (
    ADD_TO,
    FEW_ROWS,
    FROM_START,
    MAX_ROWS,
    OVERWRITE,
    PANEL_BYTES,
    WIDE,
    panel_width,
    tile,
)

pack_weights_for = packing(False).weights_for

PROT_NONE = 0  # of Linux: Python's mmap does not name it

MODES = [OVERWRITE, FROM_START, ADD_TO, FROM_START | ADD_TO]


@kernel
def run_tile(
    rows, cols, depth, a, a_first, a_row, a_col, b, b_first, b_row, b_panel,
    start, start_first, start_row, c, c_first, c_row, mode,
):  # fmt: skip
    """C = start + A B on one tile, with every operand given by its offset and strides."""
    tile(
        rows, cols, depth, (a, a_first, a_row, a_col), (b, b_first, b_row, b_panel),
        (start, start_first, start_row), (c, c_first, c_row, c_first), mode,
    )  # fmt: skip


@kernel
def chains(a, b, c):
    """c[i, j] += sum a[i, k] b[k, j]: one chain of multiply-adds over k ascending, as promised."""
    for i in range(c.shape[0]):
        for j in range(c.shape[1]):
            total = c[i, j]
            for k in range(a.shape[1]):
                total = fma(a[i, k], b[k, j], total)
            c[i, j] = total


def expected_tile(a, b, start, c, mode):
    """The bits of the tile."""
    total = start.copy() if mode & FROM_START else np.zeros_like(c)
    chains(a, b, total)
    return c + total if mode & ADD_TO else total


def heights(*some):
    """The heights that a tile of this target may have, and the tallest."""
    return [*(rows for rows in some if rows < MAX_ROWS), MAX_ROWS]


def column_counts(dtype):
    width = panel_width(np.dtype(dtype))
    lanes = width // 2
    return sorted({1, lanes - 1, lanes, lanes + 1, width - 1, width} - {0})


def check_tile(rng, rows, cols, depth, mode, dtype, a_strides=None, start_row=None, c_row=41):
    """Run one tile between guards and compare the bits of all memory."""
    width = panel_width(np.dtype(dtype))
    a, b, start, c = (
        normal(rng, shape, dtype) for shape in ((rows, depth), (depth, cols), (rows, cols), (rows, cols))
    )
    if start_row == 0:
        start[:] = start[:1]
    a_row, a_col = a_strides or (depth + 3, 1)
    a_flat, a_first, _ = laid_out(a, a_row, col_stride=a_col)
    b_flat, b_first, _ = laid_out(b, width + 2)  # what is read beyond the last column is NaN
    start_row = 43 if start_row is None else start_row
    start_flat, start_first, _ = laid_out(start, start_row)
    actual, c_first, places = laid_out(c, c_row)
    expected = actual.copy()
    expected[places] = expected_tile(a, b, start, c, mode)
    run_tile(
        rows, cols, depth, a_flat, a_first, a_row, a_col, b_flat, b_first, width + 2, 0,
        start_flat, start_first, start_row, actual, c_first, c_row, mode,
    )  # fmt: skip
    assert_same_bits(actual, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", MODES)
def test_every_height_and_width_writes_its_chains_and_nothing_else(dtype, mode):
    rng = np.random.default_rng(0)
    for rows in range(MAX_ROWS + 1):
        for cols in column_counts(dtype):
            for depth in (0, 1, 2, 17):
                check_tile(rng, rows, cols, depth, mode, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_tile_of_few_rows_takes_two_panels(dtype):
    rng = np.random.default_rng(5)
    width = panel_width(np.dtype(dtype))
    for rows in range(1, FEW_ROWS + 1):
        for cols in (width + 1, width + width // 2, width + width // 2 + 1, WIDE * width):
            depth, panels, row = 7, -(-cols // width), WIDE * width + 3
            a, b, c = (normal(rng, s, dtype) for s in ((rows, depth), (depth, panels * width), (rows, cols)))
            packed = np.ascontiguousarray(b.reshape(depth, panels, width).transpose(1, 0, 2)).ravel()
            actual, first, places = laid_out(c, row)
            expected = actual.copy()
            expected[places] = expected_tile(a, b[:, :cols], c, c, FROM_START)
            operand = actual, first, row
            run_tile(
                rows, cols, depth, a.ravel(), 0, depth, 1, packed, 0, width, depth * width,
                *operand, *operand, FROM_START,
            )  # fmt: skip
            assert_same_bits(actual, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "a_strides", [(1, 15), (2, 31), (-19, 1), (1, -13), (-1, -14), (100, 7)],
    ids=["transposed", "transposed with gaps", "last row first", "last step first", "both", "gaps"],
)  # fmt: skip
def test_a_is_read_by_its_strides(dtype, a_strides):
    rng = np.random.default_rng(1)
    width = panel_width(np.dtype(dtype))
    for rows in heights(1, 4, 5, 8, 9):
        check_tile(rng, rows, width - 1, 6, OVERWRITE, dtype, a_strides)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_start_of_row_stride_zero_is_a_bias(dtype):
    rng = np.random.default_rng(2)
    for rows in heights(1, 5, 7):
        check_tile(rng, rows, panel_width(np.dtype(dtype)) - 1, 5, FROM_START, dtype, start_row=0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_start_may_be_c_itself(dtype):
    rng = np.random.default_rng(3)
    a, b, c = (normal(rng, shape, dtype) for shape in ((5, 9), (9, panel_width(np.dtype(dtype))), (5, 3)))
    actual, first, places = laid_out(c, 11)
    expected = actual.copy()
    expected[places] = expected_tile(a, b[:, :3], c, c, FROM_START)
    operand = actual, first, 11
    run_tile(5, 3, 9, a.ravel(), 0, 9, 1, b.ravel(), 0, b.shape[1], 0, *operand, *operand, FROM_START)
    assert_same_bits(actual, expected)


@pytest.mark.parametrize("mode", MODES)
def test_nan_and_infinity_pass_through(mode):
    a = np.array([[np.inf, 1.0], [np.nan, 1.0], [1.0, 1.0]])
    b = np.zeros((2, panel_width(a.dtype)))
    b[:, 0] = 2.0
    c, start = np.ones((3, 1)), np.ones((3, 1))
    run_tile(
        3, 1, 2, a.ravel(), 0, 2, 1, b.ravel(), 0, b.shape[1], 0, start.ravel(), 0, 1, c.ravel(), 0, 1, mode
    )
    rest = 4.0 + bool(mode & FROM_START) + bool(mode & ADD_TO)
    np.testing.assert_array_equal(c.ravel(), [np.inf, np.nan, rest])


@kernel
def run_where_it_lies(a, b, row, cols, packed, c):
    """C = A B, B read where it lies if that is allowed."""
    rows, depth = a.shape
    width = PANEL_BYTES // b.itemsize
    w = pack_weights_for(ONE, ZERO, ONE, depth, cols, (b, ZERO, row, ONE), packed)
    operand = c.reshape(-1), ZERO, cols, width
    gemm(rows, cols, depth, (a.reshape(-1), ZERO, depth, ONE), w, operand, operand, OVERWRITE)


def run_tiles_at_the_end_of_memory():
    """Tiles whose B ends where a page begins that nobody may touch: a read beyond it ends the process."""
    page = mmap.PAGESIZE
    memory = mmap.mmap(-1, 2 * page)
    forbidden = ctypes.addressof(ctypes.c_char.from_buffer(memory)) + page
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(forbidden), page, PROT_NONE) == 0
    rng, depth = np.random.default_rng(7), 4
    for dtype in map(np.dtype, DTYPES):
        width = panel_width(dtype)
        for rows in (1, FEW_ROWS, FEW_ROWS + 1, MAX_ROWS):
            counts = column_counts(dtype)
            if rows <= FEW_ROWS:
                counts += [width + 1, width + width // 2, width + width // 2 + 1, 2 * width]
            # Strides of whole vectors, and the least that a matrix may have that is read where it lies.
            for cols, row in [(n, m) for n in counts for m in (-(-n // width) * width, max(n, width // 2))]:
                count = (depth - 1) * row + cols
                b = np.frombuffer(memory, dtype, count, page - count * dtype.itemsize)
                b[:] = normal(rng, count, dtype)
                a, c = normal(rng, (rows, depth), dtype), poisoned((rows, cols), dtype)
                operand = c.reshape(-1), 0, cols
                run_tile(
                    rows, cols, depth, a.reshape(-1), 0, depth, 1, b, 0, row, width,
                    *operand, *operand, OVERWRITE,
                )  # fmt: skip
                places = np.arange(depth)[:, None] * row + np.arange(cols)
                assert_same_bits(c, expected_tile(a, b[places], c, c, OVERWRITE))
            for cols in counts:  # rows shorter than a vector, too: those have to be packed
                b = np.frombuffer(memory, dtype, depth * cols, page - depth * cols * dtype.itemsize)
                b[:] = normal(rng, depth * cols, dtype)
                a, c = normal(rng, (rows, depth), dtype), poisoned((rows, cols), dtype)
                run_where_it_lies(a, b, cols, cols, poisoned(packed_size(depth, cols, dtype), dtype), c)
                assert_same_bits(c, expected_tile(a, b.reshape(depth, cols), c, c, OVERWRITE))


@needs_jit
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks the system to protect memory")
def test_nothing_is_read_beyond_the_last_element_of_b():
    code = "import sys; sys.path.append('..'); import test_tile; test_tile.run_tiles_at_the_end_of_memory()"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr or f"ended by signal {-done.returncode}"


@needs_jit
def test_panels_are_two_vectors_of_the_target():
    from numba.core.registry import cpu_target

    features = cpu_target.target_context.codegen().magic_tuple()[2]
    vector = 64 if "+avx512f" in features else 32 if "+avx2" in features else 16
    assert [panel_width(np.dtype(dtype)) for dtype in DTYPES] == [vector // 2, vector // 4]
