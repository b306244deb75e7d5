"""What one process decides alone in a `fit`, and `rnnfast.distributed` for several processes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from rnnfast import _check
from rnnfast.layers.state import State
from rnnfast.layers.window import Blocks, falling_order
from rnnfast.models.model import Model


def ranks_of(ranks: Any) -> Any:
    """`Ranks` of a communicator of mpi4py, of all processes for "world", or as given; None stays None."""
    if ranks is None or hasattr(ranks, "rows"):
        return ranks
    from rnnfast.distributed.ranks import Ranks

    return Ranks(None if isinstance(ranks, str) and ranks == "world" else ranks)


@contextmanager
def joined_ranks(ranks: Any) -> Iterator[Any]:
    """`ranks_of`, closed at the end of the block if they are made here; not after an error, since closing
    needs all ranks."""
    ours = ranks_of(ranks)
    yield ours
    if ours is not ranks:
        ours.close()


def processes_of(ranks: Any) -> OneProcess:
    """The processes of one `fit`, with the decisions that they take together."""
    if ranks is None or ranks.size == 1:
        return OneProcess()
    from rnnfast.distributed.synchronize import Processes

    return Processes(ranks)


def _takes_blocks(method: Callable[..., Any]) -> bool:
    """Whether a method, which a subclass may have replaced, has the parameter `blocks`."""
    return "blocks" in inspect.signature(method).parameters


class OneProcess:
    """A process that trains alone: nothing needs agreement. `Processes` overrides what ranks agree on."""

    ranks: Any = None
    speaks = True  # whether this process reports and writes files

    def __enter__(self) -> OneProcess:
        return self

    def __exit__(self, *error: Any) -> bool | None:
        return None

    def blocks(self, trainer: Any, batch_size: int, number: int | None) -> BatchBlocks | None:
        """The blocks of a batch, by default a number that follows from its size; None for one block in one
        process."""
        model, bptt = trainer.model, trainer.bptt
        able = (
            isinstance(model, Model)
            and getattr(bptt, "takes_blocks", False)
            and all(_takes_blocks(method) for method in (trainer.model.forward, bptt.windows, bptt.batches))
        )
        number = number or (blocks_of(int(batch_size)) if able else 1)
        size = 1 if self.ranks is None else self.ranks.size
        if number == size == 1:
            return None
        if not able:
            raise ValueError(
                "Trainer.fit: ranks and blocks need TruncatedBPTT(k1), whose gradients end at "
                f"each window, and a model of rnnfast.models; got {bptt!r:.60} and "
                f"{type(model).__name__}."
            )
        _check.training.ranks_divide_blocks("Trainer.fit", size, number, batch_size, LEAST_ROWS)
        return BatchBlocks(number, self.ranks)

    def begin(self, trainer: Any, describe: Callable[[], Any]) -> None:
        """Give every process the parameters, random numbers and order of the first."""

    def call(self, function: Callable[..., object] | None, *arguments: Any) -> None:
        """Call a user's function."""
        if function is not None:
            function(*arguments)

    def synchronize(self, optimizer: Any, due: bool) -> bool:
        """Whether a file is due, after the processes have agreed on the end of training."""
        return due

    @contextmanager
    def all_or_none(self, path: Any) -> Iterator[None]:
        """A block that fails on all processes if it fails on one."""
        yield

    def agreed(self, value: Any) -> Any:
        """The value of the first process."""
        return value

    def whole(self, state: State) -> State:
        """The state of the whole batch, from the rows of each process."""
        return state


# How a batch is cut into blocks of rows, and which of them this process has.


# A batch is cut into the largest of these numbers of blocks that leaves LEAST_ROWS rows to each block.
_NUMBERS, LEAST_ROWS = (8, 4, 2), 5


def blocks_of(batch_size: int) -> int:
    """The number of blocks of a batch: 8, 4, 2 or 1.

    Examples
    --------
    >>> [blocks_of(size) for size in (8, 10, 20, 40, 500)]
    [1, 2, 4, 8, 8]
    """
    return next((number for number in _NUMBERS if batch_size >= number * LEAST_ROWS), 1)


class Cut(NamedTuple):
    """The rows of a batch on this process, and their blocks."""

    rows: np.ndarray  # places in the batch
    blocks: Blocks
    among: slice  # places of the rows among those of all processes


class BatchBlocks:
    """Cuts batches into a fixed number of blocks, of which each process has the same number.

    Parameters
    ----------
    number : int
        Blocks of a batch, a power of two.
    ranks : Ranks, optional
        The processes, whose number divides `number`; one by default.
    """

    def __init__(self, number: int, ranks: Any = None) -> None:
        self.number, self._ranks = number, ranks
        self._known: dict[int, Cut] = {}

    def among(self, count: int) -> slice:
        """The places of this process's rows among the `count` rows of a batch, in the order of blocks."""
        return self.cut(count).among

    def cut(self, count: int, lengths: np.ndarray | None = None) -> Cut:
        """The part of this process in a batch of `count` rows.

        With lengths (count,), rows are dealt out by falling length, so that blocks have equal work.
        """
        if lengths is None and count in self._known:
            return self._known[count]
        number, ranks = self.number, self._ranks
        order = np.arange(count)
        if lengths is None:
            parts = np.array_split(order, number)
        else:
            falling = falling_order(lengths)
            parts = [falling[place::number] for place in range(number)]
        bounds = np.concatenate(([0], np.cumsum([part.size for part in parts])))
        size, rank = (1, 0) if ranks is None else (ranks.size, ranks.rank)
        own = slice(rank * number // size, (rank + 1) * number // size)
        first, last = bounds[own.start], bounds[own.stop]
        exchange = ranks if size > 1 else None
        least = int(np.diff(bounds).min())
        blocks = Blocks(bounds[own.start : own.stop + 1] - first, int(first), least, exchange)
        found = Cut(np.concatenate(parts)[first:last], blocks, slice(int(first), int(last)))
        if lengths is None:
            self._known[count] = found
        return found
