"""Backpropagation through the whole of a long sequence, in memory for one chunk of it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from rnnfast import _check
from rnnfast.data.batching import WholeRows, rows_of
from rnnfast.engine.locks import turn_of
from rnnfast.kernels.recurrence.sequence import block_steps, time_grid
from rnnfast.layers.footprint import Extent
from rnnfast.layers.window import Part, falling_order
from rnnfast.models.body import Body, StateGradients
from rnnfast.models.model import Model
from rnnfast.models.regressor import SequenceRegressor
from rnnfast.training.chain import Window

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
        arriving = body.backpropagate(dhs, arriving, adds=arriving is not None)
    output.parameter_gradients(adds=model.tied)
    body.set_state(final)
    return output.mean(sums, scored)


# How `ExactBPTT` cuts a sequence into chunks, and the memory the chunks take.


# Chunk lengths to choose from in each octave; each is about 3 % longer than the one before.
_AN_OCTAVE = 25
# Initial states, gradients and generators, in addition to the kept states; in copies of all states.
_COPIES = 6


class Plan(NamedTuple):
    """How a sequence is cut, and the memory that takes.

    Attributes
    ----------
    chunk : int
        The largest number of steps from one kept state to the next.
    chunks : int
        Chunks of the whole sequence.
    memory : int
        The largest number of bytes beyond the input, the parameters and their gradients.
    """

    chunk: int
    chunks: int
    memory: int


class Cut:
    """A batch of sequences, cut between the blocks of its time grid.

    Blocks span more steps after some sequences have ended. A chunk consists of one or more whole blocks.

    Parameters
    ----------
    model : Model
    batch, steps : int
        N and T.
    lengths : array (N,), optional
        Steps of each sequence; T by default.

    Attributes
    ----------
    last : int
        The end of the longest sequence.
    order : array (N,) or None
        The sequences, longest first.
    """

    def __init__(self, model: Model, batch: int, steps: int, lengths: np.ndarray | None) -> None:
        self._model, self._batch = model, batch
        self.last, self.order = (steps if batch else 0), None
        self._grid: np.ndarray | None = None
        self._own = 0  # bytes for computing the time grid
        if lengths is None or not self.last:
            return
        self.last, self.order = int(lengths.max()), falling_order(lengths)
        if int(lengths.min()) < self.last:
            offsets = self._offsets(lengths[self.order[::-1]])
            self._grid = time_grid(offsets, batch)
            self._rows = offsets[self._grid]
            self._own = 3 * offsets.nbytes + 64 * self._grid.size

    def _offsets(self, rising: np.ndarray) -> np.ndarray:
        """The number of rows of all steps before each step, (T + 1,)."""
        offsets = np.zeros(self.last + 1, np.int64)
        ended = np.searchsorted(rising, np.arange(self.last), side="right")
        np.cumsum(np.subtract(self._batch, ended, out=ended), out=offsets[1:])
        return offsets

    def period(self) -> int:
        """Chunk lengths are multiples of this number of steps while no sequence has ended."""
        return self._model.output.period(self._batch)

    def bounds(self, chunk: int) -> np.ndarray:
        """The first step of each chunk of at most `chunk` steps, and the end of the longest sequence."""
        if self._grid is None:
            return np.append(np.arange(0, self.last, chunk), self.last)
        return self._grid[self._places(chunk)]

    def _places(self, chunk: int) -> np.ndarray:
        """The bounds as indices into the time grid."""
        grid, places = self._grid, [0]
        assert grid is not None
        while places[-1] < grid.size - 1:
            first = places[-1]
            reached = int(np.searchsorted(grid, grid[first] + chunk, side="right")) - 1
            places.append(max(first + 1, reached))
        return np.array(places)

    def extents(self, chunk: int) -> tuple[int, list[Extent]]:
        """The number of chunks, and their sizes, the one with the most blocks first."""
        batch, grid_steps = self._batch, block_steps(self._batch)
        if self._grid is None:
            full, rest = max(1, min(chunk, self.last)), self.last % chunk
            sizes = [full, rest] if rest and rest != full else [full]
            found = [Extent(batch, size, size * batch, max(1, -(-size // grid_steps))) for size in sizes]
            return max(1, -(-self.last // chunk)), found
        places = self._places(chunk)
        bounds = self._grid[places]
        steps, rows = int(np.diff(bounds).max()), int(np.diff(self._rows[places]).max())
        blocks = np.unique(np.diff(places))[::-1]
        return bounds.size - 1, [Extent(batch, steps, rows, int(count)) for count in blocks]

    def plan(self, chunk: int) -> tuple[Plan, bool]:
        """The memory for chunks of this length, and whether the activations of each chunk are kept."""
        chunks, extents = self.extents(chunk)
        longest = max(extent.steps for extent in extents)
        if longest > chunk:  # a single block: other chunks may be as long
            return self.plan(longest)
        body, output = self._model.body, self._model.output
        taken = body.footprint(extents)
        kept = (chunks + _COPIES) * body.state_bytes(self._batch)
        used = taken.bytes + output.scratch_bytes(self._batch, longest) + kept
        return Plan(longest, chunks, max(self._own, used)), taken.keeps

    def fitting(self, owner: str, memory: int, what: str) -> Plan:
        """The largest chunk that fits into `memory`. Chunks whose activations are kept come first: these are
        recomputed only once.

        Raises
        ------
        ValueError
            No chunk fits.
        """
        chunks = self._choices()
        whole, _ = self.plan(chunks[-1])
        if whole.memory <= memory:
            return whole
        for wants_kept in (True, False):
            found = self._largest(chunks, memory, wants_kept)
            if found is not None:
                return found
        least = min(self.plan(chunk)[0].memory for chunk in chunks)
        _check.values.memory_enough(owner, memory, least, what)
        return min((self.plan(chunk)[0] for chunk in chunks), key=lambda plan: plan.memory)

    def _choices(self) -> list[int]:
        """Chunk lengths in whole periods, each a little longer than the one before."""
        period = self.period()
        most = -(-max(1, self.last) // period)
        counts = np.geomspace(1, most, 1 + int(_AN_OCTAVE * np.log2(most + 1))).round()
        return (np.unique(counts.astype(int)) * period).tolist()

    def _largest(self, chunks: list[int], memory: int, wants_kept: bool) -> Plan | None:
        """The plan of the largest chunk that fits, by a coarse search and then a fine one."""
        found: Plan | None = None

        def fits(place: int) -> bool:
            nonlocal found
            plan, keeps = self.plan(chunks[place])
            if plan.memory > memory or (wants_kept and not keeps):
                return False
            found = plan
            return True

        above = len(chunks) - 1
        for place in [*range(0, len(chunks), _AN_OCTAVE)][::-1]:
            if fits(place):
                below = place
                break
            above = place
        else:
            return None
        while above - below > 1:
            middle = (above + below) // 2
            below, above = (middle, above) if fits(middle) else (below, middle)
        return found


def parts(cut: Cut, chunk: int, steps: int, lengths: Any, reset: Any, weights: Any = None) -> list[Part]:
    """The chunks of a batch up to the end of its longest sequence; none if no step is read."""
    bounds = cut.bounds(chunk)
    return [
        Part(int(first), int(after), steps, lengths, cut.order, reset, weights)
        for first, after in pairwise(bounds)
        if first < after
    ]
