"""Checks of commands that were started as several processes."""

from __future__ import annotations

from typing import Any


def other_mpi(launched: Any, found: Any) -> ValueError:
    """The error for an mpi4py that does not know the processes; both are pairs (rank, size)."""
    return ValueError(
        f"this process was started as rank {launched[0]} of {launched[1]}, but for mpi4py it is rank "
        f"{found[0]} of {found[1]}: mpi4py was built for another MPI; use the mpiexec of that MPI, or build "
        f"mpi4py for this one."
    )
