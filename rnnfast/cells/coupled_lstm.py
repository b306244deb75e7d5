"""The LSTM with coupled gates: the input gate is one minus the forget gate."""

from __future__ import annotations

from rnnfast.cells._decorator import cell
from rnnfast.cells._functions import sigmoid, tanh


@cell(states=("h", "c"), title="coupled LSTM", forgets={"f": "low"})
def coupled_lstm(f, g, o, h, c):
    """``f = sigmoid(f)``, ``c_t = f c + (1 - f) tanh(g)``, ``h_t = sigmoid(o) tanh(c_t)``.

    Source: Greff et al., *LSTM: a search space odyssey*, 2015 (there: CIFG).
    """
    f = sigmoid(f)
    c = f * c + (1 - f) * tanh(g)
    return sigmoid(o) * tanh(c), c
