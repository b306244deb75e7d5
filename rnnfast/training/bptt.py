"""How gradients flow through time while a model walks along a text or a batch of sequences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from rnnfast import _check
from rnnfast.data.batching import WindowBatches
from rnnfast.data.rows import SequenceRows, WindowRows
from rnnfast.training.chain import chain_for
from rnnfast.training.window import Window

__all__ = ["TruncatedBPTT", "Window"]

# The stretch of data on which a window is measured: at least this number of windows, and of steps.
_MEASURED_WINDOWS, _MEASURED_STEPS = 16, 256


class TruncatedBPTT:
    """Truncated backpropagation through time: an update every `k1` steps, from gradients that reach further.

    The state runs on from window to window, so the forward pass is that of the whole text. The loss is that
    of the `k1` steps of a window; its gradient goes back through them and through the ``k2 - k1`` steps
    before them. Those are not read again: what `backward` needs of them is kept, as they were when they were
    read, with the parameters of that time.

    Parameters
    ----------
    k1 : int
        Steps from one update to the next.
    k2 : int or "auto", optional
        Steps the gradient goes back from the end of a window, at least `k1`, which is what None means.
        "auto": at the beginning of each pass the gradient is compared with the exact one on the beginning of
        the data, and `k2` becomes the first of k1, 2 k1, 4 k1, ... that is good enough.
    tolerance : float
        What is good enough for "auto": the largest norm of the difference to the exact gradient, over the
        norm of that.

    Attributes
    ----------
    k2 : int
        With "auto", as it was chosen last.
    bias : TruncationBias or None
        With "auto", what was measured for it.

    Raises
    ------
    ValueError
        `k1` is below 1, `k2` below `k1`, or `tolerance` not above 0.

    Source: Williams and Peng, *An efficient gradient-based algorithm for on-line training of recurrent
    network trajectories*, 1990, BPTT(h; h'); *Deep Learning from Scratch 2*, section 5.2.3.

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
        self.k1 = _check.size(owner, "k1", k1)
        measured = isinstance(k2, str) and _check.choice(owner, "k2", k2, ("auto",)) == "auto"
        self.tolerance = _check.above(owner, "tolerance", tolerance, 0.0) if measured else None
        self.k2 = self.k1 if k2 is None or isinstance(k2, str) else _check.size(owner, "k2", k2, self.k1)
        self.bias: Any = None

    def __repr__(self) -> str:
        if self.tolerance is not None:
            return f'TruncatedBPTT({self.k1}, "auto", tolerance={self.tolerance})'
        return f"TruncatedBPTT({self.k1})" if self.k2 == self.k1 else f"TruncatedBPTT({self.k1}, {self.k2})"

    def _measured(self, model: Any, batches: WindowBatches | WindowRows) -> tuple[int, Any]:
        """The reach that is good enough on the beginning of the data, and its bias."""
        from rnnfast.diagnostics.truncation import truncation_biases

        xs, ts = batches.first_rows(max(_MEASURED_STEPS, _MEASURED_WINDOWS * self.k1))
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

    def batches(
        self, data: Any, batch_size: int, order: np.ndarray | None = None
    ) -> WindowBatches | WindowRows:
        """The windows of one pass over a text (tokens,), or over a pair of sequences (S, T, D) and targets,
        read in this order (S,); `CorpusError` when a text has too few tokens."""
        data = _check.text_or_pair(data)
        if isinstance(data, tuple):
            pair = _check.sequences_and_targets("TruncatedBPTT", data)
            return WindowRows(SequenceRows(*pair, batch_size, order), self.k1)
        _check.absent("TruncatedBPTT", "order", order, "sequences with targets")
        return WindowBatches(data, batch_size, self.k1)

    def windows(
        self,
        model: Any,
        data: Any,
        batch_size: int,
        passed: int = 0,
        order: np.ndarray | None = None,
    ) -> Iterator[Window]:
        """Walk once along the data from a fresh state; after each window the model holds its gradients.

        Parameters
        ----------
        model : RNNLM, CBOWLM or SequenceRegressor
            With ``k2 == k1``, anything with `reset_state`, `forward` and `backward`.
        data : ndarray of int (tokens,), or a pair of arrays (S, T, D) and (S, T, O) or (S, O)
            A text, or sequences and their targets; a memory map is read window by window. With a target for
            the last step only, the windows before the last are read and not learned from.
        batch_size : int
            Rows that read side by side: of a text from equally spaced places, else that number of sequences.
        passed : int
            So many windows lie behind, the last of them `whole`, and the model is in the state after them.
        order : ndarray of int (S,), optional
            The numbers of the sequences in the order they are read in; by default their own.

        Yields
        ------
        Window
            The caller updates the parameters before it asks for the next one.
        """
        batches = self.batches(data, batch_size, order)
        if self.tolerance is not None:
            self.k2, self.bias = self._measured(model, batches)
        chain = chain_for(model, self.k1, self.k2)
        number = 0
        for xs, ts, fresh, last in _in_order(batches):
            if number < passed:
                number += ts is not None
                continue
            if fresh:
                model.reset_state()
                chain.forget()
            loss = chain.learn(xs, ts)
            if loss is not None:
                number += 1
                whole = last or not chain.reaches_back
                if self.tolerance is not None:  # what was measured serves until the end of the pass
                    whole = number == len(batches)
                yield Window(number, len(batches), xs.shape[0] * xs.shape[1], loss, whole)


def _in_order(
    batches: WindowBatches | WindowRows,
) -> Iterator[tuple[np.ndarray, np.ndarray | None, bool, bool]]:
    """Inputs, targets, and whether they begin a row and end it."""
    if isinstance(batches, WindowRows):
        yield from batches
    else:
        for number, (xs, ts) in enumerate(batches, start=1):
            yield xs, ts, number == 1, number == len(batches)
