"""One training step of RNNLM: forward, backward, clipping, SGD."""

import functools
import statistics
import time

import numpy as np

import rnnfast
from rnnfast import optim
from rnnfast.layers.window import Blocks

from . import baseline
from .measuring import Timed, assert_agrees, figures, unit

CELLS = list(baseline.CELLS)
D = H = 100
SIZES = {"10x5x418": (10, 5, 418), "20x35x10000": (20, 35, 10_000), "50x50x65": (50, 50, 65)}
LR, CLIP = 1.0, 0.25


class _Rnnfast:
    def __init__(self, params, cell, V):
        self.model = rnnfast.RNNLM(V, D, H, cell=cell, rng=np.random.default_rng(0))
        for own, given in zip(self.model.params, params, strict=True):
            own[...] = given
        self.params = self.model.params
        self.optimizer = optim.SGD(LR)

    def step(self, xs, ts, lr, clip, blocks=None):
        model = self.model
        loss = model.forward(xs, ts, blocks=blocks)
        model.backward()
        optim.clip_by_norm(model.grads, clip)
        self.optimizer.update(model.params, model.grads)
        return loss


@functools.cache
def _state(cell, size, library):
    """A model and one window of ids with word frequencies; one step is compared with float64 NumPy."""
    N, T, V = SIZES[size]
    rng = np.random.default_rng(0)
    frequency = 1 / np.arange(1, V + 1)
    ids = rng.choice(V, size=(N, T + 1), p=frequency / frequency.sum())
    xs, ts = np.ascontiguousarray(ids[:, :-1]), np.ascontiguousarray(ids[:, 1:])
    params = [np.array(p) for p in rnnfast.RNNLM(V, D, H, cell=cell, rng=rng).params]
    oracle = baseline.RNNLM([p.astype(np.float64) for p in params], cell)
    if library == "rnnfast":
        model = _Rnnfast(params, cell, V)
    else:
        model = baseline.RNNLM([p.copy() for p in params], cell)
    assert_agrees("loss", np.float32(model.step(xs, ts, LR, CLIP)), oracle.step(xs, ts, LR, CLIP), H)
    for index, (actual, expected) in enumerate(zip(model.params, oracle.params, strict=True)):
        assert_agrees(f"parameter {index} after a step", actual, expected, N * T)
    return model, xs, ts


class TrainingStep(Timed):
    params = (CELLS, list(SIZES), ["rnnfast", "numpy"])
    param_names = ("cell", "N x T x V", "library")

    def setup(self, cell, size, library):
        self.model, self.xs, self.ts = _state(cell, size, library)

    def time_step(self, cell, size, library):
        self.model.step(self.xs, self.ts, LR, CLIP)


class TrainingStepInBlocks(Timed):
    """A step whose gradients are summed by blocks of rows, as `Trainer` sums them; 1 is no cut."""

    params = (CELLS, ["20x35x10000", "50x50x65"], [1, 2, 4])
    param_names = ("cell", "N x T x V", "blocks")

    def setup(self, cell, size, blocks):
        self.model, self.xs, self.ts = _state(cell, size, "rnnfast")
        rows = [part.size for part in np.array_split(np.arange(len(self.xs)), blocks)]
        bounds = np.concatenate(([0], np.cumsum(rows)))
        self.blocks = None if blocks == 1 else Blocks(bounds, least=min(rows))
        self.time_step(cell, size, blocks)  # loads the kernels of blocks

    def time_step(self, cell, size, blocks):
        self.model.step(self.xs, self.ts, LR, CLIP, self.blocks)


@figures
class TrainingStepFigures:
    params = (CELLS, list(SIZES))
    param_names = ("cell", "N x T x V")

    def setup(self, cell, size):
        N, T, V = SIZES[size]
        self.state, self.xs, self.ts = _state(cell, size, "rnnfast")
        self.layer = self.state.model
        gates = len(self.layer.body.cell.gates)
        inputs = 0 if 2 * V <= N * T else D  # words of a small vocabulary are multiplied once
        self.operations = 6 * N * T * H * (gates * (inputs + H) + V)

    def call(self):
        self.state.step(self.xs, self.ts, LR, CLIP)

    @unit("tokens a second")
    def track_tokens_per_second(self, cell, size):
        seconds = []
        for _ in range(50):
            start = time.perf_counter()
            self.call()
            seconds.append(time.perf_counter() - start)
        return self.xs.size / statistics.median(seconds)
