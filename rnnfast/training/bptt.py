"""How gradients flow through time while a model walks along a text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from rnnfast import _check
from rnnfast.data.batching import WindowBatches


class Window(NamedTuple):
    """One window that has been through `forward` and `backward`; the gradients are in the model's `grads`."""

    number: int  # from 1
    windows: int  # in the whole pass
    tokens: int  # words scored in this window
    loss: float  # their mean loss


class TruncatedBPTT:
    """Truncated backpropagation through time over windows of `k1` steps.

    The state runs on from window to window, so the forward pass is that of the whole text, while each
    gradient ends at the first step of its window: a word is told of the `k1` words before it at most.

    Parameters
    ----------
    k1 : int
        Steps from one update to the next.
    k2 : int, optional
        Steps the gradient goes back. Only `k2 == k1` is supported, which is what None means.

    Raises
    ------
    ValueError
        `k1` is below 1, or `k2` is another number.

    Source: Williams and Peng, *An efficient gradient-based algorithm for on-line training of recurrent
    network trajectories*, 1990, BPTT(h; h'); *Deep Learning from Scratch 2*, section 5.2.3.

    Examples
    --------
    >>> from rnnfast.models import RNNLM
    >>> model = RNNLM(11, 4, 4, rng=np.random.default_rng(0))
    >>> [window.tokens for window in TruncatedBPTT(3).windows(model, np.arange(11), batch_size=2)]
    [6, 4]
    """

    def __init__(self, k1: int, k2: int | None = None) -> None:
        self.k1 = _check.size("TruncatedBPTT", "k1", k1)
        self.k2 = self.k1 if k2 is None else _check.size("TruncatedBPTT", "k2", k2)
        if self.k2 != self.k1:
            raise ValueError(
                f"TruncatedBPTT: k2 must be None or equal to k1, got k1={self.k1} and k2={self.k2}; "
                f"windows whose gradients overlap are not supported."
            )

    def __repr__(self) -> str:
        return f"TruncatedBPTT({self.k1})"

    def batches(self, ids: np.ndarray, batch_size: int) -> WindowBatches:
        """The windows of one pass over `ids`, `(tokens,)`; `CorpusError` when there are too few."""
        return WindowBatches(ids, batch_size, self.k1)

    def windows(self, model: Any, ids: np.ndarray, batch_size: int) -> Iterator[Window]:
        """Walk once along the text from a fresh state; after each window the model holds its gradients.

        Parameters
        ----------
        model : RNNLM or CBOWLM
            Anything with `reset_state`, `forward` and `backward`.
        ids : ndarray of int, (tokens,)
            The text; a memory map is read window by window.
        batch_size : int
            Rows that read side by side, from equally spaced places.

        Yields
        ------
        Window
            The caller updates the parameters before it asks for the next one.
        """
        batches = self.batches(ids, batch_size)
        model.reset_state()
        for number, (xs, ts) in enumerate(batches, start=1):
            loss = float(model.forward(xs, ts))
            model.backward()
            yield Window(number, len(batches), ts.size, loss)
