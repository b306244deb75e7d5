"""How good forecasts are: errors and scores of arrays, one number for each series.

Arrays are (..., h): the last axis holds the h steps of a forecast, and the result has the axes before it.
Steps whose actual value is NaN or masked are left out; a series without any other has the result NaN.

Sources: Hyndman and Koehler, *Another look at measures of forecast accuracy*, 2006; Gneiting and Raftery,
*Strictly proper scoring rules, prediction, and estimation*, 2007.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast._check.values import exponents, unmasked

__all__ = ["coverage", "crps", "mae", "mase", "quantile_loss", "rmse", "smape"]


def _pair(owner: str, actual: Any, forecast: Any, *, axes: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Actual values (..., h) and forecasts with `axes` more axes in front, as float64."""
    actual, forecast = (np.asarray(unmasked(one), np.float64) for one in (actual, forecast))
    _check.series.steps_of_forecasts(owner, actual, forecast, axes)
    return actual, forecast


def _mean(values: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """The mean over the steps with an actual value; NaN without any."""
    known = np.isfinite(actual)
    counts = known.sum(axis=-1)
    values = np.where(known, values, 0.0)
    unit = _unit(values)
    sums = np.ldexp(values, -unit).sum(axis=-1)
    means = np.ldexp(sums / np.maximum(counts, 1), unit[..., 0])
    return np.where(counts > 0, means, np.nan)[()]


def _unit(values: np.ndarray) -> np.ndarray:
    """Powers of two (..., 1) by which very large or small values (..., h) can be divided."""
    return exponents(np.max(np.abs(values), axis=-1, keepdims=True, where=np.isfinite(values), initial=0.0))


def mae(actual: Any, forecast: Any) -> Any:
    """Mean absolute error.

    Parameters
    ----------
    actual, forecast : array (..., h)

    Returns
    -------
    array (...), or float for one series

    Examples
    --------
    >>> from rnnfast.forecast import metrics
    >>> float(metrics.mae([1, 2, float("nan")], [1, 4, 9]))
    1.0
    """
    actual, forecast = _pair("mae", actual, forecast)
    return _mean(np.abs(actual - forecast), actual)


def rmse(actual: Any, forecast: Any) -> Any:
    """Root of the mean squared error; arguments as in `mae`.

    Examples
    --------
    >>> from rnnfast.forecast import metrics
    >>> float(metrics.rmse([1, 2], [1, 4]) ** 2)
    2.0000000000000004
    """
    actual, forecast = _pair("rmse", actual, forecast)
    error = np.where(np.isfinite(actual), actual - forecast, 0.0)
    unit = _unit(error)
    return np.ldexp(np.sqrt(_mean(np.ldexp(error, -unit) ** 2, actual)), unit[..., 0])[()]


def smape(actual: Any, forecast: Any) -> Any:
    """Symmetric mean absolute percentage error, from 0 to 1: the mean of ``|y - f| / (|y| + |f|)``.

    Where both are 0, the error is 0. Arguments as in `mae`. Some definitions are twice as large.

    Examples
    --------
    >>> from rnnfast.forecast import metrics
    >>> float(metrics.smape([1, 0], [3, 0]))
    0.25
    """
    actual, forecast = _pair("smape", actual, forecast)
    total = np.abs(actual) + np.abs(forecast)
    return _mean(np.abs(actual - forecast) / np.where(total == 0, 1.0, total), actual)


def mase(actual: Any, forecast: Any, train: Any, season_length: int = 1) -> Any:
    """Mean absolute error, divided by that of the seasonal naive forecast on the training part.

    Parameters
    ----------
    actual, forecast : array (..., h)
    train : array (..., t)
        The values before the forecast; NaN is left out.
    season_length : int
        Steps of a season.

    Returns
    -------
    array (...), or float for one series
        NaN where the naive forecast makes no error on the training part.

    Examples
    --------
    >>> from rnnfast.forecast import metrics
    >>> float(metrics.mase([5, 6], [5, 7], train=[1, 2, 3, 4]))
    0.5
    """
    season = _check.values.size("mase", "season_length", season_length)
    train = np.asarray(unmasked(train), np.float64)
    steps = train[..., season:] - train[..., :-season]
    scale = _mean(np.abs(steps), steps)
    return mae(actual, forecast) / np.where(scale > 0, scale, np.nan)


def quantile_loss(actual: Any, forecast: Any, level: float) -> Any:
    """Mean pinball loss of a forecast of the quantile at `level`; arrays as in `mae`.

    Examples
    --------
    >>> from rnnfast.forecast import metrics
    >>> float(metrics.quantile_loss([1, 2], [0, 4], level=0.75))
    0.625
    """
    level = _check.values.number("quantile_loss", "level", level, 0.0, 1.0)
    actual, forecast = _pair("quantile_loss", actual, forecast)
    error = actual - forecast
    return _mean(np.maximum(level * error, (level - 1) * error), actual)


def crps(actual: Any, forecast: Any, levels: Any = None) -> Any:
    """Continuous ranked probability score, of quantiles or of samples.

    Parameters
    ----------
    actual : array (..., h)
    forecast : array (k, ..., h)
        k quantiles at `levels`, or k samples.
    levels : sequence of k floats, optional
        With levels, the score is twice the mean of the quantile losses, which approaches the CRPS for many
        equally spaced levels. Without, it is that of the samples' distribution,
        ``mean |x - y| - mean |x - x'| / 2``.

    Returns
    -------
    array (...), or float for one series

    Examples
    --------
    >>> from rnnfast.forecast import metrics
    >>> float(metrics.crps([2.0], [[1.0], [3.0]]))
    0.5
    >>> float(metrics.crps([2.0], [[1.0], [3.0]], levels=[0.25, 0.75]))
    0.5
    """
    actual, forecast = _pair("crps", actual, forecast, axes=1)
    if levels is not None:
        levels = _check.series.levels("crps", levels, len(forecast))
        losses = [quantile_loss(actual, one, level) for one, level in zip(forecast, levels, strict=True)]
        return 2 * np.mean(losses, axis=0)[()]
    count = len(forecast)
    ranks = 2 * np.arange(1, count + 1) - count - 1  # of the sorted samples: the sum of their distances
    spread = np.tensordot(ranks, np.sort(forecast, axis=0), axes=1) / count**2
    return _mean(np.abs(forecast - actual).mean(axis=0) - spread, actual)


def coverage(actual: Any, low: Any, high: Any) -> Any:
    """Share of the actual values from `low` to `high`, both included; arrays as in `mae`.

    Examples
    --------
    >>> from rnnfast.forecast import metrics
    >>> float(metrics.coverage([1, 2, 3, 4], [0, 0, 0, 0], [2, 2, 2, 4]))
    0.75
    """
    actual, low = _pair("coverage", actual, low)
    high = _pair("coverage", actual, high)[1]
    return _mean(((low <= actual) & (actual <= high)).astype(np.float64), actual)
