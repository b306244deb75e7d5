"""The thread pool: the number of threads for kernels, and the hand-off of work to them.

A kernel that can share its work takes a team and a member's number (`kernels/team/team.py`). The members
synchronize inside compiled code, so a window is handed to the threads once, not at each step. Results have
the same bits for every number of threads.

Training calls one kernel after another, so a worker that has finished spins for half a millisecond, waiting
for the next call, before it sleeps. A sleeping worker is woken on a processor other than the caller's, which
the spinning caller occupies: left to the system's choice, an LSTM of 2.5 ms took 5.

An exception, above all Ctrl-C, can reach the caller between any two Python instructions. Therefore nothing
here needs to be restored:

* A caller takes the team out of the pool, and gives it back after a successful call. A team that is not given
  back is lost; the pool makes a new one, and the old workers end when no reference to their team is left.
* A worker enters the kernel after its caller (`begin_call`), so never for a call that was interrupted before.
  Compiled code cannot be interrupted, and a caller leaves it only after the last synchronization.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import queue
import sys
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from rnnfast import _check
from rnnfast.engine import load as _processors
from rnnfast.engine.load import Load, Pace
from rnnfast.kernels.team.team import (
    ARRIVALS,
    BASE,
    BY_UNITS,
    CALLS,
    FAILED,
    MEMBERS,
    WAITED,
    let_go,
    new_team,
)

# The least floating-point operations per member for which the hand-off pays. It takes 3 us to a thread
# that is awake, at 1e11 operations/s. Where threads sleep between calls, `Load` finds that callers wait.
LEAST_OPERATIONS = 2e6

# The same for kernels bound by memory, in bytes read and written.
LEAST_BYTES = 1e6

_ALONE = new_team()


class _Worker:
    """A thread that runs the calls sent to it, each as one member of a team; it ends with the team."""

    def __init__(self, team: _Team, member: int) -> None:
        self.member = member
        self.array = team.array
        self.calls: queue.SimpleQueue[Any] = queue.SimpleQueue()  # anything but a tuple ends the worker
        self.team = weakref.ref(team, self.calls.put)  # sent when the team is gone, without running Python
        self.asleep = True  # a hint
        self.ended = False
        self.processors: set[int] = set()
        self.error: BaseException | None = None
        # The thread object is not kept: Python would remove it in a callback, which can lose an interrupt.
        thread = threading.Thread(target=self.run, name=f"rnnfast-{member}", daemon=True)
        thread.start()
        self.native_id = thread.native_id

    def post(self, call: tuple) -> None:
        """Send a call to the thread."""
        if self.asleep:
            _place(self)
        self.calls.put(call)

    def run(self) -> None:
        """The thread's loop, in one function: a function call per kernel call took a microsecond."""
        calls, array, member = self.calls, self.array, self.member
        try:
            while True:
                self.asleep = True
                call = calls.get()
                self.asleep = False
                if not isinstance(call, tuple):
                    break
                kernel, number, arguments = call
                if self.processors:
                    _set_free(self)
                if array.item(CALLS) < number and not self._caller_enters(number):
                    break
                kernel(array, member, *arguments)
                del call, kernel, arguments  # while asleep, keep no arrays of the caller
        except BaseException as error:
            self.error = error
        finally:
            let_go(array)
            self.ended = True

    def _caller_enters(self, number: int) -> bool:
        """Wait until the caller has entered the kernel, given up, or lost its team."""
        pause = 0.0
        while self.array.item(CALLS) < number:
            if self.array.item(ARRIVALS) >= FAILED or self.team() is None:
                return False
            time.sleep(pause)
            pause = min(1e-3, pause + 1e-6)
        return True


_processor = getattr(ctypes.PyDLL(None), "sched_getcpu", None) if sys.platform == "linux" else None


def _place(worker: _Worker) -> None:
    """Make a sleeping thread wake on a processor other than the caller's, if the system allows it."""
    if _processor is None or not worker.native_id:
        return
    with contextlib.suppress(OSError):  # forbidden in some sandboxes: the system then chooses
        processors = os.sched_getaffinity(0)
        if others := sorted(processors - {_processor()}):
            os.sched_setaffinity(worker.native_id, {others[(worker.member - 1) % len(others)]})
            worker.processors = processors


def _set_free(worker: _Worker) -> None:
    """Let a placed thread run on all processors of its caller again."""
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, worker.processors)
    worker.processors = set()


class _Team:
    """Threads that run calls together with the caller that holds the team; never used after a failure."""

    def __init__(self) -> None:
        self.array = new_team()
        self.workers: list[_Worker] = []

    @property
    def failed(self) -> bool:
        """Whether the members have been released after a failure."""
        return self.array.item(ARRIVALS) >= FAILED

    def grows_to(self, members: int) -> bool:
        """Grow to this number of members, including the caller; False if the system refuses threads."""
        try:
            while len(self.workers) < members - 1:
                self.workers.append(_Worker(self, len(self.workers) + 1))
        except RuntimeError:  # "can't start new thread"
            return False
        return True

    def call(self, kernel: Any, members: int, by_units: bool, arguments: Sequence[Any]) -> Any:
        """Run a kernel. When this returns or raises, no worker is running it."""
        array = self.array
        # The remainder, because a worker that fails now makes goals above FAILED unreachable.
        array[MEMBERS], array[BY_UNITS], array[BASE] = members, by_units, array.item(ARRIVALS) % FAILED
        call = kernel, array.item(CALLS) + 1, arguments
        try:
            begin = time.perf_counter_ns()
            for worker in self.workers[: members - 1]:
                worker.post(call)
            array[WAITED] = time.perf_counter_ns() - begin
            result = kernel(array, 0, *arguments)
            if self.failed:
                error = next((worker.error for worker in self.workers if worker.error is not None), None)
                raise RuntimeError("a kernel failed on another thread") from error
        except BaseException:
            self.give_up()
            raise
        return result

    def give_up(self) -> None:
        """End the workers and wait for them. An interrupt is raised afterwards."""
        interrupt = None
        while True:
            try:
                let_go(self.array)
                for worker in self.workers:
                    worker.calls.put(None)
                while not all(worker.ended for worker in self.workers):
                    time.sleep(1e-4)
                break
            except BaseException as error:
                interrupt = error
        if interrupt is not None:
            raise interrupt


class _Pool:
    """The holder of this process's team while no caller uses it."""

    def __init__(self) -> None:
        self.idle: list[_Team] = []
        self.newest: Callable[[], _Team | None] = lambda: None  # a weak reference to the last one made
        self.known: set[tuple[Any, ...]] = set()
        self.load = Load()

    def take(self, members: int) -> _Team | None:
        """A team of at least this size; None if another caller has it or the system refuses threads."""
        team: _Team | None
        try:
            team = self.idle.pop()
        except IndexError:
            team = self.newest()
            if team is not None and not team.failed:
                return None
        if team is None or team.failed:
            team = _Team()
            self.newest = weakref.ref(team)
        if team.grows_to(members):
            return team
        self.give_back(team)
        return None

    def give_back(self, team: _Team) -> None:
        """Keep a team for the next call, unless it is now larger than wanted."""
        if team is self.newest() and len(team.workers) < get_num_threads():
            self.idle.append(team)

    def shrink(self, members: int) -> None:
        """End a team with more members than this; the next call makes a new one."""
        if any(len(team.workers) >= members for team in self.idle):
            self.idle.clear()


_pool = _Pool()
_threads: int | None = None
_is_default = False  # nobody has set the number
_borrowed: Callable[..., Any] | None = None


def _after_fork() -> None:
    """Reset the pool in the child, which has no workers."""
    global _pool
    _pool = _Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def get_num_threads() -> int:
    """The thread limit of kernels: the number set, else RNNFAST_NUM_THREADS, else the process's cores.

    OMP_NUM_THREADS and NUMBA_NUM_THREADS, which joblib and Dask set for their workers, lower the last of
    these, and ranks of MPI on one machine share its cores. Kernels never use more threads than this process
    has processors.

    Returns
    -------
    n : int
        At least 1, including the caller's thread.

    Raises
    ------
    ValueError
        RNNFAST_NUM_THREADS is not a whole number of at least 1. It is read once: here, or by the first call
        of a layer, which then does nothing; never if `set_num_threads` was called before.

    Examples
    --------
    >>> import rnnfast
    >>> rnnfast.get_num_threads() >= 1
    True
    """
    global _threads, _is_default
    if _threads is None:
        wanted = os.environ.get("RNNFAST_NUM_THREADS", "").strip()
        _threads = (
            _check.values.threads("RNNFAST_NUM_THREADS", wanted) if wanted else _processors.worthwhile()
        )
        _is_default = not wanted
    return _threads


def set_num_threads(n: int) -> None:
    """Let kernels run on `n` threads, including the caller's. Results have the same bits for every `n`.

    `n` is an upper bound. Small problems always run on one thread, and no kernel uses more threads than this
    process has processors. Threads start when they are first needed. While other programs keep processors
    busy, so that threads wait for one another, calls use fewer; now and then one tries more, which costs 3 %
    of the time.

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
    global _threads, _is_default
    _threads, _is_default = _check.values.size("set_num_threads", "n", n), False
    _pool.shrink(_threads)


def share_with(others: Sequence[AbstractSet[int]]) -> None:
    """Share this machine with other ranks, unless the number of threads was set; `others` holds the sets of
    processors on which they may run."""
    global _threads
    get_num_threads()
    if _is_default:
        _threads = _processors.worthwhile_beside(others)
        _pool.shrink(_threads)


def members_for(operations: float, most: int) -> int:
    """The number of threads for a call with this many operations that splits into at most `most` parts."""
    return _members(min(most, int(operations / LEAST_OPERATIONS)))


def members_for_bytes(count: float, most: int) -> int:
    """As `members_for`, for a call bound by memory, from the bytes that it reads and writes."""
    return _members(min(most, int(count / LEAST_BYTES)))


def _members(most: int) -> int:
    """At most `most` threads, and one per processor: two on one processor would wait for each other."""
    most = min(most, get_num_threads())
    return min(most, _processors.allowed()) if most > 1 else 1


def borrow(run_on: Callable[..., Any] | None) -> None:
    """Run calls with several threads by `run_on(kernel, team, arguments)` on threads of another library, or
    on our own if None is given. `team` is the array of a fresh team; the time that the call takes outside the
    kernel is added to its WAITED."""
    global _borrowed
    _borrowed = run_on


def run(kernel: Any, members: int, by_units: bool, arguments: Sequence[Any], pace: Pace | None = None) -> Any:
    """Run `kernel(team, member, *arguments)` on `members` threads; returns the caller's result (member 0).

    The types of all arguments follow from the dtype of the first, an array, and from whether the second is
    None. `pace` belongs to calls of the same kind.

    Fewer threads are used where the other processors are busy; one, while another caller holds the team, and
    for the first call of a kernel with new types of arguments, which compiles it.
    """
    if members == 1:
        return kernel(_ALONE, 0, *arguments)
    pool = _pool
    key = kernel, arguments[0].dtype, len(arguments) > 1 and arguments[1] is None
    if key not in pool.known:
        result = kernel(_ALONE, 0, *arguments)
        pool.known.add(key)
        return result
    wanted, members, begin = members, pool.load.members(members, pace), time.perf_counter_ns()
    result, waited = _run(pool, kernel, members, by_units, arguments)
    if waited is not None:
        pool.load.note(wanted, members, time.perf_counter_ns() - begin, waited, pace)
    return result


def _run(
    pool: _Pool, kernel: Any, members: int, by_units: bool, arguments: Sequence[Any]
) -> tuple[Any, int | None]:
    """The caller's result, and for how many ns it waited for other members; None if they were not there."""
    if members == 1:
        return kernel(_ALONE, 0, *arguments), 0
    if _borrowed is not None:
        array = new_team(members, by_units)
        return _borrowed(kernel, array, arguments), array.item(WAITED)
    team = pool.take(members)
    if team is None:
        return kernel(_ALONE, 0, *arguments), None
    try:
        result = team.call(kernel, members, by_units, arguments)
        waited = team.array.item(WAITED)
        pool.give_back(team)
    except BaseException:
        team.give_up()  # again: a second interrupt may have cut short the one in `call`
        raise
    return result, waited
