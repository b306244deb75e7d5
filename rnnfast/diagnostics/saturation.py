"""Shares of gates that are shut or wide open; such gates pass little gradient."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rnnfast import _check
from rnnfast.diagnostics.apart import Apart
from rnnfast.models.model import Model


class GateSaturation(NamedTuple):
    """Shares of activations at either end of their range; L layers, G gates.

    Attributes
    ----------
    gates : tuple of str
        Gates of the cell that go into a sigmoid, a tanh or a relu; there may be none.
    low, high : ndarray (L, G)
        Shares from 0 to 1. Sigmoid: below 0.05 and above 0.95. Tanh: below -0.95 and above 0.95. Relu: `low`
        is the share of zeros, and `high` is 0.

    Examples
    --------
    >>> import numpy as np, rnnfast
    >>> from rnnfast.diagnostics import gate_saturation
    >>> model = rnnfast.RNNLM(9, 4, 4, cell="lstm", rng=np.random.default_rng(0))
    >>> found = gate_saturation(model, np.arange(40).reshape(2, 20) % 9)
    >>> found.gates, found.high.shape
    (('f', 'g', 'i', 'o'), (1, 4))
    """

    gates: tuple[str, ...]
    low: np.ndarray
    high: np.ndarray


def gate_saturation(model: Model, xs: np.ndarray, *, low: float = 0.05, high: float = 0.95) -> GateSaturation:
    """Shares of saturated activations of each gate, over all sequences, steps and units.

    The activation of a gate is the first sigmoid, tanh or relu applied to its pre-activation. A sigmoid or
    tanh at the end of its range passes no gradient to its weights. The effect depends on the gate: an open
    forget gate keeps memory, a shut one cuts off the past. Computed without dropout, from a fresh state. The
    model does not change.

    Parameters
    ----------
    model : RNNLM or SequenceRegressor
        With any cell.
    xs : ndarray (N, T), or (N, T, D)
        The argument of the model's `forward`.
    low, high : float
        A sigmoid counts as shut below `low` and as open above `high`; a tanh is saturated beyond `high` on
        either side.

    Returns
    -------
    GateSaturation

    Raises
    ------
    TypeError, ValueError, IndexError
        The model has no recurrent layers, `xs` does not fit it, or a limit is not between 0 and 1.

    Notes
    -----
    Source: Karpathy, Johnson and Fei-Fei, *Visualizing and understanding recurrent networks*, 2015.

    Examples
    --------
    >>> import rnnfast
    >>> model = rnnfast.RNNLM(7, 4, 4, cell="lstm", rng=np.random.default_rng(0))
    >>> model.params[3][:4] = 10                                   # layer0_b: forget gates wide open
    >>> found = gate_saturation(model, np.array([[0, 1, 2, 3]]))
    >>> found.gates, found.high
    (('f', 'g', 'i', 'o'), array([[1., 0., 0., 0.]]))
    """
    owner = "gate_saturation"
    low = _check.values.number(owner, "low", low, 0, 1)
    high = _check.values.number(owner, "high", high, 0, 1)
    apart = Apart(owner, model)
    xs = apart.vectors(xs)
    gates: tuple[str, ...] = ()
    shares = []
    for layer in apart.layers:
        xs = layer.forward(xs)
        found = layer.activations()
        gates = tuple(found)
        shares.append([_shares(values, kind, low, high) for kind, values in found.values()])
    ends = np.array(shares).reshape(len(shares), len(gates), 2)
    return GateSaturation(gates, ends[..., 0], ends[..., 1])


def _shares(values: np.ndarray, kind: str, low: float, high: float) -> tuple[float, float]:
    """The shares of values at the lower and at the upper end."""
    if kind == "relu":
        return float(np.mean(values <= 0)), 0.0
    return float(np.mean(values < (low if kind == "sigmoid" else -high))), float(np.mean(values > high))
