"""The other layers: tables, affine, dropout, losses; and elementwise functions."""

import functools
from types import SimpleNamespace

import numpy as np
import reference
from rnnfast.kernels.codegen.activations import exp_forward, sigmoid_forward, tanh_forward

import rnnfast

from .measuring import Timed, aligned, allocated_bytes, assert_agrees, unit, workspace_bytes

N, T, V, D, SCORES, OUTPUTS, WINDOW, RATIO = 20, 35, 10_000, 100, 1_000, 4, 5, 0.5
LAYERS = ["embedding", "tied embedding", "context sum", "affine", "dropout"]
LAYERS += ["softmax loss", "sigmoid loss", "squared loss", "gaussian loss"]


def _gaussian(W, b):
    return rnnfast.TimeAffineWithLoss(W, b, "gaussian")


def _makers(name, table, W, b):
    """Functions that make the layer and its specification, and their arguments."""
    head = aligned(W[:, :OUTPUTS]), aligned(b[:OUTPUTS])
    gaussian = functools.partial(reference.TimeAffineWithLoss, head="gaussian")
    return {
        "embedding": (rnnfast.TimeEmbedding, reference.TimeEmbedding, (table,)),
        "tied embedding": (rnnfast.TimeEmbedding, reference.TimeEmbedding, (table,)),
        "context sum": (rnnfast.TimeContextSum, reference.TimeContextSum, (table, WINDOW)),
        "affine": (rnnfast.TimeAffine, reference.TimeAffine, (W, b)),
        "dropout": (rnnfast.TimeDropout, None, (RATIO,)),
        "softmax loss": (rnnfast.TimeSoftmaxWithLoss, reference.TimeSoftmaxWithLoss, ()),
        "sigmoid loss": (rnnfast.TimeSigmoidWithLoss, reference.TimeSigmoidWithLoss, ()),
        "squared loss": (rnnfast.TimeAffineSquaredLoss, reference.TimeAffineSquaredLoss, head),
        "gaussian loss": (_gaussian, gaussian, head),
    }[name]


def _given(name, rng):
    """The arguments of `forward` and `backward`."""
    xs, scores = (aligned(rng.standard_normal((N, T, size))) for size in (D, SCORES))
    frequency = 1 / np.arange(1, V + 1)
    ids = rng.choice(V, size=(N, T), p=frequency / frequency.sum())
    forward = {"affine": (xs,), "dropout": (xs,), "softmax loss": (scores, rng.integers(0, SCORES, (N, T)))}
    forward["sigmoid loss"] = (aligned(xs[..., 0]), rng.integers(0, 2, (N, T)))
    forward["squared loss"] = (xs, aligned(scores[..., :OUTPUTS]))
    forward["gaussian loss"] = (xs, aligned(scores[..., : OUTPUTS // 2]))
    width = SCORES if name == "affine" else D
    backward = () if name.endswith("loss") else (aligned(rng.standard_normal((N, T, width))),)
    return forward.get(name, (ids,)), backward


def _in_float64(arrays):
    return tuple(a.astype(np.float64) if getattr(a, "dtype", None) == np.float32 else a for a in arrays)


@functools.cache
def _state(name):
    """The layer and its two calls, compiled and compared with the specification in float64."""
    rng = np.random.default_rng(0)
    table, W = aligned(rng.standard_normal((V, D))), aligned(rng.standard_normal((D, SCORES)) / 10)
    ours, specified, made_of = _makers(name, table, W, aligned(rng.standard_normal(SCORES)))
    given, arriving = _given(name, rng)
    layer = ours(*made_of, rng=rng) if name == "dropout" else ours(*made_of)
    forward_options, backward_options = {}, {}
    if not name.endswith("loss"):
        forward_options["out"] = aligned(np.zeros((N, T, SCORES if name == "affine" else D)))
        if name in ("affine", "dropout"):
            backward_options["out"] = aligned(np.zeros((N, T, D)))
    if name == "tied embedding":
        backward_options["add_to"] = aligned(np.zeros((D, V))).T

    def forward():
        return layer.forward(*given, **forward_options)

    def backward():
        return layer.backward(*arriving, **backward_options)

    state = SimpleNamespace(layer=layer, forward=forward, backward=backward)
    if name == "dropout":
        _check_dropout(state, given[0], arriving[0])
        return state
    oracle = specified(*_in_float64(made_of))
    assert_agrees("output", np.float32(forward()), oracle.forward(*_in_float64(given)), D)
    actual = backward()
    if hasattr(oracle, "backward"):
        expected = oracle.backward(*_in_float64(arriving))
        if expected is not None:
            assert_agrees("dxs", actual, expected, SCORES)
        grads = [backward_options["add_to"]] if "add_to" in backward_options else layer.grads
        for actual, expected in zip(grads, oracle.grads, strict=True):
            assert_agrees("a gradient", actual, expected, N * T)
    if hasattr(layer, "reset_state"):
        layer.reset_state()
    return state


def _check_dropout(state, xs, dout):
    """Check random masks: the same places forward and backward, and the requested share."""
    out, dxs = state.forward(), state.backward()
    kept = out != 0
    np.testing.assert_array_equal(out[kept], xs[kept] / np.float32(1 - RATIO))
    np.testing.assert_array_equal(dxs, np.where(kept, dout / np.float32(1 - RATIO), 0))
    assert abs(kept.mean() - (1 - RATIO)) < 5 * np.sqrt(RATIO * (1 - RATIO) / kept.size)


class Layer(Timed):
    params = (LAYERS,)
    param_names = ("layer",)

    def setup(self, layer):
        self.state = _state(layer)

    def time_forward(self, layer):
        self.state.forward()

    def time_backward(self, layer):
        self.state.backward()

    @unit("bytes a step")
    def track_allocated(self, layer):
        return allocated_bytes(lambda: (self.state.forward(), self.state.backward()))

    @unit("bytes")
    def track_workspace(self, layer):
        self.state.backward()
        return workspace_bytes(self.state.layer)


FUNCTIONS = {
    "exp": (exp_forward, np.exp),
    "sigmoid": (sigmoid_forward, lambda x, out: np.divide(1, 1 + np.exp(-x), out=out)),
    "tanh": (tanh_forward, np.tanh),
}


@functools.cache
def _values(function, dtype, library):
    x = aligned(3 * np.random.default_rng(0).standard_normal(20_000), dtype)
    y = aligned(np.full_like(x, np.nan), dtype)
    call = FUNCTIONS[function][library == "numpy"]
    call(x, y)
    wide = x.astype(np.float64)
    assert_agrees(function, y, FUNCTIONS[function][1](wide, np.empty_like(wide)), 1)
    return call, x, y


class Activation(Timed):
    """20,000 values."""

    params = (list(FUNCTIONS), ["float32", "float64"], ["rnnfast", "numpy"])
    param_names = ("function", "dtype", "library")

    def setup(self, function, dtype, library):
        self.call, self.x, self.y = _values(function, dtype, library)

    def time_values(self, function, dtype, library):
        self.call(self.x, self.y)
