"""The layout of a batch's steps in the time-major arrays of the recurrent kernels."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from rnnfast import _check
from rnnfast.kernels.recurrence.sequence import time_grid

NO_RESETS = np.zeros((0, 0), np.bool_)


class Rows(NamedTuple):
    """The places of a batch's steps in time-major arrays, under the kernels' names."""

    offsets: np.ndarray
    order: np.ndarray
    blocks: np.ndarray
    resets: np.ndarray
    sequence_rows: np.ndarray
    step_rows: np.ndarray

    @classmethod
    def batch_first(cls, offsets: np.ndarray, order: np.ndarray, blocks: np.ndarray, resets: Any) -> Rows:
        """The caller's arrays are (N, T, ...)."""
        steps = offsets.size - 1
        return cls(offsets, order, blocks, resets, order * steps, np.arange(steps))


class Sorted(NamedTuple):
    """Lengths (N,) within a part of a window, and the order (N,) of the rows in the whole window."""

    lengths: np.ndarray
    order: np.ndarray


def falling_order(lengths: np.ndarray) -> np.ndarray:
    """The sequences by falling length (N,); equal lengths keep the order of the batch."""
    return np.argsort(-lengths, kind="stable").astype(np.int64, copy=False)


def offsets_of(lengths: np.ndarray, steps: int) -> np.ndarray:
    """The first row of each step, and the number of rows, of sequences of these lengths (N,)."""
    active = lengths.size - np.searchsorted(np.sort(lengths), np.arange(steps), side="right")
    return np.concatenate(([0], np.cumsum(active))).astype(np.int64, copy=False)


@functools.lru_cache(maxsize=64)
def full_grid(batch: int, steps: int) -> np.ndarray:
    """The time grid of sequences of equal lengths; not to be written to."""
    return time_grid(np.arange(steps + 1) * batch, batch)


def packed_rows(owner: str, batch: int, steps: int, lengths: Any, reset: Any, last: Rows | None) -> Rows:
    """The order of rows in time-major arrays: longest sequence first, no rows after its end; `last` if it
    fits. `lengths` may be the `Rows` of another layer for the same window."""
    if isinstance(lengths, Rows):
        return lengths
    resets = NO_RESETS if reset is None else _check.arrays.mask(owner, "reset", reset, (batch, steps)).copy()
    if lengths is not None:
        order = lengths.order if isinstance(lengths, Sorted) else None
        given = lengths.lengths if isinstance(lengths, Sorted) else lengths
        counted = _check.arrays.lengths(owner, given, batch, steps)
        order = falling_order(counted) if order is None else order
        offsets = offsets_of(counted, steps)
        return Rows.batch_first(offsets, order, time_grid(offsets, batch), resets)
    if last is None or (last.order.size, last.offsets.size) != (batch, steps + 1):
        offsets = np.arange(steps + 1) * batch
        last = Rows.batch_first(offsets, np.arange(batch), full_grid(batch, steps), NO_RESETS)
    return last if resets is last.resets else last._replace(resets=resets)
