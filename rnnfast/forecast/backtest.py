"""Forecasts of a trained network for other series, and from several origins."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np

from rnnfast import _check
from rnnfast.forecast.data import Arrays, Frames, Levels, Loaded
from rnnfast.forecast.fitted import Forecasts, Group
from rnnfast.forecast.fitting import NOT_MEASURED, Trained, trained_on
from rnnfast.forecast.intervals import PredictionIntervals
from rnnfast.forecast.panel import is_one_series
from rnnfast.forecast.recipe import Scale


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
