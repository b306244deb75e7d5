"""Covariates as numbers: measurements in standard units, categories as one column each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from numbers import Real
from typing import NamedTuple

import numpy as np

from rnnfast import _check
from rnnfast._check.values import exponents, floats_of_objects, is_missing, oversized

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
