"""Quantiles of distributions over arrays that broadcast, and the uniform numbers for draws from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rnnfast.kernels.elementwise.noise import uniform_rows
from rnnfast.kernels.losses.quantiles import (
    negative_binomial_quantiles,
    normal_quantiles,
    student_t_quantiles,
)

# Elements of one call, which takes at most 0.1 s, so that Ctrl-C is answered.
_BLOCK = 1 << 16


def _over_blocks(kernel: Callable, *arguments: Any) -> np.ndarray:
    """The kernel's float64 results in the common shape of the arguments."""
    arrays = np.broadcast_arrays(*(np.asarray(one, np.float64) for one in arguments))
    out = np.empty(arrays[0].shape)
    flat, results = [np.array(array).reshape(-1) for array in arrays], out.reshape(-1)
    for first in range(0, out.size, _BLOCK):
        part = slice(first, first + _BLOCK)
        kernel(*(array[part] for array in flat), results[part])
    return out


def normal(levels: Any) -> np.ndarray:
    """Quantiles of the standard normal distribution."""
    return _over_blocks(normal_quantiles, levels)


def student_t(levels: Any, freedom: Any) -> np.ndarray:
    """Quantiles of Student's t distribution with 2 or more degrees of freedom."""
    return _over_blocks(student_t_quantiles, levels, freedom)


def negative_binomial(levels: Any, mean: Any, dispersion: Any) -> np.ndarray:
    """Quantiles of counts with this mean and the variance mean + dispersion mean^2."""
    return _over_blocks(negative_binomial_quantiles, levels, mean, dispersion)


def interpolated(levels: Sequence[float], known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Quantiles at `wanted` from the `known` (L, ...) at rising levels (L,).

    They are linear in the normal score of the level, beyond the outermost levels with the slope of the
    outermost segment. A single known quantile stands for all.
    """
    scores, z = normal(levels), normal(wanted)
    shape = np.broadcast_shapes(known.shape[1:], z.shape)
    if len(scores) == 1:
        return np.broadcast_to(known[0], shape).copy()
    right = np.searchsorted(scores, z, side="right").clip(1, len(scores) - 1)
    weight = (z - scores[right - 1]) / (scores[right] - scores[right - 1])
    known = known.reshape(len(scores), *[1] * (len(shape) - known.ndim + 1), *known.shape[1:])
    known, right = np.broadcast_to(known, (len(scores), *shape)), np.broadcast_to(right, (1, *shape))
    below, above = (np.take_along_axis(known, index, axis=0)[0] for index in (right - 1, right))
    return (1 - weight) * below + weight * above


def uniform(seed: int, streams: np.ndarray, step: int, shape: tuple[int, int, int]) -> np.ndarray:
    """Numbers (count, N, O) between 0 and 1; those of row n are a function of (seed, streams[n], step)."""
    count, rows, outputs = shape
    numbers = np.empty((rows, count * outputs))
    uniform_rows(seed, streams, step, numbers)
    return numbers.reshape(rows, count, outputs).swapaxes(0, 1)
