"""One vector for a whole sequence from the outputs of its steps."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

Pooling = Literal["last", "mean", "max"]
POOLINGS: tuple[Pooling, ...] = ("last", "mean", "max")


def pool(kind: Pooling, hs: np.ndarray, lengths: np.ndarray, ahead: int) -> tuple[np.ndarray, Any]:
    """Vectors (N, 1, H) from outputs (N, T, H), zero after each end, and what `spread` needs.

    "last" is the final state: the last step of the first `ahead` columns and the first step of the others,
    which were read backwards. A sequence of length 0 gives zeros.
    """
    if kind == "last":
        places = np.arange(len(hs)), lengths - 1
        return np.concatenate((hs[places][:, :ahead], hs[:, 0, ahead:]), axis=-1)[:, np.newaxis], places
    if kind == "mean":
        shares = (1 / np.maximum(lengths, 1)).astype(hs.dtype)[:, np.newaxis, np.newaxis]
        return hs.sum(axis=1, keepdims=True, dtype=np.float64).astype(hs.dtype) * shares, shares
    inside = (np.arange(hs.shape[1]) < lengths[:, np.newaxis])[..., np.newaxis]
    largest = np.where(inside, hs, -np.inf).max(axis=1, keepdims=True)
    chosen = (hs == largest) & inside
    return np.where(lengths[:, np.newaxis, np.newaxis] > 0, largest, 0).astype(hs.dtype), chosen


def spread(kind: Pooling, dpooled: np.ndarray, kept: Any, dhs: np.ndarray, ahead: int) -> None:
    """Fill the gradients (N, T, H) of the outputs from those (N, 1, H) of the vectors.

    Equal largest values share the gradient of "max".
    """
    if kind == "last":
        dhs[...] = 0
        dhs[..., :ahead][kept] = dpooled[:, 0, :ahead]
        dhs[:, 0, ahead:] = dpooled[:, 0, ahead:]
    elif kind == "mean":
        dhs[...] = dpooled * kept
    else:
        count = np.maximum(kept.sum(axis=1, keepdims=True), 1).astype(dhs.dtype)
        np.multiply(kept, dpooled / count, out=dhs)
