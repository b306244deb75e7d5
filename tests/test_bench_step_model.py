"""The model of a training step on several ranks, against numbers worked out by hand, and its simulation."""

import math
from dataclasses import replace

import numpy as np
import pytest

from rnnfast.bench.cluster import FREE, Cluster, Link, Machine, Rank
from rnnfast.bench.grid import ModelSize, model_problem
from rnnfast.bench.step_model import (
    Part,
    Step,
    compared,
    distinct_words,
    layers_of,
    parameters_of,
    rates,
    step,
)
from rnnfast.bench.step_simulation import simulated

# Round numbers, so that every time can be worked out by hand.
MACHINE = Machine(rate=1000.0, stream=100.0, memory=10.0, all_memory=40.0, cache=1000, local=Link(8.0, 0.5))
NETWORK = Link(bandwidth=2.0, latency=3.0)


def cluster(**changes):
    return Cluster(**{"machine": MACHINE, "network": NETWORK, **changes})


def a_step(*, overlaps=True):
    """Two layers, in round numbers."""
    parts = tuple(Part(name, 4.0, 6.0, 0.5, 1.0) for name in ("output", "recurrent"))
    return Step(1.0, 2.0, parts, 7.0, 8.0, overlaps)


# One rank


def test_products_take_the_time_of_their_operations_and_of_reading_the_weights():
    rank = Rank(cluster(), 1)
    assert rank.products(500, 50, 1000) == 0.5 + 50 / 100
    assert rank.products(500, 50, 1001) == 0.5 + 50 / 10  # from memory
    assert Rank(cluster(threads=4), 1).products(500, 50, 1000) == (0.5 + 50 / 100) / 4


def test_ranks_of_a_machine_share_its_memory_and_its_cache():
    rank = Rank(cluster(ranks_per_machine=8), 8)
    assert rank.passes(10) == 10 / 5
    assert rank.products(0, 50, 125) == 50 / 100
    assert rank.products(0, 50, 126) == 50 / 5
    assert Rank(cluster(ranks_per_machine=8), 2).passes(10) == 10 / 10  # two ranks alone


def test_slices_go_to_each_other_rank_in_turn():
    assert Rank(cluster(), 4).slices(16) == 3 * 4 / 2 + 3 * 3.0
    # Two machines of two ranks: one slice to the neighbor, and two of each rank through the shared network.
    assert Rank(cluster(ranks_per_machine=2), 4).slices(16) == 4 / 8 + 2 * 2 * 4 / 2 + 0.5 + 2 * 3.0
    assert Rank(cluster(ranks_per_machine=4), 4).slices(16) == 3 * 4 / 8 + 3 * 0.5


def test_small_shares_are_gathered_in_a_logarithm_of_steps_and_large_ones_in_a_ring():
    small, large = 16, 2**20
    assert Rank(cluster(), 8).shares(small) == 7 * 2 / 2 + 3 * 3.0
    assert Rank(cluster(), 8).shares(large) == 7 / 8 * large / 2 + 7 * 3.0
    assert Rank(cluster(ranks_per_machine=8), 8).shares(large) == 7 / 8 * large / 8 + 7 * 0.5
    # A ring crosses each network once for each part, whatever the number of ranks behind it.
    assert Rank(cluster(ranks_per_machine=4), 8).shares(large) == 7 / 8 * large / 2 + 7 * 3.0


def test_one_rank_sends_nothing():
    rank = Rank(cluster(), 1)
    assert (rank.slices(1e9), rank.shares(1e9), rank.shares(10)) == (0.0, 0.0, 0.0)


# The layers of a model


def test_the_layers_of_a_model_have_its_weights():
    size = ModelSize("lstm", 2, 50, 8, 4, 6)
    embedding, first, second, output = layers_of(size)
    assert first == second
    assert (first.stepwise, first.windowed, first.numbers) == (8 * 32, 8 * 32, 2 * 8 * 32 + 32)
    assert (output.stepwise, output.windowed, output.numbers) == (0, 400, 450)
    assert (embedding.stepwise, embedding.windowed) == (0, 0)
    assert embedding.numbers == round(8 * distinct_words(50, 24))
    assert parameters_of(size) == sum(param.size for param in model_problem(size).params)


def test_the_number_of_distinct_words_is_that_of_draws():
    rng = np.random.default_rng(0)
    frequencies = 1 / np.arange(1, 101)
    draws = rng.choice(100, (4000, 60), p=frequencies / frequencies.sum())
    counts = np.array([len(set(row)) for row in draws.tolist()])
    error = counts.std() / math.sqrt(len(counts))
    assert distinct_words(100, 60) == pytest.approx(counts.mean(), abs=4 * error)


# A step


def test_a_step_on_one_rank_is_its_work_the_sums_of_blocks_and_the_update():
    size = ModelSize("rnn", 1, 3, 2, 4, 5)  # 10 numbers in the layer, 9 and 6 outside
    rows_used = round(2 * distinct_words(3, 20))
    found = step(size, 1, 4, cluster())
    operations = 2 * 20 * (4 + 4 + 6)  # Wx, Wh and the output, forward
    reading = 5 * 4 * 4 / 100
    sums = 3 * 20 * (10 + 9 + rows_used) / 10
    assert found.work == pytest.approx(3 * operations / 1000 + 2 * reading + sums)
    assert found.update == pytest.approx(8 * 4 * (10 + 9 + 6) / 10)
    assert found.seconds == pytest.approx(found.work + found.update)
    assert found.exchange == pytest.approx(0.0)
    assert [part.name for part in found.parts] == ["output", "recurrent", "embedding"]


def test_a_step_on_two_ranks_halves_the_rows_and_sends_each_gradient_twice_by_half():
    size = ModelSize("rnn", 1, 3, 2, 4, 5)
    found = step(size, 2, 4, cluster())
    output = found.parts[0]
    assert output.backward == pytest.approx(2 * 2 * 10 * 6 / 1000 + 20 * 9 / 10)
    assert output.slices == pytest.approx(36 / 2 / 2 + 3.0)
    assert output.additions == pytest.approx(8 * 9 / 2 / 10)
    assert output.shares == pytest.approx(36 / 2 / 2 + 3.0)
    words = 2 * distinct_words(3, 10)
    assert found.meetings == pytest.approx(sum(8 * count / 2 / 2 + 3.0 for count in (4, 4, words, 8)))
    assert found.update == step(size, 1, 4, cluster()).update


def test_slices_of_a_layer_are_sent_during_the_backward_pass_below():
    # Backward ends at 7 and 11; slices are sent from 7 to 13 and to 19; the first shares from 19 to 20.
    assert a_step().seconds == 20 + 1 + 7 + 8
    # Without overlap each of two layers takes 7.5 after the backward pass.
    assert a_step(overlaps=False).seconds == 11 + 2 * 7.5 + 7 + 8
    assert a_step().exchange == 36 - 9 - 15


def test_slices_that_have_arrived_are_added_when_the_next_gradient_is_complete():
    parts = (Part("output", 4.0, 1.0, 5.0, 3.0), Part("recurrent", 4.0, 2.0, 0.5, 0.25))
    # Slices arrive at 5 and are added from 8 to 13; then the network sends the shares, and to 18 the slices.
    assert Step(0.0, 0.0, parts, 0.0, 0.0, True).seconds == 18.75


def test_ranks_of_one_machine_copy_after_the_backward_pass():
    size = ModelSize("rnn", 1, 3, 2, 4, 5)
    assert not step(size, 4, 4, cluster(ranks_per_machine=4)).overlaps
    assert step(size, 4, 4, cluster(ranks_per_machine=2)).overlaps


def test_ranks_must_divide_the_blocks():
    with pytest.raises(ValueError, match="ranks must divide blocks, got 8 ranks and 4 blocks"):
        step(ModelSize("rnn", 1, 3, 2, 4, 5), 8, 4, cluster())


def test_more_bandwidth_is_never_slower():
    size = ModelSize("lstm", 2, 1000, 64, 256, 20)
    for ranks in (2, 16, 256):
        times = [step(size, ranks, 256, cluster(network=Link(b, 3.0))).seconds for b in (1.0, 10.0, 100.0)]
        assert times == sorted(times, reverse=True)


# Measured times


def test_measured_times_are_compared_with_the_model():
    size = ModelSize("lstm", 1, 100, 8, 16, 4)
    ideal = {ranks: step(size, ranks, 8, cluster(ranks_per_machine=4)).seconds for ranks in (1, 2, 4)}
    factors = {4: 0.5, 1: 1.0, 2: 1.25}
    measured = {ranks: ideal[ranks] * factor for ranks, factor in factors.items()}
    lines = compared(measured, size, 8, cluster(ranks_per_machine=4))
    assert [line.ranks for line in lines] == [1, 2, 4]
    assert [line.ratio for line in lines] == pytest.approx([1.0, 1.25, 0.5])


def test_the_rates_of_a_machine_are_found_in_the_times_of_the_model():
    size = ModelSize("gru", 2, 300, 16, 1, 7)
    machine = Machine(3e9, 5e8, 1e9, 1e9, 2**30, Link(1.0, 1.0))
    rows = (1, 4, 16)
    times = {N: step(size._replace(N=N), 1, 1, Cluster(machine, NETWORK)).work for N in rows}
    assert rates(times, size) == pytest.approx((3e9, 5e8))


def test_times_without_a_cost_of_reading_read_for_free():
    size = ModelSize("rnn", 1, 300, 16, 1, 7)
    rate, stream = rates({1: 1.0, 4: 4.1}, size)
    assert stream == FREE
    assert 0 < rate < math.inf


# The simulation


@pytest.mark.parametrize("overlaps", [True, False])
@pytest.mark.parametrize("beside", [1, 2, 8])
@pytest.mark.parametrize("bandwidth", [1.0, 1000.0, 1e6])
def test_equal_ranks_take_the_time_of_the_model(overlaps, beside, bandwidth):
    size = ModelSize("lstm", 2, 200, 16, 32, 8)
    slow = replace(MACHINE, local=Link(bandwidth, 0.0))
    machines = cluster(machine=slow, network=Link(bandwidth, 0.0), ranks_per_machine=beside)
    found = step(size, 8, 16, machines)._replace(overlaps=overlaps)
    actual = simulated(found, 8, ranks_per_machine=beside, steps=2)
    # Messages of ranks behind one network may end earlier than all of them together.
    assert actual == pytest.approx(found.seconds, rel=1e-9 if beside == 1 or not overlaps else 0.05)


def test_ranks_of_different_speed_wait_for_the_slowest():
    only_work = Step(1.0, 0.0, (Part("output", 1.0, 0.0, 0.0, 0.0),), 0.0, 0.0, True)
    rng, again = np.random.default_rng(0), np.random.default_rng(0)
    actual = simulated(only_work, 4, spread=0.3, steps=50, rng=rng)
    slowest = np.exp(again.normal(-0.045, 0.3, (50, 4))).max(axis=1)
    np.testing.assert_allclose(actual, 2 * slowest)


def test_a_mean_step_grows_with_the_ranks_and_their_spread():
    rng = np.random.default_rng(0)
    means = [simulated(a_step(), n, spread=0.2, steps=300, rng=rng).mean() for n in (1, 4, 64)]
    assert means == sorted(means)
    spread_out = [simulated(a_step(), 8, spread=s, steps=300, rng=rng).mean() for s in (0.0, 0.1, 0.4)]
    assert spread_out == sorted(spread_out)
    assert spread_out[0] == pytest.approx(a_step().seconds)


def test_a_network_sends_the_messages_of_its_ranks_in_the_order_of_arrival():
    # One layer, two ranks behind one network, each message takes 3 of the 6 seconds.
    parts = (Part("output", 2.0, 6.0, 0.0, 0.0),)
    found = simulated(
        Step(0.0, 0.0, parts, 0.0, 0.0, True),
        2,
        ranks_per_machine=2,
        spread=0.5,
        steps=20,
        rng=np.random.default_rng(1),
    )
    slowness = np.exp(np.random.default_rng(1).normal(-0.125, 0.5, (20, 2)))
    first, last = np.sort(2 * slowness, axis=1).T
    np.testing.assert_allclose(found, np.maximum(first + 3, last) + 3)
