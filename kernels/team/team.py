"""Several threads in one kernel call: a team, whose members do their shares and wait for each other.

Every member calls the kernel with the same arguments and its own number. A team is an int64 array of
TEAM_SIZE elements. Arrivals and calls are counted forever; BASE is the number of arrivals before this call. A
team of one costs a comparison at each meeting. To WAITED is added the time in ns that the caller, member 0,
loses at meetings, beyond the first microsecond of each.

If a member is missing, FAILED arrivals release everyone who waits at this or a later meeting; the results are
then invalid.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
from llvmlite import ir
from numba import types

from .._jit import intrinsic
from .clock import nanoseconds
from .flags import offer_processor, relax

# Places in a team. Entries that change during a call are 128 bytes from the others and from both ends: one
# cache line of Apple's processors, and two of x86, which fetches lines in pairs.
ARRIVALS, MEMBERS, BY_UNITS, BASE, WAITED, CALLS = 16, 32, 33, 34, 35, 48
TEAM_SIZE = 64

FAILED = 1 << 62

# Added to the goals of the caller, so that a meeting knows it.
_CALLER = 1 << 61

# Checks for the next call before a member leaves the kernel and sleeps: some 0.5 ms. The calls of a training
# step are 20 to 500 us apart; waking a thread takes 20 to 100.
LOOKS = 20_000

# Checks of the counter before the processor is yielded to other threads: some 20 us. A member suspended by
# the system takes longer than any spinning should last.
_SPINS = 500

# Checks before a wait is long enough to be timed: some 1 us. Most meetings take less.
_SHORT_SPINS = 25

_I64 = ir.IntType(64)


def _spin(
    builder: ir.IRBuilder, counter: ir.Value, goal: ir.Value, most: int | None, turn: Callable
) -> ir.Value:
    """Take turns, at most `most`, until the counter has reached the goal; whether it has."""
    before, (look, wait, done) = (
        builder.block,
        [builder.append_basic_block(name) for name in ("look", "wait", "done")],
    )
    builder.branch(look)
    builder.position_at_end(look)
    turns = builder.phi(_I64)
    turns.add_incoming(_I64(0), before)
    reached = builder.icmp_signed(">=", builder.load_atomic(counter, "acquire", 8), goal)
    tired = builder.icmp_signed("==", turns, _I64(-1 if most is None else most))
    builder.cbranch(builder.or_(reached, tired), done, wait)
    builder.position_at_end(wait)
    turn()
    turns.add_incoming(builder.add(turns, _I64(1)), builder.block)
    builder.branch(look)
    builder.position_at_end(done)
    return reached


def _wait_for(
    builder: ir.IRBuilder, triple: str, counter: ir.Value, goal: ir.Value, waited: ir.Value
) -> None:
    """Wait until the counter has reached the goal; the caller's wait, if long, is added to `waited`."""
    is_caller = builder.icmp_signed("!=", builder.and_(goal, _I64(_CALLER)), _I64(0))
    goal = builder.and_(goal, _I64(_CALLER - 1))
    reached = _spin(builder, counter, goal, _SHORT_SPINS, lambda: relax(builder, triple))
    with builder.if_then(builder.not_(reached), likely=False):
        begin = nanoseconds(builder)
        reached = _spin(builder, counter, goal, _SPINS, lambda: relax(builder, triple))
        with builder.if_then(builder.not_(reached)):
            _spin(builder, counter, goal, None, lambda: offer_processor(builder))
        with builder.if_then(is_caller):
            lost = builder.sub(nanoseconds(builder), begin)
            builder.store(builder.add(builder.load(waited), lost), waited)


def new_team(members: int = 1, by_units: bool = False) -> np.ndarray:
    """The array of a team that has not met yet."""
    team = np.zeros(TEAM_SIZE, np.int64)
    team[MEMBERS], team[BY_UNITS] = members, by_units
    return team


_lock = threading.Lock()


def let_go(team):
    """Release everyone who waits for a member, at this and later meetings."""
    with _lock:  # otherwise a twin that adds its arrival at the same time would undo it
        team[ARRIVALS] = FAILED


def _meet_twin(team, goal):
    goal += int(team[MEMBERS])
    if team[MEMBERS] > 1:
        with _lock:
            team[ARRIVALS] += 1
        begin = time.perf_counter_ns()
        while team[ARRIVALS] < goal & (_CALLER - 1):
            time.sleep(0)
        if goal & _CALLER:
            team[WAITED] += time.perf_counter_ns() - begin
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
        waited = _entry(context, builder, kind, team, WAITED)
        _wait_for(builder, context.codegen().magic_tuple()[0], counter, after, waited)
    return after


@intrinsic(_meet_twin)
def meet(typing_context, team, goal):
    """Wait until all members have arrived; everyone then sees their earlier writes.

    `goal` is the number of arrivals before this meeting, marked for the caller; the result is that after it.
    """

    def codegen(context, builder, signature, arguments):
        return _meeting(context, builder, team, *arguments)

    return types.int64(team, types.int64), codegen


def _begin_call_twin(team, member):
    if member == 0 and team[MEMBERS] > 1:
        team[CALLS] += 1
    return int(team[BASE]) + (0 if member else _CALLER)


@intrinsic(_begin_call_twin)
def begin_call(typing_context, team, member):
    """Begin a kernel: member 0, the caller, announces the call to the others. The caller has released
    Python's lock by now, so the others need not sleep until they get it. The pool admits no other member to
    the kernel earlier. The result is the first goal of `meet`.
    """

    def codegen(context, builder, signature, arguments):
        calls, members, base = (
            _entry(context, builder, team, arguments[0], place) for place in (CALLS, MEMBERS, BASE)
        )
        is_caller = builder.icmp_signed("==", arguments[1], ir.Constant(_I64, 0))
        has_others = builder.icmp_signed(">", builder.load(members), ir.Constant(_I64, 1))
        with builder.if_then(builder.and_(is_caller, has_others), likely=False):
            builder.atomic_rmw("add", calls, ir.Constant(_I64, 1), "acq_rel")
        return builder.add(builder.load(base), builder.select(is_caller, _I64(_CALLER), _I64(0)))

    return types.int64(team, types.int64), codegen


def _end_call_twin(team, member, goal):
    calls, looks = int(team[CALLS]), LOOKS
    _meet_twin(team, goal)
    while member > 0 and looks > 0 and team[CALLS] == calls:
        time.sleep(0)
        looks -= 1


@intrinsic(_end_call_twin)
def end_call(typing_context, team, member, goal):
    """End a kernel with a meeting. Members other than the caller then stay for a while and wait for its next
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
            relax(builder, context.codegen().magic_tuple()[0])
            fewer = builder.sub(looks, ir.Constant(_I64, 1))
            # If there are more members than processors, another may need this one.
            rest = builder.and_(fewer, ir.Constant(_I64, 63))
            builder.cbranch(builder.icmp_signed("==", rest, ir.Constant(_I64, 0)), offer, on)
            builder.position_at_end(offer)
            offer_processor(builder)
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
    """A member's part of 0 .. count."""

    def codegen(context, builder, signature, arguments):
        count, member, array = arguments
        members = builder.load(_entry(context, builder, team, array, MEMBERS))
        after = builder.add(member, ir.Constant(_I64, 1))
        bounds = [builder.udiv(builder.mul(count, place), members) for place in (member, after)]
        return context.make_tuple(builder, signature.return_type, bounds)

    return types.UniTuple(types.int64, 2)(types.int64, types.int64, team), codegen
