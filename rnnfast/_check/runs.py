"""Saved models and runs: files that are damaged, and runs that cannot begin or go on."""

from __future__ import annotations

from typing import Any

from rnnfast._check.errors import CheckpointError, OtherData


def malformed(path: Any, reason: str) -> CheckpointError:
    """The error for a file that cannot be what it should be, to be raised by the reader.

    The reason may quote the file, so it is cut to one line of printable ASCII.
    """
    plain = " ".join(reason.encode("ascii", "backslashreplace").decode().split())
    plain = "".join(c if c.isprintable() else "?" for c in plain)
    return CheckpointError(f"{path}: {plain if len(plain) <= 300 else plain[:300] + ' ...'}.")


def run_in_the_way(folder: Any, name: str) -> FileExistsError:
    """The error for a folder that holds an earlier run."""
    return FileExistsError(
        f"{folder}: there is a run in this folder already ({name}); choose another, or --overwrite a run."
    )


def run_under_way(folder: Any) -> OSError:
    """The error for a folder in which another process trains."""
    return OSError(f"{folder}: another process is training in this folder; wait for it, or stop it.")


def lost_training(folder: Any, name: str, run: Any) -> CheckpointError:
    """The error for a run that has a model, but no file that says where training stands."""
    return CheckpointError(f"{folder} has no {name} to go on from; train anew with --save {run} --overwrite.")


def changed_ids(path: Any) -> CheckpointError:
    """The error for an encoded text of a run that is not the one it began with."""
    return CheckpointError(f"{path} was changed since the run began; train again with --overwrite.")


def same_option(folder: Any, option: str, was: Any, now: Any) -> None:
    """A run goes on with the options it began with."""
    if was == now:
        return
    told = f"{option} was {_told(was)}" if was not in (None, []) else f"{option} was not given"
    raise CheckpointError(
        f"{told} when the run in {folder} began, and is {_told(now)} now; leave it out to go on with that "
        f"run, or begin another."
    )


def _told(value: Any) -> str:
    """A value of the command line as it is typed."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _run_value(value: Any) -> Any:
    """A value of a run as errors show it: a user's own cell by its name and the start of its fingerprint."""
    if isinstance(value, dict) and set(value) == {"name", "fingerprint"}:
        return f"{value['name']!s:.80} ({value['fingerprint']!s:.12})"
    return value


def _are_equal(was: Any, now: Any) -> bool:
    """Whether two values of a run say the same; cells may have other names."""
    cells = isinstance(was, dict) and isinstance(now, dict) and "fingerprint" in was
    return was["fingerprint"] == now.get("fingerprint") if cells else was == now


def same_run(owner: str, path: Any, saved: dict, given: dict) -> None:
    """A run goes on with the settings it began with."""
    for name in sorted({*saved, *given}, key=str):
        was, now = saved.get(name), given.get(name)
        if not _are_equal(was, now):
            if name in ("text", "sequences", "valid"):
                error = OtherData(f"{owner}: {name} is another, so the run in {path} cannot go on.")
                error.name = name
                raise error
            what = f"{_run_value(now)!r} and not {_run_value(was)!r}"
            raise CheckpointError(f"{owner}: {name} is {what}, so the run in {path} cannot go on.")


def more_epochs(name: str, path: Any, epochs: int, reached: int) -> None:
    """A run goes on to an epoch that is not behind it; `name` is how the caller is told the epochs."""
    if epochs < reached:
        raise CheckpointError(
            f"{name} must be at least {reached}, which the run in {path} has reached, got {epochs}."
        )
