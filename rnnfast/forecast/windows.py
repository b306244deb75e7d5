"""Training data: the series cut into windows, whose inputs and targets are computed when they are read."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnfast.data.sequences import Ragged

# Windows whose weights are computed together.
_PIECE = 2048


class Windows:
    """Windows of the series of a table: `first` (S,) of the series `rows` (S,), of `lengths` (S,) steps.

    A series longer than `size` steps is cut. Each window then begins with `size // 2` steps that only
    prepare the state, and whose targets belong to the window before; the first window scores all its steps.

    Parameters
    ----------
    begins : ndarray of int (n+1,)
        Where the series begin in the flat arrays of their panel.
    steps : ndarray of int (n,)
        The number of steps of each series, from its first one on, that have a target.
    size : int
        The most steps of a window, at least 2.
    """

    def __init__(self, begins: np.ndarray, steps: np.ndarray, size: int) -> None:
        half = size // 2
        counts = np.where(steps > 0, 1 + np.maximum(0, -(-(steps - size) // (size - half))), 0)
        self.rows = np.repeat(np.arange(len(steps)), counts)
        number = np.arange(len(self.rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        self.first = number * (size - half)
        self.lengths = np.minimum(size, steps[self.rows] - self.first)
        self._prepares = np.where(number > 0, half, 0)
        self._begins = begins

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.rows)

    def weights(self, scored: np.ndarray, since: np.ndarray | None = None) -> Ragged | None:
        """The weights of all steps, 1 or 0; None if all are 1.

        `scored` (total,) tells which steps have a known target, and `since` (n,) the first step of each
        series that counts.
        """
        parts = [self._counts(scored, since, slice(at, at + _PIECE)) for at in range(0, len(self), _PIECE)]
        counts = np.concatenate(parts) if parts else np.ones(0, bool)
        return None if counts.all() else Ragged.of_flat(counts.astype(np.float32), self.lengths)

    def _counts(self, scored: np.ndarray, since: np.ndarray | None, piece: slice) -> np.ndarray:
        """Whether each step of some windows counts."""
        rows, begins, lengths = self.rows[piece], self.first[piece], self.lengths[piece]
        first = self._prepares[piece]
        if since is not None:
            first = np.maximum(first, since[rows] - begins)
        inside = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        places = inside + np.repeat(self._begins[rows] + begins, lengths)
        return scored[places] & (inside >= np.repeat(first, lengths))


class Columns(Ragged):
    """Inputs or targets of windows as one array (S, T, columns), computed when it is read.

    Parameters
    ----------
    windows : Windows
    compute : callable
        The values (N, steps, columns) of some series from a step on: `Table.inputs` or `Table.targets`.
    columns : int
    """

    def __init__(self, windows: Windows, compute: Any, columns: int, dtype: Any) -> None:
        self.lengths, self._windows, self._compute = windows.lengths, windows, compute
        self.dtype = np.dtype(dtype)
        self.shape = (len(windows), int(self.lengths.max(initial=0)), columns)
        self.ndim = 3

    def __getitem__(self, places: Any) -> np.ndarray:
        """Some steps of some rows, as in `Ragged`."""
        rows, steps = places if isinstance(places, tuple) else (places, slice(None))
        first, last, _ = steps.indices(self.shape[1])
        picked, windows = np.arange(len(self))[rows], self._windows
        found = self._compute(windows.rows[picked], windows.first[picked] + first, max(0, last - first))
        found[np.arange(first, max(first, last)) >= windows.lengths[picked, np.newaxis]] = 0
        return found.astype(self.dtype)
