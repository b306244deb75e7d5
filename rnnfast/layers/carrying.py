"""The state that a recurrent layer carries from call to call: get, set, reset, roll back."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.cells import Cell
from rnnfast.engine.locks import in_turn
from rnnfast.kernels.elementwise.noise import bernoulli_forward, normal_forward
from rnnfast.layers.base import Precise
from rnnfast.layers.state import State
from rnnfast.layers.window import Place

# The constants of a layer's cell, checked when they are set.


class Constants(MutableMapping[str, float]):
    """The constants of a cell, name to value; the names are fixed, the values may be set.

    Parameters
    ----------
    owner : str
        The name at the start of errors.
    cell : Cell

    Raises
    ------
    ValueError, TypeError
        On setting a name that the cell does not have or a value that is not a finite number, and on deleting
        a constant.

    Examples
    --------
    >>> import rnnfast
    >>> constants = rnnfast.cells.lif.layer(3, 4).constants
    >>> constants["beta"] = 0.5
    >>> constants
    {'alpha': 0.9, 'beta': 0.5, 'threshold': 1.0}
    """

    def __init__(self, owner: str, cell: Cell) -> None:
        self._owner = owner
        self._values = {name: role.value for name, role in cell.roles.items() if role.kind == "constant"}

    def __getitem__(self, name: str) -> float:
        return self._values[name]

    def __setitem__(self, name: str, value: float) -> None:
        if name not in self._values:
            raise ValueError(
                f"{self._owner}: the cell has no constant {name!r}; it has "
                f"{', '.join(tuple(self._values)) or 'none'}."
            )
        self._values[name] = _check.values.number(self._owner, name, value)

    def __delitem__(self, name: str) -> None:
        raise TypeError(f"{self._owner}: a constant such as {name!r} cannot be deleted, only set.")

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return repr(self._values)


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

    def copy_state(self, other: Carrying) -> None:
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


# The parameters of a cell and their gradients, as the kernels of any cell take them.


class Arguments(Carrying):
    """A recurrent layer whose parameters are passed to the kernels as Wx, Wh, b, bhh and rows of units."""

    TAPE = (*Carrying.TAPE, "_dgiven")
    PASSING = (*Carrying.PASSING, "_kernel_grads", "_kernel_weights")
    _dgiven: np.ndarray | None = None
    parameter_names: tuple[str, ...]
    _constants: Constants
    _kernel_grads: list[Any] | None = None
    _kernel_weights: list[Any] | None = None  # set if the kernels take the parameters unchanged

    def _start_constants(self, cell: Cell) -> None:
        self._constants = Constants(f"{type(self).__name__}.constants", cell)

    @property
    def constants(self) -> Constants:
        """The cell's constants by name; may be set one by one, or from a dict."""
        return self._constants

    @constants.setter
    def constants(self, values: Mapping[str, float]) -> None:
        self._constants.update(values)

    def share_constants(self, other: Arguments) -> None:
        """Use the constants of another layer of the same cell, including values set later."""
        self._constants = other._constants

    def _kernel_params(self) -> list[Any]:
        """Wx, Wh, b, bhh and units in the form kernels are compiled for; None for an array the cell does not
        have."""
        if self._kernel_weights is not None:
            return self._kernel_weights
        cell, weights = self.cell, self._weights
        arrays: list[Any] = [
            _check.arrays.kernel_ready(p) for p in (weights if cell.product == "h" else weights[:1])
        ]
        if cell.product != "h":
            arrays += [None, _check.arrays.kernel_ready(weights[2 if cell.product else 1])]
        if not cell.apart:
            arrays[3:] = (None,)
        if not cell.equations.units:
            arrays.append(None)
            if all(any(a is view for a in arrays) for view in weights):
                self._kernel_weights = arrays
            return arrays
        units = self._take("units", len(cell.equations.units), self.hidden_size)
        self._fill_units(units)
        return [*arrays[:4], units]

    def _fill_units(self, units: np.ndarray) -> None:
        """Fill one row for each weight of a diagonal product and each argument with one number per unit."""
        first = len(self.cell.gates) if self.cell.product == "diagonal" else 0
        named = dict(zip(self.parameter_names, self._weights, strict=True))
        if first:
            units[:first].reshape(-1)[...] = named["Wh"]
        for row, name in zip(units[first:], self.cell.equations.units[first:], strict=True):
            row[...] = named[name] if name in named else self._constants[name]

    def _gradient_arrays(self) -> list[Any]:
        """The arrays into which kernels write the gradients of Wx, Wh, b, bhh and of units."""
        named = dict(zip(self.parameter_names, self._dweights, strict=True))
        units = len(self.cell.equations.trained)
        return [
            named["Wx"],
            named["Wh"] if self.cell.product == "h" else None,
            named["b"],
            named.get("bhh"),
            np.zeros((units, self.hidden_size), self.dtype) if units else None,
        ]

    def _hand_out(self, dunits: np.ndarray) -> None:
        """Copy the gradients of parameters of units, one row each; a scalar's is the sum over units."""
        named = dict(zip(self.parameter_names, self._dweights, strict=True))
        first = len(self.cell.gates) if self.cell.product == "diagonal" else 0
        if first:
            named["Wh"][...] = dunits[:first].reshape(-1)
        for row, name in zip(dunits[first:], self.cell.equations.trained[first:], strict=True):
            is_scalar = self.cell.roles[name].kind == "scalar"
            named[name][...] = _total(row) if is_scalar else row

    @property
    def given_gradients(self) -> dict[str, np.ndarray]:
        """Copies of the gradients (N, T, H) of the given arrays of the last window, after `backward`."""
        wanted, dgiven, width = self.given_names, self._dgiven, self.hidden_size
        if not wanted:
            return {}
        _check.objects.called_before(f"{type(self).__name__}.given_gradients", dgiven is not None, "backward")
        assert dgiven is not None
        return {name: dgiven[..., i * width : (i + 1) * width].copy() for i, name in enumerate(wanted)}


def _total(row: np.ndarray) -> float:
    """The exact sum of a row (H,), the same in any order; NaN or an infinity if it is not finite."""
    if np.isfinite(row).all():
        with contextlib.suppress(OverflowError):
            return math.fsum(row.tolist())
    with np.errstate(all="ignore"):
        return float(row.sum(dtype=np.float64))


# The given arrays and random arguments of a cell, concatenated for one window.


class Randomness(Arguments):
    """A recurrent layer whose cell may take arrays and random numbers in addition to its inputs.

    A random number is a function of the seed, the number of the step since the layer was made, the sequence
    and the unit. So windows may be cut anywhere, and a run resumed from `rng_state` draws the same numbers as
    an unbroken run.
    """

    train_flg: bool = True
    _seed = 0
    _position = 0

    def _start_random(self, cell: Cell, rng: np.random.Generator | None) -> None:
        if cell.random:
            self._seed = int(_check.values.generator(type(self).__name__, rng).integers(2**63))

    @property
    def rng_state(self) -> tuple[int, int]:
        """The seed of random arguments and the number of steps drawn so far."""
        return self._seed, self._position

    @rng_state.setter
    def rng_state(self, state: tuple[int, int]) -> None:
        owner = f"{type(self).__name__}.rng_state"
        self._seed, self._position = _check.values.sizes(owner, ("seed", "step"), state)

    def _checked_given(
        self, owner: str, given: Mapping[str, Any], batch: int, steps: int
    ) -> dict[str, np.ndarray]:
        """The checked given arrays of a window, (N, T, H) or (N, T)."""
        names, shape = self.given_names, (batch, steps, self.hidden_size)
        _check.objects.known_arguments(owner, given, names)
        return {name: _check.arrays.given(owner, name, given.get(name), shape, self.dtype) for name in names}

    def _given(
        self,
        given: Mapping[str, np.ndarray],
        batch: int,
        steps: int,
        place: Place | None = None,
        buffer: str = "given",
    ) -> tuple[np.ndarray | None, int]:
        """The rows (N, T, K H) of a window from checked arrays, and the number of the step after it.

        `place` is the window's part of a sequence; the number is then that of the step after the sequence.
        """
        names, width = self.cell.rows, self.hidden_size
        if not names:
            return None, 0
        rows = self._take(buffer, batch, steps, len(names) * width)
        first, whole, row = (0, steps, 0) if place is None else place
        for index, name in enumerate(names):
            role, target = self.cell.roles[name], rows[..., index * width : (index + 1) * width]
            if role.kind == "given":
                array = given[name]
                target[...] = array if array.ndim == 3 else array[..., np.newaxis]
            elif not self.train_flg:
                target[...] = role.mean
            else:
                drawn = self._take(f"{buffer} drawn", batch, steps, width)
                draw = normal_forward if role.kind == "normal" else bernoulli_forward
                draw(self._seed, index, self._position + first, row, role.value, drawn)
                target[...] = drawn
        return rows, self._position + whole if self.train_flg else self._position
