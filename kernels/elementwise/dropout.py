"""Dropout whose mask is a function of (key, position): it is not stored and independent of the order of work.

Position i of a call is kept when `hash(i) >= threshold`, a 32-bit integer hash under two keys that
`dropout_keys` derives from (seed, counter). Forward and backward evaluate the same hash, so the mask never
exists as an array. Positions repeat after 2**32 elements.
"""

from __future__ import annotations

import numpy as np

from .._jit import inner, kernel
from ..codegen.denormals import flush_denormals, restore_mode
from .random_words import GOLDEN, LOW, WORD, splitmix, word_at


def dropout_keys(seed: int, counter: int) -> tuple[int, int]:
    """The two 32-bit keys of call number `counter` under `seed`."""
    word = splitmix((splitmix((seed + GOLDEN) & WORD) + counter * GOLDEN) & WORD)
    return word & LOW, word >> 32


@inner
def _masked(x, start, stride, key0, key1, threshold, scale, out):
    """`out[n, i] = x[n, i] * (scale where position n stride + start + i is kept, else 0)`."""
    first, second, limit = np.uint32(key0), np.uint32(key1), np.uint32(threshold)
    zero = x.dtype.type(0)
    for n in range(x.shape[0]):
        source, target = x[n], out[n]
        place = n * stride + start
        for i in range(source.size):
            word = word_at(place + i, first, second)
            target[i] = source[i] * (scale if word >= limit else zero)


@kernel
def dropout_forward(x, start, stride, key0, key1, threshold, scale, out):
    """`out = x * scale` where the position is kept, `x * 0` where it is dropped.

    x           (N, n) input
    start       int    position of x[0, 0], for work in pieces
    stride      int    positions from one row to the next
    key0, key1  int    from `dropout_keys`
    threshold   int    a position is dropped with probability threshold / 2**32
    scale       float  1 / (1 - threshold / 2**32)
    out         (N, n) overwritten; may be x itself
    """
    mode_before = flush_denormals()
    _masked(x, start, stride, key0, key1, threshold, scale, out)
    restore_mode(mode_before)


@kernel
def dropout_backward(dout, start, stride, key0, key1, threshold, scale, dx):
    """`dx = dout * scale` where the position was kept, `dout * 0` where it was dropped.

    dout                                          (N, n)  gradient of the output
    start, stride, key0, key1, threshold, scale           those of the forward call
    dx                                            (N, n)  overwritten; may be dout itself
    """
    mode_before = flush_denormals()
    _masked(dout, start, stride, key0, key1, threshold, scale, dx)
    restore_mode(mode_before)
