"""A recurrent layer with any cell: check, allocate, call the kernels, carry the state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import get_ident
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.cells import Cell
from rnnfast.kernels.recurrence.sequence import block_steps
from rnnfast.layers.activations import Activations
from rnnfast.layers.base import Workspace
from rnnfast.layers.window import Blocks, Inputs, Lookup, Place, Rows, nothing, packed_rows


class Recurrent(Activations):
    """A recurrent layer with any cell, with truncated backpropagation through time.

    Parameters
    ----------
    cell : Cell
        The equations of one step: one of `rnnfast.cells`, or your own (`rnnfast.cell`).
    params : sequence of ndarray
        The parameters in the order of `cell.shapes`: Wx (D, G*H), Wh (H, G*H) if the cell has a product, b
        (G*H,), and the cell's own parameters; float32 or float64. `cell.layer` draws them.
    stateful : bool
        Whether each `forward` starts from the final state of the one before. `backward` still ends at the
        beginning of its own window: truncated BPTT.
    rng : numpy.random.Generator, optional
        Draws the seed of the cell's random arguments; a fresh generator by default.
    precision : "bfloat16", optional
        Round the operands of products to bfloat16; see the property.

    Attributes
    ----------
    params, grads : list of ndarray
        The parameters, named by `parameter_names`, and their gradients; always the same arrays;
        `backward` writes in place.
    constants : mapping of str to float
        The cell's constants; they may be set.
    train_flg : bool
        Whether random arguments are drawn; if False, they are their mean.
    rng_state : tuple of two ints
        The seed of random arguments and the number of steps drawn so far; may be set.
    given_gradients : dict of str to ndarray
        The gradient (N, T, H) of each given array of the last window, after `backward`.
    h : ndarray (N, H) or None
        A copy of the output state after the last step; None before the first `forward` and after
        `reset_state`. `get_state` returns all states.
    dh : ndarray (N, H) or None
        A copy of the gradient of the initial output state of the last window; None before the first
        `backward`. `get_state_gradients` returns the gradients of all states.

    Notes
    -----
    `forward` keeps a reference to `xs` for `backward`, as the book's layers do: do not change `xs` in
    between. The bits of a row's results depend neither on the rest of the batch nor on how a sequence is cut
    into calls. For a long window, `backward` recomputes the activations, with the same bits; memory beyond
    the outputs is little more than one copy of the outputs.

    Examples
    --------
    >>> import numpy as np, rnnfast
    >>> layer = rnnfast.cells.li_gru.layer(3, 4, rng=np.random.default_rng(0))
    >>> hs = layer.forward(np.ones((2, 5, 3), np.float32))
    >>> layer.backward(np.ones_like(hs)).shape
    (2, 5, 3)
    """

    def __init__(
        self,
        cell: Cell,
        params: Sequence[np.ndarray],
        stateful: bool = False,
        *,
        rng: np.random.Generator | None = None,
        precision: str | None = None,
    ) -> None:
        owner = type(self).__name__
        _check.objects.a_cell(owner, cell, Cell)
        names = tuple(cell.shapes(1, 1))
        params = _check.objects.entries(owner, "params", params, len(names), ", ".join(names))
        self._set_up(cell, dict(zip(names, params, strict=True)), stateful, rng, precision)

    def _set_up(
        self,
        cell: Cell,
        given: Mapping[str, np.ndarray],
        stateful: bool,
        rng: np.random.Generator | None = None,
        precision: str | None = None,
    ) -> None:
        """Set the parameters after checking that their shapes agree: Wx decides D, b decides H."""
        owner, gates = type(self).__name__, len(cell.gates)
        if hasattr(self, "from_sizes"):
            _check.objects.no_size(owner, given["Wx"])
        columns = "H" if gates == 1 else f"{gates}*H"
        first = "Wh" if cell.product == "h" else "b"
        array = _check.objects.parameter(
            owner, first, given[first], ("H", columns) if first == "Wh" else (columns,)
        )
        hidden = array.shape[0] if first == "Wh" else array.shape[0] // gates
        shapes = cell.shapes(1, hidden)
        shapes["Wx"] = ("D", *shapes["Wx"][1:])  # type: ignore[arg-type]
        why = f"{gates} gates of H columns each" if gates > 1 else ""
        _check.arrays.shape(owner, first, array, shapes[first], why)
        params = [
            _check.objects.parameter(owner, name, given[name], shapes[name], array.dtype) for name in shapes
        ]
        self.cell = cell
        self.parameter_names = tuple(shapes)
        self._hold(params)
        self.stateful = bool(stateful)
        self.dtype = array.dtype
        self.input_size, self.hidden_size = params[0].shape[0], hidden
        self._precision = _check.values.precision(owner, precision, self.dtype)
        self._start_constants(cell)
        self._start_random(cell, rng)

    @classmethod
    def of(
        cls,
        cell: Cell,
        input_size: int,
        hidden_size: int,
        *,
        rng: np.random.Generator | None = None,
        dtype: np.typing.DTypeLike = np.float32,
        stateful: bool = False,
        precision: str | None = None,
    ) -> Recurrent:
        """Create a layer with drawn parameters, as `Cell.layer` does."""
        rng = _check.values.generator(f"{cell.name}.layer", rng)
        return cls(cell, list(cls._draw(cell, f"{cell.name}.layer", input_size, hidden_size, rng,
        dtype).values()),
                   stateful, rng=rng, precision=precision)  # fmt: skip

    @staticmethod
    def _draw(
        cell: Cell, owner: str, input_size: Any, hidden_size: Any, rng: Any, dtype: Any
    ) -> dict[str, np.ndarray]:
        """Initial values of each parameter."""
        depth = _check.values.size(owner, "input_size", input_size)
        width = _check.values.size(owner, "hidden_size", hidden_size)
        kind = _check.arrays.float_dtype(owner, dtype)
        rng = _check.values.generator(owner, rng)
        shapes = cell.shapes(depth, width)
        return {name: cell.initial(name, shape, rng).astype(kind) for name, shape in shapes.items()}

    def _shown(self) -> dict[str, Any]:
        own = {"cell": self.cell} if type(self) is Recurrent else {}
        return {
            **own,
            "input_size": self.input_size,
            "hidden_size": self.hidden_size,
            "stateful": self.stateful,
        }

    # Forward.

    def forward(
        self,
        xs: np.ndarray,
        *,
        lengths: Any = None,
        reset: Any = None,
        out: np.ndarray | None = None,
        keep: bool = True,
        **given: np.ndarray,
    ) -> np.ndarray:
        """Run over a window.

        Parameters
        ----------
        xs : ndarray (N, T, D)
            Inputs, in the dtype of the parameters.
        lengths : sequence of N ints, optional
            Steps of each sequence, from 0 to T, in any order; T by default. Inputs after the end of a
            sequence are not read, outputs there are zero, and the final state is that after its last step.
        reset : ndarray of bool (N, T), optional
            True begins a new episode: the state is zero before that step, and no gradient crosses.
        out : ndarray (N, T, H), optional
            The array for the result; a new one by default.
        keep : bool
            Cache the activations of all steps for `backward`, if they take at most 128 MiB. For inference,
            False saves memory and time in windows of more than 512 rows (steps of all sequences); `backward`
            then recomputes the activations, with the same bits, in up to 4/3 of the time.
        **given : ndarray (N, T, H) or (N, T)
            The cell's given arrays, by name.

        Returns
        -------
        hs : ndarray (N, T, H)
            The state after each step.

        Raises
        ------
        TypeError, ValueError
            If the dtype or shape of an array is wrong, a length is not in 0..T, or the batch size differs
            from that of the carried state. Errors, interrupts and empty windows leave the state unchanged.
        """
        return self.read(xs, out, keep=keep, lengths=lengths, reset=reset, given=given)

    def read(
        self,
        xs: np.ndarray | Lookup,
        out: np.ndarray | None = None,
        *,
        keep: bool = True,
        lengths: Any = None,
        reset: Any = None,
        place: Place | None = None,
        blocks: Blocks | None = None,
        given: Mapping[str, np.ndarray] | None = None,
    ) -> np.ndarray:
        """`forward`, also over words of a table, a part of a sequence, or blocks of a batch.

        A `Lookup` has checked ids (N, T). Outputs have the bits of `forward` over `words[ids]`, and
        `backpropagate` computes `dwords` instead of gradients of inputs. `place` is the window's part of a
        batch of sequences, for random arguments. `backpropagate` adds the gradients of the parameters by
        `blocks`.
        """
        owner = f"{type(self).__name__}.forward"
        if isinstance(xs, Lookup):
            inputs = self._looked_up(xs)
            batch, steps = xs.ids.shape
            read: tuple[np.ndarray, ...] = ()
        else:
            why = "the last axis is the input size of Wx"
            xs = _check.arrays.floats(owner, "xs", xs, ("N", "T", self.input_size), self.dtype, why)
            batch, steps, _ = xs.shape
            none = nothing(self.dtype, 2)
            inputs, read = Inputs(xs, None, none, none), (xs,)
        rows = self._rows(owner, batch, steps, lengths, reset)
        shape = batch, steps, self.hidden_size
        inputs_of_out = (*read, *self._weights) if out is not None else ()
        hs = self._output(owner, out, shape, *inputs_of_out)
        with self._turn:
            before, after = self._states(owner, batch)
            rows_given, position, arrays = None, 0, {}
            if given or self.cell.rows:
                arrays = self._checked_given(owner, given or {}, batch, steps)
            self._run = self._dgiven = None  # free its arrays first, since they may have to grow
            if self.cell.rows:
                rows_given, position = self._given(arrays, batch, steps, place)
            groups = self._grouped(rows, blocks)
            self._run = self.run_forward(inputs, rows_given, before, after, rows, hs, bool(keep), groups)
            if steps and not batch and blocks is not None:
                self._position = position  # other processes read rows
            if hs.size:
                carried, self._spare = self._state, None  # not in both after an interrupt
                self._state = after
                self._spare = carried
                self._position = position
            self._made_by = get_ident()
        return hs

    def _rows(self, owner: str, batch: int, steps: int, lengths: Any, reset: Any) -> Rows:
        """The order of rows in time-major arrays: longest sequence first, none after its end."""
        rows = packed_rows(owner, batch, steps, lengths, reset, self._full_rows)
        if lengths is None:
            self._full_rows = rows
        return rows

    # Inputs may be rows of a table, called words. For a small table, Wx is multiplied with each row once.

    def looks_up(self, size: int, batch: int, steps: int) -> bool:
        """Whether inputs from a table of `size` rows are looked up in the product of the table with Wx."""
        return 0 < 2 * size <= batch * min(steps, block_steps(batch))

    def _looked_up(self, lookup: Lookup) -> Inputs:
        # Copies, as of inputs: the caller may change both before `backpropagate`. Words that do not occur are
        # zero in the copy, because 0 times a NaN or infinity would not be 0.
        ids = self._workspace.take("ids", lookup.ids.shape, np.dtype(np.int64))
        words = self._take("words", *lookup.words.shape)
        ids[...], words[...] = lookup.ids, 0
        occurring = np.unique(ids)
        words[occurring] = lookup.words[occurring]
        return Inputs(self._take("no_xs", 0, 0, self.input_size), ids, words, lookup.dwords)

    @property
    def reads_words(self) -> bool:
        """Whether the last window was read from a table of words."""
        return self._run is not None and self._run.inputs.ids is not None

    @property
    def window_rows(self) -> int | None:
        """Sequences N of the last window; None if `backward` is not possible."""
        return None if self._run is None else self._run.rows.order.size

    @property
    def time_blocks(self) -> np.ndarray:
        """The first step of each block of the time grid of the last window, and T; an array (blocks,)."""
        assert self._run is not None
        return self._run.rows.blocks

    def forget_window(self) -> None:
        """Drop the last window, so that `backward` is no longer possible."""
        self._run = None

    # Backward.

    def backward(
        self, dhs: np.ndarray, *, out: np.ndarray | None = None, **arriving: np.ndarray | None
    ) -> np.ndarray:
        """Backpropagate through the window of the last `forward`.

        Parameters
        ----------
        dhs : ndarray (N, T, H)
            Gradient of the loss with respect to each output.
        out : ndarray (N, T, D), optional
            The array for the result; a new one by default.
        **arriving : ndarray (N, H)
            `dh_next`, and likewise for the other states: the gradient of the final state from later windows;
            zero by default (truncation).

        Returns
        -------
        dxs : ndarray (N, T, D)
            Gradient with respect to each input.
            `grads` is overwritten, and `dh` is the gradient of the initial state.
        """
        if not arriving:
            return self.backpropagate(dhs, None, out)
        self.check_backward(arriving)
        return self.backpropagate(dhs, [arriving.get(f"d{name}_next") for name in self.cell.states], out)

    def check_backward(self, arriving: Mapping[str, Any]) -> tuple[int, int]:
        """Rows and steps of the last window. Errors are those of `backward` with these arguments, except for
        `dhs` and `out`."""
        self._claim_tape()
        owner = f"{type(self).__name__}.backward"
        _check.objects.called_before(owner, self._run is not None, "forward")
        assert self._run is not None
        rows = self._run.rows
        names = [f"d{name}_next" for name in self.cell.states]
        _check.objects.known_arguments(owner, arriving.keys() - {"out"}, names)
        for name, given in arriving.items():
            if given is not None and name != "out":
                _check.arrays.floats(owner, name, given, (rows.order.size, self.hidden_size), self.dtype)
        return rows.order.size, rows.offsets.size - 1

    def backpropagate(
        self,
        dhs: np.ndarray,
        arriving: Sequence[np.ndarray | None] | None = None,
        out: np.ndarray | None = None,
        *,
        adds: bool = False,
        room: Workspace | None = None,
    ) -> np.ndarray:
        """`backward` with one arriving gradient (N, H) per state; with `adds`, the gradients of the
        parameters accumulate. `room` is scratch memory that layers may share, needed by blocks."""
        with self._turn:
            self._claim_tape()
            owner = f"{type(self).__name__}.backward"
            _check.objects.called_before(owner, self._run is not None, "forward")
            assert self._run is not None
            run, rows = self._run, self._run.rows
            batch, steps = rows.order.size, rows.offsets.size - 1
            states, shape = self.cell.states, (batch, self.hidden_size)
            dhs = _check.arrays.floats(
                owner, "dhs", dhs, (batch, steps, shape[1]), self.dtype, "the shape of the last output"
            )
            read = {"dhs": dhs, "xs": run.inputs.xs}
            later = None
            if arriving is not None:
                later = self._take("dstates_next", len(states), *shape)
                for name, given, place in zip(states, arriving, later, strict=True):
                    if given is not None:
                        read[f"d{name}_next"] = _check.arrays.floats(
                            owner, f"d{name}_next", given, shape, self.dtype
                        )
                    place[...] = 0 if given is None else given
            xs = run.inputs.xs
            self._read_apart(owner, read)
            dxs = self._output(owner, out, xs.shape, *read.values(), *self._weights, *self._dweights)
            if self._dstate is None or self._dstate.shape[1] != batch:
                self._dstate = np.empty((len(states), *shape), self.dtype)
            self.run_backward(run, dhs, later, dxs, self._dstate, adds, room)
            return dxs
