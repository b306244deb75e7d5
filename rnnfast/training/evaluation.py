"""How well a model predicts a text."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.models.scoring import total_loss

# More words at a time gain nothing and take memory.
_MOST_AT_A_TIME = 8192


def perplexity(model: Any, ids: np.ndarray, batch_size: int = 10, window: int = 35) -> float:
    """`exp` of the mean loss over a text, in which every word but the first is scored exactly once.

    The text is one stream from a fresh state: each word is predicted from all words before it. Cutting it
    into rows would give every row a fresh state of its own, and dropping the rest of the last batch would
    leave words out; both make the figure depend on settings that say nothing about the model. So `batch_size`
    and `window` only say how many words (their product) are worked on at a time, and the value is the same,
    bit for bit, whatever they are. One row costs little: the output layer, where the time goes, sees
    `batch_size * window` rows at once.

    Parameters
    ----------
    model : RNNLM or CBOWLM
        Its carried state is left as it is; dropout does not act.
    ids : ndarray of int, (tokens,)
        The text, at least two words; a memory map is read piece by piece.
    batch_size, window : int
        Words worked on at a time, as a product.

    Returns
    -------
    float
        1 for a model that knows every word, the vocabulary's size for one that knows nothing; inf when the
        mean loss is too large for a float, NaN when it is not a number.

    Raises
    ------
    CorpusError
        Fewer than two words.
    IndexError
        An id is not in the vocabulary.

    Examples
    --------
    >>> from rnnfast.models import RNNLM
    >>> model = RNNLM(7, 8, 8, rng=np.random.default_rng(0))
    >>> ids = np.arange(100) % 7
    >>> perplexity(model, ids) == perplexity(model, ids, batch_size=1, window=3)
    True
    """
    ids = _check.ids_1d("perplexity", "ids", ids)
    chunk = _check.size("perplexity", "batch_size", batch_size) * _check.size("perplexity", "window", window)
    _check.tokens_enough("perplexity", ids, 1, 1)
    return exp_of_mean(total_loss(model, ids, min(chunk, _MOST_AT_A_TIME)), len(ids) - 1)


def exp_of_mean(total: float, count: int) -> float:
    """`exp(total / count)`, infinite where a float cannot hold it."""
    try:
        return math.exp(total / count)
    except OverflowError:
        return math.inf
