"""What one process decides alone in a `fit`, and what several decide together."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import numpy as np

from rnnfast import _check
from rnnfast.layers.state import State, joined
from rnnfast.layers.window import Blocks, falling_order
from rnnfast.models.model import Model
from rnnfast.training.safety import Interrupts, StopTraining, TrainingDiverged


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
    return OneProcess() if ranks is None or ranks.size == 1 else Processes(ranks)


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


# Decisions of a `fit` that all ranks take together, and work that rank 0 does alone.


# Errors that all ranks raise at the same step.
_TOGETHER = (KeyboardInterrupt, TrainingDiverged, _check.CheckpointError)


class Processes(OneProcess):
    """The ranks of one `fit`.

    As a context, it ends all ranks if one is lost, and records Ctrl-C until the ranks have agreed on it.

    Parameters
    ----------
    ranks : Ranks
    """

    def __init__(self, ranks: Any) -> None:
        self.ranks, self.speaks = ranks, ranks.rank == 0
        self._stack = ExitStack()
        self._interrupts = Interrupts()
        self._stopped = False

    def __enter__(self) -> Processes:
        from rnnfast.distributed.watchdog import Watchdog

        self._stack.enter_context(self._interrupts)  # also while ranks wait for each other at the end
        self._stack.enter_context(Watchdog(self.ranks, _TOGETHER))
        return self

    def __exit__(self, *error: Any) -> bool | None:
        return self._stack.__exit__(*error)

    def begin(self, trainer: Any, describe: Callable[[], Any]) -> None:
        """Give every rank the parameters, random numbers and order of rank 0; ValueError unless all ranks
        have the same model, data and options."""
        description = describe()
        same = self.ranks.agreed(description) == description
        if self.ranks.any(not same):
            raise ValueError(
                "Trainer.fit: the ranks differ in their model, data or options; each must run "
                "the same program."
            )
        model = trainer.model
        seeds, trainer.order_seed = self.ranks.agreed((getattr(model, "rng_state", ()), trainer.order_seed))
        for param in model.params:
            param[...] = self.ranks.agreed(param)
        if seeds:
            model.rng_state = seeds

    def call(self, function: Callable[..., object] | None, *arguments: Any) -> None:
        """Call a user's function on rank 0; `synchronize` tells the others what it asks for."""
        if not self.speaks:
            return
        try:
            super().call(function, *arguments)
        except StopTraining:
            self._stopped = True
        except BaseException as error:  # of this rank alone, whatever it is
            raise _check.training.failed_on_rank_0(function) from error

    def synchronize(self, optimizer: Any, due: bool) -> bool:
        """Agree on the end of training, on the learning rate and on whether a file is due, as rank 0 says.

        Raises KeyboardInterrupt on every rank if one was interrupted, StopTraining if a function of rank 0
        raised it.
        """
        own = np.array([self._interrupts.asked, self._stopped, due, optimizer.lr], np.float64)
        told = self.ranks.rows(own).reshape(self.ranks.size, -1)
        self._stopped = False
        if optimizer.lr != told[0, 3]:
            optimizer.lr = told[0, 3]
        if told[:, 0].any():
            self._interrupts.answer()
            raise KeyboardInterrupt
        if told[0, 1]:
            raise StopTraining
        return bool(told[0, 2])

    @contextmanager
    def all_or_none(self, path: Any) -> Iterator[None]:
        """A block that fails on all ranks if it fails on one."""
        error: BaseException | None = None
        try:
            yield
        except Exception as raised:
            error = raised
        if self.ranks.any(error is not None):
            raise error or _check.training.other_rank_failed(path)

    def agreed(self, value: Any) -> Any:
        """The value of rank 0."""
        return self.ranks.agreed(value)

    def whole(self, state: State) -> State:
        """The state of the whole batch on rank 0, from the rows of each rank."""
        states = self.ranks.gathered(state)
        return state if states is None else joined(states)
