"""Random numbers for a window, compared with NumPy's generator, whose draws depend on their order."""

import functools

import numpy as np
from rnnfast.kernels.noise import bernoulli_forward, normal_forward

from .measuring import Timed, aligned

SHAPES = [(20, 35, 100), (64, 20, 256), (1, 1000, 32)]
CHANCE = 0.3


def _from_numpy(kind, rng, out):
    if kind == "normal":
        rng.standard_normal(dtype=out.dtype, out=out)
    else:
        out[...] = rng.random(out.shape, out.dtype) < CHANCE


@functools.cache
def _state(kind, shape, dtype, library):
    out, rng = aligned(np.full(shape, np.nan), dtype), np.random.default_rng(0)
    draw, of = (normal_forward, 1.0) if kind == "normal" else (bernoulli_forward, CHANCE)
    call = (lambda: draw(1, 0, 0, of, out)) if library == "rnnfast" else lambda: _from_numpy(kind, rng, out)
    call()
    mean, deviation = (0, 1) if kind == "normal" else (CHANCE, np.sqrt(CHANCE * (1 - CHANCE)))
    assert abs(out.mean(dtype=np.float64) - mean) < 5 * deviation / np.sqrt(out.size)
    assert abs(out.std(dtype=np.float64) / deviation - 1) < 5 / np.sqrt(out.size)
    return call


class Noise(Timed):
    """All numbers of a window."""

    params = (["normal", "bernoulli"], SHAPES, ["float32", "float64"], ["rnnfast", "numpy"])
    param_names = ("kind", "shape", "dtype", "library")

    def setup(self, kind, shape, dtype, library):
        self.call = _state(kind, shape, dtype, library)

    def time_window(self, kind, shape, dtype, library):
        self.call()
