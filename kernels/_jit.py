"""Compile options for every kernel, and a safe disk cache.

`kernel` compiles a function that Python calls, `kernel_of` a function made around a value, `inner` one that
only other kernels call, `inline` one that is inlined into its callers, `library` one with code that is
called by symbol. `intrinsic` pairs vector IR with its pure-Python twin.

Compiled kernels are kept in Numba's disk cache, which is changed in these points:

* Numba checks only the kernel's own file, although code of other files is compiled into it. Here an edit of
  any kernel file makes every entry stale, including entries of earlier versions of the package.
* Numba reuses code across settings such as NUMBA_BOUNDSCHECK. Here they are part of the key.
* Numba fails at import if no directory can be written, and at the call if a cache file is damaged or the disk
  is full. Here the kernel is compiled, and a damaged entry replaced.
* Numba trusts any directory, though loading an entry can run any code. Here a directory that other users
  can write is not used.

These changes use Numba's internals. If a future Numba lacks them, kernels are compiled in each process.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import hashlib
import os
import pickle
import signal
import stat
import threading
import warnings
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np
from numba.core import event
from numba.extending import intrinsic as _numba_intrinsic

# Kernels allocate nothing, and their callers keep the arrays alive. So they do not use Numba's runtime, whose
# atomic reference count of every view of a row takes 2 to 6 % of the time of a recurrent layer, and as much
# of its compilation.
OPTIONS: Any = {"nogil": True, "error_model": "numpy", "_nrt": False}

# Numba settings that change the generated code and are missing from its cache key.
CODE_SETTINGS = (
    "BOUNDSCHECK",
    "OPT",
    "LOOP_VECTORIZE",
    "SLP_VECTORIZE",
    "LLVM_REFPRUNE_PASS",
    "LLVM_REFPRUNE_FLAGS",
    "DEBUGINFO_DEFAULT",
    "EXTEND_VARIABLE_LIFETIMES",
    "ENABLE_PROFILING",
    "DEBUG_NRT",
    "NRT_STATS",
)

# Every library of this process, by its full name.
_LIBRARIES: dict[str, Any] = {}


class _CompilationGuard(event.Listener):
    """Suspends garbage collection and Ctrl-C while Numba compiles a function.

    Searching Numba's millions of live objects for cycles took 0.8 of 10.2 s of a cold start. An exception
    during compilation leaves Numba with half-defined functions.
    """

    def __init__(self) -> None:
        self._depth = 0
        self._collected = False
        self._handler: Any = None
        self._waiting: tuple | None = None

    def on_start(self, event: Any) -> None:
        """The compilation of a function begins, perhaps inside another."""
        self._depth += 1
        if self._depth > 1:
            return
        self._collected = gc.isenabled()
        gc.disable()
        self._handler = None
        if threading.current_thread() is threading.main_thread():
            handler = signal.getsignal(signal.SIGINT)
            if callable(handler):
                self._handler = handler
                signal.signal(signal.SIGINT, self._note)

    def _note(self, *received: Any) -> None:
        self._waiting = received

    def on_end(self, event: Any) -> None:
        """The compilation has ended or failed."""
        self._depth -= 1
        if self._depth:
            return
        if self._collected:
            gc.enable()
        if self._handler is not None:
            signal.signal(signal.SIGINT, self._handler)
            waiting, self._waiting = self._waiting, None
            if waiting is not None:
                self._handler(*waiting)


event.register("numba:compile", _CompilationGuard())


def jit_is_disabled() -> bool:
    """Whether NUMBA_DISABLE_JIT requests plain Python."""
    return bool(getattr(numba.config, "DISABLE_JIT", 0))


def kernel(function: Callable, content: str = "") -> Callable:
    """Compile a function that Python calls, with the disk cache.

    `content` distinguishes functions with the same text and different captured values: see `kernel_of`.
    """
    if jit_is_disabled():
        return function
    try:
        dispatcher = numba.njit(cache=True, **OPTIONS)(function)
    except RuntimeError:
        obstacle = "no directory for them can be written"
    else:
        obstacle = _mend_cache(dispatcher, content)
        if not obstacle:
            return dispatcher
    _warn_that_nothing_is_kept(obstacle)
    return numba.njit(**OPTIONS)(function)


def kernel_of(content: str) -> Callable[[Callable], Callable]:
    """Compile a function made around a value, such as a cell; `content` describes the value in full.

    Numba's cache key of such a function contains pickles of the values it captures, which differ between
    processes. Here the key is `content`, so that values defined in a notebook are found again, too.
    """
    return functools.partial(kernel, content=content)


def library(function: Callable) -> Any:
    """Compile a function with code that other kernels call by symbol.

    Code shared by many kernels is then compiled once, not in each of them. Loading a kernel from the disk
    cache binds its calls at once, and a missing symbol ends the process. So each entry names the libraries
    that existed when its kernel was compiled, and they are loaded first.
    """
    compiled = kernel(function)
    _LIBRARIES[f"{function.__module__}.{function.__qualname__}"] = compiled
    return compiled


def inner(function: Callable) -> Callable:
    """Compile a function that only kernels call; it is part of its caller's cache entry."""
    return numba.njit(**OPTIONS)(function)


def inline(function: Callable) -> Callable:
    """Inline a short function into its callers before they are typed.

    A separate library would take 0.1 s or more to compile.
    """
    return numba.njit(inline="always", **OPTIONS)(function)


def intrinsic(twin: Callable) -> Callable:
    """Decorate an LLVM code generator; under NUMBA_DISABLE_JIT the pure-Python `twin` runs instead."""

    def decorate(generator: Callable) -> Callable:
        return twin if jit_is_disabled() else _numba_intrinsic(generator)

    return decorate


@functools.cache
def _source_stamp() -> str:
    """Hash of all kernel files and of the versions of the compilers; Numba checks its own version."""
    folder = Path(__file__).parent
    files = sorted(folder.rglob("*.py"))
    if not files:
        raise OSError(f"no kernel sources in {folder}")  # in a zip archive, say
    digest = hashlib.sha256(f"llvmlite {llvmlite.__version__} numpy {np.__version__}\n".encode())
    for path in files:
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


@functools.cache
def _warn_that_nothing_is_kept(obstacle: str) -> None:
    """Warn once that every process will compile."""
    warnings.warn(
        f"rnnfast: compiled kernels are not kept on disk ({obstacle}), so each process compiles them again; "
        "set NUMBA_CACHE_DIR to a directory that you, and nobody else, can write",
        RuntimeWarning,
        stacklevel=3,
    )


def _mend_cache(dispatcher: Any, content: str) -> str:
    """Give the cache checked files and suppress its errors; return the obstacle, or ""."""
    try:
        cache = dispatcher._cache
        if _others_can_write(Path(cache.cache_path)):
            return f"other users can write {cache.cache_path}"
        cache._cache_file = _CheckedFiles(dispatcher, cache._cache_file, _source_stamp())
        if content:
            cache._index_key = lambda signature, codegen: (signature, codegen.magic_tuple(), content)
    except (AttributeError, ImportError):
        return f"the cache of Numba {numba.__version__} is not known"
    except OSError as error:
        return str(error)
    load, save = cache.load_overload, cache.save_overload

    def load_or_compile(signature, target_context):
        with contextlib.suppress(Exception):
            return load(_arguments(signature), target_context)
        return None

    def save_if_possible(signature, compiled):
        # The disk is full, or the directory has become read-only; the function is in memory anyway.
        with contextlib.suppress(OSError):
            save(_arguments(signature), compiled)

    cache.load_overload, cache.save_overload = load_or_compile, save_if_possible
    return ""


def _arguments(signature: Any) -> Any:
    """The argument types alone, so that an entry is found with or without a return type."""
    return getattr(signature, "args", signature)


def _others_can_write(folder: Path) -> bool:
    """Whether another user could plant an entry, which is a pickle and can run any code when loaded."""
    if os.name != "posix" or folder.is_relative_to(Path(__file__).parent):
        # __pycache__ next to the source also has Python's bytecode, so it is trusted like the source.
        return False
    status = folder.stat()
    return bool(status.st_mode & stat.S_IWOTH) or status.st_uid not in (0, os.geteuid())


class _CheckedFiles:
    """The index and data files of the kernel `owner`; an entry that cannot be trusted counts as absent.

    This wraps Numba's IndexDataCacheFile. The key is extended by `stamp` and the settings that change code.
    The entry also contains the key, because two processes that save at once can swap their data files, and a
    digest, because damaged machine code would crash or compute wrong results instead of raising.
    """

    def __init__(self, owner: Any, files: Any, stamp: str) -> None:
        from numba.core.serialize import dumps

        self._owner = owner
        self._dumps = dumps
        self._files = files
        self._stamp = stamp
        # The key alone would be correct. With a new stamp of the index, Numba numbers its data files from 1
        # again, so that stale files are overwritten and do not accumulate.
        if hasattr(files, "_source_stamp"):
            files._source_stamp = (files._source_stamp, stamp)

    def flush(self) -> None:
        self._files.flush()

    def load(self, key: Hashable) -> Any:
        """The data saved under `key`, or None."""
        full_key = self._full_key(key)
        with contextlib.suppress(Exception):  # unpickling garbage can raise anything
            digest, content = self._files.load(full_key)
            if hashlib.sha256(content).digest() == digest:
                saved_key, needed, data = pickle.loads(content)
                if saved_key == full_key:
                    for name, arguments in needed:
                        _LIBRARIES[name].compile(arguments)
                    return data
        return None

    def save(self, key: Hashable, data: Any) -> None:
        """Save `data` under `key`, replacing a damaged index."""
        full_key = self._full_key(key)
        needed = [
            (name, arguments)
            for name, dispatcher in _LIBRARIES.items()
            if dispatcher is not self._owner
            for arguments in dispatcher.signatures
        ]
        content = self._dumps((full_key, needed, data))
        entry = hashlib.sha256(content).digest(), content
        try:
            self._files.save(full_key, entry)
        except OSError:
            raise
        except Exception:
            self._files.flush()
            self._files.save(full_key, entry)

    def _full_key(self, key: Hashable) -> Hashable:
        settings = tuple(repr(getattr(numba.config, name, None)) for name in CODE_SETTINGS)
        return key, self._stamp, settings
