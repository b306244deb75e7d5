"""The minimal GRU, whose gates do not depend on the state."""

from __future__ import annotations

from rnnfast.cells._decorator import cell
from rnnfast.cells._functions import sigmoid


@cell(states=("h",), product=None, title="minGRU", forgets={"z": "high"})
def min_gru(z, n, h):
    """``z = sigmoid(z)``, ``h_t = (1 - z) h + z n``; gates depend only on the inputs.

    Source: Feng et al., *Were RNNs all we needed?*, 2024.
    """
    z = sigmoid(z)
    return (1 - z) * h + z * n
