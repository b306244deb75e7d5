"""The predicted growth with the number of ranks, and its picture."""

from dataclasses import replace

import pytest
from matplotlib.figure import Figure

from rnnfast.bench.cluster import Cluster, Link
from rnnfast.bench.grid import ModelSize
from rnnfast.bench.growth import FEWEST_BLOCKS, LARGE, MACHINE, NETWORKS, RANKS, draw, grown, pays_up_to
from rnnfast.bench.step_model import step

SIZE = ModelSize("lstm", 1, 1000, 64, 64, 10)
CLUSTER = Cluster(MACHINE, Link.of_gigabits(10))


def test_a_fixed_batch_is_shared_and_a_growing_one_has_rows_for_each_rank():
    strong, weak = grown(SIZE, CLUSTER, (1, 4, 16)), grown(SIZE, CLUSTER, (1, 4, 16), weak=True)
    assert [line.rows for line in strong] == [64, 64, 64]
    assert [line.rows for line in weak] == [64, 256, 1024]
    alone = step(SIZE, 1, FEWEST_BLOCKS, CLUSTER).seconds
    assert strong[0] == weak[0] == (1, 64, alone, 1.0)
    assert strong[2].seconds == step(SIZE, 16, 16, CLUSTER).seconds
    assert strong[2].speedup == pytest.approx(alone / strong[2].seconds)
    assert weak[2].speedup == pytest.approx(16 * alone / weak[2].seconds)
    assert weak[1].efficiency == weak[1].speedup / 4


def test_slow_ranks_cost_speed():
    even, uneven = grown(SIZE, CLUSTER, (16,)), grown(SIZE, CLUSTER, (16,), spread=0.2)
    assert uneven[0].speedup < 0.95 * even[0].speedup


def test_faster_networks_pay_up_to_more_ranks_and_more_for_a_growing_batch():
    def found(weak):
        links = (Link.of_gigabits(gigabits) for gigabits in NETWORKS)
        return [pays_up_to(grown(LARGE, replace(CLUSTER, network=link), weak=weak)) for link in links]

    strong, weak = found(False), found(True)
    assert strong == sorted(strong)
    assert all(many >= few for many, few in zip(weak, strong, strict=True))
    assert strong[0] < RANKS[-1] == weak[-1]


def test_the_picture_has_a_line_for_each_network_and_kind_of_growth():
    axes = Figure().subplots()
    draw(axes, SIZE, CLUSTER, (1, 2, 4))
    assert len(axes.lines) == 3 + 2 * len(NETWORKS)
    labels = [text.get_text() for text in axes.legend().get_texts()]
    assert labels == ["ranks", "1 Gb/s", "10 Gb/s", "100 Gb/s", "fixed batch", "growing batch"]
    expected = [
        line.speedup for line in grown(SIZE, replace(CLUSTER, network=Link.of_gigabits(1)), (1, 2, 4))
    ]
    assert axes.lines[1].get_ydata().tolist() == expected


def test_a_fixed_batch_is_drawn_up_to_one_rank_a_row():
    axes = Figure().subplots()
    draw(axes, SIZE._replace(N=2), CLUSTER, (1, 2, 4))
    assert [line.get_xdata().tolist() for line in axes.lines[1:3]] == [[1, 2], [1, 2, 4]]
