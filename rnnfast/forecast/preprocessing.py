"""What the network reads and predicts at a step: values and targets in the scale of their series.

At step t the network reads the value y_t, and what is known of step t + 1; it predicts steps t + 1 .. t + O.
The target is the difference from a base that is known at step t:

=====================  ============================================  ==========================
`target`               base of step t + k                            deviation that is read
=====================  ============================================  ==========================
"level"                the location of the series                    y_t - location
"difference"           y_t                                           y_t - y_{t-1}
"seasonal_difference"  the last value of the season of step t + k    y_t - y_{t-season_length}
=====================  ============================================  ==========================

All are divided by the scale of the series. Where a value is missing, the base uses the one before (of the
same season, for seasonal differences), the deviation is read as 0, and the target has no weight. Each row
depends on its own series alone, and on nothing after step t but what is known of step t + 1.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rnnfast._check.values import exponents, unit_of_constant
from rnnfast.forecast.frames import Grid
from rnnfast.forecast.panel import Panel, filled

TARGETS = ("level", "difference", "seasonal_difference")
SCALERS = ("auto", "standard", "mean")


class Scale(NamedTuple):
    """Location and scale (n,) of each series."""

    location: np.ndarray
    scale: np.ndarray

    def rows(self, rows: np.ndarray) -> Scale:
        """Those of some series."""
        return Scale(self.location[rows], self.scale[rows])


class History(NamedTuple):
    """The values up to a step: `recent` (N, L + 1) with gaps filled, the last one observed or not (N,), and
    its position (N,)."""

    recent: np.ndarray
    observed: np.ndarray
    positions: np.ndarray

    def rows(self, rows: np.ndarray) -> History:
        """Those of some series."""
        return History(*(array[rows] for array in self))

    def followed_by(self, values: np.ndarray) -> History:
        """The past after one more value (N,) of each series."""
        recent = np.concatenate((self.recent[:, 1:], values[:, np.newaxis]), axis=1)
        return History(recent, np.ones(len(values), bool), self.positions + 1)


class Preprocessing(NamedTuple):
    """How inputs and targets are made; fixed by the training data.

    Attributes
    ----------
    target : str
        One of `TARGETS`.
    season : int
        The season length, 1 for none.
    horizon : int
        O, the steps predicted at once, at most the season length where there is one.
    scaler : str or None
        One of `SCALERS`, or None for no scale; "auto" is "mean" for counts, else "standard".
    flags : bool
        Whether the network reads if a value is observed.
    size : float or None
        For counts, which are not divided by the scale, the mean logarithm of the scales; the network then
        reads how far the logarithm of its series' scale is from it.
    grid : Grid
    waves : list of pairs
        The clocks that the network reads, as in `Grid.waves`.
    covariates : int
        F + S, the number of future covariates of a step and of static ones of a series.
    """

    target: str
    season: int
    horizon: int
    scaler: str | None
    flags: bool
    size: float | None
    grid: Grid
    waves: list[tuple[float, int]]
    covariates: int

    @property
    def before(self) -> int:
        """L, the number of values before a step that its inputs and bases need."""
        return self.season if self.season > 1 else 1

    @property
    def counts(self) -> bool:
        """Whether the targets are counts."""
        return self.size is not None

    @property
    def least(self) -> int:
        """The most values of a series that has no target."""
        return self.horizon + (self.season - 1 if self.target == "seasonal_difference" else 0)

    @property
    def fills_from(self) -> int:
        """The number of steps from a gap back to the value that fills it."""
        return self.season if self.target == "seasonal_difference" else 1

    @property
    def width(self) -> int:
        """D, the number of inputs of a step."""
        lags = self.horizon if self._reads_lags else 0
        return 1 + self.flags + self.counts + lags + 2 * len(self.waves) + self.covariates

    @property
    def _reads_lags(self) -> bool:
        return self.season > 1 and self.target != "seasonal_difference"

    def inputs(
        self, recent: np.ndarray, observed: np.ndarray, scale: Scale, clocks: np.ndarray, others: np.ndarray
    ) -> np.ndarray:
        """Inputs (N, S, D) of S steps.

        Parameters
        ----------
        recent : ndarray (N, L + S)
            Filled values, from L steps before the first one on.
        observed : ndarray of bool (N, S)
        scale : Scale
            Location and scale (N,).
        clocks : ndarray (N, S, 2 W)
            The clocks of the steps t + 1.
        others : ndarray (N, S, F + S)
            Covariates of the steps t + 1, and of the series.
        """
        steps, before, season = observed.shape[1], self.before, self.season
        location, unit = scale.location[:, np.newaxis], scale.scale[:, np.newaxis]

        def ago(count: int) -> np.ndarray:
            return recent[:, before - count : before - count + steps]

        origin = {"level": location, "difference": ago(1), "seasonal_difference": ago(season)}[self.target]
        columns = [np.where(observed, (ago(0) - origin) / unit, np.nan)]
        if self.flags:
            columns.append(observed * 1.0)
        if self.counts:
            columns.append(np.broadcast_to(np.log(unit) - self.size, observed.shape))
        if self._reads_lags:
            start = ago(season) if self.target == "difference" else location
            columns += [(ago(season - k) - start) / unit for k in range(1, self.horizon + 1)]
        own = np.stack(columns, axis=-1)
        return np.concatenate((np.where(np.isnan(own), 0.0, own), clocks, others), axis=-1)

    def bases(self, recent: np.ndarray, location: np.ndarray, steps: int = 1) -> np.ndarray:
        """The bases (N, S, O) of S steps, from values `recent` (N, L + S) as in `inputs`; NaN if unknown."""
        before, columns = self.before, []
        for k in range(1, self.horizon + 1):
            back = before - {"seasonal_difference": self.season - k}.get(self.target, 0)
            columns.append(recent[:, back : back + steps])
        bases = np.stack(columns, axis=-1)
        return (
            np.broadcast_to(location[:, np.newaxis, np.newaxis], bases.shape)
            if self.target == "level"
            else bases
        )

    def units(self, scale: Scale) -> np.ndarray:
        """The units (n,) in which targets are measured."""
        return np.ones_like(scale.scale) if self.counts else scale.scale

    def scale_of(self, panel: Panel) -> Scale:
        """Location and scale (n,) of each series, from its values; (0, 1) without a scaler."""
        scales = zip(*(self._scale_of(piece) for piece in panel.pieces()), strict=True)
        return Scale(*map(np.concatenate, scales))

    def _scale_of(self, panel: Panel) -> Scale:
        count, begins = len(panel.ids), panel.begins[:-1]
        sizes = np.maximum.reduceat(np.where(np.isnan(panel.values), 0.0, np.abs(panel.values)), begins)
        power = exponents(sizes)  # so that squares and sums neither overflow nor vanish
        values = panel.values
        if power.any():
            values = np.ldexp(values, -np.repeat(power, panel.lengths))
            panel = panel._replace(values=values)

        def mean(numbers: np.ndarray, otherwise: float) -> np.ndarray:
            known = ~np.isnan(numbers)
            counts = np.add.reduceat(known, begins, dtype=np.int64)
            sums = np.add.reduceat(np.where(known, numbers, 0.0), begins, dtype=np.float64)
            return np.where(counts > 0, sums / np.maximum(counts, 1), otherwise)

        if self.scaler is None:
            return Scale(np.zeros(count), np.ones(count))
        if self.scaler == "mean" or (self.scaler == "auto" and self.counts):
            sizes = np.ldexp(mean(np.abs(values), 1.0), power)
            return Scale(np.zeros(count), np.where(sizes > 0, sizes, 1.0))
        location = mean(values, 0.0)
        differences = values - (
            np.repeat(location, panel.lengths) if self.target == "level" else self.before_each(panel)
        )
        variance = mean(differences * differences, np.nan)
        # Rounding alone makes a variance.
        variance = np.where(variance > (1e-12 * location) ** 2, variance, 0.0)
        # A series too short for a difference of seasons, or without any change, is measured by its
        # deviations.
        if self.target != "level" and not np.all(variance > 0):
            center = np.repeat(location, panel.lengths)
            around = np.where(np.abs(values - center) > 1e-12 * np.abs(center), values - center, 0.0)
            variance = np.where(variance > 0, variance, mean(around * around, 0.0))
        location = np.ldexp(location, power)
        constant = unit_of_constant(location)
        return Scale(location, np.where(variance > 0, np.ldexp(np.sqrt(variance), power), constant))

    def before_each(self, panel: Panel) -> np.ndarray:
        """The base (total,) of each value, one step ahead; NaN if it is unknown."""
        step = self.fills_from
        known = filled(panel.values, panel.begins, step)
        before = np.full(known.size, np.nan)
        before[step:] = known[:-step]
        places = np.arange(known.size) - np.repeat(panel.begins[:-1], panel.lengths)
        before[places < step] = np.nan
        return before


def _within_scale(panel: Panel, units: np.ndarray) -> None:
    """An error for a value that the network cannot read in the unit (n,) of its series."""
    sizes = np.fmax.reduceat(np.abs(panel.values), panel.begins[:-1]).astype(np.float64)
    wrong = np.flatnonzero(sizes / 1e28 > units)
    if wrong.size:
        row = int(wrong[0])
        raise ValueError(
            f"RNNForecaster: series {panel.ids[row]!r} holds a value of size {sizes[row]:g}, too large for "
            f"its unit {units[row]:g}; leave the value out, or fit again with a scaler."
        )


class Table:
    """The inputs and targets of any steps of the series of a panel.

    Parameters
    ----------
    recipe : Preprocessing
    panel : Panel
    scale : Scale
        Of the panel's series.
    static : ndarray (n, S)
    """

    def __init__(self, recipe: Preprocessing, panel: Panel, scale: Scale, static: np.ndarray) -> None:
        _within_scale(panel, recipe.units(scale))
        self._recipe, self._panel, self._scale, self._static = recipe, panel, scale, static
        self._filled = filled(panel.values, panel.begins, recipe.fills_from)

    def _gathered(self, values: np.ndarray, rows: np.ndarray, first: np.ndarray, steps: int) -> np.ndarray:
        """Values (N, S) of `steps` steps from step `first` (N,) of some series; NaN outside of the series."""
        begins, ends = self._panel.begins[rows], self._panel.begins[rows + 1]
        places = (begins + first)[:, np.newaxis] + np.arange(steps)
        inside = (places >= begins[:, np.newaxis]) & (places < ends[:, np.newaxis])
        return np.where(inside, values[np.clip(places, 0, values.size - 1)].astype(np.float64), np.nan)

    def past(self, rows: np.ndarray, step: np.ndarray) -> History:
        """The past of some series at a step (N,) of each."""
        before = self._recipe.before
        recent = self._gathered(self._filled, rows, step - before, before + 1)
        observed = ~np.isnan(self._gathered(self._panel.values, rows, step, 1))[:, 0]
        return History(recent, observed, self._panel.starts[rows] + step)

    def inputs(self, rows: np.ndarray, first: np.ndarray, steps: int) -> np.ndarray:
        """Inputs (N, S, D) of `steps` steps from step `first` (N,) of some series, before their last step."""
        recipe, panel = self._recipe, self._panel
        recent = self._gathered(self._filled, rows, first - recipe.before, recipe.before + steps)
        observed = ~np.isnan(self._gathered(panel.values, rows, first, steps))
        after = (panel.starts[rows] + first)[:, np.newaxis] + np.arange(1, steps + 1)
        clocks = recipe.grid.clocks(after, panel.phases[rows, np.newaxis], recipe.waves)
        static = np.broadcast_to(self._static[rows, np.newaxis], (*observed.shape, self._static.shape[1]))
        places = (panel.begins[rows] + first)[:, np.newaxis] + np.arange(1, steps + 1)
        future = panel.future[np.clip(places, 0, len(panel.future) - 1)]
        others = np.concatenate((future, static), axis=-1)
        return recipe.inputs(recent, observed, self._scale.rows(rows), clocks, others)

    def scored(self) -> np.ndarray:
        """Whether the target (total,) of each step, one step ahead, is known."""
        return np.concatenate([self._scored(piece) for piece in self._panel.pieces()])

    def _scored(self, panel: Panel) -> np.ndarray:
        ahead = ~np.isnan(panel.values)
        if self._recipe.target != "level":
            ahead &= ~np.isnan(self._recipe.before_each(panel))
        known = np.zeros(ahead.size, bool)
        known[:-1] = ahead[1:]
        known[panel.begins[1:] - 1] = False
        return known

    def targets(self, rows: np.ndarray, first: np.ndarray, steps: int) -> np.ndarray:
        """Targets (N, S, O) of these steps. A missing one is that of the step before, or 0 at the first
        step."""
        recipe, scale = self._recipe, self._scale.rows(rows)
        recent = self._gathered(self._filled, rows, first - recipe.before, recipe.before + steps)
        ahead = self._gathered(self._panel.values, rows, first + 1, steps + recipe.horizon - 1)
        values = np.stack([ahead[:, k : k + steps] for k in range(recipe.horizon)], axis=-1)
        found = values - recipe.bases(recent, scale.location, steps)
        found /= recipe.units(scale)[:, np.newaxis, np.newaxis]
        for k in range(recipe.horizon):
            one = found[..., k]
            np.copyto(one, found[..., k - 1] if k else 0.0, where=np.isnan(one))
        return found
