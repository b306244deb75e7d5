"""The state that a recurrent layer carries from call to call: get, set, reset, roll back."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.cells import Cell
from rnnfast.engine.locks import in_turn
from rnnfast.layers.precision import Precise
from rnnfast.layers.state import State


class Carrying(Precise):
    """A layer whose states, one array (S, N, H), are carried from call to call."""

    PASSING = (*Precise.PASSING, "_spare", "_dstate")

    cell: Cell
    dtype: np.dtype
    input_size: int
    hidden_size: int
    stateful: bool
    _state: np.ndarray | None = None
    _spare: np.ndarray | None = None  # memory for the states after the next `forward`
    _dstate: np.ndarray | None = None

    def _take(self, name: str, *shape: int) -> np.ndarray:
        return self._workspace.take(name, shape, self.dtype)

    @property
    def given_names(self) -> tuple[str, ...]:
        """The names of the cell's given arrays."""
        return self.cell.equations.wanted

    @property
    @in_turn
    def h(self) -> np.ndarray | None:
        """A copy of the state (N, H) after the last step; None before any step and after `reset_state`."""
        return None if self._state is None else self._state[0].copy()

    @property
    @in_turn
    def dh(self) -> np.ndarray | None:
        """A copy of the gradient (N, H) of the initial state of the last window; None before `backward`."""
        return None if self._dstate is None else self._dstate[0].copy()

    @in_turn
    def get_state(self) -> tuple[np.ndarray, ...] | None:
        """A copy of the state, one array (N, H) each, for `set_state(*state)`; None when it is fresh."""
        return None if self._state is None else tuple(self._state.copy())

    @in_turn
    def get_state_gradients(self) -> tuple[np.ndarray, ...] | None:
        """A copy of the gradients of the initial states of the last window, one array (N, H) each; None
        before `backward`."""
        return None if self._dstate is None else tuple(self._dstate.copy())

    @in_turn
    def _set_state(self, *state: Any) -> None:
        owner, (output, *others) = f"{type(self).__name__}.set_state", self.cell.states
        if isinstance(state[0], State):
            count, value = len(self.cell.states), state[0].value
            given = (None,) * count if value is None else value
            state = _check.objects.entries(owner, output, given, count, ", ".join(self.cell.states))
        if state[0] is None:
            for name, array in zip(others, state[1:], strict=True):
                _check.values.absent(owner, name, array, output)
            self._state = None
            return
        if not self.stateful:
            warnings.warn(
                f"{owner}: it will have no effect on forward, which starts from zero in a layer with "
                "stateful=False (step does start from it); make the layer with stateful=True.",
                stacklevel=4,  # of the caller of set_state
            )
        first = _check.arrays.floats(owner, output, state[0], ("N", self.hidden_size), self.dtype)
        kept = np.zeros((len(self.cell.states), *first.shape), self.dtype)
        kept[0] = first
        why = f"the shape of {output}"
        for name, value, place in zip(others, state[1:], kept[1:], strict=True):
            if value is not None:
                place[...] = _check.arrays.floats(owner, name, value, first.shape, self.dtype, why)
        self._state = kept

    def set_state(self, *state: np.ndarray | State | None, **named: np.ndarray | None) -> None:
        """Set the states (N, H) from which the next `forward` of a stateful layer, or `step`, starts.

        Pass them in the order of `cell.states` or by name; missing ones are zero. A `State` holds them all.
        """
        self._set_state(
            *_check.objects.in_order(f"{type(self).__name__}.set_state", self.cell.states, state, named)
        )

    @in_turn
    def reset_state(self) -> None:
        """Forget the state: the next step starts from zero."""
        self._state = None

    @property
    def carried_rows(self) -> int | None:
        """Sequences N of the carried state; None when it is fresh."""
        return None if self._state is None else self._state.shape[1]

    def _initial_state(self, owner: str, batch: int) -> np.ndarray:
        """The carried state or zeros; the caller advances it in place."""
        state = self._state
        if batch and state is not None:
            _check.objects.batch(owner, state.shape[1], batch)
            return state
        fresh = np.zeros((len(self.cell.states), batch, self.hidden_size), self.dtype)
        if batch:
            self._state = fresh
        return fresh

    def _states(self, owner: str, batch: int) -> tuple[np.ndarray | None, np.ndarray]:
        """The initial state of `forward`, None for a fresh one, and memory for its final state.

        The two are separate, so that an interrupted call leaves the state unchanged.
        """
        before, after = self._state, self._spare
        if not (batch and self.stateful):
            before = None
        if before is not None:
            _check.objects.batch(owner, before.shape[1], batch)
        if after is None or after.shape[1] != batch:
            after = np.empty((len(self.cell.states), batch, self.hidden_size), self.dtype)
        return before, after

    def go_on_from(self, other: Carrying) -> None:
        """Take over the state of another layer on the same parameters."""
        self._spare = None  # an interrupt must not leave one array in both attributes
        self._state = other._state
        self._spare = other._spare

    def carry(self, state: np.ndarray | None) -> None:
        """Carry this state (S, N, H) without a copy, as in `carried`; None is the fresh state."""
        self._spare = None  # it may belong to another layer
        self._state = state

    @property
    def carried(self) -> np.ndarray | None:
        """The carried state (S, N, H), not a copy; for `roll_back`."""
        return self._state

    @property
    def state_gradients(self) -> np.ndarray | None:
        """The gradients (S, N, H) of the initial state of the last window; not a copy."""
        return self._dstate

    def roll_back(self, state: np.ndarray | None) -> None:
        """Restore an earlier state (S, N, H), as if there had been no `forward` since."""
        if self._state is not state:
            after, self._spare = self._state, None  # an interrupt must not leave one array in both attributes
            self._state = state
            self._spare = after


def set_states(layers: Sequence[Any], states: Sequence[Any]) -> None:
    """Set the state of each layer, a tuple of arrays or None; if one does not fit, no state changes."""
    _check.objects.equal("set_state", "layers and states", len(layers), len(states))
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
