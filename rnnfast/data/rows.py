"""Training data as batches of rows that are read side by side: a text, or sequences with their targets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.data.batching import WindowBatches


class SequenceRows:
    """Sequences with targets, so many at a time, in their order.

    Parameters
    ----------
    xs : array (S, T, D)
        Sequences; a memory map is read where it is needed.
    ts : array (S, T, O), or (S, O) for targets of the last step
    batch_size : int
        Sequences in a batch; the last may be smaller.

    Examples
    --------
    >>> rows = SequenceRows(np.zeros((5, 7, 3)), np.zeros((5, 1)), batch_size=2)
    >>> [xs.shape for xs, ts in rows]
    [(2, 7, 3), (2, 7, 3), (1, 7, 3)]
    """

    def __init__(self, xs: Any, ts: Any, batch_size: int) -> None:
        owner = type(self).__name__
        self.batch_size = _check.size(owner, "batch_size", batch_size)
        self._xs, self._ts = _check.sequences_and_targets(owner, (xs, ts))
        self.every_step = np.ndim(ts) == 3
        self.steps = np.shape(xs)[1]

    @property
    def tokens(self) -> int:
        """Steps of all sequences."""
        return self._xs.shape[0] * self._xs.shape[1]

    def __len__(self) -> int:
        """Number of batches."""
        return -(-len(self._xs) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        """Sequences (N, T, D) and targets of each batch, not copied."""
        for first in range(0, len(self._xs), self.batch_size):
            rows = slice(first, first + self.batch_size)
            yield self._xs[rows], self._ts[rows]


class TextRows:
    """A text as one batch: rows (N, T) of ids, each with the ids that follow, as in `WindowBatches`."""

    every_step = True

    def __init__(self, ids: np.ndarray, batch_size: int) -> None:
        windows = WindowBatches(ids, batch_size, 1)
        self._rows = windows.rows
        self.tokens, self.steps = windows.tokens, windows.jump

    def __len__(self) -> int:
        """Number of batches."""
        return 1

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The one batch, views of the text."""
        yield self._rows


def rows_of(data: Any, batch_size: int) -> SequenceRows | TextRows:
    """The batches of a text (tokens,), or of a pair of sequences and targets."""
    if isinstance(data, tuple):
        return SequenceRows(*_check.sequences_and_targets("training", data), batch_size)
    return TextRows(data, batch_size)


class WholeRows:
    """One window a batch, over all its steps."""

    # Steps of the window that `Trainer` looks at after an epoch without validation.
    _LOOK = 512

    def __init__(self, rows: SequenceRows | TextRows) -> None:
        self._rows = rows
        self.tokens = rows.tokens

    def __len__(self) -> int:
        """Number of windows."""
        return len(self._rows)

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and targets of the beginning of the first batch."""
        return WindowRows(self._rows, 1).first_rows(self._LOOK)


class WindowRows:
    """Windows along each batch; one a batch counts where only the last step has a target."""

    def __init__(self, rows: SequenceRows | TextRows, time_size: int) -> None:
        self._rows = rows
        self.tokens = rows.tokens
        self.time_size = _check.size("WindowRows", "time_size", time_size)
        self._steps = rows.steps

    def __len__(self) -> int:
        """Windows with targets."""
        return len(self._rows) * (-(-self._steps // self.time_size) if self._rows.every_step else 1)

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and targets of the first window, whatever the number."""
        xs, ts = next(iter(self._rows))
        _check.whole_file("WindowRows", xs, ts)
        targets = ts[:, : self.time_size] if self._rows.every_step else ts
        return np.array(xs[:, : self.time_size]), np.array(targets)

    def first_rows(self, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """The beginning of the first batch; all of it, where only the last step has a target."""
        xs, ts = next(iter(self._rows))
        _check.whole_file("WindowRows", xs, ts)
        if not self._rows.every_step:
            return np.array(xs), np.array(ts)
        return np.array(xs[:, :steps]), np.array(ts[:, :steps])

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray | None, bool, bool]]:
        """Inputs, targets (None where there are none), and whether a batch begins and ends."""
        for xs, ts in self._rows:
            for first in range(0, self._steps, self.time_size):
                _check.whole_file("WindowRows", xs, ts)
                last = min(first + self.time_size, self._steps)
                targets = ts[:, first:last] if self._rows.every_step else ts
                ends = last == self._steps
                scored = np.array(targets) if self._rows.every_step or ends else None
                yield np.array(xs[:, first:last]), scored, first == 0, ends
