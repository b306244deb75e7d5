"""The layers of one step: a layer over a sequence of length 1, with the state as an argument."""

from __future__ import annotations

from threading import get_ident
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.layers.base import Layer
from rnnfast.layers.recurrent import Recurrent


class OneStep(Layer):
    """Base of `RNN`, `LSTM` and `GRU`: a layer over a sequence of one step, with the state as an argument."""

    OVER_TIME: Any  # the class of the layer over a sequence

    def __init__(self, Wx: np.ndarray, Wh: np.ndarray, b: np.ndarray) -> None:
        self._wrap(self.OVER_TIME(Wx, Wh, b, stateful=True))

    def _wrap(self, time: Recurrent) -> None:
        self._time = time
        self._hold(time.params, time.grads)

    @classmethod
    def from_sizes(
        cls,
        input_size: int,
        hidden_size: int,
        *,
        rng: np.random.Generator | None = None,
        dtype: np.typing.DTypeLike = np.float32,
    ) -> Any:
        """Create a layer with initial values as in `TimeLSTM.from_sizes`.

        Parameters
        ----------
        input_size, hidden_size : int
            D and H.
        rng : numpy.random.Generator, optional
            Draws the weights; a fresh generator by default.
        dtype : float32 or float64
        """
        return cls(*cls.OVER_TIME.from_sizes(input_size, hidden_size, rng=rng, dtype=dtype).params)

    def _shown(self) -> dict[str, Any]:
        given = self._time._shown()
        return {name: given[name] for name in ("input_size", "hidden_size", "reset") if name in given}

    def _advance(self, x: np.ndarray, state: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        with self._turn:
            time, owner = self._time, f"{type(self).__name__}.forward"
            why = "the last axis is the input size of Wx"
            x = _check.arrays.floats(owner, "x", x, ("N", time.input_size), time.dtype, why)
            shape = (x.shape[0], time.hidden_size)
            time.set_state(
                *(
                    _check.arrays.floats(owner, f"{name}_prev", value, shape, time.dtype)
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
            _check.objects.called_before(owner, time.window_rows is not None, "forward")
            assert time.window_rows is not None
            shape = (time.window_rows, time.hidden_size)
            arriving = [
                _check.arrays.floats(owner, f"d{name}_next", value, shape, time.dtype)
                for name, value in zip(time.cell.states, dstate, strict=True)
            ]
            dx = time.go_back(np.zeros((shape[0], 1, shape[1]), time.dtype), arriving)
            assert time.state_gradients is not None
            return dx[:, 0], *time.state_gradients.copy()


class OneState(OneStep):
    """Base of `RNN` and `GRU`, whose state is one array."""

    def forward(self, x: np.ndarray, h_prev: np.ndarray) -> np.ndarray:
        """The next state (N, H) from an input `x` (N, D) and the state `h_prev` (N, H)."""
        return self._advance(x, (h_prev,))[0]

    def backward(self, dh_next: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``(dx, dh_prev)`` of shapes (N, D) and (N, H) from the gradient `dh_next` (N, H) of the new state.

        `grads` is overwritten with this step's gradients.
        """
        dx, dh_prev = self._retreat((dh_next,))
        return dx, dh_prev
