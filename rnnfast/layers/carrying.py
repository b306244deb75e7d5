"""The state that a recurrent layer carries from call to call: get, set, reset, roll back."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast._turns import in_turn
from rnnfast.layers.streaming import Streaming
from rnnfast.state import State


class Carrying(Streaming):
    """A layer whose state, arrays (N, H), runs on from one call to the next."""

    STATES: tuple[str, ...] = ("h",)
    PASSING = (*Streaming.PASSING, "_spare", "_dstate")

    stateful: bool
    _state: list[np.ndarray] | None = None
    _spare: list[np.ndarray] | None = None  # memory for the state after the next `forward`
    _dstate: list[np.ndarray] | None = None

    def _take(self, name: str, *shape: int) -> np.ndarray:
        return self._workspace.take(name, shape, self.dtype)

    @property
    @in_turn
    def h(self) -> np.ndarray | None:
        """A copy of the state (N, H) after the last step; None before the first and after `reset_state`."""
        return None if self._state is None else self._state[0].copy()

    @property
    @in_turn
    def dh(self) -> np.ndarray | None:
        """A copy of the gradient (N, H) of the initial state of the last window; None before `backward`."""
        return None if self._dstate is None else self._dstate[0].copy()

    @in_turn
    def get_state(self) -> tuple[np.ndarray, ...] | None:
        """A copy of the state, one array (N, H) each, for `set_state(*state)`; None when it is fresh."""
        return None if self._state is None else tuple(array.copy() for array in self._state)

    @in_turn
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
                stacklevel=4,  # of the caller of set_state
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

    @in_turn
    def reset_state(self) -> None:
        """Forget the state: the next step starts from zero."""
        self._state = None

    def _initial_state(self, owner: str, batch: int) -> list[np.ndarray]:
        """The carried state, or zeros, to be advanced in place."""
        state = self._state
        if batch and state is not None:
            _check.batch(owner, state[0].shape[0], batch)
            return state
        if not batch:
            return self._zeros(batch)
        self._state = [np.zeros((batch, self.hidden_size), self.dtype) for _ in self.STATES]
        return self._state

    def _zeros(self, batch: int) -> list[np.ndarray]:
        state = [self._take(f"zero_{name}", batch, self.hidden_size) for name in self.STATES]
        for array in state:
            array[...] = 0
        return state

    def _states(self, owner: str, batch: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The state that `forward` starts from, and memory for the one it ends in.

        They are apart, so that a call which is interrupted leaves the state unchanged.
        """
        before, after = self._state, self._spare
        if not (batch and self.stateful and before is not None):
            before = self._zeros(batch)
        _check.batch(owner, before[0].shape[0], batch)
        if after is None or after[0].shape[0] != batch:
            after = [np.empty((batch, self.hidden_size), self.dtype) for _ in self.STATES]
        return before, after

    def _roll_back(self, state: list[np.ndarray] | None) -> None:
        """Carry a state of before again, as if there had been no `forward` since."""
        if self._state is not state:
            after, self._spare = self._state, None  # never the same memory twice, whatever interrupts this
            self._state = state
            self._spare = after


def set_states(layers: Sequence[Any], states: Sequence[Any]) -> None:
    """Give each layer its state, a tuple of arrays or None; all of them, or none if one does not fit."""
    _check.equal("set_state", "layers and states", len(layers), len(states))
    before = [layer.get_state() for layer in layers]
    try:
        for layer, state in zip(layers, states, strict=True):
            if state is None:
                layer.reset_state()
            elif isinstance(layer, Carrying):
                layer.set_state(*state)
            else:
                layer.set_state(state)
    except BaseException:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            set_states(layers, before)
        raise


def states_of(layers: Sequence[Any]) -> list[tuple[Carrying, list[np.ndarray] | None]]:
    """Each layer with a state in these layers and its state, for `roll_back`."""
    found: list[tuple[Carrying, list[np.ndarray] | None]] = []
    for layer in layers:
        if isinstance(layer, Carrying):
            found.append((layer, layer._state))
        else:
            found += states_of((layer.layer_forward, layer.layer_backward))
    return found


def roll_back(states: list[tuple[Carrying, list[np.ndarray] | None]]) -> None:
    """Carry the states of `states_of` again, after a pass that did not come to its end."""
    for layer, state in states:
        layer._roll_back(state)
