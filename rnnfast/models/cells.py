"""The kinds of recurrent layers models are made of, and the values their parameters start from."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from rnnfast.layers.gru import TimeGRU
from rnnfast.layers.lstm import TimeLSTM
from rnnfast.layers.rnn import TimeRNN

# A new kind of recurrent layer is one entry here: its gates, and what makes it from Wx, Wh and b.
CELLS: dict[str, tuple[int, Callable[..., TimeRNN | TimeLSTM | TimeGRU]]] = {
    "rnn": (TimeRNN.GATES, TimeRNN),
    "relu": (TimeRNN.GATES, partial(TimeRNN, activation="relu")),
    "lstm": (TimeLSTM.GATES, TimeLSTM),
    "gru": (TimeGRU.GATES, TimeGRU),
}
# Far beyond what trains; it keeps a damaged file from asking for a billion layers.
MOST_LAYERS = 1000


def recurrent_shapes(cell: str, layers: int, input_size: int, hidden_size: int) -> dict[str, tuple[int, ...]]:
    """Name and shape of the parameters of recurrent layers above each other, from the lowest."""
    cols = CELLS[cell][0] * hidden_size
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(layers):
        shapes[f"layer{layer}_Wx"] = (hidden_size if layer else input_size, cols)
        shapes[f"layer{layer}_Wh"] = (hidden_size, cols)
        shapes[f"layer{layer}_b"] = (cols,)
    return shapes


def recurrent_layers(
    cell: str, layers: int, arrays: dict[str, np.ndarray]
) -> list[TimeRNN | TimeLSTM | TimeGRU]:
    """The layers around arrays with the names of `recurrent_shapes`."""
    make = CELLS[cell][1]
    names = [[f"layer{layer}_{name}" for name in ("Wx", "Wh", "b")] for layer in range(layers)]
    return [make(*(arrays[name] for name in own), stateful=True) for own in names]


def initial_values(
    name: str, shape: tuple[int, ...], rng: np.random.Generator, cell: str = "rnn"
) -> np.ndarray:
    """The book's initial values: embedding randn / 100, weights randn / sqrt(fan_in), biases zero.

    A relu starts from half the identity as recurrent weights, biases of 0.5, and words of randn / 10.

    Source: Le, Jaitly and Hinton, *A simple way to initialize recurrent networks of rectified linear units*,
    2015, for the scaled identity.
    """
    # Recurrent weights tried instead, validation perplexity on the default corpus after 3 epochs of
    # Adam(0.002) with V = 1429, D = H = 100: 92.0 for these, 94.2 orthogonal, 96.2 identity times 0.9.
    # A relu has no upper end. Where its units start near zero, the first updates raise all of Wh until
    # frequent words have their scores, and the state explodes: `rnnfast train --cell relu` stopped within 10
    # steps with three seeds of four, and also from the identity times 1, 0.5 or 0.1 and from zero. Biases of
    # 0.5 give the output layer something to learn these scores from at once.
    if name == "embed_W":
        return rng.standard_normal(shape) / (10 if cell == "relu" else 100)
    if len(shape) == 1:
        return np.full(shape, 0.5 if cell == "relu" and name.startswith("layer") else 0.0)
    if cell == "relu" and name.endswith("_Wh"):
        return 0.5 * np.eye(shape[0])
    return rng.standard_normal(shape) / np.sqrt(shape[0])
