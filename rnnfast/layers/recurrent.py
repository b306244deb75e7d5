"""What every recurrent layer over a sequence does, whatever its cell: check, allocate, carry the state."""

from __future__ import annotations

from collections.abc import Callable
from threading import get_ident
from typing import Any

import numpy as np

from rnnfast import _check, _threads
from rnnfast.kernels.sequence import block_steps, padded_row
from rnnfast.layers.carrying import Carrying
from rnnfast.layers.rows import Rows, packed_rows
from rnnfast.layers.window import Inputs, Lookup, Run, Team

# Memory that a layer may take to keep the gates of all steps for `backward`. A longer sequence keeps one
# block of them, and `backward` makes the others again from the states, which takes up to 4/3 of the time.
KEPT_BYTES = 128 * 2**20

# Fewer sequences than this are not shared out among threads: their units are, if a step is worth a meeting.
LEAST_SEQUENCES = 8
LEAST_STEP_OPERATIONS = 1e5


class Recurrent(Carrying):
    """Base of `TimeRNN`, `TimeLSTM` and `TimeGRU`.

    A subclass names its states and gates, and calls its kernels in `_forward`, `_backward` and `_step`.
    """

    TAPE = (*Carrying.TAPE, "_run", "_intact")
    PASSING = (*Carrying.PASSING, "_full_rows")
    _run: Run | None = None
    _intact = 0  # the first block of the time grid whose gates were kept
    _keeps = True  # whether the last `forward` was to keep what fits of the gates
    _adds = False  # whether `backward` adds to `grads`

    _full_rows: Rows | None = None

    def _set_up(self, params: list[np.ndarray], stateful: bool) -> None:
        self._hold(params)
        self.stateful = bool(stateful)
        self.dtype = params[0].dtype
        self.input_size, self.hidden_size = params[0].shape[0], params[1].shape[0]

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

    def _rows(self, owner: str, batch: int, steps: int, lengths: Any, reset: Any) -> Rows:
        """The order of rows in time-major arrays: longest sequence first, none after its end."""
        rows = packed_rows(owner, batch, steps, lengths, reset, self._full_rows)
        if lengths is None:
            self._full_rows = rows
        return rows

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

    def _gates_to_remake(self, rows: Rows) -> int:
        """The first block whose gates are kept, for a `backward` that will make those of earlier ones.

        Made gates overwrite kept ones. Even if the call is interrupted, the next one must make all of them.
        """
        intact = self._intact
        if intact:
            self._intact = rows.blocks.size - 1
        return intact

    def _kernel_params(self) -> list[np.ndarray]:
        """The parameters in the form kernels are compiled for; transposed views are copied."""
        return [_check.kernel_ready(p) for p in self._weights]

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
            batch size. Errors, interrupts and empty windows leave the state unchanged.
        """
        owner = f"{type(self).__name__}.forward"
        why = "the last axis is the input size of Wx"
        xs = _check.floats(owner, "xs", xs, ("N", "T", self.input_size), self.dtype, why)
        batch, steps, _ = xs.shape
        rows = self._rows(owner, batch, steps, lengths, reset)
        hs = self._output(owner, out, (batch, steps, self.hidden_size), xs, *self._weights)
        none = self._no_words()
        self._start(owner, Inputs(xs, None, none, none), rows, hs, keep)
        return hs

    def _start(self, owner: str, inputs: Inputs, rows: Rows, hs: np.ndarray, keep: bool) -> None:
        with self._turn:
            before, after = self._states(owner, hs.shape[0])
            self._run = None  # let go of its arrays first, since they may have to grow
            self._keeps = bool(keep)
            saved = self._forward(inputs, before, after, rows, hs)
            if hs.size:
                carried, self._spare = self._state, None  # never the same memory twice
                self._state = after
                self._spare = carried
            self._made_by = get_ident()
            self._run = Run(inputs, rows, saved)

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
        # Copies, as inputs would be: the caller may change both before `_backpropagate`. Words that do not
        # occur are zero there: whatever they are, 0 times it must be 0.
        ids = self._workspace.take("ids", lookup.ids.shape, np.dtype(np.int64))
        words = self._take("words", *lookup.words.shape)
        ids[...], words[...] = lookup.ids, 0
        occurring = np.unique(ids)
        words[occurring] = lookup.words[occurring]
        no_xs = self._take("no_xs", 0, 0, self.input_size)
        inputs = Inputs(no_xs, ids, words, lookup.dwords)
        self._start(f"{type(self).__name__}.forward", inputs, rows, out, keep)
        return out

    def _output(self, owner: str, out: np.ndarray | None, shape: tuple, *inputs: np.ndarray) -> np.ndarray:
        """The caller's array or a fresh one."""
        if out is None:
            return np.empty(shape, self.dtype)
        return _check.out(owner, out, shape, self.dtype, *inputs)

    def _backpropagate(
        self, dhs: np.ndarray, dstate_next: tuple[np.ndarray | None, ...], out: np.ndarray | None
    ) -> np.ndarray:
        with self._turn:
            self._claim_tape()
            owner = f"{type(self).__name__}.backward"
            _check.called_before(owner, self._run is not None, "forward")
            assert self._run is not None
            inputs, rows, saved = self._run
            batch, steps = rows.order.size, rows.offsets.size - 1
            shape = (batch, self.hidden_size)
            dhs = _check.floats(
                owner, "dhs", dhs, (batch, steps, shape[1]), self.dtype, "the shape of the last output"
            )
            read, arriving = {"dhs": dhs, "xs": inputs.xs}, []
            for name, given in zip(self.STATES, dstate_next, strict=True):
                if given is None:
                    array = self._take(f"d{name}_next", *shape)
                    array[...] = 0
                else:
                    array = _check.floats(owner, f"d{name}_next", given, shape, self.dtype)
                    read[f"d{name}_next"] = array
                arriving.append(array)
            xs = inputs.xs
            self._read_apart(owner, read)
            dxs = self._output(owner, out, xs.shape, xs, dhs, *arriving, *self._weights, *self._dweights)
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
            Gradient of the loss with respect to each output.
        dh_next : ndarray (N, H), optional
            Gradient that arrives at the final state from what follows the window; zero by default
            (truncation).
        out : ndarray (N, T, D), optional
            Where to write the result; a fresh array by default.

        Returns
        -------
        dxs : ndarray (N, T, D)
            Gradient with respect to each input.
            `grads` is overwritten, and `dh` is the gradient of the initial state.
        """
        return self._backpropagate(dhs, (dh_next,), out)

    # What a subclass gives.

    def _forward(
        self,
        inputs: Inputs,
        before: list[np.ndarray],
        after: list[np.ndarray],
        rows: Rows,
        hs: np.ndarray,
    ) -> tuple[np.ndarray, ...]:
        """Fill `hs` from the state `before`, and `after` with the last state; what `_backward` needs."""
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
