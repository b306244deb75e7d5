"""A fingerprint of the bits of an array, to notice changes; it takes a third of the time of packing."""

from __future__ import annotations

import numpy as np

from .._jit import inner, kernel

BLOCK = 512  # pairs of words; two rows of keys take 8 KiB of the nearest cache
LOW, HALF = np.uint64(0xFFFFFFFF), np.uint64(32)


@inner
def _product(pair, key):
    keyed = pair + key
    return (keyed >> HALF) * (keyed & LOW)


@kernel
def fingerprint(words, keys, sums):
    """For each block of words and each row k of keys: the sum of high(p + k) low(p + k) over its pairs p.

    Two words are a pair of 64 bits, `high` and `low` its halves; sums are taken modulo 2^64. This is NH, the
    universal hash of UMAC (Black, Halevi, Krawczyk, Krovetz and Rogaway, CRYPTO 1999). Random keys tell any
    two blocks apart, except with probability 2^-32 a row, 2^-64 in both, whichever words differ and how.
    For take a pair that differs, and fix the keys of the others. If its low halves differ, then whatever the
    low half of its key, at most one high half makes the sums equal; else, whatever the high half, at most one
    low half. Each position has its own key and each block its own sums, so exchanges are differences, too.

    words  (n,)         read, uint32
    keys   (2, BLOCK)   read, uint64, random
    sums   (blocks, 2)  overwritten, uint64; a block is 2 BLOCK words, the last one has the rest
    """
    for block in range(sums.shape[0]):
        here = words[2 * BLOCK * block : 2 * BLOCK * (block + 1)]
        pairs = here.size // 2
        first_keys, second_keys = keys[0, :pairs], keys[1, :pairs]
        first = second = np.uint64(0)
        for i in range(pairs):
            pair = np.uint64(here[2 * i]) | (np.uint64(here[2 * i + 1]) << HALF)
            first += _product(pair, first_keys[i])
            second += _product(pair, second_keys[i])
        if here.size % 2:
            single = np.uint64(here[2 * pairs])
            first += _product(single, keys[0, pairs])
            second += _product(single, keys[1, pairs])
        sums[block, 0], sums[block, 1] = first, second
