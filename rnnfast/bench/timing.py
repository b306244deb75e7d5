"""Timing: contenders take turns, in rounds, on as many cores as there are threads."""

from __future__ import annotations

import gc
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import numpy as np

from rnnfast.engine import load
from rnnfast.kernels.codegen.vectors import VECTOR_BYTES
from rnnfast.kernels.product.peak import CHAINS, fma_chains, fma_peak

TURN = 0.005  # least seconds of a turn; short calls are repeated within it
# Before shorter calls, each turn makes one untimed call: it fills caches and wakes threads, which takes up to
# a millisecond.
WARMED = 0.05
PEAK_SECONDS = 0.01
CORES = sorted(load.numbers())  # of the process, before `pinned`
_TASKS = "/proc/self/task"
# The process must be idle for this long before the next turn; its CPU time is counted in ticks of 4 or 10 ms.
_CALM = 0.012
_PATIENCE = 0.3  # longest wait for that; ONNX Runtime spins for 30 ms after a call


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Keep all threads of this process on the first `threads` of its `CORES`, where Linux allows it.

    Otherwise JAX would use all of them: the number of its threads is fixed when it starts.
    """
    _move_to(CORES[:threads])
    try:
        yield
    finally:
        _move_to(CORES)


def _move_to(cores: list[int]) -> None:
    for thread in os.listdir(_TASKS) if os.path.isdir(_TASKS) else ():
        with suppress(OSError):  # it has ended, or this is forbidden
            os.sched_setaffinity(int(thread), cores)


def peak_work(threads: int) -> tuple[Callable[[], object], int]:
    """A call that multiplies and adds in registers on all threads at once, and its operations."""
    operations = 2 * CHAINS * VECTOR_BYTES // 4  # of a round of all chains, in float32
    rounds = max(1, int(fma_peak() * PEAK_SECONDS / operations))
    pool = ThreadPoolExecutor(threads)

    def chains(_: int) -> None:
        fma_chains(rounds, np.float32(0.5), np.float32(0.25))

    def work() -> None:
        list(pool.map(chains, range(threads)))

    return work, threads * rounds * operations


def settle() -> None:
    """Wait until the threads of this process are idle.

    Thread pools keep spinning for some milliseconds after a call, on cores that the next contender needs.
    """
    end = time.perf_counter() + _PATIENCE
    while time.perf_counter() < end:
        before = time.process_time()
        time.sleep(_CALM)
        if time.process_time() - before < _CALM / 2:
            return


def in_turn(
    calls: Mapping[str, Callable[[], object]],
    seconds: float,
    rounds: int,
    rest: Callable[[], object] | None = None,
) -> dict[str, list[float]]:
    """Time calls in rounds of turns, so that all calls see the same variations of the machine.

    Parameters
    ----------
    calls
        Functions by name; each is called two to four times before timing.
    seconds
        Approximate total time.
    rounds
        Least number of turns for each.
    rest
        Called before each turn, and before the untimed calls, as `settle`.

    Returns
    -------
    samples
        Seconds of one call, by name, in the order of the rounds.
    """
    shortest = {name: _shortest(call, rest) for name, call in calls.items()}
    samples: dict[str, list[float]] = {name: [] for name in calls}
    gc.collect()
    collecting = gc.isenabled()
    gc.disable()
    try:
        end = time.perf_counter() + seconds
        done = 0
        while done < rounds or time.perf_counter() < end:
            for name, call in calls.items():
                if rest is not None:
                    rest()
                samples[name].append(_turn(call, shortest[name]))
            done += 1
    finally:
        if collecting:
            gc.enable()
    return samples


def _shortest(call: Callable[[], object], rest: Callable[[], object] | None) -> float:
    """Seconds of the shortest of a few calls: early ones may wait for cores on which the threads of another
    contender still spin."""
    if rest is not None:
        rest()
    call()
    shortest = math.inf
    for _ in range(3):
        shortest = min(shortest, _timed(call, 1))
        if shortest >= WARMED:
            break
    return shortest


def _turn(call: Callable[[], object], shortest: float) -> float:
    """Seconds of one call, the mean over a turn."""
    if shortest < WARMED:
        call()
    return _timed(call, max(1, math.ceil(TURN / max(shortest, 1e-9))))


def _timed(call: Callable[[], object], times: int) -> float:
    start = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - start) / times
