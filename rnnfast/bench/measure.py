"""The lines of the table: results are compared first, then all contenders are timed in turn."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

import numpy as np

import rnnfast
from rnnfast.bench.contenders import PASSES, PEERS, Results, Runs, Shape, operations, own, problem
from rnnfast.bench.timing import in_turn, peak_work, pinned, settle

Given = TypeVar("Given")
Found = TypeVar("Found")

TOLERANCE = 1e-4  # of a norm


class BenchFailed(RuntimeError):
    """A library failed, or its results differ from rnnfast's."""


@dataclass(frozen=True)
class Line:
    """The times of a layer and a pass.

    Parameters
    ----------
    cell : str
    shape : Shape
    which : str
        The pass.
    threads : int
    seconds : dict of str to float
        Medians by contender: ``rnnfast``, and each peer that has the cell and the pass.
    share : float
        Operations per second of the products divided by the FMA peak, which was measured in turn with them.
    noise : float
        The spread of the times of a fixed piece of work, from the 10 % to the 90 % quantile, over its median.
    """

    cell: str
    shape: Shape
    which: str
    threads: int
    seconds: dict[str, float]
    share: float
    noise: float

    @property
    def ratios(self) -> dict[str, float]:
        """The time of each peer divided by rnnfast's."""
        own = self.seconds["rnnfast"]
        return {name: found / own for name, found in self.seconds.items() if name != "rnnfast"}


def measured(
    cells: Sequence[str],
    shapes: Sequence[Shape],
    threads: int,
    peers: Sequence[str],
    seconds: float = 2.0,
    rounds: int = 5,
) -> Iterator[Line]:
    """Measure the grid, one line after another.

    Parameters
    ----------
    cells : sequence of str
    shapes : sequence of Shape
    threads : int
        Of all contenders; the process is kept on as many cores.
    peers : sequence of str
        Names of `PEERS`.
    seconds : float
        Approximate time for each line.
    rounds : int
        Least number of turns of each contender.

    Raises
    ------
    BenchFailed
    """
    before = rnnfast.get_num_threads()
    with ExitStack() as stack:
        stack.callback(rnnfast.set_num_threads, before)
        stack.enter_context(pinned(threads))
        work, of_work = peak_work(threads)
        for cell, shape in itertools.product(cells, shapes):
            given = problem(cell, shape, threads)
            found = {name: _ask(name, PEERS[name].prepare, given) for name in peers}
            runs = {"rnnfast": own(given)} | {name: run for name, run in found.items() if run is not None}
            for which in PASSES:
                able = {name: run for name, run in runs.items() if which in run.calls}
                _compare(able, which, f"{cell} {shape} {which}")
                calls = {name: run.calls[which] for name, run in able.items()} | {"peak": work}
                samples = in_turn(calls, seconds, rounds, settle if threads > 1 else None)
                low, usual, high = np.quantile(samples.pop("peak"), (0.1, 0.5, 0.9))
                medians = {name: median(values) for name, values in samples.items()}
                rate = operations(given.cell, shape, which) / medians["rnnfast"]
                share, noise = rate / (of_work / usual), (high - low) / usual
                yield Line(cell, shape, which, threads, medians, float(share), float(noise))


def _compare(runs: dict[str, Runs], which: str, what: str) -> None:
    """Compare the results of all contenders, which also compiles what they need."""
    expected = runs["rnnfast"].results(which)
    for name, run in runs.items():
        if name != "rnnfast":
            assert_agree(PEERS[name].title, what, _ask(name, run.results, which), expected)


def _ask(name: str, call: Callable[[Given], Found], given: Given) -> Found:
    """Call another library; the error for its exceptions names the library."""
    try:
        return call(given)
    except MemoryError:
        raise
    except Exception as error:
        raise BenchFailed(
            f"{PEERS[name].title} failed with {type(error).__name__}: {error}; leave it out with --peers to "
            f"measure the others."
        ) from error


def assert_agree(title: str, what: str, actual: Results, expected: Results) -> float:
    """Compare a peer's results with rnnfast's, each array by the norm of the difference.

    Returns
    -------
    difference : float
        The largest difference, relative to the norm of the expected array. The terms of a sum such as `db`
        may cancel; a difference of the size of rounding errors of all results together is allowed.

    Raises
    ------
    BenchFailed
        A result is missing, has another shape, or differs by more than `TOLERANCE`.
    """
    norms = {name: float(np.linalg.norm(np.asarray(array, float))) for name, array in expected.items()}
    rounding = 10 * float(np.finfo(np.float32).eps) * max(norms.values(), default=0.0)
    largest = 0.0
    for name, value in expected.items():
        if name not in actual:
            raise BenchFailed(f"{title} has no {name} for {what}, so it does not do the same work.")
        other = np.asarray(actual[name], np.float64)
        if other.shape != value.shape:
            raise BenchFailed(
                f"{title} returns {name} of shape {other.shape} for {what}, expected {value.shape}."
            )
        error = float(np.linalg.norm(other - value))
        difference = error / (norms[name] or 1.0)
        if not (difference <= TOLERANCE or error <= rounding):  # true for NaN, too
            raise BenchFailed(
                f"{title} computes another {name} for {what}: it differs by {difference:.1e} of its norm, "
                f"more than the {TOLERANCE:.0e} allowed, so its time is meaningless."
            )
        largest = max(largest, difference)
    return largest
