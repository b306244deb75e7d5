"""Updates of parameters, and the processing of gradients before them."""

import functools

import numpy as np
import reference
from rnnfast.kernels.elementwise.optim import scale_in_place

from rnnfast import optim

from .measuring import Timed, aligned, allocated_bytes, assert_agrees, unit

SHAPES = ((10_000, 100), (100, 400), (400,))  # a table, a matrix, a bias
LR = 0.01
OPTIMIZERS = (
    optim.SGD,
    optim.Momentum,
    optim.Nesterov,
    optim.AdaGrad,
    optim.RMSprop,
    optim.Adam,
    optim.AdamW,
)
NAMES = [made.__name__ for made in OPTIMIZERS]


def _arrays(seed, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return [aligned(rng.standard_normal(shape), dtype) for shape in SHAPES]


@functools.cache
def _update(name, library):
    """A call that updates all parameters; two updates are compared with the specification in float64."""
    made = getattr(optim if library == "rnnfast" else reference, name)(lr=LR)
    oracle = getattr(reference, name)(lr=LR)
    params, grads, expected, wide = _arrays(0), _arrays(1), _arrays(0, np.float64), _arrays(1, np.float64)
    for _ in range(2):
        made.update(params, grads)
        oracle.update(expected, wide)
    for actual, correct in zip(params, expected, strict=True):
        assert_agrees(name, actual, correct, 2)
    return functools.partial(made.update, params, grads)


class Update(Timed):
    """A million parameters in three arrays."""

    params = (NAMES, ["rnnfast", "numpy"])
    param_names = ("optimizer", "library")

    def setup(self, optimizer, library):
        self.call = _update(optimizer, library)

    def time_update(self, optimizer, library):
        self.call()


class UpdateFigures:
    params = (NAMES,)
    param_names = ("optimizer",)

    def setup(self, optimizer):
        self.call = _update(optimizer, "rnnfast")

    @unit("bytes an update")
    def track_allocated(self, optimizer):
        return allocated_bytes(self.call)


def _numpy_norm(grads):
    return float(np.sqrt(sum(np.vdot(grad, grad) for grad in grads)))


def _turn(grads):
    for grad in grads:
        scale_in_place(grad.reshape(-1), grad.dtype.type(-1))


def _numpy_turn(grads):
    for grad in grads:
        grad *= grad.dtype.type(-1)


def _numpy_clip_by_value(grads, limit):
    for grad in grads:
        np.clip(grad, -limit, limit, out=grad)


# Clipping by norm consists of the first two; as a whole it would have no work in its second call.
GRADIENTS = {
    "global_norm": (optim.global_norm, _numpy_norm, ()),
    "scale_in_place": (_turn, _numpy_turn, ()),
    "clip_by_value": (optim.clip_by_value, _numpy_clip_by_value, (0.5,)),
    "all_finite": (optim.all_finite, lambda grads: all(np.isfinite(grad).all() for grad in grads), ()),
}


@functools.cache
def _of_gradients(name, library):
    ours, naive, limits = GRADIENTS[name]
    grads, expected = _arrays(1), _arrays(1, np.float64)
    call = functools.partial(ours if library == "rnnfast" else naive, grads, *limits)
    actual, correct = call(), naive(expected, *limits)
    if correct is not None:
        assert_agrees(name, np.float32(actual), correct, expected[0].size)
    for changed, right in zip(grads, expected, strict=True):
        assert_agrees(name, changed, right, expected[0].size)
    return call


class Gradients(Timed):
    """The norm of a million numbers, clipping, and the search for NaN."""

    params = (list(GRADIENTS), ["rnnfast", "numpy"])
    param_names = ("function", "library")

    def setup(self, function, library):
        self.call = _of_gradients(function, library)

    def time_gradients(self, function, library):
        self.call()
