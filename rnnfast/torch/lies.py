"""How the rows of a tensor lie, and which of them each step of each sequence is in."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import torch

from rnnfast.kernels.recurrence.sequence import time_grid
from rnnfast.layers.rows import NO_RESETS, Rows, falling_order


class Lie(NamedTuple):
    """Rows of one direction; `turn` (rows,) puts the rows of a tensor into the order in which they are read,
    and back, where the kernels cannot do so themselves."""

    rows: Rows
    turn: torch.Tensor | None = None

    def turned(self, x: torch.Tensor) -> torch.Tensor:
        """The rows of x in the order in which they are read, or back in their own."""
        if self.turn is None:
            return x
        return x.reshape(-1, x.shape[-1]).index_select(0, self.turn).reshape(x.shape)


@functools.lru_cache(maxsize=64)
def whole(batch: int, steps: int, batch_first: bool, backwards: bool) -> Lie:
    """Sequences of one length, (N, T, ...) or (T, N, ...)."""
    offsets, order = np.arange(steps + 1) * batch, np.arange(batch)
    of_sequence, of_step = (steps, 1) if batch_first else (1, batch)
    at = np.arange(steps)[:: -1 if backwards else 1] * of_step
    return Lie(
        Rows(
            offsets,
            order,
            time_grid(offsets, batch),
            NO_RESETS,
            order * of_sequence,
            np.ascontiguousarray(at),
        )
    )


def packed(batch_sizes: np.ndarray, backwards: bool) -> Lie:
    """The data of a `PackedSequence`, from its batch sizes (T,)."""
    offsets = np.concatenate(([0], np.cumsum(batch_sizes)))
    order = np.arange(int(batch_sizes[0]))
    rows = Rows(offsets, order, time_grid(offsets, order.size), NO_RESETS, order, offsets[:-1].copy())
    if not backwards or offsets[-1] == order.size * batch_sizes.size:
        at = offsets[-2::-1].copy() if backwards else rows.step_rows
        return Lie(rows._replace(step_rows=at))
    step = np.repeat(np.arange(batch_sizes.size), batch_sizes)
    sequence = np.arange(offsets[-1]) - offsets[step]
    lengths = np.searchsorted(-batch_sizes, -order, side="left")
    return Lie(rows, torch.from_numpy(offsets[lengths[sequence] - 1 - step] + sequence))


def padded(
    batch: int,
    steps: int,
    batch_first: bool,
    backwards: bool,
    lengths: np.ndarray | None,
    resets: np.ndarray | None,
) -> Lie:
    """Sequences of several lengths (N,), or with resets (N, T), padded to (N, T, ...) or (T, N, ...)."""
    base = whole(batch, steps, batch_first, False).rows
    lengths = np.full(batch, steps) if lengths is None else lengths
    order = falling_order(lengths)
    active = batch - np.searchsorted(lengths[order[::-1]], np.arange(steps), side="right")
    offsets = np.concatenate(([0], np.cumsum(active))).astype(np.int64, copy=False)
    turn = None
    t = np.arange(steps)
    if backwards:
        inside = t < lengths[:, np.newaxis]
        at = np.where(inside, lengths[:, np.newaxis] - 1 - t, t)  # (N, T)
        places = base.sequence_rows[:, np.newaxis] + base.step_rows[at]
        turn = torch.from_numpy(np.ascontiguousarray(places if batch_first else places.T).reshape(-1))
        if resets is not None:
            before = np.zeros_like(resets)
            before[:, :-1] = resets[:, 1:]
            before[t >= lengths[:, np.newaxis] - 1] = False
            resets = np.take_along_axis(before, at, axis=1)
    masked = NO_RESETS if resets is None else np.ascontiguousarray(resets)
    rows = Rows(offsets, order, time_grid(offsets, batch), masked, base.sequence_rows[order], base.step_rows)
    return Lie(rows, turn)
