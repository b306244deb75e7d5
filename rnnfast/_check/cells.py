"""Checks of cells: cells that cannot be found, and cells that a place does not accept."""

from __future__ import annotations

from typing import Any

from rnnfast._check.errors import CellMissing, CheckpointError


def cell_missing(name: str, fingerprint: str, path: Any = None) -> CellMissing:
    """The error for a cell that the file `path` needs and this program has not defined."""
    start = "" if path is None else f"{path}: "
    error = CellMissing(
        f"{start}the cell {name[:80]!r} (fingerprint {fingerprint[:12]!r}) is not defined in this program, "
        f"or its equations have changed since; import the module that defines it, or make it "
        "again and keep it in a variable."
    )
    error.name, error.fingerprint = name, fingerprint
    return error


def cell_not_found(owner: str, name: str, cell: str, error: Exception) -> ValueError:
    """The error for a `module:name` that cannot be imported."""
    why = " ".join(str(error).split())
    return ValueError(
        f"{owner}: {name} must be module:name of a cell of your own, got {cell!r}; importing it fails with "
        f"{type(error).__name__}: {why}."
    )


def not_a_cell(owner: str, name: str, cell: str, found: Any) -> ValueError:
    """The error for a `module:name` that is not a cell."""
    kind = type(found).__name__
    return ValueError(f"{owner}: {name} must be module:name of a cell, got {cell!r} of type {kind}.")


def cell_needed(folder: Any, cell: str, told: str = "module:name") -> CheckpointError:
    """The error for a run whose cell is the user's own, which is imported only if `--cell` names it."""
    return CheckpointError(
        f"{folder}: the cell {cell!r} of this run is one of your own; give --cell {told}, which imports it."
    )


def other_cell(folder: Any, name: str, given: str) -> CheckpointError:
    """The error for a run whose cell is not the one given."""
    return CheckpointError(
        f"{folder}: the cell {name!r} of this run has other equations than --cell {given}; give the one that "
        f"it was trained with."
    )
