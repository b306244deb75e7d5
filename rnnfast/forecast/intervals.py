"""Intervals that cover as promised: their widths are measured on the last values of the series."""

from __future__ import annotations

import copy
import os
from typing import Any, NamedTuple

import numpy as np

from rnnfast import _check
from rnnfast.engine.arrays import shown
from rnnfast.forecast.data import Arrays, Frames, Levels, Loaded
from rnnfast.forecast.fitted import ERROR_LEVELS, SPREAD, Forecasts, Group
from rnnfast.forecast.fitting import NOT_MEASURED, Trained, epochs_of, trained_on
from rnnfast.forecast.panel import is_one_series
from rnnfast.forecast.preprocessing import Scale


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


# Forecasts of a trained network for other series, and from several origins.


def continued_series(
    owner: str, kind: Arrays | Frames, trained: Trained, df: Any, static_df: Any, futr_df: Any, steps: int
) -> tuple[Arrays | Frames, Group, np.ndarray]:
    """The kind of the data, the series of `fit` or, if given, others read from their beginning, and the
    future covariates (n, h, F) of either.

    Series of a frame that were in `fit` keep their scale, and static covariates that are not given.
    """
    fitted, group = trained.fitted, trained.group
    if df is not None:
        if isinstance(kind, Arrays):
            kind = Arrays(single=is_one_series(df))
        group = _read(owner, kind, trained, df, static_df)
    return kind, group, kind.future(owner, futr_df, group, fitted.futures, fitted.recipe.grid, steps)


def _read(owner: str, kind: Arrays | Frames, trained: Trained, df: Any, static_df: Any) -> Group:
    fitted, group = trained.fitted, trained.group
    panel = kind.panel(owner, df, fitted.recipe.grid, fitted.futures)
    _check.series.observed_series(owner, panel.ids, panel.values, panel.begins)
    numbers = {name: row for row, name in enumerate(group.ids)} if isinstance(kind, Frames) else {}
    known = np.array([name in numbers for name in panel.ids], bool)
    rows = np.array([numbers.get(name, 0) for name in panel.ids], np.int64)
    own = fitted.recipe.scale_of(panel)
    scale = Scale(*(np.where(known, old[rows], new) for old, new in zip(group.scale, own, strict=True)))
    static = group.static[rows]
    if static_df is not None or not known.all():
        asked = np.flatnonzero(~known | kind.has_static(owner, static_df, panel.ids))
        static[asked] = kind.static(owner, static_df, [panel.ids[row] for row in asked], fitted.statics)
    return fitted.read(panel, scale, static)


class Origins(NamedTuple):
    """W origins of forecasts of `steps` steps, `stride` steps apart; the last forecast ends with the
    series."""

    steps: int
    windows: int
    stride: int
    refit: bool

    def cutoffs(self, owner: str, ids: list[Any], lengths: np.ndarray) -> np.ndarray:
        """The number of steps (W, n) of each series before each origin."""
        _check.series.origins(owner, ids, lengths, self.steps + self.stride * (self.windows - 1))
        return lengths - self.steps - self.stride * np.arange(self.windows)[::-1, np.newaxis]


def backtest(
    settings: Any,
    owner: str,
    data: Loaded,
    origins: Origins,
    levels: Levels,
    paths: int,
    intervals: PredictionIntervals | None,
    checkpoint_file: str | os.PathLike[str] | None,
    resume: bool,
) -> Any:
    """Forecasts from each origin, by a network trained on the values before it, or before the first one."""
    if origins.refit:
        _check.values.absent(owner, "checkpoint_file", checkpoint_file, "refit=False")
    panel, parts = data.panel, []
    cutoffs = origins.cutoffs(owner, panel.ids, panel.lengths)
    for own in np.split(cutoffs, origins.windows if origins.refit else 1):
        before = data._replace(panel=panel.until(own[0]))
        errors = NOT_MEASURED if intervals is None else intervals.measured(settings, owner, before)
        trained = trained_on(settings, owner, before, 0, errors, checkpoint_file, resume)
        fitted, group = trained.fitted, trained.group
        groups = fitted.branches(panel, group.scale, group.static, own)
        future = np.concatenate([panel.after(cutoff, origins.steps) for cutoff in own])
        parts.append(fitted.forecast(groups, origins.steps, future, levels.sorted, paths, trained.seed))
    points, quantiles = zip(*parts, strict=True)
    found = Forecasts(np.concatenate(points), np.concatenate(quantiles) if levels.sorted else None)
    return data.kind.history(type(settings).__name__, panel, data.grid, cutoffs, found, levels)
