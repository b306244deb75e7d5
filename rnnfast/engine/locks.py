"""Calls on one layer or model from several Python threads take turns.

A call uses its object's memory, so two concurrent calls would corrupt each other's results. Inference from
several threads is correct because each call waits for the one before. Training is a chain of calls,
`forward`, `backward` and an update, which waiting cannot protect: a second thread in the chain is an error.
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


class ObjectLock(type(threading.RLock())):  # type: ignore[misc]
    """The reentrant lock of one object.

    It is CPython's own lock, used in a `with` statement: no interrupt can fall between acquire and release.
    """

    trainer: int | None = None  # the thread that trains the object in `Trainer.fit`

    def __init__(self) -> None:
        super().__init__()
        _turns.add(self)


# Weak references, for one purpose: the child of a fork must not wait for a thread that it does not have.
_turns: weakref.WeakSet[ObjectLock] = weakref.WeakSet()


def _after_fork() -> None:
    for turn in _turns:
        turn._at_fork_reinit()
        turn.trainer = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def in_turn(method: _Method) -> _Method:
    """Decorate a method so that no other thread uses the object during a call."""

    @functools.wraps(method)
    def waiting(self: Any, *args: Any, **kwargs: Any) -> Any:
        with self._turn:
            return method(self, *args, **kwargs)

    return waiting  # type: ignore[return-value]


def turn_of(owner: Any) -> AbstractContextManager[Any]:
    """The turn of a model; a user's own model has none."""
    return getattr(owner, "_turn", nullcontext())


def trains_alone(method: _Method) -> _Method:
    """Decorate `fit` of a trainer: RuntimeError while another thread trains `self.model`, or while a part of
    it is frozen."""

    @functools.wraps(method)
    def fit(self: Any, *args: Any, **kwargs: Any) -> Any:
        turn, here = turn_of(self.model), threading.get_ident()
        if not isinstance(turn, ObjectLock):
            return method(self, *args, **kwargs)
        before = turn.trainer
        try:
            with turn:
                before = turn.trainer
                if before not in (None, here):
                    raise _check.objects.another_thread(f"{type(self).__name__}.{method.__name__}")
                self.model.check_trainable()
                turn.trainer = here
            return method(self, *args, **kwargs)
        finally:
            turn.trainer = before

    return fit  # type: ignore[return-value]
