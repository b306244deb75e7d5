"""A fitted forecaster: the network, what it knows of each series, and forecasts from there."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from rnnfast.forecast.panel import Column, Panel
from rnnfast.forecast.preprocessing import History, Preprocessing, Scale, Table
from rnnfast.forecast.reading import (
    ROWS_TOGETHER,
    Ahead,
    Reading,
    Stepper,
    branched,
    continued,
    fresh_state,
    in_groups,
    read,
)
from rnnfast.heads.distributions import uniform
from rnnfast.models.regressor import SequenceRegressor

# Levels at one standard deviation of a normal distribution; half the way between them is the spread of a
# forecast.
SPREAD = (0.15866, 0.84134)
# The levels of the table of errors.
ERROR_LEVELS = np.linspace(0, 1, 401)


class Group(NamedTuple):
    """n series that can be continued: names, the reading of each, and scale, phases (n,), static (n, S)."""

    ids: list[Any]
    reading: Reading
    scale: Scale
    phases: np.ndarray
    static: np.ndarray

    def rows(self, rows: np.ndarray) -> Group:
        """Some of the series."""
        ids = [self.ids[row] for row in rows]
        return Group(
            ids, self.reading.rows(rows), self.scale.rows(rows), self.phases[rows], self.static[rows]
        )

    def with_rows(self, rows: np.ndarray, part: Group) -> Group:
        """The group with other readings of some of its series."""
        state = self.reading.state.copy()
        state[rows] = part.reading.state
        past = [array.copy() for array in self.reading.past]
        for own, new in zip(past, part.reading.past, strict=True):
            own[rows] = new
        return self._replace(reading=Reading(state, History(*past)))

    def ahead(self, rows: np.ndarray, future: np.ndarray) -> Ahead:
        """What is known of some series, with future covariates (n, h, F)."""
        return Ahead(self.scale.rows(rows), self.phases[rows], self.static[rows], future[rows])


class Forecasts(NamedTuple):
    """Point forecasts (n, h), and quantiles (n, h, Q) if there are levels."""

    points: np.ndarray
    quantiles: np.ndarray | None


class Fitted(NamedTuple):
    """The network with its recipe, the encodings of covariates, and the calibration of its quantiles.

    Attributes
    ----------
    errors : ndarray (401,) or (0,)
        Quantiles of measured errors at `ERROR_LEVELS`, in units of the predicted spread; (0,) if quantiles
        are those of the head.
    """

    model: SequenceRegressor
    recipe: Preprocessing
    futures: Sequence[Column]
    statics: Sequence[Column]
    errors: np.ndarray

    def read(self, panel: Panel, scale: Scale, static: np.ndarray) -> Group:
        """Read each series of a panel from its beginning."""
        table, rows = Table(self.recipe, panel, scale, static), np.arange(len(panel.ids))
        last = panel.lengths - 1
        state = read(self.model, table, rows, np.zeros_like(last), last, fresh_state(self.model, len(rows)))
        return Group(panel.ids, Reading(state, table.past(rows, last)), scale, panel.phases, static)

    def read_on(self, group: Group, panel: Panel) -> Group:
        """Read the values of a panel after the past of each series of the group."""
        past, before = group.reading.past, self.recipe.before
        count, rows = panel.lengths, np.arange(len(panel.ids))
        # The past of a series and its new values as one series: steps before .. before + count are new.
        known = past.recent.copy()
        known[~past.observed, -1] = np.nan
        places = np.repeat(panel.begins[:-1], before + 1)
        values = np.insert(panel.values.astype(np.float64), places, known.reshape(-1))
        future = np.insert(panel.future, places, 0.0, axis=0)
        begins = panel.begins + np.arange(len(rows) + 1) * (before + 1)
        whole = Panel(panel.ids, values, begins, past.positions - before, panel.phases, future)
        table, first = Table(self.recipe, whole, group.scale, group.static), np.full(len(rows), before)
        state = read(self.model, table, rows, first, first + count, group.reading.state.copy())
        return group._replace(reading=Reading(state, table.past(rows, first + count)))

    def branches(self, panel: Panel, scale: Scale, static: np.ndarray, cutoffs: np.ndarray) -> Group:
        """The series after their first steps `cutoffs` (W, n), equally far apart: W groups of n as one of W
        n.

        Each step is read once.
        """
        table, windows = Table(self.recipe, panel, scale, static), len(cutoffs)
        state = branched(self.model, table, cutoffs - 1)
        rows = np.tile(np.arange(len(panel.ids)), windows)
        reading = Reading(state, table.past(rows, cutoffs.reshape(-1) - 1))
        return Group(panel.ids * windows, reading, scale.rows(rows), panel.phases[rows], static[rows])

    def forecast(
        self, group: Group, steps: int, future: np.ndarray, levels: Sequence[float], paths: int, seed: int
    ) -> Forecasts:
        """Forecasts of each series of a group, with future covariates (n, h, F).

        Quantiles of steps that the head predicts at once come from its distribution; those of later steps
        from simulated paths. Calibrated ones are the point forecasts plus measured errors times the spread.
        """
        mean, count = self.model.head.mean, len(group.ids)
        points = np.concatenate(
            in_groups(
                self.model,
                count,
                lambda rows: continued(
                    self._stepper(group, rows, future),
                    steps,
                    self.recipe.horizon,
                    lambda scores, _: mean(scores),
                ),
            )
        )
        if not levels:
            return Forecasts(points, None)
        asked = SPREAD if self.errors.size else levels
        if steps <= self.recipe.horizon:
            parts = in_groups(
                self.model, count, lambda rows: self._quantiles(group, rows, steps, future, asked)
            )
        else:
            parts = in_groups(
                self.model,
                count,
                lambda rows: np.moveaxis(
                    np.quantile(self._paths(group, rows, steps, future, paths, seed), asked, 1), 0, 2
                ),
                max(1, ROWS_TOGETHER // paths),
            )
        quantiles = np.concatenate(parts)
        if self.errors.size:
            spread = (quantiles[..., 1:] - quantiles[..., :1]) / 2
            quantiles = points[..., np.newaxis] + spread * np.interp(levels, ERROR_LEVELS, self.errors)
        return Forecasts(points, quantiles)

    def simulate(self, group: Group, steps: int, future: np.ndarray, paths: int, seed: int) -> np.ndarray:
        """Paths (n, paths, h) drawn from the head's distributions; each depends on its series alone."""
        found = in_groups(
            self.model,
            len(group.ids),
            lambda rows: self._paths(group, rows, steps, future, paths, seed),
            max(1, ROWS_TOGETHER // paths),
        )
        return np.concatenate(found)

    def _stepper(self, group: Group, rows: np.ndarray, future: np.ndarray) -> Stepper:
        return Stepper(self.model, self.recipe, group.reading.rows(rows), group.ahead(rows, future))

    def _quantiles(
        self, group: Group, rows: np.ndarray, steps: int, future: np.ndarray, levels: Sequence[float]
    ) -> np.ndarray:
        stepper, head = self._stepper(group, rows, future), self.model.head
        scores = stepper.scores()
        return np.stack(
            [stepper.values(head.quantile(scores, level))[:, :steps] for level in levels], axis=-1
        )

    def _paths(
        self, group: Group, rows: np.ndarray, steps: int, future: np.ndarray, paths: int, seed: int
    ) -> np.ndarray:
        streams = np.array([_stream(group.ids[row]) for row in rows], np.int64)
        head, horizon = self.model.head, self.recipe.horizon

        def choose(scores: np.ndarray, step: int) -> np.ndarray:
            levels = uniform(seed, streams, step, (paths, len(rows), horizon))
            return head.quantile(scores, np.swapaxes(levels, 0, 1).reshape(-1, horizon))

        stepper = self._stepper(group, np.repeat(rows, paths), future)
        return continued(stepper, steps, horizon, choose).reshape(len(rows), paths, steps)


def _stream(name: Any) -> int:
    """The stream of random numbers of a series, from its name."""
    return int.from_bytes(hashlib.blake2b(str(name).encode(), digest_size=7).digest(), "big")
