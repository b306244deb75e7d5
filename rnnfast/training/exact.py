"""Backpropagation through the whole of a long sequence, in memory for one chunk of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.data.rows import WholeRows, rows_of
from rnnfast.engine.locks import turn_of
from rnnfast.layers.window import Part
from rnnfast.models.body import Body, StateGradients
from rnnfast.models.model import Model
from rnnfast.models.regressor import SequenceRegressor
from rnnfast.training.chunks import Cut, Plan, parts
from rnnfast.training.window import Window

__all__ = ["ExactBPTT", "Plan"]

# Default steps times rows of a chunk: calls then cost less than one per cent.
_CHUNK_ROWS = 4096


class ExactBPTT:
    """Full backpropagation through time: no gradient is cut, however long the sequence is.

    The sequence is read once, and the states at chunk boundaries are kept. Then, from the last chunk to the
    first, each chunk is read again from its state, and gradients flow back through it into the chunk before.
    For any chunk length, loss and gradients have the bits of `forward` and `backward` over the whole sequence
    at once: the sums run over blocks of one time grid, and chunks are whole blocks. This takes up to 4/3 of
    the time, and memory for one chunk.

    Parameters
    ----------
    chunk : int, optional
        Steps from one kept state to the next, rounded up to whole blocks.
    memory : int or str, optional
        Instead of `chunk`: a limit in bytes, or a text such as "256MB", on memory beyond the input, the
        parameters and their gradients. The largest chunk that fits is used; if none fits, the error names
        the memory of the smallest. Without both, a chunk has about 4,096 steps times sequences.

    Raises
    ------
    ValueError, TypeError
        `chunk` is below 1, `memory` cannot be read, or both are given.

    Notes
    -----
    Source: Chen et al., *Training deep nets with sublinear memory cost*, 2016; Gruslys et al.,
    *Memory-efficient backpropagation through time*, 2016.

    Examples
    --------
    >>> import rnnfast
    >>> model = rnnfast.SequenceRegressor(3, 8, 1, rng=np.random.default_rng(0))
    >>> xs, ts = np.ones((1, 3000, 3), np.float32), np.ones((1, 3000, 1), np.float32)
    >>> exact = rnnfast.ExactBPTT(chunk=1000)
    >>> exact.plan(model, 1, 3000).chunk
    1024
    >>> loss = exact.gradients(model, xs, ts)
    >>> bool(np.isfinite(model.grads[0]).all())
    True
    """

    def __init__(self, chunk: int | None = None, memory: int | str | None = None) -> None:
        owner = type(self).__name__
        self.chunk = None if chunk is None else _check.values.size(owner, "chunk", chunk)
        self.memory = None if memory is None else _check.values.memory(owner, "memory", memory)
        if memory is not None:
            _check.values.absent(owner, "chunk", chunk, "a run without memory=")

    def __repr__(self) -> str:
        given = {"chunk": self.chunk, "memory": self.memory}
        return f"ExactBPTT({', '.join(f'{k}={v}' for k, v in given.items() if v is not None)})"

    def plan(self, model: Model, batch_size: int, steps: int, *, lengths: Any = None) -> Plan:
        """The chunk for N sequences of T steps, and an upper bound on its memory.

        Parameters
        ----------
        model : RNNLM or SequenceRegressor
        batch_size, steps : int
            N and T.
        lengths : sequence of N ints, optional
            Steps of each sequence; T by default. Chunks span more steps after some sequences have ended.

        Raises
        ------
        ValueError
            `memory` is too little for the smallest chunk.
        TypeError
            The model does not work in chunks.
        """
        owner = type(self).__name__
        _check.objects.works_in_parts(owner, model, Body)
        if lengths is not None:
            lengths = _check.arrays.lengths(owner, lengths, batch_size, steps)
        return self._plan(Cut(model, batch_size, steps, lengths), batch_size, steps)

    def _plan(self, cut: Cut, batch: int, steps: int) -> Plan:
        if self.memory is not None:
            what = f"{batch} x {steps} steps of this model"
            return cut.fitting(type(self).__name__, self.memory, what)
        wanted, period = self.chunk or max(1, _CHUNK_ROWS // max(1, batch)), cut.period()
        return cut.plan(-(-wanted // period) * period)[0]

    def gradients(
        self,
        model: Model,
        xs: Any,
        ts: Any,
        *,
        lengths: Any = None,
        reset: Any = None,
        weights: Any = None,
        carry: bool = False,
    ) -> float:
        """The mean loss over a whole sequence, with its gradients in `model.grads`.

        Equals ``model.forward(xs, ts, ...)`` and ``model.backward()`` bit for bit, including the state that
        is carried. Inputs and targets are read chunk by chunk, so they may be memory maps.

        Parameters
        ----------
        model : RNNLM or SequenceRegressor
        xs, ts : array (N, T, ...)
            The arguments of the model's `forward`.
        lengths, reset, weights : arrays, optional
            As in `SequenceRegressor.forward`; not for language models.
        carry : bool
            As in `SequenceRegressor.forward`; language models always start from the carried state.

        Returns
        -------
        float
            The mean loss.
        """
        owner = type(self).__name__
        _check.objects.works_in_parts(owner, model, Body)
        batch, steps = np.shape(xs)[:2]
        given = [option for option in (lengths, reset, weights) if option is not None]
        has_options = bool(given) or _check.values.boolean(owner, "carry", carry)
        if has_options and (not hasattr(model, "predict") or hasattr(model, "vocab_size")):
            raise TypeError(
                f"{owner}: lengths, reset and carry are for a SequenceRegressor; a language "
                "model ignores labels of -1."
            )
        if lengths is not None:
            lengths = _check.arrays.lengths(owner, lengths, batch, steps)
        if reset is not None:
            _check.arrays.shape(owner, "reset", reset, (batch, steps))
        if weights is not None:
            weights = _check.arrays.weights(owner, weights, (batch, steps), model.dtype)
        cut = Cut(model, batch, steps, lengths)
        chunk = self._plan(cut, batch, steps).chunk
        chunks = parts(cut, chunk, steps, lengths, reset, weights)
        if not chunks:
            return _nothing(model, xs, ts, lengths, reset)
        with turn_of(model):
            model.check_trainable()
            before, masks = model.get_state(), model.rng_state
            try:
                if isinstance(model, SequenceRegressor) and not carry:
                    model.reset_state()
                model.forget_window()
                extents = cut.extents(chunk)[1]
                model.body.make_room(extents)
                model.output.make_room(batch, max(extent.steps for extent in extents))
                return _backpropagate(model, xs, ts, chunks)
            except BaseException:
                model.set_state(before)
                model.rng_state = masks
                raise

    def batches(self, data: Any, batch_size: int) -> WholeRows:
        """One pass over the data, for `Trainer`: each batch is one window."""
        return WholeRows(rows_of(data, batch_size))

    def windows(
        self,
        model: Any,
        data: Any,
        batch_size: int,
        passed: int = 0,
        order: np.ndarray | None = None,
    ) -> Iterator[Window]:
        """Go once over the data; after each batch the model holds its gradients.

        Parameters
        ----------
        model : RNNLM or SequenceRegressor
        data : ndarray of int (tokens,), a pair of arrays (S, T, D) and (S, T, O) or (S, O), or Sequences
            A text, or sequences and their targets.
        batch_size : int
            A text is cut into this number of rows, which form one batch; sequences are read in batches of
            this size.
        passed : int
            Batches to skip.
        order : ndarray of int (S,), optional
            The order in which sequences are read, as indices; 0 to S - 1 by default.

        Yields
        ------
        Window
            The caller updates the parameters before it asks for the next one.
        """
        rows = rows_of(data, batch_size, order)
        for number, batch in enumerate(rows, start=1):
            if number <= passed:
                continue
            model.reset_state()
            loss = self.gradients(model, batch.xs, batch.ts, **batch.options())
            yield Window(number, len(rows), batch.tokens, loss)


def _nothing(model: Any, xs: Any, ts: Any, lengths: Any, reset: Any) -> float:
    """The pass over sequences of length zero; one step of padding is enough."""
    options = {} if lengths is None else {"lengths": lengths}
    if reset is not None:
        options["reset"] = reset[:, :1]
    loss = model.forward(xs[:, :1], ts[:, :1] if np.ndim(ts) == np.ndim(xs) else ts, **options)
    model.backward()
    return loss


def _backpropagate(model: Model, xs: Any, ts: Any, parts: list[Part]) -> float:
    """Read forward once for the states, then go back chunk by chunk."""
    body, output, drop, masks = model.body, model.output, model.train_flg, model.body.rng_state
    states = [body.get_state()]
    for part in parts[:-1]:
        _check.arrays.whole_file("ExactBPTT", xs)
        body.rng_state = masks
        model.read_part(xs, part, drop=drop, keep=False)
        states.append(body.get_state())
    scored = output.scored(ts, parts)
    sums, made, final = np.zeros(len(xs)), False, None
    arriving: StateGradients | None = None
    for part, state in zip(reversed(parts), reversed(states), strict=True):
        _check.arrays.whole_file("ExactBPTT", xs, ts)
        body.rng_state = masks
        body.set_state(state)
        hs = model.read_part(xs, part, drop=drop)
        final = body.get_state() if final is None else final
        made = model.score_part(hs, ts, part, sums, scored, made) or made
        dhs = output.input_gradient(out=body.gradients_of_outputs(*hs.shape[:2]))
        arriving = body.go_back(dhs, arriving, adds=arriving is not None)
    output.parameter_gradients(adds=model.tied)
    body.set_state(final)
    return output.mean(sums, scored)
