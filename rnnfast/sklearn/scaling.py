"""The scales of inputs and targets, from training data."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from rnnfast._check.values import exponents, unit_of_constant


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
