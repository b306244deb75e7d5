"""`rnnfast bench --ranks`: training steps on ranks of MPI."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from rnnfast.bench import ranks_runner as runner
from rnnfast.bench.growth import FEWEST_BLOCKS
from rnnfast.bench.runner import BenchFailed
from rnnfast.cli import bench_files
from rnnfast.cli.errors import one_line

_QUICK_SECONDS, _QUICK_ROUNDS = 1.0, 2


def run(
    console: Console,
    ranks: str,
    launcher: str | None,
    seconds: float | None,
    quick: bool,
    files: dict[str, Path],
) -> None:
    """Measure each number of ranks, write the files and print the tables."""
    with one_line(ValueError):
        counts = runner.rank_counts(ranks)
        blocks, models = max(FEWEST_BLOCKS, *counts), runner.QUICK_MODELS if quick else runner.MODELS
        settings = runner.Settings(
            ranks=counts,
            launcher=runner.launcher(launcher),
            models=[size._replace(N=max(size.N, blocks)) for size in models],
            blocks=blocks,
            numbers=list(runner.NUMBERS),
            seconds=seconds if seconds is not None else _QUICK_SECONDS if quick else 4.0,
            rounds=_QUICK_ROUNDS if quick else 5,
        )
    record = bench_files.new_record(asdict(settings))
    bench_files.make_room(files)
    begun = time.perf_counter()
    try:
        with _progress(console, settings) as watch:
            runner.measure(settings, record, watch)
    except (BenchFailed, KeyboardInterrupt) as stop:
        bench_files.stop(stop, record, None)
    record["seconds"] = time.perf_counter() - begun
    _report(console, record, files)


@contextmanager
def _progress(console: Console, settings: runner.Settings) -> Iterator[runner.Watch]:
    """Show progress: a moving line on a terminal, a line for each result elsewhere."""
    from rnnfast.bench.grid import ModelSize
    from rnnfast.bench.report import milliseconds
    from rnnfast.bench.timing import distribution

    lines = len(settings.ranks) + 1  # one rank is also measured in one block
    total = settings.rounds * lines * len(settings.models)
    done = 0
    status = console.status("starting") if console.is_terminal else None

    def watch(ranks: int, event: dict[str, Any]) -> None:
        nonlocal done
        kind = event["event"]
        if kind == "compiling":
            console.print("compiling kernels, once", soft_wrap=True)
        elif kind == "compiled":
            console.print(f"compiled in {event['seconds']:.0f} s; later runs reuse the result")
        elif kind == "step":
            done += 1
            step = milliseconds(distribution(event["seconds"])["median"])
            blocks = event["blocks"]
            place = f"{done}/{total}: {ranks} rank{'s' * (ranks > 1)}, {blocks} block{'s' * (blocks > 1)}"
            line = f"{place}: {ModelSize(*event['model'])}: {step} ms"
            if status is None:
                console.print(line, soft_wrap=True)
            else:
                status.update(line)

    if status is None:
        yield watch
    else:
        with status:
            yield watch


def _report(console: Console, record: dict[str, Any], files: dict[str, Path]) -> None:
    """Write the files before the tables, so that a closed output loses nothing."""
    from rnnfast.bench import ranks_report
    from rnnfast.files.atomic import write_atomically

    with one_line(OSError):
        bench_files.write_json(files["figures"], record, complete=True)
        ranks_report.draw(files["picture"], record)
        with write_atomically(files["tables"]) as file:
            file.write(ranks_report.markdown(record).encode())
    ranks_report.show(console, record)
    for name, path in files.items():
        console.print(f"{name}: {path}", soft_wrap=True)
