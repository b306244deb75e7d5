"""Forecasts without a network, to compare with."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.forecast.panel import filled, is_one_series, panel_of_arrays

__all__ = ["drift", "seasonal_naive"]


def seasonal_naive(y: Any, h: int, season_length: int = 1) -> np.ndarray:
    """The values of the last season again, or with `season_length` 1 the last value.

    Parameters
    ----------
    y : array (T,) or (n, T), or list of arrays (T_i,)
        Series. A missing value is replaced by the one a season before; if there is none, by the last value.
    h : int
        Steps.
    season_length : int
        Steps of a season.

    Returns
    -------
    ndarray (h,) for one series (T,), else (n, h)

    Examples
    --------
    >>> from rnnfast.forecast.baselines import seasonal_naive
    >>> seasonal_naive([1.0, 2.0, 3.0, 4.0], 3, season_length=2)
    array([3., 4., 3.])
    """
    return _forecasts("seasonal_naive", y, h, season_length, lambda known, season: 0.0)


def drift(y: Any, h: int, season_length: int = 1) -> np.ndarray:
    """The line through the first and the last value; with seasons, `seasonal_naive` plus its slope.

    Arguments are as in `seasonal_naive`. The slope of a season is the mean change over one season.

    Returns
    -------
    ndarray (h,) for one series (T,), else (n, h)

    Examples
    --------
    >>> from rnnfast.forecast.baselines import drift
    >>> drift([1.0, 2.0, 4.0], 2)
    array([5.5, 7. ])
    """
    return _forecasts("drift", y, h, season_length, _slope)


def _slope(known: np.ndarray, season: int) -> float:
    changes = known[season:] - known[:-season]
    return float(changes[~np.isnan(changes)].mean()) if not np.isnan(changes).all() else 0.0


def _forecasts(owner: str, y: Any, h: int, season_length: int, slope: Any) -> np.ndarray:
    steps, season = (
        _check.values.size(owner, "h", h),
        _check.values.size(owner, "season_length", season_length),
    )
    panel = panel_of_arrays(owner, "y", y)
    _check.series.observed_series(owner, panel.ids, panel.values, panel.begins)
    seasons = filled(panel.values, panel.begins, season)
    last = filled(panel.values, panel.begins, 1)
    ahead = np.arange(steps)
    found = []
    for begin, end in zip(panel.begins[:-1], panel.begins[1:], strict=True):
        recent = np.full(season, np.nan)
        count = min(season, end - begin)
        recent[season - count :] = seasons[end - count : end]
        recent = np.where(np.isnan(recent), last[end - 1], recent)
        growth = slope(panel.values[begin:end], season) if end - begin > season else 0.0
        found.append(recent[ahead % season] + growth * (1 + ahead // season))
    forecasts = np.stack(found)
    return forecasts[0] if is_one_series(y) else forecasts
