"""The baseline without memory: the next word from the sum of the vectors of the last few words."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast._turns import in_turn
from rnnfast.layers.embedding import TimeContextSum
from rnnfast.layers.loss import TimeAffineSoftmaxWithLoss
from rnnfast.models.language_model import LanguageModel
from rnnfast.state import State, plain


class CBOWLM(LanguageModel):
    """Language model on the left context: `-log P(w_t | w_{t-window} ... w_{t-1})`.

    `h_t = embed_W[w_{t-window}] + ... + embed_W[w_{t-1}]`, then `softmax(h_t output_W + output_b)`. A sum
    forgets the order of its words, and words further back than `window` do not count: what a recurrent
    network is for. At the beginning of a text the sum runs over the words there are.

    Parameters
    ----------
    vocab_size, embed_size : int
        V and D.
    window : int
        How many words of context.
    rng : numpy.random.Generator, optional
        Draws the weights.
    dtype : float32 or float64
        Of the parameters, and so of everything.

    Raises
    ------
    ValueError, TypeError
        A size below 1.

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
    ) -> None:
        config = self._settings(vocab_size=vocab_size, embed_size=embed_size, window=window, dtype=dtype)
        rng = _check.generator(type(self).__name__, rng)
        shapes = self._shapes(config)
        arrays = {
            "embed_W": rng.standard_normal(shapes["embed_W"]) / 100,
            "output_W": rng.standard_normal(shapes["output_W"]) / np.sqrt(embed_size),
            "output_b": np.zeros(shapes["output_b"]),
        }
        kind = np.dtype(config["dtype"])
        self._set_up(config, {name: array.astype(kind) for name, array in arrays.items()}, rng)

    @classmethod
    def _settings(  # type: ignore[override]
        cls, *, vocab_size: Any, embed_size: Any, window: Any, dtype: Any
    ) -> dict[str, Any]:
        owner = cls.__name__
        return {
            "model": owner,
            "vocab_size": _check.size(owner, "vocab_size", vocab_size),
            "embed_size": _check.size(owner, "embed_size", embed_size),
            "window": _check.size(owner, "window", window),
            "dtype": _check.float_dtype(owner, dtype).name,
        }

    @classmethod
    def _shapes(cls, config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
        words, depth = config["vocab_size"], config["embed_size"]
        return {"embed_W": (words, depth), "output_W": (depth, words), "output_b": (words,)}

    def _build(self, arrays: dict[str, np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
        self._context = TimeContextSum(arrays["embed_W"], self.config["window"])
        self._output = TimeAffineSoftmaxWithLoss(arrays["output_W"], arrays["output_b"])
        return [*self._context.grads, *self._output.grads]

    def _features(self, xs: np.ndarray, *, drop: bool, keep: bool) -> np.ndarray:
        out = self._workspace.take("sums", (*xs.shape, self.config["embed_size"]), self.dtype)
        return self._context.forward(xs, out=out)

    def _features_backward(self, dhs: np.ndarray) -> None:
        self._context.backward(dhs)

    def _hand_state(self, other: Any) -> None:
        other._context.set_state(self._context.context)

    def _state_now(self) -> Any:
        return self._context.context

    def _roll_back(self, state: Any) -> None:
        self._context.set_state(state)

    @in_turn
    def get_state(self) -> np.ndarray | None:
        """A copy of the ids read last, (N, window - 1), or None when the state is fresh."""
        return self._context.context

    @in_turn
    def set_state(self, state: np.ndarray | State | None) -> None:
        """Go back to a state (N, window - 1) of `get_state`, or to a `State`; None is the fresh state."""
        self._claim("set_state")
        self._context.set_state(plain(state))

    def _carried_rows(self) -> int | None:
        context = self._context.context
        return None if context is None else context.shape[0]

    @in_turn
    def reset_state(self) -> None:
        """Forget the words read so far."""
        self._claim("reset_state")
        self._context.reset_state()
