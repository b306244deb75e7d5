"""Checks of arrays and of token ids."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from rnnfast._check.errors import CorpusError

FLOAT_DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


def float_dtype(owner: str, dtype: Any) -> np.dtype:
    """`dtype` as a NumPy dtype, which must be float32 or float64."""
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = None
    if found is None or found not in FLOAT_DTYPES:
        raise TypeError(f"{owner}: dtype must be float32 or float64, got {dtype!r}.")
    return found


def shape_text(shape: tuple) -> str:
    """A shape as NumPy prints it, with the names of axes unquoted."""
    inside = ", ".join(str(axis) for axis in shape)
    return f"({inside},)" if len(shape) == 1 else f"({inside})"


def as_array(owner: str, name: str, value: Any, dtype: np.dtype | None = None) -> np.ndarray:
    """A plain ndarray; lists are not accepted, since their dtype would be guessed."""
    if not isinstance(value, np.ndarray):
        kind, way = "" if dtype is None else f"np.{dtype}", ""
        library = type(value).__module__.partition(".")[0]
        if library == "torch":
            way = f"; pass {name}.numpy(), or use a layer of rnnfast.torch"
        elif library == "pandas":
            way = f"; pass {name}.to_numpy({kind})"
        elif hasattr(value, "to_numpy"):
            way = f"; pass {name}.to_numpy()" + (f".astype({kind})" if kind else "")
        elif isinstance(value, list | tuple):
            way = f"; pass np.array({name}{kind and ', '}{kind})"
        raise TypeError(f"{owner}: {name} must be a NumPy array, got {type(value).__name__}{way}.")
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{owner}: {name} must be a plain NumPy array, got a masked array; fill it first.")
    if isinstance(value, np.matrix):  # its `*` is a matrix product, and it always has two axes
        raise TypeError(f"{owner}: {name} must be a plain NumPy array, got a matrix; pass np.array({name}).")
    return value


def shape(
    owner: str, name: str, value: Any, expected: tuple, why: str = "", dtype: np.dtype | None = None
) -> np.ndarray:
    """An array of the `expected` shape; a string in it matches any length, as in `("N", "T", 100)`.

    A leading `"..."` matches one or more axes of any length. `dtype` is what an error proposes.
    """
    array = value if type(value) is np.ndarray else as_array(owner, name, value, dtype)
    found, wanted = array.shape, expected
    if found == expected:
        return array
    if expected and expected[0] == "...":
        wanted = ("...",) * max(1, len(found) - len(expected) + 1) + expected[1:]
    if len(found) == len(wanted):
        for have, want in zip(found, wanted, strict=True):
            if have != want and not isinstance(want, str):
                break
        else:
            return array
    received = shape_text(found) + (f"; {why}" if why else "")
    raise ValueError(f"{owner}: {name} must be {shape_text(expected)}, got {received}.")


def float_array(
    owner: str, name: str, value: Any, expected: tuple, dtype: np.dtype, why: str = ""
) -> np.ndarray:
    """An array of floats in the layer's dtype, in any layout and byte order."""
    array = shape(owner, name, value, expected, why, dtype)
    if array.dtype != dtype and array.dtype.newbyteorder("=") != dtype:
        raise TypeError(
            f"{owner}: {name} must be {dtype}, the dtype of the parameters, got {array.dtype}; "
            f"convert it with {name}.astype(np.{dtype})."
        )
    return array


def floats(owner: str, name: str, value: Any, expected: tuple, dtype: np.dtype, why: str = "") -> np.ndarray:
    """An array of floats in the layer's dtype, ready for a kernel; copied only if its layout requires it."""
    array = float_array(owner, name, value, expected, dtype, why)
    return kernel_ready(array) if array.dtype == dtype else array.astype(dtype, order="C")


def kernel_ready(array: np.ndarray) -> np.ndarray:
    """The same values as a writable, C-contiguous, aligned, native ndarray, the only form kernels accept."""
    if type(array) is np.ndarray and array.flags.carray:  # C-contiguous, aligned and writable
        return array
    return np.array(array, dtype=array.dtype.newbyteorder("="), order="C", copy=True, subok=False)


def out(owner: str, value: Any, expected: tuple, dtype: np.dtype, *inputs: np.ndarray) -> np.ndarray:
    """A caller's output array: right shape and dtype, C-contiguous, writable, not overlapping an input."""
    array = shape(owner, "out", value, expected)
    if array.dtype != dtype:
        raise TypeError(f"{owner}: out must be {dtype}, got {array.dtype}.")
    if not array.flags.writeable:
        raise ValueError(f"{owner}: out is read-only; pass a writable array.")
    if not array.flags.carray:
        raise ValueError(f"{owner}: out must be C-contiguous and aligned; pass np.empty(shape, dtype).")
    for given in inputs:
        if np.may_share_memory(array, given):
            raise ValueError(f"{owner}: out shares memory with an input; pass a separate array.")
    return array


def apart(owner: str, name: str, array: np.ndarray, grads: Iterable[np.ndarray]) -> None:
    """The array that `backward` reads shares no memory with the gradients that it overwrites."""
    if any(np.may_share_memory(array, grad) for grad in grads):
        raise ValueError(
            f"{owner}: {name} shares memory with grads, which backward overwrites; pass {name}.copy()."
        )


def whole_file(owner: str, *arrays: Any) -> None:
    """The memory-mapped file has not been truncated; a read beyond its end would kill the process.

    The check runs before each window. It misses a file that is truncated while a window is read.
    """
    for array in arrays:
        base, start = array, 0
        while isinstance(base, np.ndarray):
            start = getattr(base, "offset", start)
            base = base.base
        if isinstance(base, mmap.mmap):
            end = start - start % mmap.ALLOCATIONGRANULARITY + len(base)
            if base.size() < end:
                raise CorpusError(
                    f"{owner}: the memory-mapped file was truncated while in use: {end} bytes were "
                    f"mapped, {base.size()} are left; do not change files that training reads, or pass "
                    f"np.array(ids)."
                )


def integers(owner: str, name: str, array: np.ndarray) -> np.ndarray:
    """An array of any integer type."""
    if array.dtype.kind not in "iu":
        raise TypeError(f"{owner}: {name} must hold integers, got {array.dtype}.")
    return array


def whole_numbers(owner: str, name: str, value: Any, expected: tuple) -> np.ndarray:
    """An array of whole numbers, as int64, ready for a kernel."""
    return integers(owner, name, shape(owner, name, value, expected)).astype(np.int64, order="C")


def given(owner: str, name: str, value: Any, expected: tuple[int, int, int], dtype: np.dtype) -> np.ndarray:
    """An array (N, T, H) or (N, T) that a cell requires."""
    if value is None:
        raise TypeError(f"{owner}: the cell needs the argument {name}, an array (N, T, H) or (N, T).")
    return floats(owner, name, value, expected[: 2 if np.ndim(value) == 2 else 3], dtype)


def numbers(owner: str, name: str, value: np.ndarray) -> np.ndarray:
    """An array of real numbers or booleans."""
    if value.dtype.kind not in "biuf":
        raise TypeError(f"{owner}: {name} must hold numbers, got {value.dtype}.")
    return value


def mask(owner: str, name: str, value: Any, expected: tuple) -> np.ndarray:
    """A boolean array."""
    array = shape(owner, name, value, expected)
    if array.dtype != np.bool_:
        raise TypeError(f"{owner}: {name} must hold True and False, got {array.dtype}.")
    return kernel_ready(array)


def binary(owner: str, name: str, value: Any, expected: tuple) -> np.ndarray:
    """Labels that are 0 or 1, of any numeric type."""
    array = shape(owner, name, value, expected)
    wrong = (array != 0) & (array != 1)
    if wrong.any():
        where = first_place(wrong)
        raise ValueError(f"{owner}: {name} must hold 0 and 1, got {array[where]} at {where}.")
    return array


def class_numbers(owner: str, ts: np.ndarray, classes: int, is_read: Callable[[], np.ndarray]) -> None:
    """Targets (N, T, O) that are class numbers where they are read, `is_read()` (N, steps)."""
    wrong = ~((ts >= 0) & (ts < classes) & (ts == np.floor(ts)))
    if not wrong.any():
        return
    read = is_read()
    wrong[:, read.shape[1] :] = False
    wrong[:, : read.shape[1]] &= read[..., np.newaxis]
    if wrong.any():
        place = first_place(wrong)
        raise ValueError(
            f"{owner}: ts must hold class numbers from 0 to {classes - 1}, got {ts[place]:g} at {place}."
        )


def lengths(owner: str, value: Any, batch: int, steps: int) -> np.ndarray:
    """The length of each of `batch` sequences, from 0 to `steps`, as int64."""
    array = as_array(owner, "lengths", np.asanyarray(value))
    if array.size:  # an empty list becomes an array of floats
        integers(owner, "lengths", array)
    if array.shape != (batch,):
        raise ValueError(
            f"{owner}: lengths must be {shape_text((batch,))}, one per row of the batch, "
            f"got {shape_text(array.shape)}."
        )
    wrong = np.flatnonzero((array < 0) | (array > steps))
    if wrong.size:
        raise ValueError(
            f"{owner}: lengths must be from 0 to {steps}, the steps of the input, "
            f"got {array[wrong[0]]} at {wrong[0]}."
        )
    return array.astype(np.int64)


def weights(owner: str, value: Any, shape: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    """Weights of steps (N, T) or of sequences (N,) as (N, T) or (N, 1), each finite and at least 0."""
    array = as_array(owner, "weights", np.asanyarray(value))
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{owner}: weights must be numbers, got {array.dtype}.")
    if array.shape not in (shape, shape[:1]):
        raise ValueError(
            f"{owner}: weights must be {shape_text(shape)} or {shape_text(shape[:1])}, got "
            f"{shape_text(array.shape)}."
        )
    array = np.ascontiguousarray(array[:, np.newaxis] if array.ndim == 1 else array, dtype)
    wrong = ~(np.isfinite(array) & (array >= 0))
    if wrong.any():
        place = first_place(wrong)
        raise ValueError(f"{owner}: weights must be finite and at least 0, got {array[place]} at {place}.")
    return array


def first_place(wrong: np.ndarray) -> tuple[int, ...]:
    """The indices of the first True."""
    return tuple(int(axis) for axis in np.argwhere(wrong)[0])


def _no_id(owner: str, name: str, upper: int, value: Any, place: int | tuple[int, ...]) -> IndexError:
    """The error for an array with an id outside the vocabulary."""
    return IndexError(f"{owner}: {name} must hold ids from 0 to {upper - 1}, got {value} at {place}.")


def ids(
    owner: str, name: str, value: Any, expected: tuple, upper: int, also: int | None = None
) -> np.ndarray:
    """Token ids as int64; each is in [0, upper), or equals `also` (a label to ignore)."""
    array = integers(owner, name, shape(owner, name, value, expected))
    if array.size:  # compared in their own dtype: as int64, 2**64 - 1 would be -1
        low, high = int(array.min()), int(array.max())
        if low < 0 or high >= upper:
            wrong = (array < 0) | (array >= upper)
            if also is not None:
                wrong &= array != also
            if wrong.any():
                where = first_place(wrong)
                raise _no_id(owner, name, upper, array[where], where)
    return kernel_ready(array.astype(np.int64, copy=False))


def ids_1d(owner: str, name: str, value: Any) -> np.ndarray:
    """Token ids (tokens,) of any integer type, memory-mapped or not; never copied."""
    return integers(owner, name, shape(owner, name, value, ("tokens",))).view(np.ndarray)


def id_sequence(owner: str, name: str, value: Any, upper: int) -> np.ndarray:
    """Token ids (tokens,) from a list or an array, as int64; each is in [0, upper)."""
    array = as_array(owner, name, np.asanyarray(value))
    if not array.size and array.ndim == 1:
        return np.zeros(0, dtype=np.int64)
    return ids(owner, name, array, ("tokens",), upper)


def ids_in_vocabulary(owner: str, name: str, value: np.ndarray, upper: int) -> None:
    """Every id of a text is in [0, upper); a memory map is read in pieces."""
    piece = 1 << 20
    for start in range(0, len(value), piece):
        whole_file(owner, value)
        part = value[start : start + piece]
        if part.min() < 0 or part.max() >= upper:
            wrong = int(np.flatnonzero((part < 0) | (part >= upper))[0])
            raise _no_id(owner, name, upper, part[wrong], start + wrong)


def token_id(owner: str, value: int, upper: int) -> IndexError:
    """The error for a single id outside the vocabulary."""
    return IndexError(f"{owner}: ids must be from 0 to {upper - 1}, got {value}.")


def one_hot(owner: str, name: str, value: np.ndarray) -> np.ndarray:
    """The index of the single 1 in each row (..., V), as int64 (...)."""
    labels = np.asarray(numbers(owner, name, value).argmax(axis=-1))
    ones = np.take_along_axis(value, labels[..., np.newaxis], axis=-1)[..., 0] == 1
    # Each row has a 1, and the number of nonzero elements is the number of rows. Comparing floats with 0
    # first halves the time: 4.3 instead of 9.0 ms for (20, 35, 10000) float32.
    nonzero = value != 0 if value.dtype.kind == "f" else value
    if not ones.all() or np.count_nonzero(nonzero) != labels.size:
        wrong = ~ones | (np.count_nonzero(value, axis=-1) != 1)
        where = first_place(wrong)
        raise ValueError(
            f"{owner}: {name} with the shape of the scores must be one-hot, one 1 in each row, 0 elsewhere, "
            f"but the row at {where} is not; pass ids {shape_text(labels.shape)} to leave positions out."
        )
    return labels.astype(np.int64, copy=False)
