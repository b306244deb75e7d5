"""Metrics of forecasts against their definitions, and against utilsforecast where it is installed."""

import numpy as np
import pytest

from rnnfast.forecast import metrics

LEVELS = (0.1, 0.5, 0.8)
rng = np.random.default_rng(0)
ACTUAL, FORECAST = rng.normal(5, 2, (3, 12)), rng.normal(5, 2, (3, 12))
TRAIN = rng.normal(5, 2, (3, 40))
QUANTILES = np.sort(rng.normal(5, 2, (3, 3, 12)), axis=0)


def test_metrics_are_those_of_utilsforecast():
    losses = pytest.importorskip("utilsforecast.losses")
    import pandas as pd

    names = [f"q{index}" for index in range(3)]
    frame = pd.DataFrame({"unique_id": np.repeat(range(3), 12), "ds": np.tile(range(40, 52), 3)})
    frame["y"], frame["m"] = ACTUAL.ravel(), FORECAST.ravel()
    for name, values in zip(names, QUANTILES, strict=True):
        frame[name] = values.ravel()
    frame["m-lo-80"], frame["m-hi-80"] = QUANTILES[0].ravel(), QUANTILES[2].ravel()
    train = pd.DataFrame(
        {"unique_id": np.repeat(range(3), 40), "ds": np.tile(range(40), 3), "y": TRAIN.ravel()}
    )
    expected = {
        "mae": losses.mae(frame, ["m"]),
        "rmse": losses.rmse(frame, ["m"]),
        "smape": losses.smape(frame, ["m"]),
        "mase": losses.mase(frame, ["m"], 4, train),
        "quantile_loss": losses.quantile_loss(frame, {"m": "q0"}, 0.1),
        "crps": losses.mqloss(frame, {"m": names}, np.array(LEVELS)),
        "coverage": losses.coverage(frame, ["m"], 80),
    }
    found = {
        "mae": metrics.mae(ACTUAL, FORECAST),
        "rmse": metrics.rmse(ACTUAL, FORECAST),
        "smape": metrics.smape(ACTUAL, FORECAST),
        "mase": metrics.mase(ACTUAL, FORECAST, TRAIN, 4),
        "quantile_loss": metrics.quantile_loss(ACTUAL, QUANTILES[0], 0.1),
        "crps": metrics.crps(ACTUAL, QUANTILES, LEVELS) / 2,
        "coverage": metrics.coverage(ACTUAL, QUANTILES[0], QUANTILES[2]),
    }
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name].sort_values("unique_id")["m"], rtol=1e-12)


def test_the_score_of_samples_is_its_definition():
    samples = rng.normal(5, 2, (7, 3, 12))
    spread = np.abs(samples[:, np.newaxis] - samples).mean(axis=(0, 1))
    expected = (np.abs(samples - ACTUAL).mean(axis=0) - spread / 2).mean(axis=-1)
    np.testing.assert_allclose(metrics.crps(ACTUAL, samples), expected, rtol=1e-12)


def test_many_quantiles_give_the_score_of_the_distribution():
    """That of a standard normal forecast at 0 is (sqrt(2) - 1) / sqrt(pi)."""
    samples = np.sort(np.random.default_rng(1).standard_normal(100_000))
    levels = np.arange(0.0005, 1, 0.001)
    quantiles = np.quantile(samples, levels)[:, np.newaxis]
    expected = (np.sqrt(2) - 1) / np.sqrt(np.pi)
    assert metrics.crps([0.0], quantiles, levels) == pytest.approx(expected, rel=0.01)
    assert metrics.crps([0.0], samples[:, np.newaxis]) == pytest.approx(expected, rel=0.01)


def test_steps_without_an_actual_value_are_left_out():
    actual = ACTUAL.copy()
    actual[0, 3:] = np.nan
    actual[1] = np.nan
    for metric in (metrics.mae, metrics.rmse, metrics.smape):
        found = metric(actual, FORECAST)
        assert found[0] == metric(ACTUAL[0, :3], FORECAST[0, :3])
        assert np.isnan(found[1])
        assert found[2] == metric(ACTUAL[2], FORECAST[2])
    assert metrics.crps(actual, QUANTILES)[0] == metrics.crps(ACTUAL[0, :3], QUANTILES[:, 0, :3])
    train = TRAIN.copy()
    train[0, ::7] = np.nan
    steps = np.abs(train[0, 1:] - train[0, :-1])
    assert metrics.mase(ACTUAL, FORECAST, train)[0] == metrics.mae(ACTUAL, FORECAST)[0] / np.nanmean(steps)
    assert np.isnan(metrics.mase(ACTUAL[0], FORECAST[0], np.ones(9)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.mae(ACTUAL, FORECAST[:, :5]), r"^mae: forecasts must be \(3, 12\), got \(3, 5\)\.$"),
        (lambda: metrics.mae(3.0, 4.0), r"^mae: actual must have at least one step, got \(\)\.$"),
        (lambda: metrics.crps(ACTUAL, FORECAST), r"^crps: forecasts must be \(k, 3, 12\), got \(3, 12\)\.$"),
        (
            lambda: metrics.crps([1.0], np.ones((0, 1))),
            r"^crps: at least one forecast is needed, got none\.$",
        ),
        (
            lambda: metrics.crps(ACTUAL, QUANTILES, [0.1, 0.9]),
            r"^crps: levels must be 3 numbers between 0 and 1, got \[0\.1, 0\.9\]\.$",
        ),
        (lambda: metrics.quantile_loss(ACTUAL, FORECAST, 1.5), "level must be .* got 1.5"),
        (lambda: metrics.mase(ACTUAL, FORECAST, TRAIN, 0), "season_length must be at least 1, got 0"),
    ],
)
def test_wrong_arguments_are_one_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_masked_steps_are_left_out():
    mask = ACTUAL > 6
    hidden = np.ma.array(np.where(mask, 1e9, ACTUAL), mask=mask)
    gaps = np.where(mask, np.nan, ACTUAL)
    train = np.ma.array(np.where(TRAIN > 6, 1e9, TRAIN), mask=TRAIN > 6)
    train_gaps = np.where(TRAIN > 6, np.nan, TRAIN)
    for call in (
        lambda y, t: metrics.mae(y, FORECAST),
        lambda y, t: metrics.rmse(list(y), FORECAST),
        lambda y, t: metrics.smape(y, FORECAST),
        lambda y, t: metrics.mase(y, FORECAST, t, 4),
        lambda y, t: metrics.crps(y, QUANTILES, LEVELS),
        lambda y, t: metrics.coverage(y, FORECAST - 1, FORECAST + 1),
        lambda y, t: metrics.mae(FORECAST, y),  # a masked forecast is none
    ):
        np.testing.assert_array_equal(call(hidden, train), call(gaps, train_gaps))
    with pytest.raises(ValueError, match="levels is masked at 1"):
        metrics.crps(ACTUAL, QUANTILES, np.ma.array(LEVELS, mask=[0, 1, 0]))


@pytest.mark.parametrize("factor", [2.0**700, 2.0**1010, 2.0**-700])
def test_errors_of_very_large_and_small_values_are_finite(factor):
    for metric in (metrics.mae, metrics.rmse):
        expected = metric(ACTUAL, FORECAST) * factor
        np.testing.assert_array_equal(metric(ACTUAL * factor, FORECAST * factor), expected)
