"""Flags in shared memory: their values, and the instructions by which others see them in order."""

import numpy as np
import pytest
from llvmlite import ir
from rnnfast.kernels._jit import kernel
from rnnfast.kernels.team import flags


@kernel
def post_and_look(array, place, value):
    """Post a flag and read it, for this test alone."""
    flags.post(array, place, value)
    flags.pause()
    return flags.seen(array, place)


def test_a_posted_flag_is_seen_and_its_neighbours_stay():
    array = np.full((2, 8), -1)
    assert post_and_look(array, 11, 5) == 5
    expected = np.full((2, 8), -1)
    expected[1, 3] = 5
    np.testing.assert_array_equal(array, expected)


def written(write):
    """The IR of a function made by `write(builder)`."""
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), []), "made")
    builder = ir.IRBuilder(function.append_basic_block())
    write(builder)
    builder.ret_void()
    return str(module)


@pytest.mark.parametrize(
    ("triple", "hint"),
    [
        ("x86_64-unknown-linux-gnu", '@"llvm.x86.sse2.pause"()'),
        ("aarch64-unknown-linux-gnu", '@"llvm.aarch64.isb"(i32 15)'),
        ("arm64-apple-darwin", '@"llvm.aarch64.isb"(i32 15)'),
    ],
)
def test_a_waiting_loop_tells_the_processor(triple, hint):
    assert f"call void {hint}" in written(lambda builder: flags.relax(builder, triple))


def test_streamed_stores_are_fenced_where_a_release_does_not_order_them():
    fence = '@"llvm.x86.sse.sfence"()'
    assert fence in written(lambda builder: flags.finish_streams(builder, "x86_64-unknown-linux-gnu"))
    assert fence not in written(lambda builder: flags.finish_streams(builder, "aarch64-apple-darwin"))
