"""How ranks exchange arrays: through shared memory on one machine, by messages between machines.

Both leave the same bits: the pairwise tree sums of `kernels/team/tree.py`. `Ranks` chooses one, says what
`rows` and `begin` do, and gives the function `wait`, which returns once another function returns True; a wait
for messages that are on their way does not sleep.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from rnnfast.kernels.team import tree
from rnnfast.layers.base import Workspace


class Wait(Protocol):
    """`Ranks._wait`."""

    def __call__(self, done: Callable[[], bool], *, sleeps: bool = True) -> None: ...


# Numbers of a rank that `rows` passes at once: through the window, and between machines.
WINDOW_ROWS = 4096
MESSAGE_ROWS = 63
_PAGE = 4096


class Pending(Protocol):
    """Sums that have begun."""

    def finish(self) -> None:
        """Return once the sums are in the arrays."""


class Exchange(Protocol):
    """What `Ranks` needs of a way to exchange."""

    def rows(self, own: np.ndarray) -> np.ndarray:
        """The numbers of all ranks, in their order."""

    def begin(self, arrays: Sequence[np.ndarray]) -> Pending:
        """Begin to sum flat arrays over the ranks."""

    def close(self) -> None:
        """Free what MPI holds; all ranks call it."""


class Alone:
    """A single rank, which has all sums."""

    def rows(self, own: np.ndarray) -> np.ndarray:
        return own.copy()

    def begin(self, arrays: Sequence[np.ndarray]) -> Pending:
        return self

    def finish(self) -> None:
        pass

    def close(self) -> None:
        pass


class Window:
    """Ranks of one machine, which share a window of memory.

    MPI makes the window and is not needed afterwards: flags in it say how far the ranks are. It holds the
    flags of each rank, two boxes of each for `rows` (a rank may fill the next one while others still read the
    last), and chunks of arrays.

    Arrays are summed in `finish`. A thread that summed them while the caller computed did not gain: an LSTM
    pass of 430 ms and ten million float32, two ranks on two busy cores, took 469 ms with it and 461 without.
    """

    def __init__(self, communicator: Any, wait: Wait) -> None:
        from mpi4py import MPI

        self._rank, ranks, self._wait = communicator.rank, communicator.size, wait
        row = WINDOW_ROWS + 1
        depth = max(2, tree.WINDOW_BYTES // (ranks * tree.CHUNK_BYTES))
        parts = [ranks * 8 * tree.FLAGS, ranks * 2 * 8 * row, ranks * depth * tree.CHUNK_BYTES]
        starts = np.cumsum([0, *(-(-part // _PAGE) * _PAGE for part in parts)])
        size = int(starts[-1]) + _PAGE if self._rank == 0 else 0
        self._owner = MPI.Win.Allocate_shared(size, 1, comm=communicator)
        raw = np.frombuffer(self._owner.Shared_query(0)[0], np.uint8)
        raw = raw[-raw.ctypes.data % _PAGE :]
        flags, boxes, chunks = (raw[a : a + n] for a, n in zip(starts, parts, strict=False))
        self._flags = flags.view(np.int64).reshape(ranks, tree.FLAGS)
        self._boxes = boxes.view(np.float64).reshape(ranks, 2, row)
        self._chunks = {
            np.dtype(dtype): (
                chunks.view(dtype).reshape(ranks, depth, -1),
                np.empty((ranks, tree.BLOCK), dtype),
            )
            for dtype in (np.float32, np.float64)
        }
        self._meetings = self._passed = self._begun = self._finished = 0
        self._waiting: deque[np.ndarray] = deque()
        if self._rank == 0:
            self._flags[:] = 0
        communicator.Barrier()

    def rows(self, own: np.ndarray) -> np.ndarray:
        pieces = []
        while True:
            box = self._boxes[:, self._meetings % 2]
            box[self._rank, 0] = own.size
            box[self._rank, 1 : own.size + 1] = own[:WINDOW_ROWS]
            self._meet()
            left = box[:, 0].astype(np.int64)
            pieces.append([row[1 : n + 1].copy() for row, n in zip(box, left, strict=True)])
            own = own[WINDOW_ROWS:]
            if left.max() <= WINDOW_ROWS:
                return np.concatenate([piece for of_rank in zip(*pieces, strict=True) for piece in of_rank])

    def _meet(self) -> None:
        self._meetings += 1
        rank, count, flags = self._rank, self._meetings, self._flags
        if not tree.ranks_met(rank, count, flags):
            self._wait(lambda: tree.ranks_met(rank, count, flags))

    def begin(self, arrays: Sequence[np.ndarray]) -> Pending:
        self._waiting.extend(arrays)
        self._begun += len(arrays)
        return _Begun(self, self._begun)

    def finish(self, count: int) -> None:
        """Sum arrays until this many have been summed."""
        while self._finished < count:
            array = self._waiting[0]
            window, scratch = self._chunks[array.dtype]
            call = self._rank, self._passed, self._flags, window, array, scratch
            if not tree.tree_exchange(*call):
                self._wait(lambda call=call: tree.tree_exchange(*call))  # type: ignore[misc]
            self._passed += -(-array.size // window.shape[2])
            self._waiting.popleft()
            self._finished += 1

    def close(self) -> None:
        del self._flags, self._boxes, self._chunks
        self._owner.Free()


class Messages:
    """Ranks of several machines.

    Each rank receives one slice of an array from all others, adds them up, and sends the sum to all. This
    goes on in the background: `begin` starts the messages, and carries earlier ones further.

    MPI moves a part of a long message at each look, so `finish` first waits, asleep, until all ranks are
    there, and then looks again and again: four megabytes took 500 ms with sleeps between the looks, and 13
    without.
    """

    def __init__(self, communicator: Any, wait: Wait) -> None:
        from mpi4py import MPI

        self._rank, self._ranks, self._wait = communicator.rank, communicator.size, wait
        # MPI requires the same order of messages on all ranks. Slices are sent as the program says, sums when
        # the slices have come: each kind in order, but not the one with the other.
        self._slices, self._sums, self._meetings = (communicator.Dup() for _ in range(3))
        self._types = {np.dtype(np.float32): MPI.FLOAT, np.dtype(np.float64): MPI.DOUBLE}
        self._in_place = MPI.IN_PLACE
        self._workspace, self._buffers = Workspace(), 0
        self._begun = self._awaited = self._finished = 0
        self._arrival: Any = None
        self._transfers: deque[_Transfer] = deque()

    def rows(self, own: np.ndarray) -> np.ndarray:
        box, boxes = np.zeros(MESSAGE_ROWS + 1), np.empty((self._ranks, MESSAGE_ROWS + 1))
        box[0] = own.size
        box[1 : own.size + 1] = own[:MESSAGE_ROWS]
        self._wait(self._slices.Iallgather(box, boxes).Test)
        counts = boxes[:, 0].astype(np.int64)
        if counts.max() <= MESSAGE_ROWS:
            return np.concatenate([row[1 : n + 1] for row, n in zip(boxes, counts, strict=True)])
        everything = np.empty(counts.sum())
        self._wait(self._slices.Iallgatherv(own, [everything, counts]).Test, sleeps=False)
        return everything

    def begin(self, arrays: Sequence[np.ndarray]) -> Pending:
        if not self._transfers:
            self._buffers = 0
        for array in filter(np.size, arrays):
            self._transfers.append(self._start(array))
            self._begun += 1
        self._carry_on()
        return _Begun(self, self._begun)

    def _start(self, array: np.ndarray) -> _Transfer:
        """Send the slices of an array to the ranks that add them up."""
        kind = self._types[array.dtype]
        bounds = np.arange(self._ranks + 1) * array.size // self._ranks
        counts, starts = np.diff(bounds), bounds[:-1]
        own = int(counts[self._rank])
        rows = self._workspace.take(f"slices.{self._buffers}", (self._ranks, own), array.dtype)
        self._buffers += 1
        received = [rows, [own] * self._ranks, np.arange(self._ranks) * own, kind]
        request = self._slices.Ialltoallv([array, counts, starts, kind], received)
        return _Transfer(request, rows, array, [array, counts, starts, kind])

    def _carry_on(self) -> None:
        """Do what can be done without waiting."""
        for transfer in self._transfers:
            if not transfer.is_summed:
                if not transfer.request.Test():
                    break
                transfer.add_up(self._rank)
                transfer.request = self._sums.Iallgatherv(self._in_place, transfer.message)
        while self._transfers and self._transfers[0].is_complete():
            self._transfers.popleft()
            self._finished += 1

    def finish(self, count: int) -> None:
        """Return once this many arrays have been summed."""

        def are_summed() -> bool:
            self._carry_on()
            return self._finished >= count

        if count > self._awaited:
            if self._arrival is None:  # else `wait` has raised
                self._arrival = self._meetings.Ibarrier()
            self._wait(self._arrival.Test)
            self._wait(are_summed, sleeps=False)
            self._awaited, self._arrival = count, None

    def close(self) -> None:
        for communicator in (self._slices, self._sums, self._meetings):
            communicator.Free()


class _Transfer:
    """An array on its way: `request` is for its slices, then for its sums."""

    def __init__(self, request: Any, rows: np.ndarray, array: np.ndarray, message: list) -> None:
        self.request, self.rows, self.array, self.message = request, rows, array, message
        self.is_summed = False

    def add_up(self, rank: int) -> None:
        """Put the sum of the received slices into the array."""
        start = self.message[2][rank]
        tree.tree_sum(self.rows)
        self.array[start : start + self.rows.shape[1]] = self.rows[0]
        self.is_summed = True

    def is_complete(self) -> bool:
        """Whether the array holds all sums."""
        return self.is_summed and self.request.Test()


class _Begun:
    """The first `count` arrays that an exchange has begun."""

    def __init__(self, exchange: Window | Messages, count: int) -> None:
        self._exchange, self._count = exchange, count

    def finish(self) -> None:
        self._exchange.finish(self._count)
