"""The grid of dates of a series: `freq` as positions that can be counted.

A position is the number of steps since 1970-01-01, or since step 0 where `ds` are numbers. A series may have
a phase within the step: weeks that end on Saturday, months that are written as their last day.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np

from rnnfast import _check

# Seconds of the units of equal length.
_SECONDS = {"s": 1, "min": 60, "h": 3600, "D": 86400, "W": 7 * 86400}
_MONTHS = {"M": 1, "Q": 3, "Y": 12}
_NAMES = {"S": "s", "sec": "s", "T": "min", "H": "h", "d": "D", "w": "W", "A": "Y"}
_STEPS, _BUSINESS, _MONTH_END = "step", "B", 31
_FORM = re.compile(r"(\d*)\s*([A-Za-z]+?)(S|E)?(-[A-Z]{3})?")
# Periods of the clocks in seconds.
_DAY, _WEEK, _YEAR = 86400.0, 7 * 86400.0, 365.2425 * 86400.0


class Places(NamedTuple):
    """Positions (rows,) of dates, and the phase (n,) of each series."""

    positions: np.ndarray
    phases: np.ndarray


class Grid(NamedTuple):
    """Steps of `size` units: "s", "min", "h", "D", "W", "B" (working days), "M", "Q", "Y", or "step".

    Examples
    --------
    >>> grid = grid_of("RNNForecaster", "MS")
    >>> days = np.array(["2024-01-01", "2024-02-01", "2024-04-01"], "datetime64[D]")
    >>> places, phases = grid.positions("RNNForecaster", ["y"], np.array([0, 3]), days)
    >>> (places - places[0]).tolist(), grid.dates(places[-1:] + 1, phases).tolist()
    ([0, 1, 3], [datetime.date(2024, 5, 1)])
    """

    unit: str
    size: int = 1

    def __str__(self) -> str:
        return f"{self.size if self.size > 1 else ''}{self.unit}"

    @property
    def of_dates(self) -> bool:
        """Whether `ds` are dates, not numbers."""
        return self.unit != _STEPS

    def positions(self, owner: str, ids: Sequence[Any], begins: np.ndarray, ds: np.ndarray) -> Places:
        """The positions of the dates `ds` (rows,) of series that begin at rows `begins` (n+1,), and the
        phases (n,).

        ValueError if a date is not on the grid of its series' first one.
        """
        first, lengths = begins[:-1], np.diff(begins)
        off = np.zeros(len(ds), bool)
        if self.unit in _MONTHS:
            months, day = ds.astype("datetime64[M]"), ds.astype("datetime64[D]")
            days = (day - months.astype("datetime64[D]")).astype(np.int64) + 1
            is_last = (day + 1).astype("datetime64[M]") != months
            month_ends = np.repeat(np.logical_and.reduceat(is_last, first), lengths)
            units, step = months.astype(np.int64), _MONTHS[self.unit] * self.size
            within = np.where(month_ends, _MONTH_END, days) + 32 * (units % step)
        elif self.unit == _BUSINESS:
            day = ds.astype("datetime64[D]")
            units, step = np.busday_count(np.datetime64(0, "D"), day), self.size
            within, off = units % step, ~np.is_busday(day)
        else:
            units = ds.astype("datetime64[s]").astype(np.int64) if self.of_dates else ds
            step = _SECONDS.get(self.unit, 1) * self.size
            within = units % step
        phases = within[first]
        off |= within != np.repeat(phases, lengths)
        _check.series.on_grid(owner, str(self), ids, begins, ds, off)
        return Places(units // step, phases)

    def same_phase(self, found: np.ndarray, known: np.ndarray, last: np.ndarray) -> np.ndarray:
        """Whether phases (n,) found in some dates are those of their series, up to the positions `last` (n,).

        A few dates at ends of months may also be a series' day 28, 29 or 30.
        """
        same = found == known
        if self.unit in _MONTHS:
            ends = found % 32 == _MONTH_END
            same |= ends & (self.dates(last, found) == self.dates(last, known)) & (found // 32 == known // 32)
        return same

    def dates(self, positions: np.ndarray, phase: np.ndarray | int) -> np.ndarray:
        """The dates at positions of series with these phases: datetime64[D] or [s], or numbers."""
        if self.unit in _MONTHS:
            step = _MONTHS[self.unit] * self.size
            month = (positions * step + phase // 32).astype("datetime64[M]")
            first, last = (shifted.astype("datetime64[D]") for shifted in (month, month + 1))
            return np.minimum(first + (np.asarray(phase) % 32 - 1).astype("timedelta64[D]"), last - 1)
        if self.unit == _BUSINESS:
            return np.busday_offset(np.datetime64(0, "D"), positions * self.size + phase, roll="forward")
        units = positions * (_SECONDS.get(self.unit, 1) * self.size) + phase
        if not self.of_dates:
            return units
        whole_days = self.unit in ("D", "W") and not np.any(np.asarray(phase) % 86400)
        return (units // 86400).astype("datetime64[D]") if whole_days else units.astype("datetime64[s]")

    def waves(self, steps: int) -> list[tuple[float, int]]:
        """The clocks that a series of this many steps has seen at least twice, and that a step is shorter
        than: periods of a day, a week and a year in seconds, with the number of waves in one."""
        if not self.of_dates:
            return []
        unit = 1.4 * _DAY if self.unit == _BUSINESS else 30.44 * _DAY * _MONTHS.get(self.unit, 0)
        unit = self.size * _SECONDS.get(self.unit, unit)
        found = [(_DAY, 1), (_WEEK, 1), (_YEAR, 1), (_YEAR, 2)]
        span = steps * unit
        return [(period, number) for period, number in found if 2 * unit * number < period <= span / 2]

    def clocks(
        self, positions: np.ndarray, phase: np.ndarray | int, waves: list[tuple[float, int]]
    ) -> np.ndarray:
        """Sines and cosines (..., 2 W) of these W waves at positions (...)."""
        if not waves:
            return np.zeros((*np.shape(positions), 0))
        seconds = self.dates(positions, phase).astype("datetime64[s]").astype(np.float64)
        angles = np.stack([seconds * (2 * np.pi * number / period) for period, number in waves], axis=-1)
        return np.concatenate((np.sin(angles), np.cos(angles)), axis=-1)


def checked_freq(owner: str, freq: Any) -> str | int | None:
    """A frequency that `grid_of` knows, or None."""
    if freq is None:
        return None
    grid_of(owner, freq)
    return freq if isinstance(freq, str) else int(freq)


def grid_of(owner: str, freq: str | int) -> Grid:
    """The grid of a frequency: "15min", "h", "D", "W", "B", "MS", "ME", "QS", "Y", ..., or a number of steps.

    Anchors such as "W-SAT" and "YS-JAN" are read from the dates themselves.

    Examples
    --------
    >>> str(grid_of("RNNForecaster", "15min")), str(grid_of("RNNForecaster", "W-SAT"))
    ('15min', 'W')
    """
    if isinstance(freq, str):
        found = _FORM.fullmatch(freq.strip())
        if found:
            count, unit = int(found[1] or 1), _NAMES.get(found[2], found[2])
            if count and unit in (*_SECONDS, *_MONTHS, _BUSINESS):
                return Grid(unit, count)
        raise _check.series.unknown_frequency(owner, freq)
    return Grid(_STEPS, _check.values.size(owner, "freq", freq))


def found_grid(owner: str, begins: np.ndarray, ds: np.ndarray) -> Grid:
    """The grid with the widest step that fits the dates `ds` (rows,) of all series, where the user gives no
    `freq`."""
    is_date = np.issubdtype(ds.dtype, np.datetime64)
    steps = np.diff(ds.astype("datetime64[s]").astype(np.int64) if is_date else ds)
    steps = np.delete(steps, begins[1:-1] - 1)
    if not steps.size:
        raise _check.series.unknown_frequency(owner, None)
    step = int(np.gcd.reduce(steps))
    if not is_date:
        return Grid(_STEPS, step)
    # Months, quarters and years have steps of several lengths, in days; weeks and days have one.
    if step % _SECONDS["D"] == 0 and steps.min() >= 28 * _SECONDS["D"]:
        ids = [""] * (len(begins) - 1)
        for unit in reversed(_MONTHS):
            with suppress(ValueError):
                grid = Grid(unit)
                if (
                    np.delete(np.diff(grid.positions(owner, ids, begins, ds).positions), begins[1:-1] - 1) > 0
                ).all():
                    return grid
    weekend = np.any((steps > _SECONDS["D"]) & (steps <= 4 * _SECONDS["D"]))
    if step == _SECONDS["D"] and weekend and np.is_busday(ds.astype("datetime64[D]")).all():
        return Grid(_BUSINESS)
    unit = next(unit for unit in reversed(_SECONDS) if step % _SECONDS[unit] == 0)
    return Grid(unit, step // _SECONDS[unit])
