"""Formulas: the same function traced for numbers and for rows, and run by NumPy."""

import numba
import numpy as np
import pytest
from helpers import DTYPES, needs_jit
from rnnfast.kernels import _jit
from rnnfast.kernels.codegen.formula import by_dtype, formula, map_row
from rnnfast.kernels.codegen.simd import copy_sign, fma, scale_by_power_of_two, select

SHIFT = {np.float32: 1.5 * 2.0**23, np.float64: 1.5 * 2.0**52}
MARGIN = 40  # elements around a row that must stay as they are


@formula
def every_operation(a, b):
    """All that formulas are made of, with constants on either side."""
    total = 1 - (2 + a) * b / (abs(b) + 0.5) - a * 3
    nested = fma(a, 0.5, fma(2, b, select(b < 1, 1, 2)))
    return select(a > b, total, -a), select(a <= 0, 7, copy_sign(b, a)), nested


@formula
def one_result(a):
    return a * 2 - 1


@formula
def doubled_or_halved(a):
    return a * np.float32(0.5) if a.dtype == np.float32 else a * 2


@_jit.inner
def apply_two(count, a, first_a, b, first_b, x, y, z):
    map_row(every_operation, count, ((a, first_a), (b, first_b)), ((x, first_a), (y, first_b), (z, 3)))


@_jit.inner
def apply_in_place(count, a, first):
    map_row(one_result, count, ((a, first),), ((a, first),))


@_jit.inner
def apply_number(a):
    return one_result(a)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [0, 1, 3, 4, 7, 8, 15, 16, 17, 31, 32, 33, 64, 75])
def test_a_formula_over_rows_is_that_of_numpy_and_touches_nothing_else(dtype, count):
    rng = np.random.default_rng(count)
    a, b = rng.standard_normal((2, count + MARGIN)).astype(dtype)
    rows = np.full((3, count + MARGIN), np.nan, dtype)
    firsts = 5, 11, 3
    apply_two(count, a, firsts[0], b, firsts[1], *rows)
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = every_operation(a[5 : 5 + count], b[11 : 11 + count])
    for row, first, values in zip(rows, firsts, expected, strict=True):
        # The numbers may differ by the rounding of a product that a multiply-add does not have.
        np.testing.assert_allclose(row[first : first + count], values, rtol=0, atol=8 * np.finfo(dtype).eps)
        assert np.isnan(row[:first]).all()
        assert np.isnan(row[first + count :]).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_may_be_written_where_it_was_read(dtype):
    a = np.arange(50, dtype=dtype)
    apply_in_place(37, a, 4)
    np.testing.assert_array_equal(a[4:41], np.arange(4, 41) * 2 - 1)
    np.testing.assert_array_equal(np.delete(a, np.s_[4:41]), np.delete(np.arange(50), np.s_[4:41]))


@formula
def first_of_a_name(a):
    return a + 1


second_of_a_name = formula(lambda a: a + 2)
second_of_a_name.__name__, second_of_a_name.__module__ = first_of_a_name.__name__, first_of_a_name.__module__


@_jit.inner
def apply_both(count, x, y):
    map_row(first_of_a_name, count, ((x, 0),), ((x, 0),))
    map_row(second_of_a_name, count, ((y, 0),), ((y, 0),))


def test_two_formulas_of_one_name_stay_two():
    x, y = np.zeros((2, 20))
    apply_both(20, x, y)
    assert (x == 1).all()
    assert (y == 2).all()


@needs_jit
def test_a_row_of_less_than_nothing_is_left_alone():
    a = np.zeros(60, np.float32)
    apply_in_place(-5, a, 40)
    assert not a.any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_number_and_a_row_have_the_same_bits(dtype):
    a = np.random.default_rng(0).standard_normal(33).astype(dtype)
    single = np.array([apply_number(value) for value in a], dtype)
    apply_in_place(33, a, 0)
    assert single.tobytes() == a.tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_comparison_with_nan_does_not_hold(dtype):
    a = np.array([np.nan, 1.0, np.nan, -1.0], dtype)
    b = np.array([1.0, np.nan, np.nan, 0.5], dtype)
    x, y, z = np.zeros((3, 8), dtype)
    apply_two(4, a, 0, b, 0, x, y, z)
    np.testing.assert_array_equal(x[:4], -a)
    np.testing.assert_array_equal(y[:4], [1, np.nan, np.nan, 7])  # the second choice, and once the first


@pytest.mark.parametrize(("dtype", "expected"), [(np.float32, 4), (np.float64, 16)])
def test_a_formula_may_depend_on_the_type(dtype, expected):
    chosen = by_dtype(lambda x: x * np.float32(0.5), lambda x: x * 2)
    assert _jit.inner(lambda x: chosen(x))(dtype(8)) == expected
    assert _jit.inner(lambda x: doubled_or_halved(x))(dtype(8)) == expected


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("power", [-30, -1, 0, 1, 30])
def test_a_power_of_two_is_added_to_the_exponent(dtype, power):
    scaled = _jit.inner(lambda y, shifted: scale_by_power_of_two(y, shifted))
    assert scaled(dtype(1.25), dtype(SHIFT[dtype] + power)) == 1.25 * 2.0**power
    assert scale_by_power_of_two(dtype(1.25), dtype(SHIFT[dtype] + power)) == 1.25 * 2.0**power


@needs_jit
def test_mixed_types_are_refused():
    with pytest.raises(numba.TypingError):
        _jit.inner(lambda x, y: fma(x, y, y))(np.float32(1), np.float64(1))
    with pytest.raises(numba.TypingError):
        apply_two(1, np.zeros(40, np.float32), 0, np.zeros(40), 0, *np.zeros((3, 40)))
