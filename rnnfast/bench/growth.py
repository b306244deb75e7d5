"""The growth of speed with the number of ranks, as the model of a step predicts it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from rnnfast.bench.cluster import Cluster, Link, Machine
from rnnfast.bench.grid import ModelSize
from rnnfast.bench.step_model import step
from rnnfast.bench.step_simulation import simulated

RANKS = tuple(2**k for k in range(9))
LAPTOP = ModelSize("lstm", 1, 10_000, 256, 256, 35)
LARGE = ModelSize("lstm", 2, 50_000, 1500, 256, 35)
NETWORKS = (1.0, 10.0, 100.0)  # Gb/s
FEWEST_BLOCKS = 8
# Eight cores with rates of an AMD EPYC (Zen 4) and two channels of memory.
MACHINE = Machine(
    rate=105e9, stream=36e9, memory=20e9, all_memory=60e9, cache=32 * 2**20, local=Link(8e9, 2e-6)
)
_COLORS = ("#d9822b", "#1f5fbf", "#3d8a3a")


class Grown(NamedTuple):
    """The prediction for a number of ranks: rows and seconds of a step, and the speedup over one rank."""

    ranks: int
    rows: int
    seconds: float
    speedup: float

    @property
    def efficiency(self) -> float:
        """Speedup over ranks."""
        return self.speedup / self.ranks


def grown(
    size: ModelSize,
    cluster: Cluster,
    ranks: Sequence[int] = RANKS,
    *,
    weak: bool = False,
    spread: float = 0.0,
    steps: int = 50,
) -> list[Grown]:
    """Steps on more and more ranks.

    The batch is cut into 8 blocks, or into one for each rank if there are more ranks.

    Parameters
    ----------
    size : ModelSize
        `N` rows are those of all ranks together, or with `weak` those of each.
    cluster : Cluster
    ranks : sequence of int
        Powers of two.
    weak : bool
        Whether the batch grows with the ranks.
    spread : float
        Of the ranks' computing times, see `simulated`; 0 for the closed form.
    steps : int
        Steps of the simulation.

    Returns
    -------
    list of Grown
        The speed is that of rows, relative to one rank with `N` rows.

    Examples
    --------
    >>> lines = grown(LAPTOP, Cluster(MACHINE, Link.of_gigabits(10)), (1, 2, 64))
    >>> [round(line.speedup, 1) for line in lines][0], lines[2].efficiency < lines[1].efficiency
    (1.0, True)
    """
    rng = np.random.default_rng(0)
    alone = step(size, 1, FEWEST_BLOCKS, cluster).seconds / size.N
    found = []
    for count in ranks:
        whole = size._replace(N=size.N * count) if weak else size
        parts = step(whole, count, max(FEWEST_BLOCKS, count), cluster)
        seconds = parts.seconds
        if spread:
            beside = cluster.ranks_per_machine
            times = simulated(parts, count, ranks_per_machine=beside, spread=spread, steps=steps, rng=rng)
            seconds = float(times.mean())
        found.append(Grown(count, whole.N, seconds, alone * whole.N / seconds))
    return found


def pays_up_to(lines: Sequence[Grown], efficiency: float = 0.5) -> int:
    """The largest number of ranks that keeps this efficiency.

    Examples
    --------
    >>> pays_up_to([Grown(1, 8, 1.0, 1.0), Grown(2, 8, 0.6, 1.67), Grown(4, 8, 0.5, 1.9)])
    2
    """
    return max((line.ranks for line in lines if line.efficiency >= efficiency), default=1)


def draw(
    axes: Any,
    size: ModelSize,
    cluster: Cluster,
    ranks: Sequence[int] = RANKS,
    *,
    rows_of_a_rank: int | None = None,
) -> None:
    """Draw speedups for each of `NETWORKS`: solid for a fixed batch, dashed for one that grows.

    A fixed batch of `size.N` rows has at most one rank a row.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    size : ModelSize
    cluster : Cluster
        Its network is not used.
    ranks : sequence of int
    rows_of_a_rank : int, optional
        Of a batch that grows; `size.N` by default.
    """
    each = size._replace(N=rows_of_a_rank or size.N)
    axes.plot(ranks, ranks, color="gray", linewidth=0.8, linestyle=":", label="ranks")
    for gigabits, color in zip(NETWORKS, _COLORS, strict=True):
        connected = replace(cluster, network=Link.of_gigabits(gigabits))
        for weak, style in ((False, "-"), (True, "--")):
            counts = [count for count in ranks if weak or count <= size.N]
            lines = grown(each if weak else size, connected, counts, weak=weak)
            speeds = [line.speedup for line in lines]
            label = None if weak else f"{gigabits:g} Gb/s"
            axes.plot(counts, speeds, style, color=color, marker="o", markersize=3, label=label)
    for style, label in (("-", "fixed batch"), ("--", "growing batch")):
        axes.plot([], [], style, color="gray", label=label)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xticks(ranks, [str(count) for count in ranks])
    axes.set_yticks(ranks, [str(count) for count in ranks])
    axes.set_xlabel("ranks")
    axes.set_ylim(0.5, max(ranks) * 1.2)
