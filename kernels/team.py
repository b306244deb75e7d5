"""Several threads in one kernel call: a team, whose members take their shares and wait for each other.

Every member calls the kernel with the same arguments and its own number. A team is an int64 array of
TEAM_SIZE elements; those that change during a call have a cache line each. Arrivals and calls are counted for
ever, BASE being the arrivals before this call. A team of one costs a comparison at each meeting.
"""

from __future__ import annotations

import sys
import threading
import time

from llvmlite import ir
from numba import types
from numba.core import cgutils

from ._jit import intrinsic, spliced

ARRIVALS, MEMBERS, BY_UNITS, BASE, CALLS = 0, 8, 16, 17, 24  # places in a team
TEAM_SIZE = 32

# How often a member looks out for the next call before it leaves the kernel and goes to sleep: some 0.5 ms.
# Between the calls of a training step lie 20 to 500 us; waking a thread takes 20 to 100.
LOOKS = 20_000

# Looks at the counter before the processor is offered to other threads: some 20 us. A member that was
# suspended by the system needs longer than any spinning should last.
_SPINS = 500

_I32, _I64 = ir.IntType(32), ir.IntType(64)


def _relax(builder: ir.IRBuilder, triple: str) -> None:
    """Tell the processor that this is a waiting loop."""
    machine = triple.split("-")[0]
    if machine in ("x86_64", "i686"):
        name, arguments = "llvm.x86.sse2.pause", []
    elif machine in ("aarch64", "arm64"):
        name, arguments = "llvm.aarch64.hint", [ir.Constant(_I32, 1)]
    else:
        return
    kinds = ir.FunctionType(ir.VoidType(), [a.type for a in arguments])
    builder.call(cgutils.get_or_insert_function(builder.module, kinds, name), arguments)


def _offer_processor(builder: ir.IRBuilder) -> None:
    """Let the system run another thread here."""
    name = "SwitchToThread" if sys.platform == "win32" else "sched_yield"
    function = builder.module.globals.get(name)
    if function is None:
        function = ir.Function(builder.module, ir.FunctionType(_I32, []), name)
    builder.call(function, [])


def _wait_for(builder: ir.IRBuilder, triple: str, counter: ir.Value, goal: ir.Value) -> None:
    """Spin until the counter has reached the goal."""
    before, (look, relax, offer, done) = (
        builder.block,
        [builder.append_basic_block(name) for name in ("look", "relax", "offer", "reached")],
    )
    builder.branch(look)
    builder.position_at_end(look)
    spins = builder.phi(_I64)
    spins.add_incoming(ir.Constant(_I64, 0), before)
    seen = builder.load_atomic(counter, "acquire", 8)
    wait = builder.append_basic_block("wait")
    builder.cbranch(builder.icmp_signed(">=", seen, goal), done, wait)
    builder.position_at_end(wait)
    more = builder.add(spins, ir.Constant(_I64, 1))
    builder.cbranch(builder.icmp_signed("<", spins, ir.Constant(_I64, _SPINS)), relax, offer)
    for block in (relax, offer):
        builder.position_at_end(block)
        if block is relax:
            _relax(builder, triple)
        else:
            _offer_processor(builder)
        spins.add_incoming(more, block)
        builder.branch(look)
    builder.position_at_end(done)


_lock = threading.Lock()


def _meet_twin(team, goal):
    goal += int(team[MEMBERS])
    if team[MEMBERS] > 1:
        with _lock:
            team[ARRIVALS] += 1
        while team[ARRIVALS] < goal:
            time.sleep(0)
    return goal


@intrinsic(_meet_twin)
def meet(typing_context, team, goal):
    """Wait until all members have come here; what they wrote before is then seen by all.

    `goal` is the number of arrivals at all meetings before this one; the result is that after it.
    """

    def codegen(context, builder, signature, arguments):
        data = context.make_array(team)(context, builder, arguments[0]).data
        members = builder.load(builder.gep(data, [ir.Constant(_I64, MEMBERS)]))
        after = builder.add(arguments[1], members)
        with builder.if_then(builder.icmp_signed(">", members, ir.Constant(_I64, 1)), likely=False):
            counter = builder.gep(data, [ir.Constant(_I64, ARRIVALS)])
            builder.atomic_rmw("add", counter, ir.Constant(_I64, 1), "acq_rel")
            _wait_for(builder, context.codegen().magic_tuple()[0], counter, after)
        return after

    return types.int64(team, types.int64), codegen


def _look_twin(team):
    time.sleep(0)
    return int(team[CALLS])


@intrinsic(_look_twin)
def _look(typing_context, team):
    """team[CALLS], as other threads have left it."""

    def codegen(context, builder, signature, arguments):
        data = context.make_array(team)(context, builder, arguments[0]).data
        _relax(builder, context.codegen().magic_tuple()[0])
        return builder.load_atomic(builder.gep(data, [ir.Constant(_I64, CALLS)]), "acquire", 8)

    return types.int64(team), codegen


@intrinsic(lambda: time.sleep(0))
def _give_way(typing_context):
    """Let another thread have the processor, if there is one that waits for it."""

    def codegen(context, builder, signature, arguments):
        _offer_processor(builder)
        return context.get_dummy_value()

    return types.void(), codegen


def _announce_twin(team):
    team[CALLS] += 1


@intrinsic(_announce_twin)
def _announce(typing_context, team):
    """Count one more call."""

    def codegen(context, builder, signature, arguments):
        data = context.make_array(team)(context, builder, arguments[0]).data
        counter = builder.gep(data, [ir.Constant(_I64, CALLS)])
        builder.atomic_rmw("add", counter, ir.Constant(_I64, 1), "acq_rel")
        return context.get_dummy_value()

    return types.void(team), codegen


@spliced
def begin_call(team, member):
    """The first thing that a kernel does: member 0, the caller, tells the others that there is a call. By now
    it has let go of Python's lock, for which they would have to wait asleep. The result is the first goal of
    `meet`.
    """
    if member == 0 and team[MEMBERS] > 1:
        _announce(team)
    return team[BASE]


@spliced
def end_call(team, member, goal):
    """The last thing: a meeting. Members other than the caller then stay a while and look out for its next
    call, without taking Python's lock from it.
    """
    calls = team[CALLS]
    meet(team, goal)
    if member > 0:
        looks = LOOKS
        while looks > 0 and _look(team) == calls:
            looks -= 1
            if looks % 64 == 0:
                _give_way()
