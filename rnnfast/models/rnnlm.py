"""The recurrent language model: embedding, recurrent layers, softmax over the vocabulary."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.cells import Cell
from rnnfast.layers.embedding import TimeEmbedding
from rnnfast.layers.loss import TimeAffineSoftmaxWithLoss
from rnnfast.models.body import Body
from rnnfast.models.language_model import LanguageModel
from rnnfast.models.weights import MOST_LAYERS, cell_of, recurrent_layers, recurrent_shapes, saved_cell


class RNNLM(LanguageModel):
    """Recurrent language model: it predicts the next word from a hidden state that has read all words before.

    It models `P(w_t | w_0 ... w_{t-1})`: `h_t = cell(embed_W[w_t], h_{t-1})` in each layer, then
    `softmax(h_t output_W + output_b)`. Dropout applies before each recurrent layer and before the output, not
    inside the recurrence.

    Parameters
    ----------
    vocab_size, embed_size, hidden_size : int
        V, D and H.
    cell : str or Cell
        The recurrent layer: a cell, or the name of one in `rnnfast.cells`: "rnn", "lstm", "gru" (with the
        book's reset gate) and so on.
    layers : int
        The number of stacked recurrent layers.
    dropout : float
        Share of units dropped in training, at least 0 and below 1.
    tied : bool
        Use the transposed embedding as output weights, `output_W = embed_W.T` (Press and Wolf, 2017); needs
        `embed_size == hidden_size`. The shared array is one entry of `params`, and its entry of `grads` is
        the sum over both uses.
    rng : numpy.random.Generator, optional
        Draws the weights and the dropped units.
    dtype : float32 or float64
        The dtype of the parameters and all results.
    precision : "bfloat16", optional
        Round the operands of products to bfloat16; see the attribute.

    Raises
    ------
    ValueError, TypeError
        A size below 1, an unknown cell, a dropout outside its range, or `tied` with unequal sizes.

    Notes
    -----
    Initial values follow the book: embedding `randn / 100`, weights `randn / sqrt(fan_in)`, biases zero.
    Cells may define others: with "relu" and "li_gru", biases start at 0.5, the embedding at `randn / 10`, and
    `Wh` at half the identity or an orthogonal matrix.

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
        precision: str | None = None,
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
        self._begin(config, rng, cell_of(type(self).__name__, cell))
        self.precision = precision

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
        ratio = _check.values.number(owner, "dropout", dropout, 0.0, 1.0)
        if ratio == 1.0:
            raise ValueError(f"{owner}: dropout must be below 1, got {dropout}; it would drop every unit.")
        config = {
            "model": owner,
            "vocab_size": _check.values.size(owner, "vocab_size", vocab_size),
            "embed_size": _check.values.size(owner, "embed_size", embed_size),
            "hidden_size": _check.values.size(owner, "hidden_size", hidden_size),
            "cell": saved_cell(owner, cell),
            "layers": _check.values.size(owner, "layers", layers, 1, MOST_LAYERS),
            "dropout": ratio,
            "tied": _check.values.boolean(owner, "tied", tied),
            "dtype": _check.arrays.float_dtype(owner, dtype).name,
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

    def _build(self, arrays: dict[str, np.ndarray], rng: np.random.Generator) -> None:
        config, owner = self.config, type(self).__name__
        embedding = TimeEmbedding(arrays["embed_W"])
        layers = recurrent_layers(cell_of(owner, config["cell"]), config["layers"], arrays, rng)
        self.body = Body(owner, embedding, layers, config["dropout"], rng)
        self.tied = config["tied"]
        W = arrays["embed_W"].T if self.tied else arrays["output_W"]
        # One array has one gradient: the embedding writes it, and the output layer adds to its transpose.
        dW = embedding.grads[0].T if self.tied else None
        self.output = TimeAffineSoftmaxWithLoss(W, arrays["output_b"], dW=dW)
