"""Lists of arrays that are never replaced, and copies of arrays that share memory.

NumPy copies and pickles a view as a separate array. This would separate tied weights, `embed_W` and
`embed_W.T`; so views are copied together with their base array, which is copied only once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import is_
from typing import Any, NamedTuple, NoReturn

import numpy as np

from rnnfast import _check


class FixedList(list):
    """The `params` or `grads` of a layer or a model: arrays that are written in place, never replaced.

    Compiled code relies on arrays checked at construction. Slices and copies are ordinary lists.
    """

    def __init__(self, owner: str, name: str, arrays: Iterable[np.ndarray]) -> None:
        super().__init__(arrays)
        self._what = owner, name

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise _check.objects.fixed(*self._what)

    def __setitem__(self, place: Any, value: Any) -> None:
        """Allow only the same array: `params[0] *= 2` writes in place and then sets it."""
        if value is not self[place]:
            self._refuse()

    __delitem__ = __iadd__ = __imul__ = _refuse
    append = extend = insert = remove = pop = clear = sort = reverse = _refuse

    def __reduce_ex__(self, protocol: Any) -> tuple[type[list], tuple[list[np.ndarray]]]:
        return list, (list(self),)


class View(NamedTuple):
    """A view, described by its base array, the byte offset of its first element, shape and strides."""

    base: np.ndarray
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype

    def array(self) -> np.ndarray:
        """The view as an array."""
        memory = self.base.reshape(-1, order="A").view(np.uint8)
        return np.ndarray(self.shape, self.dtype, memory, self.offset, self.strides)


def base_of(array: np.ndarray) -> np.ndarray:
    """The base array of a view; the array itself if it is not a view."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def as_views(arrays: Iterable[np.ndarray]) -> list[np.ndarray | View]:
    """The arrays with each view described by its base, for copies and pickles; `from_views` reverses it."""
    return [_described(array) for array in arrays]


def _described(array: np.ndarray) -> np.ndarray | View:
    base = base_of(array)
    # NumPy copies memory with gaps without them, so offsets would not fit the copy.
    if base is array or not (base.flags.c_contiguous or base.flags.f_contiguous):
        return array
    offset = array.__array_interface__["data"][0] - base.__array_interface__["data"][0]
    return View(base, offset, array.shape, array.strides, array.dtype)


def from_views(kept: Iterable[np.ndarray | View]) -> list[np.ndarray]:
    """The arrays that `as_views` described."""
    return [part.array() if isinstance(part, View) else part for part in kept]


class Seen:
    """A result that belongs to certain array objects: it is returned again for the same objects only.

    A copy has seen nothing.

    Examples
    --------
    >>> seen, array = Seen(), np.ones(2)
    >>> seen.of([array]), seen.keep([array], "checked"), seen.of([array]), seen.of([array.copy()])
    (None, None, 'checked', None)
    """

    def __init__(self) -> None:
        self._arrays: tuple[np.ndarray, ...] = ()
        self._made: Any = None

    def of(self, arrays: Sequence[np.ndarray]) -> Any:
        """The result kept for these arrays, in this order; None for other arrays."""
        same = len(arrays) == len(self._arrays) and all(map(is_, arrays, self._arrays))
        return self._made if same else None

    def keep(self, arrays: Sequence[np.ndarray], made: Any) -> None:
        """Keep a result for these arrays."""
        self._arrays, self._made = tuple(arrays), made

    def __reduce__(self) -> Any:
        return Seen, ()


# The `repr` of layers, models, optimizers and trainers: one line, like the constructor call.


def shown(
    owner: object, values: dict[str, Any], params: Sequence[np.ndarray] = (), *, count: bool = False
) -> str:
    """``Name(key=value, ...)``, optionally with the number of parameters, and their dtype if it is not
    float32."""
    parts = [f"{name}={value!r}" for name, value in values.items()]
    if count:
        parts.append(f"parameters={sum(param.size for param in params):,}")
    if params and params[0].dtype != np.float32:
        parts.append(f"dtype={params[0].dtype}")
    return f"{type(owner).__name__}({', '.join(parts)})"
