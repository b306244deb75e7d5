"""The thread pool: how many threads kernels run on, and their hand-off.

A kernel that can share its work takes a team and a member's number (`kernels/team.py`). Its members meet
inside compiled code, so a window is handed to the threads once, not at each step. Results have the same bits
for every number of threads.

A worker that has finished looks out for more work for some 100 us before it goes to sleep: training calls
one kernel after another, and waking a thread takes longer than such a gap.
"""

from __future__ import annotations

import os
import queue
import threading
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.kernels._jit import jit_is_disabled
from rnnfast.kernels.team import ARRIVALS, BY_UNITS, MEMBERS, TEAM_SIZE, wait_for_change

# Floating-point operations that a member must have for the hand-off to be worth it: 15 to 20 us of it, and
# about 1e11 operations a second.
LEAST_OPERATIONS = 1e7

# The same for kernels that wait for memory, in bytes read and written.
LEAST_BYTES = 1e6

_LOOKS = 2000  # of a worker before it sleeps, some 100 us
_FAILED = 1 << 62  # arrivals that let everybody go

_ALONE = np.zeros(TEAM_SIZE, np.int64)
_ALONE[MEMBERS] = 1


class _Worker(threading.Thread):
    """Waits for calls, makes each as one member of a team."""

    def __init__(self, member: int) -> None:
        super().__init__(name=f"rnnfast-{member}", daemon=True)
        self.member = member
        self.calls: queue.SimpleQueue = queue.SimpleQueue()
        self.posted = np.zeros(1, np.int64)
        self.error: BaseException | None = None
        self.start()

    def post(self, kernel: Any, team: np.ndarray, arguments: tuple) -> None:
        """Have a call made; None ends the thread."""
        self.posted[0] += 1
        self.calls.put((kernel, team, arguments))

    def run(self) -> None:
        seen = 0
        while True:
            if not jit_is_disabled():
                wait_for_change(self.posted, seen, _LOOKS)
            kernel, team, arguments = self.calls.get()
            seen += 1
            if kernel is None:
                return
            try:
                kernel(team, self.member, *arguments)
            except BaseException as error:
                self.error = error
                team[ARRIVALS] = _FAILED
            del kernel, team, arguments


class _Pool:
    """The workers of this process; one call at a time."""

    def __init__(self) -> None:
        self.free = threading.Lock()
        self.workers: list[_Worker] = []
        self.known: set[tuple[Any, Any]] = set()

    def resize(self, members: int) -> None:
        """As many threads as members, the caller being one; the others end."""
        while len(self.workers) < members - 1:
            self.workers.append(_Worker(len(self.workers) + 1))
        while len(self.workers) > members - 1:
            self.workers.pop().post(None, _ALONE, ())


def _default_threads() -> int:
    """RNNFAST_NUM_THREADS, or the cores this process may run on."""
    wanted = os.environ.get("RNNFAST_NUM_THREADS", "").strip()
    if wanted:
        return _check.threads("RNNFAST_NUM_THREADS", wanted)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_pool = _Pool()
_threads: int | None = None


def _after_fork() -> None:
    """The child has no workers; the lock may be held by a thread that is not there."""
    global _pool
    _pool = _Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def get_num_threads() -> int:
    """Threads that kernels run on: those set, else RNNFAST_NUM_THREADS, else the cores of this process.

    Returns
    -------
    n : int
        At least 1, the caller's own thread included.

    Examples
    --------
    >>> import rnnfast
    >>> rnnfast.get_num_threads() >= 1
    True
    """
    global _threads
    if _threads is None:
        _threads = _default_threads()
    return _threads


def set_num_threads(n: int) -> None:
    """Let kernels run on `n` threads, the caller's included. Results do not depend on it, bit for bit.

    Small problems run on one thread however many there are. Threads are started when they are first needed.

    Raises
    ------
    TypeError, ValueError
        `n` is not an integer, or below 1.

    Examples
    --------
    >>> import rnnfast
    >>> before = rnnfast.get_num_threads()
    >>> rnnfast.set_num_threads(1)
    >>> rnnfast.get_num_threads()
    1
    >>> rnnfast.set_num_threads(before)
    """
    global _threads
    _threads = _check.size("set_num_threads", "n", n)
    if _pool.free.acquire(blocking=False):
        try:
            _pool.resize(min(_threads, len(_pool.workers) + 1))
        finally:
            _pool.free.release()


def members_for(operations: float, most: int) -> int:
    """How many threads a call with so much work, which can be cut into `most` parts, is worth."""
    return max(1, min(get_num_threads(), most, int(operations / LEAST_OPERATIONS)))


def members_for_bytes(count: float, most: int) -> int:
    """The same for a call that waits for memory, by the bytes that it reads and writes."""
    return max(1, min(get_num_threads(), most, int(count / LEAST_BYTES)))


def run(kernel: Any, members: int, by_units: bool, arguments: tuple) -> Any:
    """`kernel(team, member, *arguments)` on so many threads; what it returns for the caller, member 0.

    On one thread where the pool is at work for another caller, and the first time for a kernel and dtype,
    which then compiles alone.
    """
    if members == 1 or not _pool.free.acquire(blocking=False):
        return kernel(_ALONE, 0, *arguments)
    pool = _pool
    try:
        key = kernel, next(a.dtype for a in arguments if isinstance(a, np.ndarray))
        if key not in pool.known:
            result = kernel(_ALONE, 0, *arguments)
            pool.known.add(key)
            return result
        pool.resize(max(members, len(pool.workers) + 1))
        team = np.zeros(TEAM_SIZE, np.int64)
        team[MEMBERS], team[BY_UNITS] = members, by_units
        try:
            for worker in pool.workers[: members - 1]:
                worker.post(kernel, team, arguments)
            result = kernel(team, 0, *arguments)
        except BaseException:
            team[ARRIVALS] = _FAILED
            raise
        if team[ARRIVALS] >= _FAILED:
            raise RuntimeError("a kernel failed on another thread") from pool.workers[0].error
        return result
    finally:
        pool.free.release()
