"""Recurrent layers beyond the plain window: lengths, resets, the other GRU, pairs, stacks, single steps."""

import functools
import itertools
from types import SimpleNamespace

import numpy as np

import rnnfast

from . import baseline
from .measuring import Timed, aligned, allocated_bytes, assert_agrees, unit, workspace_bytes
from .recurrent import CELLS

N, T, D, H = 20, 35, 100, 100
WINDOWS = ["plain", "lengths", "resets"]


def _plain_parts(layer, xs, options):
    """A window with options, computed by separate calls for each sequence and each part between resets."""
    lengths, reset = options.get("lengths", np.full(N, T)), options.get("reset", np.zeros((N, T), bool))
    hs = np.zeros((N, T, H), np.float32)
    for n in range(N):
        edges = [0, *(t for t in range(1, lengths[n]) if reset[n, t]), lengths[n]]
        for first, end in itertools.pairwise(edges):
            layer.reset_state()
            hs[n, first:end] = layer.forward(np.ascontiguousarray(xs[n : n + 1, first:end]))[0]
    return hs


@functools.cache
def _window(cell, reset_gate, window):
    """The layer and its calls, compiled and compared with the same sequences one by one."""
    rng = np.random.default_rng(0)
    options = {"reset": reset_gate} if cell == "gru" else {}
    layer = CELLS[cell].from_sizes(D, H, rng=rng, **options)
    xs, dhs = (aligned(rng.standard_normal((N, T, size))) for size in (D, H))
    given = {
        "plain": {},
        "lengths": {"lengths": np.sort(rng.integers(T // 4, T + 1, N))[::-1].copy()},
        "resets": {"reset": rng.random((N, T)) < 0.05},
    }[window]
    hs, dxs = aligned(np.zeros((N, T, H))), aligned(np.zeros((N, T, D)))
    assert_agrees("hs", layer.forward(xs, **given), _plain_parts(layer, xs, given), T + D + H)

    def forward():
        return layer.forward(xs, out=hs, **given)

    def backward():
        return layer.backward(dhs, out=dxs)

    forward()
    backward()
    return SimpleNamespace(layer=layer, forward=forward, backward=backward)


class Window(Timed):
    """Windows of 20 x 35 steps, D = H = 100: whole, with different lengths, with resets."""

    params = ([*CELLS, "gru reset after"], WINDOWS)
    param_names = ("cell", "window")

    def setup(self, cell, window):
        name, _, after = cell.partition(" reset ")
        self.state = _window(name, after or "before", window)

    def time_forward(self, cell, window):
        self.state.forward()

    def time_backward(self, cell, window):
        self.state.backward()

    @unit("bytes a step")
    def track_allocated(self, cell, window):
        return allocated_bytes(lambda: (self.state.forward(), self.state.backward()))


def _halves(layer):
    """The two LSTMs of a layer as NumPy layers in float64."""
    wide = [param.astype(np.float64) for param in layer.params]
    return baseline.TimeLSTM(*wide[:3]), baseline.TimeLSTM(*wide[3:])


def _pair(layer, xs):
    forwards, backwards = _halves(layer)
    return np.concatenate([forwards.forward(xs), backwards.forward(xs[:, ::-1])[:, ::-1]], axis=2)


def _stack(layer, xs):
    lower, upper = _halves(layer)
    return upper.forward(lower.forward(xs))


@functools.cache
def _composite(name):
    """Two LSTMs in parallel or stacked, compiled and compared with float64 NumPy."""
    rng = np.random.default_rng(0)
    lstms = [rnnfast.TimeLSTM.from_sizes(D, H, rng=rng) for _ in range(2)]
    layer, naive = {
        "Bidirectional": lambda: (rnnfast.Bidirectional(*lstms), _pair),
        "TimeBiLSTM": lambda: (rnnfast.TimeBiLSTM(*lstms[0].params, *lstms[1].params), _pair),
        "Stack": lambda: (rnnfast.Stack(lstms, dropout=0.0, rng=rng), _stack),
    }[name]()
    xs = aligned(rng.standard_normal((N, T, D)))
    hs = layer.forward(xs)
    assert_agrees("hs", hs, naive(layer, xs.astype(np.float64)), T + D + H)
    dhs = aligned(rng.standard_normal(hs.shape))
    layer.backward(dhs)
    return layer, xs, dhs


class Composite(Timed):
    params = (["Bidirectional", "TimeBiLSTM", "Stack"],)
    param_names = ("layer",)

    def setup(self, layer):
        self.layer, self.xs, self.dhs = _composite(layer)

    def time_forward(self, layer):
        self.layer.forward(self.xs)

    def time_backward(self, layer):
        self.layer.backward(self.dhs)

    @unit("bytes")
    def track_workspace(self, layer):
        return workspace_bytes(self.layer)


ONE_STEP = {"rnn": rnnfast.RNN, "lstm": rnnfast.LSTM, "gru": rnnfast.GRU}


@functools.cache
def _one_step(cell):
    """A cell of one step, as in the book, compiled and compared with float64 NumPy from a zero state."""
    rng = np.random.default_rng(0)
    layer = ONE_STEP[cell].from_sizes(D, H, rng=rng)
    x, dh = (aligned(rng.standard_normal((N, size))) for size in (D, H))
    state = [aligned(np.zeros((N, H))) for _ in CELLS[cell].from_sizes(1, 1).cell.states]
    twin = baseline.CELLS[cell](*(p.astype(np.float64) for p in layer.params))
    expected = twin.forward(x[:, None].astype(np.float64))[:, 0]
    given = [dh] if len(state) == 1 else [dh, np.zeros_like(dh)]
    first = layer.forward(x, *state)
    assert_agrees("h", first[0] if isinstance(first, tuple) else first, expected, D + H)
    assert_agrees("dx", layer.backward(*given)[0], twin.backward(dh[:, None].astype(np.float64))[:, 0], D + H)
    return layer, (x, *state), given


class OneStep(Timed):
    """`RNN`, `LSTM` and `GRU`, which take and return the state, at 20 x 100 x 100."""

    params = (list(ONE_STEP),)
    param_names = ("cell",)

    def setup(self, cell):
        self.layer, self.given, self.arriving = _one_step(cell)

    def time_forward(self, cell):
        self.layer.forward(*self.given)

    def time_backward(self, cell):
        self.layer.backward(*self.arriving)
