"""Training data as batches of rows: a text, or sequences with their targets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.data.batching import WindowBatches


def epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """A random order (count,) of the sequences, determined by the seed and the epoch alone.

    A run may continue under another version of NumPy. The raw numbers of its bit generators are the same in
    all versions; the results of `permutation` are not.

    Examples
    --------
    >>> epoch_order(7, 1, 5), epoch_order(7, 2, 5)
    (array([3, 1, 2, 4, 0]), array([4, 0, 1, 3, 2]))
    """
    return np.argsort(np.random.Philox(key=seed + (epoch << 64)).random_raw(count), kind="stable")


class PickedRows:
    """Some rows of an array (S, ...), read when needed: ``picked[:, first:last]``.

    Copying them at once would load whole sequences of a memory map.
    """

    def __init__(self, array: Any, rows: np.ndarray) -> None:
        self._array, self._rows = array, rows
        self.shape = (len(rows), *array.shape[1:])
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self._rows)

    def __getitem__(self, places: tuple[slice, slice]) -> np.ndarray:
        """A copy of some steps of some rows."""
        rows, steps = places
        _check.whole_file("training", self._array)
        return self._array[self._rows[rows], steps]


class SequenceRows:
    """Batches of sequences with their targets.

    Parameters
    ----------
    xs : array (S, T, D)
        Sequences; a memory map is read in parts, as needed.
    ts : array (S, T, O), or (S, O) for targets of the last step
    batch_size : int
        Sequences in a batch; the last batch may be smaller.
    order : ndarray of int (S,), optional
        The numbers of the sequences in reading order; 0, 1, 2 ... by default.

    Examples
    --------
    >>> rows = SequenceRows(np.zeros((5, 7, 3)), np.zeros((5, 1)), batch_size=2)
    >>> [xs.shape for xs, ts in rows]
    [(2, 7, 3), (2, 7, 3), (1, 7, 3)]
    """

    def __init__(self, xs: Any, ts: Any, batch_size: int, order: np.ndarray | None = None) -> None:
        owner = type(self).__name__
        self.batch_size = _check.size(owner, "batch_size", batch_size)
        self._xs, self._ts = _check.sequences_and_targets(owner, (xs, ts))
        self._order = None if order is None else _check.order(owner, order, len(xs))
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
        """Sequences (N, T, D) and targets of each batch; targets of every step are not copied."""
        xs, ts, order = self._xs, self._ts, self._order
        for first in range(0, len(xs), self.batch_size):
            rows = slice(first, first + self.batch_size)
            if order is None:
                yield xs[rows], ts[rows]
            else:
                targets = PickedRows(ts, order[rows])
                yield PickedRows(xs, order[rows]), targets if self.every_step else targets[:, :]


class TextRows:
    """A text as one batch: rows (N, T) of ids with the next ids as targets, as in `WindowBatches`."""

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


def rows_of(data: Any, batch_size: int, order: np.ndarray | None = None) -> SequenceRows | TextRows:
    """The batches of a text (tokens,), or of a pair of sequences and targets in the given order."""
    data = _check.text_or_pair(data)
    if isinstance(data, tuple):
        return SequenceRows(*_check.sequences_and_targets("training", data), batch_size, order)
    _check.absent("training", "order", order, "sequences with targets")
    return TextRows(data, batch_size)


class WholeRows:
    """One window per batch, over all its steps."""

    # Steps of the window that `Trainer` checks after an epoch without validation.
    _LOOK = 512

    def __init__(self, rows: SequenceRows | TextRows) -> None:
        self._rows = rows
        self.tokens = rows.tokens

    def __len__(self) -> int:
        """Number of windows."""
        return len(self._rows)

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and targets of the first steps of the first batch."""
        return WindowRows(self._rows, 1).first_rows(self._LOOK)


class WindowRows:
    """Windows along each batch; if only the last step has a target, one window per batch counts."""

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
        """The first steps of the first batch, or all of them if only the last step has a target."""
        xs, ts = next(iter(self._rows))
        _check.whole_file("WindowRows", xs, ts)
        if not self._rows.every_step:
            return np.array(xs[:, :]), np.array(ts)
        return np.array(xs[:, :steps]), np.array(ts[:, :steps])

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray | None, bool, bool]]:
        """Inputs, targets (or None), and whether a batch begins and ends with this window."""
        for xs, ts in self._rows:
            for first in range(0, self._steps, self.time_size):
                _check.whole_file("WindowRows", xs, ts)
                last = min(first + self.time_size, self._steps)
                targets = ts[:, first:last] if self._rows.every_step else ts
                ends = last == self._steps
                scored = np.array(targets) if self._rows.every_step or ends else None
                yield np.array(xs[:, first:last]), scored, first == 0, ends
