"""How gradients flow through time while a model walks along a text or a batch of sequences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.data.batching import WindowBatches
from rnnfast.data.rows import SequenceRows, WindowRows
from rnnfast.models.recurrent_model import RecurrentModel
from rnnfast.training.window import Window

__all__ = ["TruncatedBPTT", "Window"]


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
    k2 : int, optional
        Steps the gradient goes back from the end of a window, at least `k1`, which is what None means.

    Raises
    ------
    ValueError
        `k1` is below 1, or `k2` below `k1`.

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

    def __init__(self, k1: int, k2: int | None = None) -> None:
        self.k1 = _check.size("TruncatedBPTT", "k1", k1)
        self.k2 = self.k1 if k2 is None else _check.size("TruncatedBPTT", "k2", k2, self.k1)

    def __repr__(self) -> str:
        return f"TruncatedBPTT({self.k1})" if self.k2 == self.k1 else f"TruncatedBPTT({self.k1}, {self.k2})"

    def batches(self, data: Any, batch_size: int) -> WindowBatches | WindowRows:
        """The windows of one pass over a text (tokens,), or over a pair of sequences (S, T, D) and targets;
        `CorpusError` when a text has too few tokens."""
        if isinstance(data, tuple):
            pair = _check.sequences_and_targets("TruncatedBPTT", data)
            return WindowRows(SequenceRows(*pair, batch_size), self.k1)
        return WindowBatches(data, batch_size, self.k1)

    def windows(self, model: Any, data: Any, batch_size: int) -> Iterator[Window]:
        """Walk once along the data from a fresh state; after each window the model holds its gradients.

        Parameters
        ----------
        model : RNNLM, CBOWLM or SequenceRegressor
            With ``k2 == k1``, anything with `reset_state`, `forward` and `backward`.
        data : ndarray of int (tokens,), or a pair of arrays (S, T, D) and (S, T, O) or (S, O)
            A text, or sequences and their targets; a memory map is read window by window. With a target for
            the last step only, the windows before the last are read and not learned from.
        batch_size : int
            Rows that read side by side: of a text from equally spaced places, else so many sequences.

        Yields
        ------
        Window
            The caller updates the parameters before it asks for the next one.
        """
        batches = self.batches(data, batch_size)
        chain = _Chain(model, self.k1, self.k2) if self.k2 > self.k1 else _OneWindow(model)
        number = 0
        for xs, ts, fresh in _in_order(batches):
            if fresh:
                model.reset_state()
                chain.forget()
            loss = chain.learn(xs, ts)
            if loss is not None:
                number += 1
                yield Window(number, len(batches), xs.shape[0] * xs.shape[1], loss)


def _in_order(batches: WindowBatches | WindowRows) -> Iterator[tuple[np.ndarray, np.ndarray | None, bool]]:
    """Inputs, targets, and whether they begin a row."""
    if isinstance(batches, WindowRows):
        yield from batches
    else:
        for number, (xs, ts) in enumerate(batches):
            yield xs, ts, number == 0


class _OneWindow:
    """Gradients that end at the first step of their window."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def forget(self) -> None:
        """Nothing is kept."""

    def learn(self, xs: np.ndarray, ts: np.ndarray | None) -> float | None:
        """The loss of a window, with the gradients in the model; None where it has no targets."""
        model = self._model
        if ts is None:
            _check.works_in_parts("TruncatedBPTT with targets of the last step", model, RecurrentModel)
            model._read_through(xs, drop=model.train_flg)
            return None
        loss = float(model.forward(xs, ts))
        model.backward()
        return loss


class _Chain:
    """Gradients that go back into the windows before, whose tapes are kept.

    The gradient of each window ends `k2 - k1` steps before its first. Where that is inside a window, windows
    are read in two pieces, so that it is the beginning of a piece.
    """

    def __init__(self, model: Any, k1: int, k2: int) -> None:
        _check.works_in_parts("TruncatedBPTT with k2 above k1", model, RecurrentModel)
        self._model: Any = model
        self._reach = k2 - k1
        self._cut = k1 - (k2 - k1) % k1
        self._past: list[tuple[int, Any]] = []  # steps and tape of each piece, the oldest first
        self._spare: list[Any] = []  # tapes whose memory can be used again

    def forget(self) -> None:
        """The next window begins a row."""
        self._spare += [tape for _, tape in self._past]
        self._past = []

    def learn(self, xs: np.ndarray, ts: np.ndarray | None) -> float | None:
        """The loss of a window, with the gradients in the model; None where it has no targets."""
        model, steps = self._model, xs.shape[1]
        pieces = [(first, last) for first, last in ((0, self._cut), (self._cut, steps)) if first < last]
        pieces = [(first, min(last, steps)) for first, last in pieces]
        own, outputs = [], []
        for first, last in pieces:
            model._wind(self._spare.pop() if self._spare else None)
            outputs.append(model._read_through(xs[:, first:last].copy(), drop=model.train_flg))
            own.append((last - first, model._tape()))
        loss = None if ts is None else self._go_back(np.concatenate(outputs, axis=1), ts, pieces, own)
        self._past += own
        while self._past and sum(count for count, _ in self._past[1:]) >= self._reach:
            self._spare.append(self._past.pop(0)[1])
        return loss

    def _go_back(self, hs: np.ndarray, ts: np.ndarray, pieces: list[tuple[int, int]], own: list) -> float:
        model = self._model
        loss = model._output.forward(hs, ts)
        dhs = model._output._input_gradient()
        arriving = None
        for index in reversed(range(len(own))):
            first, last = pieces[index]
            part = np.ascontiguousarray(dhs[:, first:last])
            model._wind(own[index][1])
            arriving = model._go_back(part, arriving, adds=arriving is not None)
            own[index] = last - first, model._tape()  # of gates made again, other ones are there now
        for index in reversed(range(len(self._past))):
            steps, tape = self._past[index]
            model._wind(tape)
            nothing = np.zeros((hs.shape[0], steps, hs.shape[2]), hs.dtype)
            arriving = model._go_back(nothing, arriving, adds=True)
            self._past[index] = steps, model._tape()
        model._output._parameter_gradients(adds=model._tied)
        return loss
