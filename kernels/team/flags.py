"""Numbers in shared memory, by which threads and processes tell each other how far they are.

A flag is an int64 that one of them writes and the others read. Who sees a flag also sees everything that was
written before it, on processors that reorder memory as well.
"""

from __future__ import annotations

import sys
import time

from llvmlite import ir
from numba import types
from numba.core import cgutils

from .._jit import intrinsic

_I32, _I64 = ir.IntType(32), ir.IntType(64)
_VOID = ir.VoidType()


def _on_x86(triple: str) -> bool:
    return triple.split("-")[0] in ("x86_64", "i686")


def relax(builder: ir.IRBuilder, triple: str) -> None:
    """Tell the processor that this is a waiting loop."""
    if _on_x86(triple):
        name, arguments = "llvm.x86.sse2.pause", []
    elif triple.split("-")[0] in ("aarch64", "arm64"):
        # Most of these cores ignore `yield`: 500 spins took 1 us. A barrier takes 10 to 40 ns.
        name, arguments = "llvm.aarch64.isb", [ir.Constant(_I32, 15)]
    else:
        return
    kinds = ir.FunctionType(_VOID, [a.type for a in arguments])
    builder.call(cgutils.get_or_insert_function(builder.module, kinds, name), arguments)


def offer_processor(builder: ir.IRBuilder) -> None:
    """Let the system run another thread here."""
    name = "SwitchToThread" if sys.platform == "win32" else "sched_yield"
    function = builder.module.globals.get(name)
    if function is None:
        function = ir.Function(builder.module, ir.FunctionType(_I32, []), name)
    builder.call(function, [])


def finish_streams(builder: ir.IRBuilder, triple: str) -> None:
    """Order streamed stores before later ones; on other processors a release does so."""
    if _on_x86(triple):
        kinds = ir.FunctionType(_VOID, [])
        builder.call(cgutils.get_or_insert_function(builder.module, kinds, "llvm.x86.sse.sfence"), [])


def _place(context, builder, kind, flags, place):
    return builder.gep(context.make_array(kind)(context, builder, flags).data, [place])


def _post_twin(flags, place, value):
    flags.reshape(-1)[place] = value


@intrinsic(_post_twin)
def post(typing_context, flags, place, value):
    """flags[place] = value, counted as a flat array, after all earlier writes, streamed ones too."""

    def codegen(context, builder, signature, arguments):
        array, place, value = arguments
        finish_streams(builder, context.codegen().magic_tuple()[0])
        builder.store_atomic(value, _place(context, builder, flags, array, place), "release", 8)
        return context.get_dummy_value()

    return types.void(flags, types.int64, types.int64), codegen


def _seen_twin(flags, place):
    return int(flags.reshape(-1)[place])


@intrinsic(_seen_twin)
def seen(typing_context, flags, place):
    """flags[place], counted as a flat array, before all later reads."""

    def codegen(context, builder, signature, arguments):
        return builder.load_atomic(_place(context, builder, flags, *arguments), "acquire", 8)

    return types.int64(flags, types.int64), codegen


@intrinsic(lambda: time.sleep(0))
def pause(typing_context):
    """One turn of a waiting loop: 40 ns."""

    def codegen(context, builder, signature, arguments):
        relax(builder, context.codegen().magic_tuple()[0])
        return context.get_dummy_value()

    return types.void(), codegen
