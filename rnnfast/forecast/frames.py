"""Long frames: one row for each series and date.

A frame is a dict of columns, or one of pandas, polars and others, which narwhals reads and writes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from numbers import Number
from typing import Any, NamedTuple

import numpy as np

from rnnfast import _check
from rnnfast.forecast.panel import Column, Panel, encoded

# Steps without a row that a frame may have for each row; more is a frequency that does not fit.
_MOST_GAPS = 10
_DICT = "dict"
_DATE = re.compile(r"\d{4}(-.*)?")
_ZONED = re.compile(r".*[T ]\d.*(Z|[+-]\d\d(:?\d\d)?)")


class Names(NamedTuple):
    """The columns of a long frame: series, date and value."""

    id: str = "unique_id"
    time: str = "ds"
    target: str = "y"


class Rows(NamedTuple):
    """A frame whose series lie together: names (n,), where they begin (n+1,), dates (rows,), the unit in
    which the frame holds them, and other columns."""

    ids: list[Any]
    begins: np.ndarray
    ds: np.ndarray
    unit: str
    columns: dict[str, np.ndarray]

    def where(self, row: int) -> str:
        """The series and the date of a row, for errors."""
        series = int(np.searchsorted(self.begins, row, side="right")) - 1
        return f"series {self.ids[series]!r} at {_check.series.date_text(self.ds[row])}"


def is_frame(data: Any) -> bool:
    """Whether data is a frame, not an array or a list."""
    return isinstance(data, Mapping) or hasattr(data, "columns")


def library_of(frame: Any) -> str:
    """The module of a frame's library, or "dict"."""
    return _DICT if isinstance(frame, Mapping) else type(frame).__module__.partition(".")[0]


def column_names(frame: Any) -> list[str]:
    """The names of a frame's columns."""
    return list(frame) if isinstance(frame, Mapping) else list(frame.columns)


def columns_of(owner: str, name: str, frame: Any, wanted: Sequence[str]) -> dict[str, np.ndarray]:
    """Columns of a frame as arrays (rows,)."""
    given = column_names(frame)
    if not isinstance(frame, Mapping):
        narwhals = _check.series.needed(owner, "narwhals", "forecast")
        _check.series.wanted_columns(owner, name, [], given)
        try:
            frame = narwhals.from_native(frame, eager_only=True)
        except TypeError:
            raise _check.series.not_a_frame(owner, name, frame) from None
    _check.series.wanted_columns(owner, name, wanted, given)
    if isinstance(frame, Mapping):
        return _check.series.columns(owner, name, {column: frame[column] for column in wanted})
    found = {}
    for column in wanted:
        kind = frame.schema[column]
        _check.series.without_time_zone(owner, column, kind)
        try:
            found[column] = frame[column].to_numpy()
        except Exception:  # each library has its own
            raise _check.series.not_numbers(owner, column, kind, ", dates or texts") from None
    return found


def made_frame(backend: str, columns: Mapping[str, Any]) -> Any:
    """A frame of the library `backend` with these columns; for "dict", a dict of arrays."""
    if backend == _DICT:
        return {name: np.asarray(values) for name, values in columns.items()}
    narwhals = _check.series.needed("RNNForecaster", "narwhals", "forecast")
    return narwhals.from_dict(dict(columns), backend=backend).to_native()


def rows_of_frame(owner: str, name: str, frame: Any, names: Names, others: Sequence[str]) -> Rows:
    """The rows of a long frame, series after series, with rising dates.

    ValueError names the first series and date that are out of order or occur twice.
    """
    columns = columns_of(owner, name, frame, [names.id, names.time, *others])
    ids, given = columns.pop(names.id), columns.pop(names.time)
    if not len(ids):
        raise ValueError(f"{owner}: {name} must have at least one row, got none.")
    ds, unit = _dates(owner, names.time, given, ids)
    _check.series.named_rows(owner, names.id, ids, ds)
    heads = np.flatnonzero(np.concatenate(([True], ids[1:] != ids[:-1])))
    numbers = {ids[head]: None for head in heads}
    if len(numbers) < len(heads):  # the rows of the series are mixed
        numbers = dict.fromkeys(ids)
        code = {one: index for index, one in enumerate(numbers)}
        codes = np.array([code[one] for one in ids], np.int64)
        order = np.argsort(codes, kind="stable")
        ids, ds = ids[order], ds[order]
        columns = {key: values[order] for key, values in columns.items()}
        heads = np.flatnonzero(np.concatenate(([True], ids[1:] != ids[:-1])))
    names_of_series = [one.item() if isinstance(one, np.generic) else one for one in numbers]
    rows = Rows(names_of_series, np.concatenate((heads, [len(ids)])), ds, unit, columns)
    falls = ds[1:] <= ds[:-1]
    falls[rows.begins[1:-1] - 1] = False
    wrong = np.flatnonzero(falls)
    if wrong.size:
        raise _check.series.out_of_order(
            owner, rows.where(int(wrong[0]) + 1), ds[wrong[0]] == ds[wrong[0] + 1]
        )
    return rows


def _dates(owner: str, name: str, given: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, str]:
    """Dates (rows,) as datetime64[s], or whole numbers, and their unit: "D", "s", "us", "ns", ..., "" for
    numbers; an error names the first row without one."""
    ds = given
    if ds.dtype.kind in "OUST":
        texts = ["" if isinstance(one, Number) else str(one) for one in ds]
        _check.series.without_time_zone(owner, name, None, zoned=any(map(_ZONED.fullmatch, texts)))
        ds = np.array([_date(text) for text in texts])
    if ds.dtype.kind in "iu":
        is_wrong = ds > np.iinfo(np.int64).max
        if not is_wrong.any():
            return ds.astype(np.int64), ""
    elif ds.dtype.kind == "M":
        dates = ds.astype("datetime64[s]")
        is_wrong = dates != ds  # NaT differs from itself
        if not is_wrong.any():
            return dates, np.datetime_data(ds.dtype)[0]
    else:
        missing = np.isnan(ds) if ds.dtype.kind == "f" else np.zeros(len(ds), bool)
        is_wrong = missing if missing.any() else ~missing
    row = int(np.argmax(is_wrong))
    raise _check.series.not_dates(owner, name, given, row, ids.tolist()[row])


def _date(text: str) -> np.datetime64:
    """A date such as 2024-01-31 18:30, or NaT."""
    try:  # NumPy would take the text of any number for a year, and knows "now" and "today"
        return np.datetime64(text if _DATE.fullmatch(text) else "NaT", "us")
    except ValueError:
        return np.datetime64("NaT", "us")


def panel_of_rows(
    owner: str, rows: Rows, grid: Grid | None, target: str, columns: Sequence[Column] = ()
) -> tuple[Panel, Grid]:
    """The panel of a frame, with NaN at dates without a row, and its grid, found if it is None."""
    _check.series.dates_or_numbers(owner, rows.ds, None if grid is None else grid.of_dates)
    grid = found_grid(owner, rows.begins, rows.ds) if grid is None else grid
    positions, phases = grid.positions(owner, rows.ids, rows.begins, rows.ds)
    first, last = positions[rows.begins[:-1]], positions[rows.begins[1:] - 1]
    begins = np.concatenate(([0], np.cumsum(last - first + 1)))
    count, total = len(positions), int(begins[-1])
    if total > _MOST_GAPS * count + 100:
        raise ValueError(
            f"{owner}: with steps of {grid!s}, only {count} of {total} values would be known; "
            "give a longer freq."
        )
    values = _check.series.values_of_frame(owner, target, rows.columns[target], rows.where)
    future = encoded(owner, columns, rows.columns, count, rows.where)
    if total > count:
        places = positions + np.repeat(begins[:-1] - first, np.diff(rows.begins))
        wide = np.full(total, np.nan, values.dtype)
        wide[places] = values
        values = wide
        if future.shape[1]:
            all_future = np.full((total, future.shape[1]), np.nan)
            all_future[places] = future
            gap = int(np.flatnonzero(np.isnan(all_future[:, 0]))[0])
            series = int(np.searchsorted(begins, gap, side="right")) - 1
            date = grid.dates(first[series] + gap - begins[series : series + 1], phases[series])[0]
            raise _check.series.missing_covariate(
                owner, columns[0].name, f"series {rows.ids[series]!r} at {_check.series.date_text(date)}"
            )
        future = np.zeros((total, 0))
    return Panel(rows.ids, values, begins, first, phases, future), grid


# The grid of dates of a series: `freq` as positions that can be counted.


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
