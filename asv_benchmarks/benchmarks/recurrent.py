"""Recurrent layers over a whole sequence, forward and backward, and one step of a stream."""

import functools

import numpy as np

import rnnfast

from . import baseline
from .measuring import Timed, aligned, allocated_bytes, assert_agrees, figures, operations, unit

CELLS = {"rnn": rnnfast.TimeRNN, "lstm": rnnfast.TimeLSTM, "gru": rnnfast.TimeGRU}
SHAPES = {
    "1x1000x32x32": (1, 1000, 32, 32),
    "20x35x100x100": (20, 35, 100, 100),
    "20x35x650x650": (20, 35, 650, 650),
    "32x256x256x512": (32, 256, 256, 512),
}


class _Rnnfast:
    """The layer with given output arrays, as in the steady state of a training loop."""

    def __init__(self, cell, params, N, T, D, H):
        self.layer = CELLS[cell](*params)
        self.hs, self.dxs = (aligned(np.zeros((N, T, size))) for size in (H, D))

    def forward(self, xs):
        return self.layer.forward(xs, out=self.hs)

    def backward(self, dhs):
        return self.layer.backward(dhs, out=self.dxs)

    @property
    def grads(self):
        return self.layer.grads


@functools.cache
def _state(cell, shape, library):
    """The layer, its input and the gradient of its output, compiled and compared with float64 NumPy.

    Only a few sequences of some blocks are compared, since the oracle is slow.
    """
    N, T, D, H = SHAPES[shape]
    rng = np.random.default_rng(0)
    shapes = CELLS[cell].from_sizes(1, 1).cell.shapes(D, H).values()
    scales = [1 / np.sqrt(shape[0]) if len(shape) == 2 else 0.1 for shape in shapes]
    params = [aligned(scale * rng.standard_normal(s)) for s, scale in zip(shapes, scales, strict=True)]
    xs, dhs = (aligned(rng.standard_normal((N, T, size))) for size in (D, H))
    naive = baseline.CELLS[cell]
    part = min(N, 4), min(T, 200)
    checked = naive(*params) if library == "numpy" else _Rnnfast(cell, params, *part, D, H)
    oracle = naive(*(p.astype(np.float64) for p in params))
    x, dh = (np.ascontiguousarray(a[: part[0], : part[1]]) for a in (xs, dhs))
    assert_agrees("hs", checked.forward(x), oracle.forward(x.astype(np.float64)), part[1] + D + H)
    assert_agrees("dxs", checked.backward(dh), oracle.backward(dh.astype(np.float64)), part[1] + D + H)
    for name, actual, expected in zip(("dWx", "dWh", "db"), checked.grads, oracle.grads, strict=True):
        assert_agrees(name, actual, expected, part[0] * part[1])
    layer = checked if library == "numpy" else _Rnnfast(cell, params, N, T, D, H)
    layer.forward(xs)
    layer.backward(dhs)
    return layer, xs, dhs


class Window(Timed):
    params = (list(CELLS), list(SHAPES), ["rnnfast", "numpy"])
    param_names = ("cell", "N x T x D x H", "library")

    def setup(self, cell, shape, library):
        self.layer, self.xs, self.dhs = _state(cell, shape, library)

    def time_forward(self, cell, shape, library):
        self.layer.forward(self.xs)

    def time_backward(self, cell, shape, library):
        self.layer.backward(self.dhs)


@figures
class WindowFigures:
    params = (list(CELLS), list(SHAPES))
    param_names = ("cell", "N x T x D x H")

    def setup(self, cell, shape):
        self.state, self.xs, self.dhs = _state(cell, shape, "rnnfast")
        self.layer = self.state.layer
        self.operations = 3 * operations(self.layer, *SHAPES[shape][:2])

    def call(self):
        self.state.forward(self.xs)
        self.state.backward(self.dhs)


@functools.cache
def _stream(cell, library, N, D, H):
    """A call of one step, compiled and compared with float64 NumPy from a zero state."""
    rng = np.random.default_rng(0)
    layer = CELLS[cell].from_sizes(D, H, rng=rng)
    x = aligned(rng.standard_normal((N, D)))
    h = aligned(np.zeros((N, H)))
    wide = baseline.CELLS[cell](*(p.astype(np.float64) for p in layer.params))
    expected = wide.forward(x[:, None].astype(np.float64))[:, 0]
    if library == "numpy":
        naive, window = baseline.CELLS[cell](*layer.params), x[:, None].copy()
        assert_agrees("h", naive.forward(window)[:, 0], expected, D + H)
        return functools.partial(naive.forward, window)
    assert_agrees("h", layer.step(x, out=h), expected, D + H)
    return functools.partial(layer.step, x, out=h)


class Step(Timed):
    """One step of a stream; NumPy computes a window of one step."""

    params = (list(CELLS), ["1x64x128", "8x64x128"], ["rnnfast", "numpy"])
    param_names = ("cell", "N x D x H", "library")

    def setup(self, cell, shape, library):
        self.step = _stream(cell, library, *map(int, shape.split("x")))

    def time_step(self, cell, shape, library):
        self.step()


class StepFigures:
    params = (list(CELLS), ["1x64x128"])
    param_names = ("cell", "N x D x H")

    def setup(self, cell, shape):
        self.step = _stream(cell, "rnnfast", *map(int, shape.split("x")))

    @unit("bytes a step")
    def track_allocated(self, cell, shape):
        return allocated_bytes(self.step)
