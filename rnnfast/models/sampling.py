"""Draw the next word from a model's scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from rnnfast import _check


class SamplingRules(NamedTuple):
    """The rules for drawing a word; `LanguageModel.generate` explains each."""

    temperature: float
    top_k: int | None
    top_p: float | None
    skip_ids: np.ndarray


def sampling_rules(
    owner: str, vocab_size: int, temperature: Any, top_k: Any, top_p: Any, skip_ids: Sequence[int]
) -> SamplingRules:
    """Check the rules once, before the first word is drawn."""
    temperature = _check.values.number(owner, "temperature", temperature, 0.0)
    if top_k is not None:
        top_k = _check.values.size(owner, "top_k", top_k)
    if top_p is not None:
        top_p = _check.values.number(owner, "top_p", top_p, 0.0, 1.0)
        if top_p == 0.0:
            raise ValueError(
                f"{owner}: top_p must be above 0; for the likeliest word only use temperature=0."
            )
    skipped = np.unique(_check.arrays.id_sequence(owner, "skip_ids", skip_ids, vocab_size))
    if skipped.size == vocab_size:
        raise ValueError(f"{owner}: skip_ids must leave at least one of the {vocab_size} words.")
    return SamplingRules(temperature, top_k, top_p, skipped)


def probabilities(scores: np.ndarray) -> np.ndarray:
    """Softmax of scores over the last axis, in float64, `(..., V) -> (..., V)`."""
    values = scores.astype(np.float64)
    values -= values.max(axis=-1, keepdims=True)
    with np.errstate(under="ignore"):
        np.exp(values, out=values)
        values /= values.sum(axis=-1, keepdims=True)
    return values


def finite_scores(owner: str, scores: np.ndarray) -> np.ndarray:
    """The scores; an error if they are not finite."""
    if not np.isfinite(scores).all():
        raise FloatingPointError(
            f"{owner}: the model's scores are not finite, so its parameters are damaged."
        )
    return scores


def draw(scores: np.ndarray, rules: SamplingRules, rng: np.random.Generator) -> int:
    """Draw one id from `softmax(scores / temperature)` over the words the rules allow; scores are `(V,)`."""
    values = finite_scores("generate", scores).astype(np.float64)
    values[rules.skip_ids] = -math.inf
    if rules.temperature == 0.0:
        return int(values.argmax())
    weights = _weights(values, rules)
    total = np.cumsum(weights)
    drawn = int(np.searchsorted(total, rng.random() * total[-1], side="right"))
    # Rounding can place the draw after the last word with a positive weight.
    return min(drawn, int(np.flatnonzero(weights)[-1]))


def _weights(values: np.ndarray, rules: SamplingRules) -> np.ndarray:
    """The unnormalized weight of each word in the draw; equal scores are ordered by id."""
    with np.errstate(under="ignore", over="ignore"):
        weights = np.exp((values - values.max()) / rules.temperature)
    if rules.top_k is None and rules.top_p is None:
        return weights
    order = np.argsort(-values, kind="stable")
    if rules.top_k is not None:
        weights[order[rules.top_k :]] = 0.0
    if rules.top_p is not None:
        ranked = weights[order]
        before = np.cumsum(ranked) - ranked
        weights[order[before >= rules.top_p * ranked.sum()]] = 0.0
    return weights


def write_on(
    advance: Callable[[Any, np.ndarray], tuple[np.ndarray, Any]],
    ids: np.ndarray,
    length: int,
    rules: SamplingRules,
    stop_id: int | None,
    rng: np.random.Generator,
) -> Iterator[int]:
    """Draw ids one after another; `advance` maps state and ids to scores `(V,)` and the next state."""
    state = None
    for _ in range(length):
        scores, state = advance(state, ids)
        drawn = draw(scores, rules, rng)
        yield drawn
        if drawn == stop_id:
            return
        ids = np.array([drawn], dtype=np.int64)
