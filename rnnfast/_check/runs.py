"""Checks of saved models and runs: damaged files, and runs that cannot begin or continue."""

from __future__ import annotations

import os
from typing import Any

from rnnfast._check.errors import CheckpointError, OtherData


def malformed(path: Any, reason: str) -> CheckpointError:
    """The error for a malformed file.

    The reason may quote the file, so it is cut to one line of printable ASCII.
    """
    plain = " ".join(reason.encode("ascii", "backslashreplace").decode().split())
    plain = "".join(c if c.isprintable() else "?" for c in plain)
    return CheckpointError(f"{path}: {plain if len(plain) <= 300 else plain[:300] + ' ...'}.")


def readable(owner: str, path: Any) -> None:
    """A file that a user names can be read; if not, an OSError of the same kind, whose cause is the
    system's."""
    try:
        with open(path, "rb"):
            return
    except OSError as error:
        found = error
    if isinstance(found, FileNotFoundError):
        problem, fix = "does not exist", "check its spelling"
        if not os.path.isabs(path):
            fix += f"; relative paths begin at {os.getcwd()}"
    elif os.path.isdir(path):
        problem, fix = "is a folder", "name a file in it"
    else:
        problem, fix = f"cannot be read ({found.strerror})", "check its permissions"
    told = f"{owner}: path must name a file, got {os.fspath(path)!r}, which {problem}; {fix}."
    raise type(found)(told) from found


def run_in_the_way(folder: Any, name: str) -> FileExistsError:
    """The error for a folder that holds an earlier run."""
    return FileExistsError(
        f"{folder}: this folder already has a run ({name}); choose another folder, or --overwrite the run."
    )


def run_under_way(folder: Any) -> OSError:
    """The error for a folder in which another process trains."""
    return OSError(f"{folder}: another process is training in this folder; wait for it, or stop it.")


def same_option(folder: Any, option: str, was: Any, now: Any) -> None:
    """A run continues with the options it began with."""
    if was == now:
        return
    told = f"{option} was {_told(was)}" if was not in (None, []) else f"{option} was not given"
    raise CheckpointError(
        f"{told} when the run in {folder} began, and is {_told(now)} now; leave it out to continue that "
        f"run, or begin another."
    )


def _told(value: Any) -> str:
    """A value as typed on the command line."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _run_value(value: Any) -> Any:
    """A value of a run as errors show it; a cell is shown by its name and the start of its fingerprint."""
    if isinstance(value, dict) and set(value) == {"name", "fingerprint"}:
        return f"{value['name']!s:.80} ({value['fingerprint']!s:.12})"
    return value


def _are_equal(was: Any, now: Any) -> bool:
    """Whether two values of a run are equal; cells are compared by fingerprint, not by name."""
    cells = isinstance(was, dict) and isinstance(now, dict) and "fingerprint" in was
    return was["fingerprint"] == now.get("fingerprint") if cells else was == now


def same_run(owner: str, path: Any, saved: dict, given: dict) -> None:
    """A run continues with the settings it began with."""
    for name in sorted({*saved, *given}, key=str):
        was, now = saved.get(name), given.get(name)
        if not _are_equal(was, now):
            if name in ("text", "sequences", "valid"):
                error = OtherData(f"{owner}: {name} has changed, so the run in {path} cannot continue.")
                error.name = name
                raise error
            what = f"{_run_value(now)!r} and not {_run_value(was)!r}"
            raise CheckpointError(f"{owner}: {name} is {what}, so the run in {path} cannot continue.")


def more_epochs(name: str, path: Any, epochs: int, reached: int) -> None:
    """A run continues to an epoch not yet passed; `name` is the caller's name for the number of epochs."""
    if epochs < reached:
        raise CheckpointError(
            f"{name} must be at least {reached}, which the run in {path} has reached, got {epochs}."
        )
