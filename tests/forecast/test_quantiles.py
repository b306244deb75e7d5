"""Quantile functions of kernels against distribution functions that are integrated or summed naively."""

import hashlib
import os
import re
import subprocess
import sys
import time
from statistics import NormalDist

import numpy as np
import pytest
from helpers import needs_jit, poisoned, sized, target_without_avx512
from rnnfast.kernels import _jit
from rnnfast.kernels.losses.quantiles import (
    negative_binomial_quantiles,
    normal_quantiles,
    student_t_quantiles,
)

TAILS = np.array(
    [1e-300, 1e-100, 1e-15, 1e-12, 1e-9, 2.0**-33, 1e-10, 1e-6, 0.001, 0.1, 0.2499, 0.25, 0.4, 0.4999999]
)
LEVELS = np.concatenate([TAILS, [0.5], 1 - TAILS[3:], [1 - 2.0**-53]])
MEANS, DISPERSIONS = (1e-6, 0.3, 7.0, 40.0, 5000.0), (0.0, 1e-9, 0.001, 0.2, 1.0, 30.0)


def quantile(kernel, levels, *parameters):
    arrays = np.broadcast_arrays(*(np.asarray(one, np.float64) for one in (levels, *parameters)))
    out = poisoned(arrays[0].size, np.float64)
    kernel(*(array.flatten() for array in arrays), out)
    return out.reshape(arrays[0].shape)


def integral(function, first, last, panels):
    """Gauss and Legendre's rule with 20 points in each panel."""
    points, weights = np.polynomial.legendre.leggauss(20)
    width = (last - first) / panels
    middles = first + width * (np.arange(panels) + 0.5)
    return (function(middles[:, None] + 0.5 * width * points) * weights).sum() * 0.5 * width


def student_t_error(level, nu, t):
    """The relative error of a quantile, from the density integrated over s = log |t|."""

    def density(s):
        return np.exp(s - (nu + 1) / 2 * np.log1p(np.exp(2 * s) / nu))

    tail, s = min(level, 1 - level), np.log(abs(t))
    last = 45 / nu + 5
    whole = 2 * integral(density, -40, last, 400)
    if tail > 0.2:
        return (0.5 - tail - integral(density, s - 40, s, 200) / whole) * whole / density(s)
    shifted = integral(lambda r: density(r) / density(s), s, s + 45 / nu + 4, 400)
    return np.log(shifted * density(s) / whole / tail) * shifted


@pytest.mark.parametrize("nu", [2, 2 + 1e-9, 2.3, 3, 4.7, 12, 60.5, 1e3, 1e6])
def test_student_t_quantiles_are_those_of_the_integrated_density(nu):
    levels = LEVELS[(LEVELS != 0.5) & (LEVELS > 1e-20)]
    actual = quantile(student_t_quantiles, levels, nu)
    errors = [student_t_error(level, nu, t) for level, t in zip(levels, actual, strict=True)]
    assert np.abs(errors).max() < 1e-11
    assert (np.sign(actual) == np.sign(levels - 0.5)).all()


def test_student_t_quantiles_with_two_degrees_of_freedom_are_exact_down_to_the_least_level():
    tail = np.minimum(LEVELS, 1 - LEVELS)
    expected = np.where(LEVELS < 0.5, -1, 1) * np.sqrt((1 - 2 * tail) ** 2 / (2 * tail * (1 - tail)))
    expected = np.where(
        abs(LEVELS - 0.5) < 0.1, 2 * (LEVELS - 0.5) / np.sqrt(2 * tail * (1 - tail)), expected
    )
    np.testing.assert_allclose(quantile(student_t_quantiles, LEVELS, 2.0), expected, rtol=1e-13)


def test_normal_quantiles_are_accurate_and_the_limit_of_student_t_quantiles():
    expected = [NormalDist().inv_cdf(min(level, 1 - level)) for level in LEVELS]
    expected = np.copysign(expected, LEVELS - 0.5)
    np.testing.assert_allclose(quantile(normal_quantiles, LEVELS), expected, rtol=2e-13)
    near = LEVELS[LEVELS > 1e-20]
    for nu in (1e15, np.inf):
        actual = quantile(student_t_quantiles, near, nu)
        np.testing.assert_allclose(actual, quantile(normal_quantiles, near), rtol=1e-12)


def count_probabilities(mean, alpha):
    """(first, probabilities) of the whole numbers around the mean, from their ratios."""
    spread = np.sqrt(mean + alpha * mean**2)
    first = int(max(0, mean - 40 * spread))
    k = np.arange(first, first + int(80 * spread + 60 * alpha * mean + 100), dtype=np.float64)
    steps = np.log(mean * (1 + alpha * k)) - np.log1p(alpha * mean) - np.log1p(k)
    logarithms = np.concatenate([[0], np.cumsum(steps)])
    weights = np.exp(logarithms - logarithms.max())
    return first, weights / weights.sum()


@pytest.mark.parametrize("mean", [*MEANS, pytest.param(1e8, marks=needs_jit)])
def test_counts_are_the_first_whose_summed_probability_reaches_the_level(mean):
    rng = np.random.default_rng(0)
    for alpha in DISPERSIONS if mean < 1e8 else (0.0, 1e-12):
        first, chances = count_probabilities(mean, alpha)
        random = rng.random(sized(1000, 30))
        levels = np.sort(np.concatenate([random, LEVELS[LEVELS > 1e-13], 10.0 ** -np.arange(1, 13)]))
        below, above = np.cumsum(chances), np.cumsum(chances[::-1])[::-1] - chances
        lower = first + np.searchsorted(below, levels)
        upper = first + np.searchsorted(-above, levels - 1)
        expected = np.where(levels < 0.5, lower, upper)
        actual = quantile(negative_binomial_quantiles, levels, mean, alpha)
        # A level may fall on a step, up to the rounding of the sums.
        place = (np.minimum(actual, expected) - first).astype(int)
        gap = np.where(levels < 0.5, below[place] / levels - 1, above[place] / (1 - levels) - 1)
        wrong = (actual != expected) & ~((abs(actual - expected) == 1) & (abs(gap) < 1e-8))
        assert not wrong.any(), (alpha, levels[wrong], actual[wrong], expected[wrong])
        assert (actual != expected).mean() < 0.02
        assert (np.diff(actual) >= 0).all()


@pytest.mark.parametrize("mean", [1e-6, 0.01, 1.0, 50.0, 1e4, 1e8])
def test_counts_of_dispersion_one_have_the_quantiles_of_the_geometric_distribution(mean):
    levels = np.random.default_rng(1).random(sized(2000, 100))
    fraction = np.log1p(-levels) / -np.log1p(1 / mean)
    clear = abs(fraction - np.round(fraction)) > 1e-11 * (1 + fraction)
    assert clear.mean() > 0.98
    actual = quantile(negative_binomial_quantiles, levels, mean, 1.0)
    np.testing.assert_array_equal(actual[clear], np.floor(fraction)[clear])


@needs_jit
def test_counts_at_even_levels_have_the_mean_and_the_variance_of_the_distribution():
    levels = (np.arange(20_000) + 0.5) / 20_000
    for mean in (1e-6, 0.1, 19.0, 21.0, 1e3, 1e6, 1e8):
        for alpha in (0.0, 1e-6, 1e-3, 0.3):
            counts = quantile(negative_binomial_quantiles, levels, mean, alpha)
            assert (np.diff(counts) >= 0).all()
            spread = np.sqrt(mean + alpha * mean**2)
            assert abs(counts.mean() - mean) < 2e-3 * spread + mean * 1e-3 + 5e-5, (mean, alpha)
            assert abs(counts.std() / spread - 1) < 0.02 or mean < 0.1, (mean, alpha)


@pytest.mark.parametrize("kernel", [student_t_quantiles, negative_binomial_quantiles])
def test_quantiles_rise_with_the_level(kernel):
    count = sized(20_000, 200)
    levels = np.sort(
        np.concatenate([LEVELS, np.linspace(1e-6, 1 - 1e-6, count), 0.5 + np.arange(9) * 2.0**-52])
    )
    for nu in (2.0, 5.5, 300.0):
        parameters = (nu,) if kernel is student_t_quantiles else (nu, 0.4)
        assert (np.diff(quantile(kernel, levels, *parameters)) >= 0).all()


def test_what_has_no_quantile_is_nan_and_extreme_parameters_end():
    nan = np.nan
    for level in (nan, 0.0, 1.0, -0.1, 1.1, np.inf):
        assert np.isnan(quantile(normal_quantiles, level))
        assert np.isnan(quantile(student_t_quantiles, level, 3.0))
        assert np.isnan(quantile(negative_binomial_quantiles, level, 3.0, 0.1))
    for nu in (nan, 1.9, 0.0, -1.0):
        assert np.isnan(quantile(student_t_quantiles, 0.3, nu))
    for mean, alpha in (
        (nan, 0.1),
        (1.0, nan),
        (0.0, 0.1),
        (-1.0, 0.1),
        (1.0, -0.1),
        (np.inf, 0.1),
        (1.0, np.inf),
    ):
        assert np.isnan(quantile(negative_binomial_quantiles, 0.3, mean, alpha))
    if _jit.jit_is_disabled():
        return
    start = time.perf_counter()
    for mean in (1e-300, 1e-20, 1e12, 1e20, 1e150):
        for alpha in (1e-300, 1e-20, 1.0, 1e10, 1e100):
            counts = quantile(negative_binomial_quantiles, LEVELS, mean, alpha)
            assert (counts >= 0).all()
    assert time.perf_counter() - start < 20


SMALL_PROGRAM = """
import sys
sys.path[:0] = sys.argv[1:]
import test_quantiles
print(test_quantiles.digest_of_all())
"""


def digest_of_all():
    levels = np.random.default_rng(2).random(3000)
    found = [quantile(normal_quantiles, levels)]
    found += [quantile(student_t_quantiles, levels, nu) for nu in (2.0, 4.5, 100.0)]
    found += [quantile(negative_binomial_quantiles, levels, mean, 0.3) for mean in (1.0, 100.0)]
    return hashlib.sha256(np.array(found).tobytes()).hexdigest()


@needs_jit
def test_avx2_and_avx512_give_the_same_bits():
    narrow = target_without_avx512()
    if narrow is None:
        pytest.skip("this processor has no AVX-512 to switch off")
    folders = os.path.dirname(__file__), os.path.dirname(os.path.dirname(__file__))
    command = [sys.executable, "-c", SMALL_PROGRAM, *folders]
    run = subprocess.run(command, env=os.environ | narrow, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == digest_of_all()


@needs_jit
@pytest.mark.parametrize("kernel", [normal_quantiles, student_t_quantiles, negative_binomial_quantiles])
def test_quantiles_call_no_library(kernel):
    fresh, values = _jit.inner(kernel.py_func), np.full(1, 0.3)
    fresh(*[values] * (kernel.py_func.__code__.co_argcount - 1), values.copy())
    (text,) = fresh.inspect_asm().values()
    assert "_ZN" in text
    assert not re.search(
        r"[$\s](fma|exp|expm1|log|log1p|pow|tanh|erfc?|l?gamma)f?(,|@|$)", text, re.MULTILINE
    )
