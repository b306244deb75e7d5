"""The ready cells as equations, and zoneout."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.cells._cell import Cell
from rnnfast.cells._decorator import cell
from rnnfast.cells._functions import exp, maximum, relu, sigmoid, softplus, step, stop_gradient, tanh
from rnnfast.cells._roles import bernoulli, constant, normal, unit


@cell(states=("h", "c"), title="coupled LSTM", forgets={"f": "low"})
def coupled_lstm(f, g, o, h, c):
    """``f = sigmoid(f)``, ``c_t = f c + (1 - f) tanh(g)``, ``h_t = sigmoid(o) tanh(c_t)``.

    Source: Greff et al., *LSTM: a search space odyssey*, 2015 (there: CIFG).
    """
    f = sigmoid(f)
    c = f * c + (1 - f) * tanh(g)
    return sigmoid(o) * tanh(c), c


# The independent RNN: each unit sees only its own state.


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


# Leaky rate units: the continuous-time RNN of computational neuroscience.


@cell(states=("h", "v"), title="leaky RNN")
def leaky(a, h, v, *, alpha=unit(0.1), noise=normal(0.05)):
    """``v_t = v + alpha (a - v) + noise``, ``h_t = relu(v_t)``.

    `alpha` is dt / tau, the fraction of the distance to its input that a unit moves in one step.

    Source: Song, Yang and Wang, *Training excitatory-inhibitory recurrent neural networks for cognitive
    tasks*, 2016.
    """
    v = v + alpha * (a - v) + noise
    return relu(v), v


# The light GRU: no reset gate, relu.


def _orthogonal(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """An orthogonal block (H, H) for each gate, as in the paper."""
    H, columns = shape
    blocks = [np.linalg.qr(rng.standard_normal((H, H)))[0] for _ in range(columns // H)]
    return np.concatenate(blocks, axis=1)


def _biases(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """0 for z, 0.5 for n."""
    return np.repeat([0.0, 0.5], shape[0] // 2)


# A relu is unbounded, and this cell has no batch normalization. Biases of 0.5 keep the first updates from
# raising all of Wh, as in `rnn_relu`. Training perplexity on 8,000 words of the default corpus (V =
# 1,875, D = H = 100, seeds 1 to 3, the second without tied weights; unigram: 245) after 3 epochs of
# AdamW(0.003), and of Adam(0.01):
#     169, 144, 172 and 89, 73, 95      these initial values
#     169, 144, 165 and 96, 77, 91      Wh from randn / sqrt(H); stuck with one seed of a shorter text
#     313, 227, 316 and 235, 150, 256   Wh orthogonal, biases zero, words randn / 100
#     323, 265, 305 and 203, 160, 250   all initial values of the book
# With zero biases, half of the last two Wh, and half the identity, diverged for at least one of these seeds.
@cell(
    states=("h",),
    start={
        "Wh": _orthogonal,
        "b": _biases,
        "words": lambda shape, rng: rng.standard_normal(shape) / 10,
    },
    title="light GRU",
    forgets={"z": "low"},
)
def li_gru(z, n, h):
    """``z = sigmoid(z)``, ``h_t = z h + (1 - z) relu(n)``; without the paper's batch normalization.

    Recurrent weights are initially orthogonal, as in the paper, and the biases of n are 0.5.

    Source: Ravanelli et al., *Light gated recurrent units for speech recognition*, 2018.
    """
    z = sigmoid(z)
    return z * h + (1 - z) * relu(n)


# Recurrent leaky integrate-and-fire neurons, trained by a surrogate gradient.


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


# The minimal GRU, whose gates do not depend on the state.


@cell(states=("h",), product=None, title="minGRU", forgets={"z": "high"})
def min_gru(z, n, h):
    """``z = sigmoid(z)``, ``h_t = (1 - z) h + z n``; gates depend only on the inputs.

    Source: Feng et al., *Were RNNs all we needed?*, 2024.
    """
    z = sigmoid(z)
    return (1 - z) * h + z * n


# The minimal LSTM, whose gates do not depend on the state.


@cell(states=("h",), product=None, title="minLSTM", forgets={"f": "low"})
def min_lstm(f, i, n, h):
    """``f, i = sigmoid(f), sigmoid(i)``, ``h_t = (f h + i n) / (f + i)``; gates depend only on the inputs.

    Source: Feng et al., *Were RNNs all we needed?*, 2024.
    """
    f, i = sigmoid(f), sigmoid(i)
    return (f * h + i * n) / (f + i)


# The LSTM with peepholes: its gates read the cell state.


@cell(states=("h", "c"), title="peephole LSTM", forgets={"f": "low"})
def peephole_lstm(f, g, i, o, h, c, *, pf=unit(0.0), pi=unit(0.0), po=unit(0.0)):
    """``f, i = sigmoid(f + pf c), sigmoid(i + pi c)``, ``c_t = f c + i tanh(g)``, ``h_t = sigmoid(o + po
    c_t) tanh(c_t)``.

    Source: Gers and Schmidhuber, *Recurrent nets that time and count*, 2000.
    """
    c = sigmoid(f + pf * c) * c + sigmoid(i + pi * c) * tanh(g)
    return sigmoid(o + po * c) * tanh(c), c


# The sLSTM: exponential gates, kept in range by a running maximum.


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


# Cells made from other cells.


def zoneout(cell: Cell, p: float) -> Cell:
    """The cell with zoneout: each state keeps its old value with probability `p`.

    Every sequence, step and unit is drawn independently. In prediction (``layer.train_flg = False``) the
    state is the mean of both cases.

    Parameters
    ----------
    cell : Cell
    p : float
        From 0 to 1.

    Returns
    -------
    Cell

    Notes
    -----
    Source: Krueger et al., *Zoneout: regularizing RNNs by randomly preserving hidden activations*, 2017.

    Examples
    --------
    >>> import rnnfast
    >>> from rnnfast.cells import lstm, zoneout
    >>> zoneout(lstm, 0.1)
    <cell lstm_zoneout(f, g, i, o, h, c, keep_h, keep_c)>
    """
    if not isinstance(cell, Cell):
        raise TypeError(f"zoneout: cell must be a cell of rnnfast.cell, got {type(cell).__name__}.")
    ratio = _check.values.number("zoneout", "p", p, 0.0, 1.0)
    taken, prefix = {*cell.gates, *cell.states, *cell.roles}, "keep_"
    while any(f"{prefix}{state}" in taken for state in cell.states):
        prefix = f"keep_{prefix}"
    keeps = [f"{prefix}{state}" for state in cell.states]
    gates, names = len(cell.gates), set(cell.roles)

    def step(*arguments: Any, **named: Any) -> Any:
        after = cell.step(*arguments, **{name: value for name, value in named.items() if name in names})
        after = after if isinstance(after, tuple | list) else (after,)
        before = arguments[gates:]
        return tuple(
            named[keep] * old + (1 - named[keep]) * new
            for keep, old, new in zip(keeps, before, after, strict=True)
        )

    step.__doc__ = f"{inspect.getdoc(cell.step) or cell.name}\n\nWith zoneout of probability {ratio:g}."
    roles = {**cell.roles, **{keep: bernoulli(ratio) for keep in keeps}}
    return Cell(
        step, cell.gates, cell.states, roles, name=f"{cell.name}_zoneout", product=cell.product,
        apart=cell.apart, again=cell.again, start=cell.start, title=f"{cell.title} with zoneout",
        forgets=cell.forgets,
    )  # fmt: skip
