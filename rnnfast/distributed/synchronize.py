"""Decisions of a `fit` that all ranks take together, and work that rank 0 does alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.distributed.watchdog import Watchdog
from rnnfast.layers.state import State, joined
from rnnfast.training.processes import OneProcess
from rnnfast.training.safety import Interrupts, StopTraining, TrainingDiverged

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
