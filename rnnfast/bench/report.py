"""Results as tables on a terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rnnfast.bench import summary
from rnnfast.bench.contenders import PEERS
from rnnfast.bench.grid import MODEL_PASS_TITLES, PASS_TITLES, Shape
from rnnfast.bench.summary import MODEL, Run, cell_title, threads_text, title


@dataclass(frozen=True)
class Column:
    """A column of a table: its head and its cells; numbers are right-aligned."""

    head: str
    cells: list[str]
    is_number: bool = True
    bad: tuple[int, ...] = ()


@dataclass(frozen=True)
class Sheet:
    """A table with its heading."""

    heading: str
    columns: list[Column]


def milliseconds(seconds: float) -> str:
    """A time with three digits.

    Examples
    --------
    >>> [milliseconds(s) for s in (0.0001234, 0.0314, 1.6304)]
    ['0.123', '31.4', '1,630']
    """
    value = seconds * 1e3
    return f"{value:,.0f}" if value >= 100 else f"{value:.{3 - (value >= 1) - (value >= 10)}f}"


def ratio_text(ratio: float) -> str:
    """A ratio with three digits.

    Examples
    --------
    >>> [ratio_text(r) for r in (1.234, 12.34, 123.4)]
    ['1.23', '12.3', '123']
    """
    return f"{ratio:.{2 - (ratio >= 10) - (ratio >= 100)}f}"


def heading_of(cell: str) -> str:
    """The name of a cell at the beginning of a line.

    Examples
    --------
    >>> heading_of("lstm"), heading_of("model")
    ('LSTM', 'Language model')
    """
    name = cell_title(cell)
    return name[:1].upper() + name[1:]


def sheets(runs: Sequence[Run], goal: float, *, with_times: bool = True) -> list[Sheet]:
    """A table for each number of threads and cell, and one for the language models.

    Parameters
    ----------
    runs : list of dict
        The results of `runner.measure`.
    goal : float
        Ratios below it are marked.
    with_times : bool
        Whether to show the times of the peers with the ratios.
    """
    found = []
    for run in runs:
        for cell, records in summary.groups(run).items():
            heading = f"{heading_of(cell)}, {threads_text(run['threads'])}"
            columns = _model_columns if cell == MODEL else _layer_columns
            found.append(Sheet(heading, columns(records, summary.peers_of(run), goal, with_times)))
    return found


def _layer_columns(
    records: list[dict[str, Any]], peers: list[str], goal: float, with_times: bool
) -> list[Column]:
    own = [milliseconds(record["contenders"]["rnnfast"]["median"]) for record in records]
    columns = [
        Column("(N, T, D, H)", [str(Shape(*record["shape"])) for record in records], False),
        Column("pass", [PASS_TITLES[record["pass"]] for record in records], False),
        Column("rnnfast ms", own),
    ]

    def time_of(record: dict[str, Any], peer: str) -> str:
        return milliseconds(record["contenders"][peer]["median"])

    columns += _beside(records, peers, goal, time_of if with_times else None, "ms")
    return [*columns, Column("of peak", [f"{record['share']:.0%}" for record in records])]


def _model_columns(
    records: list[dict[str, Any]], peers: list[str], goal: float, with_times: bool
) -> list[Column]:
    own = [f"{record['tokens_per_second']['rnnfast']:,.0f}" for record in records]
    names = [str(summary.model_size(record)) for record in records]

    def speed_of(record: dict[str, Any], peer: str) -> str:
        return f"{record['tokens_per_second'][peer]:,.0f}"

    beside = _beside(records, peers, goal, speed_of if with_times else None, "tokens/s")
    passes = [MODEL_PASS_TITLES[record["pass"]] for record in records]
    return [
        Column("model", names, False),
        Column("pass", passes, False),
        Column("rnnfast tokens/s", own),
        *beside,
    ]


def _beside(
    records: list[dict[str, Any]],
    peers: list[str],
    goal: float,
    figure: Callable[[dict[str, Any], str], str] | None,
    unit: str,
) -> list[Column]:
    """The columns of the peers: figure and ratio, empty if a peer lacks the pass."""
    columns = []
    for peer in peers:
        ratios = [record["ratios"].get(peer) for record in records]
        if all(ratio is None for ratio in ratios):
            continue
        if figure is not None:
            cells = [figure(record, peer) if peer in record["ratios"] else "" for record in records]
            columns.append(Column(f"{title(peer)} {unit}", cells))
        texts = ["" if ratio is None else ratio_text(ratio) for ratio in ratios]
        bad = tuple(row for row, ratio in enumerate(ratios) if ratio is not None and ratio < goal)
        columns.append(Column("ratio" if figure is not None else title(peer), texts, bad=bad))
    return columns


def summary_sheets(runs: Sequence[Run]) -> list[Sheet]:
    """Tables of the measured ratios, shares of the peak and thread speedups, by cell."""
    found = []
    ratios, shares, gains = summary.ratios(runs), summary.shares(runs), summary.gains(runs)
    if ratios:
        peers = Column("compared with", [title(line["peer"]) for line in ratios], False)
        found.append(_counted("Ratios: speed of rnnfast relative to the peer", ratios, peers, ratio_text))
    if shares:
        passes = Column("pass", [PASS_TITLES[line["pass"]] for line in shares], False)
        heading = f"Share of the FMA peak where N >= {summary.LEAST_ROWS} and H >= {summary.LEAST_WIDTH}"
        found.append(_counted(heading, shares, passes, "{:.0%}".format))
    if gains:
        heading = (
            f"Times as fast as on one thread, where N >= {summary.LEAST_BATCH} and one takes more than "
            f"{summary.LEAST_SECONDS * 1e3:g} ms"
        )
        found.append(_counted(heading, gains, None, ratio_text))
    return found


def _counted(
    heading: str, entries: list[dict[str, Any]], extra: Column | None, text: Callable[[float], str]
) -> Sheet:
    """A table of least values and geometric means."""
    columns = [
        Column("cell", [cell_title(line["cell"]) for line in entries], False),
        *([extra] if extra else []),
        Column("threads", [str(line["threads"]) for line in entries]),
        Column("lines", [str(line["lines"]) for line in entries]),
        Column("geometric mean", [text(line["mean"]) for line in entries]),
        Column("least", [text(line["least"]) for line in entries]),
        Column("which is", [line["where"] for line in entries], False),
    ]
    return Sheet(heading, columns)


def machine_line(machine: dict[str, Any]) -> str:
    """A description of the machine in a line."""
    cores = f"{machine['cores']} core{'s' * (machine['cores'] > 1)}"
    return (
        f"{machine['processor']}, {cores}, vectors of {machine['vector_bytes']} bytes "
        f"({machine['float32_lanes']} float32)"
    )


def introduction(record: dict[str, Any]) -> list[str]:
    """The machine and the compared libraries."""
    versions: dict[str, str] = next((run["versions"] for run in record["runs"] if "versions" in run), {})
    who = ", ".join(f"{title(name)} {version}" for name, version in versions.items())
    lines = [machine_line(record["machine"]), who]
    if versions and not record["settings"]["peers"]:
        lines.append("No other library was measured: these are the figures of rnnfast alone.")
    missing = [name for name, peer in PEERS.items() if peer.missing]
    if missing and not record["settings"]["peers_named"]:
        packages = " ".join(dict.fromkeys(package for name in missing for package in PEERS[name].missing))
        titles = ", ".join(map(title, missing))
        lines.append(f"not installed here: {titles} (pip install {packages})")
    return lines


def notes(record: dict[str, Any]) -> list[str]:
    """How to read the tables."""
    peaks = {
        run["threads"]: f"{run['peak']['median'] / 1e9:,.0f} GFLOP/s on {threads_text(run['threads'])}"
        for run in record["runs"]
        if "peak" in run
    }
    pinned = all(run["pinned"] is not None for run in record["runs"])
    lines = [
        "float32; medians of contenders that take turns in one process; a ratio is the time of the peer "
        "divided by the time of rnnfast, above 1 if rnnfast is faster.",
        "fwd + bwd includes the gradients of input and weights"
        + ("; results were compared before timing." if record["settings"]["peers"] else "."),
        "of peak: operations per second of the products divided by the FMA peak, which is measured between "
        f"the rounds on all threads at once: {', '.join(peaks.values())}.",
    ]
    if any(run["models"] for run in record["runs"]):
        lines.append("loss + bwd: a window forward and backward; whole step: also gradient clipping and SGD.")
    if not pinned:
        lines.append("This system cannot pin processes to cores, so threads may have moved between cores.")
    return lines


def shortfalls(record: dict[str, Any], goal: float) -> list[str]:
    """A line for each ratio to the fastest peer below the goal."""
    found = summary.short_of(record["runs"], goal)
    compared = sum(bool(line["ratios"]) for _, line, _ in summary.lines(record["runs"]))
    if not compared:
        return []
    if not found:
        return [f"No ratio to the fastest peer is below {goal:g}."]
    return [
        f"{len(found)} of {compared} ratios to the fastest peer are below {goal:g}:",
        *(
            f"{ratio_text(line['ratio'])} against {title(line['peer'])}, {line['what']}, "
            f"{threads_text(line['threads'])}"
            for line in found
        ),
    ]


def show(console: Console, record: dict[str, Any], goal: float) -> None:
    """Print everything."""
    for line in introduction(record):
        console.print(line, soft_wrap=True)
    tables = [rich_table(sheet) for sheet in sheets(record["runs"], goal)]
    endless = console.options.update(max_width=1000)
    if any(console.measure(table, options=endless).maximum > console.width for table in tables):
        tables = [rich_table(sheet) for sheet in sheets(record["runs"], goal, with_times=False)]
    for table in [*tables, *map(rich_table, summary_sheets(record["runs"]))]:
        console.print()
        console.print(table)
    for line in shortfalls(record, goal):
        console.print(line, soft_wrap=True)
    show_notes(console, record)


def show_notes(console: Console, record: dict[str, Any]) -> None:
    """Print how to read the tables."""
    console.print()
    for line in notes(record):
        console.print(line, soft_wrap=True)
    warning = summary.noise_warning(record["runs"])
    if warning:
        console.print(Text(warning, style="yellow"), soft_wrap=True)


def rich_table(sheet: Sheet) -> Table:
    """A sheet for a terminal; bad cells are red."""
    drawn = Table(
        title=sheet.heading, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False
    )
    for column in sheet.columns:
        drawn.add_column(column.head, justify="right" if column.is_number else "left", no_wrap=True)
    for row in range(len(sheet.columns[0].cells)):
        drawn.add_row(
            *(Text(c.cells[row], style="red" if row in c.bad else "") for c in sheet.columns),
        )
    return drawn


def markdown(record: dict[str, Any], goal: float) -> str:
    """The whole report as a page of Markdown."""
    tables = [*sheets(record["runs"], goal), *summary_sheets(record["runs"])]
    return page(record, introduction(record), tables, shortfalls(record, goal))


def page(record: dict[str, Any], before: list[str], tables: list[Sheet], after: list[str]) -> str:
    """A page of Markdown: lines, tables, lines, and how to read the tables."""
    parts = ["\n".join(f"* {line}" for line in before)]
    for sheet in tables:
        parts += [f"### {sheet.heading}", markdown_table(sheet)]
    warning = summary.noise_warning(record["runs"])
    lines = [*after, *notes(record), *([warning] if warning else [])]
    parts.append("\n".join(f"* {line}" for line in lines))
    return "\n\n".join(parts) + "\n"


def markdown_table(sheet: Sheet) -> str:
    """A sheet as a table of Markdown."""

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cells)} |"

    rows = zip(*(column.cells for column in sheet.columns), strict=True)
    marks = ["---:" if column.is_number else "---" for column in sheet.columns]
    return "\n".join([line([column.head for column in sheet.columns]), line(marks), *map(line, rows)])
