"""What estimators read: sequences in any of their forms, as one flat array."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils.validation import validate_data

from rnnfast import _check

# Steps that are read at once without gradients.
_MOST_STEPS, _MOST_ROWS = 1 << 17, 512


class Series(NamedTuple):
    """Sequences behind each other: flat (steps, D), and their lengths (N,)."""

    flat: np.ndarray
    lengths: np.ndarray
    is_array: bool = False  # given as one array

    @property
    def size(self) -> int:
        """The number N of sequences."""
        return len(self.lengths)

    def steps_of(self, rows: np.ndarray) -> np.ndarray:
        """The places in `flat` of the steps of some sequences."""
        begins, lengths = np.cumsum(self.lengths) - self.lengths, self.lengths[rows]
        return np.arange(lengths.sum()) + np.repeat(begins[rows] - (np.cumsum(lengths) - lengths), lengths)

    def take(self, rows: np.ndarray) -> Series:
        """Some of the sequences."""
        return Series(self.flat[self.steps_of(rows)], self.lengths[rows], self.is_array)

    def apart(self, flat: np.ndarray) -> Any:
        """Values (steps, ...) of each step as given: an array (N, T, ...) or a list of arrays (T_i, ...)."""
        if self.is_array:
            return flat.reshape(self.size, -1, *flat.shape[1:])
        return np.split(flat, np.cumsum(self.lengths)[:-1])

    def for_training(self, flat: np.ndarray) -> Any:
        """The same, as an array wherever lengths are equal."""
        return self._replace(is_array=bool((self.lengths == self.lengths[0]).all())).apart(flat)

    def padded(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Batches for reading, short sequences first: rows, sequences (N, T, D), and their lengths."""
        order = np.argsort(self.lengths, kind="stable")
        size = int(np.clip(_MOST_STEPS // self.lengths.max(), 1, _MOST_ROWS))
        for first in range(0, self.size, size):
            rows = order[first : first + size]
            lengths = self.lengths[rows]
            xs = np.zeros((len(rows), lengths.max(), self.flat.shape[1]), self.flat.dtype)
            xs[np.arange(xs.shape[1]) < lengths[:, np.newaxis]] = self.flat[self.steps_of(rows)]
            yield rows, xs, lengths


def read(estimator: Any, method: str, X: Any, *, reset: bool) -> Series:
    """Checked sequences in float32, if they are, or float64; with `reset`, they set the estimator's sizes."""
    owner = f"{type(estimator).__name__}.{method}"
    arrays = _sequences(owner, X)
    if arrays is None:
        options = {"dtype": [np.float64, np.float32], "ensure_all_finite": False, "order": "C"}
        table = validate_data(estimator, X, reset=reset, **options)
        series = Series(table.reshape(-1, 1), np.full(len(table), table.shape[1]), is_array=True)
    else:
        if reset:
            for name in ("n_features_in_", "feature_names_in_"):
                vars(estimator).pop(name, None)
        series = _series(owner, arrays, X, warns=reset)
    channels = series.flat.shape[1]
    if not reset and channels != estimator.n_channels_:
        raise _check.other_channels(owner, channels, estimator.n_channels_)
    infinite = np.isinf(series.flat).any(axis=1)
    if infinite.any():
        step = int(infinite.argmax())
        ends = np.cumsum(series.lengths)
        row = int(np.searchsorted(ends, step, side="right"))
        raise _check.infinite_value(owner, row, step - int(ends[row] - series.lengths[row]))
    return series


def _sequences(owner: str, X: Any) -> Any:
    """Sequences as an array (N, T, D) or a list of arrays (T_i, D) or (T_i,); None for a table (N, T)."""
    if isinstance(X, np.ndarray) and X.ndim == 1 and X.dtype == object:
        X = list(X)
    if isinstance(X, list | tuple):
        if not X or np.isscalar(X[0]) or X[0] is None:
            return None
        arrays = [_check.sequence(owner, index, one) for index, one in enumerate(X)]
        is_table = all(one.ndim < 2 for one in arrays) and len({one.size for one in arrays}) == 1
        return None if is_table else arrays
    return np.asarray(X) if getattr(X, "ndim", 2) == 3 else None


def _series(owner: str, arrays: Any, X: Any, *, warns: bool) -> Series:
    """Arrays (N, T, D) or (T_i, D) behind each other."""
    if isinstance(arrays, np.ndarray):
        count, steps, channels = arrays.shape
        _check.some_sequences(owner, count, steps, channels)
        if warns and steps < channels:
            warnings.warn(
                f"{owner}: X is {arrays.shape}, which is {count} sequences of {steps} steps with {channels} "
                f"channels; the axis order is (N, T, D).",
                UserWarning,
                stacklevel=5,
            )
        flat, lengths = arrays.reshape(-1, channels), np.full(count, steps)
    else:
        arrays = [one[:, np.newaxis] if one.ndim == 1 else one for one in arrays]
        for index, one in enumerate(arrays):
            _check.sequence_shape(owner, index, one.shape, arrays[0].shape[-1])
        flat, lengths = np.concatenate(arrays), np.array([len(one) for one in arrays])
    kind = flat.dtype if flat.dtype == np.float32 else np.dtype(np.float64)
    try:
        flat = np.ascontiguousarray(flat, kind)
    except (TypeError, ValueError) as error:
        raise _check.not_numeric(owner, flat.dtype) from error
    return Series(flat, lengths, isinstance(X, np.ndarray) and X.ndim == 3)


def weights_of(owner: str, sample_weight: Any, count: int) -> np.ndarray:
    """The weight (N,) of each sequence; 1 by default."""
    if sample_weight is None:
        return np.ones(count)
    weights = np.asarray(sample_weight, np.float64)
    return _check.sample_weights(owner, weights, count)
