"""Decisions of a `fit` that all ranks take alike, and work that rank 0 does alone."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.distributed.lost_ranks import Watcher
from rnnfast.layers.state import State, joined
from rnnfast.models.model import Model
from rnnfast.training.batch_blocks import LEAST_ROWS, BatchBlocks, blocks_of
from rnnfast.training.safety import Interrupts, StopTraining, TrainingDiverged

_ALIKE = (KeyboardInterrupt, TrainingDiverged, _check.CheckpointError)


def ranks_of(ranks: Any) -> Any:
    """`Ranks` of a communicator of mpi4py, of all processes for "world", or as given; None stays None."""
    if ranks is None or hasattr(ranks, "rows"):
        return ranks
    from rnnfast.distributed.ranks import Ranks

    return Ranks(None if isinstance(ranks, str) and ranks == "world" else ranks)


def _takes_blocks(method: Callable[..., Any]) -> bool:
    """Whether a method, which a subclass may have replaced, has the parameter `blocks`."""
    return "blocks" in inspect.signature(method).parameters


@contextmanager
def joined_ranks(ranks: Any) -> Iterator[Any]:
    """`ranks_of`, closed at the end of the block if they are made here; not after an error, since closing
    needs all ranks."""
    ours = ranks_of(ranks)
    yield ours
    if ours is not ranks:
        ours.close()


class Alike:
    """What several ranks agree on in one `fit`; with one process, nothing needs agreement.

    As a context, it ends all ranks if one is lost, and records Ctrl-C until the ranks have agreed on it.

    Parameters
    ----------
    ranks : Ranks or None
    """

    def __init__(self, ranks: Any) -> None:
        self.ranks = ranks if ranks is not None and ranks.size > 1 else None
        self._stack = ExitStack()
        self._interrupts = Interrupts()
        self._stopped = False

    def __enter__(self) -> Alike:
        if self.ranks is not None:
            self._stack.enter_context(self._interrupts)  # also while ranks wait for each other at the end
            self._stack.enter_context(Watcher(self.ranks, _ALIKE))
        return self

    def __exit__(self, *error: Any) -> bool | None:
        return self._stack.__exit__(*error)

    @property
    def speaks(self) -> bool:
        """Whether this process reports and writes files: rank 0, or the only one."""
        return self.ranks is None or self.ranks.rank == 0

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
        _check.ranks_divide_blocks("Trainer.fit", size, number, batch_size, LEAST_ROWS)
        return BatchBlocks(number, self.ranks)

    def begin(self, trainer: Any, describe: Callable[[], Any]) -> None:
        """Give every rank the parameters, random numbers and order of rank 0; ValueError unless all ranks
        have the same model, data and options."""
        if self.ranks is None:
            return
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
        """Call a user's function on rank 0; what it asks for is agreed on in `settle`."""
        if function is None or not self.speaks:
            return
        if self.ranks is None:
            function(*arguments)
            return
        try:
            function(*arguments)
        except StopTraining:
            self._stopped = True
        except BaseException as error:  # of this rank alone, whatever it is
            raise _check.failed_on_rank_0(function) from error

    def settle(self, optimizer: Any, due: bool) -> bool:
        """Agree on the end of training, on the learning rate and on whether a file is due, which rank 0 says.

        Raises KeyboardInterrupt on every rank if one was interrupted, StopTraining if a function of rank 0
        raised it.
        """
        if self.ranks is None:
            return due
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
        failed = error is not None if self.ranks is None else self.ranks.any(error is not None)
        if failed:
            raise error or _check.other_rank_failed(path)

    def agreed(self, value: Any) -> Any:
        """The value of rank 0."""
        return value if self.ranks is None else self.ranks.agreed(value)

    def whole(self, state: State) -> State:
        """The state of the whole batch on rank 0, from the rows of each rank."""
        states = None if self.ranks is None else self.ranks.gathered(state)
        return state if states is None else joined(states)
