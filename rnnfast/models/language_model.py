"""What every language model does, whatever its hidden layer: score, predict, generate, save and load."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from threading import get_ident
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast._turns import in_turn
from rnnfast.layers.affine import TimeAffine
from rnnfast.layers.loss import TimeAffineSoftmaxWithLoss
from rnnfast.models.sampling import finite_scores, probabilities, sampling_rules, write_on
from rnnfast.models.scoring import total_loss
from rnnfast.models.stored import StoredModel

# Words scored at a time in one long text: enough rows to keep the output layer's products at full speed.
_CHUNK = 350


class LanguageModel(StoredModel):
    """Base of `RNNLM` and `CBOWLM`: `P(next word | words before)` from hidden vectors and an output layer.

    A subclass gives the hidden vectors (`_features`), their gradient (`_features_backward`) and the carried
    state; everything else is here. `params[i]` and `grads[i]` are the same objects for the life of the model.

    Attributes
    ----------
    params, grads : list of ndarray
        Every parameter once, and its gradient. `parameter_names` names them, in the same order.
    config : dict
        The constructor's arguments as JSON values, and the class under "model".
    train_flg : bool
        Whether `forward` drops units. Everything else never does.
    """

    train_flg: bool = True
    _tied = False  # whether the output weights are the transposed embedding, and so are their gradients
    _output: TimeAffineSoftmaxWithLoss

    # What a subclass gives.

    @classmethod
    def _settings(cls, **arguments: Any) -> dict[str, Any]:
        """The constructor's arguments, checked, as JSON values."""
        raise NotImplementedError

    @classmethod
    def _shapes(cls, config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter, in the order of `params`."""
        raise NotImplementedError

    def _build(self, arrays: dict[str, np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
        """Make the layers around these arrays; the gradient of each, in the order of `arrays`."""
        raise NotImplementedError

    def _features(self, xs: np.ndarray, *, drop: bool, keep: bool) -> np.ndarray:
        """Hidden vectors `(N, T, H)` of ids `(N, T)`; carries the state on. Without `keep`, as in
        `TimeLSTM.forward`."""
        raise NotImplementedError

    def _features_backward(self, dhs: np.ndarray) -> None:
        """Fill the gradients from that of the hidden vectors; the output layer's follow."""
        raise NotImplementedError

    def get_state(self) -> Any:
        """A copy of what is carried from call to call, for `set_state`."""
        raise NotImplementedError

    def set_state(self, state: Any) -> None:
        """Go back to a state of `get_state`; None is the fresh state."""
        raise NotImplementedError

    def reset_state(self) -> None:
        """Forget the words read so far."""
        raise NotImplementedError

    def _carried_rows(self) -> int | None:
        """Rows N of the carried state; None when it is fresh."""
        raise NotImplementedError

    # What all share.

    def _set_up(
        self, config: dict[str, Any], arrays: dict[str, np.ndarray], rng: np.random.Generator
    ) -> None:
        self.config = config
        self.parameter_names = list(arrays)
        self._hold(list(arrays.values()), self._build(arrays, rng))

    @property
    def vocab_size(self) -> int:
        """Number of words, V."""
        return self.config["vocab_size"]

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the parameters."""
        return self._weights[0].dtype

    def _owner(self, method: str) -> str:
        return f"{type(self).__name__}.{method}"

    def _inputs(self, method: str, xs: Any) -> np.ndarray:
        """Checked, also against the carried state, so that a wrong call leaves the model as it was."""
        owner = self._owner(method)
        xs = _check.ids(owner, "xs", xs, ("N", "T"), self.vocab_size)
        carried = self._carried_rows()
        if carried is not None and xs.size:
            _check.batch(owner, carried, xs.shape[0])
        return xs

    def _pair(self, method: str, xs: Any, ts: Any) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and labels, both checked before anything changes."""
        xs = self._inputs(method, xs)
        return xs, _check.ids(self._owner(method), "ts", ts, xs.shape, self.vocab_size, also=-1)

    def _read(self, xs: np.ndarray) -> np.ndarray:
        """Hidden vectors without dropout."""
        return self._features(xs, drop=False, keep=False)

    def forward(self, xs: np.ndarray, ts: np.ndarray) -> float:
        """Mean loss `-log P(ts[n, t] | xs[n, :t+1], words read before)` in nats, ready for `backward`.

        Parameters
        ----------
        xs : ndarray of int, (N, T)
            Ids of the words read.
        ts : ndarray of int, (N, T)
            Ids of the words that follow them; -1 is not scored.

        Returns
        -------
        float
            The mean over the scored words.

        Raises
        ------
        IndexError
            An id is not in the vocabulary.
        ValueError, TypeError
            Shapes differ, ids are not integers, or the carried state has another number of rows than `xs`.
        """
        with self._turn:
            self._claim("forward")
            xs, ts = self._pair("forward", xs, ts)
            self._hs, state = None, self._state_now()
            try:
                hs = self._features(xs, drop=self.train_flg, keep=True)
                loss = self._output.forward(hs, ts)
            except BaseException:
                self._roll_back(state)
                raise
            self._made_by = get_ident()
            self._hs = hs.shape
            return loss

    def backward(self) -> None:
        """Fill `grads` with the gradient of the last `forward`'s loss, which ends at its first step.

        Raises
        ------
        RuntimeError
            There was no `forward`, or it was made by another thread.
        """
        with self._turn:
            self._claim_tape()
            _check.called_before(self._owner("backward"), self._hs is not None, "forward")
            assert self._hs is not None
            out = self._workspace.take("dhs", self._hs, self.dtype)
            self._features_backward(self._output._input_gradient(out=out))
            self._output._parameter_gradients(adds=self._tied)

    @in_turn
    def losses(self, xs: np.ndarray, ts: np.ndarray) -> np.ndarray:
        """Each word's own loss in nats, `(N, T)` float64, without dropout; carries the state on.

        Takes what `forward` takes.
        """
        self._claim("losses")
        reader = self._lend()
        losses = reader._own_losses(xs, ts)
        self._go_on_from(reader)
        return losses

    def _own_losses(self, xs: np.ndarray, ts: np.ndarray) -> np.ndarray:
        """`losses` in the model's own memory."""
        xs, ts = self._pair("losses", xs, ts)
        return self._output.losses(self._read(xs), ts)

    @in_turn
    def predict(self, xs: np.ndarray) -> np.ndarray:
        """Scores (logits) of every next word, `(N, T) -> (N, T, V)`, no dropout; carries the state on."""
        self._claim("predict")
        xs = self._inputs("predict", xs)
        reader = self._lend()
        scores = self._scores(reader._read(xs))
        self._go_on_from(reader)
        return scores

    def predict_proba(self, xs: np.ndarray) -> np.ndarray:
        """Probabilities of every next word, `(N, T) -> (N, T, V)` float64; carries the state on."""
        return probabilities(self.predict(xs))

    def _scores(self, hs: np.ndarray) -> np.ndarray:
        if self._affine is None:
            self._affine = TimeAffine(*self._output.params)
        return self._affine.forward(hs)

    @in_turn
    def log_prob(self, ids: Sequence[int] | np.ndarray, *, start_id: int | None = None) -> float:
        """Log of the joint probability of a text by the chain rule, from its first word or from a start.

        Without `start_id`, `log P(w_1 ... w_n | w_0) = sum over t >= 1 of log P(w_t | w_0 ... w_{t-1})`. With
        it the first word is scored too, as the word after `start_id`: `start_id=tokenizer.eos_id`, the end of
        the line before, gives the probability of a whole sentence. From a fresh state and without dropout;
        the state carried by the model stays as it is.

        Parameters
        ----------
        ids : sequence of int, (n + 1,)
            The text; 0.0 where nothing is scored: no word, or one word and no `start_id`.
        start_id : int, optional
            Read before the text, and not scored itself.

        Returns
        -------
        float
            In nats.

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
        ids = _check.id_sequence(owner, "ids", ids, self.vocab_size)
        if start_id is not None:
            start = _check.id_sequence(owner, "start_id", [start_id], self.vocab_size)
            ids = np.concatenate([start, ids])
        return 0.0 - total_loss(self, ids, _CHUNK)

    @in_turn
    def _advance(self, state: Any, ids: np.ndarray) -> tuple[np.ndarray, Any]:
        """Scores `(V,)` after reading ids from a given state, and the state then; the model keeps its own."""
        reader = self._lend()
        reader.set_state(state)
        hs = reader._read(ids[np.newaxis])
        return self._scores(np.ascontiguousarray(hs[:, -1:]))[0, 0], reader.get_state()

    def _prompt(self, method: str, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        prompt = _check.id_sequence(self._owner(method), "prompt_ids", ids, self.vocab_size)
        if not prompt.size:
            raise ValueError(f"{self._owner(method)}: prompt_ids must hold at least one id, got none.")
        return prompt

    def next_proba(self, prompt_ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """Probability `(V,)` of every word after a prompt, from a fresh state; the model keeps its own.

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
        """`generate`, one id at a time as it is drawn. Wrong arguments raise here, not at the first id."""
        owner = self._owner("generate")
        prompt = self._prompt("generate", prompt_ids)
        length = _check.size(owner, "length", length, 0)
        if stop_id is not None:
            stop_id = int(_check.id_sequence(owner, "stop_id", [stop_id], self.vocab_size)[0])
        rules = sampling_rules(owner, self.vocab_size, temperature, top_k, top_p, skip_ids)
        rng = _check.generator(owner, rng)
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
        """Write on after a prompt.

        Parameters
        ----------
        prompt_ids : sequence of int
            At least one id; read from a fresh state. The state carried by the model stays as it is.
        length : int
            How many ids to draw at most.
        temperature : float
            Scores are divided by it: below 1 bolder in the likely words, above 1 more varied, 0 the likeliest
            only.
        top_k : int, optional
            Draw among the k likeliest words.
        top_p : float in (0, 1], optional
            Draw among the fewest likeliest words that hold this share of the probability (left after
            `top_k`).
        skip_ids : sequence of int
            Never drawn, for example the id of `<unk>`.
        stop_id : int, optional
            The text ends when it is drawn; it is then the last id returned.
        rng : numpy.random.Generator, optional
            The same generator state gives the same text.

        Returns
        -------
        list of int
            The new ids; the prompt is not repeated.

        Raises
        ------
        ValueError, TypeError, IndexError
            A rule is out of its range, an id out of the vocabulary.
        FloatingPointError
            The scores are not finite, so the model's parameters are damaged.

        Examples
        --------
        >>> from rnnfast.models import RNNLM
        >>> model = RNNLM(7, 8, 8, rng=np.random.default_rng(0))
        >>> len(model.generate([3], 5, top_k=4, rng=np.random.default_rng(1)))
        5
        """
        return list(
            self.generate_iter(
                prompt_ids,
                length,
                temperature=temperature,
                top_k=top_k,
                top_p=top_p,
                skip_ids=skip_ids,
                stop_id=stop_id,
                rng=rng,
            )
        )
