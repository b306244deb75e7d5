"""How `rnnfast bench` takes times: contenders in turn, medians, and the peak of the machine."""

import gc
from collections import Counter

import pytest
from helpers import needs_jit
from rnnfast.kernels.codegen.vectors import VECTOR_BYTES
from rnnfast.kernels.product.peak import CHAINS

from rnnfast.bench import timing


class Clock:
    """A clock that only moves when it is told to, in halves of halves of a second, so that sums are exact."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now

    def work(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(timing, "time", clock)
    return clock


LONG, SHORT = 2.0**-4, 2.0**-11  # longer than any that is warmed up in each turn, and shorter than a turn


def test_contenders_take_turns_and_each_gets_its_rounds(clock):
    order = []
    calls = {name: lambda name=name: (order.append(name), clock.work(LONG)) for name in "ab"}
    samples = timing.in_turn(calls, 0.0, 3, rest=lambda: order.append("-"), between=lambda: order.append("|"))
    assert "".join(order) == "-aa-bb" + "-a-b|" * 3  # two calls of each to warm up
    assert samples == {"a": [LONG] * 3, "b": [LONG] * 3}


def test_short_calls_are_repeated_within_a_turn_and_a_time_is_that_of_one(clock):
    counts = Counter()
    calls = {"a": lambda: (counts.update("a"), clock.work(SHORT))}
    assert timing.in_turn(calls, 0.0, 1) == {"a": [SHORT]}
    repeats = -(-timing.TURN // SHORT)
    assert counts["a"] == 4 + 1 + repeats  # the first four find out how many, the fifth wakes threads


def test_what_wakes_threads_is_not_counted_nor_what_a_contender_before_leaves_behind(clock):
    usual = 2.0**-6  # longer than a turn
    slow = {"now": 2}  # calls that are slow: those after another contender, or after a rest

    def call():
        clock.work(16 * usual if slow["now"] else usual)
        slow["now"] = max(0, slow["now"] - 1)

    samples = timing.in_turn({"a": call}, 0.0, 3, rest=lambda: slow.update(now=1))
    assert samples == {"a": [usual] * 3}


def test_measuring_goes_on_until_the_time_is_over(clock):
    samples = timing.in_turn({"a": lambda: clock.work(LONG)}, 10 * LONG, 3)["a"]
    assert len(samples) == 10


def test_the_garbage_collector_is_as_before_even_after_an_error():
    def fail():
        raise RuntimeError

    seen = []
    timing.in_turn({"a": lambda: seen.append(gc.isenabled())}, 0.0, 1)
    assert seen[-1] is False
    with pytest.raises(RuntimeError):
        timing.in_turn({"a": lambda: None}, 0.0, 1, between=fail)
    assert gc.isenabled()


def test_the_noise_is_the_spread_of_work_that_is_always_the_same():
    assert timing.spread([1.0] * 10) == 0.0
    assert timing.spread([1.0, 1.0, 2.0, 1.0, 1.0, 2.0]) == 1.0
    meter = timing.PeakMeter(1)
    for _ in range(3):
        meter.measure()
    assert (len(meter.samples), len(meter.noise)) == (3, 3)
    assert min(meter.noise) > 0


@needs_jit
def test_the_peak_of_a_core_is_a_few_operations_a_cycle():
    meter = timing.PeakMeter(1)
    cycles = meter.measure() / (VECTOR_BYTES / 4 * 2)
    assert 1e8 < cycles < 3e10
    assert timing._OPERATIONS == 2 * CHAINS * VECTOR_BYTES // 4
