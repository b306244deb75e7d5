"""The backtest of `rnnfast forecast`: the network beside forecasts without one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rnnfast.forecast import drift, metrics, seasonal_naive
from rnnfast.forecast.panel import Panel


class Score(NamedTuple):
    """Mean errors of a forecast over all series and origins, and the coverage of its intervals."""

    title: str
    mae: float
    mase: float
    coverage: tuple[float, ...] = ()


class Plan(NamedTuple):
    """Origins `h` steps apart, the last one `h` steps before the end of each series."""

    h: int
    windows: int
    season: int

    @property
    def least(self) -> int:
        """The most values of a series that is too short."""
        return self.h * self.windows + max(self.h, self.season)

    def fits(self, panel: Panel) -> np.ndarray:
        """Which series (n,) are long enough, and have a value before the first origin."""
        before = np.maximum(0, panel.lengths - self.h * self.windows)
        known = np.concatenate(([0], np.cumsum(~np.isnan(panel.values))))
        begins = panel.begins[:-1]
        return (panel.lengths > self.least) & (known[begins + before] > known[begins])


def scores(
    plan: Plan,
    panel: Panel,
    history: Mapping[str, np.ndarray],
    target: str,
    title: str,
    levels: Sequence[float],
) -> list[Score]:
    """The scores of the network, of seasonal naive and of drift.

    Parameters
    ----------
    plan : Plan
    panel : Panel
        The n series of the backtest.
    history
        The columns (n W h,) of `RNNForecaster.cross_validation`.
    target, title : str
        The column of the values; the network's title.
    levels : sequence of float
        Coverage of the intervals in per cent.
    """
    shape = (len(panel.ids), plan.windows, plan.h)

    def column(name: str) -> np.ndarray:
        return np.asarray(history[name], np.float64).reshape(shape)

    actual, name = column(target), "RNNForecaster"
    covered = tuple(
        _mean(metrics.coverage(actual, *(column(f"{name}-{side}-{level:g}") for side in ("lo", "hi"))))
        for level in levels
    )
    parts = [panel.until(panel.lengths - plan.h * (plan.windows - window)) for window in range(plan.windows)]
    before = [np.split(part.values, part.begins[1:-1]) for part in parts]
    found = {title: column(name)}
    naive = "seasonal naive" if plan.season > 1 else "naive"
    for label, baseline in ((naive, seasonal_naive), ("drift", drift)):
        found[label] = np.stack([baseline(part, plan.h, plan.season) for part in before], axis=1)
    return [
        Score(
            label,
            _mean(metrics.mae(actual, one)),
            _mean(_scaled(actual, one, before, plan.season)),
            covered if label == title else (),
        )
        for label, one in found.items()
    ]


def _scaled(
    actual: np.ndarray, forecast: np.ndarray, before: Sequence[Sequence[np.ndarray]], season: int
) -> np.ndarray:
    """The MASE (n, W); `before` has the values of each series, for each origin."""
    found = np.empty(actual.shape[:2])
    for row, window in np.ndindex(found.shape):
        pair = actual[row, window], forecast[row, window]
        found[row, window] = metrics.mase(*pair, before[window][row], season)
    return found


def _mean(values: Any) -> float:
    """The mean of the numbers; NaN if all are NaN."""
    known = np.asarray(values)[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
