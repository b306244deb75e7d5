"""Sequences with targets: of equal or unequal lengths, with weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from rnnfast import _check
from rnnfast._check.values import nothing_masked


class Sequences(NamedTuple):
    """Sequences with targets, for `Trainer.fit` and its `valid`.

    A pair ``(xs, ts)`` does the same where there are neither lengths nor weights.

    Attributes
    ----------
    xs : array (S, T, D), or list of S arrays (T_i, D)
        Inputs.
    ts : array (S, T, O) or (S, O), or list of S arrays (T_i, O)
        Targets of every step, or of the last step of each sequence.
    lengths : sequence of S ints, optional
        Steps of each sequence; T by default, and known for lists.
    weights : array (S,) or (S, T), or list of S arrays (T_i,), optional
        Weights of the sequences or of the steps in the mean loss, at least 0. Targets of weight 0 are not
        read and may be NaN.

    Examples
    --------
    >>> import numpy as np
    >>> from rnnfast.data import Sequences
    >>> xs = [np.ones((5, 2), np.float32), np.ones((3, 2), np.float32)]
    >>> Sequences(xs, np.zeros((2, 1), np.float32)).weights is None
    True
    """

    xs: Any
    ts: Any
    lengths: Any = None
    weights: Any = None


class Ragged:
    """Arrays (T_i, ...) of unequal lengths, read as one array (S, T, ...) with zeros behind each end.

    Examples
    --------
    >>> rows = Ragged([np.array([1.0, 2.0]), np.array([3.0])])
    >>> rows.shape, rows[:, 0:2]
    ((2, 2), array([[1., 2.],
           [3., 0.]]))
    """

    def __init__(self, arrays: Sequence[np.ndarray]) -> None:
        arrays = nothing_masked("Ragged", "arrays", arrays)
        self._set_up(np.concatenate(arrays), np.array([len(array) for array in arrays], np.int64))

    def _set_up(self, flat: np.ndarray, lengths: np.ndarray) -> None:
        self._flat, self.lengths, self.dtype = flat, lengths, flat.dtype
        self._begins = np.concatenate(([0], np.cumsum(lengths)))
        self.shape = (len(lengths), int(lengths.max(initial=0)), *flat.shape[1:])
        self.ndim = len(self.shape)

    @classmethod
    def of_flat(cls, flat: np.ndarray, lengths: np.ndarray) -> Ragged:
        """Arrays of these lengths (S,), one after the other in `flat` (total, ...), which is not copied."""
        self = cls.__new__(cls)
        self._set_up(flat, lengths)
        return self

    def __len__(self) -> int:
        """Number of arrays."""
        return len(self.lengths)

    def any_above_zero(self) -> bool:
        """Whether a number is above 0."""
        return bool((self._flat > 0).any())

    def __getitem__(self, places: Any) -> np.ndarray:
        """A copy of some steps of some rows, ``ragged[rows, first:last]`` or all steps, ``ragged[rows]``."""
        rows, steps = places if isinstance(places, tuple) else (places, slice(None))
        first, last, _ = steps.indices(self.shape[1])
        picked = np.arange(len(self))[rows]
        last = max(first, last)
        result = np.zeros((len(picked), last - first, *self.shape[2:]), self.dtype)
        for row, number in enumerate(picked):
            begin, end = (
                self._begins[number] + first,
                min(self._begins[number] + last, self._begins[number + 1]),
            )
            if begin < end:
                result[row, : end - begin] = self._flat[begin:end]
        return result


def checked(owner: str, data: Any) -> Sequences:
    """A pair or `Sequences` whose parts agree: arrays or `Ragged`, lengths in int64, weights in float64."""
    xs, ts, lengths, weights = _check.training.parts_of_sequences(owner, data)
    if isinstance(xs, list | tuple):
        _check.values.absent(owner, "lengths", lengths, "arrays; those of lists are known")
        xs = Ragged(_check.training.list_of_arrays(owner, "xs", xs))
    if isinstance(ts, list | tuple):
        ts = Ragged(_check.training.list_of_arrays(owner, "ts", ts))
    if isinstance(weights, list | tuple) and not all(np.isscalar(weight) for weight in weights):
        weights = Ragged(_check.training.list_of_arrays(owner, "weights", weights))
    _check.training.sequences_and_targets(owner, (xs, ts))
    count, steps = xs.shape[:2]
    if isinstance(xs, Ragged):
        lengths = xs.lengths
    elif lengths is not None:
        lengths = _check.arrays.lengths(owner, lengths, count, steps)
    for name, part in (("ts", ts), ("weights", weights)):
        if isinstance(part, Ragged):
            _check.training.equal_lengths(
                owner, name, part.lengths, np.full(count, steps) if lengths is None else lengths
            )
    if weights is not None:
        weights = weights[:] if isinstance(weights, Ragged) else np.asanyarray(weights)
        _check.arrays.weights(owner, weights, (count, steps), np.dtype(np.float64))
    return Sequences(xs, ts, lengths, weights)


def fitting(owner: str, data: Any, sizes: dict[str, int], dtype: np.dtype) -> Sequences:
    """Checked sequences whose inputs and targets fit a model; memory maps are not read.

    `sizes` are those of the last axes of inputs and targets, by name.
    """
    found = checked(owner, data)
    for name, array, (size, count) in zip(("xs", "ts"), found[:2], sizes.items(), strict=True):
        like = array[:0] if isinstance(array, Ragged) else array
        expected = (*like.shape[:-1], count)
        _check.arrays.float_array(owner, name, like, expected, dtype, f"the last axis is {size}")
    return found


class Everyone(NamedTuple):
    """A whole batch, of which a process may have some rows: its rows, lengths and weights."""

    rows: int
    lengths: np.ndarray | None = None
    weights: np.ndarray | None = None


class Batch(NamedTuple):
    """Inputs (N, T, ...) and targets of a batch or window, or None; lengths (N,), weights (N,) or (N, T)."""

    xs: Any
    ts: Any
    lengths: np.ndarray | None = None
    weights: np.ndarray | None = None
    blocks: Any = None  # of the rows here, if gradients are added by blocks
    everyone: Everyone | None = None  # all rows, if there are others elsewhere

    def options(self) -> dict[str, Any]:
        """The arguments `lengths`, `weights` and `blocks` of a model's `forward`."""
        given = {"lengths": self.lengths, "weights": self.weights, "blocks": self.blocks}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def whole(self) -> Everyone:
        """All rows of the batch."""
        return self.everyone or Everyone(self.xs.shape[0], self.lengths, self.weights)

    @property
    def tokens(self) -> int:
        """Steps of all sequences."""
        count, lengths, _ = self.whole
        return count * self.xs.shape[1] if lengths is None else int(lengths.sum())

    def window(self, first: int, last: int) -> Batch:
        """Steps first .. last, copied; without targets if none of these steps is scored."""
        steps, every_step = self.xs.shape[1], np.ndim(self.ts) == np.ndim(self.xs)
        span = first, last, steps
        lengths, weights, _ = _windowed(self.lengths, self.weights, span, every_step)
        everyone = None
        *whole, scored = _windowed(self.whole.lengths, self.whole.weights, span, every_step)
        if self.everyone is not None:
            everyone = Everyone(self.everyone.rows, *whole)
        ts = None
        if scored:
            ts = np.array(self.ts[:, first:last] if every_step else self.ts)
        return Batch(np.array(self.xs[:, first:last]), ts, lengths, weights, self.blocks, everyone)


def _windowed(
    lengths: np.ndarray | None, weights: np.ndarray | None, span: tuple[int, int, int], every_step: bool
) -> tuple[np.ndarray | None, np.ndarray | None, bool]:
    """Lengths and weights of steps first .. last of `steps`, and whether one of these steps is scored."""
    first, last, steps = span
    if last - first == steps and weights is None and (lengths is None or lengths.all()):
        return lengths, None, True
    inside = None if lengths is None else np.clip(lengths - first, 0, last - first)
    if weights is not None and weights.ndim == 2:
        weights = weights[:, first:last]
    if not every_step and lengths is None and last < steps:
        return inside, weights, False
    if not every_step and lengths is not None:
        ends = (first < lengths) & (lengths <= last)
        if weights is not None:
            weights = (weights.T * ends).T
        elif not ends.all():
            weights = ends
    read = inside is None or inside.any()
    return inside, weights, bool(read and (weights is None or _scores(inside, weights, every_step)))


def _scores(lengths: np.ndarray | None, weights: np.ndarray, every_step: bool) -> bool:
    """Whether a step of a window has a weight above 0."""
    if lengths is None:
        return bool(weights[:, -1:].any() if weights.ndim == 2 and not every_step else weights.any())
    if weights.ndim == 1:
        return bool(weights[lengths > 0].any())
    steps = np.arange(weights.shape[1])
    inside = steps < lengths[:, np.newaxis]
    if not every_step:
        inside &= steps == lengths[:, np.newaxis] - 1
    return bool(weights[inside].any())
