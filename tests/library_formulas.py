"""Recurrent layers as PyTorch, Keras and Flax document them, in naive NumPy and float64: the other side of a
conversion. Weights are (D, G*H) and (H, G*H), those of PyTorch transposed; gates in the library's order."""

import numpy as np

from rnnfast import cells
from rnnfast.interop.structure import Arrays


def sigmoid(a):
    """1 / (1 + exp(-a)), as a tanh that cannot overflow."""
    return 0.5 + 0.5 * np.tanh(0.5 * a)


def rnn(x, states, w):
    """One step of an Elman network: x (N, D) and h (N, H)."""
    (h,) = states
    return (np.tanh(x @ w.wx + w.bx + h @ w.wh + w.bh),)


def rnn_relu(x, states, w):
    """The same with a relu."""
    (h,) = states
    return (np.maximum(x @ w.wx + w.bx + h @ w.wh + w.bh, 0),)


def lstm(x, states, w):
    """One step of an LSTM in all three libraries: gates i, f, g (Keras: c), o."""
    h, c = states
    i, f, g, o = np.split(x @ w.wx + w.bx + h @ w.wh + w.bh, 4, axis=-1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def gru(x, states, w):
    """One step of a GRU in PyTorch and Flax: gates r, z, n."""
    (h,) = states
    xr, xz, xn = np.split(x @ w.wx + w.bx, 3, axis=-1)
    hr, hz, hn = np.split(h @ w.wh + w.bh, 3, axis=-1)
    z = sigmoid(xz + hz)
    n = np.tanh(xn + sigmoid(xr + hr) * hn)
    return ((1 - z) * n + z * h,)


def keras_gru(x, states, w):
    """One step of Keras' GRU with reset_after: gates z, r, h."""
    (h,) = states
    xz, xr, xh = np.split(x @ w.wx + w.bx, 3, axis=-1)
    hz, hr, hh = np.split(h @ w.wh + w.bh, 3, axis=-1)
    z = sigmoid(xz + hz)
    return (z * h + (1 - z) * np.tanh(xh + sigmoid(xr + hr) * hh),)


def keras_gru_before(x, states, w):
    """One step of Keras' GRU without reset_after."""
    (h,) = states
    xz, xr, xh = np.split(x @ w.wx + w.bx, 3, axis=-1)
    wz, wr, wh = np.split(w.wh, 3, axis=-1)
    z, r = sigmoid(xz + h @ wz), sigmoid(xr + h @ wr)
    return (z * h + (1 - z) * np.tanh(xh + (r * h) @ wh),)


SHARED = {cells.rnn: rnn, cells.rnn_relu: rnn_relu, cells.lstm: lstm}
FORMULAS = {
    "torch": {**SHARED, cells.gru_after: gru},
    "keras": {**SHARED, cells.gru: keras_gru_before, cells.gru_after: keras_gru},
    "flax nnx": {**SHARED, cells.gru_after: gru},
    "flax linen": {**SHARED, cells.gru_after: gru},
}


def over_time(step, xs, states, w):
    """Outputs (N, T, H)."""
    hs = []
    for x in xs.swapaxes(0, 1):
        states = step(x, states, w)
        hs.append(states[0])
    return np.stack(hs, axis=1)


def outcome(library, layers, xs):
    """Outputs (N, T, H) of the top layer, from zero states; `layers` has a cell and its `Arrays` for each
    direction of each layer."""
    xs = xs.astype(np.float64)
    for directions in layers:
        outputs = []
        for order, (cell, arrays) in zip((1, -1), directions, strict=False):
            wide = Arrays(*(array.astype(np.float64) for array in arrays))
            if library == "torch":
                wide = wide._replace(wx=wide.wx.T, wh=wide.wh.T)
            fresh = [np.zeros((len(xs), wide.wh.shape[0]))] * (2 if cell is cells.lstm else 1)
            hs = over_time(FORMULAS[library][cell], xs[:, ::order], fresh, wide)
            outputs.append(hs[:, ::order])
        xs = np.concatenate(outputs, axis=-1)
    return xs
