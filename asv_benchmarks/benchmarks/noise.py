"""Random numbers for a window, compared with NumPy's generator, whose draws depend on their order."""

import functools

import numpy as np
from rnnfast.kernels.elementwise.noise import bernoulli_forward, normal_forward, uniform_rows
from rnnfast.kernels.losses.quantiles import (
    negative_binomial_quantiles,
    normal_quantiles,
    student_t_quantiles,
)

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
    ours = library == "rnnfast"
    call = (lambda: draw(1, 0, 0, 0, of, out)) if ours else lambda: _from_numpy(kind, rng, out)
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


ELEMENTS = 10_000
# The kernel, the parameters of its distribution, and their mean, if it is finite and known.
DISTRIBUTIONS = {
    "normal": (normal_quantiles, (), 0.0),
    "student_t 3": (student_t_quantiles, (3.0,), 0.0),
    "student_t 30": (student_t_quantiles, (30.0,), 0.0),
    "counts 5": (negative_binomial_quantiles, (5.0, 0.5), 5.0),
    "counts 1000": (negative_binomial_quantiles, (1000.0, 0.1), 1000.0),
}


@functools.cache
def _quantiles(name):
    kernel, parameters, mean = DISTRIBUTIONS[name]
    levels, out = (np.arange(ELEMENTS) + 0.5) / ELEMENTS, np.full(ELEMENTS, np.nan)
    arguments = (levels, *(np.full(ELEMENTS, value) for value in parameters), out)
    kernel(*arguments)
    assert abs(out.mean() - mean) < 0.01 * out.std()
    return functools.partial(kernel, *arguments)


class Quantiles(Timed):
    """Quantiles at uniform levels."""

    params = (list(DISTRIBUTIONS),)
    param_names = ("distribution",)

    def setup(self, distribution):
        self.call = _quantiles(distribution)

    def time_elements(self, distribution):
        self.call()


class Uniform(Timed):
    """Uniform numbers of series, each of them a stream."""

    params = ([(1, 10_000), (100, 100), (10_000, 1)],)
    param_names = ("shape",)

    def setup(self, shape):
        self.out, self.streams = np.full(shape, np.nan), np.arange(shape[0])
        uniform_rows(1, self.streams, 0, self.out)
        assert abs(self.out.mean() - 0.5) < 5 / np.sqrt(12 * self.out.size)

    def time_rows(self, shape):
        uniform_rows(1, self.streams, 0, self.out)
