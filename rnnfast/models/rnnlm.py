"""The recurrent language model: embedding, recurrent layers, softmax over the vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.cells import Cell
from rnnfast.kernels.fused_loss import loss_period
from rnnfast.layers.embedding import TimeEmbedding
from rnnfast.layers.loss import TimeAffineSoftmaxWithLoss, mean_loss
from rnnfast.layers.window import Lookup
from rnnfast.models.cells import (
    MOST_LAYERS,
    cell_of,
    initial_values,
    recurrent_layers,
    recurrent_shapes,
    saved_cell,
)
from rnnfast.models.language_model import LanguageModel
from rnnfast.models.recurrent_model import Part, RecurrentModel


class RNNLM(RecurrentModel, LanguageModel):
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
    Weights start as in the book: embedding `randn / 100`, weights `randn / sqrt(fan_in)`, biases zero; those
    of relu as half the identity, from biases of 0.5 and words of `randn / 10`.

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
        cell: str | Cell = "rnn",
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
        kind, chosen = np.dtype(config["dtype"]), cell_of(type(self).__name__, config["cell"])
        arrays = {
            name: initial_values(name, shape, rng, chosen).astype(kind)
            for name, shape in self._shapes(config).items()
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
            "cell": saved_cell(cell_of(owner, cell)),
            "layers": _check.size(owner, "layers", layers, 1, MOST_LAYERS),
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
        shapes: dict[str, tuple[int, ...]] = {"embed_W": (words, depth)}
        shapes |= recurrent_shapes(cell_of(cls.__name__, config["cell"]), config["layers"], depth, width)
        if not config["tied"]:
            shapes["output_W"] = (width, words)
        shapes["output_b"] = (words,)
        return shapes

    def _build(self, arrays: dict[str, np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
        config = self.config
        self._tied = config["tied"]
        self._embedding = TimeEmbedding(arrays["embed_W"])
        layers = recurrent_layers(cell_of(type(self).__name__, config["cell"]), config["layers"], arrays, rng)
        self._stand_on(layers, config["dropout"], rng, [self._embedding])
        W = arrays["embed_W"].T if self._tied else arrays["output_W"]
        # One array, one gradient: the embedding writes it, the output layer adds to its transpose.
        dW = self._embedding.grads[0].T if self._tied else None
        self._output = TimeAffineSoftmaxWithLoss(W, arrays["output_b"], dW=dW)
        grads = [*self._embedding.grads]
        for layer in self._layers:
            grads += layer.grads
        return grads + self._output.grads[1 if self._tied else 0 :]

    def _features(self, xs: np.ndarray, *, drop: bool, keep: bool) -> np.ndarray:
        if xs.size:
            return self._read_through(xs, drop=drop, keep=keep)
        # The layers refuse another number of rows than the state has also where there are no steps.
        kept = self.get_state()
        self.reset_state()
        try:
            return self._read_through(xs, drop=drop, keep=keep)
        finally:
            self.set_state(kept)

    def _features_backward(self, dhs: np.ndarray) -> None:
        self._go_back(dhs)

    def _lookup(self, xs: np.ndarray, steps: int) -> Lookup | None:
        words = self._embedding._table
        if self._dropouts or not xs.size or not words.flags.c_contiguous:
            return None
        if not self._layers[0].looks_up(words.shape[0], xs.shape[0], steps):
            return None
        return Lookup(xs, words, self._embedding._dweights[0])

    def _vectors(self, xs: np.ndarray) -> np.ndarray:
        return self._embedding.forward(
            xs, out=self._buffer("embedded", xs.shape[0], xs.shape[1], self._sizes[0])
        )

    def _vectors_backward(self, dxs: np.ndarray, adds: bool) -> None:
        self._embedding.backward(dxs, add_to=self.grads[0] if adds else None)

    def _part_inputs(self, xs: Any, part: Part) -> np.ndarray:
        return self._inputs("forward", np.array(xs[:, part.first : part.last]))

    def _part_targets(self, ts: Any, part: Part) -> np.ndarray:
        ts = np.array(ts[:, part.first : part.last])
        return _check.ids(self._owner("forward"), "ts", ts, ts.shape, self.vocab_size, also=-1)

    def _scored(self, ts: Any, parts: Sequence[Part]) -> int:
        return sum(int(np.count_nonzero(ts[:, part.first : part.last] != -1)) for part in parts)

    def _score(self, hs: np.ndarray, ts: Any, part: Part, sums: np.ndarray, scored: int, adds: bool) -> bool:
        self._output._run(self._owner("forward"), hs, ts, sums, scored, adds)
        return True

    def _mean(self, sums: np.ndarray, scored: int) -> float:
        return mean_loss(sums, scored)

    def _period(self, batch: int) -> int:
        return loss_period(batch, self.vocab_size)

    def _words(self, batch: int, steps: int) -> int:
        looked_up = not self._dropouts and self._layers[0].looks_up(self.vocab_size, batch, steps)
        return self.vocab_size if looked_up else 0

    def _output_bytes(self, batch: int, steps: int) -> int:
        # Ids as they are read, in int64 and sorted; labels likewise.
        return self._output._scratch_bytes(batch, steps) + 8 * 5 * batch * steps
