"""What estimators read: sequences in any of their forms, as one flat array."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils.validation import validate_data

from rnnfast import _check
from rnnfast._check.values import exponents, nothing_masked, oversized, size_text, unit_of_constant, unmasked
from rnnfast.models.encoder import POOLINGS
from rnnfast.models.weights import cell_of

# Steps that are read at once without gradients.
_MOST_STEPS, _MOST_ROWS = 1 << 17, 512
# The largest number that the network reads or learns, after scaling.
FURTHEST = 1e28


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

    def place(self, step: int) -> tuple[int, int]:
        """The sequence of a step of `flat`, and the step in it."""
        ends = np.cumsum(self.lengths)
        row = int(np.searchsorted(ends, step, side="right"))
        return row, step - int(ends[row] - self.lengths[row])

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
    if getattr(X, "ndim", 0) == 1 and getattr(getattr(X, "dtype", None), "kind", "") == "O":
        X = list(X)
    arrays = _sequences(owner, X)
    if arrays is None:
        table = _table(estimator, owner, X, reset=reset)
        series = Series(table.reshape(-1, 1), np.full(len(table), table.shape[1]), is_array=True)
    else:
        if reset:
            for name in ("n_features_in_", "feature_names_in_"):
                vars(estimator).pop(name, None)
        series = _series(owner, arrays, X, warns=reset)
    channels = series.flat.shape[1]
    if not reset and channels != estimator.n_channels_:
        raise ValueError(
            f"{owner}: X[0] must be (T, {estimator.n_channels_}) as in fit, got {channels} channels."
        )
    wrong = oversized(series.flat)
    if wrong.any():
        step, channel = np.argwhere(wrong)[0]
        raise _check.series.infinite_value(owner, size_text(series.flat[step, channel]), *series.place(step))
    return series


def scaled(owner: str, series: Series, scaling: Scaling, dtype: np.dtype) -> Series:
    """Sequences as the network reads them."""
    flat = scaling.apply(series.flat, dtype)
    wrong = np.argwhere(np.abs(flat) > FURTHEST)
    if wrong.size:
        row, step = series.place(wrong[0, 0])
        raise too_far(owner, "X", series.flat[tuple(wrong[0])], f"in sequence {row} at step {step}")
    return series._replace(flat=flat)


def too_far(owner: str, name: str, value: float, where: str) -> ValueError:
    """The error for a number that is too large for the network, in the scale of the training data."""
    return ValueError(
        f"{owner}: {name} holds {value:g} {where}, too far from the numbers of fit; in their scale it must "
        f"be below {FURTHEST:g} in size."
    )


def _table(estimator: Any, owner: str, X: Any, *, reset: bool) -> np.ndarray:
    """A checked table (N, T), with NaN for masked values."""
    options = {"dtype": [np.float64, np.float32], "ensure_all_finite": False, "order": "C"}
    return checked_numbers(
        owner, "X", unmasked(X), lambda X: validate_data(estimator, X, reset=reset, **options)
    )


def checked_numbers(owner: str, name: str, given: Any, check: Callable[[Any], np.ndarray]) -> np.ndarray:
    """The array that a check of scikit-learn makes; an error that names the first entry that is no number."""
    has_rows = len(getattr(given, "shape", ())) > 0 and not hasattr(given, "nnz")
    if has_rows and np.asarray(given[:1]).dtype.kind in "mM":  # dates, which would be taken for numbers
        raise _check.series.not_a_number(owner, name, given) or ValueError(
            f"{owner}: {name} must hold numbers."
        )
    try:
        return check(given)
    except (TypeError, ValueError) as error:
        unclear = "could not convert" in str(error) or not isinstance(error, ValueError)
        named = (
            _check.series.not_a_number(owner, name, given) if unclear and not hasattr(given, "nnz") else None
        )
        raise named or error from None


def _sequences(owner: str, X: Any) -> Any:
    """Sequences as an array (N, T, D) or a list of arrays (T_i, D) or (T_i,); None for a table (N, T)."""
    if isinstance(X, list | tuple):
        if not X or isinstance(X[0], str) or not hasattr(X[0], "__len__"):
            return None
        arrays = [_check.series.sequence(owner, index, one) for index, one in enumerate(X)]
        is_table = all(one.ndim < 2 for one in arrays) and len({one.size for one in arrays}) == 1
        return None if is_table else arrays
    if getattr(X, "ndim", 2) != 3:
        return None
    return _check.series.sequence(owner, None, X)


def _series(owner: str, arrays: Any, X: Any, *, warns: bool) -> Series:
    """Arrays (N, T, D) or (T_i, D) behind each other."""
    if isinstance(arrays, np.ndarray):
        count, steps, channels = arrays.shape
        if not count * steps * channels:
            raise ValueError(
                f"{owner}: X must not be empty, got {_check.arrays.shape_text((count, steps, channels))}."
            )
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
            _check.series.sequence_shape(owner, index, one.shape, arrays[0].shape[-1])
        flat, lengths = np.concatenate(arrays), np.array([len(one) for one in arrays])
    return Series(np.ascontiguousarray(flat), lengths, isinstance(X, np.ndarray) and X.ndim == 3)


def weights_of(owner: str, sample_weight: Any, count: int) -> np.ndarray:
    """The weight (N,) of each sequence; 1 by default."""
    if sample_weight is None:
        return np.ones(count)
    weights = np.asarray(nothing_masked(owner, "sample_weight", sample_weight), np.float64)
    return ordinary(_check.series.sample_weights(owner, weights, count))


def ordinary(weights: np.ndarray) -> np.ndarray:
    """Weights that float32 can hold, in the same proportions: divided by a power of two if need be."""
    return np.ldexp(weights, -exponents(weights.max(initial=0.0), ordinary=60))


# The scales of inputs and targets, from training data.


class Scaling(NamedTuple):
    """Mean and scale (D,) of each channel, and whether it has a flag for observed values."""

    mean: np.ndarray
    scale: np.ndarray
    flagged: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, weights: np.ndarray, *, active: bool = True) -> Scaling:
        """The scaling of values (rows, D) with weights (rows,); NaN is not observed.

        Channels without an observed value, and constant ones, are not scaled, unless the constant is huge;
        without `active`, none is.
        """
        observed = ~np.isnan(values)
        flagged = ~observed.all(axis=0)
        if not active:
            return cls(np.zeros(len(flagged)), np.ones(len(flagged)), flagged)
        shares = np.where(observed, weights[:, np.newaxis], 0)
        total = np.maximum(shares.sum(axis=0), np.finfo(np.float64).tiny)
        known = np.where(observed, values, 0).astype(np.float64)
        power = exponents(np.abs(known).max(axis=0, initial=0.0))  # so that no square overflows or vanishes
        if power.any():
            known = np.ldexp(known, -power)
        mean = (shares * known).sum(axis=0) / total
        deviation = np.ldexp(np.sqrt((shares * (known - mean) ** 2).sum(axis=0) / total), power)
        mean = np.ldexp(mean, power)
        is_constant = deviation <= 1e-12 * np.abs(mean)
        return cls(mean, np.where(is_constant, unit_of_constant(mean), deviation), flagged)

    @property
    def channels(self) -> int:
        """Channels of the network's input."""
        return len(self.mean) + int(self.flagged.sum())

    def apply(self, values: np.ndarray, dtype: np.dtype) -> np.ndarray:
        """Scaled values (rows, D), 0 where nothing was observed, and the flags behind them; too large ones
        are infinite."""
        observed = ~np.isnan(values)
        scaled = np.empty((len(values), self.channels), dtype)
        size = len(self.mean)
        with np.errstate(over="ignore"):  # callers look for numbers beyond reach
            scaled[:, :size] = np.where(observed, (values - self.mean) / self.scale, 0)
        scaled[:, size:] = observed[:, self.flagged]
        return scaled

    def undo(self, scaled: np.ndarray) -> np.ndarray:
        """Values (rows, D) from scaled ones, in float64."""
        return scaled.astype(np.float64) * self.scale + self.mean

    def saved(self) -> dict[str, Any]:
        """JSON values."""
        return {name: array.tolist() for name, array in self._asdict().items()}

    @classmethod
    def from_saved(cls, entry: Any) -> Scaling:
        """The scaling of `saved`; an error if it is malformed."""
        mean, scale = (np.array(entry[name], np.float64) for name in ("mean", "scale"))
        flagged = np.array(entry["flagged"], np.bool_)
        if not mean.ndim == 1 or not mean.shape == scale.shape == flagged.shape:
            raise ValueError("its scaling does not fit")
        return cls(mean, scale, flagged)


# Checks of the parameters of an estimator.


def check_parameters(owner: str, estimator: Any) -> None:
    """Check all parameters but `random_state`, `callbacks` and `ranks`, before anything changes."""
    given = estimator.get_params(deep=False)
    cell_of(owner, given["cell"])
    _check.arrays.float_dtype(owner, given["dtype"])
    for name in ("hidden_size", "layers", "batch_size", "patience"):
        _check.values.size(owner, name, given[name])
    if given["max_epochs"] is not None:
        _check.values.size(owner, "max_epochs", given["max_epochs"])
    _check.training.blocks(owner, given["blocks"])
    _check.values.number_below(owner, "dropout", given["dropout"], 0, 1)
    _check.values.above(
        owner, "learning_rate", _check.values.number(owner, "learning_rate", given["learning_rate"]), 0.0
    )
    _check.values.above(owner, "clip_norm", given["clip_norm"], 0.0)
    _check.values.fraction(owner, "validation_fraction", given["validation_fraction"])
    if "pooling" in given:
        _check.values.choice(owner, "pooling", given["pooling"], POOLINGS)
    for name in ("bidirectional", "scale", "early_stopping", "warm_start"):
        _check.values.boolean(owner, name, given[name])
