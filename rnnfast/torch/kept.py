"""Weights that stay packed from one call without a tape to the next, as long as their bits are the same.

Nothing else would notice every change: `tensor.data`, arrays and other processes write into the memory of a
tensor without its version counter, and tensors made in `torch.inference_mode` have none.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Hashable

import numpy as np
import torch

from rnnfast.kernels.elementwise.fingerprint import BLOCK, fingerprint
from rnnfast.layers.base import Workspace
from rnnfast.layers.frozen import Freeze
from rnnfast.torch.kinds import Kind

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


class Kept:
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
_kept: dict[int, tuple[weakref.ref, Kept]] = {}


def take(kind: Kind, w_ih: torch.Tensor, arrays: list[np.ndarray | None]) -> Kept | None:
    """The memory for a call with these weights, to be given back; of two calls at once, one packs anew."""
    first, second, *_ = arrays
    assert first is not None
    assert second is not None
    if kind.precision is not None or first.size + second.size < LEAST_SIZE:
        return None  # tensors in bfloat16 come as copies in float32, which no later call will meet
    key = kind.name, first.dtype, first.shape, torch.get_num_threads()  # on which plans depend
    known = _kept.pop(id(w_ih), None)
    kept = known[1] if known is not None and known[0]() is w_ih and known[1].key == key else Kept(key)
    kept.check(first, second)
    return kept


def give_back(w_ih: torch.Tensor, kept: Kept | None) -> None:
    """Keep the memory for the next call, as long as the tensor lives."""
    if kept is not None:
        number = id(w_ih)
        _kept[number] = weakref.ref(w_ih, lambda _: _kept.pop(number, None)), kept


def forget(w_ih: torch.Tensor) -> None:
    """Free the memory of packed weights: they are to be trained."""
    _kept.pop(id(w_ih), None)
