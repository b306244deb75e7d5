"""Gradients of consecutive windows: each ends at its window, or continues into the windows before."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from rnnfast import _check
from rnnfast.data.sequences import Batch
from rnnfast.engine.locks import turn_of
from rnnfast.layers.window import Part
from rnnfast.models.body import Body
from rnnfast.models.regressor import SequenceRegressor


class Window(NamedTuple):
    """One window after `forward` and `backward`; the gradients are in the model's `grads`."""

    number: int  # counted from 1
    windows: int  # in the whole pass
    tokens: int  # words scored, or steps read, in this window
    loss: float  # their mean loss
    whole: bool = True  # whether later windows depend only on the model's parameters and state


def chain_for(model: Any, k1: int, k2: int) -> OneWindow | Chain:
    """A learner for windows of `k1` steps, with gradients that flow back `k2` steps from their ends."""
    return Chain(model, k1, k2) if k2 > k1 else OneWindow(model)


def _read(model: Any, window: Batch, *, keep: bool = True) -> np.ndarray:
    """Hidden vectors (N, T, H) of a window; advances the carried state."""
    steps = window.xs.shape[1]
    part = Part(0, steps, steps, window.lengths, blocks=window.blocks)
    return model.read_part(window.xs, part, drop=model.train_flg, keep=keep)


class OneWindow:
    """Gradients that end at the first step of their window."""

    reaches_back = False

    def __init__(self, model: Any) -> None:
        self._model = model
        self._options = {"carry": True} if isinstance(model, SequenceRegressor) else {}

    def forget(self) -> None:
        """Do nothing: there are no tapes."""

    def learn(self, window: Batch) -> float | None:
        """The loss of a window, with the gradients in the model; None if it has no targets."""
        model = self._model
        if window.ts is None:
            _check.objects.works_in_parts("TruncatedBPTT with targets of the last step", model, Body)
            with turn_of(model):
                _read(model, window, keep=False)
            return None
        loss = float(model.forward(window.xs, window.ts, **window.options(), **self._options))
        model.backward()
        return loss


class Chain:
    """Gradients that flow back into the windows before, whose tapes are kept.

    The gradient of each window ends `k2 - k1` steps before the window begins. If that point lies inside an
    earlier window, each window is read in two pieces, so that the point begins a piece.
    """

    reaches_back = True

    def __init__(self, model: Any, k1: int, k2: int) -> None:
        _check.objects.works_in_parts("TruncatedBPTT with k2 above k1", model, Body)
        self._model: Any = model
        self._reach = k2 - k1
        self._cut = k1 - (k2 - k1) % k1
        self._past: list[tuple[int, Any]] = []  # steps and tape of each piece, oldest first
        self._spare: list[Any] = []  # tapes whose memory can be reused

    def forget(self) -> None:
        """Drop all tapes: the next window begins a row."""
        self._spare += [tape for _, tape in self._past]
        self._past = []

    def learn(self, window: Batch) -> float | None:
        """The loss of a window, with the gradients in the model; None if it has no targets."""
        with turn_of(self._model):
            self._model.check_trainable()
            outside = self._model.tape()  # a caller may use the model between two windows
            try:
                return self._learned(window)
            finally:
                self._model.restore_tape(outside)
                self._model.forget_window()  # the output layer holds this window, not the caller's

    def _learned(self, window: Batch) -> float | None:
        model, body, steps = self._model, self._model.body, window.xs.shape[1]
        pieces = [(first, last) for first, last in ((0, self._cut), (self._cut, steps)) if first < last]
        pieces = [(first, min(last, steps)) for first, last in pieces]
        own, outputs = [], []
        for first, last in pieces:
            body.restore_tape(self._spare.pop() if self._spare else None)
            outputs.append(_read(model, window.window(first, last)))
            own.append((last - first, body.tape()))
        loss = None
        if window.ts is not None:
            loss = self._go_back(np.concatenate(outputs, axis=1), window, pieces, own)
        self._past += own
        while self._past and sum(count for count, _ in self._past[1:]) >= self._reach:
            self._spare.append(self._past.pop(0)[1])
        return loss

    def _go_back(self, hs: np.ndarray, window: Batch, pieces: list[tuple[int, int]], own: list) -> float:
        body, output = self._model.body, self._model.output
        loss = output.forward(hs, window.ts, **window.options())
        dhs = output.input_gradient()
        arriving = None
        for index in reversed(range(len(own))):
            first, last = pieces[index]
            part = np.ascontiguousarray(dhs[:, first:last])
            body.restore_tape(own[index][1])
            arriving = body.backpropagate(part, arriving, adds=arriving is not None)
            own[index] = last - first, body.tape()  # recomputed activations may have replaced arrays
        for index in reversed(range(len(self._past))):
            steps, tape = self._past[index]
            body.restore_tape(tape)
            nothing = np.zeros((hs.shape[0], steps, hs.shape[2]), hs.dtype)
            arriving = body.backpropagate(nothing, arriving, adds=True)
            self._past[index] = steps, body.tape()
        output.parameter_gradients(adds=self._model.tied)
        return loss
