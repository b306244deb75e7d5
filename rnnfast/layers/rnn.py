"""The Elman network over a whole sequence: `TimeRNN`."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnfast import _check, cells
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
        Whether each `forward` starts from the final state of the one before. `backward` still ends at the
        beginning of its own window: truncated BPTT.
    activation : {"tanh", "relu"}
    precision : "bfloat16", optional
        Round the operands of products to bfloat16; see the property.

    Attributes
    ----------
    params, grads : list of ndarray
        ``[Wx, Wh, b]`` and their gradients; always the same arrays; `backward` writes in place.
    h : ndarray (N, H) or None
        A copy of the state after the last step; None before the first `forward` and after `reset_state`.
    dh : ndarray (N, H) or None
        A copy of the gradient of the initial state of the last window; None before the first `backward`.

    Notes
    -----
    `forward` keeps a reference to `xs` for `backward`, as the book's layers do: do not change `xs` in
    between. The bits of a row's results depend neither on the rest of the batch nor on how a sequence is cut
    into calls.

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
        precision: str | None = None,
    ) -> None:
        self.activation = _check.values.choice(type(self).__name__, "activation", activation, ACTIVATIONS)
        self._set_up(_CELLS[self.activation], {"Wx": Wx, "Wh": Wh, "b": b}, stateful, precision=precision)

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
        precision: str | None = None,
    ) -> TimeRNN:
        """Create a layer with the book's initial values: weights randn / sqrt(fan-in), zero bias.

        Parameters
        ----------
        input_size, hidden_size : int
            D and H.
        rng : numpy.random.Generator, optional
            Draws the weights; a fresh generator by default.
        dtype : float32 or float64
        stateful, activation, precision
            As in the constructor.
        """
        owner = f"{cls.__name__}.from_sizes"
        params = cls._draw(cells.rnn, owner, input_size, hidden_size, rng, dtype)
        return cls(**params, stateful=stateful, activation=activation, precision=precision)
