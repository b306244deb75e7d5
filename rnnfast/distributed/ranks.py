"""Ranks: the processes that train one model together, and what they exchange."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.distributed.exchanges import Alone, Exchange, Messages, Pending, Window
from rnnfast.engine import load, threads

# A waiting rank offers its core to others for this long before it sleeps.
_AWAKE = 1e-3
# The longest sleep. A shorter wait oversleeps by an eighth.
_LONGEST_SLEEP = 2e-3

_offer_core = getattr(os, "sched_yield", lambda: time.sleep(0))


class Ranks:
    """The processes of an MPI communicator, which exchange gradients and a few numbers.

    Sums over ranks are pairwise trees, ``(r0 + r1) + (r2 + r3)`` for four. Ranks that first sum their blocks
    of a batch by the same tree get the bits of one rank with all blocks. Ranks on one machine exchange arrays
    through shared memory, ranks of several machines by messages; the bits are the same.

    Ranks on one machine also share its processors: each has its part of them as threads, unless a number of
    threads was set.

    All ranks make their `Ranks` together, and call its methods in the same order. A waiting rank answers
    Ctrl-C and sleeps after a millisecond. A ``finish`` that was interrupted may be called again; an exception
    in another method leaves the ranks out of step, so it must end all of them.

    Parameters
    ----------
    communicator : mpi4py.MPI.Intracomm, optional
        ``MPI.COMM_WORLD`` by default. Other messages on it do not disturb.

    Attributes
    ----------
    rank, size : int
        The number of this process, and of all.
    local_size : int
        The number of ranks on this machine.
    communicator : mpi4py.MPI.Intracomm
        A duplicate of the given one.
    check : callable
        Called without arguments while this rank waits, every 20 microseconds at first and every 2 ms later;
        it may raise, for example if another rank has ended. It does nothing by default.

    Raises
    ------
    ImportError
        mpi4py or an MPI library is missing: extra `mpi`.
    TypeError, ValueError
        `communicator` is not an intracommunicator, or its size is not a power of two.

    Notes
    -----
    One and ten million float32, two ranks on cores of an AMD EPYC that share no L2 cache: 0.58 and 7.2 ms;
    MPICH's ``Allreduce``, which promises no order of sums, takes 1.42 and 16.2 ms. The shared memory takes 16
    MB, and 2 MB for each rank above 8.

    Examples
    --------
    Started as ``mpiexec -n 2 python script.py``, this prints ``[3. 3. 3.]`` twice:

    >>> ranks = Ranks()  # doctest: +SKIP
    >>> grad = np.full(3, ranks.rank + 1.0)  # doctest: +SKIP
    >>> ranks.begin([grad]).finish()  # doctest: +SKIP
    >>> print(grad)  # doctest: +SKIP
    [3. 3. 3.]
    """

    def __init__(self, communicator: Any = None, *, _by_messages: bool = False) -> None:
        MPI = _check.training.mpi("Ranks")
        given = MPI.COMM_WORLD if communicator is None else communicator
        if not isinstance(given, MPI.Intracomm):
            raise TypeError(
                "Ranks: communicator must be an mpi4py intracommunicator such as MPI.COMM_WORLD, "
                f"got {type(given).__name__}."
            )
        if not given:
            raise ValueError("Ranks: communicator must include this process, got MPI.COMM_NULL.")
        _check.training.number_of_ranks("Ranks", given.size)
        self.communicator = given.Dup()
        self._machine = given.Split_type(MPI.COMM_TYPE_SHARED)
        self.rank: int = given.rank
        self.size: int = given.size
        self.local_size: int = self._machine.size
        others = self._machine.allgather(load.numbers())
        del others[self._machine.rank]
        threads.share_with(others)
        self.check: Callable[[], None] = _nothing
        self._exchange: Exchange
        if self.size == 1:
            self._exchange = Alone()
        elif self.local_size < self.size or _by_messages:
            self._exchange = Messages(self.communicator, self._wait)
        else:
            self._exchange = Window(self.communicator, self._wait)

    def __repr__(self) -> str:
        return f"<Ranks: {self.rank} of {self.size}, {self.local_size} on this machine>"

    def _wait(self, done: Callable[[], bool], *, sleeps: bool = True) -> None:
        began = time.perf_counter()
        while not done():
            self.check()
            waited = time.perf_counter() - began
            if waited < _AWAKE or not sleeps:
                _offer_core()
            else:
                time.sleep(min(waited / 8, _LONGEST_SLEEP))

    def rows(self, own: np.ndarray) -> np.ndarray:
        """The numbers of all ranks, in the order of ranks.

        Parameters
        ----------
        own : ndarray
            (k,) float64, a few numbers of this rank; k may differ between ranks.

        Returns
        -------
        numbers : ndarray
            (k of rank 0 + k of rank 1 + ..,) float64, the same on every rank.
        """
        return self._exchange.rows(np.asarray(own, np.float64))

    def begin(self, arrays: Sequence[np.ndarray]) -> Pending:
        """Begin to sum arrays over the ranks, in place.

        The arrays must not be touched until ``finish()`` of the returned object, which returns once they hold
        the sums on this rank. Several may be pending. They are begun, and finished, in the same order on all
        ranks; ``finish`` of a later one also finishes those before. Between machines, messages travel
        meanwhile. On one machine the sums are made in ``finish``.

        Parameters
        ----------
        arrays : sequence of ndarray
            float32 or float64 of any shapes, C-contiguous, the same shapes and types on every rank.

        Returns
        -------
        pending : object
            Has the method ``finish()``.

        Raises
        ------
        TypeError, ValueError
            An array is of another type, or not contiguous.
        """
        return self._exchange.begin([_check.training.exchanged("Ranks.begin", array) for array in arrays])

    def agreed(self, value: Any) -> Any:
        """The value of rank 0, on every rank.

        Parameters
        ----------
        value : object
            What pickle can write; that of other ranks is ignored.
        """
        if self.size == 1:
            return value
        MPI = _check.training.mpi("Ranks")
        written = MPI.pickle.dumps(value) if self.rank == 0 else b""
        count = int(self.rows(np.array([len(written)]))[0])
        content = np.frombuffer(written, np.uint8).copy() if self.rank == 0 else np.empty(count, np.uint8)
        self._wait(self.communicator.Ibcast(content, root=0).Test, sleeps=False)
        return value if self.rank == 0 else MPI.pickle.loads(content)

    def gathered(self, value: Any) -> list[Any] | None:
        """The values of all ranks, in their order, on rank 0; None on the others.

        Parameters
        ----------
        value : object
            What pickle can write.
        """
        if self.size == 1:
            return [value]
        MPI = _check.training.mpi("Ranks")
        written = np.frombuffer(MPI.pickle.dumps(value), np.uint8)
        counts = self.rows(np.array([written.size])).astype(np.int64)
        content = np.empty(int(counts.sum()) if self.rank == 0 else 0, np.uint8)
        self._wait(self.communicator.Igatherv(written, [content, counts], root=0).Test)
        if self.rank:
            return None
        return [MPI.pickle.loads(part) for part in np.split(content, np.cumsum(counts)[:-1])]

    def any(self, flag: bool) -> bool:
        """Whether at least one rank says so."""
        return bool(self.rows(np.array([bool(flag)])).any())

    def barrier(self) -> None:
        """Wait until all ranks have come here."""
        self.rows(np.empty(0))

    def close(self) -> None:
        """Free the shared memory and the communicators; all ranks call it, as the last method.

        Without it they are freed when the process ends.
        """
        self._exchange.close()
        self._machine.Free()
        self.communicator.Free()


def _nothing() -> None:
    pass
