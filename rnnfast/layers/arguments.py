"""The parameters of a cell and their gradients, as the kernels of any cell take them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.cells import Cell
from rnnfast.layers.carrying import Carrying
from rnnfast.layers.constants import Constants


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
