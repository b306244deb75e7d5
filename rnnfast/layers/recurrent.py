"""What every recurrent layer over a sequence does, whatever its cell: check, allocate, carry the state."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rnnfast import _check, _threads
from rnnfast.kernels.sequence import block_steps, padded_row
from rnnfast.layers.base import Workspace
from rnnfast.layers.rows import Rows, packed_rows
from rnnfast.layers.streaming import Streaming
from rnnfast.layers.window import Inputs, Lookup, Run, Team
from rnnfast.state import State

# Memory that a layer may take to keep the gates of all steps for `backward`. A longer sequence keeps one
# block of them, and `backward` makes the others again from the states, which takes up to 4/3 of the time.
KEPT_BYTES = 128 * 2**20

# Fewer sequences than this are not shared out among threads: their units are, if a step is worth a meeting.
LEAST_SEQUENCES = 8
LEAST_STEP_OPERATIONS = 1e5


class Recurrent(Streaming):
    """Base of `TimeRNN`, `TimeLSTM` and `TimeGRU`.

    A subclass names its states and gates, and calls its kernels in `_forward`, `_backward` and `_step`.
    """

    STATES: tuple[str, ...] = ("h",)
    TAPE = ("_run", "_workspace", "_intact")
    _intact = 0  # the first block of the time grid whose gates were kept
    _keeps = True  # whether the last `forward` was to keep what fits of the gates
    _adds = False  # whether `backward` adds to `grads`

    def _set_up(self, params: list[np.ndarray], stateful: bool) -> None:
        self.params = params
        self.grads = [np.zeros(p.shape, p.dtype) for p in params]
        self.stateful = bool(stateful)
        self.dtype = params[0].dtype
        self.input_size, self.hidden_size = params[0].shape[0], params[1].shape[0]
        self._workspace = Workspace()
        self._state: list[np.ndarray] | None = None
        self._dstate: list[np.ndarray] | None = None
        self._run: Run | None = None
        self._full_rows: Rows | None = None

    def _shown(self) -> dict[str, Any]:
        return {
            "input_size": self.input_size,
            "hidden_size": self.hidden_size,
            "stateful": self.stateful,
        }

    @classmethod
    def _check_params(cls, Wx: np.ndarray, Wh: np.ndarray, b: np.ndarray) -> list[np.ndarray]:
        """The parameters, checked against each other: Wx decides D, Wh decides H."""
        owner, gates = cls.__name__, cls.GATES
        columns = "H" if gates == 1 else f"{gates}*H"
        Wh = _check.parameter(owner, "Wh", Wh, ("H", columns))
        hidden = Wh.shape[0]
        why = f"{gates} gates of H columns each" if gates > 1 else ""
        Wh = _check.shape(owner, "Wh", Wh, (hidden, gates * hidden), why)
        Wx = _check.parameter(owner, "Wx", Wx, ("D", gates * hidden), Wh.dtype)
        return [Wx, Wh, _check.parameter(owner, "b", b, (gates * hidden,), Wh.dtype)]

    @classmethod
    def _draw(
        cls, input_size: Any, hidden_size: Any, rng: Any, dtype: Any
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Weights drawn as in the book: normal, divided by the square root of the fan-in; zero bias."""
        owner = f"{cls.__name__}.from_sizes"
        depth = _check.size(owner, "input_size", input_size)
        width = _check.size(owner, "hidden_size", hidden_size)
        kind = _check.float_dtype(owner, dtype)
        rng = _check.generator(owner, rng)
        cols = cls.GATES * width
        Wx = (rng.standard_normal((depth, cols)) / np.sqrt(depth)).astype(kind)
        Wh = (rng.standard_normal((width, cols)) / np.sqrt(width)).astype(kind)
        return Wx, Wh, np.zeros(cols, kind)

    @property
    def h(self) -> np.ndarray | None:
        """A copy of the state (N, H) after the last step; None before the first and after `reset_state`."""
        return None if self._state is None else self._state[0].copy()

    @property
    def dh(self) -> np.ndarray | None:
        """A copy of the gradient (N, H) of the initial state of the last window; None before `backward`."""
        return None if self._dstate is None else self._dstate[0].copy()

    def get_state(self) -> tuple[np.ndarray, ...] | None:
        """A copy of the state, one array (N, H) each, for `set_state(*state)`; None when it is fresh."""
        return None if self._state is None else tuple(array.copy() for array in self._state)

    def _set_state(self, *state: Any) -> None:
        owner = f"{type(self).__name__}.set_state"
        if isinstance(state[0], State):
            count, value = len(self.STATES), state[0].value
            given = (None,) * count if value is None else value
            state = _check.entries(owner, "h", given, count, ", ".join(self.STATES))
        if state[0] is None:
            _check.absent(
                owner, ", ".join(self.STATES[1:]), next((s for s in state[1:] if s is not None), None), "h"
            )
            self._state = None
            return
        if not self.stateful:
            warnings.warn(
                f"{owner}: it will have no effect on forward, which starts from zero in a layer with "
                "stateful=False (step does start from it); make the layer with stateful=True.",
                stacklevel=3,
            )
        first = _check.floats(owner, self.STATES[0], state[0], ("N", self.hidden_size), self.dtype)
        kept = [first.copy()]
        for name, value in zip(self.STATES[1:], state[1:], strict=True):
            given = np.zeros_like(first) if value is None else value
            kept.append(_check.floats(owner, name, given, first.shape, self.dtype, "the shape of h").copy())
        self._state = kept

    def set_state(self, h: np.ndarray | State | None) -> None:
        """Set the state (N, H) from which the next `forward` of a stateful layer, or `step`, starts; also a
        `State`.
        """
        self._set_state(h)

    def reset_state(self) -> None:
        """Forget the state: the next step starts from zero."""
        self._state = None

    def _initial_state(self, owner: str, batch: int, steps: int, carried: bool) -> list[np.ndarray]:
        """The carried state, or zeros, in the layer's own buffers; scratch where no step would change it."""
        state = self._state
        if batch and carried and state is not None:
            _check.batch(owner, state[0].shape[0], batch)
            return state
        if batch * steps == 0:
            state = [self._take(f"no_{name}", batch, self.hidden_size) for name in self.STATES]
        elif state is None or state[0].shape[0] != batch:
            state = self._state = [np.empty((batch, self.hidden_size), self.dtype) for _ in self.STATES]
        for array in state:
            array[...] = 0
        return state

    def _rows(self, owner: str, batch: int, steps: int, lengths: Any, reset: Any) -> Rows:
        """The order of rows in time-major arrays: longest sequence first, none after its end."""
        rows = packed_rows(owner, batch, steps, lengths, reset, self._full_rows)
        if lengths is None:
            self._full_rows = rows
        return rows

    def _take(self, name: str, *shape: int) -> np.ndarray:
        return self._workspace.take(name, shape, self.dtype)

    def _row(self, gates: int = 1) -> int:
        return padded_row(gates * self.hidden_size, self.dtype)

    def _word_table(self, words: int) -> np.ndarray:
        """Scratch for the products of the words with Wx."""
        return self._take("table", words, self.GATES * self.hidden_size)

    def _word_sums(self, words: int, row: int) -> np.ndarray:
        """Scratch for the gradients of pre-activations summed by word; and a row that `last_first` wants."""
        return self._take("sums", words + 1 if words else 0, row)

    def _input_block(self, batch: int) -> np.ndarray:
        """Scratch for the inputs of one block of the time grid."""
        return self._take("x_block", block_steps(batch) * batch, padded_row(self.input_size, self.dtype))

    def _slots(self, batch: int, rows: Rows, row: int) -> tuple[int, int]:
        """Blocks of the time grid, and how many of them find room for what `backward` needs, `row` a row."""
        blocks = max(1, rows.blocks.size - 1)
        fits = blocks * block_steps(batch) * batch * row * self.dtype.itemsize <= KEPT_BYTES
        return blocks, blocks if fits and self._keeps else 1

    def _team(self, rows: Rows, products: int) -> Team:
        """The threads for a window and so many products an element of the weights."""
        batch, units, weights = rows.order.size, self.hidden_size, self.GATES * self.hidden_size
        by_units = batch < LEAST_SEQUENCES
        worth_meeting = not rows.resets.size and 2.0 * batch * weights * units >= LEAST_STEP_OPERATIONS
        most = (units // 16 if worth_meeting else 1) if by_units else batch // 4
        operations = 2.0 * products * float(rows.offsets[-1]) * weights * (self.input_size + units)
        return Team(_threads.members_for(operations, most), by_units)

    def _planned(
        self, direction: str, inputs: Inputs, rows: Rows, make: Callable[[int, Rows, int], Any]
    ) -> Any:
        """What `make(batch, rows, words)` gives: the threads and the arrays of a window beside those of the
        caller.

        For a window like the last one it is found again, which takes 0.4 us instead of 4.
        """
        words = inputs.words.shape[0]
        gates = self._keeps if direction == "forward" else self._intact
        key = words, gates, KEPT_BYTES, _threads.get_num_threads()
        plans = self._workspace.plans
        known = plans.get(direction)
        if known is None or known[0] is not rows or known[1] != key:
            known = None  # what it holds may have to grow
            plans.pop(direction, None)
            known = plans[direction] = rows, key, make(rows.order.size, rows, words)
        return known[2]

    def _kernel_params(self) -> list[np.ndarray]:
        """The parameters in the form kernels are compiled for; transposed views are copied."""
        return [_check.kernel_ready(p) for p in self.params]

    def forward(
        self,
        xs: np.ndarray,
        *,
        lengths: Any = None,
        reset: Any = None,
        out: np.ndarray | None = None,
        keep: bool = True,
    ) -> np.ndarray:
        """Run over a window.

        Parameters
        ----------
        xs : ndarray (N, T, D)
            Inputs, in the dtype of the parameters.
        lengths : sequence of N ints, optional
            Steps of each sequence, from 0 to T, in any order; T by default. What lies behind the end of a
            sequence is not read, its outputs are zero, and its final state is that after its last step.
        reset : ndarray of bool (N, T), optional
            Where True, the state is zero before that step, and no gradient crosses: a new episode begins.
        out : ndarray (N, T, H), optional
            Where to write the result; a fresh array by default.
        keep : bool
            Keep the gates of all steps for `backward`, if they take no more than 128 MiB. Without, for
            inference, a window of more than 512 rows (steps of all sequences) takes less memory and time, but
            for a `TimeRNN`, which has no gates; a `backward` all the same makes them again, to the same bits,
            in up to 4/3 of the time.

        Returns
        -------
        hs : ndarray (N, T, H)
            The state after each step.

        Raises
        ------
        TypeError, ValueError
            If an array has another dtype or shape, a length is not in 0..T, or a carried state has another
            batch size. The state is then as before, as it is after a window without rows or steps.
        """
        owner = f"{type(self).__name__}.forward"
        why = "the last axis is the input size of Wx"
        xs = _check.floats(owner, "xs", xs, ("N", "T", self.input_size), self.dtype, why)
        batch, steps, _ = xs.shape
        rows = self._rows(owner, batch, steps, lengths, reset)
        hs = self._output(owner, out, (batch, steps, self.hidden_size), xs, *self.params)
        state = self._initial_state(owner, batch, steps, self.stateful)
        none = self._no_words()
        self._start(Inputs(xs, None, none, none), state, rows, hs, keep)
        return hs

    def _start(self, inputs: Inputs, state: list[np.ndarray], rows: Rows, hs: np.ndarray, keep: bool) -> None:
        self._run = None  # what it holds may have to grow: two of it would be the peak of memory
        self._keeps = bool(keep)
        self._run = Run(inputs, rows, self._forward(inputs, state, rows, hs))

    def _no_words(self) -> np.ndarray:
        return self._take("no_words", 0, self.input_size)

    def _looks_up(self, size: int, batch: int, steps: int) -> bool:
        """Whether inputs that are rows of a table of so many are looked up in products with that table."""
        return 0 < 2 * size <= batch * min(steps, block_steps(batch))

    def _forward_words(self, lookup: Lookup, out: np.ndarray, keep: bool) -> np.ndarray:
        """`forward` over `words[ids]`, with its bits, ids being checked; `_backpropagate` then makes `dwords`
        instead of gradients of inputs."""
        batch, steps = lookup.ids.shape
        rows = self._rows("", batch, steps, None, None)
        state = self._initial_state(f"{type(self).__name__}.forward", batch, steps, self.stateful)
        # Copies, as inputs would be: the caller may change both before `_backpropagate`. Words that do not
        # occur are zero there: whatever they are, 0 times it must be 0.
        ids = self._workspace.take("ids", lookup.ids.shape, np.dtype(np.int64))
        words = self._take("words", *lookup.words.shape)
        ids[...], words[...] = lookup.ids, 0
        occurring = np.unique(ids)
        words[occurring] = lookup.words[occurring]
        no_xs = self._take("no_xs", 0, 0, self.input_size)
        self._start(Inputs(no_xs, ids, words, lookup.dwords), state, rows, out, keep)
        return out

    def _output(self, owner: str, out: np.ndarray | None, shape: tuple, *inputs: np.ndarray) -> np.ndarray:
        """The caller's array or a fresh one."""
        if out is None:
            return np.empty(shape, self.dtype)
        return _check.out(owner, out, shape, self.dtype, *inputs)

    def _backpropagate(
        self, dhs: np.ndarray, dstate_next: tuple[np.ndarray | None, ...], out: np.ndarray | None
    ) -> np.ndarray:
        owner = f"{type(self).__name__}.backward"
        _check.called_before(owner, self._run is not None, "forward")
        assert self._run is not None
        inputs, rows, saved = self._run
        batch, steps = rows.order.size, rows.offsets.size - 1
        shape = (batch, self.hidden_size)
        dhs = _check.floats(
            owner, "dhs", dhs, (batch, steps, shape[1]), self.dtype, "the shape of the last output"
        )
        read = {"dhs": dhs, "xs": inputs.xs}
        arriving = []
        for name, given in zip(self.STATES, dstate_next, strict=True):
            if given is None:
                array = self._take(f"d{name}_next", *shape)
                array[...] = 0
            else:
                array = read[f"d{name}_next"] = _check.floats(
                    owner, f"d{name}_next", given, shape, self.dtype
                )
            arriving.append(array)
        xs = inputs.xs
        _check.apart(owner, read, self.grads)
        dxs = self._output(owner, out, xs.shape, xs, dhs, *arriving, *self.params, *self.grads)
        if self._dstate is None or self._dstate[0].shape[0] != batch:
            self._dstate = [np.empty(shape, self.dtype) for _ in self.STATES]
        self._backward(inputs, rows, saved, dhs, arriving, dxs, self._dstate)
        return dxs

    def backward(
        self, dhs: np.ndarray, *, dh_next: np.ndarray | None = None, out: np.ndarray | None = None
    ) -> np.ndarray:
        """Backpropagate through the window of the last `forward`.

        Parameters
        ----------
        dhs : ndarray (N, T, H)
            Gradient of the loss by each output.
        dh_next : ndarray (N, H), optional
            Gradient that arrives at the final state from what follows the window; zero by default
            (truncation).
        out : ndarray (N, T, D), optional
            Where to write the result; a fresh array by default.

        Returns
        -------
        dxs : ndarray (N, T, D)
            Gradient by each input. `grads` is overwritten, and `dh` is the gradient of the initial state.
        """
        return self._backpropagate(dhs, (dh_next,), out)

    # What a subclass gives.

    def _forward(
        self, inputs: Inputs, state: list[np.ndarray], rows: Rows, hs: np.ndarray
    ) -> tuple[np.ndarray, ...]:
        """Fill `hs`, leave the last state in `state`; what `_backward` needs to be kept."""
        raise NotImplementedError

    def _backward(
        self,
        inputs: Inputs,
        rows: Rows,
        saved: tuple[np.ndarray, ...],
        dhs: np.ndarray,
        dstate_next: list[np.ndarray],
        dxs: np.ndarray,
        dstate: list[np.ndarray],
    ) -> None:
        """Fill `dxs` or `inputs.dwords`, `dstate` and `grads`."""
        raise NotImplementedError


def set_states(layers: Sequence[Any], states: Sequence[Any]) -> None:
    """Give each layer its state, a tuple of arrays or None; all of them, or none if one does not fit."""
    _check.equal("set_state", "layers and states", len(layers), len(states))
    before = [layer.get_state() for layer in layers]
    try:
        for layer, state in zip(layers, states, strict=True):
            if state is None:
                layer.reset_state()
            elif isinstance(layer, Recurrent):
                layer.set_state(*state)
            else:
                layer.set_state(state)
    except BaseException:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            set_states(layers, before)
        raise
