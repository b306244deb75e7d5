"""Edges of `RNNForecaster`: threads, kinds of data, dates at ends of months, counts, names."""

import copy
import threading

import numpy as np
import pytest

from rnnfast import heads
from rnnfast.forecast import PredictionIntervals, RNNForecaster, metrics
from rnnfast.forecast.frames import found_grid, grid_of

from helpers import takes_minutes_interpreted  # isort: skip

NAN = np.nan


def small(**options):
    return RNNForecaster(**{"hidden_size": 5, "max_epochs": 2, "random_state": 0, **options})


def walks(count=4, steps=40):
    return np.random.default_rng(0).standard_normal((count, steps)).cumsum(axis=1)


def frame(ids, ds, y, **others):
    return {"unique_id": ids, "ds": np.array(ds, "datetime64[D]"), "y": y, **others}


def test_threads_take_turns():
    forecaster = small().fit(walks())
    expected, found = forecaster.predict(20), []

    def work():
        for _ in range(10):
            found.append(np.array_equal(forecaster.predict(20), expected))
            found.append(forecaster.predict(5, walks()[:2]).shape == (2, 5))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 60
    assert all(found)


def test_forecasts_have_the_shape_of_the_given_series():
    one, many = small().fit(walks()[0]), small().fit(walks())
    assert one.predict(3, walks()).shape == (4, 3)
    assert one.simulate(3, 5, 0, walks()).shape == (4, 5, 3)
    assert many.predict(3, walks()[0]).shape == (3,)


def test_an_update_leaves_copies_alone():
    first = small().fit(walks())
    second, before = copy.copy(first), first.predict(3)
    second.update(np.ones(4))
    np.testing.assert_array_equal(first.predict(3), before)


@pytest.mark.parametrize("kinds", [("f4", "f8"), ("f8", "f4"), ("f4", "f4")])
def test_bits_do_not_depend_on_the_dtype_of_parts(kinds, tmp_path):
    y = walks().astype("f4") + 1000
    forecaster = small().fit(y[:, :30].astype(kinds[0])).update(y[:, 30:].astype(kinds[1]))
    same = small().fit(y[:, :30].astype("f8")).update(y[:, 30:].astype("f8"))
    np.testing.assert_array_equal(forecaster.predict(5), same.predict(5))
    forecaster.save(tmp_path / "forecaster")
    np.testing.assert_array_equal(RNNForecaster.load(tmp_path / "forecaster").predict(5), same.predict(5))


@pytest.mark.parametrize("day", [28, 29, 30])
def test_days_at_ends_of_months_stay_days(day):
    months = np.arange(np.datetime64("2021-03"), np.datetime64("2022-02"))
    days = months.astype("datetime64[D]") + day - 1
    forecaster = small(freq="MS").fit(frame(["a"] * 11, days, np.arange(11.0)))
    end = np.datetime64("2022-02-28")
    assert forecaster.predict(2)["ds"].astype("datetime64[D]").tolist()[0] == end.tolist()
    forecaster.update(frame(["a"], [end], [11.0]))
    assert str(forecaster.predict(1)["ds"][0])[:10] == f"2022-03-{day}"


def test_working_days_are_found():
    days = np.arange(np.datetime64("2024-01-01"), np.datetime64("2024-03-01"))
    assert str(found_grid("test", np.array([0, 44]), days[np.is_busday(days)])) == "B"
    assert str(found_grid("test", np.array([0, len(days)]), days)) == "D"


def test_a_constant_series_has_no_scale_of_rounding():
    forecaster = small().fit([np.full(30, 0.1), walks()[0]])
    assert forecaster._trained.group.scale.scale[0] == 1


@takes_minutes_interpreted
def test_counts_of_any_size_are_learned():
    means = np.array([2.0, 30.0, 1000.0, 1e5])
    y = np.random.default_rng(0).poisson(means[:, np.newaxis], (4, 150)).astype(float)
    forecaster = RNNForecaster(head="negative_binomial", target="level", random_state=0).fit(y)
    np.testing.assert_allclose(forecaster.predict(5).mean(axis=1), means, rtol=0.2)
    low, high = np.moveaxis(forecaster.predict(5, level=95), -1, 0)
    assert metrics.coverage(y[:, -5:], low, high).mean() > 0.8


def test_intervals_hold_their_forecast():
    forecaster = small().fit(walks(), prediction_intervals=PredictionIntervals(4))
    low, middle, high = np.moveaxis(forecaster.predict(4, quantiles=[0.1, 0.5, 0.9]), -1, 0)
    point = forecaster.predict(4)
    assert ((low < point) & (point < high)).all()
    np.testing.assert_allclose(middle, point)


def test_static_covariates_of_new_series_are_enough():
    days = np.arange(np.datetime64("2024-01-01"), np.datetime64("2024-01-21"))
    old = frame(["a"] * 20, days, walks()[0][:20])
    forecaster = small(stat_exog=["size"]).fit(old, {"unique_id": ["a"], "size": [1.0]})
    both = {name: np.concatenate((values, values)) for name, values in old.items()}
    both["unique_id"] = np.array(["a"] * 20 + ["new"] * 20)
    found = forecaster.predict(2, both, static_df={"unique_id": ["new"], "size": [1.0]})
    np.testing.assert_array_equal(found["RNNForecaster"][:2], forecaster.predict(2)["RNNForecaster"])


def test_a_whole_number_of_numpy_is_a_frequency(tmp_path):
    numbers = {"unique_id": np.zeros(20, int), "ds": 2 * np.arange(20), "y": walks()[0][:20]}
    small(freq=np.int64(2)).fit(numbers).save(tmp_path / "forecaster")
    assert RNNForecaster.load(tmp_path / "forecaster").predict(1)["ds"].tolist() == [40]
    with pytest.raises(ValueError, match="freq must be"):
        small(freq="foo")
    assert grid_of("test", "2h").size == 2


def test_what_does_not_fit_is_one_sentence():
    days = np.arange(np.datetime64("2024-01-01"), np.datetime64("2024-01-21"))
    y = walks()[0][:20]
    data = frame(["a"] * 20, days, y, price=y, kind=["x"] * 20)
    counts = {"head": "negative_binomial", "target": "level"}
    with_static = small(stat_exog=["size"])
    for call, match in [
        (lambda: small().fit(walks()).predict(1, data), "must be an array or a list, as in fit, got a frame"),
        (lambda: small().fit(walks()).update(data), "must be an array or a list, as in fit"),
        (lambda: small(futr_exog=["y"]).fit(data), "'y' is a column of the series"),
        (lambda: small(futr_exog=["kind"], stat_exog=["kind"]).fit(data), "'kind' cannot be in both"),
        (
            lambda: with_static.fit(data, {"unique_id": ["a", "a"], "size": [1.0, 2.0]}),
            "static_df has two rows of series 'a'",
        ),
        (lambda: small().fit(frame(["a", None], days[:2], y[:2])), "'unique_id' has no name at 2024-01-02"),
        (lambda: small().fit(np.r_[[NAN] * 30, 5.0]), "needs more than 1 known values"),
        (
            lambda: small(season_length=50, target="seasonal_difference").fit([y]),
            "needs more than 50 known values",
        ),
        (
            lambda: small(**counts).fit([[1.0, 2.0, -1.0]]),
            "series 0 has -1 at its step 2",
        ),
        (lambda: small(**counts).fit([[1.0, 2.5, 1.0]]), "but series 0 has 2.5"),
        (
            lambda: small(head=heads.squared).fit(walks(), prediction_intervals=PredictionIntervals(2)),
            "squared has no distribution",
        ),
        (lambda: small().fit(walks(), prediction_intervals=3), "must be PredictionIntervals"),
        (lambda: small(freq="min").fit(data), "give a longer freq"),
    ]:
        with pytest.raises((ValueError, TypeError), match=match):
            call()


HIDDEN = np.arange(40) % 7 == 3
MASKED = np.ma.array(np.where(HIDDEN, 1e6, walks()[0]), mask=HIDDEN)
GAPS = np.where(HIDDEN, NAN, walks()[0])


def test_masked_values_are_not_observed():
    days = np.datetime64("2024-01-01") + np.arange(40)
    for form in (
        lambda y: y,
        lambda y: [y, walks()[1]],
        lambda y: list(y),
        lambda y: frame(["a"] * 40, days, y),
    ):
        one, same = (small().fit(form(y)).predict(3) for y in (MASKED, GAPS))
        if isinstance(one, dict):
            one, same = one["RNNForecaster"], same["RNNForecaster"]
        np.testing.assert_array_equal(one, same)
    np.testing.assert_array_equal(
        small().fit([None if v != v else v for v in GAPS]).predict(3), small().fit(GAPS).predict(3)
    )
    for rows in (lambda y, days: y, lambda y, days: frame(["a"] * len(y), days, y)):
        one, same = (
            small(freq=None if isinstance(rows(y, days), np.ndarray) else "D")
            .fit(rows(walks()[0], days))
            .update(rows(y[2:9], days[-1] + 1 + np.arange(7)))
            .predict(2)
            for y in (MASKED, GAPS)
        )
        if isinstance(one, dict):
            one, same = one["RNNForecaster"], same["RNNForecaster"]
        np.testing.assert_array_equal(one, same)
    for name, column, match in (
        ("unique_id", np.array(["a"] * 40), "'unique_id' has no name at 2024-01-04"),
        ("ds", days, "'ds' must hold dates.* got NaT .*in row 3, of series 'a'"),
        ("price", np.arange(40.0), "the covariate 'price' must be known and finite.* at 2024-01-04"),
    ):
        data = {
            **frame(["a"] * 40, days, GAPS),
            "price": np.zeros(40),
            name: np.ma.array(column, mask=HIDDEN),
        }
        with pytest.raises((TypeError, ValueError), match=match):
            small(futr_exog=["price"]).fit(data)
    with pytest.raises(ValueError, match="quantiles is masked at 1"):
        small().fit(GAPS).predict(1, quantiles=np.ma.array([0.1, 0.9], mask=[0, 1]))


@pytest.mark.parametrize("factor", [2.0**660, 2.0**990, 2.0**-60, 2.0**-660, 2.0**-1030])
@pytest.mark.parametrize("options", [{}, {"target": "level"}, {"scaler": "mean"}])
def test_very_large_and_very_small_values_are_forecast(factor, options):
    y = np.round(walks()[0] * 8) / 8  # few digits are left of the smallest numbers
    calibration = PredictionIntervals(2, 3)
    one, same = (
        small(**options).fit(y * k, prediction_intervals=calibration).predict(2, level=80)
        for k in (1.0, factor)
    )
    np.testing.assert_allclose(same / factor, one, rtol=1e-3 if factor < 2.0**-1000 else 1e-12)


def test_huge_constants_and_outliers_are_forecast():
    for constant in (1e17, -1e200):
        for target in ("level", "difference"):
            assert np.allclose(small(target=target).fit(np.full(40, constant)).predict(2), constant)
    assert np.isfinite(small().fit(np.where(HIDDEN, 1e200, walks()[0])).predict(2)).all()
    days = np.datetime64("2024-01-01") + np.arange(41)
    data = {**frame(["a"] * 40, days[:40], walks()[0]), "price": walks()[1] * 1e200}
    forecaster = small(futr_exog=["price"]).fit(data)
    future = {"unique_id": ["a"], "ds": days[40:], "price": [1e200]}
    assert np.isfinite(forecaster.predict(1, futr_df=future)["RNNForecaster"]).all()


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (
            lambda: small().fit([1.0, 1e301]),
            r"fit: df must be finite or NaN, got 1e\+301 \(above 1e\+300 in size\) at",
        ),
        (
            lambda: small().fit(frame(["a"] * 2, ["2024-01-01", "2024-01-02"], [1.0, 1e301])),
            r"fit: y must be finite or NaN, got 1e\+301 .* in series 'a' at 2024-01-02",
        ),
        (
            lambda: small(scaler=None).fit(walks() * 1e200),
            "series 0 holds a value of size .*, too large for its unit 1",
        ),
        (
            lambda: small().fit(walks()[0]).update([1e200]),
            r"series 0 holds a value of size 1e\+200, too large",
        ),
    ],
)
def test_values_that_no_network_can_read_are_refused_by_name(call, match):
    with pytest.raises(ValueError, match=match):
        call()
