"""Checks of ranks: the processes that train one model together."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np


def mpi(owner: str) -> Any:
    """The module mpi4py.MPI; ImportError names the missing package."""
    if importlib.util.find_spec("mpi4py") is None:
        raise ImportError(f"{owner} needs mpi4py: pip install 'rnnfast[mpi]'.")
    try:
        return importlib.import_module("mpi4py.MPI")
    except (ImportError, RuntimeError):
        raise ImportError(
            f"{owner} needs an MPI library, which mpi4py does not find: pip install mpich, or load a module."
        ) from None


def number_of_ranks(owner: str, size: int) -> None:
    """Ranks are added in pairs, and pairs of pairs."""
    if size & (size - 1):
        below = 1 << (size.bit_length() - 1)
        raise ValueError(
            f"{owner}: the number of ranks must be a power of two, got {size}; start {below} or {2 * below}."
        )


def exchanged(owner: str, array: Any) -> np.ndarray:
    """A flat view of an array that is summed in place."""
    is_array = isinstance(array, np.ndarray)
    if is_array and array.dtype in (np.float32, np.float64) and array.dtype.isnative:
        if array.flags.carray:
            return array.reshape(-1)
        raise ValueError(f"{owner}: arrays must be C-contiguous, aligned and writable.")
    given = f"{array.dtype}" if is_array else type(array).__name__
    raise TypeError(f"{owner}: arrays must be float32 or float64 arrays, got {given}.")
