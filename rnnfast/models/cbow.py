"""The baseline without memory: the next word from the sum of the vectors of the last few words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.layers.base import Layer
from rnnfast.layers.embedding import TimeContextSum
from rnnfast.layers.loss import TimeAffineSoftmaxWithLoss
from rnnfast.layers.window import Blocks, Reduction
from rnnfast.models.language_model import LanguageModel


class Contexts(Layer):
    """The body of `CBOWLM`: hidden vectors are sums of word vectors; the state holds the last words."""

    def __init__(self, layer: TimeContextSum) -> None:
        self.layer = layer
        self._hold(layer.params, layer.grads)

    def parts(self) -> list[TimeContextSum]:
        """The layer."""
        return [self.layer]

    def read(self, xs: np.ndarray, **options: Any) -> np.ndarray:
        """Hidden vectors (N, T, D) of ids (N, T); advances the state. `options` have no effect."""
        layer = self.layer
        return layer.forward(xs, out=self._workspace.take("sums", (*xs.shape, layer.embed_size), layer.dtype))

    def step(self, x: np.ndarray) -> np.ndarray:
        """Advance by one word per row (N,); the hidden vectors (N, D)."""
        return self.layer.forward(x[:, np.newaxis])[:, 0]

    constants: Sequence[Mapping[str, float]] = ()  # a body without cells has none

    def share_constants(self, other: Contexts) -> None:
        """Do nothing: there are no constants."""

    def gradients_of_outputs(self, batch: int, steps: int) -> np.ndarray:
        """Memory for the gradients (N, T, D) that `backpropagate` takes."""
        layer = self.layer
        return self._workspace.take("dhs", (batch, steps, layer.embed_size), layer.dtype)

    def backpropagate(
        self, dhs: np.ndarray, *, blocks: Blocks | None = None, reduction: Reduction | None = None
    ) -> None:
        """Fill the gradients from those of the outputs, (N, T, D); by blocks as in `Body.backpropagate`."""
        if blocks is not None and reduction is not None:
            self.layer.backward_by_blocks(dhs, blocks, reduction)
        else:
            self.layer.backward(dhs)

    @property
    def carried(self) -> np.ndarray | None:
        """A copy of the state (N, window - 1); None if it is fresh."""
        return self.layer.context

    def get_state(self) -> np.ndarray | None:
        """A copy of the state (N, window - 1); None if it is fresh."""
        return self.layer.context

    def set_state(self, state: np.ndarray | None) -> None:
        """Set a state (N, window - 1) of `get_state`; None is the fresh state."""
        self.layer.set_state(state)

    roll_back = carry = set_state

    @property
    def rng_state(self) -> tuple[()]:
        """An empty tuple: nothing is drawn."""
        return ()

    @rng_state.setter
    def rng_state(self, state: Any) -> None:
        _check.objects.entries("CBOWLM.rng_state", "rng_state", state, 0, "nothing is drawn")

    def reset_state(self) -> None:
        """Forget all words read."""
        self.layer.reset_state()

    @property
    def carried_rows(self) -> int | None:
        """Rows N of the state; None if it is fresh."""
        context = self.layer.context
        return None if context is None else context.shape[0]

    def copy_state(self, other: Contexts) -> None:
        """Take over the state of another body on the same parameters."""
        self.layer.set_state(other.layer.context)


class CBOWLM(LanguageModel):
    """Language model without recurrence: it predicts the next word from the sum of the last word vectors.

    It models `P(w_t | w_{t-window} ... w_{t-1})`: `h_t = embed_W[w_{t-window}] + ... + embed_W[w_{t-1}]`,
    then `softmax(h_t output_W + output_b)`. Unlike a recurrent network, it ignores the order of the words and
    all words further back than `window`. At the beginning of a text, the sum runs over the available words.

    Parameters
    ----------
    vocab_size, embed_size : int
        V and D.
    window : int
        The number of context words.
    rng : numpy.random.Generator, optional
        Draws the weights.
    dtype : float32 or float64
        The dtype of the parameters and all results.
    precision : "bfloat16", optional
        Round the operands of products to bfloat16; see the attribute.

    Raises
    ------
    ValueError, TypeError
        A size below 1.

    Notes
    -----
    Source: Saito, *Deep Learning from Scratch 2*, section 5.1.1, after the CBOW of Mikolov and others, 2013.

    Examples
    --------
    >>> model = CBOWLM(7, 8, window=2, rng=np.random.default_rng(0))
    >>> bool(np.array_equal(model.next_proba([1, 2]), model.next_proba([2, 1])))
    True
    """

    def __init__(
        self,
        vocab_size: int,
        embed_size: int,
        window: int = 2,
        *,
        rng: np.random.Generator | None = None,
        dtype: np.typing.DTypeLike = np.float32,
        precision: str | None = None,
    ) -> None:
        config = self._settings(vocab_size=vocab_size, embed_size=embed_size, window=window, dtype=dtype)
        self._begin(config, rng)
        self.precision = precision

    @classmethod
    def _settings(  # type: ignore[override]
        cls, *, vocab_size: Any, embed_size: Any, window: Any, dtype: Any
    ) -> dict[str, Any]:
        owner = cls.__name__
        return {
            "model": owner,
            "vocab_size": _check.values.size(owner, "vocab_size", vocab_size),
            "embed_size": _check.values.size(owner, "embed_size", embed_size),
            "window": _check.values.size(owner, "window", window),
            "dtype": _check.arrays.float_dtype(owner, dtype).name,
        }

    @classmethod
    def _shapes(cls, config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
        words, depth = config["vocab_size"], config["embed_size"]
        return {"embed_W": (words, depth), "output_W": (depth, words), "output_b": (words,)}

    def _build(self, arrays: dict[str, np.ndarray], rng: np.random.Generator) -> None:
        self.body = Contexts(TimeContextSum(arrays["embed_W"], self.config["window"]))
        self.output = TimeAffineSoftmaxWithLoss(arrays["output_W"], arrays["output_b"])
