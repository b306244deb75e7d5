"""The load of the other processors, measured by what teams of threads gain and lose.

Where another program uses a processor, a member is suspended there for milliseconds, and the others wait:
fewer threads are then faster. Results have the same bits for every number of threads, so it is chosen for
each call. Times are measured, on every system alike. What systems report about load is an average of seconds,
or does not say on which processors.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

# The shares of a team are about equal. So half the members would take twice the time in which the caller did
# not wait, if they had a processor each. A team has to be faster than this part of the estimate, because
# threads share caches and memory. On two idle cores callers wait for up to a third of a call, beside a busy
# loop for 0.5 to 0.9 of it.
SURE = 0.8

# After a loss, the time in ns for which calls do without this size of team, as a multiple of the loss: tries
# cost 3 % of the time. Not more than MOST_REST, should the computer itself have been asleep.
REST = 32
MOST_REST = 30_000_000_000

# Gains in ns that a team may lose before it rests: a process that wakes for a moment makes no difference.
MOST_CREDIT = 5_000_000

# Calls shorter than this, in ns, are made alone at times, for comparison: those with the numbers in ALONE and
# each 256th. Two threads on cores that share no cache can be slower than one although nobody waits.
SHORT = 1_000_000
ALONE = frozenset((4, 16, 64))


class Pace:
    """Times of calls of one kind: one kernel on arrays of the same shapes."""

    __slots__ = ("alone", "calls", "is_short")

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin with calls of another kind."""
        self.calls, self.alone, self.is_short = 0, 0.0, False

    def compares(self) -> bool:
        """Whether to make the next call alone, for comparison."""
        self.calls += 1
        return self.is_short and (not self.calls & 255 or self.calls in ALONE)

    def note_alone(self, elapsed: float) -> None:
        """Note the time of a call alone. The least counts, and slowly gives way to longer ones."""
        self.alone = min(elapsed, 1.01 * self.alone) if self.alone else elapsed


class Load:
    """Gains and losses of teams, by their size; the times are in ns.

    Concurrent callers may lose one another's changes, and interrupts one change. Neither needs repair.
    """

    def __init__(self) -> None:
        self._credit: dict[int, float] = {}
        self._rest: dict[int, float] = {}

    def members(self, wanted: int, pace: Pace | None = None) -> int:
        """The threads for a call: the number wanted, or after losses its half, a quarter, ... down to 1."""
        members = wanted
        while members > 1 and self._rest.get(members, 0) > 0:
            members //= 2
        return 1 if members > 1 and pace is not None and pace.compares() else members

    def note(
        self, wanted: int, members: int, elapsed: float, waited: float, pace: Pace | None = None
    ) -> None:
        """Note a call on `members` threads, where `wanted` were worth it, and how long its caller waited."""
        while wanted > members:
            self._rest[wanted] = self._rest.get(wanted, 0) - elapsed
            wanted //= 2
        if members == 1:
            if pace is not None:
                pace.note_alone(elapsed)
            return
        fewer = SURE * (elapsed - waited) * members / (members // 2)
        if pace is not None:
            pace.is_short = elapsed - waited < SHORT
            if pace.alone:
                fewer = pace.alone if members == 2 else min(fewer, pace.alone)
        credit = min(MOST_CREDIT, self._credit.get(members, MOST_CREDIT) + fewer - elapsed)
        if credit < 0:
            self._rest[members] = min(MOST_REST, -credit * REST)
        self._credit[members] = max(0, credit)


# The processors that this process may use, and the number of them worth a thread each.


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
