"""Arrays and tensors of other libraries as NumPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnfast import _check

HALVES = ("float16", "bfloat16")  # both fit into float32


def copied(owner: str, name: str, value: Any, dtype: np.dtype | None = None) -> np.ndarray:
    """A C-ordered copy of an array or tensor of any library, in float32 or float64.

    `dtype` converts it; without one, only float32 and float64 are accepted, and kept.
    """
    is_tensor = hasattr(value, "detach")
    if not (is_tensor or hasattr(value, "__array__")) or isinstance(value, np.ndarray):
        value = _check.shape(owner, name, value, ("...",) if np.ndim(value) else ())
    kind = getattr(value.dtype, "name", str(value.dtype).rpartition(".")[2])
    if kind not in ("float32", "float64") and (dtype is None or kind not in HALVES):
        raise _check.array_kind(owner, name, kind)
    if getattr(value, "is_meta", False):
        raise _check.without_numbers(owner, name)
    if is_tensor:
        value = value.detach().cpu()
        value = (value.float() if kind in HALVES else value).numpy()
    return np.array(np.asarray(value), np.dtype(kind) if dtype is None else dtype, order="C")


def copied_all(owner: str, given: dict[str, Any], dtype: np.dtype | None) -> dict[str, np.ndarray]:
    """Copies of all arrays of a model, which must be finite and of one dtype."""
    copies = {name: copied(owner, name, value, dtype) for name, value in given.items()}
    first = next(iter(copies.values()))
    for name, array in copies.items():
        if array.dtype != first.dtype:
            raise _check.several_dtypes(owner, name, array.dtype.name, first.dtype.name)
        _check.finite_array(owner, name, array)
    return copies
