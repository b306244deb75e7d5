"""Calls on one layer or model take turns, whichever Python threads they come from.

A call works in memory of its object, so two at a time would spoil each other's results. Inference from
several threads is right because each call waits for the one before it. Training is a chain of calls,
`forward`, `backward` and an update, which waiting cannot protect: a second thread in it is an error.
"""

from __future__ import annotations

import functools
import os
import threading
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

from rnnfast import _check

_Method = TypeVar("_Method", bound=Callable[..., Any])


class Turn(type(threading.RLock())):  # type: ignore[misc]
    """The lock of one object, which the thread that holds it may take again.

    A lock of CPython's own in a `with` statement: no interrupt can come between taking and releasing it.
    """

    trainer: int | None = None  # the thread that trains the object in `Trainer.fit`

    def __init__(self) -> None:
        super().__init__()
        _turns.add(self)


# Held weakly, for one purpose: the child of a fork must not wait for a thread that it does not have.
_turns: weakref.WeakSet[Turn] = weakref.WeakSet()


def _after_fork() -> None:
    for turn in _turns:
        turn._at_fork_reinit()
        turn.trainer = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def in_turn(method: _Method) -> _Method:
    """A method during which no other thread works with the object."""

    @functools.wraps(method)
    def waiting(self: Any, *args: Any, **kwargs: Any) -> Any:
        with self._turn:
            return method(self, *args, **kwargs)

    return waiting  # type: ignore[return-value]


def turn_of(owner: Any) -> AbstractContextManager[Any]:
    """The turn of a model; models of the user's own have none."""
    return getattr(owner, "_turn", nullcontext())


def trains_alone(method: _Method) -> _Method:
    """`fit` of a trainer: RuntimeError if another thread trains `self.model` meanwhile."""

    @functools.wraps(method)
    def fit(self: Any, *args: Any, **kwargs: Any) -> Any:
        turn, here = turn_of(self.model), threading.get_ident()
        if not isinstance(turn, Turn):
            return method(self, *args, **kwargs)
        before = turn.trainer
        try:
            with turn:
                before = turn.trainer
                if before not in (None, here):
                    raise _check.another_thread(f"{type(self).__name__}.{method.__name__}")
                turn.trainer = here
            return method(self, *args, **kwargs)
        finally:
            turn.trainer = before

    return fit  # type: ignore[return-value]
