"""Numbers as users give them: masked, missing, very large and very small ones."""

from __future__ import annotations

from typing import Any

import numpy as np

# Differences of larger numbers might be infinite.
_MOST = 1e300


def unmasked(value: Any) -> Any:
    """The same numbers, dates or texts with NaN, NaT or None for those that are masked, also inside lists."""
    if isinstance(value, list | tuple):
        return [unmasked(one) if isinstance(one, list | tuple | np.ma.MaskedArray) else one for one in value]
    if not isinstance(value, np.ma.MaskedArray):
        return value
    mask, array = np.ma.getmaskarray(value), np.array(value.data)
    if array.dtype.kind in "biu" and mask.any():
        array = array.astype(np.float64)
    elif array.dtype.kind not in "biufcmM":
        array = array.astype(object)
    if mask.any():
        array[mask] = {"m": np.timedelta64("NaT"), "M": np.datetime64("NaT"), "O": None}.get(
            array.dtype.kind, np.nan
        )
    return array


def nothing_masked(owner: str, name: str, value: Any) -> Any:
    """A value none of whose numbers or texts is masked: each has a meaning that nothing can stand for."""
    if isinstance(value, list | tuple):
        for index, one in enumerate(value):
            if isinstance(one, list | tuple | np.ma.MaskedArray):
                nothing_masked(owner, f"{name}[{index}]", one)
    elif isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        place = np.argwhere(np.ma.getmaskarray(value))[0].tolist()
        at = f" at {place[0] if len(place) == 1 else tuple(place)}" if place else ""
        raise ValueError(
            f"{owner}: {name} is masked{at}, but every entry is needed; fill it, or leave the row out."
        )
    return value


def is_missing(one: Any) -> bool:
    """Whether an object stands for no value: None, NaN, NaT or pandas.NA."""
    return one is None or type(one).__name__ == "NAType" or (not hasattr(one, "__len__") and bool(one != one))


def floats_of_objects(array: np.ndarray) -> np.ndarray:
    """Objects as float64 with NaN for those that stand for no value; an error if one is not a number."""
    found = np.array([np.nan if is_missing(one) else one for one in array.flat], np.float64)
    if found.shape != (array.size,):
        raise ValueError("a list is not a number")
    return found.reshape(array.shape)


def oversized(values: np.ndarray) -> np.ndarray:
    """Where numbers are infinite, or so large that differences might be."""
    return np.isinf(values) if values.dtype == np.float32 else np.abs(values) > _MOST


def size_text(value: Any) -> str:
    """A number that is too large, for a message."""
    return f"{value:g} (above {_MOST:g} in size)" if np.isfinite(value) else f"{abs(value)}"


def exponents(sizes: Any, ordinary: int = 300) -> np.ndarray:
    """Powers of two by which numbers up to these `sizes` are divided before squares of them are summed.

    They are 0 for ordinary sizes, from 2**-300 to 2**300. Division by a power of two is exact.

    Examples
    --------
    >>> exponents([1e200, 7.0, 0.0, 1e-320]).tolist()
    [665, 0, 0, -1063]
    """
    found = np.frexp(np.asarray(sizes, np.float64))[1]
    return np.where(np.abs(found) > ordinary, found, 0)


def unit_of_constant(values: np.ndarray) -> np.ndarray:
    """What deviations from constant values are measured by: 1, and in float64 that cannot tell steps of 1
    there, the rounding of a mean."""
    sizes = np.abs(values)
    return np.where(np.spacing(sizes) < 1, 1.0, 1e-12 * sizes)
