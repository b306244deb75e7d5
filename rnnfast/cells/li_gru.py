"""The light GRU: no reset gate, relu."""

from __future__ import annotations

from rnnfast.cells._decorator import cell
from rnnfast.cells._functions import relu, sigmoid


@cell(states=("h",), title="light GRU", forgets={"z": "low"})
def li_gru(z, n, h):
    """``z = sigmoid(z)``, ``h_t = z h + (1 - z) relu(n)``; without the paper's batch normalisation.

    Source: Ravanelli et al., *Light gated recurrent units for speech recognition*, 2018.
    """
    z = sigmoid(z)
    return z * h + (1 - z) * relu(n)
