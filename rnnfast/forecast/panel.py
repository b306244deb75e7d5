"""Many series of unequal lengths as flat arrays, and the values before a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

from rnnfast import _check
from rnnfast._check.values import exponents, floats_of_objects, is_missing, oversized

# Series of a piece.
_PIECE = 2048


class Panel(NamedTuple):
    """n series in one flat array.

    Attributes
    ----------
    ids : list
        A name for each series.
    values : ndarray (total,)
        The values, series after series; NaN is a missing one.
    begins : ndarray of int (n+1,)
        Where each series begins in `values`, and the end of the last one.
    starts, phases : ndarray of int (n,)
        Position and phase of the first value, as in `Grid`.
    future : ndarray (total, F)
        Covariates that are known in advance, at the step of each value.
    """

    ids: list[Any]
    values: np.ndarray
    begins: np.ndarray
    starts: np.ndarray
    phases: np.ndarray
    future: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """The steps (n,) of each series."""
        return np.diff(self.begins)

    @property
    def has_gaps(self) -> bool:
        """Whether a value is missing."""
        return bool(np.isnan(self.values).any())

    def ends(self) -> np.ndarray:
        """The position (n,) after the last value of each series."""
        return self.starts + self.lengths

    def after_gaps(self, gaps: np.ndarray) -> Panel:
        """The panel with this number of missing values (n,) before each series."""
        if not gaps.any():
            return self
        places = np.repeat(self.begins[:-1], gaps)
        values, future = np.insert(self.values, places, np.nan), np.insert(self.future, places, 0.0, axis=0)
        begins = self.begins + np.concatenate(([0], np.cumsum(gaps)))
        return self._replace(values=values, future=future, begins=begins, starts=self.starts - gaps)

    def after(self, steps: np.ndarray, count: int) -> np.ndarray:
        """The future covariates (n, count, F) after the first steps (n,) of each series."""
        return self.future[(self.begins[:-1] + steps)[:, np.newaxis] + np.arange(count)]

    def values_after(self, steps: np.ndarray, count: int) -> np.ndarray:
        """The values (n, count) after the first steps (n,) of each series."""
        return self.values[(self.begins[:-1] + steps)[:, np.newaxis] + np.arange(count)]

    def pieces(self) -> Iterator[Panel]:
        """The series a few thousand at a time, in float64: temporary arrays of a piece are small."""
        for first in range(0, len(self.ids), _PIECE):
            begins = self.begins[first : first + _PIECE + 1]
            whole, part = slice(begins[0], begins[-1]), slice(first, first + _PIECE)
            yield Panel(
                self.ids[part],
                self.values[whole].astype(np.float64, copy=False),
                begins - begins[0],
                self.starts[part],
                self.phases[part],
                self.future[whole],
            )

    def rows(self, rows: np.ndarray) -> Panel:
        """Some of the series, copied."""
        kept = np.concatenate([np.arange(self.begins[row], self.begins[row + 1]) for row in rows])
        return Panel(
            [self.ids[row] for row in rows],
            self.values[kept],
            np.concatenate(([0], np.cumsum(self.lengths[rows]))),
            self.starts[rows],
            self.phases[rows],
            self.future[kept],
        )

    def until(self, lengths: np.ndarray) -> Panel:
        """The first steps (n,) of each series, copied."""
        kept = np.concatenate([np.arange(b, b + n) for b, n in zip(self.begins, lengths, strict=False)])
        begins = np.concatenate(([0], np.cumsum(lengths)))
        return self._replace(values=self.values[kept], begins=begins, future=self.future[kept])


def is_one_series(data: Any) -> bool:
    """Whether data is an array (T,) or a list of T numbers."""
    if isinstance(data, list | tuple):  # None, pandas.NA and a masked number are missing values
        return bool(data) and all(
            np.isscalar(one) or one is np.ma.masked or not hasattr(one, "__len__") for one in data
        )
    try:
        return np.ndim(data) == 1
    except ValueError:  # no array
        return False


def panel_of_arrays(owner: str, name: str, data: Any) -> Panel:
    """The panel of an array (T,) or (n, T), or of a list of arrays (T_i,), named by their numbers.

    Values of another dtype than float32 and float64 are converted to float64.
    """
    if hasattr(data, "to_frame"):
        raise _check.series.no_frame_or_array(owner, name, data)
    series: Sequence[Any]
    if isinstance(data, list | tuple) and not is_one_series(data):
        series = [_check.series.series(owner, f"{name}[{index}]", one) for index, one in enumerate(data)]
        lengths = np.array([len(one) for one in series], np.int64)
        values = np.concatenate(series) if series else np.zeros(0)
    else:
        array = _check.series.series(owner, name, data, most_axes=2)
        array = array[np.newaxis] if array.ndim == 1 else array
        values, lengths = array.reshape(-1), np.full(len(array), array.shape[1], np.int64)
    if not lengths.size:
        raise ValueError(f"{owner}: {name} must have at least one series, got none.")
    if not lengths.all():
        raise ValueError(f"{owner}: {name}: series {int(np.argmin(lengths))} has no value.")
    zeros = np.zeros(len(lengths), np.int64)
    begins = np.concatenate(([0], np.cumsum(lengths)))
    return Panel(list(range(len(lengths))), values, begins, zeros, zeros, np.zeros((values.size, 0)))


def filled(values: np.ndarray, begins: np.ndarray, season: int) -> np.ndarray:
    """Values (total,) whose gaps hold the value `season` steps before, or that of an earlier season.

    NaN stays where a series has no such value. Without gaps, the result is `values` itself.
    """
    missing = np.isnan(values)
    if not missing.any():
        return values
    # Sorted by series, then phase, then time, each gap takes the last known value on its left.
    series = np.repeat(np.arange(len(begins) - 1), np.diff(begins))
    phase = (np.arange(values.size) - begins[series]) % season
    order = np.lexsort((phase, series)) if season > 1 else np.arange(values.size)
    group = series[order] * season + phase[order]
    first = np.searchsorted(group, group)  # where the group of each value begins
    known = np.maximum.accumulate(np.where(missing[order], -1, np.arange(values.size)))
    result = np.empty_like(values)
    result[order] = np.where(known >= first, values[order][np.maximum(known, 0)], np.nan)
    return result


# Covariates as numbers: measurements in standard units, categories as one column each.


# The most deviations from the mean that the network reads.
_MOST = 1e28


class Column(NamedTuple):
    """How a covariate is encoded: its categories, or mean and standard deviation where it has none."""

    name: str
    categories: tuple[str, ...]
    mean: float
    deviation: float

    @property
    def width(self) -> int:
        """The number of encoded columns."""
        return max(1, len(self.categories))


# The series, and the date where there is one, of a row, as words for an error.
Where = Callable[[int], str]


def fitted_column(owner: str, name: str, values: np.ndarray, where: Where) -> Column:
    """The encoding of a covariate (rows,), from training data."""
    values = _numbers_or_texts(owner, name, values)
    if values.dtype.kind in "biuf":
        numbers = _finite(owner, name, values, where)
        unit = exponents(np.abs(numbers).max())
        numbers = np.ldexp(numbers, -unit)
        mean, deviation = (float(np.ldexp(one, unit)) for one in (numbers.mean(), numbers.std()))
        return Column(name, (), mean, deviation if deviation > 0 else 1.0)
    return Column(name, tuple(sorted(set(_texts(owner, name, values, where)))), 0.0, 1.0)


def encoded(
    owner: str, columns: Sequence[Column], data: Mapping[str, np.ndarray], rows: int, where: Where
) -> np.ndarray:
    """Covariates as an array (rows, F), from the columns of a frame.

    ValueError names the series and the date of a missing number or of a category that is unknown.
    """
    found = [np.zeros((rows, 0))]
    for column in columns:
        values = _numbers_or_texts(owner, column.name, data[column.name])
        if not column.categories:
            if values.dtype.kind not in "biuf":
                raise _check.series.not_numbers(owner, column.name, values.dtype)
            numbers = _finite(owner, column.name, values, where)
            with np.errstate(over="ignore"):
                scaled = (numbers - column.mean) / column.deviation
            far = np.flatnonzero(np.abs(scaled) > _MOST)
            if far.size:
                place = int(far[0])
                raise _check.series.missing_covariate(owner, column.name, where(place), numbers[place])
            found.append(scaled[:, np.newaxis])
            continue
        number = {category: index for index, category in enumerate(column.categories)}
        texts = _texts(owner, column.name, values, where)
        codes = np.array([number.get(text, -1) for text in texts], np.int64)
        unseen = np.flatnonzero(codes < 0)
        if unseen.size:
            raise ValueError(
                f"{owner}: {column.name} was never {texts[unseen[0]]!r} in the training data, but "
                f"is in {where(int(unseen[0]))}."
            )
        found.append((codes[:, np.newaxis] == np.arange(column.width)).astype(np.float64))
    return np.concatenate(found, axis=1)


def _numbers_or_texts(owner: str, name: str, values: np.ndarray) -> np.ndarray:
    """A covariate as numbers, or as texts; objects that are all numbers, or missing, are numbers."""
    if values.dtype.kind == "O":
        known = [one for one in values if not is_missing(one)]
        if known and all(isinstance(one, Real | Decimal) for one in known):
            return floats_of_objects(values)
        if wrong := [one for one in known if not isinstance(one, str | Real)]:
            raise _check.series.not_numbers(owner, name, type(wrong[0]).__name__, ", or texts as categories")
    elif values.dtype.kind not in "biufUST":
        raise _check.series.not_numbers(owner, name, values.dtype, ", or texts as categories")
    return values


def _finite(owner: str, name: str, values: np.ndarray, where: Where) -> np.ndarray:
    numbers = values.astype(np.float64)
    wrong = np.flatnonzero(np.isnan(numbers) | oversized(numbers))
    if wrong.size:
        raise _check.series.missing_covariate(owner, name, where(int(wrong[0])))
    return numbers


def _texts(owner: str, name: str, values: np.ndarray, where: Where) -> list[str]:
    for index, value in enumerate(values):
        if is_missing(value) or value != value:
            raise _check.series.missing_covariate(owner, name, where(index))
    return [str(value) for value in values]
