"""The LSTM with peepholes: its gates read the cell state."""

from __future__ import annotations

from rnnfast.cells._decorator import cell
from rnnfast.cells._functions import sigmoid, tanh
from rnnfast.cells._roles import unit


@cell(states=("h", "c"), title="peephole LSTM", forgets={"f": "low"})
def peephole_lstm(f, g, i, o, h, c, *, pf=unit(0.0), pi=unit(0.0), po=unit(0.0)):
    """``f, i = sigmoid(f + pf c), sigmoid(i + pi c)``, ``c_t = f c + i tanh(g)``, ``h_t = sigmoid(o + po
    c_t) tanh(c_t)``.

    Source: Gers and Schmidhuber, *Recurrent nets that time and count*, 2000.
    """
    c = sigmoid(f + pf * c) * c + sigmoid(i + pi * c) * tanh(g)
    return sigmoid(o + po * c) * tanh(c), c
