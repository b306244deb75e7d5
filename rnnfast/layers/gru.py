"""The GRU over a whole sequence: `TimeGRU`."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnfast import _check, cells
from rnnfast.layers.recurrent import Recurrent

_CELLS = {"before": cells.gru, "after": cells.gru_after}
RESETS = tuple(_CELLS)


class TimeGRU(Recurrent):
    """GRU over a whole sequence, with truncated backpropagation through time.

    ``z, r = sigmoid`` of the first two blocks of ``x_t Wx + h_{t-1} Wh + b``;
    ``h_t = (1 - z) h_{t-1} + z h_hat``. The reset gate acts before the recurrent product, as in the book,
    ``h_hat = tanh(x_t Wxh + (r h_{t-1}) Whh + bh)``, or after it, as in PyTorch and cuDNN,
    ``h_hat = tanh(x_t Wxh + bh + r (h_{t-1} Whh + bhh))``. (PyTorch's z is 1 - z here.)

    Parameters
    ----------
    Wx : ndarray (D, 3H)
        Input weights, the blocks z, r, h; float32 or float64; their dtype is the layer's.
    Wh : ndarray (H, 3H)
        Recurrent weights, likewise.
    b : ndarray (3H,)
        Bias, likewise.
    stateful : bool
        Whether each `forward` starts from the final state of the one before. `backward` still ends at the
        beginning of its own window: truncated BPTT.
    reset : {"before", "after"}
        Whether the reset gate acts before or after the recurrent product.
    bhh : ndarray (H,), optional
        The recurrent bias of ``reset="after"``, in addition to `b`; zeros by default.
    precision : "bfloat16", optional
        Round the operands of products to bfloat16; see the property.

    Attributes
    ----------
    params, grads : list of ndarray
        ``[Wx, Wh, b]``, and ``bhh`` with ``reset="after"``, and their gradients; always the same
        arrays; `backward` writes in place.
    h : ndarray (N, H) or None
        A copy of the state after the last step; None before the first `forward` and after `reset_state`.
    dh : ndarray (N, H) or None
        A copy of the gradient of the initial state of the last window; None before the first `backward`.

    Notes
    -----
    As for `TimeLSTM`.

    Source: Saito, *Deep Learning from Scratch 2*, appendix C; Cho et al., *Learning phrase representations
    using RNN encoder-decoder*, 2014.

    Examples
    --------
    >>> import numpy as np, rnnfast
    >>> layer = rnnfast.TimeGRU.from_sizes(3, 4, rng=np.random.default_rng(0), reset="after")
    >>> hs = layer.forward(np.ones((2, 5, 3), np.float32))
    >>> [p.shape for p in layer.params]
    [(3, 12), (4, 12), (12,), (4,)]
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
        reset: str = "before",
        bhh: np.ndarray | None = None,
        precision: str | None = None,
    ) -> None:
        owner = type(self).__name__
        self.reset = _check.values.choice(owner, "reset", reset, RESETS)
        params = {"Wx": Wx, "Wh": Wh, "b": b}
        if self.reset == "after":
            params["bhh"] = np.zeros(np.shape(Wh)[:1], np.asarray(Wh).dtype) if bhh is None else bhh
        else:
            _check.values.absent(owner, "bhh", bhh, 'reset="after"')
        self._set_up(_CELLS[self.reset], params, stateful, precision=precision)

    def _shown(self) -> dict[str, Any]:
        return {**super()._shown(), "reset": self.reset}

    @classmethod
    def from_sizes(
        cls,
        input_size: int,
        hidden_size: int,
        *,
        rng: np.random.Generator | None = None,
        dtype: np.typing.DTypeLike = np.float32,
        stateful: bool = False,
        reset: str = "before",
        precision: str | None = None,
    ) -> TimeGRU:
        """Create a layer with the book's initial values: weights randn / sqrt(fan-in), zero biases.

        Parameters
        ----------
        input_size, hidden_size : int
            D and H.
        rng : numpy.random.Generator, optional
            Draws the weights; a fresh generator by default.
        dtype : float32 or float64
        stateful, reset, precision
            As in the constructor.
        """
        params = cls._draw(cells.gru, f"{cls.__name__}.from_sizes", input_size, hidden_size, rng, dtype)
        return cls(**params, stateful=stateful, reset=reset, precision=precision)
