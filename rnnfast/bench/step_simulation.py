"""Steps of ranks that are not equally fast, simulated message by message."""

from __future__ import annotations

from heapq import heappop, heappush

import numpy as np

from rnnfast.bench.step_model import Step


def simulated(
    step: Step,
    ranks: int,
    *,
    ranks_per_machine: int = 1,
    spread: float = 0.0,
    steps: int = 50,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """Seconds of steps in which each rank computes at a speed of its own.

    In each step the computing times of a rank are multiplied by a log-normal number of mean 1. All ranks meet
    at their losses; then they exchange gradients as in `Step.seconds`. A rank adds slices once those of all
    ranks have arrived, and has a sum once the shares of all have. The network of a machine sends one message
    at a time, in the order in which its ranks hand them over.

    Parameters
    ----------
    step : Step
        Times of a rank of mean speed.
    ranks, ranks_per_machine : int
        As in the model of the step.
    spread : float
        Standard deviation of the logarithm of a rank's computing time.
    steps : int
        Number of steps to simulate.
    rng : numpy.random.Generator, optional
        A fresh generator by default.

    Returns
    -------
    ndarray (steps,)

    Examples
    --------
    >>> from rnnfast.bench.step_model import Part
    >>> step = Step(1.0, 0.0, (Part("output", 2.0, 0.5, 0.0, 0.5),), 0.0, 0.0, True)
    >>> simulated(step, 4, steps=2).tolist(), step.seconds
    ([4.0, 4.0], 4.0)
    """
    rng = np.random.default_rng() if rng is None else rng
    beside = min(ranks, ranks_per_machine)
    draws = rng.normal(-(spread**2) / 2, spread, (steps, ranks)) if spread else np.zeros((steps, ranks))
    return np.array([_Simulation(step, slowness, beside).seconds() for slowness in np.exp(draws)])


class _Transfer:
    """The messages of one kind of one layer: how many ranks have yet to send, when the last one arrives, and
    the ranks that wait for it."""

    def __init__(self, ranks: int) -> None:
        self.missing, self.arrival = ranks, 0.0
        self.waiting: list[tuple[float, int]] = []


class _Rank:
    """How far a rank is: layers whose gradients are computed, slices sent, slices added, sums received."""

    def __init__(self, slowness: float, machine: int) -> None:
        self.slowness, self.machine = slowness, machine
        self.computed = self.sent = self.added = self.received = 0


class _Simulation:
    """One step of ranks that need `slowness (ranks,)` times the time of computing."""

    def __init__(self, step: Step, slowness: np.ndarray, beside: int) -> None:
        self.step, self.parts, self.beside = step, step.parts, beside
        self.ranks = [_Rank(float(factor), number // beside) for number, factor in enumerate(slowness)]
        self.free = [0.0] * (len(self.ranks) // beside)
        self.slices = [_Transfer(len(self.ranks)) for _ in self.parts]
        self.shares = [_Transfer(len(self.ranks)) for _ in self.parts]
        self.events: list[tuple[float, int]] = []  # when a rank does something next
        self.end = 0.0

    def seconds(self) -> float:
        """Run to the end of the last rank."""
        start = max(rank.slowness for rank in self.ranks) * self.step.forward + self.step.meetings
        for number, rank in enumerate(self.ranks):
            heappush(self.events, (start + rank.slowness * self.parts[0].backward, number))
        while self.events:
            now, number = heappop(self.events)
            rank = self.ranks[number]
            if rank.computed < len(self.parts):
                self._computed(rank, number, now)
            else:
                self._waits(rank, number, now)
        return self.end + self.step.overhead

    def _computed(self, rank: _Rank, number: int, now: float) -> None:
        """The gradient of one more layer is complete."""
        rank.computed += 1
        if self.step.overlaps:
            while rank.added < rank.sent and self._is_there(self.slices[rank.added], now):
                now = self._add(rank, now)
            self._send_slices(rank, now)
        if rank.computed < len(self.parts):
            now += rank.slowness * self.parts[rank.computed].backward
        heappush(self.events, (now, number))

    def _waits(self, rank: _Rank, number: int, now: float) -> None:
        """The backward pass is over: add and receive what has arrived, or wait for it."""
        while rank.received < len(self.parts):
            if rank.sent == rank.received:  # without overlap, one layer after another
                self._send_slices(rank, now)
            adds = rank.added < rank.sent
            wanted = self.slices[rank.added] if adds else self.shares[rank.received]
            if not self._is_there(wanted, now):
                if wanted.missing:
                    wanted.waiting.append((now, number))
                else:
                    heappush(self.events, (wanted.arrival, number))
                return
            if adds:
                now = self._add(rank, now)
            else:
                rank.received += 1
        self.end = max(self.end, now + rank.slowness * self.step.update)

    @staticmethod
    def _is_there(transfer: _Transfer, now: float) -> bool:
        return not transfer.missing and transfer.arrival <= now

    def _send_slices(self, rank: _Rank, now: float) -> None:
        """Send the slices of the next layer."""
        self._send(self.slices[rank.sent], rank, now, self.parts[rank.sent].slices)
        rank.sent += 1

    def _add(self, rank: _Rank, now: float) -> float:
        """Add the slices of a layer and send the sum; returns when they are added."""
        part = self.parts[rank.added]
        now += rank.slowness * part.additions
        self._send(self.shares[rank.added], rank, now, part.shares)
        rank.added += 1
        return now

    def _send(self, transfer: _Transfer, rank: _Rank, now: float, seconds: float) -> None:
        """Hand a message to the network of the rank's machine."""
        free = self.free[rank.machine] = max(self.free[rank.machine], now) + seconds / self.beside
        transfer.arrival = max(transfer.arrival, free)
        transfer.missing -= 1
        if not transfer.missing:
            for since, number in transfer.waiting:
                heappush(self.events, (max(since, transfer.arrival), number))
            transfer.waiting.clear()
