"""Interrupts in the midst of calls on two threads: no later call hangs or gives a wrong number."""

import json
import os
import subprocess
import sys
from pathlib import Path

from helpers import needs_jit, sends_interrupts, sized

SIGNALS = int(os.environ.get("RNNFAST_SIGNALS", "200"))  # a long run: 20000


def found(*arguments, timeout):
    """What `interrupts.py` prints; a call that hangs ends it with a traceback."""
    command = [sys.executable, str(Path(__file__).parents[1].joinpath("interrupts.py")), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)
    assert (done.returncode, done.stderr) == (0, "")
    print(done.stdout)
    return json.loads(done.stdout)


def test_an_interrupt_before_any_bytecode_of_the_thread_pool_leaves_it_working():
    each = sized(1, 61)
    result = found("bytecodes", each, timeout=600)
    assert min(result["interrupts"].values()) > 0, result
    assert sum(result["interrupts"].values()) > 1000 // each, result
    assert result["calls"] > 10 * sum(result["interrupts"].values())
    for fault in ("wrong", "alone", "late", "left"):
        assert result[fault] == 0, (fault, result)


@needs_jit
@sends_interrupts
def test_signals_at_random_times_leave_the_thread_pool_working():
    result = found("signals", SIGNALS, timeout=600 + SIGNALS)
    assert result["signals"] >= SIGNALS
    assert result["calls"] > 3 * SIGNALS / 2
    assert result["wrong"] == 0, result
    assert result["threads"] <= 2, result
