"""Leaky rate units: the continuous-time RNN of computational neuroscience."""

from __future__ import annotations

from rnnfast.cells._decorator import cell
from rnnfast.cells._functions import relu
from rnnfast.cells._roles import normal, unit


@cell(states=("h", "v"), title="leaky RNN")
def leaky(a, h, v, *, alpha=unit(0.1), noise=normal(0.05)):
    """``v_t = v + alpha (a - v) + noise``, ``h_t = relu(v_t)``.

    `alpha` is dt / tau, the fraction of the distance to its input that a unit moves in one step.

    Source: Song, Yang and Wang, *Training excitatory-inhibitory recurrent neural networks for cognitive
    tasks*, 2016.
    """
    v = v + alpha * (a - v) + noise
    return relu(v), v
