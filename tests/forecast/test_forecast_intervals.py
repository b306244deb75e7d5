"""Calibrated intervals of `RNNForecaster`."""

import numpy as np
import pytest
from helpers import takes_minutes_interpreted

from rnnfast.forecast import PredictionIntervals, RNNForecaster, metrics
from rnnfast.forecast.fitted import ERROR_LEVELS


def small(**options):
    return RNNForecaster(**{"hidden_size": 5, "max_epochs": 2, "random_state": 0, **options})


def walks(count=6, steps=50, seed=0):
    return np.random.default_rng(seed).standard_normal((count, steps)).cumsum(axis=1)


def test_widths_are_the_errors_of_a_network_that_did_not_see_the_values():
    y, h = walks(), 4
    forecaster = small().fit(y, prediction_intervals=PredictionIntervals(h, 2, 3))
    first = small().fit(y[:, : 50 - h - 3])
    errors = []
    for origin in (50 - h - 3, 50 - h):
        if origin > 50 - h - 3:
            first.update(y[:, 50 - h - 3 : origin])
        low, high = np.moveaxis(first.predict(h, quantiles=[0.15866, 0.84134]), -1, 0)
        errors.append((y[:, origin : origin + h] - first.predict(h)) / ((high - low) / 2))
    table = np.quantile(errors, ERROR_LEVELS)
    table[:200], table[200], table[201:] = np.minimum(table[:200], 0), 0, np.maximum(table[201:], 0)
    levels = [0.1, 0.5, 0.97]
    raw = small().fit(y).predict(h, quantiles=[0.15866, 0.84134])
    spread = (raw[..., 1:] - raw[..., :1]) / 2
    expected = forecaster.predict(h)[..., np.newaxis] + spread * np.interp(levels, ERROR_LEVELS, table)
    np.testing.assert_allclose(forecaster.predict(h, quantiles=levels), expected, rtol=1e-12)
    np.testing.assert_array_equal(forecaster.predict(h), small().fit(y).predict(h))


@takes_minutes_interpreted
def test_calibration_mends_a_distribution_that_is_too_narrow():
    rng = np.random.default_rng(1)
    # Outliers that a Gaussian with a common scale misses: five of six changes are small.
    sizes = np.where(rng.random((200, 44)) < 1 / 6, 6.0, 0.3)
    y = (rng.standard_normal((200, 44)) * sizes).cumsum(axis=1)
    options = {"head": "gaussian", "hidden_size": 4, "max_epochs": 10, "random_state": 0}
    inside = []
    for intervals in (None, PredictionIntervals(1, 3)):
        forecaster = RNNForecaster(**options).fit(y[:, :43], prediction_intervals=intervals)
        low, high = np.moveaxis(forecaster.predict(1, level=80), -1, 0)
        inside.append(np.mean(metrics.coverage(y[:, 43:], low, high)))
    assert abs(inside[1] - 0.8) < 0.06 < inside[0] - 0.8


def test_short_series_are_learned_from_but_not_forecast():
    series = [*walks(3), np.arange(5.0)]
    forecaster = small().fit(series, prediction_intervals=PredictionIntervals(4, 2))
    found = forecaster.predict(4, level=[80, 95])
    assert found.shape == (4, 4, 4)
    assert (np.diff(found) > 0).all()


def test_backtests_calibrate_before_each_origin():
    y, intervals = walks(), PredictionIntervals(3, 2)
    found = small().cross_validation(y, 3, 2, prediction_intervals=intervals, quantiles=[0.1, 0.9])
    first = small().fit(y[:, :44], prediction_intervals=intervals)
    np.testing.assert_array_equal(found[:, 0], first.predict(3, quantiles=[0.1, 0.9]))


def test_a_file_keeps_the_calibration(tmp_path):
    forecaster = small().fit(walks(), prediction_intervals=PredictionIntervals(3))
    forecaster.save(tmp_path / "forecaster")
    loaded = RNNForecaster.load(tmp_path / "forecaster")
    np.testing.assert_array_equal(loaded.predict(3, level=90), forecaster.predict(3, level=90))


@pytest.mark.parametrize("arguments", [(0,), (3, 0), (3, 2, 0)])
def test_arguments_that_do_not_fit(arguments):
    with pytest.raises(ValueError, match="must be at least 1"):
        PredictionIntervals(*arguments)


def test_too_short_series():
    with pytest.raises(ValueError, match="prediction_intervals need a series of more than 75 values"):
        small().fit(walks(), prediction_intervals=PredictionIntervals(50))


def test_suggested_windows_fit_the_series():
    one = PredictionIntervals.suggested(12, np.array([300]))
    assert (one.h, one.n_windows, one.step_size) == (12, 15, 6)  # a third of the series: 12 + 14 * 6 + 4
    assert PredictionIntervals.suggested(6, np.full(100, 60)).n_windows == 2
    assert PredictionIntervals.suggested(1, np.array([500])).n_windows == 20
    assert PredictionIntervals.suggested(12, np.array([30, 30])) is None
