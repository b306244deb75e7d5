"""Timing: contenders take turns, medians are taken, and the machine's peak is measured between rounds."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from rnnfast.kernels.codegen.vectors import VECTOR_BYTES
from rnnfast.kernels.product.peak import CHAINS, fma_chains, fma_peak

TURN = 0.005  # least seconds of a turn; short calls are repeated within it
# Before shorter calls, each turn makes one untimed call: it fills caches and wakes threads, which takes up to
# a millisecond.
WARMED = 0.05
PEAK_SECONDS = 0.004
_OPERATIONS = 2 * CHAINS * VECTOR_BYTES // 4  # of one round of the chains, in float32
# The process must be idle for this long before the next turn; its CPU time is counted in ticks of 4 or 10 ms.
_CALM = 0.012
_PATIENCE = 0.3  # longest wait for that; ONNX Runtime spins for 30 ms after a call


def distribution(samples: Sequence[float]) -> dict[str, float]:
    """Median, 10 % and 90 % quantiles, and the number of samples.

    Examples
    --------
    >>> distribution([1.0, 2.0, 3.0])
    {'median': 2.0, 'p10': 1.2, 'p90': 2.8, 'samples': 3}
    """
    low, middle, high = (float(value) for value in np.percentile(samples, (10, 50, 90)))
    return {"median": middle, "p10": low, "p90": high, "samples": len(samples)}


def spread(samples: Sequence[float]) -> float:
    """The distance of the 10 % and 90 % quantiles divided by the median, a measure of noise.

    Examples
    --------
    >>> spread([100.0] * 9), round(spread([90.0, 100.0, 110.0]), 2)
    (0.0, 0.16)
    """
    found = distribution(samples)
    return (found["p90"] - found["p10"]) / found["median"]


class PeakMeter:
    """Fused multiply-adds per second of all threads together, measured on all at the same time.

    Parameters
    ----------
    threads : int

    Attributes
    ----------
    samples : list of float
        Peaks in operations per second; each is the best of a few short slices.
    noise : list of float
        Seconds of a fixed piece of work, for each thread after each peak. It shows the load of other
        programs, which the best of a few slices hides.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.samples: list[float] = []
        self.noise: list[float] = []
        self._rounds = 0
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def measure(self) -> float:
        """Measure once; returns operations per second, where a multiply-add counts as two."""
        tasks = [PEAK_SECONDS] * self.threads
        pairs = list((self._pool.map if self._pool else map)(self._measure_one, tasks))
        self.samples.append(sum(peak for peak, _ in pairs))
        self.noise += [seconds for _, seconds in pairs]
        return self.samples[-1]

    def _measure_one(self, seconds: float) -> tuple[float, float]:
        """The peak of one core, and the seconds of a fixed piece of work."""
        peak = fma_peak(seconds)
        if not self._rounds:
            self._rounds = max(1, int(peak * seconds / _OPERATIONS))
        a, b = np.float32(0.5), np.float32(0.25)
        start = time.perf_counter()
        fma_chains(self._rounds, a, b)
        return peak, time.perf_counter() - start

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()


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
    *,
    rest: Callable[[], object] | None = None,
    between: Callable[[], object] | None = None,
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
        Called before each turn, and before the untimed calls.
    between
        Called after each round.

    Returns
    -------
    samples
        Seconds of one call, by name, in the order of the rounds.
    """
    turns = {name: _turn_of(call, rest) for name, call in calls.items()}
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
                samples[name].append(_take(call, turns[name]))
            if between is not None:
                between()
            done += 1
    finally:
        if collecting:
            gc.enable()
    return samples


class _Turn(NamedTuple):
    """The numbers of untimed and timed calls in a turn."""

    ahead: int
    repeats: int


def _turn_of(call: Callable[[], object], rest: Callable[[], object] | None) -> _Turn:
    """The number of calls that fill a turn, from the shortest of a few calls: early calls may wait for cores
    on which the threads of another contender still spin."""
    if rest is not None:
        rest()
    call()
    shortest = math.inf
    for _ in range(3):
        start = time.perf_counter()
        call()
        shortest = min(shortest, max(time.perf_counter() - start, 1e-9))
        if shortest >= WARMED:
            break
    return _Turn(int(shortest < WARMED), max(1, math.ceil(TURN / shortest)))


def _take(call: Callable[[], object], turn: _Turn) -> float:
    """Seconds of one call."""
    for _ in range(turn.ahead):
        call()
    start = time.perf_counter()
    for _ in range(turn.repeats):
        call()
    return (time.perf_counter() - start) / turn.repeats
