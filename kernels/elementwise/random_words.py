"""Random 32-bit words as a function of (key, position): not stored, and independent of the order of work.

`splitmix` derives two 32-bit keys from whole numbers, and `word_at` hashes a position under them. Positions
repeat after 2**32.
"""

from __future__ import annotations

import numpy as np
from numba import types

from .._jit import inner, intrinsic

WORD = (1 << 64) - 1
LOW = (1 << 32) - 1
GOLDEN = 0x9E3779B97F4A7C15  # 2**64 divided by the golden ratio: the step of SplitMix64's state
_M1 = np.uint64(0x7FEB352D)  # the two multipliers of Wellons' "lowbias32", which were found by search
_M2 = np.uint64(0x846CA68B)
_S15 = np.uint32(15)
_S16 = np.uint32(16)


def splitmix(z: int) -> int:
    """The finaliser of Steele, Lea and Flood's SplitMix64: a bijection of 64-bit words that mixes well."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & WORD
    return z ^ (z >> 31)


def _unsigned_twin(number):
    return int(number) & WORD


@intrinsic(_unsigned_twin)
def unsigned(typing_context, number):
    """A whole number as a 64-bit word, for `splitmix` in kernels."""

    def codegen(context, builder, signature, arguments):
        return context.cast(builder, arguments[0], signature.args[0], signature.return_type)

    return types.uint64(number), codegen


splitmix_of_unsigned = inner(splitmix)


@inner
def _mix(x):
    """A bijection of 32-bit words; the products are computed in 64 bits, without overflow, and truncated."""
    x = np.uint32(x ^ (x >> _S16))
    x = np.uint32(np.uint64(x) * _M1)
    x = np.uint32(x ^ (x >> _S15))
    x = np.uint32(np.uint64(x) * _M2)
    return np.uint32(x ^ (x >> _S16))


@inner
def word_at(position, first, second):
    """The word of a position under two keys, both uint32."""
    return _mix(np.uint32(_mix(np.uint32(np.uint32(position & LOW) ^ first)) ^ second))
