"""Quantiles of heads, uniform numbers, and draws from heads: their distribution, and what they depend on."""

import math
import pickle
from statistics import NormalDist

import numpy as np
import pytest
import reference
from helpers import DTYPES, assert_same_bits, poisoned, sized
from rnnfast.kernels.elementwise.noise import uniform_rows

from rnnfast import heads

HEADS = [heads.gaussian, heads.student_t, heads.negative_binomial, heads.quantiles(0.1, 0.5, 0.8)]
every_head = pytest.mark.parametrize("head", HEADS, ids=lambda head: head.name)


def uniform(streams, M, seed=5, step=3):
    out = poisoned((len(streams), M), np.float64)
    uniform_rows(seed, np.array(streams), step, out)
    return out


def test_uniform_numbers_are_those_of_the_reference():
    golden = 0x9E3779B97F4A7C15
    for seed, stream, step in ((0, 0, 0), (2**63 - 1, -3, 2**62), (5, 2**63 - 1, 7)):
        key = reference._mix64((seed + golden) % 2**64)
        for counter in (stream, step):
            key = reference._mix64((key + counter * golden) % 2**64)
        words = [reference._mix64((key + j * golden) % 2**64) >> 12 for j in range(9)]
        np.testing.assert_array_equal(uniform([stream], 9, seed, step)[0], (np.array(words) + 0.5) / 2**52)


def test_uniform_numbers_depend_neither_on_other_rows_nor_on_their_count():
    expected = uniform([7, 2, 2**40], 40)
    assert_same_bits(uniform([2], 40), expected[1:2])
    assert_same_bits(uniform([2**40, 7], 11), expected[[2, 0], :11])
    assert len(np.unique(np.concatenate([expected, uniform([7, 2], 40, step=4)]))) == 200
    assert len(np.unique(np.concatenate([expected, uniform([7, 2], 40, seed=6)]))) == 200


def test_uniform_numbers_are_uniform_and_neighbors_are_uncorrelated():
    numbers = uniform(range(50), sized(20_000, 200))
    assert 0 < numbers.min() < numbers.max() < 1
    share = np.histogram(numbers, 64, (0, 1))[0] / numbers.size * 64
    assert abs(((share - 1) ** 2).sum() * numbers.size / 64 - 63) < 4 * np.sqrt(2 * 63)
    centered = (numbers - 0.5) * np.sqrt(12)
    for product in (
        centered[:, 1:] * centered[:, :-1],
        centered[1:] * centered[:-1],
        centered[2:] * centered[:-2],
    ):
        assert abs(product.mean()) < 4 / np.sqrt(product.size)


def scores_of(head, N, size=2, dtype=np.float64, seed=0):
    return np.random.default_rng(seed).normal(1, 1, (N, len(head.parameters) * size)).astype(dtype)


@every_head
@pytest.mark.parametrize("dtype", DTYPES)
def test_levels_broadcast_and_quantiles_are_float64(head, dtype):
    scores = scores_of(head, 4, dtype=dtype)
    levels = np.array([0.01, 0.3, 0.5, 0.97])
    actual = head.quantile(scores, levels[:, None, None])
    assert (actual.shape, actual.dtype) == ((4, 4, 2), np.float64)
    assert (np.diff(actual, axis=0) >= 0).all()
    for level, one in zip(levels, actual, strict=True):
        assert_same_bits(head.quantile(scores, float(level)), one)
    assert_same_bits(head.quantile(scores[2], 0.3), actual[1, 2])
    assert head.quantile(scores[:0], 0.3).shape == (0, 2)
    scores[1] = np.nan
    assert np.isnan(head.quantile(scores, 0.3)).any(axis=1).tolist() == [False, True, False, False]


def test_gaussian_quantiles_are_mean_plus_scale_times_z():
    scores = scores_of(heads.gaussian, 5)
    values, z = heads.gaussian.values(scores), NormalDist().inv_cdf(0.9)
    expected = values["mean"] + values["scale"] * z
    np.testing.assert_allclose(heads.gaussian.quantile(scores, 0.9), expected, rtol=1e-13)
    assert_same_bits(heads.gaussian.quantile(scores, 0.5), values["mean"])


def test_quantiles_are_interpolated_in_the_normal_score():
    head, z = heads.quantiles(0.1, 0.5, 0.8), NormalDist().inv_cdf
    scores = scores_of(head, 3)
    low, middle, high = known = head.values(scores)["quantiles"]
    for level, expected in zip((0.1, 0.5, 0.8), known, strict=True):
        assert_same_bits(head.quantile(scores, level), expected)
    for level, below, above, segment in (
        (0.3, low, middle, (0.1, 0.5)),
        (0.05, low, middle, (0.1, 0.5)),
        (0.99, middle, high, (0.5, 0.8)),
    ):
        first, last = map(z, segment)
        expected = below + (z(level) - first) / (last - first) * (above - below)
        np.testing.assert_allclose(head.quantile(scores, level), expected, rtol=1e-11)
    one = heads.quantiles(0.3)
    assert (one.quantile(scores[:, :2], np.array([0.1, 0.9])) == scores[:, :2]).all()


@every_head
def test_a_draw_depends_on_its_series_and_place_alone(head):
    scores, streams = scores_of(head, 5), np.array([3, 1, 4, 15, 9])
    draws = head.sample(scores, 1, streams, 2, 7)
    assert (draws.shape, draws.dtype) == ((7, 5, 2), np.float64)
    rows = [4, 0]
    assert_same_bits(head.sample(scores[rows], 1, streams[rows].astype(np.uint8), 2, 3), draws[:3, rows])
    levels = uniform(streams, 14, 1, 2).reshape(5, 7, 2).swapaxes(0, 1)
    assert_same_bits(head.quantile(scores, levels), draws)
    for seed, step in ((2, 2), (1, 3)):
        assert (head.sample(scores, seed, streams, step, 7) != draws).any()


def draws_of(head, scores, count):
    """Draws (series * count,) for one row of scores of one output, from many series."""
    rows = np.repeat(np.array([scores], np.float64), 50, axis=0)
    return head.sample(rows, 0, np.arange(50), 0, count).ravel()


def test_draws_have_the_mean_the_variance_and_the_coverage_of_their_distribution():
    for head, scores in (
        (heads.gaussian, [2.0, 0.5]),
        (heads.student_t, [2.0, 0.5, 5.0]),
        (heads.negative_binomial, [0.5, -0.5]),
        (heads.negative_binomial, [4.1, -2.0]),
    ):
        draws = draws_of(head, scores, sized(4000, 40))
        value = {name: float(one[0]) for name, one in head.values(np.array(scores)).items()}
        mean = value["mean"]
        if head is heads.negative_binomial:
            variance = mean + value["dispersion"] * mean**2
        else:
            nu = value.get("freedom", np.inf)
            variance = value["scale"] ** 2 * (1 if nu == np.inf else nu / (nu - 2))
        assert abs(draws.mean() - mean) < 4 * np.sqrt(variance / draws.size)
        spread = ((draws - mean) ** 2).std() / np.sqrt(draws.size)
        assert abs(((draws - mean) ** 2).mean() - variance) < 4 * spread
        low, high = (float(head.quantile(np.array(scores), level)[0]) for level in (0.1, 0.9))
        inside = ((draws >= low) & (draws <= high)).mean()
        error = 4 * 0.4 / np.sqrt(draws.size)
        assert inside > 0.8 - error
        assert head is heads.negative_binomial or inside < 0.8 + error


def test_draws_pass_the_tests_of_kolmogorov_and_of_chi_square():
    count = sized(4000, 40)
    normal = np.sort(draws_of(heads.gaussian, [0.0, 40.0], count) / (40 + 1e-6))
    heavy = np.sort(draws_of(heads.student_t, [0.0, 40.0, -800.0], count) / (40 + 1e-6))
    exact = np.array([*map(NormalDist().cdf, normal.tolist())]), 0.5 + 0.5 * heavy / np.sqrt(2 + heavy**2)
    for below in exact:
        steps = np.arange(below.size + 1) / below.size
        distance = max((steps[1:] - below).max(), (below - steps[:-1]).max())
        assert distance < 1.95 / np.sqrt(below.size)  # 999 of 1,000 seeds
    scores = [4.0, 0.0]
    counts = draws_of(heads.negative_binomial, scores, count)
    mean, alpha = (float(one[0]) for one in heads.negative_binomial.values(np.array(scores)).values())
    k, rate = np.arange(15), 1 / alpha
    ways = [math.lgamma(one + rate) - math.lgamma(rate) - math.lgamma(one + 1) for one in k.tolist()]
    chances = np.exp(ways + rate * -np.log1p(alpha * mean) + k * np.log(alpha * mean / (1 + alpha * mean)))
    bins = [*chances, 1 - chances.sum()]
    expected, found = (
        np.array(bins) * counts.size,
        np.bincount(np.minimum(counts.astype(int), 15), minlength=16),
    )
    assert abs(((found - expected) ** 2 / expected).sum() - 15) < 4 * np.sqrt(30)


def _quantile(values, levels):
    return values["mean"] * levels


def _loss(a, t):
    return (a - t) * (a - t)


def _values(a):
    return {"mean": a}


def test_a_head_of_ones_own_keeps_its_quantile_function_in_a_copy():
    own = heads.Head("own", _loss, _values, quantile=_quantile)
    for head in (own, pickle.loads(pickle.dumps(own))):
        assert head.quantile(np.array([[8.0]]), 0.25).tolist() == [[2.0]]
        assert head.sample(np.array([[8.0]]), 0, np.array([0]), 0, 3).shape == (3, 1, 1)
    for head in HEADS:
        copy, scores = pickle.loads(pickle.dumps(head)), scores_of(head, 2)
        assert_same_bits(copy.quantile(scores, 0.7), head.quantile(scores, 0.7))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: heads.squared.quantile(np.zeros((1, 1)), 0.5),
            "squared.quantile: the head has no distribution; take gaussian",
        ),
        (lambda: draws_of(heads.absolute, [0.0], 1), "absolute.quantile: the head has no distribution"),
        (
            lambda: heads.gaussian.quantile(np.zeros(2), 1.0),
            "levels must lie between 0 and 1, both excluded, got 1.0",
        ),
        (lambda: heads.gaussian.quantile(np.zeros(2), np.array([0.5, np.nan])), "both excluded, got nan"),
        (
            lambda: heads.gaussian.quantile(np.zeros((3, 4)), np.full(3, 0.5)),
            "levels must broadcast with (3, 2), got (3,)",
        ),
        (lambda: sample(scores=np.zeros(2)), "scores must be (N, P*O), got (2,)"),
        (lambda: sample(streams=np.zeros(2, int)), "gaussian.sample: streams must be (1,), got (2,)"),
        (lambda: sample(seed=-1), "gaussian.sample: seed must be at least 0, got -1"),
        (lambda: sample(step=2**63), f"gaussian.sample: step must be at most {2**63 - 1}, got {2**63}"),
        (lambda: sample(count=0), "gaussian.sample: count must be at least 1, got 0"),
    ],
)
def test_wrong_arguments_are_one_sentence(call, message):
    with pytest.raises(ValueError, match=r"^[^\n]*\.$") as error:
        call()
    assert message in str(error.value)


def sample(**changes):
    usual = {"scores": np.zeros((1, 2)), "seed": 0, "streams": np.zeros(1, int), "step": 0, "count": 1}
    return heads.gaussian.sample(**usual | changes)


def test_classes_are_drawn_by_their_probabilities():
    head = heads.categorical(4)
    scores = np.array([[0.0, 2.0, -1.0, 1.0], [0.0, 0.0, 0.0, 90.0]])
    count = 20_000
    draws = head.sample(scores, seed=3, streams=np.array([5, 6]), step=0, count=count)
    assert draws.shape == (count, 2, 1)
    chances = np.exp(scores[0]) / np.exp(scores[0]).sum()
    found = np.bincount(draws[:, 0, 0].astype(int), minlength=4) / count
    np.testing.assert_allclose(found, chances, atol=4 * np.sqrt(0.25 / count))
    assert (draws[:, 1] == 3).all()
    np.testing.assert_array_equal(head.quantile(scores, 0.5)[:, 0], [1, 3])
