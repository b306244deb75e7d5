"""The independent RNN: each unit sees only its own state."""

from __future__ import annotations

from rnnfast.cells._decorator import cell
from rnnfast.cells._functions import relu


@cell(
    states=("h",),
    product="diagonal",
    start={"Wh": lambda shape, rng: rng.uniform(0.0, 1.0, shape)},
    title="IndRNN",
)
def ind_rnn(a, h):
    """``h_t = relu(a)`` with ``a = x_t Wx + Wh h + b`` and one recurrent weight per unit.

    Source: Li et al., *Independently recurrent neural network (IndRNN)*, 2018.
    """
    return relu(a)
