"""Files of series: CSV and Parquet in, CSV out."""

from __future__ import annotations

import csv
import importlib
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rnnfast import _check
from rnnfast.cli import options
from rnnfast.data import mauna_loa_co2
from rnnfast.files.atomic import write_atomically
from rnnfast.forecast.frames import Names

_OWNER = "read_series"
_PARQUET = (".parquet", ".pq")
_NUMBER = re.compile(r"-?\d{1,18}")
_DATE = re.compile(r"\d{4}-\d\d(-\d\d([T ]\d\d(:\d\d(:\d\d(\.0*)?)?)?Z?)?)?")
_MISSING = {"", "na", "nan", "null", "none"}


class SeriesFile(NamedTuple):
    """A long frame as a dict of columns (rows,), which of them are the series, and a title."""

    title: str
    columns: dict[str, np.ndarray]
    names: Names


def built_in() -> SeriesFile:
    """The concentration of CO2 at Mauna Loa."""
    days, values = mauna_loa_co2()
    columns = {"unique_id": np.full(len(days), "CO2"), "ds": days, "y": values}
    return SeriesFile("CO2 at Mauna Loa", columns, Names())


def read_series(path: str, given: Mapping[str, str | None]) -> SeriesFile:
    """The series of a file; `-` is CSV on standard input.

    A file with two columns is one series of dates and values; its CSV needs no header. Others have the
    columns `unique_id`, `ds` and `y`, or those in `given`, by the names of `Names`.

    Raises
    ------
    CorpusError
        The file cannot be used; the message has its name, and the line of a CSV file.
    OSError
        The file cannot be read.
    """
    title = options.TITLE if path == options.STANDARD_INPUT else path
    whole = Path(path).suffix.lower() in _PARQUET
    columns, names = _parquet(path, given) if whole else _csv(title, options.content(path), given)
    if names.id not in columns:
        stem = "y" if path == options.STANDARD_INPUT else Path(path).stem
        columns[names.id] = np.full(len(columns[names.time]), stem)
    return SeriesFile(title, columns, names)


def _names(title: str, header: Sequence[str], given: Mapping[str, str | None]) -> Names:
    """The columns of series, dates and values; the first need not exist where there are two columns."""
    for part, column in given.items():
        if column is not None and column not in header:
            raise _check.series.file_column(_OWNER, title, column, f"--{part}-col", header)
    default = Names()
    names = Names(*(given[part] or column for part, column in default._asdict().items()))
    if len(header) == 2 and names.id not in header:
        first, second = header
        if second == names.time or first == names.target:
            return names._replace(time=second, target=first)
        return names._replace(time=first, target=second)
    for part, column in names._asdict().items():
        if column not in header:
            raise _check.series.file_column(_OWNER, title, column, f"--{part}-col", header)
    return names


def _csv(title: str, content: bytes, given: Mapping[str, str | None]) -> tuple[dict[str, np.ndarray], Names]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        problem = f"byte 0x{content[error.start]:02X} is not UTF-8 text; convert the file"
        raise _check.series.bad_line(_OWNER, title, line, problem) from None
    head = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=head.count))
    fields: list[list[str]] = []
    lines: list[int] = []
    try:
        for row in reader:
            if not row:
                continue
            if fields and len(row) != len(fields[0]):
                problem = f"has {len(row)} fields, but the header has {len(fields[0])}"
                raise _check.series.bad_line(_OWNER, title, reader.line_num, problem)
            fields.append(row)
            lines.append(reader.line_num)
    except csv.Error as error:
        raise _check.series.bad_line(_OWNER, title, reader.line_num, str(error).rstrip(".")) from None
    first = [text.strip() for text in fields[0]] if fields else []
    header = _header(title, first, given)
    skipped = 1 if header is first else 0
    if len(fields) <= skipped:
        raise _check.series.bad_file(_OWNER, title, "needs a header and at least one row")
    for name in header:
        if header.count(name) > 1 and name in _wanted(given):
            raise _check.series.bad_line(_OWNER, title, 1, f"has the column {name} twice; rename one")
    names = _names(title, header, given)
    place = {name: index for index, name in enumerate(header)}
    rows = list(zip(lines[skipped:], fields[skipped:], strict=True))

    def texts(column: str) -> list[tuple[int, str]]:
        return [(line, row[place[column]].strip()) for line, row in rows]

    columns = {
        names.time: _dates(title, names.time, texts(names.time)),
        names.target: _values(title, names.target, texts(names.target)),
    }
    if names.id in place:
        columns[names.id] = np.array([text for _, text in texts(names.id)])
    return columns, names


def _wanted(given: Mapping[str, str | None]) -> list[str]:
    """The columns of series, dates and values, as given or by default."""
    return [given[part] or column for part, column in Names()._asdict().items()]


def _header(title: str, first: Sequence[str], given: Mapping[str, str | None]) -> Sequence[str]:
    """The names of the columns from the first row of a file: itself, or those of two columns of data.

    Data are a date, or a whole number, and a value. Other rows with one of these are refused.
    """
    wanted = _wanted(given)
    if any(name in first for name in wanted):
        return first
    days = [bool(_DATE.fullmatch(text)) and "-" in text for text in first]
    numbers = [_is_number(text) for text in first]
    if len(first) == 2:
        for time, value in ((0, 1), (1, 0)):
            is_whole = bool(_NUMBER.fullmatch(first[time])) and numbers[value]
            if is_whole or (days[time] and (numbers[value] or first[value].lower() in _MISSING)):
                return wanted[:0:-1] if time else wanted[1:]
    if any(days) or (any(numbers) and len(first) != 2):
        problem = f"is data, not a header; put a line such as {','.join(wanted)} before it"
        raise _check.series.bad_line(_OWNER, title, 1, problem)
    return first


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def _dates(title: str, name: str, texts: Sequence[tuple[int, str]]) -> np.ndarray:
    """Dates as datetime64[D] or [s]; whole numbers as int64."""
    if all(_NUMBER.fullmatch(text) for _, text in texts):
        return np.array([int(text) for _, text in texts])
    dates = []
    for line, text in texts:
        try:
            if not _DATE.fullmatch(text):
                raise ValueError
            dates.append(np.datetime64(text.rstrip("Z")[:19], "s"))
        except ValueError:
            problem = f"{name} must be a date such as 2024-01-31 or 2024-01-31 18:30, got {text!r:.40}"
            raise _check.series.bad_line(_OWNER, title, line, problem) from None
    unit = "D" if all(len(text) <= 10 for _, text in texts) else "s"
    return np.array(dates, f"datetime64[{unit}]")


def _values(title: str, name: str, texts: Sequence[tuple[int, str]]) -> np.ndarray:
    """Values as float64, NaN where they are missing."""
    values = np.empty(len(texts))
    for row, (line, text) in enumerate(texts):
        try:
            values[row] = np.nan if text.lower() in _MISSING else float(text)
        except ValueError:
            values[row] = np.inf
        if np.isinf(values[row]):
            problem = f"{name} must be a finite number, or empty where it is missing, got {text!r:.40}"
            raise _check.series.bad_line(_OWNER, title, line, problem)
    return values


def _parquet(path: str, given: Mapping[str, str | None]) -> tuple[dict[str, np.ndarray], Names]:
    with open(path, "rb"):  # an error of the system if it cannot be read
        pass
    for library in ("polars", "pandas"):
        try:
            frame = importlib.import_module(library).read_parquet(path)
            break
        except ImportError:  # also where pandas lacks its reader of Parquet
            continue
        except Exception as error:
            problem = f"cannot be read as Parquet ({' '.join(str(error).split())[:100].rstrip('. ')})"
            raise _check.series.bad_file(_OWNER, path, problem) from None
    else:
        raise _check.series.bad_file(_OWNER, path, "Parquet needs polars: pip install polars")
    names = _names(path, list(frame.columns), given)
    wanted = [name for name in names if name in frame.columns]
    for name in wanted:
        _check.series.without_time_zone(_OWNER, name, frame[name].dtype)
    return {name: frame[name].to_numpy() for name in wanted}, names


def write_csv(path: Path, columns: Mapping[str, Any]) -> None:
    """Write columns (rows,) to a CSV file, numbers with all their digits."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*(as_texts(values) for values in columns.values()), strict=True))
    with write_atomically(path) as file:
        file.write(text.getvalue().encode())


def as_texts(values: Any) -> list[str]:
    """Values (rows,) as texts: dates without a time at midnight, NaN as nothing."""
    values = np.asarray(values)
    if values.dtype.kind == "M":
        whole_days = bool((values == values.astype("datetime64[D]")).all())
        return values.astype("datetime64[D]" if whole_days else "datetime64[s]").astype(str).tolist()
    return ["" if value != value else str(value) for value in values.tolist()]
