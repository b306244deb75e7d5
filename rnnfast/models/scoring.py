"""Score a text of any length as one stream, and sequences part by part."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.data.rows import SequenceRows
from rnnfast.engine.locks import turn_of
from rnnfast.layers.window import Part
from rnnfast.models.model import Model


def total_loss(model: Any, ids: np.ndarray, chunk: int) -> float:
    """Sum of `-log P(ids[t] | ids[:t])` for t >= 1, from a fresh state; the model's state is unchanged.

    The text is read as one stream, `chunk` words at a time. The losses are added one by one in float64, so
    the order of the sum does not depend on `chunk`. `ids` may be a memory map.
    """
    with model.reading() if isinstance(model, Model) else turn_of(model) as reader:
        read = model.losses
        if isinstance(model, Model):
            model, read = reader, partial(_losses, reader)
        kept = model.get_state()
        total = 0.0
        try:
            model.reset_state()
            for start in range(0, len(ids) - 1, chunk):
                _check.arrays.whole_file("perplexity", ids)
                block = np.array(ids[start : start + chunk + 1], dtype=np.int64)
                losses = read(block[np.newaxis, :-1], block[np.newaxis, 1:])[0]
                total = float(np.add.accumulate(np.concatenate(([total], losses)))[-1])
        finally:
            model.set_state(kept)
    return total


def _losses(reader: Model, xs: np.ndarray, ts: np.ndarray) -> np.ndarray:
    """The losses (N, T) of a text, in the reader's own memory."""
    part = Part(0, xs.shape[1], xs.shape[1])
    hs = reader.read_part(xs, part, drop=False, keep=False, method="losses")
    return reader.output.part_losses(f"{type(reader).__name__}.losses", hs, ts, part, None)


def mean_error(model: Any, rows: SequenceRows, chunk: int) -> float:
    """The mean loss of a `SequenceRegressor` over batches of sequences from fresh states, without dropout.

    `chunk` steps are read at a time; the model's state is unchanged.
    """
    kept, owner = model.get_state(), f"{type(model).__name__}.forward"
    total, scored = 0.0, 0.0
    try:
        for x, t, lengths, weights, *_ in rows:
            batch, steps = x.shape[:2]
            if weights is not None:
                weights = _check.arrays.weights(owner, weights, (batch, steps), model.dtype)
            model.reset_state()
            parts = [
                Part(start, min(start + chunk, steps), steps, lengths, weights=weights)
                for start in range(0, steps, chunk)
            ]
            for part in parts:
                _check.arrays.whole_file("evaluate", x, t)
                hs = model.read_part(x, part, drop=False, keep=False)
                losses = model.output.part_losses(owner, hs, t, part, model.body.time_blocks)
                total += float(losses.sum())
            scored += model.output.scored(t, parts)
    finally:
        model.set_state(kept)
    return model.output.mean(np.array([total]), scored)
