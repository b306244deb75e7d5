"""The built-in cells as equations; `cell.py` defines their meaning.

The gates are in the order of the columns of Wx, Wh and b, which is the book's.
"""

from __future__ import annotations

from .expression import relu, sigmoid, tanh


def rnn_tanh(a, h):
    """Elman network."""
    return tanh(a)


def rnn_relu(a, h):
    """The simple RNN with relu."""
    return relu(a)


def lstm(f, g, i, o, h, c):
    """Long short-term memory, with a forget gate."""
    c = sigmoid(f) * c + tanh(g) * sigmoid(i)
    return sigmoid(o) * tanh(c), c


def gru_before(z, r, n, h):
    """Gated recurrent unit, its reset gate before the product."""
    z, r = sigmoid(z), sigmoid(r)
    return z * tanh(n(r * h)) + (1 - z) * h


def gru_after(z, r, n, h):
    """Gated recurrent unit, its reset gate after the product."""
    z, r = sigmoid(z), sigmoid(r)
    return z * tanh(n.x + r * n.h) + (1 - z) * h
