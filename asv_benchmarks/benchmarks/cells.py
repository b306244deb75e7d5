"""Every built-in cell over a window, forward and backward."""

import functools

import numpy as np

import rnnfast
from rnnfast import cells

from .measuring import Timed

N, T, D, H = 32, 100, 32, 128


@functools.cache
def _state(name):
    rng = np.random.default_rng(0)
    cell = next(cell for cell in cells.READY if cell.name == name)
    layer: rnnfast.Recurrent = cell.layer(D, H, rng=rng)
    xs, dhs = (rng.standard_normal((N, T, size), dtype=np.float32) for size in (D, H))
    layer.backward(np.ones_like(layer.forward(xs)))
    assert all(np.isfinite(grad).all() for grad in layer.grads)
    return layer, xs, dhs


class Cells(Timed):
    """A window of (32, 100, 32, 128)."""

    params = ([cell.name for cell in cells.READY],)
    param_names = ("cell",)

    def setup(self, cell):
        self.layer, self.xs, self.dhs = _state(cell)

    def time_forward(self, cell):
        self.layer.forward(self.xs, keep=False)

    def time_both(self, cell):
        self.layer.forward(self.xs)
        self.layer.backward(self.dhs)
