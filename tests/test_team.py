"""What a team is made of: where its counters lie, and how its members wait."""

import numpy as np
import pytest
from llvmlite import ir
from rnnfast.kernels import team as teams


def test_what_changes_during_a_call_lies_on_lines_of_its_own():
    places = sorted([teams.ARRIVALS, teams.CALLS, teams.MEMBERS])
    assert np.diff(places).min() >= 128 // 8
    assert {teams.BY_UNITS, teams.BASE} <= set(range(teams.MEMBERS, teams.MEMBERS + 16))
    assert min(places) >= 16
    assert teams.TEAM_SIZE - max(places) >= 16


@pytest.mark.parametrize(
    ("triple", "hint"),
    [
        ("x86_64-unknown-linux-gnu", '@"llvm.x86.sse2.pause"()'),
        ("aarch64-unknown-linux-gnu", '@"llvm.aarch64.isb"(i32 15)'),
        ("arm64-apple-darwin", '@"llvm.aarch64.isb"(i32 15)'),
    ],
)
def test_a_waiting_loop_tells_the_processor(triple, hint):
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), []), "waits")
    builder = ir.IRBuilder(function.append_basic_block())
    teams._relax(builder, triple)
    builder.ret_void()
    assert f"call void {hint}" in str(module)
