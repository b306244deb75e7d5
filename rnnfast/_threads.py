"""The thread pool: how many threads kernels run on, and their hand-off.

A kernel that can share its work takes a team and a member's number (`kernels/team.py`). Its members meet
inside compiled code, so a window is handed to the threads once, not at each step. Results have the same bits
for every number of threads.

A worker that has finished stays in the kernel and looks out for the next call for half a millisecond before
it goes to sleep: training calls one kernel after another. A sleeping one is woken on another processor than
that of the caller, which will wait for it there: the system's own choice made an LSTM of 2.5 ms take 5.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import os
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.kernels.team import ARRIVALS, BASE, BY_UNITS, MEMBERS, TEAM_SIZE

# Floating-point operations that a member must have for the hand-off to be worth it: some 30 us, and 1e11 to
# 2e11 operations a second. With 4e6 an LSTM (10, 5, 100, 100) takes 0.92 and 0.74 of the time forward and
# backward, but many times as long where another program is at work on the second core.
LEAST_OPERATIONS = 1e7

# The same for kernels that wait for memory, in bytes read and written.
LEAST_BYTES = 1e6

_FAILED = 1 << 62  # arrivals that let everybody go

_ALONE = np.zeros(TEAM_SIZE, np.int64)
_ALONE[MEMBERS] = 1


class _Worker(threading.Thread):
    """Waits for calls, makes each as one member of a team."""

    def __init__(self, member: int) -> None:
        super().__init__(name=f"rnnfast-{member}", daemon=True)
        self.member = member
        self.calls: collections.deque[tuple] = collections.deque()
        self.posted = self.finished = 0
        self.asleep = False
        self.awake = threading.Lock()
        self.awake.acquire()
        self.processors: set[int] = set()
        self.error: BaseException | None = None
        self.start()

    def post(self, kernel: Any, team: np.ndarray, arguments: Sequence[Any]) -> None:
        """Have a call made; without a kernel, end."""
        self.posted += 1
        self.calls.append((kernel, team, arguments))
        if self.asleep and self.awake.locked():
            _place(self)
            self.awake.release()

    def run(self) -> None:
        while True:
            self.asleep = True  # said before looking for a call, so that none is overlooked
            while not self.calls:
                self.awake.acquire()
            self.asleep = False
            kernel, team, arguments = self.calls.popleft()
            if kernel is None:
                return
            try:
                _set_free(self)
                kernel(team, self.member, *arguments)
            except BaseException as error:
                self.error = error
                team[ARRIVALS] = _FAILED
            finally:
                self.finished += 1
            del kernel, team, arguments


_processor = getattr(ctypes.PyDLL(None), "sched_getcpu", None) if sys.platform == "linux" else None


def _place(worker: _Worker) -> None:
    """Have a sleeping thread wake up on a processor of its own, not on the caller's, if the system allows."""
    if _processor is None or not worker.native_id:
        return
    with contextlib.suppress(OSError):  # forbidden in some sandboxes: then it is the system's choice
        processors = os.sched_getaffinity(0)
        if others := sorted(processors - {_processor()}):
            os.sched_setaffinity(worker.native_id, {others[(worker.member - 1) % len(others)]})
            worker.processors = processors


def _set_free(worker: _Worker) -> None:
    """Let a thread that was placed run where its caller may."""
    if worker.processors:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, worker.processors)
        worker.processors = set()


class _Pool:
    """The workers of this process; one call at a time."""

    def __init__(self) -> None:
        self.free = threading.Lock()
        self.workers: list[_Worker] = []
        self.known: set[tuple[Any, ...]] = set()
        self.team = np.zeros(TEAM_SIZE, np.int64)

    def resize(self, members: int) -> None:
        """As many threads as members, the caller being one; the others end."""
        while len(self.workers) < members - 1:
            self.workers.append(_Worker(len(self.workers) + 1))
        while len(self.workers) > members - 1:
            self.workers.pop().post(None, _ALONE, ())

    def call(self, kernel: Any, members: int, by_units: bool, arguments: Sequence[Any]) -> Any:
        """Run a kernel on a team. No worker is at it any more when this returns or raises."""
        team = self.team
        team[MEMBERS], team[BY_UNITS], team[BASE] = members, by_units, team[ARRIVALS]
        try:
            for worker in self.workers[: members - 1]:
                worker.post(kernel, team, arguments)
            result = kernel(team, 0, *arguments)
        except BaseException:
            self._give_up(team)
            raise
        if team[ARRIVALS] >= _FAILED:
            self._give_up(team)
            error = next((worker.error for worker in self.workers if worker.error is not None), None)
            for worker in self.workers:
                worker.error = None
            raise RuntimeError("a kernel failed on another thread") from error
        return result

    def _give_up(self, team: np.ndarray) -> None:
        """Let everybody go who waits for a member of this team, and wait until they have."""
        team[ARRIVALS] = _FAILED
        while any(worker.finished < worker.posted and worker.is_alive() for worker in self.workers):
            time.sleep(1e-4)
        self.team = np.zeros(TEAM_SIZE, np.int64)


def _default_threads() -> int:
    """RNNFAST_NUM_THREADS, or the cores this process may use: by affinity, and by a container's quota."""
    wanted = os.environ.get("RNNFAST_NUM_THREADS", "").strip()
    if wanted:
        return _check.threads("RNNFAST_NUM_THREADS", wanted)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, _quota(_CPU_MAX)))


_CPU_MAX = "/sys/fs/cgroup/cpu.max"


def _quota(path: str) -> int:
    """Cores of processor time that a container allows, rounded up; a large number where it says nothing."""
    try:
        with open(path, encoding="ascii") as file:
            most, period = file.read().split()
        return sys.maxsize if most == "max" else -(-int(most) // int(period))
    except (OSError, ValueError):
        return sys.maxsize


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
    pool, owned = _pool, False
    try:
        owned = pool.free.acquire(blocking=False)
        if owned:
            pool.resize(min(_threads, len(pool.workers) + 1))
    finally:
        if owned:
            pool.free.release()


def members_for(operations: float, most: int) -> int:
    """How many threads a call with so much work, which can be cut into `most` parts, is worth."""
    return max(1, min(get_num_threads(), most, int(operations / LEAST_OPERATIONS)))


def members_for_bytes(count: float, most: int) -> int:
    """The same for a call that waits for memory, by the bytes that it reads and writes."""
    return max(1, min(get_num_threads(), most, int(count / LEAST_BYTES)))


def run(kernel: Any, members: int, by_units: bool, arguments: Sequence[Any]) -> Any:
    """`kernel(team, member, *arguments)` on so many threads; what it returns for the caller, member 0.

    On one thread where the pool is at work for another caller, and the first time for a kernel and kinds of
    arguments, which then compiles alone.
    """
    if members == 1:
        return kernel(_ALONE, 0, *arguments)
    pool, owned = _pool, False
    try:
        owned = pool.free.acquire(blocking=False)
        dtype = next(a.dtype for a in arguments if isinstance(a, np.ndarray))
        key = kernel, dtype, sum(a is None for a in arguments)
        if not owned or key not in pool.known or not _grown(pool, members):
            result = kernel(_ALONE, 0, *arguments)
            if owned:
                pool.known.add(key)
            return result
        return pool.call(kernel, members, by_units, arguments)
    finally:
        if owned:
            pool.free.release()


def _grown(pool: _Pool, members: int) -> bool:
    """Whether the pool has so many threads; the system may refuse more."""
    try:
        pool.resize(max(members, len(pool.workers) + 1))
    except RuntimeError:  # "can't start new thread"
        return False
    return True
