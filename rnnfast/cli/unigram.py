"""The simplest language model: the frequency of each word. Every other model has to beat it."""

from __future__ import annotations

import math

import numpy as np

from rnnfast import _check
from rnnfast.training.evaluation import exp_of_mean

_PIECE = 1 << 20  # ids counted at a time


class Unigram:
    """`P(w) = (count(w) + add) / (tokens + add * V)`, independent of the words before.

    Parameters
    ----------
    ids : ndarray of int, (tokens,)
        The training text; a memory map is read in pieces.
    vocab_size : int
        V.
    add : float
        Added to each count, so that words absent from the training text have a probability; 1 is Laplace's
        rule.

    Raises
    ------
    IndexError
        An id is not in the vocabulary.

    Notes
    -----
    Source: Jurafsky and Martin, *Speech and Language Processing*, chapter 3, add-one smoothing.

    Examples
    --------
    >>> model = Unigram(np.array([0, 1, 1, 1]), vocab_size=3)
    >>> model.proba
    array([0.28571429, 0.57142857, 0.14285714])
    >>> round(model.perplexity(np.array([0, 1, 1])), 3)
    1.75
    """

    def __init__(self, ids: np.ndarray, vocab_size: int, add: float = 1.0) -> None:
        self.vocab_size = _check.values.size("Unigram", "vocab_size", vocab_size)
        counts = self._counts("Unigram", ids) + _check.values.number("Unigram", "add", add, 0.0)
        self.proba = counts / counts.sum()

    def _counts(self, owner: str, ids: np.ndarray) -> np.ndarray:
        ids = _check.arrays.ids_1d(owner, "ids", ids)
        _check.arrays.ids_in_vocabulary(owner, "ids", ids, self.vocab_size)
        counts = np.zeros(self.vocab_size)
        for start in range(0, len(ids), _PIECE):
            counts += np.bincount(ids[start : start + _PIECE], minlength=self.vocab_size)
        return counts

    def perplexity(self, ids: np.ndarray) -> float:
        """`exp` of the mean of `-log P` over the words `rnnfast.perplexity` scores: all but the first."""
        _check.training.tokens_enough(
            "Unigram.perplexity", _check.arrays.ids_1d("Unigram.perplexity", "ids", ids), 1, 1
        )
        counts = self._counts("Unigram.perplexity", ids[1:])
        seen = counts > 0
        if not np.all(self.proba[seen] > 0.0):
            return math.inf
        return exp_of_mean(-float(counts[seen] @ np.log(self.proba[seen])), len(ids) - 1)
