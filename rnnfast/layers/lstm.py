"""The LSTM over a whole sequence: `TimeLSTM`."""

from __future__ import annotations

import numpy as np

from rnnfast import cells
from rnnfast._turns import in_turn
from rnnfast.layers.recurrent import Recurrent


class TimeLSTM(Recurrent):
    """LSTM over a whole sequence, with truncated backpropagation through time.

    With f, g, i, o the four blocks of ``x_t Wx + h_{t-1} Wh + b`` in this order, f, i, o through a sigmoid
    and g through tanh: ``c_t = f c_{t-1} + g i``, ``h_t = o tanh(c_t)``.

    Parameters
    ----------
    Wx : ndarray (D, 4H)
        Input weights, float32 or float64; their dtype is the layer's.
    Wh : ndarray (H, 4H)
        Recurrent weights.
    b : ndarray (4H,)
        Bias.
    stateful : bool
        Whether the state after one `forward` is the initial state of the next. The forward chain then runs on
        while each `backward` ends at the beginning of its own window: truncated BPTT.

    Attributes
    ----------
    params, grads : list of ndarray
        ``[Wx, Wh, b]`` and their gradients; the arrays keep their identity, `backward` writes in place.
    h, c : ndarray (N, H) or None
        Copies of the state and the cell after the last step; None before the first `forward` and after
        `reset_state`.
    dh, dc : ndarray (N, H) or None
        Copies of the gradients of the initial state and cell of the last window; None before the first
        `backward`.

    Notes
    -----
    `forward` keeps a reference to `xs` for `backward`, as the book's layers do: do not write into it in
    between. The results of a row do not depend, bit for bit, on the rest of the batch, nor on how a sequence
    is cut into calls. `backward` computes the activations of a long window again, with the same bits, so that
    memory beyond the outputs is little more than one copy of them.

    Source: Saito, *Deep Learning from Scratch 2*, section 6.3; Hochreiter and Schmidhuber, *Long short-term
    memory*, 1997; Gers, Schmidhuber and Cummins, *Learning to forget*, 2000.

    Examples
    --------
    >>> import numpy as np, rnnfast
    >>> layer = rnnfast.TimeLSTM.from_sizes(3, 4, rng=np.random.default_rng(0))
    >>> hs = layer.forward(np.ones((2, 5, 3), np.float32), lengths=[5, 2])
    >>> hs.shape, bool(hs[1, 2:].any())
    ((2, 5, 4), False)
    >>> layer.backward(np.ones_like(hs)).shape
    (2, 5, 3)
    """

    def __init__(self, Wx: np.ndarray, Wh: np.ndarray, b: np.ndarray, stateful: bool = False) -> None:
        self._set_up(cells.lstm, {"Wx": Wx, "Wh": Wh, "b": b}, stateful)

    @classmethod
    def from_sizes(
        cls,
        input_size: int,
        hidden_size: int,
        *,
        rng: np.random.Generator | None = None,
        dtype: np.typing.DTypeLike = np.float32,
        stateful: bool = False,
    ) -> TimeLSTM:
        """A layer with weights drawn as in the book: normal, divided by the square root of the fan-in; zero
        bias.

        Parameters
        ----------
        input_size, hidden_size : int
            D and H.
        rng : numpy.random.Generator, optional
            Source of the weights; a fresh one by default.
        dtype : float32 or float64
        stateful : bool
            As in the constructor.
        """
        params = cls._draw(cells.lstm, f"{cls.__name__}.from_sizes", input_size, hidden_size, rng, dtype)
        return cls(**params, stateful=stateful)

    @property
    @in_turn
    def c(self) -> np.ndarray | None:
        """A copy of the cell (N, H) after the last step; None before the first and after `reset_state`."""
        return None if self._state is None else self._state[1].copy()

    @property
    @in_turn
    def dc(self) -> np.ndarray | None:
        """A copy of the gradient (N, H) of the initial cell of the last window; None before `backward`."""
        return None if self._dstate is None else self._dstate[1].copy()
