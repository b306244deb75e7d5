"""Operands that many tiles read where they lie: each panel is copied, and no bit changes."""

import numpy as np
import pytest
from helpers import DTYPES, assert_same_bits, normal, poisoned
from rnnfast.kernels._jit import kernel
from rnnfast.kernels.gemm import ONE, ZERO, gemm, pack_forward, packed_size, packed_view
from rnnfast.kernels.panel_copy import COPIED_ROWS, COPIED_TILES
from rnnfast.kernels.tile import ADD_TO, FROM_START, MAX_ROWS, OVERWRITE, PANEL_BYTES, panel_width


@kernel
def both_products(a, b, packed, first, row, c, expected, mode):
    """C = A B, B with its rows at `first` + k `row` of a flat array; the same with B packed."""
    rows, depth = a.shape
    cols, width = c.shape[1], np.int64(PANEL_BYTES // a.itemsize)
    flat = (a.reshape(-1), ZERO, depth, ONE)
    for product, matrix in ((c, (b, first, row, width)), (expected, packed_view(packed, depth))):
        operand = (product.reshape(-1), ZERO, cols, width)
        gemm(rows, cols, depth, flat, matrix, operand, operand, mode)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", [OVERWRITE, FROM_START, ADD_TO])
@pytest.mark.parametrize("depth", [1, 9, COPIED_ROWS, COPIED_ROWS + 1])
@pytest.mark.parametrize("is_reversed", [False, True])
def test_copied_panels_give_the_bits_of_packed_ones(dtype, mode, depth, is_reversed):
    rng = np.random.default_rng(0)
    width = panel_width(np.dtype(dtype))
    rows, cols, row = COPIED_TILES * MAX_ROWS + 5, 2 * width + width // 2 + 1, 4 * width
    a, b = normal(rng, (rows, depth), dtype), normal(rng, (depth, cols), dtype)
    packed = poisoned(packed_size(depth, cols, np.dtype(dtype)), dtype)
    pack_forward(b, packed)
    lying = poisoned((depth + 1, row), dtype)
    lying[:depth, :cols] = b[::-1] if is_reversed else b
    first, step = ((depth - 1) * row, -row) if is_reversed else (0, row)
    c = poisoned((rows, cols), dtype) if mode == OVERWRITE else normal(rng, (rows, cols), dtype)
    expected = c.copy()
    both_products(a, lying.reshape(-1), packed, first, step, c, expected, mode)
    assert_same_bits(c, expected)
