"""Protection of the parameters from Ctrl-C in the middle of an update and from exploding updates."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from rnnfast import _check


class TrainingDiverged(FloatingPointError):
    """The loss or a gradient is not finite; the model holds the parameters of the last good step.

    Attributes
    ----------
    epoch, step : int
        The place of the fault, counted from 1. That step was not taken, or it was undone.

    Examples
    --------
    >>> import numpy as np, rnnfast
    >>> model = rnnfast.RNNLM(7, 8, 8, rng=np.random.default_rng(0))
    >>> model.params[0][...] = np.inf
    >>> trainer = rnnfast.Trainer(model, rnnfast.optim.SGD(lr=1.0))
    >>> try:
    ...     trainer.fit(np.arange(200) % 7, epochs=1, batch_size=2)
    ... except rnnfast.TrainingDiverged as stop:
    ...     print(stop.epoch, stop.step)
    1 1
    """

    def __init__(self, message: str, epoch: int = 0, step: int = 0) -> None:
        super().__init__(message)
        self.epoch, self.step = epoch, step

    @classmethod
    def at(cls, epoch: int, step: int, reason: str) -> TrainingDiverged:
        """The error for a place and a reason."""
        return cls(
            f"training stopped in epoch {epoch} at step {step}: {reason}; the parameters of the last good "
            f"step are kept. A lower learning rate or a smaller clip_norm may help.",
            epoch,
            step,
        )


class StopTraining(Exception):
    """Raised by a callback of `Trainer` to end training; `fit` then returns as after its last epoch.

    Examples
    --------
    >>> import numpy as np, rnnfast
    >>> def enough(record):
    ...     if record["train_perplexity"] < 5:
    ...         raise rnnfast.training.StopTraining
    >>> model = rnnfast.RNNLM(3, 8, 8, rng=np.random.default_rng(0))
    >>> trainer = rnnfast.Trainer(model, rnnfast.optim.SGD(lr=1.0), on_epoch=enough)
    >>> len(trainer.fit(np.arange(400) % 3, epochs=9, batch_size=2))
    1
    """


@contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Delay Ctrl-C until the end of the block.

    Python raises `KeyboardInterrupt` in the main thread only, so other threads need no delay.
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


class Interrupts:
    """A block in which signals to stop are recorded, so that all ranks stop at the same step.

    A signal reaches the ranks at different steps, or only one of them; a rank that stopped by itself would
    leave the others waiting. Therefore each rank records the signal, and the ranks tell each other after
    every step. A second signal changes nothing, so saving is not disturbed.

    Recorded are Ctrl-C (SIGINT), and SIGTERM and SIGUSR1 where the program does not handle them. MPICH's
    `mpiexec` forwards all three and kills the ranks at a second Ctrl-C. Open MPI's answers Ctrl-C with
    SIGTERM and, 0.3 s later, SIGKILL, but forwards SIGUSR1. Slurm sends what `--signal` asks for.

    Outside the main thread, and where Ctrl-C is ignored, nothing is recorded. A signal after the last
    question is delivered at the end of the block, unless an exception leaves it.

    Examples
    --------
    >>> import signal
    >>> with Interrupts() as interrupts:
    ...     signal.raise_signal(signal.SIGINT)
    ...     stops = interrupts.asked
    ...     interrupts.answer()
    >>> stops
    True
    """

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._waiting: list[int] = []

    def __enter__(self) -> Interrupts:
        self._waiting.clear()
        if threading.current_thread() is threading.main_thread():
            if callable(signal.getsignal(signal.SIGINT)):
                self._record(signal.SIGINT)
            for name in ("SIGTERM", "SIGUSR1"):
                number = getattr(signal, name, None)
                if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                    self._record(number)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
        if kind is None and self._waiting:
            signal.raise_signal(self._waiting[0])

    def _record(self, number: int) -> None:
        self._before[number] = signal.getsignal(number)
        signal.signal(number, lambda received, _: self._waiting.append(received))

    @property
    def asked(self) -> bool:
        """Whether this process was asked to stop and has not answered."""
        return bool(self._waiting)

    def answer(self) -> None:
        """Forget what was recorded: training stops because of it, or has ended."""
        self._waiting.clear()


class LastGood:
    """A copy of the parameters before an update, for undoing an update that blew them up.

    A loss becomes non-finite one step after the update that caused it, or after several steps of growing
    losses. The copy takes 0.4 of 57 ms (V = 10,000, D = H = 100, N = 20, T = 35).

    Parameters
    ----------
    params : list of ndarray
        The model's parameters.
    """

    # No sane update makes the largest parameter a hundred times larger.
    _FACTOR = 100.0

    def __init__(self, params: list[np.ndarray]) -> None:
        self._params = params
        self._copies: list[np.ndarray] | None = None

    def keep(self) -> None:
        """Copy the parameters; called before an update, while they are good."""
        if self._copies is None:
            self._copies = [np.empty(param.shape, param.dtype) for param in self._params]
        for copy, param in zip(self._copies, self._params, strict=True):
            np.copyto(copy, param)

    def forget(self) -> None:
        """Drop the copies: the parameters may have changed outside training."""
        self._copies = None

    @property
    def copies(self) -> list[np.ndarray] | None:
        """The copies, which the next `keep` overwrites; None if there are none."""
        return self._copies

    def put(self, copies: list[np.ndarray] | None) -> None:
        """Adopt the copies of an earlier run; their shapes are those of the parameters."""
        self._copies = copies

    @property
    def is_kept(self) -> bool:
        """Whether there is a copy."""
        return self._copies is not None

    def restore(self) -> bool:
        """Put the copy back into the parameters; returns whether there is one."""
        if self._copies is None:
            return False
        for copy, param in zip(self._copies, self._params, strict=True):
            np.copyto(param, copy)
        return True

    def restore_if_blown_up(self) -> bool:
        """Call `restore` if the parameters became far larger than the copy; returns whether they did."""
        if self._copies is None:
            return False
        limit = self._FACTOR * max(1.0, *map(_largest, self._copies))
        return not all(_largest(param) <= limit for param in self._params) and self.restore()


def _largest(array: np.ndarray) -> float:
    """The largest magnitude; NaN if there is a NaN."""
    return float(np.abs(array).max(initial=0.0))


# Find the NaN or infinity in the data that explains a loss that is not finite.


_PIECE = 1 << 20  # numbers checked at a time


def blamed(error: TrainingDiverged, data: Any, valid: Any) -> TrainingDiverged:
    """The error, or a new one that names the first number of the data that is not finite.

    Parameters
    ----------
    error : TrainingDiverged
        Raised after the model got back the parameters of the last good step.
    data, valid : pair of arrays (S, T, D) and (S, T, O) or (S, O), or a text (tokens,), which has no NaN
        The training and validation data; read only after training has stopped, piece by piece.
    """
    for name, pair in (("", data), ("validation ", valid)):
        if not isinstance(pair, tuple):
            continue
        for kind, array in zip(("inputs", "targets"), pair, strict=False):
            place = first_not_finite(array, *pair[2:])
            if place is not None:
                value = array[place[0] : place[0] + 1][(0, *place[1:])]  # sequences in a list allow no more
                return TrainingDiverged(
                    _check.training.data_not_finite(error.epoch, error.step, name + kind, place, value),
                    error.epoch,
                    error.step,
                )
    return error


def first_not_finite(array: Any, lengths: Any = None, weights: Any = None) -> tuple[int, ...] | None:
    """The index of the first NaN or infinity of an array (S, ...) before the end of its sequence and with a
    weight; None if there is none."""
    rows = max(1, _PIECE // max(1, int(np.prod(np.shape(array)[1:]))))
    for start in range(0, len(array), rows):
        piece = slice(start, start + rows)
        wrong = ~np.isfinite(array[piece])
        if lengths is not None and wrong.ndim == 3:
            wrong &= (np.arange(wrong.shape[1]) < lengths[piece, np.newaxis])[..., np.newaxis]
        if weights is not None and wrong.ndim >= weights.ndim:
            wrong = (wrong.T & (weights[piece] > 0).T).T
        if wrong.any():
            first, *others = (int(axis) for axis in np.argwhere(wrong)[0])
            return (start + first, *others)
    return None
