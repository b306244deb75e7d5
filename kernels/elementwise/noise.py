"""Random numbers for a window, each a function of (seed, stream, step, sequence, unit) alone.

`uniform_rows` has a stream for each row instead, so that a number depends on no other row.

Nothing is stored. A draw does not depend on the division of a sequence into windows or on the number of
sequences. A stream is one of the noises of a cell. Each step of it has two keys, under which the positions of
its (N, H) numbers are hashed (`random_words.py`).

A word represents one of 2**32 uniform numbers, symmetric around 0, and a normal draw is a monotonic function
of it. float32 and float64 have the same draws up to rounding, at most 6.36 standard deviations from 0.
Nanoseconds an element on one Zen 4 core with AVX-512, N = 16 and T = 20; below 16 units rows fill no vector,
and a normal number of float32 takes 9 ns:

|           | H = 50, float32 | H = 256, float32 | H = 50, float64 | H = 256, float64 |
|-----------|-----------------|------------------|-----------------|------------------|
| normal    | 2.0 ns | 1.3 ns | 4.5 ns | 3.2 ns |
| bernoulli | 0.4 ns | 0.4 ns | 0.4 ns | 0.4 ns |
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .._jit import inner, kernel
from ..codegen.activations import polynomial
from ..codegen.formula import formula
from ..codegen.logarithm import log
from .random_words import GOLDEN, LOW, WORD, splitmix_of_unsigned, unsigned, word_at

# The quantile is measured from the center. With x = P(|Z| < z) and w = -log(1 - x^2), z / x is a smooth
# function of w, so that one rational function covers the center and the tails. (Giles, "Approximating the
# erfinv function", 2010, uses polynomials in this w, and two ranges.) The coefficients are nearly minimax
# fits of the relative error for w up to 21.6, by least squares whose weights follow the errors; the last word
# has 21.5. Lowest powers come first, and the denominator begins with 1.


def _quantile(dtype: type, numerator: tuple, denominator: tuple) -> Callable:
    """Build z of x and 1 - x for one dtype. All coefficients are positive, so sums lose no digits."""
    one = dtype(1)
    above, below = [dtype(value) for value in numerator], [one, *(dtype(value) for value in denominator)]

    def quantile(x, rest):
        w = -log(rest * (one + x))
        return x * polynomial(w, above) / polynomial(w, below)

    return quantile


# Fit error 2**-26.6; error of the result 3.7e-7 at most, 6e-8 in the mean square.
_quantile_single = _quantile(
    np.float32,
    (
        1.2533141257663936,
        0.44746021920267093,
        0.09101269858727264,
        0.012525494040765892,
        0.0011384104512470804,
        5.937407107643834e-05,
        1.9159111423902508e-07,
    ),
    (
        0.09522193389361666,
        0.03465783476187458,
        0.00231222223601978,
        0.0002485859666012818,
        3.7437061417720053e-06,
    ),
)
# Fit error 2**-44.7, which is also the error of the result.
_quantile_double = _quantile(
    np.float64,
    (
        1.2533141373154626,
        0.4858517864611356,
        0.13518242108811124,
        0.0264053632517329,
        0.003891954962948382,
        0.000445190681328994,
        3.929707090367716e-05,
        2.6376423273856993e-06,
        1.332663619127087e-07,
        5.191554283893272e-09,
        2.737973008094318e-11,
    ),
    (
        0.12585425145387494,
        0.061879363784782995,
        0.00586319468837088,
        0.0012400286506256426,
        8.279464505178603e-05,
        9.010403795283323e-06,
        3.814672684692165e-07,
        2.318814106222377e-08,
        3.598947471315416e-10,
        4.4288595626124805e-13,
    ),
)


@formula
def normal_quantile(x, rest):
    """z with P(|Z| < z) = x, Z standard normal; `rest` is 1 - x, which keeps its digits for x near 1."""
    return (_quantile_double if x.dtype == np.float64 else _quantile_single)(x, rest)


@inner
def _step_keys(seed, stream, step):
    """The two keys of a step as one 64-bit word."""
    start = splitmix_of_unsigned((unsigned(seed) + GOLDEN) & WORD)
    start = splitmix_of_unsigned((start + unsigned(stream) * GOLDEN) & WORD)
    return splitmix_of_unsigned((start + unsigned(step) * GOLDEN) & WORD)


_TOP_BIT = np.uint32(1 << 31)
_OTHERS = np.uint32((1 << 31) - 1)
_ALL = np.uint32(LOW)


@inner
def _normal_row(start, first, second, scale, out):
    """`out[j] = scale * z` of position start + j."""
    kind = out.dtype.type
    half, unit = kind(0.5), kind(2.0**-31)
    for j in range(out.size):
        word = word_at(start + j, first, second)
        steps = word if word < _TOP_BIT else word ^ _ALL  # from 0, of 2**31
        x = (kind(steps) + half) * unit
        rest = (kind(steps ^ _OTHERS) + half) * unit
        z = scale * normal_quantile(x, rest)
        out[j] = z if word < _TOP_BIT else -z


@kernel
def normal_forward(seed, stream, first_step, first_row, scale, out):
    """`out[n, t, j] = scale * z`, z standard normal, a function of (seed, stream, first_step + t,
    first_row + n, j).

    seed        int        seed of the numbers, below 2**63
    stream      int        number of the noise under that seed
    first_step  int        number of the step out[:, 0]; a repeated step has the same draws
    first_row   int        number of the sequence out[0]
    scale       float64    the standard deviation, rounded to the type of out
    out         (N, T, H)  overwritten
    """
    deviation = out.dtype.type(scale)
    width = out.shape[2]
    for t in range(out.shape[1]):
        keys = _step_keys(seed, stream, first_step + t)
        first, second = np.uint32(keys & LOW), np.uint32(keys >> 32)
        for n in range(out.shape[0]):
            _normal_row((first_row + n) * width, first, second, deviation, out[n, t])


@inner
def _bernoulli_row(start, first, second, threshold, out):
    """`out[j] = 1` where the word of position start + j is below the threshold, else 0."""
    zero, one = out.dtype.type(0), out.dtype.type(1)
    for j in range(out.size):
        word = word_at(start + j, first, second)
        out[j] = one if word < threshold else zero


@kernel
def bernoulli_forward(seed, stream, first_step, first_row, p, out):
    """`out[n, t, j] = 1` with probability p, else 0, a function of (seed, stream, first_step + t,
    first_row + n, j).

    seed, stream, first_step, first_row  as in normal_forward
    p    float64    rounded to a multiple of 2**-32; 0 is never, 1 is always
    out  (N, T, H)  overwritten
    """
    threshold = np.int64(p * 4294967296.0 + 0.5)
    width = out.shape[2]
    for t in range(out.shape[1]):
        keys = _step_keys(seed, stream, first_step + t)
        first, second = np.uint32(keys & LOW), np.uint32(keys >> 32)
        for n in range(out.shape[0]):
            _bernoulli_row((first_row + n) * width, first, second, threshold, out[n, t])


@kernel
def uniform_rows(seed, streams, step, out):
    """`out[n, j]` uniform between 0 and 1, both excluded, a function of (seed, streams[n], step, j).

    It is one of 2**52 numbers, symmetric around 1/2 and at least 2**-53 from the ends.

    seed     int     seed of the numbers, below 2**63
    streams  (N,)    read, int64, the stream of each row
    step     int     number of the step
    out      (N, M)  overwritten, float64
    """
    for n in range(out.shape[0]):
        key, row = _step_keys(seed, streams[n], step), out[n]
        for j in range(row.size):
            word = splitmix_of_unsigned((key + unsigned(j) * GOLDEN) & WORD)
            row[j] = (np.float64(word >> 12) + 0.5) * 2.0**-52
