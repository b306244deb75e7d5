"""Operations that Python lacks: fused multiply-add, square root, sign, select, changes of the exponent.

Each is one to three LLVM instructions on numbers or vectors of a formula, and a line of NumPy elsewhere. In
kernels they take float32 or float64, never a mixture.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir

from .formula import Condition, Lanes, formula
from .vectors import TARGET

# Adding 1.5 * 2**mantissa_bits rounds a float to a whole number, halves to even, and leaves that number in
# two's complement in the low bits of the sum. One addition replaces a rounding and a conversion, and AVX2 has
# no conversion from float64 to int64. Subtracting the constant gives the number as a float. Such a sum is
# called `shifted` below.
ROUNDING_SHIFT_SINGLE = 1.5 * 2.0**23
ROUNDING_SHIFT_DOUBLE = 1.5 * 2.0**52

_MANTISSA_BITS = {4: 23, 8: 52}
_INTEGERS: dict[int, Any] = {4: np.int32, 8: np.int64}

_SQRT_HALF = 0.7071067690849304  # rounded to the 24 bits that both types have


@formula
def fma(a, b, c):
    """``a * b + c``, rounded once if the processor has the instruction.

    Otherwise product and sum are both rounded: see `Target.multiply_add`.
    """
    lanes = a if isinstance(a, Lanes) else b if isinstance(b, Lanes) else c
    if not isinstance(lanes, Lanes):
        return a * b + c
    return lanes.wrap(lanes.operand(a)).call(TARGET.multiply_add, b, c)


@formula
def sqrt(x):
    """The square root, correctly rounded; NaN below 0."""
    return x.call("sqrt") if isinstance(x, Lanes) else np.sqrt(x)


@formula
def copy_sign(magnitude, sign):
    """`magnitude` with the sign bit of `sign`, including -0 and NaN."""
    return magnitude.call("copysign", sign) if isinstance(magnitude, Lanes) else np.copysign(magnitude, sign)


def select(condition: Any, chosen: Any, other: Any) -> Any:
    """`chosen` where the condition holds, else `other`."""
    if isinstance(condition, Condition):
        return condition.select(chosen, other)
    if isinstance(condition, np.ndarray):
        return np.where(condition, chosen, other)
    return chosen if condition else other


def _integers(lanes: Lanes) -> tuple[Any, Callable]:
    """The integer type with the width and the number of `lanes`, and a function that makes its constants."""
    whole = ir.IntType(8 * lanes.dtype.itemsize)
    if not lanes.lanes:
        return whole, lambda value: ir.Constant(whole, value)
    vector = ir.VectorType(whole, lanes.lanes)
    return vector, lambda value: ir.Constant(vector, [value] * lanes.lanes)


@formula
def scale_by_power_of_two(y, shifted):
    """``y * 2**n`` with ``n = shifted - ROUNDING_SHIFT``, by adding n to the exponent bits of y.

    Correct if y and the result are normal numbers. A NaN in `shifted` may give any number, so the caller must
    propagate NaN in another way.
    """
    itemsize = shifted.dtype.itemsize
    places = _MANTISSA_BITS[itemsize]
    if not isinstance(shifted, Lanes):
        integer = _INTEGERS[itemsize]
        return np.add(y.view(integer), shifted.view(integer) << integer(places)).view(shifted.dtype)
    builder = shifted.builder
    whole, constant = _integers(shifted)
    before, n = (builder.bitcast(value, whole) for value in (shifted.operand(y), shifted.value))
    total = builder.add(before, builder.shl(n, constant(places)))
    return shifted.wrap(builder.bitcast(total, shifted.value.type))


def split_exponent(x: Any) -> tuple[Any, Any]:
    """``(m, n)`` with ``x = m 2**n``, a whole n, and m from sqrt(1/2) to sqrt(2). For use inside formulas.

    Correct for positive normal numbers; others give any m in that range, and any whole n. The exponent
    becomes a float without a conversion, which AVX2 lacks: its bits become the lowest bits of a power of two
    whose ULP is 1.
    """
    itemsize = x.dtype.itemsize
    places = _MANTISSA_BITS[itemsize]
    integer = _INTEGERS[itemsize]
    lowest, one = (int(x.dtype.type(value).view(integer)) for value in (_SQRT_HALF, 1.0))
    mantissa = (1 << places) - 1
    if not isinstance(x, Lanes):
        above = np.subtract(x.view(integer), integer(lowest))
        m = np.add(above & integer(mantissa), integer(lowest)).view(x.dtype)
        return m, (above >> integer(places)).astype(x.dtype)
    builder = x.builder
    whole, constant = _integers(x)
    above = builder.add(builder.bitcast(x.value, whole), constant(one - lowest))
    m = builder.add(builder.and_(above, constant(mantissa)), constant(lowest))
    unit = x.dtype.type(2.0**places)
    biased = builder.or_(builder.lshr(above, constant(places)), constant(int(unit.view(integer))))
    n = x.wrap(builder.bitcast(biased, x.value.type)) - float(unit + (one >> places))
    return x.wrap(builder.bitcast(m, x.value.type)), n
