"""A recurrent layer over a sequence, whatever its cell: check, allocate, call the kernels, carry the
state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import get_ident
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.cells import Cell
from rnnfast.kernels.sequence import block_steps
from rnnfast.layers.activations import Activations
from rnnfast.layers.rows import Rows, packed_rows
from rnnfast.layers.window import Inputs, Lookup, Place, nothing


class Recurrent(Activations):
    """A layer of a cell over a whole sequence, with truncated backpropagation through time.

    Parameters
    ----------
    cell : Cell
        The equations of one step: one of `rnnfast.cells`, or your own (`rnnfast.cell`).
    params : sequence of ndarray
        Its parameters in the order of `cell.shapes`: Wx (D, G*H), Wh (H, G*H) if the cell has a product, b
        (G*H,), and those of the cell's own; float32 or float64. `cell.layer` draws them.
    stateful : bool
        Whether the state after one `forward` is the initial state of the next. The forward chain then runs on
        while each `backward` ends at the beginning of its own window: truncated BPTT.
    rng : numpy.random.Generator, optional
        Source of the seed of the cell's random arguments; a fresh one by default.

    Attributes
    ----------
    params, grads : list of ndarray
        The parameters, named by `parameter_names`, and their gradients; the arrays keep their identity,
        `backward` writes in place.
    constants : mapping of str to float
        The cell's constants, which may be set.
    train_flg : bool
        Whether random arguments are drawn; otherwise they are their mean.
    rng_state : tuple of two ints
        The seed of random arguments and the number of steps drawn so far; may be set.
    given_gradients : dict of str to ndarray
        The gradient (N, T, H) of each given array of the last window, after `backward`.
    h : ndarray (N, H) or None
        A copy of the output state after the last step, of which `get_state` gives all; None before the first
        `forward` and after `reset_state`.
    dh : ndarray (N, H) or None
        A copy of the gradient of the initial output state of the last window, of which `get_state_gradients`
        gives all; None before the first `backward`.

    Notes
    -----
    `forward` keeps a reference to `xs` for `backward`, as the book's layers do: do not write into it in
    between. The results of a row do not depend, bit for bit, on the rest of the batch, nor on how a sequence
    is cut into calls. `backward` computes the activations of a long window again, with the same bits, so that
    memory beyond the outputs is little more than one copy of them.

    Examples
    --------
    >>> import numpy as np, rnnfast
    >>> layer = rnnfast.cells.li_gru.layer(3, 4, rng=np.random.default_rng(0))
    >>> hs = layer.forward(np.ones((2, 5, 3), np.float32))
    >>> layer.backward(np.ones_like(hs)).shape
    (2, 5, 3)
    """

    PASSING = (*Activations.PASSING, "_full_rows")
    _full_rows: Rows | None = None

    def __init__(
        self,
        cell: Cell,
        params: Sequence[np.ndarray],
        stateful: bool = False,
        *,
        rng: np.random.Generator | None = None,
    ) -> None:
        owner = type(self).__name__
        _check.instances(owner, (cell,), Cell, "cell")
        names = tuple(cell.shapes(1, 1))
        params = _check.entries(owner, "params", params, len(names), ", ".join(names))
        self._set_up(cell, dict(zip(names, params, strict=True)), stateful, rng)

    def _set_up(
        self,
        cell: Cell,
        given: Mapping[str, np.ndarray],
        stateful: bool,
        rng: np.random.Generator | None = None,
    ) -> None:
        """Begin with these parameters, checked against each other: Wx decides D, b decides H."""
        owner, gates = type(self).__name__, len(cell.gates)
        columns = "H" if gates == 1 else f"{gates}*H"
        first = "Wh" if cell.product == "h" else "b"
        array = _check.parameter(owner, first, given[first], ("H", columns) if first == "Wh" else (columns,))
        hidden = array.shape[0] if first == "Wh" else array.shape[0] // gates
        shapes = cell.shapes(1, hidden)
        shapes["Wx"] = ("D", *shapes["Wx"][1:])  # type: ignore[arg-type]
        why = f"{gates} gates of H columns each" if gates > 1 else ""
        _check.shape(owner, first, array, shapes[first], why)
        params = [_check.parameter(owner, name, given[name], shapes[name], array.dtype) for name in shapes]
        self.cell = cell
        self.parameter_names = tuple(shapes)
        self._hold(params)
        self.stateful = bool(stateful)
        self.dtype = array.dtype
        self.input_size, self.hidden_size = params[0].shape[0], hidden
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
    ) -> Recurrent:
        """A layer with fresh parameters, as `Cell.layer`."""
        rng = _check.generator(f"{cell.name}.layer", rng)
        return cls(cell, list(cls._draw(cell, f"{cell.name}.layer", input_size, hidden_size, rng,
        dtype).values()),
                   stateful, rng=rng)  # fmt: skip

    @staticmethod
    def _draw(
        cell: Cell, owner: str, input_size: Any, hidden_size: Any, rng: Any, dtype: Any
    ) -> dict[str, np.ndarray]:
        """Initial values of each parameter."""
        depth = _check.size(owner, "input_size", input_size)
        width = _check.size(owner, "hidden_size", hidden_size)
        kind = _check.float_dtype(owner, dtype)
        rng = _check.generator(owner, rng)
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
            Steps of each sequence, from 0 to T, in any order; T by default. What lies behind the end of a
            sequence is not read, its outputs are zero, and its final state is that after its last step.
        reset : ndarray of bool (N, T), optional
            Where True, the state is zero before that step, and no gradient crosses: a new episode begins.
        out : ndarray (N, T, H), optional
            Where to write the result; a fresh array by default.
        keep : bool
            Keep what `backward` needs of all steps, if it takes no more than 128 MiB. Without, for
            inference, a window of more than 512 rows (steps of all sequences) takes less memory and time; a
            `backward` all the same makes it again, to the same bits, in up to 4/3 of the time.
        **given : ndarray (N, T, H) or (N, T)
            The cell's given arrays, by name.

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
        given: Mapping[str, np.ndarray] | None = None,
    ) -> np.ndarray:
        """`forward`, also over words of a table, and over a part of a sequence.

        A `Lookup` has checked ids (N, T). Outputs have the bits of `forward` over `words[ids]`, and
        `go_back` makes `dwords` instead of gradients of inputs. `place` says which part of a sequence the
        window is, for random arguments.
        """
        owner = f"{type(self).__name__}.forward"
        if isinstance(xs, Lookup):
            inputs = self._looked_up(xs)
            batch, steps = xs.ids.shape
            read: tuple[np.ndarray, ...] = ()
        else:
            why = "the last axis is the input size of Wx"
            xs = _check.floats(owner, "xs", xs, ("N", "T", self.input_size), self.dtype, why)
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
            self._run = self._dgiven = None  # let go of its arrays first, since they may have to grow
            if self.cell.rows:
                rows_given, position = self._given(arrays, batch, steps, place)
            self._run = self.run_forward(inputs, rows_given, before, after, rows, hs, bool(keep))
            if hs.size:
                carried, self._spare = self._state, None  # never the same memory twice
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

    # Inputs that are rows of a table: words. Of a small table, each row has its product with Wx once.

    def looks_up(self, size: int, batch: int, steps: int) -> bool:
        """Whether inputs that are rows of a table of `size` are looked up in products with that table."""
        return 0 < 2 * size <= batch * min(steps, block_steps(batch))

    def _looked_up(self, lookup: Lookup) -> Inputs:
        # Copies, as inputs would be: the caller may change both before `go_back`. Words that do not
        # occur are zero there: whatever they are, 0 times it must be 0.
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
        """Sequences N of the last window; None where there is nothing to go back through."""
        return None if self._run is None else self._run.rows.order.size

    @property
    def time_blocks(self) -> np.ndarray:
        """The first step of each block of the time grid of the last window, and T; an array (blocks,)."""
        assert self._run is not None
        return self._run.rows.blocks

    def forget_window(self) -> None:
        """Let go of the last window: there is nothing to go back through."""
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
            Where to write the result; a fresh array by default.
        **arriving : ndarray (N, H)
            `dh_next`, and likewise for the other states: the gradient that arrives at the final state from
            what follows the window; zero by default (truncation).

        Returns
        -------
        dxs : ndarray (N, T, D)
            Gradient with respect to each input.
            `grads` is overwritten, and `dh` is the gradient of the initial state.
        """
        if not arriving:
            return self.go_back(dhs, None, out)
        names = [f"d{name}_next" for name in self.cell.states]
        _check.known_arguments(f"{type(self).__name__}.backward", arriving, names)
        return self.go_back(dhs, [arriving.get(name) for name in names], out)

    def go_back(
        self,
        dhs: np.ndarray,
        arriving: Sequence[np.ndarray | None] | None = None,
        out: np.ndarray | None = None,
        *,
        adds: bool = False,
    ) -> np.ndarray:
        """`backward`, with one gradient (N, H) a state that arrives; with `adds` it adds to the gradients of
        the parameters."""
        with self._turn:
            self._claim_tape()
            owner = f"{type(self).__name__}.backward"
            _check.called_before(owner, self._run is not None, "forward")
            assert self._run is not None
            run, rows = self._run, self._run.rows
            batch, steps = rows.order.size, rows.offsets.size - 1
            states, shape = self.cell.states, (batch, self.hidden_size)
            dhs = _check.floats(
                owner, "dhs", dhs, (batch, steps, shape[1]), self.dtype, "the shape of the last output"
            )
            read = {"dhs": dhs, "xs": run.inputs.xs}
            later = None
            if arriving is not None:
                later = self._take("dstates_next", len(states), *shape)
                for name, given, place in zip(states, arriving, later, strict=True):
                    if given is not None:
                        read[f"d{name}_next"] = _check.floats(
                            owner, f"d{name}_next", given, shape, self.dtype
                        )
                    place[...] = 0 if given is None else given
            xs = run.inputs.xs
            self._read_apart(owner, read)
            dxs = self._output(owner, out, xs.shape, *read.values(), *self._weights, *self._dweights)
            if self._dstate is None or self._dstate.shape[1] != batch:
                self._dstate = np.empty((len(states), *shape), self.dtype)
            self.run_backward(run, dhs, later, dxs, self._dstate, adds)
            return dxs
