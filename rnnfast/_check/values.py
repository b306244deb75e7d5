"""Checks of single values: sizes, numbers, choices, generators; and what a user does not observe."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np


def size(owner: str, name: str, value: Any, minimum: int = 1, maximum: int | None = None) -> int:
    """A whole number of at least `minimum` and, unless it is None, at most `maximum`."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        raise TypeError(f"{owner}: {name} must be a whole number, got {value!r}.")
    if value < minimum:
        raise ValueError(f"{owner}: {name} must be at least {minimum}, got {value}.")
    if maximum is not None and value > maximum:
        raise ValueError(f"{owner}: {name} must be at most {maximum}, got {value}.")
    return int(value)


def sizes(owner: str, names: tuple[str, ...], values: Any) -> tuple[int, ...]:
    """A tuple or list with one whole number of at least 0 for each name."""
    if not isinstance(values, tuple | list) or len(values) != len(names):
        raise TypeError(f"{owner}: expected ({', '.join(names)}), got {values!r}.")
    return tuple(size(owner, name, value, minimum=0) for name, value in zip(names, values, strict=True))


def threads(name: str, value: str) -> int:
    """A number of threads from the environment."""
    if not value.isdecimal() or int(value) < 1:
        raise ValueError(
            f"{name} must be a whole number of at least 1, got {value!r}; unset it to use all cores."
        )
    return int(value)


def memory(owner: str, name: str, value: Any) -> int:
    """A number of bytes, from a number or a text such as "256MB" (decimal) or "1GiB" (binary)."""
    if not isinstance(value, str):
        return size(owner, name, value)
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kMGT]?)(i?)B\s*", value)
    if found is None:
        raise ValueError(f'{owner}: {name} must be a number of bytes or a text like "256MB", got {value!r}.')
    return int(float(found[1]) * (1024 if found[3] else 1000) ** " kMGT".index(found[2] or " "))


def memory_enough(owner: str, given: int, least: int, what: str) -> None:
    """A memory limit of at least `least` bytes, the minimum for `what`."""
    if given < least:
        enough = math.ceil(least / 1e4) / 100  # rounded up, so that the reported size suffices
        raise ValueError(
            f"{owner}: memory must be at least {enough:g}MB for {what}, got {given / 1e6:.3g}MB."
        )


def _real(owner: str, name: str, value: Any, what: str = "a number") -> None:
    """A Python or NumPy number, but not a boolean."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{owner}: {name} must be {what}, got {value!r}.")


def number(owner: str, name: str, value: Any, low: float = -np.inf, high: float = np.inf) -> float:
    """A finite number from `low` to `high`, both included."""
    _real(owner, name, value)
    if not np.isfinite(value):
        raise ValueError(f"{owner}: {name} must be finite, got {value}.")
    if not low <= value <= high:
        limits = f"from {low:g} to {high:g}" if high < np.inf else f"at least {low:g}"
        raise ValueError(f"{owner}: {name} must be {limits}, got {value}.")
    return float(value)


def number_below(owner: str, name: str, value: Any, low: float, limit: float) -> float:
    """A number of at least `low` and strictly below `limit`."""
    _real(owner, name, value)
    if not low <= value < limit:
        raise ValueError(f"{owner}: {name} must be at least {low:g} and below {limit:g}, got {value}.")
    return float(value)


def fraction(owner: str, name: str, value: Any) -> float:
    """A number between 0 and 1, both excluded."""
    _real(owner, name, value, "a number between 0 and 1")
    if not 0 < value < 1:
        raise ValueError(f"{owner}: {name} must lie between 0 and 1, both excluded, got {value}.")
    return float(value)


def above(owner: str, name: str, value: Any, low: float) -> float | None:
    """A finite number greater than `low`, or None."""
    if value is None:
        return None
    if number(owner, name, value, low) == low:
        raise ValueError(f"{owner}: {name} must be above {low:g}, or None, got {value}.")
    return float(value)


def boolean(owner: str, name: str, value: Any) -> bool:
    """True or False."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{owner}: {name} must be True or False, got {value!r}.")
    return bool(value)


def choice(owner: str, name: str, value: Any, allowed: tuple[str, ...]) -> str:
    """One of the `allowed` words, compared without case and returned in lower case."""
    found = value.lower() if isinstance(value, str) else value
    if found not in allowed:
        raise ValueError(f"{owner}: {name} must be one of {', '.join(allowed)}, got {value!r}.")
    return found


def precision(owner: str, value: Any, dtype: np.dtype) -> str | None:
    """None, or "bfloat16" where parameters are float32."""
    if value is None:
        return None
    found = value.lower() if isinstance(value, str) else value
    if found != "bfloat16":
        raise ValueError(f'{owner}: precision must be None or "bfloat16", got {value!r}.')
    if dtype != np.float32:
        raise TypeError(f'{owner}: precision="bfloat16" needs float32 parameters, got {dtype}.')
    return found


def generator(owner: str, rng: Any) -> np.random.Generator:
    """A generator of random numbers; None makes a new one."""
    if rng is None:
        return np.random.default_rng()
    if not isinstance(rng, np.random.Generator):
        raise TypeError(
            f"{owner}: rng must be a numpy.random.Generator, got {type(rng).__name__}; "
            f"pass numpy.random.default_rng(seed)."
        )
    return rng


def absent(owner: str, name: str, value: Any, needs: str) -> None:
    """The argument is None, since it belongs to another setting."""
    if value is not None:
        raise ValueError(f"{owner}: {name} belongs to {needs}; leave it out.")


def no_effect(option: str, when: str) -> ValueError:
    """The error for an option without effect."""
    return ValueError(f"{option} has no effect {when}; leave it out.")


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
