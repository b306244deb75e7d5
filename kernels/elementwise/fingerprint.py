"""A fingerprint of the bits of an array, to notice changes; it takes a quarter of the time of packing."""

from __future__ import annotations

import numpy as np

from .._jit import kernel

LANES = 64
# Odd, so that each step of a chain is a bijection of the sum and of the word.
FIRST, SECOND = np.uint32(2654435761), np.uint32(2246822519)


@kernel
def fingerprint(words, sums):
    """For each lane of words w, two chains: a = (a xor w) FIRST and b = (b + w) SECOND, modulo 2^32.

    If one word of a lane changes, both sums do; several changes at random cancel with probability 2^-64.

    words  (n,)         read, uint32
    sums   (2, LANES)   overwritten, uint32
    """
    first, second = sums[0], sums[1]
    first[:] = 0
    second[:] = 0
    whole = words.size // LANES * LANES
    for start in range(0, whole, LANES):
        block = words[start : start + LANES]
        for lane in range(LANES):
            first[lane] = (first[lane] ^ block[lane]) * FIRST
            second[lane] = (second[lane] + block[lane]) * SECOND
    for lane in range(words.size - whole):
        first[lane] = (first[lane] ^ words[whole + lane]) * FIRST
        second[lane] = (second[lane] + words[whole + lane]) * SECOND
