"""A picture of the ratios: a panel for each cell, bars for each shape, above 1 if rnnfast is faster."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from rnnfast.bench.grid import MODEL_PASS_TITLES, PASS_TITLES, Shape
from rnnfast.bench.report import heading_of, milliseconds, ratio_text
from rnnfast.bench.summary import FASTEST, MODEL, Run, groups, model_size, ratio_to, threads_text, title
from rnnfast.files.atomic import write_atomically

# The hue shows the number of threads, light and dark show the pass.
_HUES = (("#8fb4e3", "#1f5fbf"), ("#f0bf87", "#d9822b"), ("#a5cfa3", "#3d8a3a"), ("#c9b1dc", "#7a4ba0"))

Bars = list[tuple[str, str, list[float | None]]]  # label, color, a value for each tick


def draw(path: str | os.PathLike[str], record: dict[str, Any]) -> None:
    """Draw ratios to the fastest peer, or times if there is no peer, as a PNG file.

    Parameters
    ----------
    path
        File to write.
    record : dict
        As in the JSON file.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    runs = record["runs"]
    beside = sorted({peer for run in runs for line in _lines(run) for peer in line["ratios"]}, key=title)
    panels = _panels(runs, bool(beside))
    most = max((len(ticks) for _, ticks, _ in panels), default=1)
    size = (max(7.2, 2.2 + 1.25 * most), 0.9 + 2.9 * max(1, len(panels)))
    figure = Figure(figsize=size, dpi=144, layout="constrained")
    FigureCanvasAgg(figure)
    everything = figure.subplots(max(1, len(panels)), 1, squeeze=False)[:, 0]
    for axes, (heading, ticks, bars) in zip(everything, panels, strict=False):
        _panel(axes, heading, ticks, bars, bool(beside))
    if panels:
        known = {
            label: handle
            for axes in everything
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(
            list(known.values()),
            list(known),
            loc="outside lower center",
            ncols=min(4 if size[0] > 9 else 2, len(known)),
            frameon=False,
        )
    who = " and ".join(filter(None, (", ".join(map(title, beside[:-1])), *map(title, beside[-1:]))))
    what = f"Times as fast as the fastest of {who}" if len(beside) > 1 else f"Times as fast as {who}"
    if not beside:
        what = "Milliseconds of a pass"
    figure.suptitle(f"{what}\n{record['machine']['processor']}, float32", fontsize=11)
    with write_atomically(path) as file:
        figure.savefig(file, format="png")


def _lines(run: Run) -> list[dict[str, Any]]:
    return [*run["layers"], *run["models"]]


def _height(record: dict[str, Any], with_peers: bool) -> float | None:
    """The ratio to the fastest peer, or milliseconds."""
    if with_peers:
        return ratio_to(record, FASTEST)
    return float(record["contenders"]["rnnfast"]["median"] * 1e3)


def _tick(record: dict[str, Any]) -> str:
    """The label below the bars of a record."""
    if "shape" in record:
        return str(Shape(*record["shape"]))
    size = model_size(record)
    return f"{size.layers} x {size.cell}, V={size.V}\nD=H={size.H} N={size.N} T={size.T}"


def _panels(runs: Sequence[Run], with_peers: bool) -> list[tuple[str, list[str], Bars]]:
    """Heading, ticks and bars of each panel."""
    together: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for run in runs:
        for cell, records in groups(run).items():
            together.setdefault(cell, []).extend((run["threads"], record) for record in records)
    hues = {
        threads: hue % len(_HUES) for hue, threads in enumerate(dict.fromkeys(r["threads"] for r in runs))
    }
    found = []
    for cell, entries in together.items():
        ticks = list(dict.fromkeys(_tick(record) for _, record in entries))
        bars: Bars = []
        for threads, hue in hues.items():
            for shade, (which, name) in enumerate(_passes(cell).items()):
                heights = {
                    _tick(record): _height(record, with_peers)
                    for number, record in entries
                    if number == threads and record["pass"] == which
                }
                if heights:
                    label = f"{name}, {threads_text(threads)}"
                    bars.append((label, _HUES[hue][shade], [heights.get(tick) for tick in ticks]))
        found.append((heading_of(cell), ticks, bars))
    return found


def _passes(cell: str) -> dict[str, str]:
    return MODEL_PASS_TITLES if cell == MODEL else PASS_TITLES


def _panel(axes: Any, heading: str, ticks: list[str], bars: Bars, with_peers: bool) -> None:
    """Draw bars around each tick, each with its value."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    values = [value for _, _, heights in bars for value in heights if value is not None]
    least, most = min(values, default=1.0), max(values, default=1.0)
    base = 1.0 if with_peers else least / 2
    axes.set_yscale("log")
    width = 0.84 / max(1, len(bars))
    for number, (label, color, heights) in enumerate(bars):
        shift = (number - (len(bars) - 1) / 2) * width
        drawn = [(tick + shift, value) for tick, value in enumerate(heights) if value is not None]
        places, tops = [place for place, _ in drawn], [value for _, value in drawn]
        axes.bar(places, [top - base for top in tops], width * 0.94, base, color=color, label=label, zorder=2)
        for place, top in drawn:
            below = round(top, 2) < base
            axes.annotate(
                ratio_text(top) if with_peers else milliseconds(top / 1e3),
                (place, top),
                xytext=(0, -2 if below else 2),
                textcoords="offset points",
                ha="center",
                va="top" if below else "bottom",
                fontsize=6.5,
                color="#b02020" if below else "#222222",
                rotation=90 if len(bars) > 2 else 0,
            )
    if with_peers:
        axes.axhline(1.0, color="black", linewidth=1.0, zorder=3)
    room = (max(most, base) / min(least, base)) ** 0.22 * 1.12  # for the values above and below
    axes.set_ylim(min(least / (room if least < base else 1.05), base / 1.05), max(most, base) * room)
    axes.yaxis.set_major_locator(LogLocator(subs=_subdivisions(most / least)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="y", which="minor", length=0)
    axes.set_xlim(-0.6, len(ticks) - 0.4)
    axes.set_xticks(range(len(ticks)), ticks, fontsize=8)
    axes.tick_params(axis="x", length=0)
    axes.set_title(heading, loc="left", fontsize=10, fontweight="bold")
    axes.grid(axis="y", color="#dddddd", linewidth=0.7, zorder=0)
    axes.spines[["top", "right"]].set_visible(False)


def _subdivisions(reach: float) -> tuple[float, ...]:
    """The marks of the logarithmic axis, denser if it is short."""
    if reach > 50:
        return (1.0,)
    return (1.0, 2.0, 5.0) if reach > 4 else (1.0, 1.2, 1.5, 2.0, 3.0, 5.0, 7.0)
