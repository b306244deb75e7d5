"""Windows of token ids in reading order, as truncated backpropagation through time needs them."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np

from rnnfast import _check


class WindowBatches:
    """Batches whose rows read the text in order, from equally spaced offsets.

    With `jump = (tokens - 1) // batch_size`, row n reads the inputs `ids[n*jump:(n+1)*jump]` in windows of
    `time_size`. The target of each input is the next token. Row n of a window continues row n of the window
    before it, so the state can be carried over. The last window has the rest of the row and may be shorter.
    The `(tokens - 1) % batch_size` targets at the very end of the text are left out (`skipped` counts them).
    With one row there are none, and each token except the first is a target exactly once.

    Windows can be iterated or taken by number, so that an interrupted pass can continue. They are copied into
    two buffers, which the next window overwrites; nothing else of the text is copied.

    Parameters
    ----------
    ids
        Integer array of shape (tokens,); may be a read-only memory map of uint16.
    batch_size
        Rows N of each batch.
    time_size
        Steps T of each window.

    Raises
    ------
    CorpusError
        There are fewer than `batch_size * time_size + 1` tokens.

    Notes
    -----
    Source: *Deep Learning from Scratch 2*, chapter 5, except that offsets do not wrap around at the end.

    Examples
    --------
    >>> for xs, ts in WindowBatches(np.arange(11), batch_size=2, time_size=3):
    ...     print(xs.tolist(), ts.tolist())
    [[0, 1, 2], [5, 6, 7]] [[1, 2, 3], [6, 7, 8]]
    [[3, 4], [8, 9]] [[4, 5], [9, 10]]
    """

    def __init__(self, ids: np.ndarray, batch_size: int, time_size: int) -> None:
        self.batch_size = _check.values.size("WindowBatches", "batch_size", batch_size)
        self.time_size = _check.values.size("WindowBatches", "time_size", time_size)
        ids = _check.arrays.ids_1d("WindowBatches", "ids", ids)
        _check.training.tokens_enough("WindowBatches", ids, self.batch_size, self.time_size)
        self.jump = (len(ids) - 1) // self.batch_size
        used = self.jump * self.batch_size
        self.skipped = len(ids) - 1 - used
        self._inputs = ids[:used].reshape(self.batch_size, self.jump)
        self._targets = ids[1 : used + 1].reshape(self.batch_size, self.jump)
        self._buffers = np.empty((2, self.batch_size * self.time_size), dtype=np.int64)

    @property
    def tokens(self) -> int:
        """Targets in all windows."""
        return self.jump * self.batch_size

    @property
    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and targets of all rows, (N, jump), views of the text."""
        return self._inputs, self._targets

    def of_rows(self, rows: slice) -> WindowBatches:
        """The same windows of some rows alone."""
        found = copy.copy(self)
        found._inputs, found._targets = self._inputs[rows], self._targets[rows]
        found.batch_size = len(found._inputs)
        found._buffers = np.empty((2, found.batch_size * self.time_size), dtype=np.int64)
        return found

    def first_rows(self, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """The first steps of all rows, inputs and targets (N, steps), copied."""
        _check.arrays.whole_file("WindowBatches", self._inputs)
        return np.array(self._inputs[:, :steps]), np.array(self._targets[:, :steps])

    def __len__(self) -> int:
        """Number of windows."""
        return -(-self.jump // self.time_size)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """All windows from the first; simultaneous iterations share the buffers."""
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, window: int) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and targets of one window, contiguous int64 (N, T), valid until the next is taken."""
        if not 0 <= window < len(self):
            raise IndexError(f"WindowBatches: windows are numbered 0 to {len(self) - 1}, got {window}.")
        _check.arrays.whole_file("WindowBatches", self._inputs)
        start = window * self.time_size
        stop = min(start + self.time_size, self.jump)
        shape = (self.batch_size, stop - start)
        # A short window uses the front of the buffer and stays contiguous.
        xs, ts = self._buffers[:, : shape[0] * shape[1]].reshape(2, *shape)
        xs[...] = self._inputs[:, start:stop]
        ts[...] = self._targets[:, start:stop]
        return xs, ts


def evaluation_windows(ids: np.ndarray, time_size: int) -> WindowBatches:
    """One row over the whole text, in which each token except the first is a target exactly once.

    Several rows would each start from a fresh state, and the perplexity would depend on their number. The
    last window is shorter; a text shorter than a window is one short window.

    Parameters
    ----------
    ids
        Integer array of shape (tokens,), at least two tokens.
    time_size
        Steps of each window; the targets do not depend on it.

    Returns
    -------
    windows
        `WindowBatches` with one row; each item is inputs and targets, both (1, T).

    Raises
    ------
    CorpusError
        There are fewer than two tokens.

    Examples
    --------
    >>> [ts.tolist() for _, ts in evaluation_windows(np.arange(6), time_size=3)]
    [[[1, 2, 3]], [[4, 5]]]
    """
    time_size = _check.values.size("evaluation_windows", "time_size", time_size)
    ids = _check.arrays.ids_1d("evaluation_windows", "ids", ids)
    _check.training.tokens_enough("evaluation_windows", ids, 1, 1)
    return WindowBatches(ids, 1, min(time_size, len(ids) - 1))
