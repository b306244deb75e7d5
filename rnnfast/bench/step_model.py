"""A model of a training step on several ranks: what each computes, adds, sends, and repeats like all others.

Times are in seconds, sizes in bytes and float32 numbers, rates in operations or bytes per second.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from rnnfast.bench.cluster import FREE, Cluster, Rank
from rnnfast.bench.grid import ModelSize
from rnnfast.models.cells import named_cell

_NUMBER = 4  # bytes
# Bytes moved per number by each further block: its gradient is written, which reads each line, and added,
# two reads and a write.
_BLOCK = 5 * _NUMBER
TREE = 2 * _NUMBER  # bytes moved per number of slices, which are added in the cache: a read and a write
# Numbers moved per parameter: its norm (1), clipping (2), SGD (3), and the copy of good parameters (2).
_UPDATE = 8


class Layer(NamedTuple):
    """What the work and the messages of a layer depend on.

    Parameters
    ----------
    name : str
    stepwise : int
        Weights of the product at each step of time, ``h Wh``.
    windowed : int
        Weights of products with all rows and steps of a window.
    numbers : int
        Gradient numbers that are summed over blocks and ranks; of an embedding, those of the rows in use.
    """

    name: str
    stepwise: int
    windowed: int
    numbers: int


class Part(NamedTuple):
    """Seconds that a step spends on the gradient of one layer.

    Parameters
    ----------
    name : str
    backward : float
        The backward pass, with the sums over the blocks of a rank.
    slices : float
        Each rank sends every other rank its slice.
    additions : float
        Each rank sums the slices it received.
    shares : float
        Each rank sends its sum to all others.
    """

    name: str
    backward: float
    slices: float
    additions: float
    shares: float


class Step(NamedTuple):
    """The times of one step on one rank.

    Parameters
    ----------
    forward : float
        The forward pass of all layers.
    meetings : float
        Small gathers: the scored steps and losses of rows, the words in use, and whether to go on.
    parts : tuple of Part
        In the order of the backward pass.
    update : float
        What every rank does alike.
    overhead : float
        What no size changes.
    overlaps : bool
        Whether messages travel during the backward pass, as they do between machines. On one machine, ranks
        copy them after it.
    """

    forward: float
    meetings: float
    parts: tuple[Part, ...]
    update: float
    overhead: float
    overlaps: bool

    @property
    def seconds(self) -> float:
        """Seconds of the step if all ranks are equally fast.

        The slices of a layer are sent when its gradient is complete. At each of these moments, and at the end
        of the backward pass, a rank adds the slices that have arrived, and sends its sum. The network sends
        one message at a time. Without overlap, the gradients are exchanged one after another at the end.
        """
        if not self.overlaps:
            exchanges = sum(part.slices + part.additions + part.shares for part in self.parts)
            return self.work + self.meetings + exchanges + self.update + self.overhead
        now, network = self.forward + self.meetings, 0.0
        arrivals: list[float] = []  # of slices, by layer
        added = 0
        for part in self.parts:
            now += part.backward
            while added < len(arrivals) and arrivals[added] <= now:
                now += self.parts[added].additions
                network = max(network, now) + self.parts[added].shares
                added += 1
            network = max(network, now) + part.slices
            arrivals.append(network)
        for part, arrival in zip(self.parts[added:], arrivals[added:], strict=True):
            now = max(now, arrival) + part.additions
            network = max(network, now) + part.shares
        return max(now, network) + self.update + self.overhead

    @property
    def work(self) -> float:
        """Seconds of the forward and backward passes."""
        return self.forward + sum(part.backward for part in self.parts)

    @property
    def exchange(self) -> float:
        """Seconds for which the ranks wait for each other's numbers, or add them."""
        return self.seconds - self.work - self.update - self.overhead


def distinct_words(V: int, count: float) -> float:
    """The expected number of distinct ids among `count`, if id k has the frequency 1 / (k + 1).

    Examples
    --------
    >>> distinct_words(10, 1)
    1.0
    >>> round(distinct_words(10_000, 1120))
    560
    """
    frequencies = 1 / np.arange(1, V + 1)
    frequencies /= frequencies.sum()
    return round(float(-np.expm1(count * np.log1p(-frequencies)).sum()), 9)


def layers_of(size: ModelSize) -> list[Layer]:
    """The layers of a language model from input to output; a window has `size.N` rows and `size.T` steps.

    Examples
    --------
    >>> [layer.numbers for layer in layers_of(ModelSize("rnn", 1, 2, 3, 1000, 100))]
    [6, 21, 8]
    """
    _, _, V, H, N, T = size
    shapes = named_cell("bench", size.cell).shapes(H, H)
    counts = {name: math.prod(shape) for name, shape in shapes.items()}
    recurrent = Layer("recurrent", counts["Wh"], counts["Wx"], sum(counts.values()))
    embedding = Layer("embedding", 0, 0, round(distinct_words(V, N * T) * H))
    return [embedding, *[recurrent] * size.layers, Layer("output", 0, H * V, H * V + V)]


def parameters_of(size: ModelSize) -> int:
    """The number of parameters of a language model."""
    return size.V * size.H + sum(layer.numbers for layer in layers_of(size)[1:])


def step(size: ModelSize, ranks: int, blocks: int, cluster: Cluster) -> Step:
    """The times of a training step.

    Parameters
    ----------
    size : ModelSize
        `N` counts the rows of all ranks together.
    ranks, blocks : int
        Powers of two; `ranks` divides `blocks`.
    cluster : Cluster

    Raises
    ------
    ValueError
        `ranks` does not divide `blocks`.
    """
    if blocks % ranks:
        raise ValueError(f"step: ranks must divide blocks, got {ranks} ranks and {blocks} blocks.")
    rank = Rank(cluster, ranks)
    samples = size.N * size.T / ranks
    further = blocks // ranks - 1
    layers = layers_of(size)
    forward, parts = 0.0, []
    for layer in reversed(layers):
        weights = _NUMBER * layer.stepwise
        operations = 2 * samples * (layer.stepwise + layer.windowed)
        forward += rank.products(operations, size.T * weights, weights)
        parts.append(
            Part(
                layer.name,
                rank.products(2 * operations, size.T * weights, weights)
                + rank.passes(further * _BLOCK * layer.numbers),
                rank.slices(_NUMBER * layer.numbers),
                rank.passes((ranks - 1) / ranks * TREE * layer.numbers),
                rank.shares(_NUMBER * layer.numbers),
            )
        )
    update = rank.passes(_UPDATE * _NUMBER * parameters_of(size))
    words = distinct_words(size.V, size.N * size.T / ranks) * ranks
    meetings = sum(rank.shares(8 * count) for count in (size.N, size.N, words, 4 * ranks))
    overlaps = ranks > cluster.ranks_per_machine
    return Step(forward, meetings, tuple(parts), update, cluster.machine.overhead, overlaps)


class Compared(NamedTuple):
    """Seconds of a step on a number of ranks, measured and predicted."""

    ranks: int
    measured: float
    predicted: float

    @property
    def ratio(self) -> float:
        """Measured over predicted."""
        return self.measured / self.predicted


def compared(measured: Mapping[int, float], size: ModelSize, blocks: int, cluster: Cluster) -> list[Compared]:
    """Measured seconds of a step, by number of ranks, beside those of the model.

    Examples
    --------
    >>> from rnnfast.bench.cluster import Link, Machine
    >>> machine = Machine(1e11, 4e10, 1e10, 2e10, 2**25, Link(5e9, 1e-6))
    >>> size = ModelSize("lstm", 1, 1000, 64, 16, 10)
    >>> predicted = step(size, 2, 8, Cluster(machine, Link.of_gigabits(10), 2)).seconds
    >>> [line] = compared({2: 1.5 * predicted}, size, 8, Cluster(machine, Link.of_gigabits(10), 2))
    >>> round(line.ratio, 3)
    1.5
    """
    return [
        Compared(ranks, seconds, step(size, ranks, blocks, cluster).seconds)
        for ranks, seconds in sorted(measured.items())
    ]


def rates(measured: Mapping[int, float], size: ModelSize) -> tuple[float, float]:
    """`Machine.rate` and `Machine.stream` that fit one thread's times of forward and backward best.

    Parameters
    ----------
    measured : mapping of int to float
        Seconds for windows, by their number of rows; at least two.
    size : ModelSize
        `N` is not used.

    Returns
    -------
    rate, stream : float
        `stream` is `FREE` if the times do not show a cost of reading weights.

    Examples
    --------
    >>> size = ModelSize("lstm", 1, 1000, 64, 16, 10)
    >>> operations = 6 * 10 * (2 * 64 * 256 + 64 * 1000)     # of a row
    >>> rate, stream = rates({rows: rows * operations / 1e11 + 1e-5 for rows in (1, 4, 16)}, size)
    >>> f"{rate:.3g} {stream:.3g}"
    '1e+11 1.31e+11'
    """
    layers = layers_of(size)
    of_a_row = 6 * size.T * sum(layer.stepwise + layer.windowed for layer in layers)
    bytes_read = 2 * size.T * _NUMBER * sum(layer.stepwise for layer in layers)
    rows, seconds = np.array(list(measured)), np.array(list(measured.values()))
    unknown = np.stack([rows * of_a_row, np.full(rows.size, bytes_read)], axis=1) / seconds[:, np.newaxis]
    scale = unknown.max(axis=0)
    (of_operation, of_byte), *_ = np.linalg.lstsq(unknown / scale, np.ones(rows.size), rcond=None)
    rate = float(scale[0] / of_operation)
    return rate, float(scale[1] / of_byte) if of_byte > 0 else FREE
