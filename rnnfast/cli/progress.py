"""Progress of a run: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from numba.core import event
from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from rnnfast.data import Corpus
from rnnfast.training.progress import Progress

# Without a bar, texts of this size or more are announced; they take seconds.
_LARGE = 10_000_000
_OFTEN = 1 << 18  # characters from one move of the bar to the next


def short(perplexity: float) -> str:
    """One decimal, or three below 10: characters and small vocabularies reach values near 1."""
    return f"{perplexity:.1f}" if perplexity >= 10 else f"{perplexity:.3f}"


class PlainProgress:
    """Print a line for each epoch, and one at intervals of windows.

    Parameters
    ----------
    console : Console
    name : str
        Name of the model, at the beginning of each line.
    interval : int
        Windows from one line to the next.
    """

    def __init__(self, console: Console, name: str, interval: int) -> None:
        self._console, self._name, self._interval = console, name, interval
        self._left: float | None = None

    def __enter__(self) -> PlainProgress:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def window(self, progress: Progress) -> None:
        """A window has been learned from."""
        self._left = progress.seconds_left
        if progress.step % self._interval == 0:
            self._line(
                f"{self._name:<5} epoch {progress.epoch}/{progress.epochs}, window {progress.window}/"
                f"{progress.windows}: perplexity {short(progress.train_perplexity)}, {self._pace(progress)}"
            )

    def epoch(self, record: dict[str, Any], epochs: int, unigram: float = math.inf) -> None:
        """An epoch has been validated; `unigram` is the perplexity of word frequencies alone."""
        train, valid = record["train_perplexity"], record["valid_perplexity"]
        note = ", the best so far" if record["improved"] else ""
        if valid > unigram:
            note = f", worse than the unigram's {short(unigram)}"
        self._line(
            f"{self._name:<5} epoch {record['epoch']}/{epochs} done: perplexity {short(train)}, "
            f"validation {short(valid)}{note}"
        )

    def _pace(self, progress: Progress) -> str:
        pace = f"{progress.tokens_per_second:,.0f} tokens/s"
        return pace if progress.seconds_left is None else f"{pace}, {clock(progress.seconds_left)} left"

    def _line(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, highlight=False, markup=False)


def _bar(console: Console, *columns: TextColumn) -> Bar:
    """A moving bar between a description and other columns, gone at its end."""
    shown = (TextColumn("{task.description}"), BarColumn(bar_width=24), *columns)
    return Bar(*shown, console=console, transient=True, refresh_per_second=4)


class LiveProgress(PlainProgress):
    """Print a line for each epoch, and a moving bar below; parameters as in `PlainProgress`."""

    def __init__(self, console: Console, name: str, interval: int) -> None:
        super().__init__(console, name, interval)
        self._bar = _bar(console, TextColumn("{task.fields[text]}"))
        self._task = self._bar.add_task(name, total=None, text="starting")

    def __enter__(self) -> LiveProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def window(self, progress: Progress) -> None:
        """A window has been learned from."""
        self._bar.update(
            self._task,
            completed=progress.step,
            total=progress.steps,
            description=f"{self._name} epoch {progress.epoch}/{progress.epochs}",
            text=f"perplexity {short(progress.train_perplexity)}, {self._pace(progress)}",
        )


def show_progress(console: Console, name: str, interval: int) -> PlainProgress:
    """The display that suits the console."""
    return (LiveProgress if console.is_terminal else PlainProgress)(console, name, interval)


class PlainReading:
    """Print a line for each pass over a large text.

    Parameters
    ----------
    console : Console
    """

    def __init__(self, console: Console) -> None:
        self._console = console

    def __enter__(self) -> PlainReading:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def watch(self, what: str, text: Corpus) -> Corpus:
        """The same text; reading it is announced."""
        if text.size >= _LARGE:
            self._console.print(f"{what}: {text.name}, {text.size / 1e6:,.0f} MB", soft_wrap=True)
        return text


class LiveReading(PlainReading):
    """Move a bar while a text is read; parameters as in `PlainReading`."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._bar = _bar(console, TextColumn("{task.percentage:>3.0f} %"))

    def __enter__(self) -> LiveReading:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def watch(self, what: str, text: Corpus) -> Corpus:
        """The same text; reading it moves the bar."""

        def pieces() -> Iterator[str]:
            task = self._bar.add_task(what, total=max(1, text.size))
            waiting = 0
            for piece in text:
                yield piece
                waiting += len(piece)
                if waiting >= _OFTEN:
                    self._bar.advance(task, waiting)
                    waiting = 0
            self._bar.remove_task(task)

        return Corpus(text.name, text.size, pieces, held_out=text.held_out)


def show_reading(console: Console) -> PlainReading:
    """The display of reading that suits the console."""
    return (LiveReading if console.is_terminal else PlainReading)(console)


class PlainSteps:
    """Print a line for each fifth of a training.

    Parameters
    ----------
    console : Console
    name : str
        The name of the training, which begins each line.
    """

    def __init__(self, console: Console, name: str) -> None:
        self._console, self._name, self._began = console, name, time.perf_counter()
        self._first: int | None = None

    def __enter__(self) -> PlainSteps:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def reached(self, epoch: int, epochs: int, step: int, steps: int, loss: float) -> None:
        """A step of an epoch is done; steps count from 1 over all epochs."""
        first = self._first = step - 1 if self._first is None else self._first
        seconds = time.perf_counter() - self._began
        left = clock(seconds / (step - first) * (steps - step))
        self._show(step, steps, f"{self._name} epoch {epoch}/{epochs}", f"loss {loss:.4f}, {left} left")

    def _show(self, step: int, steps: int, name: str, text: str) -> None:
        if 5 * step // steps > 5 * (step - 1) // steps:
            self._console.print(f"{name}: {text}", soft_wrap=True, highlight=False, markup=False)


class LiveSteps(PlainSteps):
    """Move a bar; parameters as in `PlainSteps`."""

    def __init__(self, console: Console, name: str) -> None:
        super().__init__(console, name)
        self._bar = _bar(console, TextColumn("{task.fields[text]}"))
        self._task = self._bar.add_task(name, total=None, text="starting")

    def __enter__(self) -> LiveSteps:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def _show(self, step: int, steps: int, name: str, text: str) -> None:
        self._bar.update(self._task, completed=step, total=steps, description=name, text=text)


def show_steps(console: Console, name: str) -> PlainSteps:
    """The display of a training with a loss that suits the console."""
    return (LiveSteps if console.is_terminal else PlainSteps)(console, name)


def clock(seconds: float) -> str:
    """Minutes and seconds.

    Examples
    --------
    >>> clock(83.4), clock(7265.0)
    ('1:23', '2:01:05')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class _Compilations(event.Listener):
    """Counts the functions that Numba compiles because its cache lacks them."""

    def __init__(self, first: Callable[[], object]) -> None:
        self.count = 0
        self._first = first

    def on_start(self, event: Any) -> None:
        if self.count == 0:
            self._first()
        self.count += 1

    def on_end(self, event: Any) -> None:
        pass


@contextmanager
def compilations(first: Callable[[], object]) -> Iterator[_Compilations]:
    """Call `first` before the first compilation; `.count` is the number of compiled functions."""
    listener = _Compilations(first)
    with event.install_listener("numba:compile", listener):
        yield listener
