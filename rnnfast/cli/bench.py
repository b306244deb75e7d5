"""`rnnfast bench`: compare rnnfast with the installed libraries on this machine."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from rnnfast import _check
from rnnfast.bench import contenders, grid, machine, runner
from rnnfast.cli import bench_files, bench_ranks
from rnnfast.cli import bench_options as options
from rnnfast.cli.errors import one_line
from rnnfast.cli.options import given_options
from rnnfast.cli.own_cells import cell_name
from rnnfast.files.atomic import write_atomically

_CELLS = ",".join(grid.CELLS)
_SECONDS, _RANDOM_SECONDS, _ROUNDS = 2.0, 0.5, 5
_QUICK_SECONDS, _QUICK_ROUNDS = 0.2, 3
_GOAL, _RANDOM_GOAL = 1.1, 1.0
_OUTPUT = ("out", "json_path", "markdown_path", "chart_path")
_UNTIMED = ("seconds", "goal", *_OUTPUT)  # without effect where nothing is timed
_UNRANKED = (
    "cells",
    "shapes",
    "random",
    "seed",
    "passes",
    "threads",
    "peers",
    "models",
    "check",
    "goal",
)  # with --ranks
_UNBOUNDED = 160  # columns for a pipe or a file


def bench(
    context: typer.Context,
    cells: options.Cells = _CELLS,
    shapes: options.Shapes = None,
    random: options.Random = None,
    seed: options.Seed = 0,
    passes: options.Passes = "forward,both",
    threads: options.Threads = None,
    peers: options.Peers = None,
    models: options.Models = False,
    ranks: options.Ranks = None,
    launcher: options.Launcher = None,
    seconds: options.Seconds = None,
    quick: options.Quick = False,
    check: options.Check = False,
    goal: options.Goal = None,
    out: options.Out = None,
    json_path: options.Json = None,
    markdown_path: options.Markdown = None,
    chart_path: options.Chart = None,
) -> None:
    """Compare the speed of rnnfast with whichever of PyTorch, JAX and ONNX Runtime is installed.

    First the results are compared. Then all libraries take turns in one process, on the same values. Each
    number of threads gets its own process, pinned to that many cores. Without options this takes about ten
    minutes, more on a slow machine. Do not use the machine for anything else meanwhile.

    With --ranks, processes train together, and their training steps are compared with those of one process
    and with a model of their time. This takes about three minutes.

    With --random, drawn shapes are measured, and the worst of them are shown. 100 shapes of three cells take
    about twenty minutes on each number of threads.

    \b
    Examples:
    [bold]rnnfast bench --quick[/bold]
    [bold]rnnfast bench --cells lstm --shapes 20x35x100x100,64x100x128x256 --threads 1[/bold]
    [bold]rnnfast bench --models --peers torch --out runs/laptop[/bold]
    [bold]rnnfast bench --random 100 --threads 1[/bold]
    [bold]rnnfast bench --ranks 1,2[/bold]
    """
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = _UNBOUNDED
    with one_line(ValueError):
        _refuse_unused(
            context,
            (
                (_UNTIMED, check, "with --check, which times nothing"),
                (("shapes", "random", "passes"), cells == "none", "with --cells none"),
                (("shapes",), random is not None, "with --random"),
                (("seed",), random is None, "without --random"),
                (_UNRANKED, ranks is not None, "with --ranks"),
                (("launcher",), ranks is None, "without --ranks"),
            ),
        )
    files = bench_files.paths(out, json_path, markdown_path, chart_path)
    if ranks is not None:
        bench_ranks.run(console, ranks, launcher, seconds, quick, files)
        return
    settings = _settings(cells, shapes, random, seed, passes, threads, peers, models, seconds, quick, check)
    if goal is None:
        goal = _GOAL if random is None else _RANDOM_GOAL
    drawn = {"random": random, "seed": None if random is None else seed}
    record = bench_files.new_record(
        {**asdict(settings), **drawn, "peers_named": peers is not None, "goal": goal}
    )
    record["runs"] = []
    if not check:
        bench_files.make_room(files)
    begun = time.perf_counter()
    try:
        with _progress(console, settings) as watch:
            runner.measure(settings, record["runs"], watch)
    except (runner.BenchFailed, KeyboardInterrupt) as stop:
        nothing = check or not any(run["layers"] or run["models"] for run in record["runs"])
        bench_files.stop(stop, record, None if nothing else files["figures"])
    record["seconds"] = time.perf_counter() - begun
    if check:
        _say_agreement(console, record)
    else:
        _report(console, record, goal, files)


def _refuse_unused(context: typer.Context, unused: Iterable[tuple[Sequence[str], bool, str]]) -> None:
    """Refuse options that have no effect: names, whether they have none, and when."""
    given = given_options(context)
    for names, is_unused, when in unused:
        for name in names:
            if is_unused and name in given:
                raise _check.no_effect("--" + name.removesuffix("_path"), when)


def _settings(
    cells: str,
    shapes: str | None,
    random: int | None,
    seed: int,
    passes: str,
    threads: str | None,
    peers: str | None,
    models: bool,
    seconds: float | None,
    quick: bool,
    check: bool,
) -> runner.Settings:
    """The settings from the options; impossible ones end the command with one line."""
    cores = machine.core_count()
    with one_line(ValueError):
        if cells == "none" and not models:
            raise ValueError("bench: --cells none leaves nothing to measure without --models.")
        return runner.Settings(
            cells=[]
            if cells == "none"
            else grid.cells(cells, functools.partial(cell_name, "bench", "cells")),
            shapes=_shapes(shapes, random, seed, quick),
            passes=grid.choices("passes", passes.lower(), grid.PASSES),
            threads=list(range(1, 1 + min(2, cores)))
            if threads is None
            else grid.thread_counts(threads, cores),
            peers=contenders.chosen(
                None if peers is None else [] if peers == "none" else grid.words(peers.lower())
            ),
            models=list(grid.MODELS) if models else [],
            seconds=seconds
            if seconds is not None
            else _QUICK_SECONDS
            if quick
            else _SECONDS
            if random is None
            else _RANDOM_SECONDS,
            rounds=_QUICK_ROUNDS if quick else _ROUNDS,
            check=check,
        )


def _shapes(shapes: str | None, random: int | None, seed: int, quick: bool) -> list[grid.Shape]:
    """The shapes: drawn, named, or those of the grid."""
    if random is not None:
        return grid.random_shapes(random, seed)
    if shapes is not None:
        return grid.shapes(shapes)
    return list(grid.QUICK_SHAPES if quick else grid.SHAPES)


@contextmanager
def _progress(console: Console, settings: runner.Settings) -> Iterator[runner.Watch]:
    """Show progress: a moving line on a terminal, a line for each result elsewhere."""
    from rnnfast.bench.report import milliseconds

    lines = len(settings.cells) * len(settings.shapes) * len(settings.passes)
    lines += len(settings.models) * len(grid.MODEL_PASS_TITLES)
    total, done = lines * len(settings.threads), 0
    status = console.status("starting") if console.is_terminal else None

    def watch(threads: int, event: dict[str, Any]) -> None:
        nonlocal done
        kind = event["event"]
        place = f"{threads} thread{'s' * (threads > 1)}, {done + 1}/{total}"
        if kind == "compiling":
            console.print("compiling kernels, once", soft_wrap=True)
        elif kind == "compiled":
            console.print(f"compiled in {event['seconds']:.0f} s; later runs reuse the result")
        elif kind == "measuring":
            now["what"] = event["what"]
            if status is not None:
                status.update(f"{place}: {event['what']}")
        elif kind in ("layer", "model"):
            done += 1
            if status is None and not settings.check:
                own = event["contenders"]["rnnfast"]["median"]
                console.print(f"{place}: {now['what']}: {milliseconds(own)} ms", soft_wrap=True)

    now = {"what": ""}
    if status is None:
        yield watch
    else:
        with status:
            yield watch


def _say_agreement(console: Console, record: dict[str, Any]) -> None:
    """Print the result of a comparison without timing."""
    from rnnfast.bench.summary import lines, title

    found: dict[str, list[float]] = {}
    for _, line, _ in lines(record["runs"]):
        for peer, difference in line["differences"].items():
            found.setdefault(peer, []).append(difference)
    for peer, differences in found.items():
        console.print(
            f"{title(peer)} computes the same in all {len(differences)} cases; the largest difference is "
            f"{max(differences):.1e} of the norm.",
            soft_wrap=True,
        )
    if not found:
        console.print("There is no peer to compare with.")


def _report(console: Console, record: dict[str, Any], goal: float, files: dict[str, Path]) -> None:
    """Write the files before the tables, so that a closed output loses nothing."""
    from rnnfast.bench import chart, random_report, report, summary

    record["summary"] = summary.everything(record["runs"], goal)
    is_random = record["settings"]["random"] is not None
    if is_random:
        record["summary"]["random"] = random_report.counts(record["runs"], goal)
    pages = random_report if is_random else report
    with one_line(OSError):
        bench_files.write_json(files["figures"], record, complete=True)
        (random_report if is_random else chart).draw(files["picture"], record)
        with write_atomically(files["tables"]) as file:
            file.write(pages.markdown(record, goal).encode())
    pages.show(console, record, goal)
    for name, path in files.items():
        console.print(f"{name}: {path}", soft_wrap=True)
