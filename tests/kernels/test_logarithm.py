"""log, softplus and sqrt: error in ULP, special values, tails, machine code."""

import hashlib
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from helpers import DTYPES, assert_same_bits, needs_jit, poisoned, sized, target_without_avx512
from numba.core.registry import cpu_target
from rnnfast.kernels import _jit
from rnnfast.kernels.codegen.formula import formula, map_row
from rnnfast.kernels.codegen.logarithm import log, softplus
from rnnfast.kernels.codegen.simd import split_exponent, sqrt

FORMULAS = {"log": log, "softplus": softplus, "sqrt": sqrt}
NAMES = sorted(FORMULAS)
WIDER = {np.float32: np.float64, np.float64: np.longdouble}
BITS = {np.float32: np.uint32, np.float64: np.uint64}

needs_longdouble = pytest.mark.skipif(
    np.finfo(np.longdouble).nmant < 63, reason="no type here is wider than float64"
)


def row_of(formula):
    """The formula traced into vectors."""

    @_jit.inner
    def row(x, y):
        map_row(formula, x.size, ((x, 0),), ((y, 0),))

    return row


def loop_of(formula):
    """The formula on numbers, in a loop."""

    @_jit.inner
    def loop(x, y):
        for i in range(x.size):
            y[i] = formula(x[i])

    return loop


ROWS = {name: row_of(formula) for name, formula in FORMULAS.items()}
LOOPS = {name: loop_of(formula) for name, formula in FORMULAS.items()}


def applied(name, x, functions=ROWS):
    actual = poisoned(x.shape, x.dtype)
    with np.errstate(all="ignore"):  # plain Python warns of roots of negative numbers and of overflow
        functions[name](x, actual)
    return actual


def reference(name, x):
    """The function in the precision of x, which is the one above that under test."""
    with np.errstate(all="ignore"):
        if name == "softplus":
            return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))
        return np.sqrt(x) if name == "sqrt" else np.log(x)


def errors(name, x, actual):
    """The distance of each element to the true value in ULP of that; inf if only one is NaN or infinite."""
    wider = WIDER[x.dtype.type]
    expected = reference(name, x.astype(wider))
    if name == "log":
        expected[np.abs(x) < np.finfo(x.dtype).tiny] = -np.inf
    info = np.finfo(x.dtype)
    with np.errstate(over="ignore", under="ignore"):
        rounded = expected.astype(x.dtype)
    regular = np.isfinite(rounded) & np.isfinite(actual)
    same = (actual == rounded) | (np.isnan(actual) & np.isnan(rounded))
    _, exponent = np.frexp(np.where(regular, expected, wider(1)))
    last_place = np.ldexp(wider(1), np.maximum(exponent, info.minexp + 1) - info.nmant - 1)
    with np.errstate(invalid="ignore"):
        distance = np.abs(actual.astype(wider) - expected) / last_place
    return np.where(regular, distance, np.where(same, 0, np.inf))


def assert_within(name, x, limit=2.0):
    found = errors(name, x, applied(name, x))
    worst = int(np.argmax(found))
    assert found[worst] <= limit, (found[worst], x[worst])
    return found[worst]


def edges(dtype):
    """Powers of two, ends of the ranges where the arithmetic changes, and their neighbors, of both signs."""
    info = np.finfo(dtype)
    powers = np.ldexp(dtype(1), np.arange(info.minexp, info.maxexp)).astype(dtype)
    halves = (powers * dtype(np.sqrt(0.5)))[1:]
    steps = (np.arange(4400) * (np.log(2) / 4)).astype(dtype)
    middle = np.concatenate([powers, halves, steps, np.array([info.tiny, info.max], dtype)])
    with np.errstate(over="ignore", under="ignore"):
        around = [middle, np.nextafter(middle, dtype(0)), np.nextafter(middle, dtype(np.inf))]
    around = np.concatenate(around)[:: sized(1, 7)]
    return np.concatenate([around, -around])


@pytest.mark.parametrize("name", NAMES)
def test_float32_is_within_two_ulp_on_values_of_every_exponent(name):
    step = sized(1499, 400_009)  # odd, so that it visits all trailing bits
    x = np.arange(0, 2**32, step, dtype=np.uint32).view(np.float32)
    assert_within(name, x[~np.isnan(x)], 0.5 if name == "sqrt" else 2)


@needs_longdouble
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["log", "softplus"])
def test_values_where_the_error_is_largest_are_within_two_ulp(name, dtype):
    rng, count = np.random.default_rng(0), sized(400_000, 1000)
    if name == "log":
        x = [1 + rng.uniform(-0.35, 0.5, count), 2 ** rng.uniform(-3, 3, count)]
    else:
        x = [rng.uniform(-3, 3, count), rng.choice([-1, 1], count) * 2 ** rng.uniform(-40, 1, count)]
    worst = assert_within(name, np.concatenate(x).astype(dtype))
    assert worst >= 0.5, "a rounded result cannot be better: the measurement is broken"


@needs_longdouble
@pytest.mark.parametrize("name", NAMES)
def test_float64_is_within_two_ulp_over_the_whole_range(name):
    rng, count = np.random.default_rng(1), sized(350_000, 1000)
    everywhere = 2.0 ** rng.uniform(-1022, 1023, count)
    around_zero = np.concatenate([rng.uniform(-745, 0, count), rng.uniform(-40, 40, count)])
    x = np.concatenate([everywhere, -everywhere, around_zero])
    assert_within(name, x, 0.501 if name == "sqrt" else 2)


@needs_longdouble
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_values_at_the_edges_are_within_two_ulp(name, dtype):
    assert_within(name, edges(dtype))


@pytest.mark.parametrize("functions", [ROWS, LOOPS], ids=["rows", "numbers"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_special_values(dtype, functions):
    inf, nan, info = np.inf, np.nan, np.finfo(dtype)
    x = np.array([0.0, -0.0, inf, -inf, -1.0, -info.tiny, 1.0, info.max, -info.max], dtype)
    expected = {  # None where the value is nothing special
        "log": [-inf, -inf, inf, nan, nan, nan, 0.0, None, nan],
        "softplus": [None, None, inf, 0.0, None, None, None, info.max, 0.0],
        "sqrt": [0.0, -0.0, inf, nan, nan, nan, 1.0, None, nan],
    }
    for name in NAMES:
        for value, actual in zip(expected[name], applied(name, x, functions), strict=True):
            if value is not None and np.isnan(value):
                assert np.isnan(actual), name
            elif value is not None:
                assert_same_bits(np.array(actual), np.array(value, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_nan_stays_nan_whatever_its_sign_and_payload(name, dtype):
    unsigned, nmant = BITS[dtype], np.finfo(dtype).nmant
    payload = np.random.default_rng(2).integers(0, 2 ** (nmant - 1), sized(10_000, 100), dtype=unsigned)
    quiet = np.array([np.inf, -np.inf], dtype).view(unsigned)[:, None] | unsigned(1 << (nmant - 1))
    x = np.concatenate([(quiet | payload).ravel(), (quiet | unsigned(2 ** (nmant - 1) - 1)).ravel()])
    assert np.isnan(applied(name, x.view(dtype))).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_denormal_operand_of_log_counts_as_zero(dtype):
    tiny = np.finfo(dtype).tiny
    x = np.array([tiny / 2, -tiny / 2, np.nextafter(dtype(0), dtype(1)), tiny], dtype)
    actual = applied("log", x)
    np.testing.assert_array_equal(actual[:3], -np.inf)
    np.testing.assert_allclose(actual[3], np.log(tiny), rtol=2 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", DTYPES)
def test_softplus_is_exp_far_left_and_the_number_itself_far_right(dtype):
    info = np.finfo(dtype)
    far = -np.log(info.eps) + 2
    left = np.linspace(np.log(float(info.tiny)) + 1, -far, sized(20_000, 200)).astype(dtype)
    np.testing.assert_allclose(applied("softplus", left), np.exp(left), rtol=2 * info.eps)
    right = np.geomspace(far, float(info.max) / 2, sized(20_000, 200)).astype(dtype)
    assert_same_bits(applied("softplus", right), right)
    fading = np.linspace(np.log(float(info.tiny)), -800, sized(20_000, 200)).astype(dtype)[1:]
    actual = applied("softplus", fading)
    assert (actual >= 0).all()
    assert (actual < info.tiny).all()
    assert (np.diff(actual) <= 0).all()
    assert actual[-1] == 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_a_number_and_a_row_have_the_same_bits_in_every_place(name, dtype):
    x = np.abs(np.random.default_rng(4).standard_normal(sized(300, 40)) * 4).astype(dtype)
    expected = applied(name, x)
    assert_same_bits(np.concatenate([applied(name, x[i : i + 1]) for i in range(x.size)]), expected)
    assert_same_bits(applied(name, x, LOOPS), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_arrays_and_numbers_outside_kernels_give_the_values_of_kernels(name, dtype):
    """The products and sums of NumPy are rounded one by one, which costs another ULP or so."""
    x = np.abs(np.random.default_rng(5).standard_normal(1000) * 4).astype(dtype)
    actual = FORMULAS[name](x)
    assert actual.dtype == dtype
    np.testing.assert_allclose(actual, applied(name, x), rtol=4 * np.finfo(dtype).eps)
    number = FORMULAS[name](x[0])
    assert type(number) is dtype
    assert number == actual[0]


@formula
def parts(x):
    return split_exponent(x)


@_jit.inner
def split_row(x, m, n):
    map_row(parts, x.size, ((x, 0),), ((m, 0), (n, 0)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_mantissa_and_exponent_make_the_number(dtype):
    info = np.finfo(dtype)
    x = np.exp2(np.random.default_rng(6).uniform(info.minexp, info.maxexp, 2000)).astype(dtype)
    x = np.concatenate([x[np.isfinite(x)], np.ldexp(dtype(1), np.arange(info.minexp, info.maxexp))])

    m, n = poisoned((2, x.size), dtype)
    split_row(x, m, n)
    one_by_one = tuple(np.array([parts(value) for value in x[:50]]).T)
    for actual in ((m, n), parts(x), one_by_one):
        count = len(actual[0])
        np.testing.assert_array_equal(np.ldexp(actual[0], actual[1].astype(int)), x[:count])
        assert (actual[0] >= 0.707106).all()
        assert (actual[0] <= 1.414214).all()


SMALL_PROGRAM = """
import sys
sys.path[:0] = sys.argv[1:]
import test_logarithm
print(test_logarithm.digest_of_all())
"""


def digest_of_all():
    """A hash of the bits of all functions on random and edge values."""
    digest = hashlib.sha256()
    for dtype in DTYPES:
        rng = np.random.default_rng(7)
        x = np.concatenate([edges(dtype), (rng.standard_normal(100_003) * 10).astype(dtype)])
        for name in NAMES:
            y = applied(name, x)
            digest.update(np.where(np.isnan(y), dtype(np.nan), y).tobytes())  # the sign of a NaN is free
    return digest.hexdigest()


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
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("functions", [ROWS, LOOPS], ids=["rows", "numbers"])
def test_loops_are_vectorized_and_call_no_library(name, dtype, functions):
    architecture, _, features = cpu_target.target_context.codegen().magic_tuple()
    if not architecture.startswith("x86_64") or "+avx2" not in features:
        pytest.skip("reads x86 assembly with AVX2")
    function = (row_of if functions is ROWS else loop_of)(FORMULAS[name])
    function(np.ones(8, dtype), np.ones(8, dtype))
    (text,) = function.inspect_asm().values()
    suffix = "ps" if dtype is np.float32 else "pd"
    assert re.search(rf"v(sqrt|div){suffix}\s.*%[yz]mm", text)
    assert name == "sqrt" or re.search(rf"vfn?m(add|sub)\d+{suffix}\s.*%[yz]mm", text)
    assert not re.search(r"[$\s](fma|exp|log|log1p|expm1|sqrt|ldexp)f?(,|@|$)", text, re.MULTILINE)
