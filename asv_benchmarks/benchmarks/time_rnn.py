"""TimeRNN over a whole sequence, forward and backward."""

import functools

import numpy as np

import rnnfast

from . import baseline
from .measuring import Timed, aligned, allocated_bytes, assert_agrees, share_of_peak, unit, workspace_bytes

SHAPES = {
    "1x1000x32x32": (1, 1000, 32, 32),
    "20x35x100x100": (20, 35, 100, 100),
    "20x35x650x650": (20, 35, 650, 650),
    "64x100x128x256": (64, 100, 128, 256),
    "32x256x256x512": (32, 256, 256, 512),
}


class _Rnnfast:
    """The layer with its outputs given, as a training loop in the steady state calls it."""

    def __init__(self, params, N, T, D, H):
        self.layer = rnnfast.TimeRNN(*params)
        self.hs, self.dxs = (aligned(np.empty((N, T, size))) for size in (H, D))

    def forward(self, xs):
        return self.layer.forward(xs, out=self.hs)

    def backward(self, dhs):
        return self.layer.backward(dhs, out=self.dxs)

    @property
    def grads(self):
        return self.layer.grads


@functools.cache
def _state(shape, library):
    """The layer, its input and the gradient of its output; compiled, and compared with float64 NumPy."""
    N, T, D, H = SHAPES[shape]
    rng = np.random.default_rng(0)
    params = [aligned(rng.standard_normal(s) / np.sqrt(s[0])) for s in ((D, H), (H, H))]
    params.append(aligned(0.1 * rng.standard_normal(H)))
    xs, dhs = (aligned(rng.standard_normal((N, T, size))) for size in (D, H))
    layer = _Rnnfast(params, N, T, D, H) if library == "rnnfast" else baseline.TimeRNN(*params)
    oracle = baseline.TimeRNN(*(p.astype(np.float64) for p in params))
    assert_agrees("hs", layer.forward(xs), oracle.forward(xs.astype(np.float64)), T + D + H)
    assert_agrees("dxs", layer.backward(dhs), oracle.backward(dhs.astype(np.float64)), T + D + H)
    for name, actual, expected in zip(("dWx", "dWh", "db"), layer.grads, oracle.grads, strict=True):
        assert_agrees(name, actual, expected, N * T)
    return layer, xs, dhs


class TimeRNN(Timed):
    params = (list(SHAPES), ["rnnfast", "numpy"])
    param_names = ("N x T x D x H", "library")

    def setup(self, shape, library):
        self.layer, self.xs, self.dhs = _state(shape, library)

    def time_forward(self, shape, library):
        self.layer.forward(self.xs)

    def time_backward(self, shape, library):
        self.layer.backward(self.dhs)


class TimeRNNFigures:
    params = (list(SHAPES),)
    param_names = ("N x T x D x H",)
    timeout = 300

    def setup(self, shape):
        self.layer, self.xs, self.dhs = _state(shape, "rnnfast")

    def _both(self):
        self.layer.forward(self.xs)
        self.layer.backward(self.dhs)

    @unit("of the FMA peak")
    def track_share_of_peak(self, shape):
        N, T, D, H = SHAPES[shape]
        return share_of_peak(self._both, 6 * N * T * H * (D + H))

    @unit("bytes a step")
    def track_allocated(self, shape):
        return allocated_bytes(self._both)

    @unit("bytes")
    def track_workspace(self, shape):
        self._both()
        return workspace_bytes(self.layer.layer)


@functools.cache
def _stream(N, D, H):
    rng = np.random.default_rng(0)
    layer = rnnfast.TimeRNN.from_sizes(D, H, rng=rng)
    x = aligned(rng.standard_normal((N, D)))
    h = aligned(np.empty((N, H)))
    expected = baseline.TimeRNN(*(p.astype(np.float64) for p in layer.params)).forward(
        x[:, None].astype(np.float64)
    )
    assert_agrees("h", layer.step(x, out=h), expected[:, 0], D + H)
    return layer, x, h


class Step(Timed):
    """One step of a stream."""

    params = (["1x64x128"],)
    param_names = ("N x D x H",)

    def setup(self, shape):
        self.layer, self.x, self.h = _stream(*map(int, shape.split("x")))

    def time_step(self, shape):
        self.layer.step(self.x, out=self.h)
