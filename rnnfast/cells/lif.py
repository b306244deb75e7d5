"""Recurrent leaky integrate-and-fire neurons, trained by a surrogate gradient."""

from __future__ import annotations

from rnnfast.cells._decorator import cell
from rnnfast.cells._functions import step, stop_gradient
from rnnfast.cells._roles import constant


@cell(states=("s", "v", "i"), title="LIF")
def lif(a, s, v, i, *, alpha=constant(0.9), beta=constant(0.85), threshold=constant(1.0)):
    """``i_t = alpha i + a``, ``v_t = (beta v + i_t) (1 - s)``, ``s_t = v_t > threshold``.

    Currents `i` and potentials `v` decay; a spike resets the potential to zero. The surrogate derivative of a
    spike is ``1 / (1 + 10 |v - threshold|)^2``; no gradient flows through the reset.

    Source: Neftci, Mostafa and Zenke, *Surrogate gradient learning in spiking neural networks*, 2019; Zenke
    and Ganguli, *SuperSpike*, 2018.
    """
    i = alpha * i + a
    v = (beta * v + i) * (1 - stop_gradient(s))
    return step(v - threshold), v, i
