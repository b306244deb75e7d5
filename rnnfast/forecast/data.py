"""The two kinds of data, arrays and long frames: reading series from them, and writing forecasts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from rnnfast import _check
from rnnfast._check.values import unmasked
from rnnfast.forecast.fitted import Forecasts, Group
from rnnfast.forecast.frames import (
    Grid,
    Names,
    Rows,
    columns_of,
    grid_of,
    is_frame,
    library_of,
    made_frame,
    panel_of_rows,
    rows_of_frame,
)
from rnnfast.forecast.panel import Column, Panel, encoded, fitted_column, is_one_series, panel_of_arrays
from rnnfast.heads import Head


class Levels(NamedTuple):
    """Levels of quantiles, and the intervals in per cent among them."""

    quantiles: tuple[float, ...] = ()
    intervals: tuple[float, ...] = ()

    @property
    def sorted(self) -> list[float]:
        """All levels between 0 and 1, rising."""
        ends = [end for interval in self.intervals for end in _ends(interval)]
        return sorted({*self.quantiles, *ends})


def _ends(interval: float) -> tuple[float, float]:
    """The levels at both ends of an interval in per cent."""
    low = round((100 - interval) / 200, 12)
    return low, 1 - low


def levels_of(owner: str, head: Head, level: Any, quantiles: Any) -> Levels:
    """The levels of a forecast, also from intervals in per cent; an error if the head has no distribution."""
    if level is None and quantiles is None:
        return Levels()
    if not head.has_distribution:
        raise _check.series.no_distribution(owner, head.name)
    return Levels(
        () if quantiles is None else _check.series.percentages(owner, "quantiles", quantiles, 1),
        () if level is None else _check.series.percentages(owner, "level", level, 100),
    )


class Arrays(NamedTuple):
    """Arrays: series have numbers for names, and forecasts are arrays. `single` is one series (T,)."""

    single: bool

    def panel(self, owner: str, data: Any, grid: Grid, futures: Sequence[Column]) -> Panel:
        """The panel of new series."""
        if is_frame(data):
            raise _check.series.not_an_array(owner, "df")
        return panel_of_arrays(owner, "df", data)

    def static(self, owner: str, static_df: Any, ids: Sequence[Any], columns: Sequence[Column]) -> np.ndarray:
        """No static covariates (n, 0)."""
        _check.values.absent(owner, "static_df", static_df, "frames")
        return np.zeros((len(ids), 0))

    def has_static(self, owner: str, static_df: Any, ids: Sequence[Any]) -> np.ndarray:
        """Whether each series has static covariates (n,): none has."""
        return np.zeros(len(ids), bool)

    def future(
        self, owner: str, futr_df: Any, group: Group, futures: Sequence[Column], grid: Grid, steps: int
    ) -> np.ndarray:
        """No future covariates (n, h, 0)."""
        _check.values.absent(owner, "futr_df", futr_df, "frames")
        return np.zeros((len(group.ids), steps, 0))

    def following(
        self, owner: str, data: Any, group: Group, futures: Sequence[Column], grid: Grid
    ) -> tuple[np.ndarray, Panel]:
        """Which series of a group have new values, and their panel."""
        if is_frame(data):
            raise _check.series.not_an_array(owner, "new_rows")
        if len(group.ids) > 1 and is_one_series(data):  # one new value for each series
            data = np.reshape(np.asarray(unmasked(data)), (-1, 1))
        panel = panel_of_arrays(owner, "new_rows", data)
        _check.objects.equal(owner, "series of fit and of new_rows", len(group.ids), len(panel.ids))
        return np.arange(len(panel.ids)), panel

    def forecasts(self, name: str, group: Group, grid: Grid, found: Forecasts, levels: Levels) -> np.ndarray:
        """Forecasts (n, h), or quantiles (n, h, Q)."""
        values = found.points if found.quantiles is None else found.quantiles
        return values[0] if self.single else values

    def history(
        self, name: str, panel: Panel, grid: Grid, cutoffs: np.ndarray, found: Forecasts, levels: Levels
    ) -> np.ndarray:
        """Forecasts (n, W, h), or quantiles (n, W, h, Q), of W origins."""
        values = found.points if found.quantiles is None else found.quantiles
        by_window = values.reshape(len(cutoffs), len(panel.ids), *values.shape[1:]).swapaxes(0, 1)
        return by_window[0] if self.single else by_window


class Frames(NamedTuple):
    """Long frames with these columns, of the library `backend`, as in `library_of`; `unit` is that of the
    dates."""

    names: Names
    backend: str
    unit: str

    def panel(self, owner: str, data: Any, grid: Grid, futures: Sequence[Column]) -> Panel:
        """The panel of new series."""
        rows = self._rows(owner, "df", data, [column.name for column in futures])
        return panel_of_rows(owner, rows, grid, self.names.target, futures)[0]

    def _dates(self, dates: np.ndarray) -> np.ndarray:
        """Dates (...) as the user's frame holds them, in one row."""
        flat = dates.reshape(-1)
        finer = flat.dtype.kind == "M" and np.datetime_data(flat.dtype)[0] != "D"
        unit = "s" if finer and self.unit == "D" else self.unit
        return flat.astype(f"datetime64[{unit}]") if flat.dtype.kind == "M" else flat

    def _rows(self, owner: str, name: str, data: Any, others: Sequence[str]) -> Rows:
        if not is_frame(data):
            raise _check.series.not_a_frame(owner, name, data)
        return rows_of_frame(owner, name, data, self.names, [self.names.target, *others])

    def static(self, owner: str, static_df: Any, ids: Sequence[Any], columns: Sequence[Column]) -> np.ndarray:
        """Static covariates (n, S) of the series."""
        if not columns:
            return np.zeros((len(ids), 0))
        return static_covariates(owner, static_df, ids, columns, self.names)

    def has_static(self, owner: str, static_df: Any, ids: Sequence[Any]) -> np.ndarray:
        """Whether each series has a row (n,) in a static frame."""
        if static_df is None:
            return np.zeros(len(ids), bool)
        given = set(columns_of(owner, "static_df", static_df, [self.names.id])[self.names.id].tolist())
        return np.array([name in given for name in ids], bool)

    def future(
        self, owner: str, futr_df: Any, group: Group, futures: Sequence[Column], grid: Grid, steps: int
    ) -> np.ndarray:
        """Future covariates (n, h, F) of the steps after each series."""
        if not futures:
            _check.values.absent(owner, "futr_df", futr_df, "a forecaster with futr_exog")
            return np.zeros((len(group.ids), steps, 0))
        if futr_df is None:
            raise ValueError(
                f"{owner}: futr_df is needed, with the future values of "
                f"{', '.join([column.name for column in futures])}."
            )
        rows = rows_of_frame(owner, "futr_df", futr_df, self.names, [column.name for column in futures])
        values = encoded(owner, futures, rows.columns, len(rows.ds), rows.where)
        positions = grid.positions(owner, rows.ids, rows.begins, rows.ds).positions
        numbers = {one: index for index, one in enumerate(rows.ids)}
        result = np.empty((len(group.ids), steps, values.shape[1]))
        after = group.reading.past.positions[:, np.newaxis] + np.arange(1, steps + 1)
        for row, name in enumerate(group.ids):
            number = numbers.get(name)
            begin, end = (0, 0) if number is None else map(int, rows.begins[number : number + 2])
            places = begin + np.searchsorted(positions[begin:end], after[row])
            found = places < end
            found[found] = positions[places[found]] == after[row][found]
            if not found.all():
                date = grid.dates(after[row][~found][:1], group.phases[row])[0]
                raise _check.series.future_missing(owner, name, date)
            result[row] = values[places]
        return result

    def following(
        self, owner: str, data: Any, group: Group, futures: Sequence[Column], grid: Grid
    ) -> tuple[np.ndarray, Panel]:
        """Which series of a group have new values, and their panel, which begins right after the group's."""
        panel = self.panel(owner, data, grid, futures)
        numbers = {one: index for index, one in enumerate(group.ids)}
        for name in panel.ids:
            if name not in numbers:
                raise ValueError(
                    f"{owner}: series {name!r} was not in fit; predict(h, df) forecasts other series."
                )
        rows = np.array([numbers[name] for name in panel.ids], np.int64)
        gaps = panel.starts - (group.reading.past.positions[rows] + 1)
        same = grid.same_phase(panel.phases, group.phases[rows], panel.ends() - 1)
        for index in np.flatnonzero((gaps < 0) | ~same).tolist():
            date = grid.dates(panel.starts[index : index + 1], panel.phases[index])[0]
            raise ValueError(
                f"{owner}: series {panel.ids[index]!r}: {_check.series.date_text(date)} must be whole "
                "steps after the last date read."
            )
        if gaps.any() and panel.future.shape[1]:
            index = int(np.flatnonzero(gaps)[0])
            date = grid.dates(panel.starts[index : index + 1] - 1, panel.phases[index])[0]
            raise _check.series.future_missing(owner, panel.ids[index], date)
        return rows, panel.after_gaps(gaps)

    def forecasts(self, name: str, group: Group, grid: Grid, found: Forecasts, levels: Levels) -> Any:
        """A frame with a row for each series and step."""
        steps = found.points.shape[1]
        after = group.reading.past.positions[:, np.newaxis] + np.arange(1, steps + 1)
        columns = {
            self.names.id: _repeated(group.ids, steps),
            self.names.time: self._dates(grid.dates(after, group.phases[:, np.newaxis])),
            **_columns(name, found, levels),
        }
        return made_frame(self.backend, columns)

    def history(
        self, name: str, panel: Panel, grid: Grid, cutoffs: np.ndarray, found: Forecasts, levels: Levels
    ) -> Any:
        """A frame with a row for each series, origin and step, and the values there."""
        steps, windows, count = found.points.shape[1], len(cutoffs), len(panel.ids)
        order = np.arange(windows * count).reshape(windows, count).T.reshape(-1)  # series, then origins
        found = Forecasts(found.points[order], None if found.quantiles is None else found.quantiles[order])
        cutoff = (panel.starts + cutoffs - 1).T  # (n, W)
        after = cutoff[..., np.newaxis] + np.arange(1, steps + 1)
        places = (panel.begins[:-1] + cutoffs).T[..., np.newaxis] + np.arange(steps)
        phases = panel.phases[:, np.newaxis, np.newaxis]
        columns = {
            self.names.id: _repeated(panel.ids, windows * steps),
            self.names.time: self._dates(grid.dates(after, phases)),
            "cutoff": self._dates(np.repeat(grid.dates(cutoff, phases[..., 0]).reshape(-1), steps)),
            self.names.target: panel.values[places].reshape(-1),
            **_columns(name, found, levels),
        }
        return made_frame(self.backend, columns)


def _repeated(ids: Sequence[Any], count: int) -> list[Any]:
    return [name for name in ids for _ in range(count)]


def _columns(name: str, found: Forecasts, levels: Levels) -> dict[str, np.ndarray]:
    """The columns of forecasts, intervals and quantiles."""
    columns = {name: found.points.reshape(-1)}
    if found.quantiles is not None:
        place = {level: index for index, level in enumerate(levels.sorted)}
        for interval in levels.intervals:
            for side, level in zip(("lo", "hi"), _ends(interval), strict=True):
                columns[f"{name}-{side}-{interval:g}"] = found.quantiles[..., place[level]].reshape(-1)
        for level in levels.quantiles:
            columns[f"{name}_ql{level:g}"] = found.quantiles[..., place[level]].reshape(-1)
    return columns


class Loaded(NamedTuple):
    """Series with what is known of them: panel, grid, static covariates (n, S), and the encodings."""

    kind: Arrays | Frames
    panel: Panel
    grid: Grid
    futures: list[Column]
    statics: list[Column]
    static: np.ndarray


def loaded(settings: Any, owner: str, data: Any, static_df: Any, names: Names) -> Loaded:
    """The data of a forecaster with these settings; the encodings of covariates are made from them."""
    freq, futr_exog, stat_exog = settings.freq, settings.futr_exog, settings.stat_exog
    if not is_frame(data):
        for name, columns in (("futr_exog", futr_exog), ("stat_exog", stat_exog)):
            _check.values.absent(owner, name, columns or None, "frames")
        kind = Arrays(single=is_one_series(data))
        grid = grid_of(owner, 1)
        panel = kind.panel(owner, data, grid, [])
        return Loaded(kind, panel, grid, [], [], kind.static(owner, static_df, panel.ids, []))
    _check.series.own_columns(owner, names, futr_exog, stat_exog)
    rows = rows_of_frame(owner, "df", data, names, [names.target, *futr_exog])
    futures = [fitted_column(owner, name, rows.columns[name], rows.where) for name in futr_exog]
    given = None if freq is None else grid_of(owner, freq)
    panel, grid = panel_of_rows(owner, rows, given, names.target, futures)
    frames = Frames(names, library_of(data), rows.unit)
    statics = []
    if stat_exog:
        found = _static_columns(owner, static_df, panel.ids, stat_exog, names)
        statics = [fitted_column(owner, name, found[name], _series(panel.ids)) for name in stat_exog]
    return Loaded(frames, panel, grid, futures, statics, frames.static(owner, static_df, panel.ids, statics))


def _series(ids: Sequence[Any]) -> Any:
    return lambda row: f"series {ids[row]!r}"


def _static_columns(
    owner: str, static_df: Any, ids: Sequence[Any], wanted: Sequence[str], names: Names
) -> dict[str, np.ndarray]:
    """Columns of a static frame in the order of the series."""
    if static_df is None:
        raise ValueError(f"{owner}: static_df is needed, with the columns {', '.join(wanted)}.")
    columns = columns_of(owner, "static_df", static_df, [names.id, *wanted])
    given = columns.pop(names.id).tolist()
    numbers = {name: row for row, name in enumerate(given)}
    if len(numbers) < len(given):
        raise ValueError(
            f"{owner}: static_df has two rows of series "
            f"{next(name for name in numbers if given.count(name) > 1)!r}."
        )
    for name in ids:
        if name not in numbers:
            raise ValueError(f"{owner}: static_df has no row of series {name!r}.")
    places = np.array([numbers[name] for name in ids], np.int64)
    return {name: values[places] for name, values in columns.items()}


def static_covariates(
    owner: str, static_df: Any, ids: Sequence[Any], columns: Sequence[Column], names: Names
) -> np.ndarray:
    """Static covariates (n, S) of series."""
    found = _static_columns(owner, static_df, ids, [column.name for column in columns], names)
    return encoded(owner, columns, found, len(ids), _series(ids))
