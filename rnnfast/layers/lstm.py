"""The LSTM over a whole sequence: `TimeLSTM`."""

from __future__ import annotations

import numpy as np

from rnnfast import cells
from rnnfast.engine.locks import in_turn
from rnnfast.layers.recurrent import Recurrent


class TimeLSTM(Recurrent):
    """LSTM over a whole sequence, with truncated backpropagation through time.

    f, g, i, o are the four blocks of ``x_t Wx + h_{t-1} Wh + b`` in this order, after a sigmoid for f, i, o
    and tanh for g: ``c_t = f c_{t-1} + g i``, ``h_t = o tanh(c_t)``.

    Parameters
    ----------
    Wx : ndarray (D, 4H)
        Input weights, float32 or float64; their dtype is the layer's.
    Wh : ndarray (H, 4H)
        Recurrent weights.
    b : ndarray (4H,)
        Bias.
    stateful : bool
        Whether each `forward` starts from the final state of the one before. `backward` still ends at the
        beginning of its own window: truncated BPTT.
    precision : "bfloat16", optional
        Round the operands of products to bfloat16; see the property.

    Attributes
    ----------
    params, grads : list of ndarray
        ``[Wx, Wh, b]`` and their gradients; always the same arrays; `backward` writes in place.
    h, c : ndarray (N, H) or None
        Copies of the state and the cell after the last step; None before the first `forward` and after
        `reset_state`.
    dh, dc : ndarray (N, H) or None
        Copies of the gradients of the initial state and cell of the last window; None before the first
        `backward`.

    Notes
    -----
    `forward` keeps a reference to `xs` for `backward`, as the book's layers do: do not change `xs` in
    between. The bits of a row's results depend neither on the rest of the batch nor on how a sequence is cut
    into calls. For a long window, `backward` recomputes the activations, with the same bits; memory beyond
    the outputs is little more than one copy of the outputs.

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

    def __init__(
        self,
        Wx: np.ndarray,
        Wh: np.ndarray,
        b: np.ndarray,
        stateful: bool = False,
        *,
        precision: str | None = None,
    ) -> None:
        self._set_up(cells.lstm, {"Wx": Wx, "Wh": Wh, "b": b}, stateful, precision=precision)

    @classmethod
    def from_sizes(
        cls,
        input_size: int,
        hidden_size: int,
        *,
        rng: np.random.Generator | None = None,
        dtype: np.typing.DTypeLike = np.float32,
        stateful: bool = False,
        precision: str | None = None,
    ) -> TimeLSTM:
        """Create a layer with the book's initial values: weights randn / sqrt(fan-in), zero bias.

        Parameters
        ----------
        input_size, hidden_size : int
            D and H.
        rng : numpy.random.Generator, optional
            Draws the weights; a fresh generator by default.
        dtype : float32 or float64
        stateful, precision
            As in the constructor.
        """
        params = cls._draw(cells.lstm, f"{cls.__name__}.from_sizes", input_size, hidden_size, rng, dtype)
        return cls(**params, stateful=stateful, precision=precision)

    @property
    @in_turn
    def c(self) -> np.ndarray | None:
        """A copy of the cell (N, H) after the last step; None before any step and after `reset_state`."""
        return None if self._state is None else self._state[1].copy()

    @property
    @in_turn
    def dc(self) -> np.ndarray | None:
        """A copy of the gradient (N, H) of the initial cell of the last window; None before `backward`."""
        return None if self._dstate is None else self._dstate[1].copy()
