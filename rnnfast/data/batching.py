"""Windows of token ids in reading order, as truncated backpropagation through time needs them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.data.sequences import Batch, Everyone, checked


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


# Training data as batches of rows: a text, or sequences with their targets.


_POOL = 32  # batches whose sequences are sorted by length


def epoch_order(
    seed: int, epoch: int, count: int, lengths: np.ndarray | None = None, batch_size: int = 1
) -> np.ndarray:
    """A random order (count,) of the sequences, determined by the arguments alone.

    A run may continue under another version of NumPy. The raw numbers of its bit generators are the same in
    all versions; the results of `permutation` are not. With `lengths` (count,), sequences of similar length
    come together, so that batches hold little padding: the order is random, then sorted by length within
    pools of `_POOL` batches, then the batches are shuffled.

    Examples
    --------
    >>> epoch_order(7, 1, 5), epoch_order(7, 2, 5)
    (array([3, 1, 2, 4, 0]), array([4, 0, 1, 3, 2]))
    >>> epoch_order(7, 1, 5, np.array([9, 2, 8, 2, 9]), batch_size=2)
    array([2, 4, 3, 1, 0])
    """
    numbers = np.random.Philox(key=seed + (epoch << 64)).random_raw(count + count // batch_size)
    order = np.argsort(numbers[:count], kind="stable")
    if lengths is None:
        return order
    pool = _POOL * batch_size
    pools = [order[first : first + pool] for first in range(0, count, pool)]
    order = np.concatenate([one[np.argsort(lengths[one], kind="stable")] for one in pools])
    whole = count // batch_size  # a smaller batch stays the last one
    batches = order[: whole * batch_size].reshape(whole, batch_size)
    shuffled = batches[np.argsort(numbers[count : count + whole], kind="stable")]
    return np.concatenate([shuffled.reshape(-1), order[whole * batch_size :]])


class PickedRows:
    """Some rows of an array (S, T, ...) up to a step, read when needed: ``picked[:, first:last]``.

    Copying them at once would load whole sequences of a memory map.
    """

    def __init__(self, array: Any, rows: Any, steps: int) -> None:
        self._array, self._rows, self._steps = array, rows, steps
        count = len(range(*rows.indices(len(array)))) if isinstance(rows, slice) else len(rows)
        self.shape = (count, steps, *array.shape[2:])
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        """Number of rows."""
        return self.shape[0]

    def __getitem__(self, places: tuple[slice, slice]) -> np.ndarray:
        """Some steps of all rows, ``picked[:, first:last]``."""
        _check.arrays.whole_file("training", self._array)
        first, last, _ = places[1].indices(self._steps)
        return self._array[self._rows, first:last]


class SequenceRows:
    """Batches of sequences with their targets.

    Parameters
    ----------
    data : pair or Sequences
        Memory maps are read in parts, as needed.
    batch_size : int
        Sequences in a batch; the last batch may be smaller. A batch is as long as its longest sequence.
    order : ndarray of int (S,), optional
        The numbers of the sequences in reading order; 0, 1, 2 ... by default.
    blocks : BatchBlocks, optional
        Cuts each batch into blocks, and chooses the rows of this process.

    Examples
    --------
    >>> rows = SequenceRows((np.zeros((5, 7, 3)), np.zeros((5, 1))), batch_size=2)
    >>> [batch.xs.shape for batch in rows]
    [(2, 7, 3), (2, 7, 3), (1, 7, 3)]
    """

    def __init__(
        self, data: Any, batch_size: int, order: np.ndarray | None = None, blocks: Any = None
    ) -> None:
        owner = type(self).__name__
        self._blocks = blocks
        self.batch_size = _check.values.size(owner, "batch_size", batch_size)
        self._data = checked(owner, data)
        count = len(self._data.xs)
        self._order = None if order is None else _check.training.order(owner, order, count)
        self.every_step = np.ndim(self._data.ts) == 3
        self.has_lengths = self._data.lengths is not None

    @property
    def tokens(self) -> int:
        """Steps of all sequences."""
        shape, lengths = self._data.xs.shape, self._data.lengths
        return shape[0] * shape[1] if lengths is None else int(lengths.sum())

    def __len__(self) -> int:
        """Number of batches."""
        return -(-len(self._data.xs) // self.batch_size)

    def _rows(self) -> Iterator[Any]:
        """The rows of each batch."""
        for first in range(0, len(self._data.xs), self.batch_size):
            rows = slice(first, first + self.batch_size)
            yield rows if self._order is None else self._order[rows]

    def longest(self) -> Iterator[np.ndarray]:
        """The steps of each batch, or the lengths of its sequences."""
        steps = np.array(self._data.xs.shape[1:2])
        for rows in self._rows():
            yield steps if self._data.lengths is None else self._data.lengths[rows]

    def __iter__(self) -> Iterator[Batch]:
        """Sequences and targets of each batch; those of every step are not copied."""
        xs, ts, lengths, weights = self._data
        for rows in self._rows():
            own = None if lengths is None else lengths[rows]
            steps = xs.shape[1] if own is None else max(1, int(own.max(initial=0)))
            scale = None if weights is None else weights[rows]
            if scale is not None and scale.ndim == 2:
                scale = scale[:, :steps]
            blocks, everyone = None, None
            if self._blocks is not None:
                count = len(rows) if self._order is not None else len(range(*rows.indices(len(xs))))
                everyone = Everyone(count, own, scale)
                here, blocks, among = self._blocks.cut(count, own)
                own, scale = (None if array is None else array[here] for array in (own, scale))
                if self._order is not None:
                    rows = rows[here]
                elif lengths is not None:
                    rows = rows.start + here
                else:
                    rows = slice(rows.start + among.start, rows.start + among.stop)
            _check.arrays.whole_file("training", ts)
            targets = PickedRows(ts, rows, steps) if self.every_step else np.array(ts[rows])
            yield Batch(PickedRows(xs, rows, steps), targets, own, scale, blocks, everyone)


class TextRows:
    """A text as one batch: rows (N, T) of ids with the next ids as targets, as in `WindowBatches`."""

    every_step, has_lengths = True, False

    def __init__(self, ids: np.ndarray, batch_size: int) -> None:
        windows = WindowBatches(ids, batch_size, 1)
        self._rows = windows.rows
        self.tokens, self._steps = windows.tokens, windows.jump

    def longest(self) -> Iterator[np.ndarray]:
        """The steps of the one batch."""
        yield np.array([self._steps])

    def __len__(self) -> int:
        """Number of batches."""
        return 1

    def __iter__(self) -> Iterator[Batch]:
        """The one batch, views of the text."""
        yield Batch(*self._rows)


def rows_of(data: Any, batch_size: int, order: np.ndarray | None = None) -> SequenceRows | TextRows:
    """The batches of a text (tokens,), or of a pair of sequences and targets in the given order."""
    data = _check.training.text_or_pair(data)
    if isinstance(data, tuple):
        return SequenceRows(data, batch_size, order)
    _check.values.absent("training", "order", order, "sequences with targets")
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

    def __getitem__(self, number: int) -> Batch:
        """The first steps of the first batch."""
        return WindowRows(self._rows, self._LOOK)[0]


class WindowRows:
    """Windows along each batch; those without a scored step have no targets and do not count."""

    def __init__(self, rows: SequenceRows | TextRows, time_size: int) -> None:
        self._rows = rows
        self.tokens = rows.tokens
        self.time_size = _check.values.size("WindowRows", "time_size", time_size)

    def __len__(self) -> int:
        """Windows with targets."""
        windows = (-(-steps // self.time_size) for steps in self._rows.longest())
        if self._rows.every_step:
            return sum(int(numbers.max(initial=0)) for numbers in windows)
        return sum(np.unique(numbers[numbers > 0]).size for numbers in windows)

    @property
    def longest(self) -> int:
        """Steps of the longest sequence."""
        return max(int(steps.max(initial=0)) for steps in self._rows.longest())

    def __getitem__(self, number: int) -> Batch:
        """The first window with targets, whatever the number."""
        return next((window for window, _, _ in self if window.ts is not None), self.first_rows(1))

    def first_rows(self, steps: int) -> Batch:
        """The first steps of the first batch, or all of them if only the last step has a target."""
        batch = next(iter(self._rows))
        _check.arrays.whole_file("WindowRows", batch.xs, batch.ts)
        return batch.window(0, min(steps, batch.xs.shape[1]) if self._rows.every_step else batch.xs.shape[1])

    def __iter__(self) -> Iterator[tuple[Batch, bool, bool]]:
        """Each window, and whether a batch begins and ends with it."""
        for batch in self._rows:
            steps = batch.xs.shape[1]
            for first in range(0, steps, self.time_size):
                _check.arrays.whole_file("WindowRows", batch.xs, batch.ts)
                last = min(first + self.time_size, steps)
                yield batch.window(first, last), first == 0, last == steps
