"""Recurrent layers above each other, with dropout between them."""

from __future__ import annotations

from collections.abc import Sequence
from threading import get_ident
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast._turns import in_turn
from rnnfast.layers.base import Layer
from rnnfast.layers.bidirectional import Bidirectional
from rnnfast.layers.carrying import roll_back, set_states, states_of
from rnnfast.layers.dropout import TimeDropout
from rnnfast.layers.recurrent import Recurrent
from rnnfast.state import State, plain


class Stack(Layer):
    """Layers above each other: each reads the outputs of the one below, with dropout between them.

    Parameters
    ----------
    layers : sequence of Recurrent or Bidirectional
        From the lowest, of any cells. Each input size must be the hidden size of the layer below.
    dropout : float
        Share of the outputs dropped between two layers while training, from 0 to below 1.
    per_step : bool
        A new mask for every step; False for one mask for all steps of a call.
    rng : numpy.random.Generator, optional
        Draws what is dropped.

    Attributes
    ----------
    params, grads : list of ndarray
        Those of all layers, from the lowest; the arrays keep their identity.
    layers : list
    train_flg : bool
        Whether dropout acts.

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
        _check.instances(owner, layers, (Recurrent, Bidirectional))
        self.layers: list[Any] = list(layers)
        _check.distinct(owner, self.layers)
        for lower, upper in zip(self.layers[:-1], self.layers[1:], strict=True):
            _check.equal(owner, "a hidden size and the input size above", lower.hidden_size, upper.input_size)
            _check.equal(owner, "dtypes", lower.dtype, upper.dtype)
        rng = _check.generator(owner, rng)
        self._dropouts = [TimeDropout(dropout, per_step=per_step, rng=rng) for _ in self.layers[1:]]
        self.train_flg = True
        self._hold(
            [param for layer in self.layers for param in layer.params],
            [grad for layer in self.layers for grad in layer.grads],
        )
        self.dtype = self.layers[0].dtype
        self.input_size, self.hidden_size = self.layers[0].input_size, self.layers[-1].hidden_size

    def _shown(self) -> dict[str, Any]:
        ratio = self._dropouts[0].dropout_ratio if self._dropouts else 0.0
        return {"layers": self.layers, **({"dropout": ratio} if ratio else {})}

    @in_turn
    def get_state(self) -> tuple[Any, ...]:
        """Copies of the states of all layers, for `set_state`."""
        return tuple(layer.get_state() for layer in self.layers)

    @in_turn
    def set_state(self, state: tuple[Any, ...] | State | None) -> None:
        """Go back to the states of `get_state`, or to a `State`; None is the fresh state."""
        given = plain(state)
        set_states(self.layers, [None] * len(self.layers) if given is None else given)

    @in_turn
    def reset_state(self) -> None:
        """Forget the states of all layers."""
        for layer in self.layers:
            layer.reset_state()

    def forward(
        self, xs: np.ndarray, *, lengths: Any = None, reset: Any = None, keep: bool = True
    ) -> np.ndarray:
        """Outputs (N, T, H) of the highest layer for inputs `xs` (N, T, D).

        `lengths` (N,), `reset` (N, T) and `keep` act on every layer, as in `TimeLSTM.forward`.
        """
        with self._turn:
            self._check_batch("Stack.forward", np.shape(xs))
            self._made_by, before = get_ident(), states_of(self.layers)
            try:
                hs = self.layers[0].forward(xs, lengths=lengths, reset=reset, keep=keep)
                for dropout, layer in zip(self._dropouts, self.layers[1:], strict=True):
                    dropout.train_flg = self.train_flg
                    hs = layer.forward(dropout.forward(hs), lengths=lengths, reset=reset, keep=keep)
            except BaseException:
                roll_back(before)
                raise
            return hs

    def backward(self, dhs: np.ndarray, *, dstate_next: Sequence[dict[str, Any]] | None = None) -> np.ndarray:
        """Gradient (N, T, D) of the inputs from that of the outputs, (N, T, H); fills `grads`.

        `dstate_next` may hold a dict of arguments for the `backward` of each layer, from the lowest:
        ``{"dh_next": ...}`` is the gradient of its final state.
        """
        with self._turn:
            self._claim_tape()
            arriving = [{}] * len(self.layers) if dstate_next is None else list(dstate_next)
            _check.equal(
                "Stack.backward", "layers and entries of dstate_next", len(self.layers), len(arriving)
            )
            dxs = self.layers[-1].backward(dhs, **arriving[-1])
            for dropout, layer, given in zip(
                reversed(self._dropouts), reversed(self.layers[:-1]), reversed(arriving[:-1]), strict=True
            ):
                dxs = layer.backward(dropout.backward(dxs), **given)
            return dxs

    @in_turn
    def step(self, x: np.ndarray) -> np.ndarray:
        """Advance all layers by one input (N, D), for streaming and without dropout; the new state (N, H)."""
        if any(isinstance(layer, Bidirectional) for layer in self.layers):
            raise _check.no_stream("Stack.step: Bidirectional")
        self._check_batch("Stack.step", np.shape(x))
        for layer in self.layers:
            x = layer.step(x)
        return x

    def _check_batch(self, owner: str, shape: tuple[int, ...]) -> None:
        """Every carried state has as many rows as the input, before the lowest layer moves on."""
        recurrent = [layer for layer in self.layers if isinstance(layer, Recurrent)]
        for layer in recurrent if shape and shape[0] else []:
            if layer.h is not None and (layer.stateful or len(shape) == 2):
                _check.batch(owner, layer.h.shape[0], shape[0])
