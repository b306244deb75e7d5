"""The sLSTM: exponential gates, kept in range by a running maximum."""

from __future__ import annotations

from rnnfast.cells._decorator import cell
from rnnfast.cells._functions import exp, maximum, sigmoid, softplus, tanh


@cell(states=("h", "c", "n", "m"), title="sLSTM", forgets={"f": "low"})
def slstm(f, z, i, o, h, c, n, m):
    """``m_t = max(log f + m, i)``, ``c_t = f' c + i' tanh(z)``, ``n_t = f' n + i'``, ``h_t = sigmoid(o) c_t
    / max(n_t, 1)``.

    Here ``f = sigmoid(f)``, ``i' = exp(i - m_t)`` and ``f' = exp(log f + m - m_t)``. Subtracting the maximum
    m prevents overflow in both.

    Source: Beck et al., *xLSTM: extended long short-term memory*, 2024.
    """
    log_f = -softplus(-f)
    after = maximum(log_f + m, i)
    i, f = exp(i - after), exp(log_f + m - after)
    c, n = f * c + i * tanh(z), f * n + i
    return sigmoid(o) * c / maximum(n, 1.0), c, n, after
