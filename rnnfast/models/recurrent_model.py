"""What models around recurrent layers share: the layers, their states, and work on parts of a sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from rnnfast import _check
from rnnfast._turns import in_turn
from rnnfast.cells import Cell
from rnnfast.layers.base import Holder, Layer
from rnnfast.layers.carrying import roll_back
from rnnfast.layers.dropout import TimeDropout
from rnnfast.layers.footprint import Extent, Footprint, footprint, make_room
from rnnfast.layers.recurrent import Recurrent
from rnnfast.layers.rows import Sorted, falling_order
from rnnfast.layers.window import Lookup, Place
from rnnfast.models.stored import StoredModel
from rnnfast.state import State, plain

# One entry a layer: the gradients (S, N, H) of its states.
StateGradients = list[np.ndarray]


class Part(NamedTuple):
    """Steps first .. last of a sequence of so many steps, and what options say of the whole sequence."""

    first: int
    last: int
    steps: int
    lengths: np.ndarray | None = None
    order: np.ndarray | None = None
    reset: np.ndarray | None = None

    def options(self) -> dict[str, Any]:
        """The arguments `lengths` and `reset` of the layers for this part."""
        given: dict[str, Any] = {}
        if self.lengths is not None:
            order = falling_order(self.lengths) if self.order is None else self.order
            inside = np.clip(self.lengths - self.first, 0, self.last - self.first)
            given["lengths"] = Sorted(inside, order)
        if self.reset is not None:
            given["reset"] = np.array(self.reset[:, self.first : self.last])
        return given


class RecurrentModel(StoredModel):
    """Base of `RNNLM` and `SequenceRegressor`: recurrent layers above each other, with dropout around them.

    A subclass gives what lies below (`_vectors`) and above (`_output`, `_score`). Training goes through
    parts of a sequence with the methods that begin with `_part`: the state runs on through `_read_through`,
    and gradients come back through `_go_back`, with those of the states that arrive from the part behind.
    """

    _output: Any
    _tied = False
    train_flg: bool

    @property
    def cell(self) -> Cell:
        """The cell of its layers."""
        return self._layers[0].cell

    # What a subclass gives.

    def _vectors(self, xs: np.ndarray) -> np.ndarray:
        """The input (N, T, D) of the lowest layer."""
        raise NotImplementedError

    def _lookup(self, xs: np.ndarray, steps: int) -> Lookup | None:
        """The inputs as rows of a table, if the lowest layer should take them so in a sequence of so many
        steps; None otherwise. It then makes the gradient of the table itself."""
        return None

    def _vectors_backward(self, dxs: np.ndarray, adds: bool) -> None:
        """Fill the gradients below the lowest layer from that of its input, or add to them."""
        raise NotImplementedError

    def _part_inputs(self, xs: Any, part: Part) -> np.ndarray:
        """The inputs of a part, checked."""
        raise NotImplementedError

    def _part_targets(self, ts: Any, part: Part) -> Any:
        """The targets of a part, checked."""
        raise NotImplementedError

    def _scored(self, ts: Any, parts: Sequence[Part]) -> int:
        """How many targets the mean loss is taken over."""
        raise NotImplementedError

    def _score(self, hs: np.ndarray, ts: Any, part: Part, sums: np.ndarray, scored: int, adds: bool) -> bool:
        """Add a part's losses to `sums` (N,), and make the output layer's gradients, or add to them; whether
        it has made any."""
        raise NotImplementedError

    def _mean(self, sums: np.ndarray, scored: int) -> float:
        """The mean loss from the sums (N,) of the rows."""
        raise NotImplementedError

    def _period(self, batch: int) -> int:
        """Steps of which the blocks of every sum over time are parts."""
        raise NotImplementedError

    def _output_bytes(self, batch: int, steps: int) -> int:
        """Bytes that the data of a part and the output layer take."""
        raise NotImplementedError

    # What both share.

    def _stand_on(
        self, layers: list[Any], dropout: float, rng: np.random.Generator, below: Sequence[Layer]
    ) -> None:
        """Keep the recurrent layers, with dropout before each and behind the last if there is any."""
        self._layers: list[Recurrent] = layers
        self._below = list(below)
        places = len(layers) + 1 if dropout else 0
        self._dropouts = [TimeDropout(dropout, rng=rng) for _ in range(places)]
        self._sizes = [layers[0].input_size, *(layer.hidden_size for layer in layers)]

    def _read_through(
        self, xs: np.ndarray, *, drop: bool, keep: bool = True, part: Part | None = None
    ) -> np.ndarray:
        """Hidden vectors (N, T, H); carries the state on, and ends what `forward` left for `backward`.

        Without `keep`, the layers keep no gates for `_go_back`, which then makes them again.
        """
        self._hs = None
        for dropout in self._dropouts:
            dropout.train_flg = drop
            dropout.place = None if part is None else Place(part.first, part.steps)
        options: dict[str, Any] = {"keep": keep}
        if part is not None:
            options |= {**part.options(), "place": Place(part.first, part.steps)}
        batch, steps = xs.shape[:2]
        lookup = self._lookup(xs, steps if part is None else part.steps)
        hs = self._vectors(xs) if lookup is None else xs
        for index, layer in enumerate(self._layers):
            hs = self._dropped(index, hs)
            layer.train_flg = drop
            out = self._buffer(f"hs{index}", batch, steps, layer.hidden_size)
            hs = layer.read(lookup if index == 0 and lookup is not None else hs, out, **options)
        return self._dropped(len(self._layers), hs)

    def _dropped(self, place: int, hs: np.ndarray) -> np.ndarray:
        """Dropout in place: no layer needs its output again."""
        if not self._dropouts:
            return hs
        dropout = self._dropouts[place]
        own = place > 0 or bool(self._below)  # the input of a model belongs to the caller
        return dropout.forward(hs, out=hs if dropout.train_flg and own else None)

    def _go_back(
        self, dhs: np.ndarray, arriving: StateGradients | None = None, *, adds: bool = False
    ) -> StateGradients:
        """Fill the gradients of what was read last, or add to them; those of its initial states.

        `arriving` are the gradients of the final states, zero by default.
        """
        batch, steps, _ = dhs.shape
        for index in reversed(range(len(self._layers))):
            layer = self._layers[index]
            dhs = self._undropped(index + 1, dhs)
            looked_up = layer.reads_words
            out = None if looked_up else self._buffer(f"dxs{index}", batch, steps, layer.input_size)
            dhs = layer.go_back(dhs, None if arriving is None else arriving[index], out, adds=adds)
        if not looked_up:
            self._vectors_backward(self._undropped(0, dhs), adds)
        return [np.copy(layer.state_gradients) for layer in self._layers]

    def _undropped(self, place: int, dhs: np.ndarray) -> np.ndarray:
        if not self._dropouts:
            return dhs
        dropout = self._dropouts[place]
        return dropout.backward(dhs, out=dhs if dropout.train_flg else None)

    def _buffer(self, name: str, batch: int, steps: int, width: int) -> np.ndarray:
        return self._workspace.take(name, (batch, steps, width), self._layers[0].dtype)

    # Parts.

    def _holders(self) -> list[Holder]:
        return [self, *self._below, *self._layers, *self._dropouts]

    def part_tape(self) -> list[dict[str, Any]]:
        """What `_go_back` needs of the last `_read_through`, for `wind_part`."""
        return [holder.tape() for holder in self._holders()]

    def wind_part(self, tape: list[dict[str, Any]] | None) -> None:
        """Put a tape of `part_tape` back; None for a blank one."""
        holders = self._holders()
        for holder, kept in zip(holders, [None] * len(holders) if tape is None else tape, strict=True):
            holder.wind(kept)

    def _parts_footprint(self, extents: Sequence[Extent]) -> Footprint:
        """What forward and backward over parts of these sizes take at most, the one with the most blocks
        first; and whether every layer keeps the gates of each part."""
        batch, steps = extents[0].batch, max(extent.steps for extent in extents)
        words, itemsize = self._words(batch, steps), self._layers[0].dtype.itemsize
        own = [footprint(layer, extents, 0 if i else words) for i, layer in enumerate(self._layers)]
        # The inputs of the part before are let go when those of the next are there.
        inputs = 0 if self._below else (4 if self._dropouts else 2) * self._sizes[0]
        vectors = sum(width for _, width in self._widths()) + inputs
        places = 5 * 8 * steps  # on the way to the offsets of rows
        taken = batch * steps * vectors * itemsize + places + self._output_bytes(batch, steps)
        return Footprint(sum(one.bytes for one in own) + taken, all(one.keeps for one in own))

    def _make_room(self, extents: Sequence[Extent]) -> None:
        """Take all arrays at their largest: one that grows on the way may be held by a thread for a while."""
        batch, steps = extents[0].batch, max(extent.steps for extent in extents)
        self._hs = None
        for index, layer in enumerate(self._layers):
            layer.forget_window()
            make_room(layer, extents, 0 if index else self._words(batch, steps))
        for name, width in self._widths():
            self._buffer(name, batch, steps, width)
        self._output._make_room(batch, steps)

    def _widths(self) -> list[tuple[str, int]]:
        """The model's buffers and the last axis of each."""
        below = [("embedded", self._sizes[0])] if self._below else []
        outputs = [(f"hs{i}", width) for i, width in enumerate(self._sizes[1:])]
        gradients = [(f"dxs{i}", width) for i, width in enumerate(self._sizes[:-1])]
        return [*below, *outputs, *gradients, ("dhs", self._sizes[-1])]

    def _words(self, batch: int, steps: int) -> int:
        """Rows of the table in which the lowest layer may look up the inputs of a part; 0 for none."""
        return 0

    def _state_bytes(self, batch: int) -> int:
        """Bytes of one copy of all states, with Python's objects for it."""
        arrays = [(layer.hidden_size, layer.dtype) for layer in self._layers for _ in layer.cell.states]
        return sum(batch * width * dtype.itemsize + 256 for width, dtype in arrays) + 512

    # What is carried from call to call.

    def _hand_state(self, other: Any) -> None:
        for own, layer in zip(self._layers, other._layers, strict=True):
            layer.go_on_from(own)

    def _state_now(self) -> Any:
        return [(layer, layer.carried) for layer in self._layers]

    def _roll_back(self, state: Any) -> None:
        roll_back(state)

    @property
    def rng_state(self) -> tuple[tuple[int, int], ...]:
        """The seed and the number of what was drawn of each place with dropout, and of each layer whose cell has
        random arguments; may be set, to draw on from there."""
        return tuple(place.rng_state for place in self._drawing())

    @rng_state.setter
    def rng_state(self, state: Sequence[tuple[int, int]]) -> None:
        owner = self._owner("rng_state")
        places = self._drawing()
        given = _check.entries(owner, "rng_state", state, len(places), "one a dropout or layer that draws")
        checked = [_check.sizes(owner, ("seed", "counter"), pair) for pair in given]
        for place, (seed, counter) in zip(places, checked, strict=True):
            place.rng_state = seed, counter

    def _drawing(self) -> list[Any]:
        """What draws random numbers."""
        return [*self._dropouts, *(layer for layer in self._layers if layer.cell.random)]

    def _owner(self, method: str) -> str:
        return f"{type(self).__name__}.{method}"

    @in_turn
    def get_state(self) -> tuple[tuple[np.ndarray, ...] | None, ...]:
        """A copy of each layer's state, arrays `(N, H)`, or None where it is fresh."""
        return tuple(layer.get_state() for layer in self._layers)

    @in_turn
    def set_state(self, state: tuple[tuple[np.ndarray, ...] | None, ...] | State | None) -> None:
        """Go back to a state of `get_state`, or to a `State`; None is the fresh state.

        Raises
        ------
        TypeError, ValueError
            It is no such state: another number of layers or arrays, another shape or dtype. The model's state
            is then as before.
        """
        self._claim("set_state")
        state = plain(state)
        if state is None:
            self.reset_state()
            return
        checked, before = self._checked_state(state), self._state_now()
        try:
            for layer, arrays in zip(self._layers, checked, strict=True):
                layer.set_state(*((None,) if arrays is None else arrays))
        except BaseException:
            self._roll_back(before)
            raise

    def _checked_state(self, state: Any) -> list[tuple[np.ndarray, ...] | None]:
        owner = self._owner("set_state")
        shape: tuple[Any, ...] = ("N", self._sizes[-1])
        checked: list[tuple[np.ndarray, ...] | None] = []
        for i, kept in enumerate(_check.entries(owner, "state", state, len(self._layers), "one a layer")):
            if kept is None:
                checked.append(None)
                continue
            layer = self._layers[i]
            arrays = _check.entries(owner, f"state[{i}]", kept, len(layer.cell.states), ", ".join(layer.cell.states))
            for j, array in enumerate(arrays):
                why = "as many rows in every layer"
                shape = _check.floats(owner, f"state[{i}][{j}]", array, shape, layer.dtype, why).shape
            checked.append(arrays)
        return checked

    def _carried_rows(self) -> int | None:
        return next((rows for layer in self._layers if (rows := layer.carried_rows) is not None), None)

    @in_turn
    def reset_state(self) -> None:
        """Forget what was read so far: the next call starts from a zero state."""
        self._claim("reset_state")
        before = self._state_now()
        try:
            for layer in self._layers:
                layer.reset_state()
        except BaseException:
            self._roll_back(before)
            raise
