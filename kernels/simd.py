"""Operations that Python cannot say: a fused multiply-add, a copied sign, a choice, a write to the exponent.

Each is an LLVM instruction or three on numbers or vectors of a formula, and a line of NumPy elsewhere. In
kernels they take float32 or float64, never a mixture.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir

from .formula import Condition, Lanes, formula
from .vectors import TARGET

# Adding 1.5 * 2**mantissa_bits rounds a float to a whole number, halves to even, and leaves that number in
# two's complement in the low bits of the sum. That is one addition instead of a rounding and a conversion,
# and AVX2 has no conversion from float64 to int64. Subtracting the constant gives the number as a float. Such
# a sum is called `shifted` below.
ROUNDING_SHIFT_SINGLE = 1.5 * 2.0**23
ROUNDING_SHIFT_DOUBLE = 1.5 * 2.0**52

_MANTISSA_BITS = {4: 23, 8: 52}


@formula
def fma(a, b, c):
    """``a * b + c``, rounded once where the processor has the instruction.

    Elsewhere it is a product and a sum, each rounded: see `Target.multiply_add`.
    """
    lanes = a if isinstance(a, Lanes) else b if isinstance(b, Lanes) else c
    if not isinstance(lanes, Lanes):
        return a * b + c
    return lanes.wrap(lanes.operand(a)).call(TARGET.multiply_add, b, c)


@formula
def copy_sign(magnitude, sign):
    """`magnitude` with the sign bit of `sign`, also that of -0 and NaN."""
    return magnitude.call("copysign", sign) if isinstance(magnitude, Lanes) else np.copysign(magnitude, sign)


def select(condition: Any, chosen: Any, other: Any) -> Any:
    """`chosen` where the condition holds, else `other`."""
    if isinstance(condition, Condition):
        return condition.select(chosen, other)
    if isinstance(condition, np.ndarray):
        return np.where(condition, chosen, other)
    return chosen if condition else other


@formula
def scale_by_power_of_two(y, shifted):
    """``y * 2**n`` with ``n = shifted - ROUNDING_SHIFT``, by adding n to the exponent bits of y.

    Right where y and the result are normal numbers. A NaN in `shifted` may give any number, so the caller
    must carry NaN along another way.
    """
    itemsize = shifted.dtype.itemsize
    places: Any = _MANTISSA_BITS[itemsize]
    if not isinstance(shifted, Lanes):
        integer = np.int32 if itemsize == 4 else np.int64
        return np.add(y.view(integer), shifted.view(integer) << integer(places)).view(shifted.dtype)
    lanes, builder = shifted.lanes, shifted.builder
    whole: Any = ir.IntType(8 * itemsize)
    if lanes:
        whole, places = ir.VectorType(whole, lanes), [places] * lanes
    before, n = (builder.bitcast(value, whole) for value in (shifted.operand(y), shifted.value))
    total = builder.add(before, builder.shl(n, ir.Constant(whole, places)))
    return shifted.wrap(builder.bitcast(total, shifted.value.type))
