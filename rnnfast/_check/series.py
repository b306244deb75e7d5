"""Checks of series, estimators, forecasts and tables."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rnnfast._check.arrays import first_place, shape_text
from rnnfast._check.errors import CorpusError
from rnnfast._check.values import (
    floats_of_objects,
    is_missing,
    nothing_masked,
    oversized,
    size_text,
    unmasked,
)


def series(owner: str, name: str, value: Any, most_axes: int = 1) -> np.ndarray:
    """Values (T,), or (n, T) where `most_axes` is 2, in float32 or float64; NaN is a missing value."""
    try:
        array = np.asarray(unmasked(value))
        if array.dtype.kind == "O":
            array = floats_of_objects(array)
        received = f"{shape_text(array.shape)} {array.dtype}"
    except (TypeError, ValueError):  # objects, or rows of unequal lengths
        array, received = np.zeros(()), type(value).__name__
    if array.dtype.kind not in "biuf" or not 1 <= array.ndim <= most_axes:
        wanted = "(T,)" if most_axes == 1 else "a frame, an array (T,) or (n, T), or a list of arrays (T_i,)"
        raise TypeError(f"{owner}: {name} must be {wanted} of numbers, got {received}.")
    array = array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)
    wrong = np.argwhere(oversized(array))
    if wrong.size:
        got = size_text(array[tuple(wrong[0])])
        raise ValueError(f"{owner}: {name} must be finite or NaN, got {got} at {wrong[0].tolist()}.")
    return array


def observed_series(owner: str, ids: Sequence[Any], values: np.ndarray, begins: np.ndarray) -> None:
    """Each series with at least one value that is not NaN."""
    known = np.add.reduceat(~np.isnan(values), begins[:-1], dtype=np.int64)
    if not known.all():
        raise ValueError(f"{owner}: series {ids[int(np.argmin(known))]!r} has no value that is not NaN.")


def counts(owner: str, ids: Sequence[Any], values: np.ndarray, begins: np.ndarray) -> None:
    """Values that are whole numbers of at least 0, or NaN."""
    wrong = np.flatnonzero((values < 0) | (values % 1 > 0))
    if wrong.size:
        series = int(np.searchsorted(begins, wrong[0], side="right")) - 1
        raise ValueError(
            f"{owner}: the head negative_binomial predicts counts, but series {ids[series]!r} has "
            f"{values[wrong[0]]:g} at its step {int(wrong[0] - begins[series])}."
        )


def values_of_frame(owner: str, name: str, values: np.ndarray, where: Callable[[int], str]) -> np.ndarray:
    """The values (rows,) of a frame in float32 or float64, finite or NaN."""
    if values.dtype.kind == "O":
        try:
            values = floats_of_objects(values)
        except (TypeError, ValueError):
            raise not_numbers(owner, name, values.dtype) from None
    if values.dtype.kind not in "biuf":
        raise not_numbers(owner, name, values.dtype)
    values = values if values.dtype in (np.float32, np.float64) else values.astype(np.float64)
    wrong = np.flatnonzero(oversized(values))
    if wrong.size:
        got = size_text(values[wrong[0]])
        raise ValueError(f"{owner}: {name} must be finite or NaN, got {got} in {where(int(wrong[0]))}.")
    return values


def not_numbers(owner: str, name: str, dtype: Any, also: str = "") -> TypeError:
    """The error for a column that must hold numbers, or `also` something else."""
    return TypeError(f"{owner}: the column {name!r} must hold numbers{also}, got {dtype}.")


# Frames.


def needed(owner: str, package: str, extra: str) -> Any:
    """The module of a package that an extra brings; an error that says how to install it."""
    try:
        return importlib.import_module(package)
    except ImportError:
        raise ImportError(f'{owner}: frames need {package}: pip install "rnnfast[{extra}]".') from None


def not_a_frame(owner: str, name: str, value: Any) -> TypeError:
    """The error for an argument that is no frame."""
    return TypeError(
        f"{owner}: {name} must be a frame of pandas, polars or the like, or a dict of columns, got "
        f"{type(value).__name__}."
    )


def no_frame_or_array(owner: str, name: str, value: Any) -> TypeError:
    """The error for a Series, which has no column of names and dates."""
    kind = type(value).__name__
    return TypeError(
        f"{owner}: {name} must be a frame with the columns of name, date and value, or an array, got {kind}."
    )


def not_an_array(owner: str, name: str) -> TypeError:
    """The error for a frame after arrays."""
    return TypeError(f"{owner}: {name} must be an array or a list, as in fit, got a frame.")


def named_rows(owner: str, name: str, ids: np.ndarray, ds: np.ndarray) -> None:
    """A series' name in each row."""
    try:
        missing = [one for one in set(ids.tolist()) if is_missing(one)]
    except TypeError:
        raise TypeError(
            f"{owner}: the column {name!r} must hold texts or numbers, got {type(ids[0]).__name__}."
        ) from None
    if missing:
        row = next(row for row, one in enumerate(ids.tolist()) if is_missing(one))
        raise ValueError(f"{owner}: the column {name!r} has no name at {date_text(ds[row])}.")


def own_columns(owner: str, names: Sequence[str], futr_exog: Sequence[str], stat_exog: Sequence[str]) -> None:
    """Covariates in columns of their own."""
    for name in (*futr_exog, *stat_exog):
        if name in names:
            raise ValueError(f"{owner}: {name!r} is a column of the series and cannot be a covariate.")
    twice = set(futr_exog) & set(stat_exog)
    if twice:
        raise ValueError(f"{owner}: {min(twice)!r} cannot be in both futr_exog and stat_exog.")


def wanted_columns(owner: str, name: str, wanted: Sequence[str], given: Sequence[str]) -> None:
    """A frame with these columns, and none twice."""
    for column in wanted:
        if column not in given:
            shown = ", ".join(map(str, given[:8]))
            raise ValueError(f"{owner}: {name} needs the column {column!r}, got {shown}.")
    twice = [column for column in given if given.count(column) > 1]
    if twice:
        raise ValueError(f"{owner}: {name} has two columns {twice[0]!r}; rename or drop one.")


def columns(owner: str, name: str, values: dict[str, Any]) -> dict[str, np.ndarray]:
    """The columns of a dict as arrays (rows,) of one length."""
    for column, one in values.items():
        without_time_zone(owner, column, getattr(one, "dtype", None))
    arrays = {column: np.asarray(unmasked(one)) for column, one in values.items()}
    for column, array in arrays.items():
        if array.ndim != 1:
            raise ValueError(
                f"{owner}: {name}: the column {column!r} must be (rows,), got {shape_text(array.shape)}."
            )
    lengths = {column: len(array) for column, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{column} {length}" for column, length in lengths.items())
        raise ValueError(f"{owner}: {name} must have columns of one length, got {told}.")
    return arrays


def names(owner: str, name: str, value: Any) -> tuple[str, ...]:
    """A sequence of different column names."""
    if isinstance(value, str) or not all(isinstance(one, str) for one in value):
        raise TypeError(f"{owner}: {name} must be a list of column names, got {value!r:.60}.")
    if len(set(value)) < len(value):
        raise ValueError(f"{owner}: {name} must name each column once, got {list(value)!r:.60}.")
    return tuple(value)


# Dates.


def date_text(date: Any) -> str:
    """A date for a message, without a time at midnight."""
    return str(date).removesuffix("T00:00:00")


def without_time_zone(owner: str, name: str, dtype: Any, *, zoned: bool = False) -> None:
    """A column whose dtype, of any library, has no time zone; and none whose texts are `zoned`."""
    if zoned or getattr(dtype, "time_zone", None) is not None or getattr(dtype, "tz", None) is not None:
        raise TypeError(
            f"{owner}: the column {name!r} must hold dates without a time zone; convert them to UTC, pandas "
            f'with .dt.tz_convert(None), polars with .dt.convert_time_zone("UTC").dt.replace_time_zone(None).'
        )


def unknown_frequency(owner: str, freq: Any) -> ValueError:
    """The error for a frequency that is unknown, or cannot be found in the dates."""
    if freq is None:
        return ValueError(f"{owner}: no series has two dates from which the step could be found; give freq.")
    return ValueError(
        f'{owner}: freq must be a number of steps, or one of "s", "min", "h", "D", "B", "W", "MS", "ME", '
        f'"QS", "QE", "YS", "YE", also as "15min", got {freq!r}.'
    )


def on_grid(
    owner: str, freq: str, ids: Sequence[Any], begins: np.ndarray, ds: np.ndarray, off: np.ndarray
) -> None:
    """Dates that all lie on the grid of their series."""
    wrong = np.flatnonzero(off)
    if wrong.size:
        name, date = ids[int(np.searchsorted(begins, wrong[0], side="right")) - 1], date_text(ds[wrong[0]])
        raise ValueError(
            f"{owner}: the step {freq} does not fit series {name!r} at {date}; give freq, or mend the date."
        )


def dates_or_numbers(owner: str, ds: np.ndarray, of_dates: bool | None) -> None:
    """Dates for a frequency of dates, numbers for a step that is a number."""
    is_date = ds.dtype.kind == "M"
    if of_dates is not None and is_date != of_dates:
        kind = "dates" if is_date else "numbers"
        raise ValueError(f"{owner}: freq does not fit a column of {kind}.")


def not_dates(owner: str, name: str, values: np.ndarray, row: int, series: Any) -> TypeError:
    """The error for a column with a row that holds no date."""
    one = values[row]
    got = f"{str(one)!r:.40}" if isinstance(one, str) else f"{one!s:.40} ({type(one).__name__})"
    return TypeError(
        f"{owner}: the column {name!r} must hold dates, in whole seconds, or whole numbers, got {got} in row "
        f"{row}, of series {series!r}."
    )


def out_of_order(owner: str, where: str, repeated: bool) -> ValueError:
    """The error for dates that do not rise."""
    what = "occurs twice" if repeated else "comes after a later date; sort the rows by date"
    return ValueError(f"{owner}: dates must rise within each series, but {where} {what}.")


# Covariates.


def missing_covariate(owner: str, name: str, where: str, far: float | None = None) -> ValueError:
    """The error for a covariate without a value, or with one that is `far` from the training data."""
    if far is not None:
        return ValueError(
            f"{owner}: the covariate {name!r} is {far:g} in {where}, too far from the training data."
        )
    return ValueError(f"{owner}: the covariate {name!r} must be known and finite, but is not in {where}.")


def future_missing(owner: str, name: Any, date: Any) -> ValueError:
    """The error for a date without future covariates."""
    return ValueError(f"{owner}: the future covariates of series {name!r} are missing at {date_text(date)}.")


# Forecasts.


def forecaster(settings: Any, owner: str) -> None:
    """Options of a forecaster that fit together."""
    target, train_horizon = settings.target, settings.train_horizon
    if target == "seasonal_difference" and settings.season_length == 1:
        raise ValueError(f'{owner}: target="seasonal_difference" needs a season_length above 1.')
    if settings.head.name == "negative_binomial" and target != "level":
        raise ValueError(f'{owner}: the head negative_binomial predicts counts, so target must be "level".')
    if settings.futr_exog and train_horizon > 1:
        raise ValueError(f"{owner}: futr_exog needs train_horizon=1, got {train_horizon}.")


def percentages(owner: str, name: str, values: Any, limit: float) -> tuple[float, ...]:
    """Different numbers between 0 and `limit`."""
    array = np.atleast_1d(np.asarray(nothing_masked(owner, name, values), np.float64))
    if array.ndim != 1 or not array.size or not ((array > 0) & (array < limit)).all():
        raise ValueError(f"{owner}: {name} must be numbers between 0 and {limit:g}, got {values!r:.60}.")
    return tuple(dict.fromkeys(array.tolist()))


def calibration(owner: str, value: Any, kind: type) -> None:
    """`PredictionIntervals`, or None."""
    if value is not None and not isinstance(value, kind):
        raise TypeError(
            f"{owner}: prediction_intervals must be PredictionIntervals(h, ...), got {value!r:.60}."
        )


def origins(owner: str, ids: Sequence[Any], lengths: np.ndarray, needed_steps: int) -> None:
    """Series that are long enough for all origins."""
    if (lengths <= needed_steps).any():
        short = int(np.argmin(lengths))
        raise ValueError(
            f"{owner}: these origins need more than {needed_steps} values, but series {ids[short]!r} has "
            f"{lengths[short]}."
        )


def calibrates(owner: str, found: int, needed_steps: int) -> None:
    """A series that is long enough to measure intervals on."""
    if not found:
        raise ValueError(
            f"{owner}: prediction_intervals need a series of more than {needed_steps} values, with known "
            "ones in the last steps."
        )


def no_distribution(owner: str, head: str) -> ValueError:
    """The error for intervals or paths of a head that has no distribution."""
    return ValueError(
        f'{owner}: the head {head} has no distribution; take head="gaussian", "student_t" or '
        "rnnfast.heads.quantiles(...)."
    )


def steps_of_forecasts(owner: str, actual: np.ndarray, forecast: np.ndarray, axes: int) -> None:
    """Actual values (..., h) of at least one step, and forecasts of this shape behind `axes` more axes."""
    if not actual.ndim or not actual.shape[-1]:
        raise ValueError(f"{owner}: actual must have at least one step, got {shape_text(actual.shape)}.")
    if forecast.ndim != actual.ndim + axes or forecast.shape[axes:] != actual.shape:
        wanted = shape_text((*(["k"] * axes), *actual.shape))
        raise ValueError(f"{owner}: forecasts must be {wanted}, got {shape_text(forecast.shape)}.")
    if not forecast.size:
        raise ValueError(f"{owner}: at least one forecast is needed, got none.")


def probabilities(owner: str, name: str, value: Any, expected: tuple[int, ...]) -> np.ndarray:
    """Numbers between 0 and 1, both excluded, which broadcast with the shape `expected`."""
    array = np.asarray(nothing_masked(owner, name, value), np.float64)
    wrong = array[~((array > 0) & (array < 1))]
    if wrong.size:
        raise ValueError(f"{owner}: {name} must lie between 0 and 1, both excluded, got {wrong[0]}.")
    try:
        np.broadcast_shapes(array.shape, expected)
    except ValueError:
        wanted, found = shape_text(expected), shape_text(array.shape)
        raise ValueError(f"{owner}: {name} must broadcast with {wanted}, got {found}.") from None
    return array


def levels(owner: str, value: Any, count: int) -> np.ndarray:
    """`count` levels of quantiles between 0 and 1."""
    array = np.asarray(nothing_masked(owner, "levels", value), np.float64)
    if array.shape != (count,) or not ((array > 0) & (array < 1)).all():
        raise ValueError(f"{owner}: levels must be {count} numbers between 0 and 1, got {value!r:.60}.")
    return array


def sequence(owner: str, index: int | None, value: Any) -> np.ndarray:
    """A sequence (T,) or (T, D) of a list, or without an index an array, in float32 or float64."""
    name = "X" if index is None else f"X[{index}]"
    try:
        array = np.asarray(unmasked(value))
    except ValueError:  # rows of unequal lengths
        array = np.zeros((0, 0, 0))
    if index is not None and array.ndim not in (1, 2):
        raise ValueError(f"{owner}: {name} must be numbers (T, D) or (T,), got {type(value).__name__}.")
    if array.dtype == np.float32:
        return array
    if array.dtype.kind not in "cmMV":
        try:
            return (
                floats_of_objects(array) if array.dtype.kind == "O" else array.astype(np.float64, copy=False)
            )
        except (TypeError, ValueError):
            pass
    raise not_a_number(owner, name, array) or ValueError(f"{owner}: {name} must hold numbers.")


def not_a_number(owner: str, name: str, values: Any) -> ValueError | None:
    """The error for the first text, date or the like among numbers, of an array or a frame; or None."""
    kind = getattr(values, "dtype", None)
    if getattr(kind, "kind", None) in ("m", "M"):
        return ValueError(f"{owner}: {name} must hold numbers, got {kind}; encode dates as numbers.")
    array = np.asarray(values, object)
    for place in np.ndindex(array.shape):
        try:
            float(np.nan if array[place] is None else array[place])
        except (TypeError, ValueError):
            one, at = array[place], [str(axis) for axis in place]
            if hasattr(one, "__len__") and not isinstance(one, str):  # an array in an array
                return None
            if len(place) == 2 and hasattr(values, "columns"):
                at[1] = repr(values.columns[place[1]])
            axes = ("row", "column") if len(at) < 3 else ("sequence", "step", "channel")
            if name.endswith("]"):  # one sequence of a list
                axes = ("step", "channel")
            where = ", ".join(map(" ".join, zip(axes, at, strict=False)))
            way = "" if name == "y" else ", and a missing value as NaN"
            return ValueError(
                f"{owner}: {name} must hold numbers, got {one!r:.40} at {where}; encode texts and dates as "
                f"numbers{way}."
            )
    return None


def sequence_shape(owner: str, index: int, shape: tuple[int, ...], channels: int) -> None:
    """A sequence of at least one step with as many channels as the first."""
    if len(shape) != 2 or shape[1] != channels or not channels:
        wanted = channels or "D"
        raise ValueError(f"{owner}: X[{index}] must be (T, {wanted}) like X[0], got {shape_text(shape)}.")
    if not shape[0]:
        raise ValueError(f"{owner}: X[{index}] has no steps; leave empty sequences out.")


def infinite_value(owner: str, got: str, row: int, step: int) -> ValueError:
    """The error for an input that is infinite or too large."""
    return ValueError(
        f"{owner}: X holds {got} in sequence {row} at step {step}; NaN stands for values not observed."
    )


def sample_weights(owner: str, weights: np.ndarray, count: int) -> np.ndarray:
    """Weights (N,) of the sequences, at least 0, and one above 0."""
    if weights.shape != (count,):
        raise ValueError(f"{owner}: sample_weight must be ({count},), got {shape_text(weights.shape)}.")
    wrong = ~(np.isfinite(weights) & (weights >= 0))
    if wrong.any():
        place = first_place(wrong)
        raise ValueError(
            f"{owner}: sample_weight must be finite and at least 0, got {weights[place]} at {place[0]}."
        )
    return weights


def some_weight(owner: str, weights: np.ndarray) -> None:
    """A weight above 0."""
    if not weights.any():
        raise ValueError(f"{owner}: all sample weights are zero; at least one must be above zero.")


def known_classes(owner: str, is_known: np.ndarray, labels: np.ndarray, classes: np.ndarray) -> None:
    """Labels that are among the classes."""
    if not is_known.all():
        label = labels[~is_known][0].item() if labels.dtype != object else labels[~is_known][0]
        raise ValueError(f"{owner}: y holds {label!r}, a class that is not in classes {list(classes)!r:.80}.")


def steps_of_labels(owner: str, lengths: np.ndarray, found: np.ndarray | None) -> np.ndarray:
    """The steps (N,) of labels of each sequence; None if they are no sequences."""
    if found is None or found.shape != lengths.shape:
        got = "single labels" if found is None else f"{len(found)} sequences"
        raise ValueError(f"{owner}: y must be {len(lengths)} sequences of labels (T_i,), got {got}.")
    return found


def bad_line(owner: str, path: Any, line: int, problem: str) -> CorpusError:
    """The error for a line of a file that cannot be used."""
    return CorpusError(f"{owner}: {path}, line {line}: {problem}.")


def bad_file(owner: str, path: Any, problem: str) -> CorpusError:
    """The error for a file that cannot be used as a whole."""
    return CorpusError(f"{owner}: {path}: {problem}.")


def file_column(owner: str, path: Any, column: str, option: str, columns: Sequence[str]) -> CorpusError:
    """The error for a file without a column; an option names another one."""
    shown = ", ".join(columns[:8])
    return CorpusError(f"{owner}: {path} has no column {column}, but {shown}; name it with {option}.")
