"""Two recurrent layers over one sequence, one of them in reverse: `Bidirectional`."""

from __future__ import annotations

from collections.abc import Mapping
from threading import get_ident
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.layers.composed import Composed
from rnnfast.layers.recurrent import Recurrent
from rnnfast.layers.window import Blocks, Place, Reduction, packed_rows


class Bidirectional(Composed):
    """One layer reads a sequence forwards, another backwards; their outputs are concatenated.

    ``hs = [forward(xs), reversed(backward(reversed(xs)))]``. Each sequence is reversed within its own length.

    Parameters
    ----------
    layer_forward, layer_backward : Recurrent
        Two layers of any cells with the same input size and dtype; cells and hidden sizes may differ.

    Attributes
    ----------
    params, grads : list of ndarray
        The arrays of the first layer, then of the second; always the same arrays.
    layer_forward, layer_backward
        The two layers, each with its own state. The second starts at the end of the sequences.

    Notes
    -----
    Source: Schuster and Paliwal, *Bidirectional recurrent neural networks*, 1997; Saito, *Deep Learning from
    Scratch 2*, section 8.3.

    Examples
    --------
    >>> import numpy as np, rnnfast
    >>> rng = np.random.default_rng(0)
    >>> halves = [rnnfast.TimeGRU.from_sizes(3, 4, rng=rng) for _ in range(2)]
    >>> layer = rnnfast.Bidirectional(*halves)
    >>> hs = layer.forward(np.ones((2, 5, 3), np.float32), lengths=[5, 2])
    >>> hs.shape
    (2, 5, 8)
    >>> layer.backward(np.ones_like(hs)).shape
    (2, 5, 3)
    """

    TAPE = (*Composed.TAPE, "_places")
    _places: tuple[np.ndarray, np.ndarray] | None = None

    def __init__(self, layer_forward: Recurrent, layer_backward: Recurrent) -> None:
        owner = type(self).__name__
        _check.objects.instances(owner, (layer_forward, layer_backward), (Recurrent,))
        _check.objects.equal(owner, "input sizes", layer_forward.input_size, layer_backward.input_size)
        _check.objects.equal(owner, "dtypes", layer_forward.dtype, layer_backward.dtype)
        self.layer_forward: Any = layer_forward
        self.layer_backward: Any = layer_backward
        self._compose((layer_forward, layer_backward))
        self.hidden_size = layer_forward.hidden_size + layer_backward.hidden_size

    def _shown(self) -> dict[str, Any]:
        return {"layer_forward": self.layer_forward, "layer_backward": self.layer_backward}

    @property
    def stateful(self) -> bool:
        """Whether both layers carry their state from one `forward` to the next."""
        return self.layer_forward.stateful and self.layer_backward.stateful

    @property
    def given_gradients(self) -> dict[str, np.ndarray]:
        """The gradients (N, T, H) of the given arrays of the last window, after `backward`, in the order of
        time. If both layers take an array, its two gradients are concatenated, (N, T, H1 + H2)."""
        _check.objects.called_before(
            f"{type(self).__name__}.given_gradients", self._places is not None, "backward"
        )
        assert self._places is not None
        ahead = self.layer_forward.given_gradients
        back = {name: array[self._places] for name, array in self.layer_backward.given_gradients.items()}
        both = {name: np.concatenate((ahead[name], back[name]), axis=-1) for name in ahead if name in back}
        return {**ahead, **back, **both}

    def step(self, x: np.ndarray) -> np.ndarray:
        """Always an error for `x` (N, D): the second layer starts at the end, unknown to a stream."""
        raise _check.objects.no_stream(type(self).__name__)

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
        """Run over a window in both directions.

        Parameters
        ----------
        xs : ndarray (N, T, D)
            Inputs, in the dtype of the parameters.
        lengths : sequence of N ints, optional
            Steps of each sequence, from 0 to T, in any order; T by default. Outputs after the end are zero.
        reset : ndarray of bool (N, T), optional
            True begins a new sequence at that step; neither direction reads across it.
        out : ndarray (N, T, H1 + H2), optional
            The array for the result; a new one by default.
        keep : bool
            As in `TimeLSTM.forward`.
        **given : ndarray (N, T, H) or (N, T)
            The cells' given arrays, by name; each layer takes those of its cell, the second in reverse.

        Returns
        -------
        hs : ndarray (N, T, H1 + H2)
            The states of both layers after each step.
        """
        return self.read(xs, out, keep=keep, lengths=lengths, reset=reset, given=given)

    def read(
        self,
        xs: np.ndarray,
        out: np.ndarray | None = None,
        *,
        keep: bool = True,
        lengths: Any = None,
        reset: Any = None,
        place: Place | None = None,
        blocks: Blocks | None = None,
        given: Mapping[str, np.ndarray] | None = None,
    ) -> np.ndarray:
        """`forward` over `xs` (N, T, D), also by blocks of a batch; `place` and `blocks` are as in
        `Recurrent.read`."""
        with self._turn:
            owner = f"{type(self).__name__}.forward"
            why = "the last axis is the input size of Wx"
            xs = _check.arrays.floats(owner, "xs", xs, ("N", "T", self.input_size), self.dtype, why)
            batch, steps, _ = xs.shape
            shape = (batch, steps, self.hidden_size)
            hs = self._output(owner, out, shape, xs, *self._weights)
            options: dict[str, Any] = {"keep": keep, "lengths": lengths, "place": place, "blocks": blocks}
            if lengths is not None:
                lengths = options["lengths"] = _check.arrays.lengths(owner, lengths, batch, steps)
                if reset is None:  # both directions have the same rows
                    options["lengths"] = packed_rows(owner, batch, steps, lengths, None, None)
            lengths = np.full(batch, steps) if lengths is None else lengths
            places = reversed_places(lengths, steps)
            mirrored = None
            if reset is not None:
                reset = _check.arrays.mask(owner, "reset", reset, (batch, steps))
                mirrored = _mirrored_resets(reset, places, lengths)
            self._check_rows(owner, batch)
            ahead, back = self._given_apart(owner, given or {}, batch, steps)
            back = {name: array[places] for name, array in back.items()}
            width = self.layer_forward.hidden_size
            self._places = None
            with self._all_or_nothing():
                hs[..., :width] = self.layer_forward.read(xs, reset=reset, **options, given=ahead)
                backwards = self.layer_backward.read(xs[places], reset=mirrored, **options, given=back)
            hs[..., width:] = backwards[places]
            self._made_by = get_ident()
            self._places = places
            return hs

    def backward(
        self,
        dhs: np.ndarray,
        *,
        dstate_next: tuple[dict[str, np.ndarray], dict[str, np.ndarray]] = ({}, {}),
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """Backpropagate through the window of the last `forward`.

        Parameters
        ----------
        dhs : ndarray (N, T, H1 + H2)
            Gradient of the loss with respect to each output.
        dstate_next : pair of dict, optional
            Gradients of the final states of the two layers, as ``{"dh_next": ...}`` (and ``"dc_next"``).
        out : ndarray (N, T, D), optional
            The array for the result; a new one by default.

        Returns
        -------
        dxs : ndarray (N, T, D)
            Gradient with respect to each input.
            `grads` is overwritten; gradients of initial states are in the two layers.
        """
        with self._turn:
            owner = f"{type(self).__name__}.backward"
            self.check_backward({"dstate_next": dstate_next})
            assert self._places is not None
            places = self._places
            shape = (*places[1].shape, self.hidden_size)
            dhs = _check.arrays.floats(owner, "dhs", dhs, shape, self.dtype, "the shape of the last output")
            self._read_apart(owner, {"dhs": dhs})
            if out is not None:
                arriving = [array for given in dstate_next for array in given.values()]
                inputs = (dhs, *arriving, *self._weights, *self._dweights)
                out = _check.arrays.out(owner, out, (*places[1].shape, self.input_size), self.dtype, *inputs)
            width = self.layer_forward.hidden_size
            dxs = self.layer_forward.backward(dhs[..., :width], **dstate_next[0], out=out)
            dxs += self.layer_backward.backward(dhs[..., width:][places], **dstate_next[1])[places]
            return dxs

    def check_backward(self, arriving: Mapping[str, Any]) -> tuple[int, int]:
        """As that of a recurrent layer, before either of the two changes."""
        self._claim_tape()
        owner = f"{type(self).__name__}.backward"
        _check.objects.called_before(owner, self._places is not None, "forward")
        assert self._places is not None
        window: tuple[int, int] = self._places[1].shape
        _check.objects.known_arguments(owner, arriving.keys() - {"out"}, ["dstate_next"])
        for layer, given in zip(self.layers, arriving.get("dstate_next", ({}, {})), strict=True):
            _check.objects.equal(
                owner, "the last windows of both layers", layer.check_backward(given), window
            )
        return window

    def reduce(self, reduction: Reduction) -> None:
        """Begin to sum the gradients of both layers over processes."""
        self.layer_forward.reduce(reduction)
        self.layer_backward.reduce(reduction)


def reversed_places(lengths: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Index (N, 1), (N, T) that reverses each sequence within its length and keeps the rest; its own
    inverse."""
    t = np.arange(steps)
    inside = t < lengths[:, np.newaxis]
    return np.arange(lengths.size)[:, np.newaxis], np.where(inside, lengths[:, np.newaxis] - 1 - t, t)


def _mirrored_resets(
    reset: np.ndarray, places: tuple[np.ndarray, np.ndarray], lengths: np.ndarray
) -> np.ndarray:
    """The resets of the backward layer: at the step before each step that begins a sequence."""
    before = np.zeros_like(reset)
    before[:, :-1] = reset[:, 1:]
    # A reset after the end of a sequence does not concern its last step.
    before[np.arange(reset.shape[1]) >= lengths[:, np.newaxis] - 1] = False
    return before[places]
