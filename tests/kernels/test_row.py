"""The product of one row with a matrix where it lies: every width and depth, inside its borders."""

import numpy as np
import pytest
from helpers import DTYPES, assert_same_bits, normal, sized
from rnnfast.kernels._jit import kernel
from rnnfast.kernels.codegen.simd import fma
from rnnfast.kernels.codegen.vectors import VECTOR_BYTES
from rnnfast.kernels.product.row import MAX_VECTORS, add_product


@kernel
def run_add_product(source, weights, first, memory, begin, end):
    """Add the product to memory[begin : end]."""
    add_product(source, weights, first, memory[begin:end])


@kernel
def chains(source, weights, first, sums):
    """The sums as promised: one chain of multiply-adds each, over k ascending."""
    for j in range(sums.size):
        for k in range(source.size):
            sums[j] = fma(source[k], weights[k, first + j], sums[j])


def widths(dtype):
    """Around every number of vectors that has a loop of its own, and where they are dealt out in groups."""
    lanes = VECTOR_BYTES // np.dtype(dtype).itemsize
    counts = range(1, sized(2 * MAX_VECTORS + 3, 3))
    return sorted({count * lanes + more for count in counts for more in (-1, 0, 1)} | {0, 1, 2})


@pytest.mark.parametrize("depth", [0, 1, 2, 17])
@pytest.mark.parametrize("dtype", DTYPES)
def test_each_sum_is_one_chain_and_nothing_beside_the_columns_is_touched(dtype, depth):
    rng = np.random.default_rng(0)
    for cols in widths(dtype):
        for first, behind in ((0, 0), (3, 2)):
            weights = np.full((depth, first + cols + behind), np.nan, dtype)
            weights[:, first : first + cols] = normal(rng, (depth, cols), dtype)
            source, sums = normal(rng, depth, dtype), normal(rng, cols, dtype)
            memory = np.full(cols + 40, np.nan, dtype)
            begin = 11
            memory[begin : begin + cols] = sums
            expected = memory.copy()
            chains(source, weights, first, expected[begin : begin + cols])
            run_add_product(source, weights, first, memory, begin, begin + cols)
            assert_same_bits(memory, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_finite_stays_in_its_column(dtype):
    rng = np.random.default_rng(1)
    source, weights = normal(rng, 5, dtype), normal(rng, (5, 37), dtype)
    weights[2, 36], weights[4, 0] = np.nan, np.inf
    actual = np.zeros(37, dtype)
    run_add_product(source, weights, 0, actual, 0, 37)
    assert np.isnan(actual[36])
    assert np.isinf(actual[0])
    assert np.isfinite(actual[1:36]).all()
