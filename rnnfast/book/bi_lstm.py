"""`Bidirectional` with the book's constructor."""

from __future__ import annotations

import numpy as np

from rnnfast.layers.bidirectional import Bidirectional
from rnnfast.layers.lstm import TimeLSTM


class TimeBiLSTM(Bidirectional):
    """`Bidirectional` with two `TimeLSTM`, and the book's constructor.

    Parameters
    ----------
    Wx1, Wh1, b1 : ndarray (D, 4H), (H, 4H), (4H,)
        Parameters of the layer that reads forwards.
    Wx2, Wh2, b2 : ndarray (D, 4H), (H, 4H), (4H,)
        Parameters of the layer that reads backwards.
    stateful : bool
        As in `TimeLSTM`, for both layers.

    Notes
    -----
    Source: Saito, *Deep Learning from Scratch 2*, `common/time_layers.py`.

    Examples
    --------
    >>> import numpy as np, rnnfast
    >>> parts = [np.zeros((3, 8)), np.zeros((2, 8)), np.zeros(8)]
    >>> rnnfast.TimeBiLSTM(*parts, *parts).forward(np.ones((1, 4, 3))).shape
    (1, 4, 4)
    """

    def __init__(
        self,
        Wx1: np.ndarray,
        Wh1: np.ndarray,
        b1: np.ndarray,
        Wx2: np.ndarray,
        Wh2: np.ndarray,
        b2: np.ndarray,
        stateful: bool = False,
    ) -> None:
        super().__init__(TimeLSTM(Wx1, Wh1, b1, stateful), TimeLSTM(Wx2, Wh2, b2, stateful))
        self.forward_lstm, self.backward_lstm = self.layer_forward, self.layer_backward  # the book's names
