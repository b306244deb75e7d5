"""The layers of one step: a layer over a sequence of one, with its state from outside."""

from __future__ import annotations

from threading import get_ident
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.layers.base import Layer
from rnnfast.layers.recurrent import Recurrent


class OneStep(Layer):
    """Base of `RNN`, `LSTM` and `GRU`: a layer over a sequence of one step, with the state from outside."""

    def _wrap(self, time: Recurrent) -> None:
        self._time = time
        self._hold(time.params, time.grads)

    def _shown(self) -> dict[str, Any]:
        given = self._time._shown()
        return {name: given[name] for name in ("input_size", "hidden_size", "reset") if name in given}

    def _advance(self, x: np.ndarray, state: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        with self._turn:
            time, owner = self._time, f"{type(self).__name__}.forward"
            why = "the last axis is the input size of Wx"
            x = _check.floats(owner, "x", x, ("N", time.input_size), time.dtype, why)
            shape = (x.shape[0], time.hidden_size)
            time.set_state(
                *(
                    _check.floats(owner, f"{name}_prev", value, shape, time.dtype)
                    for name, value in zip(time.cell.states, state, strict=True)
                )
            )
            time.forward(x[:, None])
            self._made_by = get_ident()
            reached = time.get_state()
            assert reached is not None
            return reached

    def _retreat(self, dstate: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        with self._turn:
            self._claim_tape()
            time, owner = self._time, f"{type(self).__name__}.backward"
            _check.called_before(owner, time.window_rows is not None, "forward")
            assert time.window_rows is not None
            shape = (time.window_rows, time.hidden_size)
            arriving = [
                _check.floats(owner, f"d{name}_next", value, shape, time.dtype)
                for name, value in zip(time.cell.states, dstate, strict=True)
            ]
            dx = time.go_back(np.zeros((shape[0], 1, shape[1]), time.dtype), arriving)
            assert time.state_gradients is not None
            return dx[:, 0], *time.state_gradients.copy()
