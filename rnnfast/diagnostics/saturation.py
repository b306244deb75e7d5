"""How many gates are shut or wide open, where little gradient passes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from rnnfast import _check
from rnnfast.diagnostics.apart import Apart
from rnnfast.models.model import Model


class GateSaturation(NamedTuple):
    """Shares of activations at either end of their range; L layers, G gates.

    Attributes
    ----------
    gates : tuple of str
        "h" for the RNN; f, g, i, o for the LSTM; z, r, h for the GRU (h is the candidate).
    low, high : ndarray (L, G)
        Shares from 0 to 1. Of a sigmoid: below 0.05 and above 0.95. Of a tanh: below -0.95 and above 0.95. Of
        a relu: `low` is the share of zeros, and `high` is 0.
    """

    gates: tuple[str, ...]
    low: np.ndarray
    high: np.ndarray


def gate_saturation(model: Model, xs: np.ndarray, *, low: float = 0.05, high: float = 0.95) -> GateSaturation:
    """Shares of saturated activations of each gate, over all sequences, steps and units.

    A sigmoid or tanh at the end of its range passes no gradient on to its weights. What it means depends on
    the gate: an open forget gate is a memory, a shut one cuts the past off. Without dropout, from a fresh
    state; the model stays as it is.

    Parameters
    ----------
    model : RNNLM or SequenceRegressor
    xs : ndarray (N, T), or (N, T, D)
        What `forward` of the model takes.
    low, high : float
        Where a sigmoid counts as shut, and where as open; a tanh counts beyond `high` on either side.

    Returns
    -------
    GateSaturation

    Raises
    ------
    TypeError, ValueError, IndexError
        The model has no recurrent layers, `xs` does not fit it, or a limit is not between 0 and 1.

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
    low = _check.number(owner, "low", low, 0, 1)
    high = _check.number(owner, "high", high, 0, 1)
    apart = Apart(owner, model)
    xs = apart.vectors(xs)
    shares = []
    for layer in apart.layers:
        hs = layer.forward(xs, keep=False)
        shares.append(
            [_shares(values, kind, low, high) for values, kind in _activations(apart, layer, xs, hs)]
        )
        xs = hs
    ends = np.array(shares)
    return GateSaturation(apart.gates, ends[..., 0], ends[..., 1])


def _shares(values: np.ndarray, kind: str, low: float, high: float) -> tuple[float, float]:
    """At the lower and at the upper end."""
    if kind == "relu":
        return float(np.mean(values <= 0)), 0.0
    return float(np.mean(values < (low if kind == "sigmoid" else -high))), float(np.mean(values > high))


def _activations(apart: Apart, layer: Any, xs: np.ndarray, hs: np.ndarray) -> list[tuple[np.ndarray, str]]:
    """The activations (N, T, H) of each gate and their kind, made again from the states."""
    if apart.cell.name in ("rnn", "relu"):
        return [(hs, "relu" if apart.cell.name == "relu" else "tanh")]
    before = np.concatenate((np.zeros_like(hs[:, :1]), hs[:, :-1]), axis=1)
    Wx, Wh, b = layer.params
    inputs, recurrent = (
        np.split(xs @ Wx + b, len(apart.gates), axis=-1),
        np.split(Wh, len(apart.gates), axis=1),
    )
    if apart.cell.name == "lstm":
        f, g, i, o = (x + before @ W for x, W in zip(inputs, recurrent, strict=True))
        return [
            (_sigmoid(f), "sigmoid"),
            (np.tanh(g), "tanh"),
            (_sigmoid(i), "sigmoid"),
            (_sigmoid(o), "sigmoid"),
        ]
    z, r = (_sigmoid(x + before @ W) for x, W in zip(inputs[:2], recurrent[:2], strict=True))
    hat = np.tanh(inputs[2] + (r * before) @ recurrent[2])
    return [(z, "sigmoid"), (r, "sigmoid"), (hat, "tanh")]


def _sigmoid(values: np.ndarray) -> np.ndarray:
    """By the tanh, which does not overflow."""
    return 0.5 * np.tanh(0.5 * values) + 0.5
