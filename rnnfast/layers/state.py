"""The carried state of a layer or a model as a value."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast._check.values import nothing_masked
from rnnfast.files.tensors import Spec, read_tensors, write_tensors

FORMAT = "rnnfast-state-1"
# A Stack of Bidirectional layers nests three deep.
_DEEPEST = 4
_DTYPES = tuple(np.dtype(name) for name in ("float32", "float64", "int64"))


class State:
    """The carried state of a layer or a model; it can be copied, indexed by rows, saved and restored.

    `State.of(layer)` copies the state, and `layer.set_state(state)` restores it, for every recurrent layer,
    `Bidirectional`, `Stack`, `RNNLM`, `CBOWLM` and `SequenceRegressor`. The rows are the sequences of a
    batch: `state[rows]` is the state of these sequences alone, and they continue with the same results as in
    the whole batch.

    Parameters
    ----------
    value : nested tuple of ndarray (N, ...), ndarray or None
        A state as `get_state` returns it; it is copied. None is a fresh state.

    Attributes
    ----------
    value : nested tuple of ndarray (N, ...), ndarray or None
        The state as `get_state` returns it.
    rows : int or None
        N; None if everything is fresh.

    Raises
    ------
    TypeError, ValueError
        `value` is no such nesting, or the arrays differ in their number of rows.

    Examples
    --------
    >>> import numpy as np, rnnfast
    >>> layer = rnnfast.TimeLSTM.from_sizes(3, 4, rng=np.random.default_rng(0), stateful=True)
    >>> xs = np.ones((5, 2, 3), np.float32)
    >>> _ = layer.forward(xs)
    >>> state = rnnfast.State.of(layer)
    >>> state
    State(rows=5, arrays=2)
    >>> expected = layer.forward(xs)
    >>> layer.set_state(state[1:3])
    >>> bool((layer.forward(xs[1:3]) == expected[1:3]).all())
    True
    """

    def __init__(self, value: Any = None) -> None:
        self.rows: int | None = None
        self.value: Any = _rebuilt(plain(value), lambda array: np.array(self._checked(array), order="C"))

    def _checked(self, array: np.ndarray) -> np.ndarray:
        """One array, checked to have as many rows as the others."""
        array = nothing_masked("State", "an array", array)
        if array.dtype not in _DTYPES or array.ndim == 0:
            raise TypeError(
                f"State: arrays must be (N, ...) in float32, float64 or int64, got {array.shape} "
                f"{array.dtype}."
            )
        if self.rows is None:
            self.rows = array.shape[0]
        elif array.shape[0] != self.rows:
            raise ValueError(
                f"State: every array must have the same number of rows, got {self.rows} and {array.shape[0]}."
            )
        return array

    @classmethod
    def of(cls, owner: Any) -> State:
        """A copy of the current state of a layer or a model."""
        _check.objects.offers("State.of", "owner", owner, ("get_state",), "TimeLSTM or RNNLM")
        return cls(owner.get_state())

    @property
    def arrays(self) -> list[np.ndarray]:
        """The arrays (N, ...) in order, not copied."""
        return list(_leaves(self.value))

    def copy(self) -> State:
        """A copy of the state."""
        return State(self.value)

    __copy__ = copy

    def __getitem__(self, rows: Any) -> State:
        """The state of some rows: a slice, an index array, a mask or one number, which gives one row."""
        if self.rows is None:
            return State(self.value)
        kept = self._indices(rows)
        return State(_rebuilt(self.value, lambda array: array[kept]))

    def __setitem__(self, rows: Any, other: State) -> None:
        """Replace these rows by the rows of another state of the same kind."""
        places, given = self._indices(rows), State(other)
        if given.rows is None and self.rows is not None:  # fresh is zero, as reset_state makes it
            given = State(_rebuilt(self.value, lambda array: np.zeros_like(array[places])))
        mine, theirs = self.arrays, given.arrays
        _check.objects.equal("State", "arrays here and in the other state", len(mine), len(theirs))
        for array, new in zip(mine, theirs, strict=True):
            _check.arrays.shape("State", "an array of the other state", new, array[places].shape)
            _check.objects.equal("State", "dtypes", array.dtype, new.dtype)
        for array, new in zip(mine, theirs, strict=True):
            array[places] = new

    def _indices(self, rows: Any) -> np.ndarray:
        found = np.arange(self.rows or 0)[rows]
        return np.atleast_1d(found)

    def __eq__(self, other: object) -> bool:
        """Whether both states have the same structure, shapes, dtypes and bits."""
        if not isinstance(other, State):
            return NotImplemented
        pairs = list(zip(self.arrays, other.arrays, strict=False))
        return _outline(self.value) == _outline(other.value) and all(
            one.shape == two.shape and one.tobytes() == two.tobytes() for one, two in pairs
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"State(rows={self.rows}, arrays={len(self.arrays)})"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the state to one safetensors file, atomically.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> state = State((np.ones((2, 3)), np.zeros((2, 3))))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     state.save(pathlib.Path(folder) / "state.safetensors")
        ...     State.load(pathlib.Path(folder) / "state.safetensors") == state
        True
        """
        outline, tensors = packed(self)
        write_tensors(path, FORMAT, tensors, {"state": outline})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> State:
        """Read a state from a file of `save`.

        Raises
        ------
        CheckpointError
            The file is damaged, or holds no state.
        OSError
            The file cannot be read.
        """
        _check.training.readable("State.load", path)
        described, tensors = read_tensors(path, FORMAT, lambda described: specs(described.get("state")))
        state = cls()
        try:
            state.value = _rebuilt(unpacked(described["state"], tensors), state._checked)
            return state
        except (TypeError, ValueError) as error:
            raise _check.training.malformed(path, f"holds no state ({error})") from None


def joined(states: Sequence[State]) -> State:
    """The rows of several states of one kind, in order; those that are fresh have no rows, unless all are."""
    filled = [state for state in states if state.rows]
    if not filled:
        return State(states[0].value)
    arrays = zip(*(state.arrays for state in filled), strict=True)
    whole = map(np.concatenate, arrays)
    return State(_rebuilt(filled[0].value, lambda array: next(whole)))


def plain(state: Any) -> Any:
    """The argument of `set_state`, converted to the form that `get_state` returns."""
    return state.value if isinstance(state, State) else state


def _leaves(value: Any) -> Iterator[np.ndarray]:
    if isinstance(value, tuple):
        for part in value:
            yield from _leaves(part)
    elif value is not None:
        yield value


def _rebuilt(value: Any, change: Callable[[np.ndarray], np.ndarray], depth: int = 0) -> Any:
    """The same nesting with each array changed."""
    if value is None:
        return None
    if isinstance(value, tuple | list) and depth < _DEEPEST:
        return tuple(_rebuilt(part, change, depth + 1) for part in value)
    if not isinstance(value, np.ndarray):
        raise TypeError(f"State: expected what get_state() returns, got {type(value).__name__} in it.")
    return change(value)


def _outline(value: Any) -> Any:
    """The nesting as JSON, with a dtype in place of each array."""
    if isinstance(value, tuple):
        return [_outline(part) for part in value]
    return None if value is None else {"dtype": value.dtype.name, "axes": value.ndim}


def packed(state: State) -> tuple[Any, dict[str, np.ndarray]]:
    """The outline of a state as JSON values, and its numbered arrays, not copied."""
    return _outline(state.value), {f"state.{i}": array for i, array in enumerate(state.arrays)}


def specs(outline: Any) -> dict[str, Spec]:
    """The expected arrays of an outline; ValueError or TypeError if the outline is invalid."""
    found: list[Spec] = []

    def walk(part: Any, depth: int) -> None:
        if isinstance(part, list) and depth < _DEEPEST:
            for inner in part:
                walk(inner, depth + 1)
        elif part is not None:
            if not isinstance(part, dict) or set(part) != {"dtype", "axes"}:
                raise ValueError("it lacks the outline of a state")
            _check.values.choice("State", "dtype", part["dtype"], tuple(dtype.name for dtype in _DTYPES))
            axes = _check.values.size("State", "axes", part["axes"], 1, 8)
            found.append(Spec(np.dtype(part["dtype"]), (-1,) * axes))

    walk(outline, 0)
    return {f"state.{i}": spec for i, spec in enumerate(found)}


def unpacked(outline: Any, tensors: dict[str, np.ndarray]) -> Any:
    """The arrays, nested as in an outline; they match its `specs`."""
    numbers = iter(range(len(tensors)))

    def walk(part: Any) -> Any:
        if isinstance(part, list):
            return tuple(walk(inner) for inner in part)
        return None if part is None else tensors[f"state.{next(numbers)}"]

    return walk(outline)
