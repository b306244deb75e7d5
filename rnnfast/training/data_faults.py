"""Find the NaN or infinity in the data that explains a loss that is not finite."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.training.safety import TrainingDiverged

_PIECE = 1 << 20  # numbers checked at a time


def blamed(error: TrainingDiverged, data: Any, valid: Any) -> TrainingDiverged:
    """The error, or a new one that names the first number of the data that is not finite.

    Parameters
    ----------
    error : TrainingDiverged
        Raised after the model got back the parameters of the last good step.
    data, valid : pair of arrays (S, T, D) and (S, T, O) or (S, O), or a text (tokens,), which has no NaN
        The training and validation data; read only after training has stopped, piece by piece.
    """
    for name, pair in (("", data), ("validation ", valid)):
        if not isinstance(pair, tuple):
            continue
        for kind, array in zip(("inputs", "targets"), pair, strict=False):
            place = first_not_finite(array, *pair[2:])
            if place is not None:
                value = array[place[0] : place[0] + 1][(0, *place[1:])]  # sequences in a list allow no more
                return TrainingDiverged(
                    _check.training.data_not_finite(error.epoch, error.step, name + kind, place, value),
                    error.epoch,
                    error.step,
                )
    return error


def first_not_finite(array: Any, lengths: Any = None, weights: Any = None) -> tuple[int, ...] | None:
    """The index of the first NaN or infinity of an array (S, ...) before the end of its sequence and with a
    weight; None if there is none."""
    rows = max(1, _PIECE // max(1, int(np.prod(np.shape(array)[1:]))))
    for start in range(0, len(array), rows):
        piece = slice(start, start + rows)
        wrong = ~np.isfinite(array[piece])
        if lengths is not None and wrong.ndim == 3:
            wrong &= (np.arange(wrong.shape[1]) < lengths[piece, np.newaxis])[..., np.newaxis]
        if weights is not None and wrong.ndim >= weights.ndim:
            wrong = (wrong.T & (weights[piece] > 0).T).T
        if wrong.any():
            first, *others = (int(axis) for axis in np.argwhere(wrong)[0])
            return (start + first, *others)
    return None
