"""`rnnfast bench`: compare rnnfast with the installed libraries on this machine."""

from __future__ import annotations

import csv
import functools
import platform
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from importlib.metadata import version
from pathlib import Path
from statistics import geometric_mean, median
from typing import Annotated, Any

import typer

import rnnfast
from rnnfast.bench import contenders
from rnnfast.bench.contenders import PEERS
from rnnfast.bench.measure import BenchFailed, Line, measured
from rnnfast.cli.errors import STOPPED, one_line
from rnnfast.cli.options import cell_name
from rnnfast.cli.progress import compilations
from rnnfast.engine import load
from rnnfast.kernels.codegen.vectors import VECTOR_BYTES

_CELLS = ",".join(contenders.CELLS)
_USUAL, _QUICK = (2.0, 5), (0.2, 3)  # seconds for a line, and the least number of turns
_NOISY = 0.05
_HEAD = ["cell", "NxTxDxH", "pass", "threads", "ms", "of peak"]
_NOTES = [
    "float32, medians; results were compared first, and all libraries took turns in one process.",
    "both: forward and backward, including the gradient of the input.",
    "of peak: operations per second of the products divided by the FMA peak, measured in turn with them.",
    "Below a library: its time divided by that of rnnfast, above 1 if rnnfast is faster.",
]


# One line per option, as a table.
# fmt: off
Cells = Annotated[str, typer.Option(metavar="LIST", help="Cells, as for rnnfast train --cell.")]
Shapes = Annotated[str | None, typer.Option(
    metavar="LIST", show_default="nine, with --quick three", help="Sizes NxTxDxH, as 20x35x100x100.")]
Threads = Annotated[str | None, typer.Option(
    metavar="LIST", show_default="1,2", help="Numbers of threads, for example 1,4.")]
Peers = Annotated[str | None, typer.Option(
    metavar="LIST", show_default="all installed", help=f"Any of {', '.join(PEERS)}; or none.")]
Quick = Annotated[bool, typer.Option(
    "--quick", help="Measure three shapes, each for a short time: under a minute.")]
Csv = Annotated[Path | None, typer.Option(
    "--csv", metavar="FILE", show_default=False, help="Also write the lines to a file.")]
# fmt: on


def bench(
    cells: Cells = _CELLS,
    shapes: Shapes = None,
    threads: Threads = None,
    peers: Peers = None,
    quick: Quick = False,
    csv_path: Csv = None,
) -> None:
    """Compare the speed of rnnfast with whichever of PyTorch, JAX and ONNX Runtime is installed.

    First the results are compared. Then all libraries take turns in one process, on the same values. Without
    options this takes about ten minutes, more on a slow machine. Do not use the machine for anything else
    meanwhile.

    \b
    Examples:
    [bold]rnnfast bench --quick[/bold]
    [bold]rnnfast bench --cells lstm --shapes 20x35x100x100,64x100x128x256 --threads 1[/bold]
    [bold]rnnfast bench --peers torch --csv laptop.csv[/bold]
    """
    with one_line(ValueError):
        names = _listed("cells", cells, functools.partial(cell_name, "bench", "cells"))
        sizes = list(contenders.QUICK_SHAPES if quick else contenders.SHAPES)
        if shapes is not None:
            sizes = _listed("shapes", shapes, _shape)
        counts = list(range(1, 1 + min(2, load.allowed())))
        if threads is not None:
            counts = _listed("threads", threads, _thread_count)
        beside = [name for name, peer in PEERS.items() if not peer.missing]
        if peers is not None:
            beside = [] if peers == "none" else _listed("peers", peers.lower(), _peer)
    lines: list[Line] = []
    with ExitStack() as stack:
        stack.enter_context(one_line(OSError, MemoryError))
        stack.enter_context(one_line(BenchFailed, code=STOPPED))
        file = csv_path and stack.enter_context(open(csv_path, "w", newline="", encoding="utf-8"))
        for text in _introduction(beside, every=peers is None):
            typer.echo(text)
        stack.enter_context(compilations(lambda: typer.echo("compiling kernels, once")))
        settings = _QUICK if quick else _USUAL
        for line in (line for count in counts for line in measured(names, sizes, count, beside, *settings)):
            head, row = _csv_rows(line, beside)
            if not lines:
                typer.echo(_table_row([*_HEAD, *(PEERS[name].title for name in beside)], beside))
            if file:
                csv.writer(file).writerows([row] if lines else [head, row])
                file.flush()
            typer.echo(_table_row(_texts(line, beside), beside))
            lines.append(line)
    for text in _conclusion(lines):
        typer.echo(text)


def _listed(name: str, text: str, read: Callable[[str], Any]) -> list[Any]:
    """The distinct entries of a typed list, separated by commas or spaces."""
    found = [read(word) for word in dict.fromkeys(text.replace(",", " ").split())]
    if not found:
        raise ValueError(f"bench: {name} must name at least one.")
    return found


def _shape(word: str) -> contenders.Shape:
    sizes = word.lower().split("x")
    if len(sizes) != 4 or not all(size.isdecimal() and int(size) > 0 for size in sizes):
        raise ValueError(
            f"bench: shapes must be NxTxDxH, four whole numbers from 1, as 20x35x100x100, got {word!r}."
        )
    return contenders.Shape(*map(int, sizes))


def _thread_count(word: str) -> int:
    cores = load.allowed()
    if not word.isdecimal() or int(word) < 1:
        raise ValueError(f"bench: threads must be whole numbers of at least 1, got {word!r}.")
    if int(word) > cores:
        raise ValueError(
            f"bench: threads must be at most {cores}, the cores this process may use, got {word}; more "
            f"threads than cores would only wait for each other."
        )
    return int(word)


def _peer(word: str) -> str:
    if word not in PEERS:
        raise ValueError(f"bench: peers must be among {', '.join(PEERS)}, or none, got {word!r}.")
    if missing := PEERS[word].missing:
        raise ValueError(f"bench: {PEERS[word].title} is not installed here: pip install {' '.join(missing)}")
    return word


def processor() -> str:
    """The name of the processor."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _introduction(peers: Sequence[str], *, every: bool) -> list[str]:
    """The machine and the libraries."""
    cores, lanes = load.allowed(), VECTOR_BYTES // 4
    versions = [f"rnnfast {rnnfast.__version__}", *(f"{PEERS[name].title} {version(name)}" for name in peers)]
    missing = {peer.title: peer.missing for peer in PEERS.values() if every and peer.missing}
    return [
        f"{processor()}, {cores} core{'s' * (cores > 1)}, vectors of {lanes} float32",
        ", ".join(versions),
        *(f"not installed here: {title} (pip install {' '.join(names)})" for title, names in missing.items()),
    ]


def _table_row(texts: Sequence[str], peers: Sequence[str]) -> str:
    """A row of the table; the first three columns are words."""
    widths = [10, 17, 8, 7, 8, 7, *(max(7, len(PEERS[name].title)) for name in peers)]
    words = (text.ljust(width) for text, width in zip(texts[:3], widths, strict=False))
    figures = (text.rjust(width) for text, width in zip(texts[3:], widths[3:], strict=True))
    return " ".join([*words, *figures])


def _texts(line: Line, peers: Sequence[str]) -> list[str]:
    """What the row of a line shows; empty for a library that does not have the cell or the pass."""
    milliseconds = f"{line.seconds['rnnfast'] * 1e3:#.3g}".rstrip(".")
    ratios = (f"{line.ratios[name]:.2f}" if name in line.ratios else "" for name in peers)
    return [
        line.cell,
        str(line.shape),
        line.which,
        str(line.threads),
        milliseconds,
        f"{line.share:.0%}",
        *ratios,
    ]


def _csv_rows(line: Line, peers: Sequence[str]) -> tuple[list[Any], list[Any]]:
    """The head of the file, and the row of a line."""
    row = {
        "processor": processor(),
        "cell": line.cell,
        "threads": line.threads,
        **line.shape._asdict(),
        "pass": line.which,
        "rnnfast_ms": f"{line.seconds['rnnfast'] * 1e3:.6g}",
        "percent_of_peak": f"{line.share * 100:.1f}",
    }
    for name in peers:
        is_there = name in line.seconds
        row[f"{name}_ms"] = f"{line.seconds[name] * 1e3:.6g}" if is_there else ""
        row[f"{name}_ratio"] = f"{line.ratios[name]:.4g}" if is_there else ""
    return list(row), list(row.values())


def _conclusion(lines: Sequence[Line]) -> list[str]:
    """The ratios to the fastest library by cell and threads, how to read the table, and a warning."""
    found = [""]
    for cell, threads in dict.fromkeys((line.cell, line.threads) for line in lines):
        ratios = [
            (min(line.ratios.values()), f"{line.shape} {line.which}")
            for line in lines
            if (line.cell, line.threads) == (cell, threads) and line.ratios
        ]
        if ratios:
            mean, (least, where) = geometric_mean(ratio for ratio, _ in ratios), min(ratios)
            found.append(
                f"{cell}, threads {threads}: geometric mean of ratios to the fastest library {mean:.2f}, "
                f"least {least:.2f}: {where}"
            )
    if not any(line.ratios for line in lines):
        found.append("No other library was measured: these are the figures of rnnfast alone.")
    found += _NOTES
    noise = median(line.noise for line in lines)
    if noise > _NOISY:
        found.append(
            f"This machine is noisy: times of the same work spread over {noise:.0%} of their median, so the "
            f"figures may be off by as much. Close other programs, let the machine cool, and measure again."
        )
    return found
