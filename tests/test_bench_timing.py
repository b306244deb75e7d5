"""How `rnnfast bench` takes times: contenders in turn, medians, and the peak of the machine."""

import gc
import time
from collections import Counter

import pytest
from helpers import needs_jit
from rnnfast.kernels.peak import CHAINS
from rnnfast.kernels.vectors import VECTOR_BYTES

from rnnfast.bench import timing


def test_contenders_take_turns_and_each_gets_its_rounds():
    order = []
    calls = {name: lambda name=name: (order.append(name), time.sleep(0.006)) for name in "ab"}
    samples = timing.in_turn(calls, 0.0, 3, rest=lambda: order.append("-"), between=lambda: order.append("|"))
    assert "".join(order) == "aabb" + "-a-b|" * 3  # two calls of each to warm up
    assert {name: len(found) for name, found in samples.items()} == {"a": 3, "b": 3}
    assert all(seconds >= 0.006 for found in samples.values() for seconds in found)


def test_short_calls_are_repeated_within_a_turn_and_a_time_is_that_of_one():
    counts = Counter()
    calls = {"a": lambda: (counts.update("a"), time.sleep(0.0005))}
    [seconds] = timing.in_turn(calls, 0.0, 1)["a"]
    assert counts["a"] > 5
    assert 0.0005 <= seconds < timing.TURN


def test_measuring_goes_on_until_the_time_is_over():
    samples = timing.in_turn({"a": lambda: time.sleep(0.006)}, 0.1, 1)["a"]
    assert len(samples) > 2


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
