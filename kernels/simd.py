"""Scalar operations that Python cannot say: a fused multiply-add, a copied sign, a write to the exponent.

Each is an LLVM instruction or three, has a pure-Python twin for NUMBA_DISABLE_JIT=1, and takes float32 or
float64, never a mixture. LLVM makes vector instructions of them when it vectorises the loop around them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from ._jit import intrinsic

# Adding 1.5 * 2**mantissa_bits rounds a float to a whole number, halves to even, and leaves that number in
# two's complement in the low bits of the sum. That is one addition instead of a rounding and a conversion,
# and AVX2 has no conversion from float64 to int64. Subtracting the constant gives the number as a float. Such
# a sum is called `shifted` below.
ROUNDING_SHIFT_SINGLE = 1.5 * 2.0**23
ROUNDING_SHIFT_DOUBLE = 1.5 * 2.0**52

# Numba type -> LLVM suffix, width, bits of the mantissa
_FLOATS = {types.float32: ("f32", 32, 23), types.float64: ("f64", 64, 52)}


def _are_same_floats(*arguments: types.Type) -> bool:
    """Whether all are float32 or all are float64; Numba refuses the call otherwise."""
    return arguments[0] in _FLOATS and all(argument == arguments[0] for argument in arguments)


def _llvm_function(name: str) -> Callable:
    """The code generator of a call to LLVM's `name`, declared by its full name (`llvm.fmuladd.f32`)."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        full_name = f"llvm.{name}.{_FLOATS[signature.return_type][0]}"
        llvm_type = ir.FunctionType(arguments[0].type, [argument.type for argument in arguments])
        return builder.call(builder.module.declare_intrinsic(full_name, (), llvm_type), arguments)

    return generate


def _fma_in_python(a, b, c):
    return a * b + c


@intrinsic(_fma_in_python)
def fma(typingctx, a, b, c):
    """``a * b + c``, rounded once where the processor has the instruction.

    This is ``llvm.fmuladd``; ``llvm.fma`` is a library call, 14 times slower, where the processor lacks it.
    """
    if not _are_same_floats(a, b, c):
        return None
    return a(a, b, c), _llvm_function("fmuladd")


def _copy_sign_in_python(magnitude, sign):
    return type(magnitude)(math.copysign(magnitude, sign))


@intrinsic(_copy_sign_in_python)
def copy_sign(typingctx, magnitude, sign):
    """`magnitude` with the sign bit of `sign`, also that of -0 and NaN."""
    if not _are_same_floats(magnitude, sign):
        return None
    return magnitude(magnitude, sign), _llvm_function("copysign")


def _scale_by_power_of_two_in_python(y, shifted):
    if np.isnan(shifted):
        return shifted
    shift = ROUNDING_SHIFT_SINGLE if shifted.dtype == np.float32 else ROUNDING_SHIFT_DOUBLE
    return np.ldexp(y, int(float(shifted) - shift))


@intrinsic(_scale_by_power_of_two_in_python)
def scale_by_power_of_two(typingctx, y, shifted):
    """``y * 2**n`` with ``n = shifted - ROUNDING_SHIFT``, by adding n to the exponent bits of y.

    Right where y and the result are normal numbers. A NaN in `shifted` may give any number, so the caller
    must carry NaN along another way.
    """
    if not _are_same_floats(y, shifted):
        return None

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        _, width, mantissa_bits = _FLOATS[signature.return_type]
        integer = ir.IntType(width)
        bits, n = (builder.bitcast(argument, integer) for argument in arguments)
        total = builder.add(bits, builder.shl(n, integer(mantissa_bits)))
        return builder.bitcast(total, arguments[0].type)

    return y(y, shifted), generate
