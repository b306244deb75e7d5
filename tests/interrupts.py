"""Interrupts calls on two threads, and looks whether later calls answer, with the right bits.

    python tests/interrupts.py bytecodes [EACH]         before each bytecode of the pool (each 7th, say)
    python tests/interrupts.py signals COUNT [SEED]     by signals at random times

Prints what it found as JSON; ends with a traceback of all threads where a call hangs.
"""

import faulthandler
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
from rnnfast.kernels._jit import jit_is_disabled
from rnnfast.kernels.team import team as teams

import rnnfast
from rnnfast import RNNLM, TimeLSTM, TimeRNN
from rnnfast.engine import load as _load
from rnnfast.engine import threads
from rnnfast.layers import plans

LONGEST = 60  # seconds of a call that does not hang


def rehearse():
    """Any window is worth a team of two, on any machine, however busy."""
    threads.LEAST_OPERATIONS = threads.LEAST_BYTES = 1.0
    plans.LEAST_STEP_OPERATIONS = 0.0
    _load.allowed = lambda: 2
    _load.Load.members = lambda load, wanted, pace=None: wanted
    rnnfast.set_num_threads(2)


def workers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("rnnfast-")]


def wait_until(holds):
    end = time.monotonic() + LONGEST
    while not holds() and time.monotonic() < end:
        time.sleep(1e-4)
    return holds()


class Bytecode:
    """A trace function: raises before the bytecode of that number which `threads.py` runs on this thread.

    Counts while `counts()`; `raised` says whether there was such a bytecode.
    """

    def __init__(self, number, counts):
        self.number, self.counts, self.raised = number, counts, False

    def __call__(self, frame, event, argument):
        if frame.f_code.co_filename != threads.__file__:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and self.counts():
            self.number -= 1
            if self.number < 0:
                self.raised = True
                raise KeyboardInterrupt
        return self


def interrupted(call, number, counts=lambda: True):
    """Whether there was a bytecode of that number in a call."""
    tracer, before = Bytecode(number, counts), sys.gettrace()
    sys.settrace(tracer)
    try:
        call()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    return tracer.raised


class Guarded:
    """A kernel in plain Python that notices a member at work after its caller's call has ended.

    With `breaks` the caller is interrupted in its midst, while the other member is inside.
    """

    def __init__(self, breaks=False):
        self.breaks, self.broken, self.late = breaks, False, 0

    def __call__(self, team, member, over):
        goal = teams._begin_call_twin(team, member)
        if self.breaks and member == 0 and team[teams.MEMBERS] > 1:
            wait_until(lambda: over[1])
            self.broken = True
            raise KeyboardInterrupt
        over[1] = member
        for _ in range(3):
            self.late += int(over[0])
            time.sleep(0)
        goal = teams._meet_twin(team, goal)
        self.late += int(over[0])
        teams._end_call_twin(team, 0, goal)

    def call(self):
        """One call on two members; what it is given counts as freed afterwards."""
        over = np.zeros(2)
        try:
            threads.run(self, 2, False, (over,))
        finally:
            over[0] = 1


class BreaksWhilePlaced(Guarded):
    """The same, interrupted before the other member is woken."""

    def call(self):
        def interrupt(worker):
            self.broken = True
            raise KeyboardInterrupt

        place, threads._place = threads._place, interrupt
        try:
            super().call()
        finally:
            threads._place = place


def fresh():
    """No threads are there yet."""
    rnnfast.set_num_threads(1)
    rnnfast.set_num_threads(2)


def asleep():
    """The worker is there and sleeps."""
    (team,) = threads._pool.idle
    return wait_until(lambda: all(worker.asleep for worker in team.workers))


def bytecodes(each):
    """Interrupt before each bytecode, then call ten times."""
    small = 1 if jit_is_disabled() else 3
    layer = TimeRNN.from_sizes(3 * small, 5 * small, rng=np.random.default_rng(0))
    xs = np.random.default_rng(1).standard_normal((8, 2 * small, 3 * small), np.float32)
    expected = layer.forward(xs)
    plain, broken, placed = Guarded(), Guarded(breaks=True), BreaksWhilePlaced()
    outputs = np.empty_like(expected)

    def first():
        outputs[...] = 7.0
        layer.forward(xs, out=outputs)

    def shrinks():
        rnnfast.set_num_threads(1)

    # name: before, call, whether its bytecodes count now
    scenes = {
        "at work": (lambda: None, first, lambda: True),
        "no threads": (fresh, first, lambda: True),
        "shrinks": (lambda: None, shrinks, lambda: True),
        "freed arrays": (lambda: None, plain.call, lambda: True),
        "again in the kernel": (lambda: None, broken.call, lambda: broken.broken),
        "again while placing": (asleep, placed.call, lambda: placed.broken),
    }
    found = SimpleNamespace(interrupts={}, calls=0, wrong=0, alone=0)
    for kernel in (plain, broken, placed):  # the first call is alone
        kernel.call()
    for name, (before, call, counts) in scenes.items():
        number = 0
        while True:
            faulthandler.dump_traceback_later(LONGEST, exit=True)
            broken.broken = placed.broken = False
            rnnfast.set_num_threads(2)
            before()
            was_hit = interrupted(call, number, counts)
            rnnfast.set_num_threads(2)
            kept = outputs.copy()
            for _ in range(10):
                found.calls += 1
                found.wrong += layer.forward(xs).tobytes() != expected.tobytes()
            found.wrong += outputs.tobytes() != kept.tobytes()
            found.alone += [len(team.workers) for team in threads._pool.idle] != [1]
            if not was_hit:
                break
            number += each
        found.interrupts[name] = number // each
    found.late = plain.late + broken.late + placed.late
    found.left = not wait_until(lambda: len(workers()) <= 1)
    return vars(found)


class Armed:
    """A signal handler that raises up to `most` times after it was armed."""

    def __init__(self):
        self.most = self.raised = 0

    def __call__(self, *received):
        if self.most > 0:
            self.most -= 1
            self.raised += 1
            raise KeyboardInterrupt


def works():
    """Calls on two threads: layers by sequences and by units, and a training step."""
    rng = np.random.default_rng(0)

    def layer_call(layer, batch, steps):
        xs, dhs = (rng.standard_normal((batch, steps, n), np.float32) for n in (24, 32))

        def call():
            hs = layer.forward(xs)
            return [hs, layer.backward(dhs), *layer.grads]

        return call

    model = RNNLM(60, 24, 32, rng=rng)
    ids = rng.integers(0, 60, (2, 8, 9))

    def training():
        model.reset_state()
        loss = model.forward(*ids)
        model.backward()
        return [np.array(loss), *model.grads]

    by_sequences = layer_call(TimeRNN.from_sizes(24, 32, rng=rng), 16, 12)
    by_units = layer_call(TimeLSTM.from_sizes(24, 32, rng=rng), 2, 12)
    return [by_sequences, by_units, training]


def bits(arrays):
    return b"".join(array.tobytes() for array in arrays)


def target(count, seed):
    """Makes calls until `count` signals have raised; every call that no signal hits has the same bits."""
    handler, chance, calls = Armed(), random.Random(seed), works()
    expected = [bits(call()) for call in calls]
    found = SimpleNamespace(calls=0, wrong=0, twice=0)
    faulthandler.dump_traceback_later(LONGEST, exit=True)
    signal.signal(signal.SIGINT, handler)
    print("ready", flush=True)
    while handler.raised < count:
        faulthandler.dump_traceback_later(LONGEST, exit=True)
        number, before = chance.randrange(len(calls)), handler.raised
        for _ in range(30):
            try:
                try:
                    handler.most = chance.choice((1, 1, 2))
                    actual = calls[number]()
                    handler.most = 0
                    found.wrong += bits(actual) != expected[number]
                    found.calls += 1
                except KeyboardInterrupt:
                    handler.most = min(handler.most, 0)
            except KeyboardInterrupt:
                pass
            if handler.raised > before:
                break
        found.twice += handler.raised > before + 1
        for call, wanted in zip(calls, expected, strict=True):
            found.wrong += bits(call()) != wanted
            found.calls += 1
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print(json.dumps({"signals": handler.raised, **vars(found), "threads": len(workers())}), flush=True)


def signals(count, seed):
    """Send signals to another process until it has had enough of them."""
    command = [sys.executable, __file__, "target", str(count), str(seed)]
    chance = random.Random(seed)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        while process.poll() is None:
            os.kill(process.pid, signal.SIGINT)
            time.sleep(chance.expovariate(2000))
        if process.returncode:
            raise SystemExit(process.returncode)
        return json.loads(process.stdout.read())


if __name__ == "__main__":
    what, *numbers = sys.argv[1], *map(int, sys.argv[2:])
    if what == "signals":
        print(json.dumps(signals(numbers[0], numbers[1] if len(numbers) > 1 else 0)))
    else:
        rehearse()
        if what == "target":
            target(*numbers)
        else:
            print(json.dumps(bytecodes(*numbers or [1])))
