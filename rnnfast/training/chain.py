"""Gradients of windows that are read in order: each ends at its window, or goes on into those before."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast._turns import turn_of
from rnnfast.models.recurrent_model import RecurrentModel
from rnnfast.models.regressor import SequenceRegressor


def chain_for(model: Any, k1: int, k2: int) -> OneWindow | Chain:
    """What learns from windows of `k1` steps, with gradients that go back `k2` steps from their ends."""
    return Chain(model, k1, k2) if k2 > k1 else OneWindow(model)


class OneWindow:
    """Gradients that end at the first step of their window."""

    reaches_back = False

    def __init__(self, model: Any) -> None:
        self._model = model
        self._options = {"carry": True} if isinstance(model, SequenceRegressor) else {}

    def forget(self) -> None:
        """Nothing is kept."""

    def learn(self, xs: np.ndarray, ts: np.ndarray | None) -> float | None:
        """The loss of a window, with the gradients in the model; None where it has no targets."""
        model = self._model
        if ts is None:
            _check.works_in_parts("TruncatedBPTT with targets of the last step", model, RecurrentModel)
            with turn_of(model):
                model._read_through(xs, drop=model.train_flg, keep=False)
            return None
        loss = float(model.forward(xs, ts, **self._options))
        model.backward()
        return loss


class Chain:
    """Gradients that go back into the windows before, whose tapes are kept.

    The gradient of each window ends `k2 - k1` steps before its first. Where that is inside a window, windows
    are read in two pieces, so that it is the beginning of a piece.
    """

    reaches_back = True

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
        with turn_of(self._model):
            self._model._claim("forward")
            outside = self._model.part_tape()  # others may call the model between two windows
            try:
                return self._learned(xs, ts)
            finally:
                self._model.wind_part(outside)
                self._model._hs = None  # the output layer holds this window

    def _learned(self, xs: np.ndarray, ts: np.ndarray | None) -> float | None:
        model, steps = self._model, xs.shape[1]
        pieces = [(first, last) for first, last in ((0, self._cut), (self._cut, steps)) if first < last]
        pieces = [(first, min(last, steps)) for first, last in pieces]
        own, outputs = [], []
        for first, last in pieces:
            model.wind_part(self._spare.pop() if self._spare else None)
            outputs.append(model._read_through(xs[:, first:last].copy(), drop=model.train_flg))
            own.append((last - first, model.part_tape()))
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
            model.wind_part(own[index][1])
            arriving = model._go_back(part, arriving, adds=arriving is not None)
            own[index] = last - first, model.part_tape()  # recomputing gates overwrote others
        for index in reversed(range(len(self._past))):
            steps, tape = self._past[index]
            model.wind_part(tape)
            nothing = np.zeros((hs.shape[0], steps, hs.shape[2]), hs.dtype)
            arriving = model._go_back(nothing, arriving, adds=True)
            self._past[index] = steps, model.part_tape()
        model._output._parameter_gradients(adds=model._tied)
        return loss
