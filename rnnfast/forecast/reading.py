"""Reading series into states, and forecasting from states.

A `Reading` is the state of the network before it has read the last value of each series, and that value:
what a step needs of the step after it may become known only when the forecast is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from rnnfast.forecast.preprocessing import History, Preprocessing, Scale, Table
from rnnfast.layers.state import State
from rnnfast.layers.window import Part
from rnnfast.models.regressor import SequenceRegressor

# Series that are read together, and their steps at a time.
_ROWS, _STEPS = 256, 512
# Up to this number of steps, single steps are faster than a window.
_FEW_STEPS = 4
# Rows of a forecast that are computed together.
ROWS_TOGETHER = 1 << 12


class Reading(NamedTuple):
    """The state before the last value of N series, and their past up to that value."""

    state: State
    past: History

    def rows(self, rows: np.ndarray) -> Reading:
        """The reading of some series; each may occur more than once."""
        return Reading(self.state[rows], self.past.rows(rows))


def fresh_state(model: SequenceRegressor, rows: int) -> State:
    """The zero state of this number of series."""
    layers = model.body.layers
    return State(
        tuple(
            tuple(np.zeros((rows, layer.hidden_size), layer.dtype) for _ in layer.cell.states)
            for layer in layers
        )
    )


def read(
    model: SequenceRegressor,
    table: Table,
    rows: np.ndarray,
    first: np.ndarray,
    last: np.ndarray,
    state: State,
) -> State:
    """The state after steps first .. last (N,) of the series `rows` of a table, from a state of N rows."""
    steps = last - first
    order = np.argsort(steps, kind="stable")
    with model.reading():
        for begin in range(0, len(rows), _ROWS):
            group = order[begin : begin + _ROWS]
            if steps[group[-1]] > 0:
                state[group] = _read(model, table, rows[group], first[group], steps[group], state[group])
    return state


def _read(
    model: SequenceRegressor,
    table: Table,
    rows: np.ndarray,
    first: np.ndarray,
    steps: np.ndarray,
    state: State,
) -> State:
    body, longest = model.reader().body, int(steps.max())
    body.set_state(state.value)
    for begin in range(0, longest, _STEPS):
        end = min(begin + _STEPS, longest)
        xs = table.inputs(rows, first + begin, end - begin).astype(model.dtype)
        body.read(xs, drop=False, keep=False, part=Part(begin, end, longest, steps))
    return State(body.get_state())


def branched(model: SequenceRegressor, table: Table, ends: np.ndarray) -> State:
    """The states after the first steps `ends` (W, n) of each series, equally far apart: one state of W n
    rows."""
    windows, count = ends.shape
    stride = int(ends[1, 0] - ends[0, 0]) if windows > 1 else 0
    found: list[list[Any]] = [[] for _ in range(windows)]
    with model.reading() as reader:
        body = reader.body
        for begin in range(0, count, _ROWS):
            rows = np.arange(begin, min(begin + _ROWS, count))
            first, steps = ends[0, rows], stride * (windows - 1)
            state = read(model, table, rows, np.zeros_like(first), first, fresh_state(model, len(rows)))
            found[0].append(state.value)
            body.set_state(state.value)
            xs = table.inputs(rows, first, steps).astype(model.dtype)
            for window, place in enumerate(range(0, steps, stride or 1), start=1):
                if stride <= _FEW_STEPS:
                    for t in range(place, place + stride):
                        body.step(xs[:, t])
                else:
                    part = Part(place, place + stride, steps)
                    body.read(part.of(xs), drop=False, keep=False, part=part)
                found[window].append(body.get_state())
    layers = zip(*(state for states in found for state in states), strict=True)
    return State(tuple(tuple(map(np.concatenate, zip(*layer, strict=True))) for layer in layers))


class Ahead(NamedTuple):
    """What is known of N series besides their values: scale, phases (N,), static covariates (N, S), and
    future covariates (N, h, F) of the steps after the last value."""

    scale: Scale
    phases: np.ndarray
    static: np.ndarray
    future: np.ndarray

    def rows(self, rows: np.ndarray) -> Ahead:
        """Those of some series."""
        return Ahead(self.scale.rows(rows), self.phases[rows], self.static[rows], self.future[rows])


class Stepper:
    """N series that are continued by their forecasts.

    Parameters
    ----------
    model : SequenceRegressor
    recipe : Preprocessing
    reading : Reading
    ahead : Ahead
    """

    def __init__(
        self, model: SequenceRegressor, recipe: Preprocessing, reading: Reading, ahead: Ahead
    ) -> None:
        self._recipe, self._ahead, self._past, self._passed = recipe, ahead, reading.past, 0
        self._reader = model.reader()
        self._reader.body.set_state(reading.state.value)

    def scores(self) -> np.ndarray:
        """Read the last value; the scores (N, P*O) of the head for the O values after it."""
        past, ahead, recipe = self._past, self._ahead, self._recipe
        after = past.positions[:, np.newaxis] + 1
        clocks = recipe.grid.clocks(after, ahead.phases[:, np.newaxis], recipe.waves)
        known = (ahead.future[:, self._passed], ahead.static)
        others = np.concatenate(known, axis=-1)[:, np.newaxis]
        observed = past.observed[:, np.newaxis]
        xs = recipe.inputs(past.recent, observed, ahead.scale, clocks, others)
        hidden = self._reader.body.step(xs[:, 0].astype(self._reader.dtype))
        return self._reader.scores(hidden).astype(np.float64)

    def values(self, deviations: np.ndarray) -> np.ndarray:
        """The values (..., N, O) of deviations from the bases after the last value."""
        scale, recent = self._ahead.scale, self._past.recent
        bases = self._recipe.bases(recent, scale.location)[:, 0]
        unknown = np.isnan(bases)
        if unknown.any():
            bases = np.where(unknown, _last_known(recent, scale.location)[:, np.newaxis], bases)
        return bases + self._recipe.units(scale)[:, np.newaxis] * deviations

    def follow(self, values: np.ndarray) -> None:
        """Continue each series by a value (N,)."""
        self._past = self._past.followed_by(values)
        self._passed += 1


def _last_known(recent: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """The last value (N,) of each row that is not NaN."""
    known = ~np.isnan(recent)
    last = recent.shape[1] - 1 - np.argmax(known[:, ::-1], axis=1)
    return np.where(known.any(axis=1), recent[np.arange(len(recent)), last], otherwise)


# Deviations (N, O) of the values after the last one, from the scores (N, P*O) of the head and the step's
# number.
Choice = Callable[[np.ndarray, int], np.ndarray]


def continued(stepper: Stepper, steps: int, horizon: int, choose: Choice) -> np.ndarray:
    """The next values (N, h) of each series, `horizon` at a time; the network reads them before it goes
    on."""
    columns: list[np.ndarray] = []
    while len(columns) < steps:
        found = stepper.values(choose(stepper.scores(), len(columns)))
        count = min(horizon, steps - len(columns))
        columns += list(found[:, :count].T)
        if len(columns) < steps:
            stepper.follow(found[:, 0])
            for k in range(1, count):
                stepper.scores()
                stepper.follow(found[:, k])
    return np.stack(columns, axis=1)


def in_groups(
    model: SequenceRegressor,
    rows: int,
    compute: Callable[[np.ndarray], Any],
    at_most: int = ROWS_TOGETHER,
) -> list[Any]:
    """What `compute` returns for groups of the numbers 0 .. rows - 1; it may use the model's reader."""
    with model.reading():
        return [compute(np.arange(begin, min(begin + at_most, rows))) for begin in range(0, rows, at_most)]
