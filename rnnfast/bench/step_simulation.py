"""Steps of ranks that are not equally fast, simulated message by message."""

from __future__ import annotations

import numpy as np

from rnnfast.bench.step_model import Step


def simulated(
    step: Step,
    ranks: int,
    *,
    ranks_per_machine: int = 1,
    spread: float = 0.0,
    steps: int = 100,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """Seconds of steps in which each rank computes at a speed of its own.

    In each step the computing times of a rank are multiplied by a log-normal number of mean 1. All ranks meet
    at their losses. Then each rank hands its slices of a layer to the network of its machine, which sends
    them in the order of arrival. A rank adds slices when those of all ranks have arrived and its backward
    pass is over. Shares go out when all ranks have added.

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
    return np.array([_seconds(step, slowness, beside) for slowness in np.exp(draws)])


def _seconds(step: Step, slowness: np.ndarray, beside: int) -> float:
    """Seconds of one step whose ranks need `slowness (ranks,)` times the time of computing."""
    start = step.forward * slowness.max() + step.meetings
    backward = np.cumsum([part.backward for part in step.parts])
    ready = start + backward[:, np.newaxis] * slowness  # (layers, ranks)
    ended = ready[-1]
    if not step.overlaps:
        ready = np.broadcast_to(ended, ready.shape)
    arrived = _arrivals(ready, [part.slices / beside for part in step.parts], beside)
    free = ended
    for part, arrival in zip(step.parts, arrived, strict=True):
        added = np.maximum(free, arrival) + part.additions * slowness
        free = np.full_like(ended, added.max() + part.shares)
    return float((free + step.update * slowness).max() + step.overhead)


def _arrivals(ready: np.ndarray, durations: list[float], beside: int) -> np.ndarray:
    """When the last slice of each layer has arrived: each machine's network sends one message at a time."""
    layers, ranks = ready.shape
    arrived = np.zeros(layers)
    of_machines = ready.reshape(layers, -1, beside).swapaxes(0, 1).reshape(ranks // beside, -1)
    for machine, messages in enumerate(np.argsort(of_machines, kind="stable")):
        free = 0.0
        for message in messages:
            layer, place = divmod(int(message), beside)
            free = max(free, float(ready[layer, machine * beside + place])) + durations[layer]
            arrived[layer] = max(arrived[layer], free)
    return arrived
