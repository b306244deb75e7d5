"""The minimal LSTM, whose gates do not depend on the state."""

from __future__ import annotations

from rnnfast.cells._decorator import cell
from rnnfast.cells._functions import sigmoid


@cell(states=("h",), product=None, title="minLSTM", forgets={"f": "low"})
def min_lstm(f, i, n, h):
    """``f, i = sigmoid(f), sigmoid(i)``, ``h_t = (f h + i n) / (f + i)``; gates depend only on the inputs.

    Source: Feng et al., *Were RNNs all we needed?*, 2024.
    """
    f, i = sigmoid(f), sigmoid(i)
    return (f * h + i * n) / (f + i)
