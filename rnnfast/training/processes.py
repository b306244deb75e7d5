"""What one process decides alone in a `fit`, and `rnnfast.distributed` for several processes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rnnfast import _check
from rnnfast.layers.state import State
from rnnfast.models.model import Model
from rnnfast.training.batch_blocks import LEAST_ROWS, BatchBlocks, blocks_of


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
