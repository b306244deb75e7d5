"""Both sides of a conversion on the same random input: the largest difference, printed, with a limit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.interop.structure import carrying, directions, parameters

# Of the largest output: a sum in another order differs by some parts of the last place.
LIMITS = {np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-8}
BATCH, STEPS = 3, 7
FEW, TIGHT, NOISE, ROUNDINGS = 2, 1e-10, 2.0**-30, 1e3  # of the comparison that decides


def random_inputs(size: int, dtype: np.dtype, batch: int = BATCH, steps: int = STEPS) -> np.ndarray:
    """The same numbers (N, T, D) for every conversion."""
    return np.random.default_rng(0).standard_normal((batch, steps, size)).astype(dtype)


def agree(
    owner: str, what: str, ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray], show: bool = True
) -> float:
    """The largest difference between pairs of arrays, relative to the largest number, which is printed;
    ValueError if it is too large.

    `what` is the other side, for example "torch.nn.LSTM".
    """
    difference = _within(owner, what, ours, theirs, LIMITS[ours[0].dtype])
    if show:
        _tell(owner, what, difference)
    return difference


def _tell(owner: str, what: str, difference: float) -> None:
    share = f"{difference:.1e} of the largest output"
    print(f"{owner}: rnnfast and {what} differ by at most {share} on random input")


def _within(
    owner: str, what: str, ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray], limit: float
) -> float:
    """The largest difference; ValueError above a limit."""
    difference = _difference(owner, what, ours, theirs)
    if not difference <= limit:
        raise _check.disagrees(owner, what, difference, limit)
    return difference


def _difference(owner: str, what: str, ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> float:
    """The largest difference between pairs of arrays, relative to the largest number of the other side."""
    difference = largest = 0.0
    for one, other in zip(ours, theirs, strict=True):
        _check.equal(owner, f"shapes of rnnfast and {what}", one.shape, other.shape)
        apart = np.abs(one.astype(np.float64) - other)
        difference = float(np.maximum(difference, apart.max(initial=0.0)))  # NaN stays
        largest = max(largest, float(np.abs(other).max(initial=0.0)))
    return difference / (largest or 1.0)


States = list[tuple[np.ndarray, ...]]
Run = Callable[[np.ndarray, States], Sequence[np.ndarray]]
Pair = Callable[[np.ndarray, States], tuple[Sequence[np.ndarray], Sequence[np.ndarray]]]


def compared(
    owner: str,
    what: str,
    model: Any,
    run: Run,
    show: bool = True,
    *,
    equations: Run | None = None,
    wide: Pair | None = None,
) -> float:
    """The largest difference of a layer or a stack, from random initial states, from the other side, relative
    to the largest output, which is printed; ValueError if the two compute different functions.

    `run(xs, states)` gives the other side's outputs (N, T, H) and the final states (N, H) of each direction
    of each layer, from bottom to top, from inputs (N, T, D) and initial states, likewise.

    Large weights multiply rounding from step to step. Therefore a few steps in float64 decide, and the limit
    grows with what the weights multiply. The other side of these steps is `equations`, or `run` without them.
    If the whole run differs by more than rounding alone, the printed difference is that of the few steps, and
    the two sides that `wide` computes in float64 must agree too.
    """
    _check_finite(owner, model)
    xs, states = _given(owner, model, model.dtype, STEPS)
    difference = _difference(owner, what, _computed(owner, model, xs, states), run(xs, states))
    few = f"{what} after {FEW} steps in float64"
    xs, states = _given(owner, model, np.dtype(np.float64), FEW)
    ours = _computed(owner, model, xs, states)
    limit = TIGHT + ROUNDINGS * np.finfo(np.float64).eps * _growth(owner, model, xs, states, ours)
    decided = _within(owner, few, ours, (equations or run)(xs, states), limit)
    if not difference <= LIMITS[model.dtype]:
        what, difference = few, decided
        if wide is not None:
            difference = max(decided, _within(owner, few, *wide(xs, states), limit))
    if show:
        _tell(owner, what, difference)
    return difference


def _check_finite(owner: str, model: Any) -> None:
    """Parameters without NaN or infinity."""
    for number, both in enumerate(directions(owner, model)):
        for layer, end in zip(both, ("", " (backwards)"), strict=False):
            for name, param in parameters(layer).items():
                _check.finite_array(owner, f"{name} of layer {number}{end}", param)


def _given(owner: str, model: Any, dtype: np.dtype, steps: int) -> tuple[np.ndarray, States]:
    """Random inputs (N, T, D), and initial states (N, H) of each direction of each layer."""
    rng = np.random.default_rng(1)
    layers = [layer for both in directions(owner, model) for layer in both]
    shapes = [(len(layer.cell.states), BATCH, layer.hidden_size) for layer in layers]
    states = [tuple(rng.standard_normal(shape).astype(dtype)) for shape in shapes]
    return random_inputs(model.input_size, dtype, steps=steps), states


def _computed(owner: str, model: Any, xs: np.ndarray, states: States) -> list[np.ndarray]:
    """Outputs and final states of a layer or a stack in the dtype of its inputs."""
    twin = carrying(model, xs.dtype)
    layers = [layer for both in directions(owner, twin) for layer in both]
    for layer, initial in zip(layers, states, strict=True):
        layer.set_state(*initial)
    return [twin.forward(xs)] + [state for layer in layers for state in layer.get_state() or ()]


def _growth(owner: str, model: Any, xs: np.ndarray, states: States, ours: list[np.ndarray]) -> float:
    """By how much the weights multiply a relative change of inputs and initial states."""
    rng = np.random.default_rng(2)

    def noisy(array: np.ndarray) -> np.ndarray:
        return array * (1 + NOISE * rng.choice([-1.0, 1.0], array.shape))

    changed = _computed(owner, model, noisy(xs), [tuple(map(noisy, one)) for one in states])
    return _difference(owner, "itself", changed, ours) / NOISE
