"""The processors that this process may use, and the number of them worth a thread each."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

CPU_MAX = "/sys/fs/cgroup/cpu.max"


def numbers() -> AbstractSet[int]:
    """The numbers of the processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def allowed() -> int:
    """The number of processors that this process may run on."""
    return len(numbers())


def worthwhile() -> int:
    """The number of fast processors among them, at most a container's quota and a worker's share."""
    return max(1, min(allowed(), fast_cores(), quota(CPU_MAX), share(os.environ)))


def worthwhile_beside(others: Sequence[AbstractSet[int]]) -> int:
    """`worthwhile` of one of several equal processes on this machine.

    Each processor is divided by the number of processes that may use it, so processes that a launcher has
    bound to processors of their own keep all of these.

    Parameters
    ----------
    others : sequence of set of int
        The `numbers` of the other processes.
    """
    own = sum(1 / (1 + sum(number in other for other in others)) for number in numbers())
    count = 1 + len(others)
    parts = int(own + 1e-9), fast_cores() // count, quota(CPU_MAX) // count, share(os.environ)
    return max(1, min(parts))


def share(environment: Mapping[str, str]) -> int:
    """The threads that OMP_NUM_THREADS and NUMBA_NUM_THREADS allow; a large number if neither is set.

    joblib and Dask set them, so that the workers on one machine do not use more threads than it has cores. A
    value that is no number is ignored: it is not addressed to this library.
    """
    given = (environment.get(name, "") for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"))
    first = (value.split(",")[0].strip() for value in given)  # OpenMP has a number for each nested level
    return min((int(value) for value in first if value.isdecimal() and int(value)), default=sys.maxsize)


def fast_cores(platform: str = sys.platform, library: Any = None) -> int:
    """The number of performance cores of a Mac with efficiency cores; a large number if all cores are alike.

    Members of a team have equal shares, so the slowest core would set the speed.
    """
    if platform != "darwin":
        return sys.maxsize
    library = ctypes.CDLL(None) if library is None else library
    cores, size = ctypes.c_int32(), ctypes.c_size_t(4)
    none, zero = ctypes.c_void_p(), ctypes.c_size_t()
    name = b"hw.perflevel0.physicalcpu"
    failed = library.sysctlbyname(name, ctypes.byref(cores), ctypes.byref(size), none, zero)
    return sys.maxsize if failed or cores.value < 1 else cores.value  # Intel Macs do not have this name


def quota(path: str) -> int:
    """The cores of processor time that a container allows, rounded up; a large number without a quota."""
    try:
        with open(path, encoding="ascii") as file:
            most, period = file.read().split()
        return sys.maxsize if most == "max" else -(-int(most) // int(period))
    except (OSError, ValueError):
        return sys.maxsize
