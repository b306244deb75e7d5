"""The Elman network: one step (`RNN`) and a whole sequence (`TimeRNN`)."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnfast import _check, cells
from rnnfast.layers.one_step import OneStep
from rnnfast.layers.recurrent import Recurrent

_CELLS = {"tanh": cells.rnn, "relu": cells.rnn_relu}
ACTIVATIONS = tuple(_CELLS)


class TimeRNN(Recurrent):
    """Elman network over a whole sequence, with truncated backpropagation through time.

    ``h_t = tanh(h_{t-1} Wh + x_t Wx + b)``, or relu. Backward, with ``dt = dh_t * (1 - h_t^2)``:
    ``dWh = sum h_{t-1}^T dt``, ``dh_{t-1} = dt Wh^T``, ``dWx = sum x_t^T dt``, ``dx_t = dt Wx^T``, ``db = sum
    dt``.

    Parameters
    ----------
    Wx : ndarray (D, H)
        Input weights, float32 or float64; their dtype is the layer's.
    Wh : ndarray (H, H)
        Recurrent weights.
    b : ndarray (H,)
        Bias.
    stateful : bool
        Whether the state after one `forward` is the initial state of the next. The forward chain then runs on
        while each `backward` ends at the beginning of its own window: truncated BPTT.
    activation : {"tanh", "relu"}

    Attributes
    ----------
    params, grads : list of ndarray
        ``[Wx, Wh, b]`` and their gradients; the arrays keep their identity, `backward` writes in place.
    h : ndarray (N, H) or None
        A copy of the state after the last step; None before the first `forward` and after `reset_state`.
    dh : ndarray (N, H) or None
        A copy of the gradient of the initial state of the last window; None before the first `backward`.

    Notes
    -----
    `forward` keeps a reference to `xs` for `backward`, as the book's layers do: do not write into it in
    between. The results of a row do not depend, bit for bit, on the rest of the batch, nor on how a sequence
    is cut into calls.

    Source: Saito, *Deep Learning from Scratch 2*, chapter 5; Elman, *Finding structure in time*, 1990.

    Examples
    --------
    >>> import numpy as np, rnnfast
    >>> layer = rnnfast.TimeRNN.from_sizes(3, 4, rng=np.random.default_rng(0))
    >>> hs = layer.forward(np.ones((2, 5, 3), np.float32))
    >>> hs.shape
    (2, 5, 4)
    >>> layer.backward(np.ones_like(hs)).shape
    (2, 5, 3)
    """

    def __init__(
        self,
        Wx: np.ndarray,
        Wh: np.ndarray,
        b: np.ndarray,
        stateful: bool = False,
        *,
        activation: str = "tanh",
    ) -> None:
        self.activation = _check.choice(type(self).__name__, "activation", activation, ACTIVATIONS)
        self._set_up(_CELLS[self.activation], {"Wx": Wx, "Wh": Wh, "b": b}, stateful)

    def _shown(self) -> dict[str, Any]:
        return {**super()._shown(), "activation": self.activation}

    @classmethod
    def from_sizes(
        cls,
        input_size: int,
        hidden_size: int,
        *,
        rng: np.random.Generator | None = None,
        dtype: np.typing.DTypeLike = np.float32,
        stateful: bool = False,
        activation: str = "tanh",
    ) -> TimeRNN:
        """A layer with weights drawn as in the book: normal, divided by the square root of the fan-in; zero
        bias.

        Parameters
        ----------
        input_size, hidden_size : int
            D and H.
        rng : numpy.random.Generator, optional
            Source of the weights; a fresh one by default.
        dtype : float32 or float64
        stateful, activation
            As in the constructor.
        """
        owner = f"{cls.__name__}.from_sizes"
        params = cls._draw(cells.rnn, owner, input_size, hidden_size, rng, dtype)
        return cls(**params, stateful=stateful, activation=activation)


class RNN(OneStep):
    """One step of the Elman network, as in the book: ``h = tanh(h_prev Wh + x Wx + b)``.

    Parameters
    ----------
    Wx, Wh, b : ndarray (D, H), (H, H), (H,)
        Weights and bias, float32 or float64.

    Source: Saito, *Deep Learning from Scratch 2*, section 5.3.

    Examples
    --------
    >>> import numpy as np, rnnfast
    >>> cell = rnnfast.RNN(np.zeros((3, 2)), np.zeros((2, 2)), np.ones(2))
    >>> cell.forward(np.zeros((1, 3)), np.zeros((1, 2))).round(4)
    array([[0.7616, 0.7616]])
    """

    def __init__(self, Wx: np.ndarray, Wh: np.ndarray, b: np.ndarray) -> None:
        self._wrap(TimeRNN(Wx, Wh, b, stateful=True))

    @classmethod
    def from_sizes(
        cls,
        input_size: int,
        hidden_size: int,
        *,
        rng: np.random.Generator | None = None,
        dtype: np.typing.DTypeLike = np.float32,
    ) -> RNN:
        """A layer with weights drawn as `TimeRNN.from_sizes` draws them.

        Parameters
        ----------
        input_size, hidden_size : int
            D and H.
        rng : numpy.random.Generator, optional
            Source of the weights; a fresh one by default.
        dtype : float32 or float64
        """
        params = TimeRNN.from_sizes(input_size, hidden_size, rng=rng, dtype=dtype).params
        return cls(*params)

    def forward(self, x: np.ndarray, h_prev: np.ndarray) -> np.ndarray:
        """The next state (N, H) from an input `x` (N, D) and the state `h_prev` (N, H)."""
        return self._advance(x, (h_prev,))[0]

    def backward(self, dh_next: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``(dx, dh_prev)`` of shapes (N, D) and (N, H) from the gradient `dh_next` (N, H) of the new state.

        `grads` is overwritten with this step's gradients.
        """
        dx, dh_prev = self._retreat((dh_next,))
        return dx, dh_prev
