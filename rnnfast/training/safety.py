"""What keeps a run's parameters whole: against Ctrl-C in the middle of an update, and against updates that explode."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np


class TrainingDiverged(FloatingPointError):
    """The loss or a gradient is not finite; the model holds the parameters of the last good step.

    Attributes
    ----------
    epoch, step : int
        Where it happened, counted from 1; the step was not taken.
    """

    def __init__(self, message: str, epoch: int = 0, step: int = 0) -> None:
        super().__init__(message)
        self.epoch, self.step = epoch, step


@contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Let Ctrl-C wait until the block is done.

    Python raises `KeyboardInterrupt` in the main thread only, so in other threads there is nothing to do.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    if not callable(before):  # ignored, or not set from Python
        yield
        return
    waiting: list[Any] = []
    signal.signal(signal.SIGINT, lambda *received: waiting.append(received))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if waiting:
            before(*waiting[-1])


class LastGood:
    """A copy of the parameters from before an update that may go wrong.

    A loss that is not finite shows up one step after the update that caused it. Copying all parameters before each
    update would take 3 % of a step (V = 10,000, D = H = 100), so only updates without a known bound are guarded: those
    of a foreign optimizer, and of ours when the learning rate and the norm allow a step of length 100.

    Parameters
    ----------
    params : list of ndarray
        The model's.
    """

    _LONG_STEP = 100.0

    def __init__(self, params: list[np.ndarray]) -> None:
        self._params = params
        self._copies: list[np.ndarray] | None = None
        self._valid = False

    def before_update(self, bound: float) -> None:
        """Called before each update with how far it may move the parameters."""
        self._valid = not bound <= self._LONG_STEP
        if not self._valid:
            return
        if self._copies is None:
            self._copies = [np.empty(param.shape, param.dtype) for param in self._params]
        for copy, param in zip(self._copies, self._params, strict=True):
            np.copyto(copy, param)

    def restore_if_damaged(self) -> bool:
        """Undo the last update if it blew the parameters up; whether it did."""
        if not self._valid or self._copies is None:
            return False
        limit = self._LONG_STEP * max(1.0, *(_largest(copy) for copy in self._copies))
        if all(_largest(param) <= limit for param in self._params):
            return False
        for copy, param in zip(self._copies, self._params, strict=True):
            np.copyto(param, copy)
        return True


def _largest(array: np.ndarray) -> float:
    """The largest magnitude; NaN if there is one."""
    return float(np.abs(array).max(initial=0.0))
