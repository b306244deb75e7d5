"""Teams of PyTorch's own threads.

After each parallel operator PyTorch's OpenMP workers spin for some milliseconds and keep threads of a pool of
ours off their processors: an LSTM of 1.9 ms took 6.3. A team of those workers themselves takes 2.3.
"""

from __future__ import annotations

import ctypes
import functools
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rnnfast import _threads
from rnnfast.kernels.team import BY_UNITS, CALLS, MEMBERS, TEAM_SIZE, let_go

_BODY = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


@functools.cache
def _library() -> Any:
    """The OpenMP library that PyTorch has loaded, or None. Calling it lets go of Python's lock."""
    maps = Path("/proc/self/maps")
    if torch.backends.openmp.is_available() and maps.exists():
        found = re.findall(r"/\S*lib(?:gomp|omp|iomp5)\S*\.so\S*", maps.read_text(encoding="utf-8"))
        for path in dict.fromkeys(found):
            library = ctypes.CDLL(path)
            if hasattr(library, "GOMP_parallel"):
                return library
    return None


def run(kernel: Any, members: int, by_units: bool, arguments: Sequence[Any]) -> Any:
    """`kernel(team, member, *arguments)` on so many of PyTorch's threads; what it returns for member 0."""
    library, array = _library(), np.zeros(TEAM_SIZE, np.int64)
    array[MEMBERS], array[BY_UNITS] = members, by_units
    results: list[Any] = []
    errors: list[BaseException] = []

    def body(_: Any) -> None:
        member = -1
        try:
            member = library.omp_get_thread_num()
            if library.omp_get_num_threads() == members:
                result = kernel(array, member, *arguments)
            elif member == 0:  # OpenMP gave fewer threads than were asked for
                result = _threads.run(kernel, 1, False, arguments)
            if member == 0:
                results.append(result)
        except BaseException as error:
            errors.append(error)
            let_go(array)
        finally:
            if member == 0:
                array[CALLS] += 1  # the others need not look out for another call

    library.GOMP_parallel(_BODY(body), None, members, 0)
    if errors:
        raise errors[0]
    return results[0]


def borrow() -> None:
    """Have kernels run on PyTorch's threads from now on, where the system lets them."""
    if _library() is not None:
        _threads.borrow(run)
        if hasattr(os, "register_at_fork"):
            # OpenMP's threads do not survive a fork, and its library does not start others.
            os.register_at_fork(after_in_child=lambda: _threads.borrow(None))
