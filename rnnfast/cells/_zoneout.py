"""Cells made from other cells."""

from __future__ import annotations

import inspect
from typing import Any

from rnnfast import _check
from rnnfast.cells._cell import Cell
from rnnfast.cells._roles import bernoulli


def zoneout(cell: Cell, p: float) -> Cell:
    """The cell with zoneout: each state keeps its old value with probability `p`.

    Every sequence, step and unit is drawn independently. In prediction (``layer.train_flg = False``) the
    state is the mean of both cases.

    Parameters
    ----------
    cell : Cell
    p : float
        From 0 to 1.

    Returns
    -------
    Cell

    Notes
    -----
    Source: Krueger et al., *Zoneout: regularizing RNNs by randomly preserving hidden activations*, 2017.

    Examples
    --------
    >>> import rnnfast
    >>> from rnnfast.cells import lstm, zoneout
    >>> zoneout(lstm, 0.1)
    <cell lstm_zoneout(f, g, i, o, h, c, keep_h, keep_c)>
    """
    if not isinstance(cell, Cell):
        raise TypeError(f"zoneout: cell must be a cell of rnnfast.cell, got {type(cell).__name__}.")
    ratio = _check.values.number("zoneout", "p", p, 0.0, 1.0)
    taken, prefix = {*cell.gates, *cell.states, *cell.roles}, "keep_"
    while any(f"{prefix}{state}" in taken for state in cell.states):
        prefix = f"keep_{prefix}"
    keeps = [f"{prefix}{state}" for state in cell.states]
    gates, names = len(cell.gates), set(cell.roles)

    def step(*arguments: Any, **named: Any) -> Any:
        after = cell.step(*arguments, **{name: value for name, value in named.items() if name in names})
        after = after if isinstance(after, tuple | list) else (after,)
        before = arguments[gates:]
        return tuple(
            named[keep] * old + (1 - named[keep]) * new
            for keep, old, new in zip(keeps, before, after, strict=True)
        )

    step.__doc__ = f"{inspect.getdoc(cell.step) or cell.name}\n\nWith zoneout of probability {ratio:g}."
    roles = {**cell.roles, **{keep: bernoulli(ratio) for keep in keeps}}
    return Cell(
        step, cell.gates, cell.states, roles, name=f"{cell.name}_zoneout", product=cell.product,
        apart=cell.apart, again=cell.again, start=cell.start, title=f"{cell.title} with zoneout",
        forgets=cell.forgets,
    )  # fmt: skip
