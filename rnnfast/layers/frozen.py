"""Weights that do not change for a while: kernels pack them once, and callers cannot write into them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from operator import is_
from typing import Any

import numpy as np

from rnnfast.engine.arrays import base_of
from rnnfast.engine.locks import ObjectLock

NOTHING = np.zeros(0, np.int64)


class Freeze:
    """A period in which weights do not change, over at once for all who hold it."""

    is_on = False


class Packed:
    """What scratch memory holds of frozen weights, in the form that kernels read and write.

    Examples
    --------
    >>> packed, freeze, memory = Packed(), Freeze(), (np.empty(8), None)
    >>> freeze.is_on = True
    >>> made = packed.lend((freeze,), memory)
    >>> made.tolist()
    [0, 0]
    >>> made[:] = 1
    >>> packed.keep()
    >>> packed.lend((freeze,), memory).tolist(), packed.lend((), memory).size
    ([1, 1], 0)
    """

    def __init__(self) -> None:
        self._kept: tuple[Freeze, Sequence[Any], np.ndarray] | None = None
        self._lent: tuple[Freeze, Sequence[Any], np.ndarray] | None = None

    def lend(self, freezes: Sequence[Freeze], memory: Sequence[Any]) -> np.ndarray:
        """The kernels' record (2,) for these arrays; (0,) if no freeze is on. A call that fails leaves no
        record: `keep` it afterwards."""
        kept = self._kept
        self._kept = self._lent = None
        if kept is not None and kept[0].is_on and kept[0] in freezes and all(map(is_, kept[1], memory)):
            self._lent = kept
            return kept[2]
        freeze = next((one for one in freezes if one.is_on), None)
        if freeze is None:
            return NOTHING
        self._lent = freeze, memory, np.zeros(2, np.int64)
        return self._lent[2]

    def keep(self) -> None:
        """Keep the record that was lent."""
        self._kept, self._lent = self._lent, None


# Arrays that are read-only because of a freeze, bases before their views. An entry without a freeze that is
# on, left by an interrupt, is released with the next ones.
_protected: dict[int, tuple[np.ndarray, list[Freeze]]] = {}
_turn = ObjectLock()


def protect(arrays: Iterable[np.ndarray], freeze: Freeze) -> None:
    """Begin the freeze, and make the arrays and their bases read-only until `release`.

    If NumPy could not make one of them writable again, as memory of another library, the freeze does not
    begin: changes would not be seen.
    """
    found = {id(one): one for array in arrays for one in (base_of(array), array)}
    with _turn:
        if not all(id(one) in _protected or _can_return(one) for one in found.values()):
            return
        for key, one in found.items():
            if key in _protected:
                _protected[key][1].append(freeze)
            elif one.flags.writeable:
                _protected[key] = one, [freeze]
                one.flags.writeable = False
        freeze.is_on = True


def release(freeze: Freeze) -> None:
    """End the freeze; arrays that no other one protects are writable again."""
    freeze.is_on = False
    with _turn:
        for key, (array, freezes) in list(_protected.items()):
            freezes[:] = [one for one in freezes if one.is_on]
            if not freezes:
                array.flags.writeable = True
                del _protected[key]


@contextmanager
def lifted(arrays: Sequence[np.ndarray]) -> Iterator[None]:
    """Make protected arrays writable, for the constructor of another owner of the same arrays."""
    with _turn:
        held = [_protected[key][0] for key in _protected.keys() & {id(array) for array in arrays}]
        held = [one for array in held for one in (base_of(array), array)]
        try:
            for array in held:
                array.flags.writeable = True
            yield
        finally:
            for array in held:
                array.flags.writeable = False


def _can_return(array: np.ndarray) -> bool:
    """Whether a read-only array can be made writable again; NumPy asks the owner of the memory."""
    owner: Any = base_of(array)
    if owner.base is None:
        return owner is array or owner.flags.writeable or id(owner) in _protected
    try:
        return not memoryview(owner.base).readonly
    except TypeError:
        return False
