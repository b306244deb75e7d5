"""Several threads in one kernel call: a team, whose members take their shares and wait for each other.

Every member calls the kernel with the same arguments and its own number. A team is an int64 array of
TEAM_SIZE elements. Arrivals and calls are counted for ever, BASE being the arrivals before this call. A team
of one costs a comparison at each meeting.

FAILED arrivals let everybody go who waits at a meeting, now and later: a member is missing, and the results
are worthless.
"""

from __future__ import annotations

import sys
import threading
import time

from llvmlite import ir
from numba import types
from numba.core import cgutils

from ._jit import intrinsic

# Places in a team. Those that change during a call lie 128 bytes from the others and from either end: that is
# a cache line of Apple's processors, and two of x86, which fetches them in pairs.
ARRIVALS, MEMBERS, BY_UNITS, BASE, CALLS = 16, 32, 33, 34, 48
TEAM_SIZE = 64

FAILED = 1 << 62

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
        # Most of these cores pass over `yield`: 500 spins took 1 us. A barrier takes 10 to 40 ns.
        name, arguments = "llvm.aarch64.isb", [ir.Constant(_I32, 15)]
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


def let_go(team):
    """Let everybody go who waits for a member, now and at later meetings."""
    with _lock:  # or a twin that adds its arrival meanwhile would undo it
        team[ARRIVALS] = FAILED


def _meet_twin(team, goal):
    goal += int(team[MEMBERS])
    if team[MEMBERS] > 1:
        with _lock:
            team[ARRIVALS] += 1
        while team[ARRIVALS] < goal:
            time.sleep(0)
    return goal


def _entry(context, builder, kind, team, place):
    """Pointer to an entry of a team."""
    return builder.gep(context.make_array(kind)(context, builder, team).data, [ir.Constant(_I64, place)])


def _meeting(context, builder, kind, team, goal):
    members = builder.load(_entry(context, builder, kind, team, MEMBERS))
    after = builder.add(goal, members)
    with builder.if_then(builder.icmp_signed(">", members, ir.Constant(_I64, 1)), likely=False):
        counter = _entry(context, builder, kind, team, ARRIVALS)
        builder.atomic_rmw("add", counter, ir.Constant(_I64, 1), "acq_rel")
        _wait_for(builder, context.codegen().magic_tuple()[0], counter, after)
    return after


@intrinsic(_meet_twin)
def meet(typing_context, team, goal):
    """Wait until all members have come here; what they wrote before is then seen by all.

    `goal` is the number of arrivals at all meetings before this one; the result is that after it.
    """

    def codegen(context, builder, signature, arguments):
        return _meeting(context, builder, team, *arguments)

    return types.int64(team, types.int64), codegen


def _begin_call_twin(team, member):
    if member == 0 and team[MEMBERS] > 1:
        team[CALLS] += 1
    return int(team[BASE])


@intrinsic(_begin_call_twin)
def begin_call(typing_context, team, member):
    """The first thing that a kernel does: member 0, the caller, tells the others that there is a call. By now
    it has let go of Python's lock, for which they would have to wait asleep. The pool lets no other member
    into the kernel before. The result is the first goal of `meet`.
    """

    def codegen(context, builder, signature, arguments):
        calls, members, base = (
            _entry(context, builder, team, arguments[0], place) for place in (CALLS, MEMBERS, BASE)
        )
        is_caller = builder.icmp_signed("==", arguments[1], ir.Constant(_I64, 0))
        has_others = builder.icmp_signed(">", builder.load(members), ir.Constant(_I64, 1))
        with builder.if_then(builder.and_(is_caller, has_others), likely=False):
            builder.atomic_rmw("add", calls, ir.Constant(_I64, 1), "acq_rel")
        return builder.load(base)

    return types.int64(team, types.int64), codegen


def _end_call_twin(team, member, goal):
    calls, looks = int(team[CALLS]), LOOKS
    _meet_twin(team, goal)
    while member > 0 and looks > 0 and team[CALLS] == calls:
        time.sleep(0)
        looks -= 1


@intrinsic(_end_call_twin)
def end_call(typing_context, team, member, goal):
    """The last thing: a meeting. Members other than the caller then stay a while and look out for its next
    call, without taking Python's lock from it.
    """

    def codegen(context, builder, signature, arguments):
        counter = _entry(context, builder, team, arguments[0], CALLS)
        before = builder.load_atomic(counter, "acquire", 8)
        _meeting(context, builder, team, arguments[0], arguments[2])
        with builder.if_then(builder.icmp_signed(">", arguments[1], ir.Constant(_I64, 0)), likely=False):
            begin = builder.block
            look, wait, offer, on, done = (
                builder.append_basic_block(name) for name in ("look", "wait", "offer", "on", "called")
            )
            builder.branch(look)
            builder.position_at_end(look)
            looks = builder.phi(_I64)
            looks.add_incoming(ir.Constant(_I64, LOOKS), begin)
            called = builder.icmp_signed("!=", builder.load_atomic(counter, "acquire", 8), before)
            tired = builder.icmp_signed("==", looks, ir.Constant(_I64, 0))
            builder.cbranch(builder.or_(called, tired), done, wait)
            builder.position_at_end(wait)
            _relax(builder, context.codegen().magic_tuple()[0])
            fewer = builder.sub(looks, ir.Constant(_I64, 1))
            # Where there are more members than processors, another may need this one.
            rest = builder.and_(fewer, ir.Constant(_I64, 63))
            builder.cbranch(builder.icmp_signed("==", rest, ir.Constant(_I64, 0)), offer, on)
            builder.position_at_end(offer)
            _offer_processor(builder)
            builder.branch(on)
            builder.position_at_end(on)
            looks.add_incoming(fewer, on)
            builder.branch(look)
            builder.position_at_end(done)
        return context.get_dummy_value()

    return types.void(team, types.int64, types.int64), codegen


def _share_twin(count, member, team):
    members = int(team[MEMBERS])
    return count * member // members, count * (member + 1) // members


@intrinsic(_share_twin)
def share(typing_context, count, member, team):
    """The part of 0 .. count that is a member's."""

    def codegen(context, builder, signature, arguments):
        count, member, array = arguments
        members = builder.load(_entry(context, builder, team, array, MEMBERS))
        after = builder.add(member, ir.Constant(_I64, 1))
        bounds = [builder.udiv(builder.mul(count, place), members) for place in (member, after)]
        return context.make_tuple(builder, signature.return_type, bounds)

    return types.UniTuple(types.int64, 2)(types.int64, types.int64, team), codegen
