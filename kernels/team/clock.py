"""A clock inside compiled code."""

from __future__ import annotations

import ctypes
import sys
import time

from llvmlite import ir
from numba.core import cgutils

_I32, _I64 = ir.IntType(32), ir.IntType(64)
_LONG = ir.IntType(8 * ctypes.sizeof(ctypes.c_long))


def nanoseconds(builder: ir.IRBuilder) -> ir.Value:
    """The time in ns since a moment of the past, an int64. It takes 25 ns."""
    if sys.platform == "win32":
        name, result, unit = "GetSystemTimePreciseAsFileTime", ir.VoidType(), _I64  # units of 100 ns
        place = cgutils.alloca_once(builder, _I64)
        builder.call(_function(builder, name, ir.FunctionType(result, [_I64.as_pointer()])), [place])
        return builder.mul(builder.load(place), unit(100))
    moment = ir.LiteralStructType([_LONG, _LONG])  # seconds and ns
    place = cgutils.alloca_once(builder, moment)
    kinds = ir.FunctionType(_I32, [_I32, moment.as_pointer()])
    builder.call(_function(builder, "clock_gettime", kinds), [_I32(time.CLOCK_MONOTONIC), place])
    seconds, rest = (
        builder.sext(builder.load(cgutils.gep_inbounds(builder, place, 0, i)), _I64) for i in (0, 1)
    )
    return builder.add(builder.mul(seconds, _I64(1_000_000_000)), rest)


def _function(builder: ir.IRBuilder, name: str, kinds: ir.FunctionType) -> ir.Value:
    return cgutils.get_or_insert_function(builder.module, kinds, name)
