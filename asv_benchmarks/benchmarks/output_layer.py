"""The fused output layer: affine, softmax, loss and their gradients without the (N T, V) scores."""

import functools
import math

import numpy as np

import rnnfast

from . import baseline
from .measuring import Timed, aligned, assert_agrees, figures

SHAPES = {"20x35x100x10000": (20, 35, 100, 10_000), "50x50x128x65": (50, 50, 128, 65)}


class _Rnnfast:
    def __init__(self, W, b, N, T, H):
        self.layer = rnnfast.TimeAffineSoftmaxWithLoss(W, b)
        self.dxs = aligned(np.zeros((N, T, H)))

    def forward(self, xs, ts):
        return self.layer.forward(xs, ts)

    def backward(self):
        return self.layer.backward(out=self.dxs)

    @property
    def grads(self):
        return self.layer.grads


@functools.cache
def _state(shape, library):
    """The layer, hidden states and labels, compiled and compared with float64 NumPy."""
    N, T, H, V = SHAPES[shape]
    rng = np.random.default_rng(0)
    W, b = aligned(rng.standard_normal((H, V)) / np.sqrt(H)), aligned(0.1 * rng.standard_normal(V))
    xs, ts = aligned(np.tanh(rng.standard_normal((N, T, H)))), rng.integers(0, V, (N, T))
    layer = _Rnnfast(W, b, N, T, H) if library == "rnnfast" else baseline.TimeAffineSoftmaxWithLoss(W, b)
    oracle = baseline.TimeAffineSoftmaxWithLoss(W.astype(np.float64), b.astype(np.float64))
    assert_agrees("loss", np.float32(layer.forward(xs, ts)), oracle.forward(xs.astype(np.float64), ts), H)
    assert_agrees("dxs", layer.backward(), oracle.backward(), V)
    for name, actual, expected in zip(("dW", "db"), layer.grads, oracle.grads, strict=True):
        assert_agrees(name, actual, expected, N * T)
    return layer, xs, ts


class FusedOutput(Timed):
    params = (list(SHAPES), ["rnnfast", "numpy"])
    param_names = ("N x T x H x V", "library")

    def setup(self, shape, library):
        self.layer, self.xs, self.ts = _state(shape, library)

    def time_forward_backward(self, shape, library):
        self.layer.forward(self.xs, self.ts)
        self.layer.backward()


@figures
class FusedOutputFigures:
    params = (list(SHAPES),)
    param_names = ("N x T x H x V",)

    def setup(self, shape):
        self.state, self.xs, self.ts = _state(shape, "rnnfast")
        self.layer = self.state.layer
        self.operations = 6 * math.prod(SHAPES[shape])

    def call(self):
        self.state.forward(self.xs, self.ts)
        self.state.backward()
