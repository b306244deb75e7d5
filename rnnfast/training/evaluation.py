"""The perplexity of a model on a text."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.models.scoring import total_loss

# More words at a time take memory and gain no speed.
_MOST_AT_A_TIME = 8192


def perplexity(model: Any, ids: np.ndarray, batch_size: int = 10, window: int = 35) -> float:
    """`exp` of the mean loss over a text; every word except the first is scored exactly once.

    The text is one stream from a fresh state: each word is predicted from all words before it. Cutting the
    text into rows would give every row its own fresh state, and dropping an incomplete batch would leave
    words out; either would make the value depend on settings that are not part of the model. Therefore
    `batch_size` and `window` only set how many words (their product) are computed at a time, and the value
    is the same for all of them, bit for bit. Reading one row costs little: the output layer takes most of
    the time, and it sees `batch_size * window` rows at once.

    Parameters
    ----------
    model : RNNLM or CBOWLM
        Its carried state is unchanged; dropout is off.
    ids : ndarray of int, (tokens,)
        The text, at least two words; a memory map is read piece by piece.
    batch_size, window : int
        Their product is the number of words computed at a time.

    Returns
    -------
    float
        1 for a model that predicts every word, the vocabulary's size for uniform predictions; inf if `exp`
        of the mean loss overflows, NaN if the mean loss is NaN.

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
    ids = _check.arrays.ids_1d("perplexity", "ids", ids)
    chunk = _check.values.size("perplexity", "batch_size", batch_size) * _check.values.size(
        "perplexity", "window", window
    )
    _check.training.tokens_enough("perplexity", ids, 1, 1)
    return exp_of_mean(total_loss(model, ids, min(chunk, _MOST_AT_A_TIME)), len(ids) - 1)


def exp_of_mean(total: float, count: int) -> float:
    """`exp(total / count)`; infinity on overflow."""
    try:
        return math.exp(total / count)
    except OverflowError:
        return math.inf
