"""Forward of layers whose weights are frozen, and the fingerprint of weights."""

import functools

import numpy as np
from rnnfast.kernels.elementwise.fingerprint import BLOCK, fingerprint

from .measuring import Timed, aligned
from .recurrent import CELLS

# (N, T, D, H) in which packing the weights takes a large part of a call.
SIZES = [(1, 16, 64, 512), (2, 8, 16, 128), (2, 8, 128, 512), (1, 30, 2000, 256)]


@functools.cache
def _layer(cell, size):
    """The layer and its input, compiled; frozen calls give the bits of others."""
    N, T, D, H = size
    rng = np.random.default_rng(0)
    layer, xs = CELLS[cell].from_sizes(D, H, rng=rng), aligned(rng.standard_normal((N, T, D)))
    expected = layer.forward(xs, keep=False)
    with layer.frozen():
        assert np.array_equal(layer.forward(xs, keep=False), expected)
        assert np.array_equal(layer.forward(xs, keep=False), expected)
    return layer, xs


class Frozen(Timed):
    """Short windows over large weights."""

    params = (list(CELLS), SIZES)
    param_names = ("cell", "N, T, D, H")

    def setup(self, cell, size):
        self.layer, self.xs = _layer(cell, size)
        self.context = self.layer.frozen()
        self.context.__enter__()
        self.layer.forward(self.xs, keep=False)

    def teardown(self, cell, size):
        self.context.__exit__(None, None, None)

    def time_forward(self, cell, size):
        self.layer.forward(self.xs, keep=False)


class Fingerprint(Timed):
    """The fingerprint of weights of 4 MiB."""

    params = ([1 << 20],)
    param_names = ("words",)

    def setup(self, words):
        rng = np.random.default_rng(0)
        self.words = aligned(rng.standard_normal(words)).view(np.uint32)
        self.keys = rng.integers(1 << 64, size=(2, BLOCK), dtype=np.uint64)
        self.sums = np.empty((words // (2 * BLOCK), 2), np.uint64)
        fingerprint(self.words, self.keys, self.sums)

    def time_fingerprint(self, words):
        fingerprint(self.words, self.keys, self.sums)
