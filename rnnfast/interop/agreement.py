"""Both sides of a conversion on the same random input: the largest difference, printed, with a limit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.interop.structure import carrying, directions

# A sum in another order differs by some parts of the last place, and the recurrence adds to it.
LIMITS = {np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-12}
BATCH, STEPS = 3, 7


def random_inputs(size: int, dtype: np.dtype, batch: int = BATCH, steps: int = STEPS) -> np.ndarray:
    """The same numbers (N, T, D) for every conversion."""
    return np.random.default_rng(0).standard_normal((batch, steps, size)).astype(dtype)


def agree(
    owner: str, what: str, ours: list[np.ndarray], theirs: Sequence[np.ndarray], show: bool = True
) -> float:
    """The largest difference between pairs of arrays, which is printed; ValueError if it is too large.

    `what` is the other side, for example "torch.nn.LSTM".
    """
    difference = largest = 0.0
    for one, other in zip(ours, theirs, strict=True):
        _check.equal(owner, f"shapes of rnnfast and {what}", one.shape, other.shape)
        apart = np.abs(one.astype(np.float64) - other)
        difference = max(difference, float(apart.max(initial=0.0)))
        largest = max(largest, float(np.abs(other).max(initial=0.0)))
    limit = LIMITS[ours[0].dtype] * max(1.0, largest)
    if not difference <= limit:
        raise _check.disagrees(owner, what, difference, limit)
    if show:
        print(f"{owner}: rnnfast and {what} differ by at most {difference:.1e} on random input")
    return difference


def compared(
    owner: str,
    what: str,
    model: Any,
    run: Callable[[np.ndarray, list[tuple[np.ndarray, ...]]], Sequence[np.ndarray]],
    show: bool = True,
) -> float:
    """`agree` of a layer or a stack, from random initial states, with the other side.

    `run(xs, states)` gives its outputs (N, T, H) and the final states (N, H) of each direction of each layer,
    from bottom to top, from inputs (N, T, D) and initial states, likewise.
    """
    twin = carrying(model)
    layers = [layer for both in directions(owner, twin) for layer in both]
    xs, rng = random_inputs(twin.input_size, twin.dtype), np.random.default_rng(1)
    states = []
    for layer in layers:
        shape = (len(layer.cell.states), BATCH, layer.hidden_size)
        states.append(tuple(rng.standard_normal(shape).astype(twin.dtype)))
        layer.set_state(*states[-1])
    ours = [twin.forward(xs)] + [state for layer in layers for state in layer.get_state() or ()]
    return agree(owner, what, ours, run(xs, states), show)
