"""The layers below a model's output: an optional embedding, recurrent layers, and dropout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.cells import Cell
from rnnfast.layers.base import Holder
from rnnfast.layers.carrying import Constants
from rnnfast.layers.composed import Drawing
from rnnfast.layers.dropout import TimeDropout
from rnnfast.layers.embedding import TimeEmbedding
from rnnfast.layers.footprint import Extent, Footprint, footprint, make_room
from rnnfast.layers.recurrent import Recurrent
from rnnfast.layers.window import Blocks, Lookup, Part, Reduction

# One entry per layer: the gradients (S, N, H) of its states.
StateGradients = list[np.ndarray]


class Body(Drawing):
    """Stacked recurrent layers on words or vectors, with dropout before each and after the last.

    It reads a sequence at once or part by part. `read` carries the state from part to part; `backpropagate`
    takes the gradients of the states from the part after.

    Parameters
    ----------
    owner : str
        The model's name, for errors.
    embedding : TimeEmbedding or None
        Without an embedding, inputs are vectors.
    layers : list of Recurrent
        The layers from bottom to top.
    dropout : float
    rng : numpy.random.Generator
        Draws the dropped units.
    """

    def __init__(
        self,
        owner: str,
        embedding: TimeEmbedding | None,
        layers: list[Recurrent],
        dropout: float,
        rng: np.random.Generator,
    ) -> None:
        self.owner, self.embedding, self.layers = owner, embedding, layers
        places = [*layers, None] if dropout else []
        self.dropouts = [TimeDropout(dropout, rng=rng) for _ in places]
        self.dtype = layers[0].dtype
        self._sizes = [layers[0].input_size, *(layer.hidden_size for layer in layers)]
        below = [] if embedding is None else [embedding]
        self._parts: list[Holder] = [*below, *layers, *self.dropouts]
        self._hold(
            [param for part in self._parts for param in part.params],
            [grad for part in self._parts for grad in part.grads],
        )

    @property
    def cell(self) -> Cell:
        """The cell of the layers."""
        return self.layers[0].cell

    # Forwards.

    def read(self, xs: np.ndarray, *, drop: bool, keep: bool = True, part: Part | None = None) -> np.ndarray:
        """Hidden vectors (N, T, H) of checked ids (N, T) or vectors (N, T, D); advances the carried state.

        Without `keep`, the layers cache no activations, and `backpropagate` recomputes them. `part` is the
        part of the sequence that `xs` holds; by default, all of it. An empty window leaves the state
        unchanged.
        """
        if xs.size:
            return self._read(xs, drop, keep, part)
        # The layers reject a number of rows other than the state's even if there are no steps.
        state = self.carried
        self.reset_state()
        try:
            return self._read(xs, drop, keep, part)
        finally:
            self.roll_back(state)

    def _read(self, xs: np.ndarray, drop: bool, keep: bool, part: Part | None) -> np.ndarray:
        batch, steps = xs.shape[:2]
        part = Part(0, steps, steps) if part is None else part
        options = {"keep": keep, "place": part.place, **part.options()}
        inputs = self._inputs(xs, part)
        for index, layer in enumerate(self.layers):
            inputs = self._dropped(index, inputs, drop, part)
            layer.train_flg = drop
            inputs = layer.read(
                inputs, self._buffer(f"hs{index}", batch, steps, layer.hidden_size), **options
            )
        return self._dropped(len(self.layers), inputs, drop, part)

    def _inputs(self, xs: np.ndarray, part: Part) -> Any:
        """The input of the lowest layer: vectors, or a `Lookup` of words in the embedding."""
        if self.embedding is None:
            return xs
        lookup = self._lookup(xs, part)
        if lookup is not None:
            return lookup
        batch, steps = xs.shape
        return self.embedding.forward(xs, out=self._buffer("embedded", batch, steps, self._sizes[0]))

    def _lookup(self, ids: np.ndarray, part: Part) -> Lookup | None:
        """The ids of a part, if the lowest layer should look them up in its sequence; one answer for all
        blocks of a batch."""
        rows = ids.shape[0] if part.blocks is None else part.blocks.least
        worth = bool(ids.size) and self._words(rows, part.steps) > 0
        return self.embedding.lookup(ids) if worth and self.embedding is not None else None

    def _words(self, batch: int, steps: int) -> int:
        """The number of rows of the table for lookups in the lowest layer; 0 if it looks up nothing."""
        if self.embedding is None or self.dropouts:
            return 0
        words = self.embedding.vocab_size
        return words if self.layers[0].looks_up(words, batch, steps) else 0

    def _dropped(self, place: int, hs: Any, drop: bool, part: Part) -> Any:
        """Apply dropout in place: no layer needs its output again."""
        if not self.dropouts:
            return hs
        own = place > 0 or self.embedding is not None  # the input of a model belongs to the caller
        return self.dropouts[place].read(hs, hs if drop and own else None, drop=drop, place=part.place)

    def step(self, x: np.ndarray) -> np.ndarray:
        """Advance by one word (N,) or vector (N, D) per row, without dropout; the hidden vectors (N, H)."""
        if self.embedding is not None:
            x = self.embedding.rows(x)
        for layer in self.layers:
            layer.train_flg = False
            x = layer.step(x)
        return x

    @property
    def time_blocks(self) -> np.ndarray:
        """The first step of each block of the time grid of the last window, and T."""
        return self.layers[-1].time_blocks

    # Backwards.

    def parts(self) -> list[Holder]:
        """The embedding, each layer and each dropout."""
        return self._parts

    def gradients_of_outputs(self, batch: int, steps: int) -> np.ndarray:
        """Memory for the gradients (N, T, H) that `backpropagate` takes."""
        return self._buffer("dhs", batch, steps, self._sizes[-1])

    def backpropagate(
        self,
        dhs: np.ndarray,
        arriving: StateGradients | None = None,
        *,
        adds: bool = False,
        blocks: Blocks | None = None,
        reduction: Reduction | None = None,
    ) -> StateGradients:
        """Fill the gradients of the last `read`, or add to them; returns the gradients of its initial states.

        `dhs` (N, T, H) are the gradients of the outputs, `arriving` the gradients of the final states, zero
        by default. With the `blocks` of `read`, gradients are added by blocks, and complete when the
        reduction is finished.
        """
        batch, steps, _ = dhs.shape
        for index in reversed(range(len(self.layers))):
            layer = self.layers[index]
            dhs = self._undropped(index + 1, dhs)
            looked_up = layer.reads_words
            out = None if looked_up else self._buffer(f"dxs{index}", batch, steps, layer.input_size)
            later = None if arriving is None else list(arriving[index])
            dhs = layer.backpropagate(dhs, later, out, adds=adds, room=self._workspace)
            if reduction is not None:
                layer.reduce(reduction)
        if self.embedding is not None and not looked_up:
            dhs = self._undropped(0, dhs)
            if blocks is not None and reduction is not None:
                self.embedding.backward_by_blocks(dhs, blocks, reduction)
            else:
                self.embedding.backward(dhs, add_to=self.embedding.grads[0] if adds else None)
        return [np.array(layer.state_gradients) for layer in self.layers]

    def _undropped(self, place: int, dhs: np.ndarray) -> np.ndarray:
        return self.dropouts[place].backward(dhs, out=dhs) if self.dropouts else dhs

    def _buffer(self, name: str, batch: int, steps: int, width: int) -> np.ndarray:
        return self._workspace.take(name, (batch, steps, width), self.dtype)

    def tape(self) -> Any:
        """Everything `backpropagate` needs from the last `read`, for `restore_tape`."""
        return [super().tape(), *(part.tape() for part in self._parts)]

    def restore_tape(self, tape: Any) -> None:
        """Put a tape back; None for a blank one."""
        own, *others = [None] * (len(self._parts) + 1) if tape is None else tape
        super().restore_tape(own)
        for part, kept in zip(self._parts, others, strict=True):
            part.restore_tape(kept)

    # Memory.

    def footprint(self, extents: Sequence[Extent]) -> Footprint:
        """Peak memory of `read` and `backpropagate` over parts of these sizes, the part with the most blocks
        first; and whether every layer keeps the activations of each part."""
        batch, steps = extents[0].batch, max(extent.steps for extent in extents)
        words = self._words(batch, steps)
        own = [footprint(layer, extents, 0 if i else words) for i, layer in enumerate(self.layers)]
        vectors = sum(width for _, width in self._widths())
        if self.embedding is not None:
            given = 3 * 8  # ids as given, in int64, and sorted
        else:
            # The inputs of a part are freed only after those of the next exist.
            vectors += (4 if self.dropouts else 2) * self._sizes[0]
            given = 3 * len(self.layers) + 2  # resets of each layer, also of cached plans
        places = 5 * 8 * steps  # for computing the offsets of rows
        taken = batch * steps * (vectors * self.dtype.itemsize + given) + places
        return Footprint(sum(one.bytes for one in own) + taken, all(one.keeps for one in own))

    def make_room(self, extents: Sequence[Extent]) -> None:
        """Allocate all arrays at full size: a thread may briefly hold an old array that has been outgrown."""
        batch, steps = extents[0].batch, max(extent.steps for extent in extents)
        for index, layer in enumerate(self.layers):
            layer.forget_window()
            make_room(layer, extents, 0 if index else self._words(batch, steps))
        for name, width in self._widths():
            self._buffer(name, batch, steps, width)

    def _widths(self) -> list[tuple[str, int]]:
        """The names of the buffers, and the size of the last axis of each."""
        below = [] if self.embedding is None else [("embedded", self._sizes[0])]
        outputs = [(f"hs{i}", width) for i, width in enumerate(self._sizes[1:])]
        gradients = [(f"dxs{i}", width) for i, width in enumerate(self._sizes[:-1])]
        return [*below, *outputs, *gradients, ("dhs", self._sizes[-1])]

    def state_bytes(self, batch: int) -> int:
        """Bytes of one copy of all states, including its Python objects."""
        arrays = [(layer.hidden_size, layer.dtype) for layer in self.layers for _ in layer.cell.states]
        return sum(batch * width * dtype.itemsize + 256 for width, dtype in arrays) + 512

    # The state carried from call to call.

    def get_state(self) -> tuple[tuple[np.ndarray, ...] | None, ...]:
        """A copy of each layer's state, arrays (N, H), or None if it is fresh."""
        return tuple(layer.get_state() for layer in self.layers)

    def set_state(self, state: tuple[tuple[np.ndarray, ...] | None, ...] | None) -> None:
        """Set a state of `get_state`, arrays (N, H); None is the fresh state. Errors leave the state
        unchanged."""
        if state is None:
            self.reset_state()
            return
        checked, before = self._checked_state(state), self.carried
        try:
            for layer, arrays in zip(self.layers, checked, strict=True):
                layer.set_state(*((None,) if arrays is None else arrays))
        except BaseException:
            self.roll_back(before)
            raise

    def _checked_state(self, state: Any) -> list[tuple[np.ndarray, ...] | None]:
        owner = f"{self.owner}.set_state"
        shape: tuple[Any, ...] = ("N", self._sizes[-1])
        checked: list[tuple[np.ndarray, ...] | None] = []
        for i, kept in enumerate(
            _check.objects.entries(owner, "state", state, len(self.layers), "one per layer")
        ):
            if kept is None:
                checked.append(None)
                continue
            layer = self.layers[i]
            arrays = _check.objects.entries(
                owner, f"state[{i}]", kept, len(layer.cell.states), ", ".join(layer.cell.states)
            )
            for j, array in enumerate(arrays):
                why = "the same number of rows in every layer"
                shape = _check.arrays.floats(owner, f"state[{i}][{j}]", array, shape, layer.dtype, why).shape
            checked.append(arrays)
        return checked

    def reset_state(self) -> None:
        """Forget the past: the next call starts from a zero state."""
        before = self.carried
        try:
            for layer in self.layers:
                layer.reset_state()
        except BaseException:
            self.roll_back(before)
            raise

    @property
    def carried_rows(self) -> int | None:
        """Sequences N of the carried state; None when it is fresh."""
        return next((rows for layer in self.layers if (rows := layer.carried_rows) is not None), None)

    @property
    def carried(self) -> list[np.ndarray | None]:
        """The states (S, N, H) of each layer, not copies; for `roll_back` and `carry`."""
        return [layer.carried for layer in self.layers]

    def roll_back(self, state: list[np.ndarray | None]) -> None:
        """Restore earlier states, as if nothing had been read since."""
        for layer, kept in zip(self.layers, state, strict=True):
            layer.roll_back(kept)

    def carry(self, state: list[np.ndarray | None] | None) -> None:
        """Carry these states without a copy, as in `carried`; None is the fresh state."""
        for layer, kept in zip(self.layers, state or [None] * len(self.layers), strict=True):
            layer.carry(kept)

    def share_constants(self, other: Body) -> None:
        """Use the constants of another body's layers, including values set later."""
        for layer, own in zip(self.layers, other.layers, strict=True):
            layer.share_constants(own)

    @property
    def constants(self) -> list[Constants]:
        """The constants of each layer's cell, from bottom to top; may be set."""
        return [layer.constants for layer in self.layers]

    @constants.setter
    def constants(self, values: Sequence[Mapping[str, float]]) -> None:
        for layer, own in zip(self.layers, values, strict=True):
            layer.constants = own

    def copy_state(self, other: Body) -> None:
        """Take over the state of another body on the same parameters; an interrupt leaves the old state."""
        before = self.carried
        try:
            for layer, own in zip(self.layers, other.layers, strict=True):
                layer.copy_state(own)
        except BaseException:
            self.roll_back(before)
            raise
