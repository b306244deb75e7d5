"""exp, sigmoid and tanh: error in ULP, special values, saturation, symmetry, machine code."""

import hashlib
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from helpers import DTYPES, JIT, assert_same_bits, needs_jit, poisoned, sized, target_without_avx512
from numba.core.registry import cpu_target
from rnnfast.kernels import _jit
from rnnfast.kernels.codegen.activations import exp, exp_forward, sigmoid, sigmoid_forward, tanh, tanh_forward

KERNELS = {"exp": exp_forward, "sigmoid": sigmoid_forward, "tanh": tanh_forward}
SCALARS = {"exp": exp, "sigmoid": sigmoid, "tanh": tanh}
NAMES = sorted(KERNELS)

# From here on the result is exactly that of infinity: float32, float64.
TANH_IS_ONE = {np.float32: 9.011, np.float64: 19.062}
SIGMOID_IS_ONE = {np.float32: 17.33, np.float64: 37.43}
EXP_IS_INFINITE = {np.float32: 88.7229, np.float64: 709.783}
EXP_IS_ZERO = {np.float32: -103.98, np.float64: -745.14}

BITS = {np.float32: np.uint32, np.float64: np.uint64}


def applied(name, x):
    actual = poisoned(x.shape, x.dtype)
    with np.errstate(over="ignore"):  # plain Python warns where exp overflows
        KERNELS[name](x, actual)
    return actual


def reference(name, x):
    """The function in the precision of x, which is the one above that under test."""
    with np.errstate(over="ignore", under="ignore"):
        if name == "sigmoid":
            e = np.exp(-np.abs(x))
            return np.where(x < 0, e, 1) / (1 + e)
        return np.exp(x) if name == "exp" else np.tanh(x)


def largest_error(name, x, wider):
    """The largest distance to the true value in ULP of it, and where; inf if only one is NaN or infinite."""
    actual = applied(name, x)
    expected = reference(name, x.astype(wider))
    info = np.finfo(x.dtype)
    with np.errstate(over="ignore", under="ignore"):
        rounded = expected.astype(x.dtype)
    regular = np.isfinite(rounded) & np.isfinite(actual)
    same = (actual == rounded) | (np.isnan(actual) & np.isnan(rounded))
    _, exponent = np.frexp(np.where(regular, expected, wider(1)))
    last_place = np.ldexp(wider(1), np.maximum(exponent, info.minexp + 1) - info.nmant - 1)
    with np.errstate(invalid="ignore"):
        distance = np.abs(actual.astype(wider) - expected) / last_place
    error = np.where(regular, distance, np.where(same, 0, np.inf))
    worst = int(np.argmax(error))
    return float(error[worst]), float(x[worst])


def edges(dtype):
    """Powers of two, multiples of ln2 / 4 where the reduction steps, ends of ranges, and their neighbors."""
    info = np.finfo(dtype)
    powers = np.ldexp(dtype(1), np.arange(info.minexp - info.nmant, 11)).astype(dtype)
    steps = (np.arange(4400) * (np.log(2) / 4)).astype(dtype)
    tables = (TANH_IS_ONE, SIGMOID_IS_ONE, EXP_IS_INFINITE, EXP_IS_ZERO)
    ends = np.array([*(abs(table[dtype]) for table in tables), info.tiny, info.max], dtype)
    middle = np.concatenate([powers, steps, ends])
    with np.errstate(over="ignore"):
        around = [middle, np.nextafter(middle, dtype(0)), np.nextafter(middle, dtype(np.inf))]
    around = np.concatenate([*around, np.array([0.0], dtype)])
    return np.concatenate([around, -around])[:: sized(1, 7)]


@pytest.mark.parametrize("name", NAMES)
def test_float32_is_within_two_ulp_on_values_of_every_exponent(name):
    step = sized(1499, 400_009)  # odd, so that it visits all trailing bits
    x = np.arange(0, 2**32, step, dtype=np.uint32).view(np.float32)
    error, where = largest_error(name, x[~np.isnan(x)], np.float64)
    assert error <= 2, (error, where)


@pytest.mark.parametrize("name", NAMES)
def test_float32_is_within_two_ulp_where_its_error_is_largest(name):
    low, high = {"exp": (-6.0, -5.5), "sigmoid": (-16.0, -2.0), "tanh": (0.2, 0.56)}[name]
    x = np.random.default_rng(0).uniform(low, high, sized(1_000_000, 2000)).astype(np.float32)
    error, where = largest_error(name, x, np.float64)
    assert error <= 2, (error, where)
    assert error >= 0.5 or not JIT, "a rounded result cannot be better: the measurement is broken"


@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="no type here is wider than float64")
@pytest.mark.parametrize("name", NAMES)
def test_float64_is_within_two_ulp(name):
    rng, count = np.random.default_rng(1), sized(350_000, 700)
    log_uniform = 2.0 ** rng.uniform(-30, 9.6, count) * rng.choice([-1, 1], count)
    x = np.concatenate([log_uniform, rng.uniform(-3, 3, count), rng.uniform(-40, 40, count)])
    error, where = largest_error(name, x, np.longdouble)
    assert error <= 2, (error, where)
    assert error >= 0.5, "a rounded result cannot be better: the measurement is broken"


@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="no type here is wider than float64")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_values_at_the_edges_are_within_two_ulp(name, dtype):
    error, where = largest_error(name, edges(dtype), np.float64 if dtype is np.float32 else np.longdouble)
    assert error <= 2, (error, where)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["exp", "sigmoid"])
def test_denormal_results_fade_out_and_do_not_snap_to_zero(name, dtype):
    tiny = np.finfo(dtype).tiny
    x = np.linspace(np.log(float(tiny)), EXP_IS_ZERO[dtype], sized(20_000, 200)).astype(dtype)[1:-1]
    actual = applied(name, x)
    assert (actual[: x.size // 2] > 0).all()
    assert (actual < tiny).all()
    assert np.unique(actual).size > x.size // 100
    assert (np.diff(actual) <= 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_special_values(dtype):
    inf, nan, huge = np.inf, np.nan, np.finfo(dtype).max
    x = np.array([0.0, -0.0, inf, -inf, huge, -huge, nan], dtype)
    assert_same_bits(applied("tanh", x)[:-1], np.array([0.0, -0.0, 1, -1, 1, -1], dtype))
    assert_same_bits(applied("sigmoid", x)[:-1], np.array([0.5, 0.5, 1, 0, 1, 0], dtype))
    assert_same_bits(applied("exp", x)[:-1], np.array([1, 1, inf, 0, inf, 0], dtype))
    assert all(np.isnan(applied(name, x)[-1]) for name in NAMES)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_nan_stays_nan_whatever_its_sign_and_payload(name, dtype):
    unsigned, nmant = BITS[dtype], np.finfo(dtype).nmant
    payload = np.random.default_rng(2).integers(1, 2**nmant, sized(10_000, 100), dtype=unsigned)
    quiet = np.array([np.inf, -np.inf], dtype).view(unsigned)[:, None] | unsigned(1 << (nmant - 1))
    actual = applied(name, (quiet | payload).ravel().view(dtype))
    assert np.isnan(actual).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_tanh_is_odd_bit_for_bit(dtype):
    count = sized(1_000_000, 2000)
    infinity = np.array(np.inf, dtype).view(BITS[dtype])
    bits = np.random.default_rng(3).integers(0, infinity, count, dtype=BITS[dtype])
    x = np.concatenate([bits.view(dtype), np.linspace(0, 20, count, dtype=dtype)])
    assert_same_bits(applied("tanh", -x), -applied("tanh", x))


@pytest.mark.parametrize("dtype", DTYPES)
def test_tanh_of_a_tiny_number_is_the_number(dtype):
    info = np.finfo(dtype)
    bits = np.linspace(0, float(np.array(info.eps / 2, dtype).view(BITS[dtype])), sized(100_000, 1000))
    x = bits.astype(BITS[dtype]).view(dtype)
    assert (x < info.tiny).any()
    assert_same_bits(applied("tanh", x), x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "table"), [("tanh", TANH_IS_ONE), ("sigmoid", SIGMOID_IS_ONE)])
def test_one_is_reached_once_and_never_left_or_passed(name, table, dtype):
    x = np.linspace(table[dtype] * 0.8, table[dtype] * 1.2, sized(1_000_000, 3000)).astype(dtype)
    actual = applied(name, x)
    is_one = actual == 1
    assert not is_one[0]
    assert is_one[np.argmax(is_one) :].all()
    assert is_one[x >= dtype(table[dtype])].all()
    assert actual.max() == 1
    assert (np.diff(actual) >= -np.finfo(dtype).epsneg).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_exp_overflows_and_vanishes_where_it_must(dtype):
    above = np.linspace(EXP_IS_INFINITE[dtype], 3000, sized(10_000, 300)).astype(dtype)
    assert np.isposinf(applied("exp", above)).all()
    assert_same_bits(applied("exp", EXP_IS_ZERO[dtype] - above), np.zeros_like(above))
    assert_same_bits(applied("sigmoid", EXP_IS_ZERO[dtype] - above), np.zeros_like(above))
    below = np.array([EXP_IS_INFINITE[dtype] * (1 - 1e-5)], dtype)
    assert np.isfinite(applied("exp", below)).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_an_element_gives_the_same_bits_in_every_place_and_also_in_place(name, dtype):
    x = (np.random.default_rng(4).standard_normal(sized(300, 40)) * 4).astype(dtype)
    expected = applied(name, x)
    one_by_one = np.concatenate([applied(name, x[i : i + 1]) for i in range(x.size)])
    shifted = np.concatenate([applied(name, x[:3]), applied(name, x[3:])])
    KERNELS[name](x, x)
    for actual in (one_by_one, shifted, x):
        assert_same_bits(actual, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_the_working_type_is_kept(name, dtype):
    scalar = SCALARS[name]
    compiled = _jit.inner(lambda x: scalar(x))
    assert dtype(compiled(dtype(0.7))) == applied(name, np.full(1, 0.7, dtype))[0]
    if JIT:  # a compiled function returns a Python float for either type
        (signature,) = compiled.nopython_signatures
        assert str(signature.return_type) == np.dtype(dtype).name
    else:
        assert type(compiled(dtype(0.7))) is dtype


SMALL_PROGRAM = """
import sys
import numpy as np
sys.path[:0] = sys.argv[1:]
import test_activations
print(test_activations.digest_of_all())
"""


def digest_of_all():
    """A hash of the bits of all functions on random and edge values."""
    digest = hashlib.sha256()
    for dtype in DTYPES:
        rng = np.random.default_rng(5)
        x = np.concatenate([edges(dtype), (rng.standard_normal(100_003) * 10).astype(dtype)])
        for name in NAMES:
            digest.update(applied(name, x).tobytes())
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


def each_row(function):
    """A loop over slices of 2-D arrays that may overlap, as cells have them."""

    @_jit.inner
    def loop(a, h):
        for n in range(a.shape[0]):
            row, out = a[n], h[n]
            for j in range(row.size):
                out[j] = function(row[j])

    return loop


def assembly(loop, *arguments):
    loop(*arguments)
    (text,) = loop.inspect_asm().values()
    return text


@needs_jit
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_loops_are_vectorized_and_call_no_library(name, dtype):
    architecture, _, features = cpu_target.target_context.codegen().magic_tuple()
    if not architecture.startswith("x86_64") or "+avx2" not in features:
        pytest.skip("reads x86 assembly with AVX2")
    flat, matrix = np.zeros(8, dtype), np.zeros((2, 8), dtype)
    suffix = "ps" if dtype is np.float32 else "pd"
    for text in (
        assembly(_jit.inner(KERNELS[name].py_func), flat, flat.copy()),
        assembly(each_row(SCALARS[name]), matrix, matrix.copy()),
    ):
        assert re.search(rf"vfn?m(add|sub)\d+{suffix}\s.*%[yz]mm", text)
        assert name == "exp" or re.search(rf"vdiv{suffix}\s.*%[yz]mm", text)
        assert not re.search(r"[$\s](fma|exp|expm1|tanh|ldexp|rint|copysign)f?(,|@|$)", text, re.MULTILINE)
