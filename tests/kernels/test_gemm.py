"""Packing and blocking around the tile, against NumPy in float64 and, on whole numbers, exactly."""

import hypothesis.strategies as st
import numpy as np
import pytest
import reference
from helpers import DTYPES, assert_same_bits, laid_out, normal, poisoned, sized
from hypothesis import given, settings
from rnnfast.kernels._jit import kernel
from rnnfast.kernels.product.gemm import BLOCK_BYTES, gemm, gemm_forward, pack, pack_forward, packed_size
from rnnfast.kernels.product.tile import ADD_TO, FROM_START, MAX_ROWS, OVERWRITE, panel_width

MODES = [OVERWRITE, FROM_START, ADD_TO]


@kernel
def run_pack(depth, cols, w, first, row, col, packed):
    """`pack`, for any strides."""
    pack(0, 1, depth, cols, (w, first, row, col), packed)


@kernel
def run_gemm(
    rows, cols, depth, a, a_first, a_row, a_col, b, b_first, b_row, b_panel,
    start, start_first, start_row, start_panel, c, c_first, c_row, c_panel, mode,
):  # fmt: skip
    """`gemm`, for any strides."""
    gemm(
        rows, cols, depth, (a, a_first, a_row, a_col), (b, b_first, b_row, b_panel),
        (start, start_first, start_row, start_panel), (c, c_first, c_row, c_panel), mode,
    )  # fmt: skip


def packed(w):
    """W in panels."""
    depth, cols = w.shape
    panels = poisoned(packed_size(depth, cols, w.dtype), w.dtype)
    pack_forward(np.ascontiguousarray(w), panels)
    return panels


def naive_panels(w):
    """The layout that `pack` promises."""
    depth, cols = w.shape
    width = panel_width(w.dtype)
    panels = np.zeros((-(-cols // width), depth, width), w.dtype)
    for j in range(cols):
        panels[j // width, :, j % width] = w[:, j]
    return panels.ravel()


def edge_columns(dtype):
    """Column counts around the edges of vectors and panels."""
    width = panel_width(np.dtype(dtype))
    lanes = width // 2
    return sorted({1, lanes - 1, lanes, lanes + 1, width - 1, width, width + 1, 2 * width + 3} - {0})


def error_bound(a, b, *terms):
    """Largest error of the sums by their length, from the sums of magnitudes."""
    magnitude = np.abs(a).astype(np.float64) @ np.abs(b).astype(np.float64) + sum(np.abs(t) for t in terms)
    return (a.shape[1] + 2) * np.finfo(a.dtype).eps * magnitude


def check_gemm(rows, cols, depth, dtype, mode, a_layout="plain", seed=0):
    """C = start + A B between guards, against NumPy in float64."""
    rng = np.random.default_rng(seed)
    width = panel_width(np.dtype(dtype))
    a, w, start, c = (
        normal(rng, s, dtype) for s in ((rows, depth), (depth, cols), (rows, cols), (rows, cols))
    )
    a_row, a_col = {
        "plain": (depth, 1),
        "transposed": (1, rows + 2),
        "strided": (3 * depth + 1, 2),
        "reversed rows": (-depth - 1, 1),
        "reversed and transposed": (1, -rows - 1),
    }[a_layout]
    a_flat, a_first, _ = laid_out(a, a_row, col_stride=a_col)
    start_flat, start_first, _ = laid_out(start, cols + 5)
    flat, c_first, places = laid_out(c if mode & ADD_TO else poisoned(c.shape, dtype), cols + 2)
    untouched = np.ones(flat.size, bool)
    untouched[places] = False
    run_gemm(
        rows, cols, depth, a_flat, a_first, a_row, a_col, packed(w), 0, width, depth * width,
        start_flat, start_first, cols + 5, width, flat, c_first, cols + 2, width, mode,
    )  # fmt: skip
    wide = [m.astype(np.float64) for m in (a, w, start, c)]
    terms = ([wide[2]] if mode & FROM_START else []) + ([wide[3]] if mode & ADD_TO else [])
    expected = wide[0] @ wide[1] + sum(terms)
    assert (np.abs(flat[places] - expected) <= error_bound(a, w, *terms)).all(), (rows, cols, depth)
    assert np.isnan(flat[untouched]).all(), (rows, cols, depth)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", MODES)
def test_every_size_around_the_tile_edges_equals_numpy(dtype, mode):
    for rows in (0, 1, 2, 11, 12, 13, 24, 25):
        for cols in edge_columns(dtype):
            for depth in (0, 1, 2, 17):
                check_gemm(rows, cols, depth, dtype, mode)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("a_layout", ["transposed", "strided", "reversed rows", "reversed and transposed"])
def test_a_is_read_where_it_lies(dtype, a_layout):
    for rows, cols, depth in ((1, 1, 1), (13, 3, 17), (25, 2 * panel_width(np.dtype(dtype)) + 3, 5)):
        check_gemm(rows, cols, depth, dtype, FROM_START, a_layout)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_beyond_one_cache_block_are_done_too(dtype):
    depth = BLOCK_BYTES // (np.dtype(dtype).itemsize * MAX_ROWS)  # a block of 12 rows
    for rows in (MAX_ROWS - 1, MAX_ROWS, MAX_ROWS + 1, 2 * MAX_ROWS + 1):
        check_gemm(rows, 3, depth, dtype, ADD_TO)
    check_gemm(MAX_ROWS + 1, 3, 2 * depth, dtype, OVERWRITE)


@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_do_not_depend_on_the_height_of_the_product(dtype):
    rng = np.random.default_rng(1)
    a, w, b = normal(rng, (37, 19), dtype), normal(rng, (19, 40), dtype), normal(rng, 40, dtype)
    expected = poisoned((37, 40), dtype)
    gemm_forward(a, packed(w), b, expected, FROM_START)
    for rows in (1, 2, 5, 11, 12, 13, 25):
        actual = poisoned((rows, 40), dtype)
        gemm_forward(np.ascontiguousarray(a[-rows:]), packed(w), b, actual, FROM_START)
        assert_same_bits(actual, expected[-rows:])


@settings(max_examples=sized(200, 30))
@given(st.data())
def test_products_of_whole_numbers_are_exact(data):
    dtype = data.draw(st.sampled_from(DTYPES))
    width = panel_width(np.dtype(dtype))
    rows, cols, depth = (data.draw(st.integers(0, most)) for most in (30, 2 * width + 3, 20))
    mode = data.draw(st.sampled_from([*MODES, FROM_START | ADD_TO]))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    a, w, start, c = (
        rng.integers(-9, 10, s) for s in ((rows, depth), (depth, cols), (rows, cols), (rows, cols))
    )
    sign, transposed, gap = (
        data.draw(st.sampled_from([1, -1])),
        data.draw(st.booleans()),
        data.draw(st.integers(0, 3)),
    )
    a_row, a_col = (1, sign * (rows + gap)) if transposed else (sign * (depth + gap), 1)
    c_panel = width + gap if gap else width
    c_row = (cols // width + 1) * c_panel + gap
    start_is_c = data.draw(st.booleans())
    expected = a @ w + (mode & FROM_START > 0) * (c if start_is_c else start) + (mode & ADD_TO > 0) * c
    a_flat, a_first, _ = laid_out(a.astype(dtype), a_row, col_stride=a_col)
    flat, c_first, places = laid_out(c.astype(dtype), c_row, c_panel)
    c_operand = flat, c_first, c_row, c_panel
    start_flat, start_first, _ = laid_out(start.astype(dtype), cols + gap)
    start_operand = c_operand if start_is_c else (start_flat, start_first, cols + gap, width)
    before = flat.copy()
    before[places] = expected
    run_gemm(
        rows, cols, depth, a_flat, a_first, a_row, a_col, packed(w.astype(dtype)), 0, width, depth * width,
        *start_operand, *c_operand, mode,
    )  # fmt: skip
    np.testing.assert_array_equal(flat, before)


@pytest.mark.parametrize("dtype", DTYPES)
def test_b_may_be_rows_of_whole_panels_instead_of_packed(dtype):
    rng = np.random.default_rng(2)
    width = panel_width(np.dtype(dtype))
    a, w = rng.integers(-9, 10, (5, 7)), rng.integers(-9, 10, (7, 2 * width))
    c = poisoned((5, 2 * width - 1), dtype)
    operand = c.ravel(), 0, c.shape[1], width
    run_gemm(
        *c.shape, 7, a.ravel().astype(dtype), 0, 7, 1, w.ravel().astype(dtype), 0, 2 * width, width,
        *operand, *operand, OVERWRITE,
    )  # fmt: skip
    np.testing.assert_array_equal(c, (a @ w)[:, :-1])


def test_the_product_is_that_of_the_reference():
    rng = np.random.default_rng(3)
    a, w, b = rng.standard_normal((3, 4)), rng.standard_normal((4, 5)), rng.standard_normal(5)
    actual = poisoned((3, 5), np.float64)
    gemm_forward(a, packed(w), b, actual, FROM_START)
    np.testing.assert_allclose(actual, reference.gemm(a, w, start=b), rtol=0, atol=1e-15 * 30)


@pytest.mark.parametrize("dtype", DTYPES)
def test_panels_hold_the_matrix_and_zeros(dtype):
    rng = np.random.default_rng(4)
    lanes = panel_width(np.dtype(dtype)) // 2
    for depth in (0, 1, 2, lanes - 1, lanes, 2 * lanes + 1, sized(130, 40)):
        for cols in edge_columns(dtype):
            w = normal(rng, (depth, cols), dtype)
            expected = naive_panels(w)
            assert packed_size(depth, cols, w.dtype) == expected.size
            for row, col in (
                (cols, 1),
                (cols + 3, 1),
                (1, depth),
                (1, depth + 3),
                (-cols, 1),
                (2 * cols, 2),
                (-1, depth),
            ):
                flat, first, _ = laid_out(w, row, col_stride=col)
                actual = poisoned(expected.size + 5, dtype)
                run_pack(depth, cols, flat, first, row, col, actual)
                np.testing.assert_array_equal(actual[:-5], expected)
                assert np.isnan(actual[-5:]).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_transposed_panels_serve_the_backward_product(dtype):
    w = np.random.default_rng(6).integers(-9, 10, (19, 37))
    dy = np.random.default_rng(7).integers(-9, 10, (13, 37))
    panels = poisoned(packed_size(37, 19, np.dtype(dtype)), dtype)
    run_pack(37, 19, w.ravel().astype(dtype), 0, 1, 37, panels)
    dx = poisoned((13, 19), dtype)
    gemm_forward(dy.astype(dtype), panels, np.zeros(19, dtype), dx, OVERWRITE)
    np.testing.assert_array_equal(dx, dy @ w.T)
