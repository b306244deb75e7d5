"""Both sides of a conversion on the same random input: the largest difference, printed, with a limit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.interop.structure import carrying, directions

# A sum in another order differs by some parts of the last place, and the recurrence multiplies that: by 1e6
# with 1,024 units and weights from a standard normal distribution.
LIMITS = {np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-8}
BATCH, STEPS = 3, 7


def random_inputs(size: int, dtype: np.dtype, batch: int = BATCH, steps: int = STEPS) -> np.ndarray:
    """The same numbers (N, T, D) for every conversion."""
    return np.random.default_rng(0).standard_normal((batch, steps, size)).astype(dtype)


def agree(
    owner: str, what: str, ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray], show: bool = True
) -> float:
    """The largest difference between pairs of arrays, which is printed; ValueError if it is too large.

    `what` is the other side, for example "torch.nn.LSTM".
    """
    difference, limit = _difference(owner, what, ours, theirs)
    if not difference <= limit:
        raise _check.disagrees(owner, what, difference, limit)
    if show:
        print(f"{owner}: rnnfast and {what} differ by at most {difference:.1e} on random input")
    return difference


def _difference(
    owner: str, what: str, ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]
) -> tuple[float, float]:
    """The largest difference, and the largest that is accepted."""
    difference = largest = 0.0
    for one, other in zip(ours, theirs, strict=True):
        _check.equal(owner, f"shapes of rnnfast and {what}", one.shape, other.shape)
        apart = np.abs(one.astype(np.float64) - other)
        difference = float(np.maximum(difference, apart.max(initial=0.0)))  # NaN stays
        largest = max(largest, float(np.abs(other).max(initial=0.0)))
    return difference, LIMITS[ours[0].dtype] * max(1.0, largest)


Run = Callable[[np.ndarray, list[tuple[np.ndarray, ...]]], Sequence[np.ndarray]]


def compared(
    owner: str, what: str, model: Any, run: Run, show: bool = True, *, wide: Run | None = None
) -> float:
    """`agree` of a layer or a stack, from random initial states, with the other side.

    `run(xs, states)` gives its outputs (N, T, H) and the final states (N, H) of each direction of each layer,
    from bottom to top, from inputs (N, T, D) and initial states, likewise. Where float32 differs by more than
    is accepted, which may be rounding that the weights multiply, both sides compute in float64, the other one
    by `wide` if it is given.
    """
    ours, theirs = _both_sides(owner, model, model.dtype, run)
    if model.dtype == np.float32:
        difference, limit = _difference(owner, what, ours, theirs)
        if not difference <= limit:
            what = f"{what} in float64"
            ours, theirs = _both_sides(owner, model, np.dtype(np.float64), wide or run)
    return agree(owner, what, ours, theirs, show)


def _both_sides(
    owner: str, model: Any, dtype: np.dtype, run: Run
) -> tuple[list[np.ndarray], Sequence[np.ndarray]]:
    """Outputs and final states of a layer or a stack in a dtype, and of the other side."""
    twin = carrying(model, dtype)
    layers = [layer for both in directions(owner, twin) for layer in both]
    xs, rng = random_inputs(twin.input_size, dtype), np.random.default_rng(1)
    states = []
    for layer in layers:
        shape = (len(layer.cell.states), BATCH, layer.hidden_size)
        states.append(tuple(rng.standard_normal(shape).astype(dtype)))
        layer.set_state(*states[-1])
    ours = [twin.forward(xs)] + [state for layer in layers for state in layer.get_state() or ()]
    return ours, run(xs, states)
