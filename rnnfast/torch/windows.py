"""One direction of one layer over one window: kernels on PyTorch's memory, with a tape of its own."""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Hashable
from typing import Any

import numpy as np
import torch

from rnnfast.kernels.elementwise.fingerprint import BLOCK, fingerprint
from rnnfast.layers import plans
from rnnfast.layers.base import Workspace
from rnnfast.layers.frozen import Freeze
from rnnfast.layers.plans import Plans
from rnnfast.layers.window import Inputs, Rows, Run, Team, nothing
from rnnfast.torch.layout import Kind


class WorkspacePool:
    """Memory of windows that are done, for those of the same kind and sizes that follow.

    Where there is too much of it, the oldest goes.
    """

    MOST_BYTES = 2 * plans.KEPT_BYTES

    def __init__(self) -> None:
        self._kept: deque[tuple[Hashable, Workspace, int]] = deque()
        self._returned: deque[tuple[Hashable, Workspace]] = deque()
        self.renew_lock()

    @property
    def nbytes(self) -> int:
        """Bytes of the memory that is kept, added up anew: an interrupt could leave a running sum wrong."""
        return sum(nbytes for _, _, nbytes in self._kept)

    def renew_lock(self) -> None:
        """A child made by a fork has no thread that would release the old one."""
        self._lock = threading.Lock()

    def take(self, key: Hashable) -> Workspace:
        """One that a window of this key has left, or a new one."""
        with self._lock:
            self._sort_in()
            for index in range(len(self._kept) - 1, -1, -1):
                if self._kept[index][0] == key:
                    found = self._kept[index][1]
                    del self._kept[index]
                    return found
        return Workspace()

    def give_back(self, key: Hashable, workspace: Workspace) -> None:
        """Keep it for the next window.

        Python may collect a window at any moment, also inside `take`: the thread that holds the lock must not
        wait for it. An interrupt may come between any two calls, so only `with` may take the lock.
        """
        self._returned.append((key, workspace))
        if not self._lock.locked():
            with self._lock:
                self._sort_in()

    def _sort_in(self) -> None:
        while self._returned:
            key, workspace = self._returned.popleft()
            self._kept.append((key, workspace, workspace.nbytes))
        while len(self._kept) > 64 or self.nbytes > self.MOST_BYTES:
            self._kept.popleft()


idle = WorkspacePool()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=idle.renew_lock)


class OnTorchThreads(Plans):
    """A layer that runs on at most as many threads as PyTorch had when it was made."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._most = torch.get_num_threads()

    def _team(self, rows: Rows, direction: str) -> Team:
        members, by_units = super()._team(rows, direction)
        return Team(min(members, self._most), by_units)


class Window(OnTorchThreads):
    """A window, from its `forward` to the last `backward`.

    Each call of an operator has one, so that several calls may come before the first `backward`, and one
    `backward` may come again. Without a tape, `kept` is memory that holds packed weights from call to call.
    """

    transposed = True

    def __init__(
        self, kind: Kind, arrays: list[np.ndarray | None], kept: PackedWeights | None = None
    ) -> None:
        w_ih, w_hh, b, bhh = arrays
        assert w_ih is not None
        assert w_hh is not None
        self.cell, self._loop, self._precision = kind.cell, kind.loop, kind.precision
        self.dtype = w_ih.dtype
        self.input_size, self.hidden_size = w_ih.shape[1], w_hh.shape[1]
        self._arrays = [w_ih, w_hh, b, bhh, None]
        self._run: Run | None = None
        self._most = torch.get_num_threads()
        self._lock = threading.Lock()  # of the scratch memory, where two threads go back through one graph
        if kept is not None:
            self._workspace, self._freezes = kept.workspace, (kept.freeze,)
            return
        self._key = kind.name, self.dtype, self.input_size, self.hidden_size, self._most
        self._workspace = idle.take(self._key)

    def __del__(self) -> None:
        if "_key" in self.__dict__ and "_workspace" in self.__dict__:
            idle.give_back(self._key, self._workspace)

    def _kernel_params(self) -> list[np.ndarray | None]:
        return self._arrays

    def forward(
        self, xs: np.ndarray, before: np.ndarray, after: np.ndarray, rows: Rows, hs: np.ndarray, keep: bool
    ) -> None:
        """Fill `hs` and `after` (S, N, H); `xs` and `hs` have three axes, their rows as `rows` says."""
        none = nothing(self.dtype, 2)
        self._run = self.run_forward(Inputs(xs, None, none, none), None, before, after, rows, hs, keep)

    def backward(
        self, dhs: np.ndarray, dafter: np.ndarray | None, dxs: np.ndarray, dbefore: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
        """Fill `dxs`, unless it has no elements, and `dbefore` (S, N, H); the gradients of Wx (G*H, D),
        Wh (G*H, H), b and bhh."""
        w_ih, _, b, bhh, _ = self._arrays
        assert w_ih is not None
        assert b is not None
        assert self._run is not None
        cols, width = w_ih.shape[0], self.hidden_size
        dwx, dwh = (np.empty((cols, depth), self.dtype) for depth in (self.input_size, width))
        db, dbhh = np.empty_like(b), None if bhh is None else np.empty_like(bhh)
        with self._lock:
            self._kernel_grads = [dwx, dwh, db, dbhh, None]
            self.run_backward(self._run, dhs, dafter, dxs, dbefore, False)
        return dwx, dwh, db, dbhh


# Weights that stay packed from one call without a tape to the next, as long as their bits are the same.


# Elements of smaller weights are packed in less time than they are looked up here.
LEAST_SIZE = 1 << 17
# Drawn by each process: whatever a program changes, it does not depend on them.
_KEYS = np.frombuffer(bytearray(os.urandom(2 * BLOCK * 8)), np.uint64).reshape(2, BLOCK)


def _sums_of(array: np.ndarray) -> bytes:
    """The fingerprint of an array, for others of its size."""
    words = array.reshape(-1).view(np.uint32)
    sums = np.empty((-(-words.size // (2 * BLOCK)), 2), np.uint64)
    fingerprint(words, _KEYS, sums)
    return sums.tobytes()


class PackedWeights:
    """Memory for calls of one `key`, with packed weights and their fingerprint."""

    def __init__(self, key: Hashable) -> None:
        self.key, self.workspace, self.freeze = key, Workspace(), Freeze()
        self._sums: list[bytes] = []

    def check(self, w_ih: np.ndarray, w_hh: np.ndarray) -> None:
        """Begin a new freeze if the weights are not those of the last call."""
        found = [_sums_of(w_ih), _sums_of(w_hh)]
        if found != self._sums:
            self.freeze = Freeze()
            self.freeze.is_on = True
            self._sums = found


# By the number of a tensor w_ih, with a weak reference to it; what a call uses is not in it.
_packed: dict[int, tuple[weakref.ref, PackedWeights]] = {}


def take(kind: Kind, w_ih: torch.Tensor, arrays: list[np.ndarray | None]) -> PackedWeights | None:
    """The memory for a call with these weights, to be given back; of two calls at once, one packs anew."""
    first, second, *_ = arrays
    assert first is not None
    assert second is not None
    if kind.precision is not None or first.size + second.size < LEAST_SIZE:
        return None  # tensors in bfloat16 come as copies in float32, which no later call will meet
    key = kind.name, first.dtype, first.shape, torch.get_num_threads()  # on which plans depend
    known = _packed.pop(id(w_ih), None)
    kept = (
        known[1] if known is not None and known[0]() is w_ih and known[1].key == key else PackedWeights(key)
    )
    kept.check(first, second)
    return kept


def give_back(w_ih: torch.Tensor, kept: PackedWeights | None) -> None:
    """Keep the memory for the next call, as long as the tensor lives."""
    if kept is not None:
        number = id(w_ih)
        _packed[number] = weakref.ref(w_ih, lambda _: _packed.pop(number, None)), kept


def forget(w_ih: torch.Tensor) -> None:
    """Free the memory of packed weights: they are to be trained."""
    _packed.pop(id(w_ih), None)
