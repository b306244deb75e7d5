"""Random numbers of a window: their definition, their distribution, and what they may not depend on."""

import itertools
import re
from statistics import NormalDist

import numpy as np
import pytest
import reference
from helpers import DTYPES, assert_same_bits, needs_jit, poisoned, sized
from numba.core.registry import cpu_target
from rnnfast.kernels import _jit
from rnnfast.kernels.codegen.formula import map_row
from rnnfast.kernels.elementwise.noise import bernoulli_forward, normal_forward, normal_quantile

KERNELS = {"normal": (normal_forward, 1.0), "bernoulli": (bernoulli_forward, 0.3)}
NAMES = sorted(KERNELS)
SEED, STREAM, STEP = 2**63 - 25, 3, 2**40
# Relative errors of normal draws: some ten roundings in float32, in float64 the fit of the quantile.
TOLERANCE = {np.float32: 5 * np.finfo(np.float32).eps, np.float64: 1e-13}


def draws(name, shape, dtype=np.float64, seed=SEED, stream=STREAM, first_step=STEP, value=None, row=0):
    out = poisoned(shape, dtype)
    kernel, usual = KERNELS[name]
    kernel(seed, stream, first_step, row, usual if value is None else value, out)
    assert np.isfinite(out).all()
    return out


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 4, 5), (2, 3, 33), (7, 2, 64)])
@pytest.mark.parametrize(("seed", "stream", "first_step"), [(0, 0, 0), (SEED, STREAM, STEP), (5, 1, -2)])
def test_draws_are_those_of_the_reference(seed, stream, first_step, shape, dtype):
    expected = reference.normal(seed, stream, first_step, 0.7, shape)
    actual = draws("normal", shape, dtype, seed, stream, first_step, 0.7)
    np.testing.assert_allclose(actual, expected, rtol=TOLERANCE[dtype])
    for p in (0.3, 2.0**-32, 1 - 2.0**-32):
        expected = reference.bernoulli(seed, stream, first_step, p, shape)
        np.testing.assert_array_equal(draws("bernoulli", shape, dtype, seed, stream, first_step, p), expected)


@_jit.inner
def quantile_row(x, rest, z):
    map_row(normal_quantile, x.size, ((x, 0), (rest, 0)), ((z, 0),))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_quantile_is_accurate_from_the_center_to_the_last_word(dtype):
    rng, count = np.random.default_rng(0), sized(100_000, 500)
    ends = np.concatenate([np.arange(300), 2 ** np.arange(31)])
    steps = np.concatenate([ends, 2**31 - 1 - ends, (2 ** rng.uniform(0, 31, count)).astype(np.int64)])
    steps = np.concatenate([steps, 2**31 - 1 - steps, rng.integers(0, 2**31, count)])
    x, rest = ((kind.astype(dtype) + dtype(0.5)) * dtype(2.0**-31) for kind in (steps, 2**31 - 1 - steps))
    expected = np.array([-NormalDist().inv_cdf((2**31 - 1 - k + 0.5) / 2**32) for k in steps.tolist()])
    z = poisoned(x.shape, dtype)
    quantile_row(x, rest, z)
    for actual in (z, normal_quantile(x, rest)):
        assert actual.dtype == dtype
        np.testing.assert_allclose(actual, expected, rtol=TOLERANCE[dtype])
    assert 6.3 < z.max() < 6.4


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_no_cut_of_the_steps_changes_a_bit(name, dtype):
    expected = draws(name, (3, 20, 37), dtype)
    for cuts in ([0, 7, 8, 20], [0, 1, 2, 19, 20], [0, 20]):
        parts = [
            draws(name, (3, last - first, 37), dtype, first_step=STEP + first)
            for first, last in itertools.pairwise(cuts)
        ]
        assert_same_bits(np.concatenate(parts, axis=1), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_the_draws_of_a_sequence_do_not_depend_on_how_many_follow_it(name, dtype):
    expected = draws(name, (9, 5, 37), dtype)
    for rows in (1, 2, 8):
        assert_same_bits(draws(name, (rows, 5, 37), dtype), expected[:rows])


def test_both_types_have_the_same_draws_up_to_rounding():
    shape = (4, 5, sized(1000, 20))
    single, double = (draws("normal", shape, dtype) for dtype in DTYPES)
    np.testing.assert_allclose(single, double, rtol=TOLERANCE[np.float32])
    single, double = (draws("bernoulli", shape, dtype) for dtype in DTYPES)
    np.testing.assert_array_equal(single, double)


def test_neighbors_are_uncorrelated():
    """Units, sequences and steps of one noise; the noises of other streams, steps and seeds."""
    shape = (10, 20, 100)
    whole = draws("normal", shape)
    limit = 5 / np.sqrt(whole.size)
    for axis in range(3):
        moved = np.moveaxis(whole, axis, 0)
        for lag in (1, 2, 3, 7):
            assert abs((moved[lag:] * moved[:-lag]).mean()) < limit * 1.5, (axis, lag)
    others = [draws("normal", shape, stream=STREAM + 1), draws("normal", shape, stream=0)]
    others += [draws("normal", shape, seed=SEED - 1), draws("normal", shape, first_step=STEP + 20)]
    others += [draws("normal", shape, first_step=STEP + 2**32)]
    for other in others:
        assert (other != whole).all()
        for lag in (0, 1, 2):
            product = whole.ravel()[lag:] * other.ravel()[: whole.size - lag]
            assert abs(product.mean()) < limit
            assert abs((product**2).mean() - 1) < 3 * limit * 5  # a sign would hide equal magnitudes


@needs_jit
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_million_draws_are_distributed_as_the_normal_distribution(dtype):
    z = np.sort(draws("normal", (10, 1000, 100), dtype).ravel().astype(np.float64))
    n = z.size
    below = np.array([*map(NormalDist().cdf, z.tolist())])
    distance = max((np.arange(1, n + 1) / n - below).max(), (below - np.arange(n) / n).max())
    assert distance < 1.63 / np.sqrt(n)  # 99 of 100 seeds
    for power, moment, of_square in ((1, 0, 1), (2, 1, 3), (3, 0, 15), (4, 3, 105)):
        deviation = np.sqrt((of_square - moment**2) / n)
        assert abs((z**power).mean() - moment) < 4 * deviation, power
    beyond = 2 * NormalDist().cdf(-4) * n
    assert abs((np.abs(z) > 4).sum() - beyond) < 4 * np.sqrt(beyond)


@pytest.mark.parametrize("p", [0.01, 0.3, 0.5, 0.999])
def test_the_share_of_ones_is_p_in_each_step_and_over_all(p):
    out = draws("bernoulli", (20, 50, sized(500, 10)), value=p)
    assert set(np.unique(out)) <= {0, 1}
    assert abs(out.mean() - p) < 5 * np.sqrt(p * (1 - p) / out.size)
    of_steps = out.mean(axis=(0, 2))
    assert np.abs(of_steps - p).max() < 5 * np.sqrt(p * (1 - p) / (out.size / 50)) + 1 / (out.size / 50)


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_chance_is_never_and_certainty_always(dtype):
    shape = (10, 10, sized(1000, 20))
    assert (draws("bernoulli", shape, dtype, value=0.0) == 0).all()
    assert (draws("bernoulli", shape, dtype, value=1.0) == 1).all()


def test_a_draw_is_one_as_soon_as_p_passes_its_word():
    words = reference.random_words(20, SEED, STREAM, STEP)
    assert words.min() < 2**31 < words.max()
    for place, word in enumerate(words.tolist()):
        below, above = (draws("bernoulli", (1, 1, 20), value=p / 2**32) for p in (word, word + 1))
        assert (below[0, 0, place], above[0, 0, place]) == (0, 1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_scale_multiplies_the_draws(dtype):
    z = draws("normal", (2, 3, 21), dtype)
    assert_same_bits(draws("normal", (2, 3, 21), dtype, value=0.3), dtype(0.3) * z)
    assert (draws("normal", (2, 3, 21), dtype, value=0.0) == 0).all()


@pytest.mark.parametrize("shape", [(0, 2, 3), (2, 0, 3), (2, 3, 0)])
@pytest.mark.parametrize("name", NAMES)
def test_an_empty_window_has_no_draws(name, shape):
    assert draws(name, shape).shape == shape


@needs_jit
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_loops_are_vectorized_and_call_no_library(name, dtype):
    architecture, _, features = cpu_target.target_context.codegen().magic_tuple()
    if not architecture.startswith("x86_64") or "+avx2" not in features:
        pytest.skip("reads x86 assembly with AVX2")
    kernel, value = KERNELS[name]
    fresh = _jit.inner(kernel.py_func)  # what came from the disk cache cannot be read
    fresh(SEED, STREAM, STEP, 0, value, poisoned((1, 1, 8), dtype))
    (text,) = fresh.inspect_asm().values()
    suffix = "ps" if dtype is np.float32 else "pd"
    assert re.search(r"vpmul(ld|udq)\s.*%[xyz]mm", text)  # the hash: four words beside four float64 of AVX2
    assert name == "bernoulli" or re.search(rf"vfn?m(add|sub)\d+{suffix}\s.*%[yz]mm", text)
    assert name == "bernoulli" or re.search(rf"vdiv{suffix}\s.*%[yz]mm", text)
    assert not re.search(r"[$\s](fma|log|log1p|erf|erfc)f?(,|@|$)", text, re.MULTILINE)
