"""The equations of recurrent layers as PyTorch, Keras and Flax document them, in naive NumPy and float64:
the other side of a conversion of plain arrays. Weights are (D, G*H) and (H, G*H), gates in their order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from rnnfast import cells
from rnnfast.cells import Cell
from rnnfast.interop.layouts import Arrays

States = tuple[np.ndarray, ...]
Step = Callable[[np.ndarray, States, Arrays], States]


def sigmoid(a: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-a)), as a tanh that cannot overflow."""
    return 0.5 + 0.5 * np.tanh(0.5 * a)


def rnn(x: np.ndarray, states: States, w: Arrays) -> States:
    """One step of an Elman network: x (N, D) and h (N, H)."""
    (h,) = states
    return (np.tanh(x @ w.wx + w.bx + h @ w.wh + w.bh),)


def rnn_relu(x: np.ndarray, states: States, w: Arrays) -> States:
    """The same with a relu."""
    (h,) = states
    return (np.maximum(x @ w.wx + w.bx + h @ w.wh + w.bh, 0),)


def lstm(x: np.ndarray, states: States, w: Arrays) -> States:
    """One step of an LSTM in all three libraries: gates i, f, g (Keras: c), o."""
    h, c = states
    i, f, g, o = np.split(x @ w.wx + w.bx + h @ w.wh + w.bh, 4, axis=-1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def gru(x: np.ndarray, states: States, w: Arrays) -> States:
    """One step of a GRU in PyTorch and Flax: gates r, z, n."""
    (h,) = states
    xr, xz, xn = np.split(x @ w.wx + w.bx, 3, axis=-1)
    hr, hz, hn = np.split(h @ w.wh + w.bh, 3, axis=-1)
    z = sigmoid(xz + hz)
    n = np.tanh(xn + sigmoid(xr + hr) * hn)
    return ((1 - z) * n + z * h,)


def keras_gru(x: np.ndarray, states: States, w: Arrays) -> States:
    """One step of Keras' GRU with reset_after: gates z, r, h."""
    (h,) = states
    xz, xr, xh = np.split(x @ w.wx + w.bx, 3, axis=-1)
    hz, hr, hh = np.split(h @ w.wh + w.bh, 3, axis=-1)
    z = sigmoid(xz + hz)
    return (z * h + (1 - z) * np.tanh(xh + sigmoid(xr + hr) * hh),)


def keras_gru_before(x: np.ndarray, states: States, w: Arrays) -> States:
    """One step of Keras' GRU without reset_after."""
    (h,) = states
    xz, xr, xh = np.split(x @ w.wx + w.bx, 3, axis=-1)
    wz, wr, wh = np.split(w.wh, 3, axis=-1)
    z, r = sigmoid(xz + h @ wz), sigmoid(xr + h @ wr)
    return (z * h + (1 - z) * np.tanh(xh + (r * h) @ wh),)


_SHARED: Mapping[Cell, Step] = {cells.rnn: rnn, cells.rnn_relu: rnn_relu, cells.lstm: lstm}
FORMULAS: Mapping[str, Mapping[Cell, Step]] = {
    "torch": {**_SHARED, cells.gru_after: gru},
    "keras": {**_SHARED, cells.gru: keras_gru_before, cells.gru_after: keras_gru},
    "flax nnx": {**_SHARED, cells.gru_after: gru},
    "flax linen": {**_SHARED, cells.gru_after: gru},
}


def over_time(step: Step, xs: np.ndarray, states: States, w: Arrays) -> tuple[np.ndarray, States]:
    """Outputs (N, T, H) and final states (N, H)."""
    hs = []
    for t in range(xs.shape[1]):
        states = step(xs[:, t], states, w)
        hs.append(states[0])
    return np.stack(hs, axis=1), states


def outcome(
    library: str,
    layers: Sequence[Sequence[tuple[Cell, Arrays]]],
    xs: np.ndarray,
    states: Sequence[States],
) -> list[np.ndarray]:
    """Outputs (N, T, H) of the top layer, and the final states (N, H) of each direction of each layer.

    `states` are the initial ones, likewise.
    """
    xs = xs.astype(np.float64)
    finals: list[np.ndarray] = []
    initial = iter(states)
    for directions in layers:
        outputs = []
        for backwards, (cell, arrays) in enumerate(directions):
            order = slice(None, None, -1 if backwards else 1)
            wide = Arrays(*(array.astype(np.float64) for array in arrays))
            hs, final = over_time(FORMULAS[library][cell], xs[:, order], next(initial), wide)
            outputs.append(hs[:, order])
            finals += final
        xs = np.concatenate(outputs, axis=-1)
    return [xs, *finals]
