"""Reports on a training run while it runs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from rnnfast import _check
from rnnfast.training.chain import Window
from rnnfast.training.fitting import exp_of_mean


@dataclass(frozen=True)
class Progress:
    """The progress of training after a window; numbers count from 1.

    Attributes
    ----------
    epoch, epochs : int
        The number of the pass over the data, and of all passes.
    window, windows : int
        The number of the window within the epoch, and of all windows of an epoch.
    step, steps : int
        Updates so far, and in the whole run.
    tokens : int
        Words learned from so far.
    loss : float
        Mean loss of this window, in nats per word.
    train_perplexity : float
        Perplexity over the epoch so far, each window with the parameters before its update.
    grad_norm : float
        Norm of all gradients of this window before clipping.
    learning_rate : float
        The optimizer's learning rate for this window.
    tokens_per_second : float
        Speed of training only. The first window, which may compile, counts only while it is the only one.
    seconds : float
        Time since `fit` began.
    seconds_left : float or None
        Estimated time left, including validation; None after the first window.

    Examples
    --------
    >>> import numpy as np, rnnfast
    >>> model = rnnfast.RNNLM(9, 4, 4, rng=np.random.default_rng(0))
    >>> seen = []
    >>> optimizer = rnnfast.optim.SGD(lr=0.1)
    >>> trainer = rnnfast.Trainer(model, optimizer, rnnfast.TruncatedBPTT(5), callback=seen.append)
    >>> _ = trainer.fit(np.arange(60) % 9, epochs=1, batch_size=2)
    >>> seen[0].epoch, seen[0].window, seen[-1].step == seen[-1].steps
    (1, 1, True)
    """

    epoch: int
    epochs: int
    window: int
    windows: int
    step: int
    steps: int
    tokens: int
    loss: float
    train_perplexity: float
    grad_norm: float
    learning_rate: float
    tokens_per_second: float
    seconds: float
    seconds_left: float | None


_COUNTS = ("epoch", "step", "tokens", "first_tokens", "good_step", "good_tokens", "epoch_tokens")
_SUMS = {name: name if name in ("epoch", "step", "tokens") else f"_{name}" for name in _COUNTS}
_SUMS |= {name: f"_{name}" for name in ("trained", "first_trained", "loss", "validation")}


class Meter:
    """Adds up losses, words and seconds of one `fit`.

    Parameters
    ----------
    epochs, windows, tokens : int
        Epochs of the run; windows and words of each epoch.
    """

    def __init__(self, epochs: int, windows: int, tokens: int) -> None:
        self.epochs, self.windows, self._tokens_an_epoch = epochs, windows, tokens
        self.epoch = self.step = self.tokens = 0
        self._began = self._mark = time.perf_counter()
        self._trained = 0.0  # seconds in windows, without validation
        self._first_trained, self._first_tokens = 0.0, 0  # of the first window of a process
        self._is_first = True
        self._good_step = self._good_tokens = 0  # values before the update that `backpropagate` undoes
        self._loss, self._epoch_tokens = 0.0, 0
        self._validation = 0.0  # seconds the last validation took

    @property
    def seconds(self) -> float:
        """Seconds since the run began."""
        return time.perf_counter() - self._began

    def record(
        self, measure: str, history: list[dict[str, Any]], learning_rate: float, value: float | None = None
    ) -> dict[str, Any]:
        """The record of the current epoch with its value on the validation data, if any; `measure` is
        "perplexity" or "loss"."""
        name = f"best_valid_{measure}"
        best = history[-1][name] if history else None
        improved = value is None or best is None or value < best
        return {
            "epoch": self.epoch,
            f"train_{measure}": getattr(self, f"train_{measure}"),
            f"valid_{measure}": value,
            name: best if value is None or not improved else value,
            "improved": improved,
            "learning_rate": float(learning_rate),
            "steps": self.step,
            "tokens": self.tokens,
            "tokens_per_second": self.tokens_per_second,
            "seconds": self.seconds,
        }

    @property
    def tokens_per_second(self) -> float:
        """Training speed. A process's first window loads kernels; it counts only while it is the only one."""
        seconds, tokens = self._trained, self.tokens
        if tokens > self._first_tokens:
            seconds, tokens = seconds - self._first_trained, tokens - self._first_tokens
        return tokens / max(seconds, 1e-9)

    def start_epoch(self) -> None:
        """Begin a new pass."""
        self.epoch += 1
        self._loss, self._epoch_tokens = 0.0, 0
        self._mark = time.perf_counter()

    def add(self, window: Window) -> None:
        """Add a trained window."""
        now = time.perf_counter()
        spent, self._mark = now - self._mark, now
        self._trained += spent
        self.step += 1
        self.tokens += window.tokens
        if self._is_first:
            self._first_trained += spent
            self._first_tokens += window.tokens
            self._is_first = False
        self._loss += window.loss * window.tokens
        self._epoch_tokens += window.tokens

    def state(self) -> dict[str, float]:
        """All sums and times as JSON values, for `set_state`."""
        return {**{name: getattr(self, place) for name, place in _SUMS.items()}, "seconds": self.seconds}

    def set_state(self, state: dict[str, float]) -> None:
        """Continue counting from a `state`."""
        self.check(state)
        for name, place in _SUMS.items():
            setattr(self, place, state[name])
        self._mark = time.perf_counter()
        self._began = self._mark - state["seconds"]
        self._is_first = True

    @staticmethod
    def check(state: dict[str, float]) -> None:
        """Raise ValueError or TypeError unless this is a `state`."""
        if set(state) != {*_SUMS, "seconds"}:
            raise ValueError("it lacks the sums of the meter")
        for name, value in state.items():
            if name in _COUNTS:
                _check.values.size("meter", name, value, 0, 1 << 62)
            else:
                _check.values.number("meter", name, value)

    def before_update(self) -> None:
        """Remember the counts before an update that may be undone."""
        self._good_step, self._good_tokens = self.step, self.tokens

    def backpropagate(self) -> None:
        """Restore the counts of `before_update`: the updates since were undone."""
        self.step, self.tokens = self._good_step, self._good_tokens

    def add_validation(self, seconds: float) -> None:
        """Add the time of a validation."""
        self._validation = seconds

    @property
    def train_loss(self) -> float:
        """Mean loss over the epoch so far."""
        return self._loss / max(self._epoch_tokens, 1)

    @property
    def train_perplexity(self) -> float:
        """Perplexity over the epoch so far."""
        return exp_of_mean(self._loss, max(self._epoch_tokens, 1))

    def _seconds_left(self) -> float | None:
        if self.step < 2:
            return None
        tokens = self._tokens_an_epoch * self.epochs - self.tokens
        return tokens / self.tokens_per_second + self._validation * (self.epochs - self.epoch + 1)

    def progress(self, window: Window, grad_norm: float, learning_rate: float) -> Progress:
        """The report after this window."""
        return Progress(
            epoch=self.epoch,
            epochs=self.epochs,
            window=window.number,
            windows=self.windows,
            step=self.step,
            steps=self.windows * self.epochs,
            tokens=self.tokens,
            loss=window.loss,
            train_perplexity=self.train_perplexity,
            grad_norm=grad_norm,
            learning_rate=learning_rate,
            tokens_per_second=self.tokens_per_second,
            seconds=self.seconds,
            seconds_left=self._seconds_left(),
        )


def has_stalled(history: list[dict[str, Any]], patience: int | None) -> bool:
    """Whether none of the last `patience` epochs was the best."""
    if patience is None or len(history) < patience:
        return False
    return not any(record["improved"] for record in history[-patience:])
