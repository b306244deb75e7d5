"""The constants of a layer's cell, checked when they are set."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping

from rnnfast import _check
from rnnfast.cells import Cell


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
