"""The report of `rnnfast bench --random`: how many ratios are below the goal, and the lowest ones."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from rnnfast.bench import report
from rnnfast.bench.grid import MOST_INPUTS, MOST_PRODUCTS, PASS_TITLES, RANDOM_SIZES, Shape
from rnnfast.bench.report import (
    Column,
    Sheet,
    heading_of,
    introduction,
    milliseconds,
    page,
    ratio_text,
    rich_table,
    show_notes,
    summary_sheets,
)
from rnnfast.bench.summary import (
    FASTEST,
    MODEL,
    Run,
    cell_title,
    geometric_mean,
    groups,
    place,
    ratio_to,
    threads_text,
    title,
)
from rnnfast.files.atomic import write_atomically

LOWEST = 10  # shapes shown of each cell and number of threads


def counts(runs: Sequence[Run], goal: float) -> list[dict[str, Any]]:
    """The geometric mean and the least ratio to the fastest peer, and how many are below `goal`, for each
    cell, number of threads and pass, and for both passes together, whose pass is None."""
    found = []
    for run, cell, records in _drawn(runs):
        for which in (*PASS_TITLES, None):
            values = [
                (ratio, place(record))
                for record in records
                if which in (record["pass"], None) and (ratio := ratio_to(record, FASTEST)) is not None
            ]
            if values:
                least, where = min(values)
                ratios = [value for value, _ in values]
                found.append(
                    {
                        "cell": cell,
                        "threads": run["threads"],
                        "pass": which,
                        "lines": len(ratios),
                        "mean": geometric_mean(ratios),
                        "least": least,
                        "where": where,
                        "below": sum(ratio < goal for ratio in ratios),
                    }
                )
    return found


def _drawn(runs: Sequence[Run]) -> list[tuple[Run, str, list[dict[str, Any]]]]:
    """Each run with the records of each of its cells."""
    return [(run, cell, records) for run in runs for cell, records in groups(run).items() if cell != MODEL]


def sheets(runs: Sequence[Run], goal: float) -> list[Sheet]:
    """A table of the counts, and one of the lowest ratios for each cell and number of threads."""
    entries = counts(runs, goal)
    if not entries:
        return []
    columns = [
        Column("cell", [cell_title(entry["cell"]) for entry in entries], False),
        Column("pass", [PASS_TITLES.get(entry["pass"], "all") for entry in entries], False),
        Column("threads", [str(entry["threads"]) for entry in entries]),
        Column("lines", [str(entry["lines"]) for entry in entries]),
        Column("geometric mean", [ratio_text(entry["mean"]) for entry in entries]),
        Column(
            f"below {goal:g}",
            [str(entry["below"]) for entry in entries],
            bad=tuple(row for row, entry in enumerate(entries) if entry["below"]),
        ),
        Column("least", [ratio_text(entry["least"]) for entry in entries]),
        Column("which is", [entry["where"] for entry in entries], False),
    ]
    found = [Sheet("Random shapes: ratios to the fastest peer", columns)]
    for run, cell, records in _drawn(runs):
        pairs = [(ratio, record) for record in records if (ratio := ratio_to(record, FASTEST)) is not None]
        pairs = sorted(pairs, key=lambda pair: pair[0])[:LOWEST]
        if pairs:
            heading = f"{heading_of(cell)}, {threads_text(run['threads'])}: the {len(pairs)} lowest ratios"
            found.append(Sheet(heading, _lowest(pairs, goal)))
    return found


def _lowest(pairs: list[tuple[float, dict[str, Any]]], goal: float) -> list[Column]:
    """The columns of the lowest ratios."""
    records = [record for _, record in pairs]
    peers = [min(record["ratios"], key=record["ratios"].__getitem__) for record in records]
    times = [
        milliseconds(record["contenders"][peer]["median"])
        for peer, record in zip(peers, records, strict=True)
    ]
    return [
        Column("(N, T, D, H)", [str(Shape(*record["shape"])) for record in records], False),
        Column("pass", [PASS_TITLES[record["pass"]] for record in records], False),
        Column("rnnfast ms", [milliseconds(record["contenders"]["rnnfast"]["median"]) for record in records]),
        Column("fastest peer", list(map(title, peers)), False),
        Column("ms", times),
        Column(
            "ratio",
            [ratio_text(ratio) for ratio, _ in pairs],
            bad=tuple(row for row, (ratio, _) in enumerate(pairs) if ratio < goal),
        ),
        Column("of peak", [f"{record['share']:.0%}" for record in records]),
    ]


def drawn_line(settings: dict[str, Any]) -> str:
    """How the shapes were drawn."""
    N, T, D, H = RANDOM_SIZES
    count = settings["random"]
    return (
        f"{count} random shape{'s' * (count > 1)}, the same for each cell, from seed {settings['seed']}: "
        f"N from 1 to {N:,}, T to {T:,}, D to {D:,}, H to {H:,}, each log-uniform, with N T H (D + H) at "
        f"most {MOST_PRODUCTS:,} and N T D at most {MOST_INPUTS:,}."
    )


def show(console: Console, record: dict[str, Any], goal: float) -> None:
    """Print the counts and the lowest ratios, and what else was measured."""
    for line in [*introduction(record), drawn_line(record["settings"])]:
        console.print(line, soft_wrap=True)
    models = [{**run, "layers": []} for run in record["runs"]]
    for sheet in [
        *sheets(record["runs"], goal), *report.sheets(models, goal), *summary_sheets(record["runs"])
    ]:  # fmt: skip
        console.print()
        console.print(rich_table(sheet))
    show_notes(console, record)


def markdown(record: dict[str, Any], goal: float) -> str:
    """The same as a page of Markdown, with all shapes."""
    runs = record["runs"]
    tables = [*sheets(runs, goal), *summary_sheets(runs), *report.sheets(runs, goal)]
    return page(record, [*introduction(record), drawn_line(record["settings"])], tables, [])


def draw(path: str | os.PathLike[str], record: dict[str, Any]) -> None:
    """Draw the ratios to the fastest peer in rising order, a curve for each cell, pass and number of threads,
    as a PNG file.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.6), dpi=144, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set_yscale("log")
    for run, cell, records in _drawn(record["runs"]):
        for which, name in PASS_TITLES.items():
            ratios = [ratio_to(line, FASTEST) for line in records if line["pass"] == which]
            rising = sorted(ratio for ratio in ratios if ratio is not None)
            if rising:
                label = f"{cell_title(cell)} {name}, {threads_text(run['threads'])}"
                axes.plot(range(1, 1 + len(rising)), rising, label=label, linewidth=1.4)
    axes.axhline(1.0, color="black", linewidth=1.0)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("random shapes, each curve in its own order")
    axes.grid(axis="y", color="#dddddd", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.lines[:-1]:
        axes.legend(frameon=False, fontsize=7)
    figure.suptitle(
        f"Times as fast as the fastest peer\n{record['machine']['processor']}, float32", fontsize=11
    )
    with write_atomically(path) as file:
        figure.savefig(file, format="png")
