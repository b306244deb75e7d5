"""Both sides of a conversion on the same random input: the largest difference, printed, with a limit."""

from __future__ import annotations

import numpy as np

from rnnfast import _check

# A sum in another order differs by some parts of the last place, and the recurrence adds to it.
LIMITS = {np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-12}
BATCH, STEPS = 3, 7


def random_inputs(size: int, dtype: np.dtype, batch: int = BATCH, steps: int = STEPS) -> np.ndarray:
    """The same numbers (N, T, D) for every conversion."""
    return np.random.default_rng(0).standard_normal((batch, steps, size)).astype(dtype)


def agree(
    owner: str, what: str, ours: list[np.ndarray], theirs: list[np.ndarray], show: bool = True
) -> float:
    """The largest difference between pairs of arrays, which is printed; ValueError if it is too large.

    `what` is the other side, for example "torch.nn.LSTM".
    """
    difference = largest = 0.0
    for one, other in zip(ours, theirs, strict=True):
        _check.equal(owner, f"shapes of rnnfast and {what}", one.shape, other.shape)
        with np.errstate(invalid="ignore"):
            apart = np.abs(one.astype(np.float64) - other)
        difference = float(np.maximum(difference, apart.max(initial=0.0)))  # NaN stays NaN
        largest = max(largest, float(np.abs(other).max(initial=0.0)))
    limit = LIMITS[ours[0].dtype] * max(1.0, largest)
    if not difference <= limit:
        raise _check.disagrees(owner, what, difference, limit)
    if show:
        print(f"{owner}: rnnfast and {what} differ by at most {difference:.1e} on random input")
    return difference
