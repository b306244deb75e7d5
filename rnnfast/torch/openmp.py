"""Teams of PyTorch's own threads.

After each parallel operator PyTorch's OpenMP workers spin for some milliseconds and keep threads of a pool of
ours off their processors: an LSTM of 1.9 ms took 6.3. A team of those workers themselves takes 2.3.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rnnfast.engine import threads
from rnnfast.kernels.team.team import CALLS, MEMBERS, WAITED, let_go

_BODY = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


@functools.cache
def _library() -> Any:
    """The OpenMP library that PyTorch has loaded, or None. Calling it lets go of Python's lock."""
    maps = Path("/proc/self/maps")
    if torch.backends.openmp.is_available() and maps.exists():
        found = re.findall(r"\s(/.*lib(?:gomp|omp|iomp5)\S*\.so\S*)$", maps.read_text(), re.MULTILINE)
        for path in dict.fromkeys(found):
            with contextlib.suppress(OSError):
                library = ctypes.CDLL(path)
                if hasattr(library, "GOMP_parallel_start") and hasattr(library, "GOMP_parallel_end"):
                    return library
    return None


def run(kernel: Any, team: np.ndarray, arguments: Sequence[Any]) -> Any:
    """`kernel(team, member, *arguments)` on as many of PyTorch's threads. Returns the caller's result.

    The caller makes its call itself, between the beginning and the end of a parallel region: Python handles
    Ctrl-C on this thread, where it can then be raised. Whatever is raised, the region ends.
    """
    library, members, begin, inside = _library(), team.item(MEMBERS), time.perf_counter_ns(), 0
    errors: list[BaseException] = []

    def body(_: Any) -> None:
        """What the other members do."""
        try:
            if library.omp_get_num_threads() == members:
                kernel(team, library.omp_get_thread_num(), *arguments)
        except BaseException as error:
            errors.append(error)
            let_go(team)

    callback, level, is_team = _BODY(body), library.omp_get_level(), False
    try:
        library.GOMP_parallel_start(callback, None, members)
        is_team = library.omp_get_num_threads() == members
        if is_team:
            inside = time.perf_counter_ns()
            result = kernel(team, 0, *arguments)
            inside = time.perf_counter_ns() - inside
    except BaseException:
        let_go(team)
        raise
    finally:
        _end(library, team, level)
    if errors:
        raise errors[0]
    team[WAITED] += time.perf_counter_ns() - begin - inside
    return result if is_team else threads.run(kernel, 1, False, arguments)


def _end(library: Any, array: np.ndarray, level: int) -> None:
    """End the region, if it has begun. An interrupt is raised afterwards."""
    interrupt = None
    while True:
        try:
            array[CALLS] += 1  # the others need not look out for another call
            if library.omp_get_level() > level:
                library.GOMP_parallel_end()
            break
        except BaseException as error:
            let_go(array)
            interrupt = error
    if interrupt is not None:
        raise interrupt


def borrow() -> None:
    """Have kernels run on PyTorch's threads from now on, where the system lets them."""
    if _library() is not None:
        threads.borrow(run)
        if hasattr(os, "register_at_fork"):
            # OpenMP's threads do not survive a fork, and its library does not start others.
            os.register_at_fork(after_in_child=lambda: threads.borrow(None))
