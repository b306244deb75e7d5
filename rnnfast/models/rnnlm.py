"""The recurrent language model: embedding, recurrent layers, softmax over the vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.layers.dropout import TimeDropout
from rnnfast.layers.embedding import TimeEmbedding
from rnnfast.layers.gru import TimeGRU
from rnnfast.layers.loss import TimeAffineSoftmaxWithLoss
from rnnfast.layers.lstm import TimeLSTM
from rnnfast.layers.rnn import TimeRNN
from rnnfast.models.language_model import LanguageModel
from rnnfast.state import State, plain

# A new kind of recurrent layer is one entry here: its gates, and what makes it from Wx, Wh and b.
_CELLS: dict[str, tuple[int, Callable[..., TimeRNN | TimeLSTM | TimeGRU]]] = {
    "rnn": (TimeRNN.GATES, TimeRNN),
    "relu": (TimeRNN.GATES, partial(TimeRNN, activation="relu")),
    "lstm": (TimeLSTM.GATES, TimeLSTM),
    "gru": (TimeGRU.GATES, TimeGRU),
}
# Far beyond what trains; it keeps a damaged file from asking for a billion layers.
_MOST_LAYERS = 1000


class RNNLM(LanguageModel):
    """Recurrent language model: `P(w_t | w_0 ... w_{t-1})` from a hidden state that has read every word.

    `h_t = cell(embed_W[w_t], h_{t-1})`, once a layer, then `softmax(h_t output_W + output_b)`. Dropout, where
    asked for, stands before each recurrent layer and before the output, not inside the recurrence.

    Parameters
    ----------
    vocab_size, embed_size, hidden_size : int
        V, D and H.
    cell : {"rnn", "relu", "lstm", "gru"}
        The recurrent layer: `TimeRNN` with tanh or with relu, `TimeLSTM`, or `TimeGRU` with the book's reset
        gate.
    layers : int
        How many recurrent layers lie above each other.
    dropout : float
        Share of units dropped while training, from 0 to below 1.
    tied : bool
        The output weights are the transposed embedding, `output_W = embed_W.T` (Press and Wolf, 2017), which
        needs `embed_size == hidden_size`. The shared array is one entry of `params`, and its entry of `grads`
        is the sum of both uses.
    rng : numpy.random.Generator, optional
        Draws the weights and the dropped units.
    dtype : float32 or float64
        Of the parameters, and so of everything.

    Raises
    ------
    ValueError, TypeError
        A size below 1, an unknown cell, a dropout outside its range, or `tied` with unequal sizes.

    Notes
    -----
    Weights start as in the book: embedding `randn / 100`, weights `randn / sqrt(fan_in)`, biases zero.

    Source: Saito, *Deep Learning from Scratch 2*, sections 5.5 and 6.5.

    Examples
    --------
    >>> model = RNNLM(7, 8, 8, rng=np.random.default_rng(0))
    >>> xs, ts = np.array([[0, 1, 2, 3]]), np.array([[1, 2, 3, 4]])
    >>> loss = model.forward(xs, ts)
    >>> model.backward()
    >>> bool(abs(loss - np.log(7)) < 0.5), model.predict(xs).shape
    (True, (1, 4, 7))
    """

    def __init__(
        self,
        vocab_size: int,
        embed_size: int,
        hidden_size: int,
        *,
        cell: str = "rnn",
        layers: int = 1,
        dropout: float = 0.0,
        tied: bool = False,
        rng: np.random.Generator | None = None,
        dtype: np.typing.DTypeLike = np.float32,
    ) -> None:
        config = self._settings(
            vocab_size=vocab_size,
            embed_size=embed_size,
            hidden_size=hidden_size,
            cell=cell,
            layers=layers,
            dropout=dropout,
            tied=tied,
            dtype=dtype,
        )
        rng = _check.generator(type(self).__name__, rng)
        kind = np.dtype(config["dtype"])
        arrays = {
            name: _initial(name, shape, rng).astype(kind) for name, shape in self._shapes(config).items()
        }
        self._set_up(config, arrays, rng)

    @classmethod
    def _settings(  # type: ignore[override]
        cls,
        *,
        vocab_size: Any,
        embed_size: Any,
        hidden_size: Any,
        cell: Any,
        layers: Any,
        dropout: Any,
        tied: Any,
        dtype: Any,
    ) -> dict[str, Any]:
        owner = cls.__name__
        ratio = _check.number(owner, "dropout", dropout, 0.0, 1.0)
        if ratio == 1.0:
            raise ValueError(f"{owner}: dropout must be below 1, got {dropout}; it would drop every unit.")
        config = {
            "model": owner,
            "vocab_size": _check.size(owner, "vocab_size", vocab_size),
            "embed_size": _check.size(owner, "embed_size", embed_size),
            "hidden_size": _check.size(owner, "hidden_size", hidden_size),
            "cell": _check.choice(owner, "cell", cell, tuple(_CELLS)),
            "layers": _check.size(owner, "layers", layers, 1, _MOST_LAYERS),
            "dropout": ratio,
            "tied": _check.boolean(owner, "tied", tied),
            "dtype": _check.float_dtype(owner, dtype).name,
        }
        if tied and embed_size != hidden_size:
            raise ValueError(
                f"{owner}: tied=True needs embed_size equal to hidden_size, got {embed_size} and "
                f"{hidden_size}; the output weights are the transposed embedding."
            )
        return config

    @classmethod
    def _shapes(cls, config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
        words, depth, width = config["vocab_size"], config["embed_size"], config["hidden_size"]
        gates = _CELLS[config["cell"]][0]
        shapes: dict[str, tuple[int, ...]] = {"embed_W": (words, depth)}
        for layer in range(config["layers"]):
            shapes[f"layer{layer}_Wx"] = (width if layer else depth, gates * width)
            shapes[f"layer{layer}_Wh"] = (width, gates * width)
            shapes[f"layer{layer}_b"] = (gates * width,)
        if not config["tied"]:
            shapes["output_W"] = (width, words)
        shapes["output_b"] = (words,)
        return shapes

    def _build(self, arrays: dict[str, np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
        config = self.config
        cell = _CELLS[config["cell"]][1]
        self._tied: bool = config["tied"]
        self._embedding = TimeEmbedding(arrays["embed_W"])
        self._layers = [
            cell(arrays[f"layer{i}_Wx"], arrays[f"layer{i}_Wh"], arrays[f"layer{i}_b"], stateful=True)
            for i in range(config["layers"])
        ]
        places = config["layers"] + 1 if config["dropout"] else 0
        self._dropouts = [TimeDropout(config["dropout"], rng=rng) for _ in range(places)]
        W = arrays["embed_W"].T if self._tied else arrays["output_W"]
        self._output = TimeAffineSoftmaxWithLoss(W, arrays["output_b"])
        if self._tied:
            # One array, one gradient: the output layer writes it as the transpose, the embedding adds to it.
            self._output.grads[0] = self._embedding.grads[0].T
        grads = [*self._embedding.grads]
        for layer in self._layers:
            grads += layer.grads
        return grads + self._output.grads[1 if self._tied else 0 :]

    def _features(self, xs: np.ndarray, *, drop: bool) -> np.ndarray:
        if xs.size:
            return self._hidden(xs, drop)
        # The layers refuse another number of rows than the state has also where there are no steps.
        kept = self.get_state()
        self.reset_state()
        try:
            return self._hidden(xs, drop)
        finally:
            self.set_state(kept)

    def _hidden(self, xs: np.ndarray, drop: bool) -> np.ndarray:
        for dropout in self._dropouts:
            dropout.train_flg = drop
        batch, steps = xs.shape
        hs = self._embedding.forward(
            xs, out=self._buffer("embedded", batch, steps, self.config["embed_size"])
        )
        for index, layer in enumerate(self._layers):
            hs = self._dropped(index, hs)
            hs = layer.forward(hs, out=self._buffer(f"hs{index}", batch, steps, self.config["hidden_size"]))
        return self._dropped(len(self._layers), hs)

    def _dropped(self, place: int, hs: np.ndarray) -> np.ndarray:
        """Dropout in place: no layer needs its output again."""
        if not self._dropouts:
            return hs
        dropout = self._dropouts[place]
        return dropout.forward(hs, out=hs if dropout.train_flg else None)

    def _features_backward(self, dhs: np.ndarray) -> None:
        batch, steps, _ = dhs.shape
        for index in reversed(range(len(self._layers))):
            dhs = self._undropped(index + 1, dhs)
            depth = self.config["hidden_size"] if index else self.config["embed_size"]
            dhs = self._layers[index].backward(dhs, out=self._buffer(f"dxs{index}", batch, steps, depth))
        dhs = self._undropped(0, dhs)
        self._embedding.backward(dhs, add_to=self.grads[0] if self._tied else None)

    def _undropped(self, place: int, dhs: np.ndarray) -> np.ndarray:
        if not self._dropouts:
            return dhs
        dropout = self._dropouts[place]
        return dropout.backward(dhs, out=dhs if dropout.train_flg else None)

    def _buffer(self, name: str, batch: int, steps: int, width: int) -> np.ndarray:
        return self._workspace.take(name, (batch, steps, width), self.dtype)

    def get_state(self) -> tuple[tuple[np.ndarray, ...] | None, ...]:
        """A copy of each layer's state, arrays `(N, H)`, or None where it is fresh."""
        return tuple(layer.get_state() for layer in self._layers)

    def set_state(self, state: tuple[tuple[np.ndarray, ...] | None, ...] | State | None) -> None:
        """Go back to a state of `get_state`, or to a `State`; None is the fresh state.

        Raises
        ------
        TypeError, ValueError
            It is no such state: another number of layers or arrays, another shape or dtype. The model's state
            is then as before.
        """
        state = plain(state)
        if state is None:
            self.reset_state()
            return
        for layer, arrays in zip(self._layers, self._checked_state(state), strict=True):
            if arrays is None:
                layer.reset_state()
            else:
                layer.set_state(*arrays)

    def _checked_state(self, state: Any) -> list[tuple[np.ndarray, ...] | None]:
        owner = self._owner("set_state")
        shape: tuple[Any, ...] = ("N", self.config["hidden_size"])
        checked: list[tuple[np.ndarray, ...] | None] = []
        for i, kept in enumerate(_check.entries(owner, "state", state, len(self._layers), "one a layer")):
            if kept is None:
                checked.append(None)
                continue
            names = self._layers[i].STATES
            arrays = _check.entries(owner, f"state[{i}]", kept, len(names), ", ".join(names))
            for j, array in enumerate(arrays):
                why = "as many rows in every layer"
                shape = _check.floats(owner, f"state[{i}][{j}]", array, shape, self.dtype, why).shape
            checked.append(arrays)
        return checked

    @property
    def rng_state(self) -> tuple[tuple[int, int], ...]:
        """The seed and the number of calls of each place with dropout; may be set, to draw on from there."""
        return tuple(dropout.rng_state for dropout in self._dropouts)

    @rng_state.setter
    def rng_state(self, state: Sequence[tuple[int, int]]) -> None:
        owner = self._owner("rng_state")
        given = _check.entries(owner, "rng_state", state, len(self._dropouts), "one a dropout")
        checked = [_check.sizes(owner, ("seed", "counter"), pair) for pair in given]
        for dropout, (seed, counter) in zip(self._dropouts, checked, strict=True):
            dropout.rng_state = seed, counter

    def _carried_rows(self) -> int | None:
        return next((h.shape[0] for layer in self._layers if (h := layer.h) is not None), None)

    def reset_state(self) -> None:
        """Forget the words read so far: the next call starts from a zero state."""
        for layer in self._layers:
            layer.reset_state()


def _initial(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """The book's initial values: embedding randn / 100, weights randn / sqrt(fan_in), biases zero."""
    # Recurrent weights tried instead, validation perplexity on the default corpus after 3 epochs of
    # Adam(0.002) with V = 1429, D = H = 100: 92.0 for these, 94.2 orthogonal, 96.2 identity times 0.9.
    if name == "embed_W":
        return rng.standard_normal(shape) / 100
    if len(shape) == 1:
        return np.zeros(shape)
    return rng.standard_normal(shape) / np.sqrt(shape[0])
