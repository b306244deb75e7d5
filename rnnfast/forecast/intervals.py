"""Intervals that cover as promised: their widths are measured on the last values of the series."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.engine.shown import shown
from rnnfast.forecast.data import Loaded
from rnnfast.forecast.fitted import ERROR_LEVELS, SPREAD
from rnnfast.forecast.fitting import epochs_of, trained_on


class PredictionIntervals:
    """How the intervals of `RNNForecaster` are calibrated: on forecasts of values that were not learned from.

    A first network is trained without the last steps of each series, and forecasts them from several
    origins. Its errors, divided by the spread that it predicted, tell how wide intervals must be. Training
    takes twice as long.

    Parameters
    ----------
    h : int
        Steps of a forecast.
    n_windows : int
        Origins in each series; one is enough for a hundred series, and one series needs ten or more.
    step_size : int, optional
        Steps between two origins; by default half of `h`.

    Notes
    -----
    Source: split conformal prediction with normalized errors; Lei and others, *Distribution-free predictive
    inference for regression*, 2018.

    Examples
    --------
    >>> PredictionIntervals(h=12, n_windows=10)
    PredictionIntervals(h=12, n_windows=10, step_size=6)
    """

    def __init__(self, h: int, n_windows: int = 2, step_size: int | None = None) -> None:
        owner = type(self).__name__
        self.h, self.n_windows = (
            _check.values.size(owner, "h", h),
            _check.values.size(owner, "n_windows", n_windows),
        )
        self.step_size = (
            max(1, self.h // 2) if step_size is None else _check.values.size(owner, "step_size", step_size)
        )

    @classmethod
    def suggested(cls, h: int, lengths: np.ndarray) -> PredictionIntervals | None:
        """Origins of about twenty forecasts in all, in the last third of a series of the median length; None
        if series of these lengths (n,) are too short."""
        stride, room = max(1, h // 2), int(np.median(lengths)) // 3 - h
        if room < 0:
            return None
        return cls(h, min(1 + room // stride, max(2, -(-20 // len(lengths)))), stride)

    def __repr__(self) -> str:
        return shown(self, {"h": self.h, "n_windows": self.n_windows, "step_size": self.step_size})

    def measured(self, settings: Any, owner: str, data: Loaded, paths: int = 200) -> np.ndarray:
        """The quantiles (401,) at `ERROR_LEVELS` of errors in units of the spread, from a first network.

        Series that are too short for all origins are learned from, but not forecast.
        """
        if not settings.head.has_distribution:
            raise _check.series.no_distribution(owner, settings.head.name)
        panel = data.panel
        needed = self.h + self.step_size * (self.n_windows - 1)
        rows = np.flatnonzero(panel.lengths > needed)
        _check.series.calibrates(owner, len(rows), needed)
        cutoffs = panel.lengths - self.h - self.step_size * np.arange(self.n_windows)[::-1, np.newaxis]
        first = np.where(panel.lengths > needed, cutoffs[0], panel.lengths)
        quiet = copy.copy(settings)
        quiet.verbose, quiet.callbacks, quiet.on_update = 0, (), None
        quiet.ranks = settings.ranks  # which copies do not have
        quiet.max_epochs = epochs_of(settings, panel)  # as long as the network that it stands for
        trained = trained_on(quiet, owner, data._replace(panel=panel.until(first)))
        fitted, group, own = trained.fitted, trained.group, panel.rows(rows)
        branches = fitted.branches(own, group.scale.rows(rows), group.static[rows], cutoffs[:, rows])
        future = np.concatenate([own.after(cutoff, self.h) for cutoff in cutoffs[:, rows]])
        points, quantiles = fitted.forecast(branches, self.h, future, SPREAD, paths, trained.seed)
        assert quantiles is not None
        values = np.concatenate([own.values_after(cutoff, self.h) for cutoff in cutoffs[:, rows]])
        units = fitted.recipe.units(branches.scale)[:, np.newaxis]
        least = np.minimum(1e-12, np.maximum(1e-12 * units, 5e-324))  # also of series of tiny values
        errors = (values - points) / np.maximum((quantiles[..., 1] - quantiles[..., 0]) / 2, least)
        errors = errors[~np.isnan(errors)]
        _check.series.calibrates(owner, errors.size, needed)
        table = np.quantile(errors, ERROR_LEVELS)
        # An interval holds its forecast, also where all errors have one sign.
        return np.where(
            ERROR_LEVELS < 0.5,
            np.minimum(table, 0.0),
            np.where(ERROR_LEVELS > 0.5, np.maximum(table, 0.0), 0.0),
        )
