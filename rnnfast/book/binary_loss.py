"""Sigmoid with binary cross-entropy loss."""

from __future__ import annotations

from threading import get_ident

import numpy as np

from rnnfast import _check
from rnnfast.kernels.codegen.activations import sigmoid_forward
from rnnfast.layers.base import Layer


class TimeSigmoidWithLoss(Layer):
    """Mean binary cross-entropy of a sigmoid over all positions.

    ``loss = mean(-t log p - (1 - t) log(1 - p))`` with ``p = sigmoid(xs)``, computed as
    ``max(x, 0) - x t + log(1 + exp(-|x|))``, which is finite for finite scores; backward
    ``dxs = (p - t) / (N T)``.

    Source: Saito, *Deep Learning from Scratch 2*, section 4.2 and `common/time_layers.py`.

    Examples
    --------
    >>> import numpy as np, rnnfast
    >>> layer = rnnfast.TimeSigmoidWithLoss()
    >>> round(layer.forward(np.zeros((1, 2)), np.array([[0, 1]])), 4)
    0.6931
    """

    TAPE = (*Layer.TAPE, "_cache")
    _cache: tuple[np.ndarray, np.ndarray] | None = None

    def __init__(self) -> None:
        self._hold()

    def forward(self, xs: np.ndarray, ts: np.ndarray) -> float:
        """The mean loss, in nats.

        Parameters
        ----------
        xs : ndarray (N, T)
            Scores, float32 or float64; one number per position.
        ts : ndarray (N, T)
            Labels 0 or 1.
        """
        with self._turn:
            owner = "TimeSigmoidWithLoss.forward"
            xs = _check.arrays.shape(owner, "xs", xs, ("N", "T"))
            xs = _check.arrays.floats(
                owner, "xs", xs, xs.shape, _check.arrays.float_dtype(owner, xs.dtype.newbyteorder("="))
            )
            labels = _check.arrays.binary(owner, "ts", ts, xs.shape).astype(xs.dtype)
            p = np.empty_like(xs)
            sigmoid_forward(xs.reshape(-1), p.reshape(-1))
            wide = xs.astype(np.float64)
            with np.errstate(under="ignore"):
                losses = np.maximum(wide, 0) - wide * labels + np.log1p(np.exp(-np.abs(wide)))
            self._made_by = get_ident()
            self._cache = p, labels
            return float(losses.sum() / max(1, losses.size))

    def backward(self, dout: float = 1.0) -> np.ndarray:
        """Gradient (N, T) of `dout` times the last loss with respect to the scores."""
        with self._turn:
            self._claim_tape()
            owner = "TimeSigmoidWithLoss.backward"
            _check.objects.called_before(owner, self._cache is not None, "forward")
            assert self._cache is not None
            p, labels = self._cache
            with np.errstate(under="ignore"):
                return (p - labels) * p.dtype.type(_check.values.number(owner, "dout", dout) / max(1, p.size))
