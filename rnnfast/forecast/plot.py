"""Series and their forecasts as a picture."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast._check.values import unmasked
from rnnfast.forecast.frames import Names, column_names, is_frame, panel_of_rows, rows_of_frame

__all__ = ["plot"]

_INTERVAL = re.compile(r"(.*)-lo-(.*)")


def plot(
    df: Any,
    forecasts: Any,
    *,
    ids: Sequence[Any] | None = None,
    last: int | None = None,
    ax: Any = None,
    id_col: str = "unique_id",
    time_col: str = "ds",
    target_col: str = "y",
) -> Any:
    """Draw series, the forecasts after them, and their intervals; matplotlib must be installed.

    Parameters
    ----------
    df : frame or array (T,)
        Series before their forecasts.
    forecasts : frame or array (h,) or (h, Q)
        From `RNNForecaster.predict`; of (h, Q), the outermost quantiles are the ends of an interval.
    ids : sequence, optional
        Names of the series to draw; the first four by default.
    last : int, optional
        The last steps of each series that are drawn; all by default.
    ax : matplotlib axes, or a sequence with one for each series, optional
        Where to draw; a new figure by default.
    id_col, time_col, target_col : str
        The columns of a frame.

    Returns
    -------
    list of matplotlib axes
        One for each series.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> [axes] = plot([1.0, 2.0, 4.0], [5.0, 6.0])
    >>> [line.get_label() for line in axes.lines]
    ['values', 'forecast']
    """
    series = _series_of_frames if is_frame(df) else _series_of_arrays
    drawn = series(df, forecasts, ids, Names(id_col, time_col, target_col))
    if ax is None:
        from matplotlib import pyplot

        figure = pyplot.figure(figsize=(7, 1 + 2.4 * len(drawn)), layout="constrained")
        ax = [figure.add_subplot(len(drawn), 1, number + 1) for number in range(len(drawn))]
    places = list(np.ravel(np.asarray(ax, dtype=object)))
    _check.objects.equal("plot", "series and axes", len(drawn), len(places))
    for axes, (name, past, values, after, lines) in zip(places, drawn, strict=True):
        first = 0 if last is None else max(0, len(past) - last)
        axes.plot(past[first:], values[first:], color="0.4", linewidth=1, label="values")
        for number, (label, (low, high)) in enumerate(lines["intervals"].items()):  # the widest first
            axes.fill_between(
                after, low, high, color="C0", alpha=0.18 + 0.12 * number, linewidth=0, label=label
            )
        if lines["points"] is not None:
            axes.plot(after, lines["points"], color="C0", linewidth=2, label="forecast")
        axes.set_title(name, fontsize="medium", loc="left")
        axes.legend(fontsize="small")
    return places


def _series_of_arrays(df: Any, forecasts: Any, ids: Any, names: Names) -> list[Any]:
    values, found = _check.series.series("plot", "df", df), np.asarray(unmasked(forecasts), np.float64)
    _check.values.absent("plot", "ids", ids, "frames")
    after = len(values) + np.arange(len(found))
    lines: dict[str, Any] = {"points": found, "intervals": {}}
    if found.ndim == 2:
        lines = {"points": None, "intervals": {"interval": (found[:, 0], found[:, -1])}}
    return [("", np.arange(len(values)), values, after, lines)]


def _series_of_frames(df: Any, forecasts: Any, ids: Any, names: Names) -> list[Any]:
    if "cutoff" in column_names(forecasts):
        raise ValueError(
            "plot: forecasts must come from one origin; choose the rows of one cutoff and drop it."
        )
    rows = rows_of_frame("plot", "df", df, names, [names.target])
    panel, grid = panel_of_rows("plot", rows, None, names.target)
    others = [name for name in column_names(forecasts) if name not in (names.id, names.time)]
    ahead = rows_of_frame("plot", "forecasts", forecasts, names, others)
    drawn = []
    for name in ahead.ids[:4] if ids is None else ids:
        for part in (rows, ahead):
            if name not in part.ids:
                raise ValueError(f"plot: series {name!r} must be in df and in forecasts.")
        own, next_ = (part.ids.index(name) for part in (rows, ahead))
        known, after = (slice(*part.begins[row : row + 2]) for part, row in ((panel, own), (ahead, next_)))
        values = panel.values[known]
        dates = grid.dates(panel.starts[own] + np.arange(len(values)), panel.phases[own])
        columns = {label: values[after] for label, values in ahead.columns.items()}
        points = next(
            (values for label, values in columns.items() if re.search(r"-(lo|hi)-|_ql", label) is None), None
        )
        widest = sorted(
            (match for label in columns if (match := _INTERVAL.fullmatch(label))), key=lambda m: -float(m[2])
        )
        intervals = {
            f"{match[2]} %": (columns[match[0]], columns[f"{match[1]}-hi-{match[2]}"]) for match in widest
        }
        lines = {"points": points, "intervals": intervals}
        drawn.append((str(name), dates, values, ahead.ds[after], lines))
    return drawn
