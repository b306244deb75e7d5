"""What `rnnfast bench` records and writes, whatever it measures."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import typer

from rnnfast.bench import machine
from rnnfast.bench.runner import BenchFailed
from rnnfast.cli.errors import INTERRUPTED, STOPPED, fail, one_line
from rnnfast.files.atomic import write_atomically


def paths(
    out: Path | None, json_path: Path | None, markdown_path: Path | None, chart_path: Path | None
) -> dict[str, Path]:
    """The files of the results, by what they hold: those named, and the others in a folder."""
    folder = out or Path("runs") / f"bench-{datetime.now():%Y%m%d_%H%M%S}"
    return {
        "figures": json_path or folder / "bench.json",
        "tables": markdown_path or folder / "bench.md",
        "picture": chart_path or folder / "bench.png",
    }


def make_room(files: dict[str, Path]) -> None:
    """Create the folders of the results, so that an unwritable path fails before the measurement."""
    with one_line(OSError):
        for path in files.values():
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                raise IsADirectoryError(21, "Is a directory", str(path))


def new_record(settings: dict[str, Any]) -> dict[str, Any]:
    """The beginning of the figures: the machine, the date and the settings."""
    return {
        "machine": machine.description(),
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "settings": settings,
    }


def write_json(path: Path, record: dict[str, Any], *, complete: bool) -> None:
    """Write the figures."""
    with write_atomically(path) as file:
        file.write((json.dumps({**record, "complete": complete}, indent=1) + "\n").encode())


def stop(error: BaseException, record: dict[str, Any], path: Path | None) -> NoReturn:
    """Exit after a failure or Ctrl-C, with the figures measured before in `path`, unless it is None."""
    kept = ""
    if path is not None:
        with one_line(OSError):
            write_json(path, record, complete=False)
        kept = f" The figures measured before are in {path}."
    if isinstance(error, KeyboardInterrupt):
        fail(f"interrupted.{kept}", INTERRUPTED)
    if isinstance(error, BenchFailed) and error.details:
        typer.echo(error.details, err=True)
    fail(f"{error}{kept}", STOPPED)
