"""Score a text of any length as one stream."""

from __future__ import annotations

from typing import Any

import numpy as np


def total_loss(model: Any, ids: np.ndarray, chunk: int) -> float:
    """Sum of `-log P(ids[t] | ids[:t])` for t >= 1, from a fresh state; the model's state stays as it is.

    The text is one stream with a carried state, `chunk` words at a time, and the losses are added in float64
    one after the other, so the sum has one order whatever the chunk. `ids` may be a memory map.
    """
    kept = model.get_state()
    total = 0.0
    try:
        model.reset_state()
        for start in range(0, len(ids) - 1, chunk):
            block = np.array(ids[start : start + chunk + 1], dtype=np.int64)
            losses = model.losses(block[np.newaxis, :-1], block[np.newaxis, 1:])[0]
            total = float(np.add.accumulate(np.concatenate(([total], losses)))[-1])
    finally:
        model.set_state(kept)
    return total
