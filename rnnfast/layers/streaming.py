"""The step of a recurrent layer: as little Python as can be around a kernel of one to three microseconds."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from rnnfast import _check
from rnnfast.layers.base import Layer

PARAMS = ("Wx", "Wh", "b", "bhh")


class Known(NamedTuple):
    """What a step found right and the next one need not look at again."""

    x_shape: tuple[int, int]
    h_shape: tuple[int, int]
    dtype: np.dtype
    state: list[np.ndarray]
    Wx: np.ndarray
    Wh: np.ndarray
    b: np.ndarray
    last: np.ndarray
    arguments: tuple


class Streaming(Layer):
    """A layer that goes on from its state by one input at a time."""

    GATES = 1
    dtype: np.dtype
    input_size: int
    hidden_size: int
    _state: list[np.ndarray] | None

    _known: Known | None = None
    _apart: tuple[np.ndarray | None, np.ndarray | None] = (None, None)

    def step(self, x: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
        """Advance the state by one input, for streaming; the bits of `forward`, no gradient.

        Parameters
        ----------
        x : ndarray (N, D)
            One input a row. The first step starts from zero, or from `set_state`.
        out : ndarray (N, H), optional
            Where to write the result; a fresh array by default.

        Returns
        -------
        h : ndarray (N, H)
            The new state.
        """
        known = self._known
        if known is None:
            return self._first_step(x, out)
        x_shape, h_shape, dtype, state, Wx, Wh, b, last, arguments = known
        params = self.params
        # Each of these takes 0.05 us; the functions of _check, which word the errors, 0.5 us and more.
        if not (
            self._state is state
            and params[0] is Wx
            and params[1] is Wh
            and params[2] is b
            and params[-1] is last
            and type(x) is np.ndarray
            and x.dtype is dtype
            and x.shape == x_shape
            and x.flags.carray
        ):
            return self._first_step(x, out)
        if out is None:
            out = np.empty(h_shape, dtype)
        elif not (
            type(out) is np.ndarray
            and out.dtype is dtype
            and out.shape == h_shape
            and out.flags.carray
            and self._are_apart(x, out)
        ):
            return self._first_step(x, out)
        self._step(x, arguments, out)
        return out

    def _are_apart(self, x: np.ndarray, out: np.ndarray) -> bool:
        """Whether `out` shares no memory with `x` and the parameters; often both are those of last time."""
        last_x, last_out = self._apart
        if out is not last_out:
            for param in self.params:
                if np.may_share_memory(out, param):
                    return False
        elif x is last_x:
            return True
        if np.may_share_memory(out, x):
            return False
        self._apart = x, out
        return True

    def _first_step(self, x: np.ndarray, out: np.ndarray | None) -> np.ndarray:
        """A step that looks at everything, and keeps what it found where the next one may rely on it.

        Parameters are kept as views: whatever becomes of the shape or the flags of the caller's arrays, what
        the kernel gets stays as it was checked, in the memory that the caller may write into.
        """
        self._known, self._apart = None, (None, None)
        owner, depth, width = f"{type(self).__name__}.step", self.input_size, self.hidden_size
        why = "the last axis is the input size of Wx"
        x = _check.floats(owner, "x", x, ("N", depth), self.dtype, why)
        batch, cols = x.shape[0], self.GATES * width
        result = self._output(owner, out, (batch, width), x, *self.params)
        shapes = ((depth, cols), (width, cols), (cols,), (width,))[: len(self.params)]
        ready = [
            _check.floats(owner, name, param, shape, self.dtype)
            for name, param, shape in zip(PARAMS, self.params, shapes, strict=False)
        ]
        state = self._initial_state(owner, batch, 1, carried=True)
        if batch and all(array is param for array, param in zip(ready, self.params, strict=True)):
            arguments = self._step_arguments(state, [array.view() for array in ready])
            Wx, Wh, b = ready[:3]
            shapes_of_call = (batch, depth), (batch, width)
            self._known = Known(*shapes_of_call, self.dtype, state, Wx, Wh, b, ready[-1], arguments)
        else:
            arguments = self._step_arguments(state, ready)
        self._step(x, arguments, result)
        return result

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles: without the views, which would become arrays of their own."""
        return {**self.__dict__, "_known": None, "_apart": (None, None)}

    # What a subclass gives.

    def _output(self, owner: str, out: np.ndarray | None, shape: tuple, *inputs: np.ndarray) -> np.ndarray:
        """The caller's array or a fresh one."""
        raise NotImplementedError

    def _initial_state(self, owner: str, batch: int, steps: int, carried: bool) -> list[np.ndarray]:
        """The carried state, or zeros."""
        raise NotImplementedError

    def _step_arguments(self, state: list[np.ndarray], params: list[np.ndarray]) -> tuple:
        """What the kernel takes between the input and the output."""
        raise NotImplementedError

    def _step(self, x: np.ndarray, arguments: tuple, out: np.ndarray) -> None:
        """One step: the new h in `out` and in the state."""
        raise NotImplementedError
