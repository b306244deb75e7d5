"""Stacked recurrent layers, with dropout between them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from threading import get_ident
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.engine.locks import in_turn
from rnnfast.layers.bidirectional import Bidirectional
from rnnfast.layers.composed import Composed
from rnnfast.layers.dropout import TimeDropout
from rnnfast.layers.recurrent import Recurrent


class Stack(Composed):
    """Stacked layers: each reads the outputs of the layer below, with dropout between them.

    Parameters
    ----------
    layers : sequence of Recurrent or Bidirectional
        From bottom to top, of any cells. Each input size must be the hidden size of the layer below.
    dropout : float
        Share of the outputs dropped between two layers in training, at least 0 and below 1.
    per_step : bool
        Draw a new mask for every step; False draws one mask for all steps of a call.
    rng : numpy.random.Generator, optional
        Draws the dropped outputs.

    Attributes
    ----------
    params, grads : list of ndarray
        The arrays of all layers, from bottom to top; always the same arrays.
    layers : list
    train_flg : bool
        Whether dropout is on and random arguments of cells are drawn; setting it sets it in every layer.
    rng_state : tuple of pairs of ints
        The seed and the count of draws of each part that draws; set it to continue a run.

    Examples
    --------
    >>> import numpy as np, rnnfast
    >>> rng = np.random.default_rng(0)
    >>> lstm = rnnfast.TimeLSTM.from_sizes
    >>> layer = rnnfast.Stack([lstm(3, 4, rng=rng), lstm(4, 5, rng=rng)], dropout=0.5, rng=rng)
    >>> hs = layer.forward(np.ones((2, 6, 3), np.float32))
    >>> hs.shape
    (2, 6, 5)
    >>> layer.backward(np.ones_like(hs)).shape
    (2, 6, 3)
    """

    def __init__(
        self,
        layers: Sequence[Recurrent | Bidirectional],
        dropout: float = 0.0,
        *,
        per_step: bool = True,
        rng: np.random.Generator | None = None,
    ) -> None:
        owner = type(self).__name__
        _check.objects.instances(owner, layers, (Recurrent, Bidirectional))
        for lower, upper in itertools.pairwise(layers):
            _check.objects.equal(
                owner, "a hidden size and the input size above", lower.hidden_size, upper.input_size
            )
            _check.objects.equal(owner, "dtypes", lower.dtype, upper.dtype)
        rng = _check.values.generator(owner, rng)
        self.dropouts = [TimeDropout(dropout, per_step=per_step, rng=rng) for _ in layers[1:]]
        self._compose(layers)
        self.hidden_size = self.layers[-1].hidden_size

    def _shown(self) -> dict[str, Any]:
        ratio = self.dropouts[0].dropout_ratio if self.dropouts else 0.0
        return {"layers": self.layers, **({"dropout": ratio} if ratio else {})}

    def forward(
        self,
        xs: np.ndarray,
        *,
        lengths: Any = None,
        reset: Any = None,
        keep: bool = True,
        **given: np.ndarray,
    ) -> np.ndarray:
        """Outputs (N, T, H) of the top layer for inputs `xs` (N, T, D).

        `lengths` (N,), `reset` (N, T) and `keep` apply to every layer, as in `TimeLSTM.forward`. A given
        array, (N, T, H) or (N, T), is passed to each layer whose cell takes it.
        """
        with self._turn:
            owner = "Stack.forward"
            xs = _check.arrays.floats(owner, "xs", xs, ("N", "T", self.input_size), self.dtype)
            batch, steps, _ = xs.shape
            self._check_rows(owner, batch)
            arrays = self._given_apart(owner, given, batch, steps)
            self._made_by, hs = get_ident(), xs
            with self._all_or_nothing():
                for index, layer in enumerate(self.layers):
                    if index:
                        hs = self.dropouts[index - 1].forward(hs)
                    hs = layer.forward(hs, lengths=lengths, reset=reset, keep=keep, **arrays[index])
            return hs

    def backward(self, dhs: np.ndarray, *, dstate_next: Sequence[dict[str, Any]] | None = None) -> np.ndarray:
        """Gradient (N, T, D) of the inputs from the gradient (N, T, H) of the outputs; fills `grads`.

        `dstate_next` may hold a dict of arguments for the `backward` of each layer, from bottom to top:
        ``{"dh_next": ...}`` is the gradient of its final state.
        """
        with self._turn:
            self._claim_tape()
            owner = "Stack.backward"
            arriving = [{}] * len(self.layers) if dstate_next is None else list(dstate_next)
            _check.objects.equal(owner, "layers and entries of dstate_next", len(self.layers), len(arriving))
            window = self.layers[-1].check_backward(arriving[-1])
            for layer, given in zip(self.layers[:-1], arriving, strict=False):
                _check.objects.equal(
                    owner, "the last windows of all layers", window, layer.check_backward(given)
                )
            dxs = self.layers[-1].backward(dhs, **arriving[-1])
            for dropout, layer, given in zip(
                reversed(self.dropouts), reversed(self.layers[:-1]), reversed(arriving[:-1]), strict=True
            ):
                dxs = layer.backward(dropout.backward(dxs), **given)
            return dxs

    @in_turn
    def step(self, x: np.ndarray, **given: np.ndarray) -> np.ndarray:
        """Advance all layers by one input (N, D), for streaming and without dropout; the new state (N, H).

        A given array, (N, H) or (N,), is passed to each layer whose cell takes it.
        """
        if any(isinstance(layer, Bidirectional) for layer in self.layers):
            raise _check.objects.no_stream("Stack.step: Bidirectional")
        owner = "Stack.step"
        x = _check.arrays.floats(owner, "x", x, ("N", self.input_size), self.dtype)
        self._check_rows(owner, x.shape[0], streams=True)
        whole = {name: np.expand_dims(array, 1) for name, array in given.items()}
        self._given_apart(owner, whole, x.shape[0], 1)
        for layer in self.layers:
            x = layer.step(x, **{name: given[name] for name in layer.given_names})
        return x
