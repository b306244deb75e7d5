"""Intervals, quantiles and simulated paths of `RNNForecaster`."""

import numpy as np
import pytest
from helpers import takes_minutes_interpreted

from rnnfast import heads
from rnnfast.forecast import RNNForecaster, metrics


def small(**options):
    return RNNForecaster(**{"hidden_size": 5, "max_epochs": 2, "random_state": 0, **options})


def walks(count=4, steps=50, seed=0):
    return np.random.default_rng(seed).standard_normal((count, steps)).cumsum(axis=1)


ALL = [heads.gaussian, heads.student_t, heads.quantiles(0.1, 0.5, 0.9)]


@pytest.mark.parametrize("head", ALL, ids=repr)
@pytest.mark.parametrize("horizon", [1, 4])
def test_quantiles_rise_and_intervals_are_quantiles(head, horizon):
    forecaster = small(head=head, train_horizon=horizon).fit(walks())
    found = forecaster.predict(4, quantiles=[0.9, 0.5, 0.1])
    assert found.shape == (4, 4, 3)
    assert (np.diff(found) > 0).all()
    np.testing.assert_array_equal(forecaster.predict(4, level=[80], quantiles=0.5), found)


def test_paths_depend_on_seed_and_series_alone():
    forecaster = small().fit(walks())
    paths = forecaster.simulate(3, 20, seed=5)
    assert paths.shape == (4, 20, 3)
    np.testing.assert_array_equal(forecaster.simulate(3, 20, seed=5), paths)
    np.testing.assert_array_equal(forecaster.simulate(3, 7, seed=5), paths[:, :7])
    np.testing.assert_array_equal(forecaster.simulate(2, 20, seed=5), paths[..., :2])
    assert (forecaster.simulate(3, 20, seed=6) != paths).all()
    first = forecaster.simulate(3, 20, seed=5, df=walks()[:2])
    np.testing.assert_array_equal(first, paths[:2])
    one = small().fit(walks()[0])
    assert one.simulate(3, 7).shape == (7, 3)


@takes_minutes_interpreted
def test_paths_are_continued_from_their_own_values():
    forecaster = small(target="difference").fit(walks())
    deviations = forecaster.simulate(30, 400, seed=1)[0].std(axis=0)
    assert deviations[-1] > 3 * deviations[0]


def test_backtests_have_the_quantiles_of_predict():
    y = walks()
    found = small().cross_validation(y, 3, 2, quantiles=[0.2, 0.8])
    assert found.shape == (4, 2, 3, 2)
    np.testing.assert_array_equal(found[:, 0], small().fit(y[:, :44]).predict(3, quantiles=[0.2, 0.8]))


@takes_minutes_interpreted
@pytest.mark.parametrize("horizon", [1, 6])
def test_intervals_cover_a_random_walk(horizon):
    rng = np.random.default_rng(3)
    y = rng.standard_normal((300, 46)).cumsum(axis=1)
    forecaster = RNNForecaster(
        head="gaussian", hidden_size=8, train_horizon=horizon, max_epochs=20, random_state=0
    )
    forecaster.fit(y[:, :40])
    low, high = np.moveaxis(forecaster.predict(6, level=80), -1, 0)
    assert 0.75 < np.mean(metrics.coverage(y[:, 40:], low, high)) < 0.85


@takes_minutes_interpreted
def test_counts_stay_whole_numbers():
    rng = np.random.default_rng(0)
    means = np.array([5.0, 40.0, 300.0])
    y = rng.poisson(means[:, np.newaxis], (3, 80)).astype(float)
    options = {"target": "level", "dropout": 0.0, "max_epochs": 150, "random_state": 0}
    forecaster = RNNForecaster(head="negative_binomial", **options).fit(y)
    paths = forecaster.simulate(4, 300, seed=0)
    np.testing.assert_array_equal(paths, np.round(paths))
    assert (paths >= 0).all()
    np.testing.assert_allclose(paths.mean(axis=(1, 2)), means, rtol=0.35)
