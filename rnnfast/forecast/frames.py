"""Long frames: one row for each series and date.

A frame is a dict of columns, or one of pandas, polars and others, which narwhals reads and writes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from numbers import Number
from typing import Any, NamedTuple

import numpy as np

from rnnfast import _check
from rnnfast.forecast.covariates import Column, encoded
from rnnfast.forecast.grid import Grid, found_grid
from rnnfast.forecast.panel import Panel

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
