"""The recurrent layers of one step, for a time loop written by the caller: `RNN`, `LSTM` and `GRU`."""

from __future__ import annotations

from threading import get_ident
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.layers.base import Layer
from rnnfast.layers.gru import TimeGRU
from rnnfast.layers.lstm import TimeLSTM
from rnnfast.layers.recurrent import Recurrent
from rnnfast.layers.rnn import TimeRNN

# The layers of one step: a layer over a sequence of length 1, with the state as an argument.


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
            dx = time.backpropagate(np.zeros((shape[0], 1, shape[1]), time.dtype), arriving)
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


class RNN(OneState):
    """One step of the Elman network, as in the book: ``h = tanh(h_prev Wh + x Wx + b)``.

    Parameters
    ----------
    Wx, Wh, b : ndarray (D, H), (H, H), (H,)
        Weights and bias, float32 or float64.

    Notes
    -----
    Source: Saito, *Deep Learning from Scratch 2*, section 5.3.

    Examples
    --------
    >>> import numpy as np, rnnfast
    >>> cell = rnnfast.RNN(np.zeros((3, 2)), np.zeros((2, 2)), np.ones(2))
    >>> cell.forward(np.zeros((1, 3)), np.zeros((1, 2))).round(4)
    array([[0.7616, 0.7616]])
    """

    OVER_TIME = TimeRNN


class LSTM(OneStep):
    """One step of the LSTM, as in the book: ``c = f c_prev + g i``, ``h = o tanh(c)``.

    The gates are those of `TimeLSTM`.

    Parameters
    ----------
    Wx, Wh, b : ndarray (D, 4H), (H, 4H), (4H,)
        Weights and bias, float32 or float64.

    Notes
    -----
    Source: Saito, *Deep Learning from Scratch 2*, section 6.3.

    Examples
    --------
    >>> import numpy as np, rnnfast
    >>> cell = rnnfast.LSTM(np.zeros((3, 8)), np.zeros((2, 8)), np.ones(8))
    >>> h, c = cell.forward(np.zeros((1, 3)), np.zeros((1, 2)), np.zeros((1, 2)))
    >>> h.round(4), c.round(4)
    (array([[0.3696, 0.3696]]), array([[0.5568, 0.5568]]))
    """

    OVER_TIME = TimeLSTM

    def forward(self, x: np.ndarray, h_prev: np.ndarray, c_prev: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``(h, c)`` from an input `x` (N, D), the state `h_prev` and the cell `c_prev`, both (N, H)."""
        h, c = self._advance(x, (h_prev, c_prev))
        return h, c

    def backward(self, dh_next: np.ndarray, dc_next: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """``(dx, dh_prev, dc_prev)`` from the gradients (N, H) of the new state and cell.

        `grads` is overwritten with this step's gradients.
        """
        dx, dh_prev, dc_prev = self._retreat((dh_next, dc_next))
        return dx, dh_prev, dc_prev


class GRU(OneState):
    """One step of the GRU, as in the book: ``h = (1 - z) h_prev + z h_hat``; gates as in `TimeGRU`.

    Parameters
    ----------
    Wx, Wh, b : ndarray (D, 3H), (H, 3H), (3H,)
        Weights and bias, float32 or float64.
    reset, bhh
        As in `TimeGRU`.

    Notes
    -----
    Source: Saito, *Deep Learning from Scratch 2*, appendix C.

    Examples
    --------
    >>> import numpy as np, rnnfast
    >>> cell = rnnfast.GRU(np.zeros((3, 6)), np.zeros((2, 6)), np.ones(6))
    >>> cell.forward(np.zeros((1, 3)), np.zeros((1, 2))).round(4)
    array([[0.5568, 0.5568]])
    """

    OVER_TIME = TimeGRU

    def __init__(
        self,
        Wx: np.ndarray,
        Wh: np.ndarray,
        b: np.ndarray,
        *,
        reset: str = "before",
        bhh: np.ndarray | None = None,
    ) -> None:
        self._wrap(TimeGRU(Wx, Wh, b, stateful=True, reset=reset, bhh=bhh))

    @classmethod
    def from_sizes(
        cls,
        input_size: int,
        hidden_size: int,
        *,
        rng: np.random.Generator | None = None,
        dtype: np.typing.DTypeLike = np.float32,
        reset: str = "before",
    ) -> GRU:
        """Create a layer with initial values as in `TimeGRU.from_sizes`.

        Parameters
        ----------
        input_size, hidden_size : int
            D and H.
        rng : numpy.random.Generator, optional
            Draws the weights; a fresh generator by default.
        dtype : float32 or float64
        reset : {"before", "after"}
            As in the constructor; the second recurrent bias is also zero.
        """
        params = TimeGRU.from_sizes(input_size, hidden_size, rng=rng, dtype=dtype).params
        return cls(*params, reset=reset)
