"""The given arrays and random arguments of a cell, concatenated for one window."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.cells import Cell
from rnnfast.kernels.elementwise.noise import bernoulli_forward, normal_forward
from rnnfast.layers.arguments import Arguments
from rnnfast.layers.window import Place


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
