"""The methods of every language model: score, predict, generate."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from rnnfast import _check
from rnnfast.engine.locks import in_turn
from rnnfast.layers.loss import TimeAffineSoftmaxWithLoss
from rnnfast.layers.window import Blocks, Part
from rnnfast.models.model import Model, total_loss

# Draw the next word from a model's scores.


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


# Words scored at a time in a long text: enough rows for the output layer's products to run at full speed.
_CHUNK = 350


class LanguageModel(Model):
    """`P(next word | words before)`, for any body: the base of `RNNLM` and `CBOWLM`."""

    output: TimeAffineSoftmaxWithLoss

    @property
    def vocab_size(self) -> int:
        """Number of words, V."""
        return self.config["vocab_size"]

    def _inputs(self, method: str, xs: Any, carry: bool = True) -> np.ndarray:
        owner = self._owner(method)
        xs = _check.arrays.ids(owner, "xs", xs, ("N", "T"), self.vocab_size)
        carried = self.body.carried_rows if carry else None
        if carried is not None and xs.size:
            _check.objects.batch(owner, carried, xs.shape[0])
        return xs

    def _pair(self, method: str, xs: Any, ts: Any) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and labels, both checked before anything changes."""
        xs = self._inputs(method, xs)
        return xs, _check.arrays.ids(self._owner(method), "ts", ts, xs.shape, self.vocab_size, also=-1)

    def forward(self, xs: np.ndarray, ts: np.ndarray, *, blocks: Blocks | None = None) -> float:
        """Mean loss `-log P(ts[n, t] | xs[n, :t+1], words read before)` in nats, ready for `backward`.

        Parameters
        ----------
        xs : ndarray of int, (N, T)
            Ids of the words read.
        ts : ndarray of int, (N, T)
            Ids of the words that follow; -1 is not scored.
        blocks : Blocks, optional
            The blocks of rows whose gradients are summed apart, as `Trainer` cuts them.

        Returns
        -------
        float
            The mean over the scored words.

        Raises
        ------
        IndexError
            An id is not in the vocabulary.
        ValueError, TypeError
            Shapes differ, ids are not integers, or the carried state and `xs` differ in rows.
        """
        with self._turn:
            self.claim("forward")
            xs, ts = self._pair("forward", xs, ts)
            steps = xs.shape[1]
            part = None if blocks is None else Part(0, steps, steps, blocks=blocks)
            return self._forward(xs, ts, part)

    @in_turn
    def losses(self, xs: np.ndarray, ts: np.ndarray) -> np.ndarray:
        """The loss of each word in nats, `(N, T)` float64, without dropout; advances the carried state.

        The arguments are those of `forward`.
        """
        self.claim("losses")
        xs, ts = self._pair("losses", xs, ts)
        reader = self.reader()
        losses = reader.output.losses(reader.body.read(xs, drop=False, keep=False), ts)
        self.body.copy_state(reader.body)
        return losses

    @in_turn
    def predict(self, xs: np.ndarray) -> np.ndarray:
        """Scores (logits) of every next word, `(N, T) -> (N, T, V)`, no dropout; advances the state."""
        self.claim("predict")
        xs = self._inputs("predict", xs)
        body = self.reader().body
        scores = self.scores(body.read(xs, drop=False, keep=False))
        self.body.copy_state(body)
        return scores

    def predict_proba(self, xs: np.ndarray) -> np.ndarray:
        """Probabilities of every next word, `(N, T) -> (N, T, V)` float64; advances the carried state."""
        return probabilities(self.predict(xs))

    @in_turn
    def log_prob(self, ids: Sequence[int] | np.ndarray, *, start_id: int | None = None) -> float:
        """Log of the joint probability of a text by the chain rule, given its first word or `start_id`.

        Without `start_id`, `log P(w_1 ... w_n | w_0) = sum over t >= 1 of log P(w_t | w_0 ... w_{t-1})`. With
        `start_id`, the first word is scored too, as the word after `start_id`:
        `start_id=tokenizer.eos_id`, the end of the line before, gives the probability of a whole sentence.
        Reading starts from a fresh state, without dropout; the model's carried state is unchanged.

        Parameters
        ----------
        ids : sequence of int, (n + 1,)
            The text. The result is 0.0 if nothing is scored: no word, or one word and no `start_id`.
        start_id : int, optional
            An id read before the text and not scored.

        Returns
        -------
        float
            The log probability in nats.

        Examples
        --------
        >>> from rnnfast.models import RNNLM
        >>> model = RNNLM(7, 8, 8, rng=np.random.default_rng(0))
        >>> bool(model.log_prob([0, 1, 2]) < model.log_prob([0, 1]) < 0.0)
        True
        >>> round(sum(float(np.exp(model.log_prob([word], start_id=3))) for word in range(7)), 6)
        1.0
        """
        owner = self._owner("log_prob")
        ids = _check.arrays.id_sequence(owner, "ids", ids, self.vocab_size)
        if start_id is not None:
            start = _check.arrays.id_sequence(owner, "start_id", [start_id], self.vocab_size)
            ids = np.concatenate([start, ids])
        return 0.0 - total_loss(self, ids, _CHUNK)

    @in_turn
    def _advance(self, state: Any, ids: np.ndarray) -> tuple[np.ndarray, Any]:
        """Scores (V,) after reading ids (words,), and the new state; the model's state is unchanged.

        With None as the state, `ids` is a text, read from a fresh state. Otherwise it is one word, read from
        the state of the last call, whose arrays are advanced in place.
        """
        if state is None:
            body = self.reader().body
            body.carry(None)
            h = np.ascontiguousarray(body.read(ids[np.newaxis], drop=False, keep=False)[:, -1])
        else:
            body, carried = state
            body.carry(carried)
            h = body.step(ids)
        return self.scores(h)[0], (body, body.carried)

    def _prompt(self, method: str, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        prompt = _check.arrays.id_sequence(self._owner(method), "prompt_ids", ids, self.vocab_size)
        if not prompt.size:
            raise ValueError(f"{self._owner(method)}: prompt_ids must hold at least one id, got none.")
        return prompt

    def next_proba(self, prompt_ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """Probability `(V,)` of every word after a prompt, from a fresh state; the carried one is unchanged.

        Raises
        ------
        ValueError, TypeError, IndexError
            The prompt is empty, or an id is not in the vocabulary.
        FloatingPointError
            The scores are not finite, so the model's parameters are damaged.

        Examples
        --------
        >>> from rnnfast.models import RNNLM
        >>> model = RNNLM(7, 8, 8, rng=np.random.default_rng(0))
        >>> round(float(model.next_proba([0, 1]).sum()), 6)
        1.0
        """
        scores = self._advance(None, self._prompt("next_proba", prompt_ids))[0]
        return probabilities(finite_scores(self._owner("next_proba"), scores))

    def generate_iter(
        self,
        prompt_ids: Sequence[int] | np.ndarray,
        length: int,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        skip_ids: Sequence[int] = (),
        stop_id: int | None = None,
        rng: np.random.Generator | None = None,
    ) -> Iterator[int]:
        """As `generate`, but yields each id when it is drawn. Wrong arguments raise at once."""
        owner = self._owner("generate")
        prompt = self._prompt("generate", prompt_ids)
        length = _check.values.size(owner, "length", length, 0)
        if stop_id is not None:
            stop_id = int(_check.arrays.id_sequence(owner, "stop_id", [stop_id], self.vocab_size)[0])
        rules = sampling_rules(owner, self.vocab_size, temperature, top_k, top_p, skip_ids)
        rng = _check.values.generator(owner, rng)
        return write_on(self._advance, prompt, length, rules, stop_id, rng)

    def generate(
        self,
        prompt_ids: Sequence[int] | np.ndarray,
        length: int,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        skip_ids: Sequence[int] = (),
        stop_id: int | None = None,
        rng: np.random.Generator | None = None,
    ) -> list[int]:
        """Continue a prompt with drawn words.

        Parameters
        ----------
        prompt_ids : sequence of int
            At least one id; read from a fresh state. The model's carried state is unchanged.
        length : int
            The largest number of ids to draw.
        temperature : float
            Scores are divided by it: values below 1 favor likely words, values above 1 give more variety,
            0 always takes the likeliest word.
        top_k : int, optional
            Draw among the k likeliest words.
        top_p : float in (0, 1], optional
            Draw among the smallest set of likeliest words with this share of the probability (of the words
            left after `top_k`).
        skip_ids : sequence of int
            Ids that are never drawn, for example that of `<unk>`.
        stop_id : int, optional
            The text ends when this id is drawn; it is the last id returned.
        rng : numpy.random.Generator, optional
            Draws the words; the same generator state gives the same text.

        Returns
        -------
        list of int
            The new ids; the prompt is not repeated.

        Raises
        ------
        ValueError, TypeError, IndexError
            A rule is out of its range, or an id is not in the vocabulary.
        FloatingPointError
            The scores are not finite, so the model's parameters are damaged.

        Examples
        --------
        >>> from rnnfast.models import RNNLM
        >>> model = RNNLM(7, 8, 8, rng=np.random.default_rng(0))
        >>> len(model.generate([3], 5, top_k=4, rng=np.random.default_rng(1)))
        5
        """
        drawn = self.generate_iter(
            prompt_ids,
            length,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            skip_ids=skip_ids,
            stop_id=stop_id,
            rng=rng,
        )
        with self.reading():
            return list(drawn)
