"""The step of a recurrent layer: minimal Python around a kernel of one to three microseconds."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from rnnfast import _check
from rnnfast.kernels.recurrence.recurrence import TimeLoop, time_loop
from rnnfast.layers.carrying import Randomness
from rnnfast.layers.frozen import Freeze

# A step with more multiply-adds, for one row and for several, is a window of one step, whose products run
# faster, if the weights are frozen or for this number of rows. It takes 15 us more in Python. Speed of frozen
# windows relative to steps, LSTM (N, D, H) on a Zen 4 core: 1.09 at (1, 512, 512), 2.3 at (1, 1024, 1024),
# 2.0 at (2, 512, 512), 1.2 at (8, 128, 128), 0.83 at (4, 128, 128), 1.3 at (64, 32, 64) and 2.0 at
# (256, 128, 128).
LEAST_PRODUCTS_OF_ONE, LEAST_PRODUCTS, LEAST_UNPACKED_ROWS = 4e6, 1e6, 32


class Known(NamedTuple):
    """The checks that a step has passed and the next one may skip."""

    x_shape: tuple[int, int]
    h_shape: tuple[int, int]
    dtype: np.dtype
    state: np.ndarray
    kernel: Any
    arguments: tuple


class Streaming(Randomness):
    """A layer that advances its state by one input at a time."""

    PASSING = (*Randomness.PASSING, "_known", "_apart", "_loop")
    _loop: TimeLoop | None = None
    _known: Known | None = None
    _apart: tuple[np.ndarray | None, np.ndarray | None] = (None, None)

    @property
    def loop(self) -> TimeLoop:
        """The compiled time loop of the cell."""
        if self._loop is None:
            self._loop = time_loop(self.cell.equations, self.rounds)
        return self._loop

    def _forget_precision(self) -> None:
        self._known = self._loop = None

    def step(self, x: np.ndarray, *, out: np.ndarray | None = None, **given: np.ndarray) -> np.ndarray:
        """Advance the state by one input, for streaming; the bits of `forward`, no gradient.

        Parameters
        ----------
        x : ndarray (N, D)
            One input per row. The first step starts from zero, or from `set_state`.
        out : ndarray (N, H), optional
            The array for the result; a new one by default.
        **given : ndarray (N, H) or (N,)
            The cell's given arrays, by name.

        Returns
        -------
        h : ndarray (N, H)
            The new state.
        """
        with self._turn:
            known = self._known
            if known is None or given:
                return self._first_step(x, out, given)
            x_shape, h_shape, dtype, state, kernel, arguments = known
            # Each of these takes 0.05 us; the functions of _check, which raise the errors, 0.5 us and more.
            if not (
                self._state is state
                and type(x) is np.ndarray
                and x.dtype is dtype
                and x.shape == x_shape
                and x.flags.carray
            ):
                return self._first_step(x, out, given)
            if out is None:
                out = np.empty(h_shape, dtype)
            elif not (
                type(out) is np.ndarray
                and out.dtype is dtype
                and out.shape == h_shape
                and out.flags.carray
                and self._are_apart(x, out)
            ):
                return self._first_step(x, out, given)
            kernel(x, *arguments, out)
            return out

    def _are_apart(self, x: np.ndarray, out: np.ndarray) -> bool:
        """Whether `out` shares no memory with `x` and the parameters; often both are the last step's."""
        last_x, last_out = self._apart
        if out is not last_out:
            for param in self._weights:
                if np.may_share_memory(out, param):
                    return False
        elif x is last_x:
            return True
        if np.may_share_memory(out, x):
            return False
        self._apart = x, out
        return True

    def _first_step(self, x: np.ndarray, out: np.ndarray | None, given: dict[str, np.ndarray]) -> np.ndarray:
        """A step with all checks; it caches their results if the next step may skip them."""
        self._known, self._apart = None, (None, None)
        owner, depth, width = f"{type(self).__name__}.step", self.input_size, self.hidden_size
        why = "the last axis is the input size of Wx"
        x = _check.arrays.floats(owner, "x", x, ("N", depth), self.dtype, why)
        batch = x.shape[0]
        result = self._output(owner, out, (batch, width), x, *self._weights)
        arrays = {name: np.expand_dims(array, 1) for name, array in given.items()}
        arrays = self._checked_given(owner, arrays, batch, 1)
        state = self._initial_state(owner, batch)
        rows, position = self._given(arrays, batch, 1, None, "given to step")
        params = self._kernel_params()
        arguments = self._step_arguments(None if rows is None else rows[:, 0], state, params)
        is_fixed = not self.cell.rows and not self.cell.equations.units
        if batch and is_fixed and all(any(a is view for a in params) for view in self._weights):
            self._known = Known((batch, depth), (batch, width), self.dtype, state, self.loop.step, arguments)
        if self._is_window(batch):
            self._known = None
            self._step_in_window(x, rows, state, result)
        else:
            self.loop.step(x, *arguments, result)
        if batch:
            self._position = position
        return result

    def _is_window(self, batch: int) -> bool:
        """Whether a step should be a window of one step."""
        depth = self.input_size + (self.hidden_size if self.cell.product == "h" else 0)
        products = batch * len(self.cell.gates) * self.hidden_size * depth
        least = LEAST_PRODUCTS_OF_ONE if batch == 1 else LEAST_PRODUCTS
        return products >= least and bool(batch >= LEAST_UNPACKED_ROWS or (self._freezes and self.freezes))

    def _step_in_window(
        self, x: np.ndarray, given: np.ndarray | None, state: np.ndarray, h: np.ndarray
    ) -> None:
        """Fill `h` (N, H) and advance the state (S, N, H) by the input (N, D) and the given arrays
        (N, 1, K H)."""
        raise NotImplementedError

    def begin_freeze(self, freeze: Freeze) -> None:
        """Check the next step again: it may become a window."""
        super().begin_freeze(freeze)
        self._known = None

    def _step_arguments(self, given: np.ndarray | None, state: np.ndarray, params: list[np.ndarray]) -> tuple:
        schedule = self.loop.schedule
        size = (schedule.columns + 1) * self.hidden_size
        scratch = None if schedule.in_place else self._take("step", size)
        wx, wh, b, *others = params
        more = (None if given is None else np.ascontiguousarray(given), *others)
        return state, wx, wh, b, None if all(a is None for a in more) else more, scratch
