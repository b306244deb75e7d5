"""The recurrent layers of one step, for a time loop written by the caller: `RNN`, `LSTM` and `GRU`."""

from __future__ import annotations

import numpy as np

from rnnfast.book.one_step import OneState, OneStep
from rnnfast.layers.gru import TimeGRU
from rnnfast.layers.lstm import TimeLSTM
from rnnfast.layers.rnn import TimeRNN


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
