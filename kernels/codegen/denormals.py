"""Denormal numbers count as zero while a kernel runs, if the processor supports it.

Gradients that vanish over many steps become denormal, and some processors take a hundred times as long for
such numbers. The mode belongs to the thread, so a kernel sets it and restores the mode before.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from .._jit import intrinsic

_I32, _I64 = ir.IntType(32), ir.IntType(64)

# Bits of the control register: flush-to-zero for results, denormals-are-zero for operands; ARM has one bit.
_RESULTS, _OPERANDS = 1 << 15, 1 << 6
_ARM_BOTH = 1 << 24


def _is_x86(context: Any) -> bool:
    return context.codegen().magic_tuple()[0].split("-")[0] in ("x86_64", "i686")


def _is_arm(context: Any) -> bool:
    return context.codegen().magic_tuple()[0].split("-")[0] in ("aarch64", "arm64")


def _call(builder: ir.IRBuilder, name: str, result: ir.Type, *arguments: ir.Value) -> ir.Value:
    kinds = ir.FunctionType(result, [a.type for a in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kinds, name), arguments)


def _read(context: Any, builder: ir.IRBuilder) -> ir.Value:
    """The control register, widened to 64 bits; 0 if none is known."""
    if _is_x86(context):
        place = cgutils.alloca_once(builder, _I32)
        _call(
            builder, "llvm.x86.sse.stmxcsr", ir.VoidType(), builder.bitcast(place, ir.IntType(8).as_pointer())
        )
        return builder.zext(builder.load(place), _I64)
    if _is_arm(context):
        return _call(builder, "llvm.aarch64.get.fpcr", _I64)
    return ir.Constant(_I64, 0)


def _write(context: Any, builder: ir.IRBuilder, value: ir.Value) -> None:
    if _is_x86(context):
        place = cgutils.alloca_once(builder, _I32)
        builder.store(builder.trunc(value, _I32), place)
        _call(
            builder, "llvm.x86.sse.ldmxcsr", ir.VoidType(), builder.bitcast(place, ir.IntType(8).as_pointer())
        )
    elif _is_arm(context):
        _call(builder, "llvm.aarch64.set.fpcr", ir.VoidType(), value)


def _setting(x86_bits: int, arm_bits: int) -> Any:
    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        before = _read(context, builder)
        bits = x86_bits if _is_x86(context) else arm_bits
        _write(context, builder, builder.or_(before, ir.Constant(_I64, bits)))
        return before

    return codegen


@intrinsic(lambda: 0)
def flush_denormals(typing_context):
    """Treat denormal operands and results as zero from here on; returns the old mode for `restore_mode`."""
    return types.int64(), _setting(_RESULTS | _OPERANDS, _ARM_BOTH)


@intrinsic(lambda: 0)
def ignore_denormal_operands(typing_context):
    """Treat denormal operands, but not results, as zero from here on (x86); returns the old mode."""
    return types.int64(), _setting(_OPERANDS, 0)


@intrinsic(lambda mode: None)
def restore_mode(typing_context, mode):
    """Restore a mode returned by `flush_denormals` or `ignore_denormal_operands`."""

    def codegen(context, builder, signature, arguments):
        _write(context, builder, arguments[0])
        return context.get_dummy_value()

    return types.void(types.int64), codegen
