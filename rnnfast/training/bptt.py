"""Truncated backpropagation through time over a text or a batch of sequences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from rnnfast import _check
from rnnfast.data.batching import SequenceRows, WindowBatches, WindowRows
from rnnfast.data.sequences import Batch, Everyone
from rnnfast.training.chain import Window, chain_for
from rnnfast.training.processes import BatchBlocks

__all__ = ["TruncatedBPTT", "Window"]

# "auto" measures on the beginning of the data: at least this number of windows and of steps.
_MEASURED_WINDOWS, _MEASURED_STEPS = 16, 256


class TruncatedBPTT:
    """Truncated backpropagation through time: an update every `k1` steps, gradients through `k2` steps.

    The state is carried from window to window, so the forward pass equals that over the whole text. Each
    window of `k1` steps has its own loss. The gradient flows back through these steps and the ``k2 - k1``
    steps before them. The earlier steps are not read again: their cached activations are used, computed with
    the parameters of that time.

    Parameters
    ----------
    k1 : int
        Steps from one update to the next.
    k2 : int or "auto", optional
        Steps the gradient flows back from the end of a window, at least `k1`; None means `k1`. "auto":
        each pass begins by comparing truncated gradients with the exact one on the beginning of the data;
        `k2` becomes the first of k1, 2 k1, 4 k1, ... whose error is within `tolerance`.
    tolerance : float
        The largest relative error for "auto": the norm of the difference from the exact gradient, divided by
        the norm of the exact gradient.

    Attributes
    ----------
    k2 : int
        With "auto", the last one chosen.
    bias : TruncationBias or None
        With "auto", the measurement for `k2`.

    Raises
    ------
    ValueError
        `k1` is below 1, `k2` below `k1`, or `tolerance` not above 0.

    Notes
    -----
    Source: Williams and Peng, 1990,
    *An efficient gradient-based algorithm for on-line training of recurrent network trajectories*,
    BPTT(h; h'); *Deep Learning from Scratch 2*, section 5.2.3.

    Examples
    --------
    >>> from rnnfast.models import RNNLM
    >>> model = RNNLM(11, 4, 4, rng=np.random.default_rng(0))
    >>> [window.tokens for window in TruncatedBPTT(3).windows(model, np.arange(11), batch_size=2)]
    [6, 4]
    >>> [window.tokens for window in TruncatedBPTT(3, 9).windows(model, np.arange(11), batch_size=2)]
    [6, 4]
    """

    def __init__(self, k1: int, k2: int | Literal["auto"] | None = None, *, tolerance: float = 0.1) -> None:
        owner = type(self).__name__
        self.k1 = _check.values.size(owner, "k1", k1)
        measured = isinstance(k2, str) and _check.values.choice(owner, "k2", k2, ("auto",)) == "auto"
        self.tolerance = _check.values.above(owner, "tolerance", tolerance, 0.0) if measured else None
        self.k2 = (
            self.k1 if k2 is None or isinstance(k2, str) else _check.values.size(owner, "k2", k2, self.k1)
        )
        self.bias: Any = None

    def __repr__(self) -> str:
        if self.tolerance is not None:
            return f'TruncatedBPTT({self.k1}, "auto", tolerance={self.tolerance})'
        return f"TruncatedBPTT({self.k1})" if self.k2 == self.k1 else f"TruncatedBPTT({self.k1}, {self.k2})"

    def _measured(self, model: Any, batches: WindowBatches | WindowRows) -> tuple[int, Any]:
        """The first `k2` within the tolerance on the beginning of the data, and its bias."""
        from rnnfast.training.truncation import truncation_biases

        xs, ts = batches.first_rows(max(_MEASURED_STEPS, _MEASURED_WINDOWS * self.k1))[:2]
        steps, k2 = xs.shape[1], self.k1
        reaches = []
        while k2 < steps:
            reaches.append(k2)
            k2 *= 2
        assert self.tolerance is not None
        measured: tuple[int, Any] = self.k1, None
        for measured in truncation_biases(model, xs, ts, self.k1, [*reaches, k2]):
            if measured[1].relative_error <= self.tolerance:
                break
        return measured

    @property
    def takes_blocks(self) -> bool:
        """Whether `windows` adds gradients by blocks of rows: not where they reach into earlier windows."""
        return self.k2 == self.k1 and self.tolerance is None

    def batches(
        self,
        data: Any,
        batch_size: int,
        order: np.ndarray | None = None,
        blocks: BatchBlocks | None = None,
    ) -> WindowBatches | WindowRows:
        """The windows of one pass over a text (tokens,), or over a pair of sequences (S, T, D) and targets
        in `order` (S,); `CorpusError` when a text has too few tokens."""
        data = _check.training.text_or_pair(data)
        if isinstance(data, tuple):
            rows = SequenceRows(data, batch_size, order, blocks)
            if self.tolerance is not None and rows.has_lengths:
                raise ValueError(
                    'TruncatedBPTT(k1, "auto") measures on sequences of equal lengths; give k2 as a number.'
                )
            return WindowRows(rows, self.k1)
        _check.values.absent("TruncatedBPTT", "order", order, "sequences with targets")
        return WindowBatches(data, batch_size, self.k1)

    def windows(
        self,
        model: Any,
        data: Any,
        batch_size: int,
        passed: int = 0,
        order: np.ndarray | None = None,
        blocks: BatchBlocks | None = None,
    ) -> Iterator[Window]:
        """Go once over the data from a fresh state; after each window the model holds its gradients.

        Parameters
        ----------
        model : RNNLM, CBOWLM or SequenceRegressor
            With ``k2 == k1``, anything with `reset_state`, `forward` and `backward`.
        data : ndarray of int (tokens,), a pair of arrays (S, T, D) and (S, T, O) or (S, O), or Sequences
            A text, or sequences and their targets; a memory map is read window by window. With targets for
            the last step only, windows in which no sequence ends are read without a loss.
        batch_size : int
            Rows of a batch. A text is read from equally spaced places; sequences are read in batches of this
            size.
        passed : int
            Windows to skip: the model is in the state after them, and the last of them was `whole`.
        order : ndarray of int (S,), optional
            The order in which sequences are read, as indices; 0 to S - 1 by default.
        blocks : BatchBlocks, optional
            Cuts batches into blocks of rows, whose gradients are added by a tree, on one or more processes.

        Yields
        ------
        Window
            The caller updates the parameters before it asks for the next one.
        """
        batches = self.batches(data, batch_size, order, blocks)
        reads_whole = getattr(model, "reads_whole", False)
        if reads_whole and isinstance(batches, WindowRows) and self.k1 < batches.longest:
            raise ValueError(
                f"{type(self).__name__}: the model reads whole sequences, so k1 must be at "
                f"least {batches.longest}, the steps of the longest, got {self.k1}."
            )
        if self.tolerance is not None:
            self.k2, self.bias = self._measured(model, batches)
        chain, count = chain_for(model, self.k1, self.k2), len(batches)
        number = 0
        for window, fresh, last in _in_order(batches, blocks):
            if number < passed:
                number += window.ts is not None
                continue
            if fresh:
                model.reset_state()
                chain.forget()
            loss = chain.learn(window)
            if loss is not None:
                number += 1
                whole = last or not chain.reaches_back
                if self.tolerance is not None:  # k2 holds for the whole pass
                    whole = number == count
                yield Window(number, count, window.tokens, loss, whole)


def _in_order(
    batches: WindowBatches | WindowRows, blocks: BatchBlocks | None
) -> Iterator[tuple[Batch, bool, bool]]:
    """Each window, and whether it is the first and the last of a row."""
    if isinstance(batches, WindowRows):
        yield from batches
        return
    options: dict[str, Any] = {}
    if blocks is not None:
        cut = blocks.cut(batches.batch_size)
        options = {"blocks": cut.blocks, "everyone": Everyone(batches.batch_size)}
        batches = batches.of_rows(cut.among)
    for number, (xs, ts) in enumerate(batches, start=1):
        yield Batch(xs, ts, **options), number == 1, number == len(batches)
