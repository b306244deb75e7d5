"""The forecaster of sktime: the checks of sktime itself, and the numbers of `rnnfast.forecast`."""

import inspect

import numpy as np
import pytest

pytest.importorskip("sktime")

import pandas as pd
from sktime.utils.estimator_checks import check_estimator

from rnnfast import forecast
from rnnfast.sktime import RNNForecaster

SMALL = {"hidden_size": 4, "max_epochs": 2, "random_state": 0}
MONTHS = pd.period_range("2019-03", periods=40, freq="M")


def walk(count, seed=0):
    return np.random.default_rng(seed).normal(size=count).cumsum()


def series(count=40):
    return pd.Series(walk(count), MONTHS[:count], name="sales")


def columns(y):
    """The long frame of `rnnfast.forecast`."""
    return {"unique_id": np.zeros(len(y), int), "ds": y.index.to_timestamp().to_numpy(), "y": y.to_numpy()}


# sktime warns of what it will change, and its checks of what they provoke.
@pytest.mark.filterwarnings("ignore")
def test_the_checks_of_sktime_pass():
    found = check_estimator(RNNForecaster, verbose=0)
    assert len(found) > 500
    assert {name: result for name, result in found.items() if result != "PASSED"} == {}


def test_parameters_are_those_of_the_forecaster():
    own, inner = (inspect.signature(one).parameters for one in (RNNForecaster, forecast.RNNForecaster))
    assert list(own.values()) == [one for name, one in inner.items() if name in own]
    others = {"freq", "futr_exog", "stat_exog", "patience", "verbose", "callbacks", "on_update", "ranks"}
    assert set(inner) - set(own) == others
    assert RNNForecaster().get_params() == {name: one.default for name, one in own.items()}
    with pytest.raises(TypeError, match="unexpected keyword argument 'freq'"):
        RNNForecaster(freq="D")


def test_a_numbered_series_is_an_array():
    y = walk(60)
    actual = RNNForecaster(**SMALL).fit(pd.Series(y))
    expected = forecast.RNNForecaster(**SMALL).fit(y)
    steps = actual.predict([1, 2, 3])
    np.testing.assert_array_equal(steps, expected.predict(3))
    assert steps.index.tolist() == [60, 61, 62]
    quantiles = actual.predict_quantiles([3, 1], alpha=[0.9, 0.2])
    np.testing.assert_array_equal(quantiles, expected.predict(3, quantiles=[0.2, 0.9])[[0, 2]][:, ::-1])


@pytest.mark.parametrize("freq", ["D", "B", "W-SAT", "MS", "ME", "QS-FEB", "YS", "15min"])
def test_dates_are_counted_in_the_step_of_the_index(freq):
    dates = pd.date_range("2020-01-01", periods=40, freq=freq)
    y = pd.Series(walk(40), dates)
    actual = RNNForecaster(**SMALL).fit(y[:36])
    data = {"unique_id": np.zeros(36, int), "ds": dates[:36].to_numpy(), "y": y.to_numpy()[:36]}
    expected = forecast.RNNForecaster(freq, **SMALL).fit(data).predict(4)
    pd.testing.assert_index_equal(actual.predict([2, 4]).index, dates[[37, 39]], check_names=False)
    np.testing.assert_array_equal(actual.predict(dates[36:]), expected["RNNForecaster"])
    np.testing.assert_array_equal(expected["ds"].astype("datetime64[s]"), dates[36:].to_numpy())


def test_covariates_and_missing_values():
    y = series()
    y.iloc[[3, 20]] = np.nan
    X = pd.DataFrame({"price": walk(40, 1), "sale": ["no", "yes"] * 20}, MONTHS)
    actual = RNNForecaster(**SMALL).fit(y[:36], X[:36])
    expected = forecast.RNNForecaster("M", futr_exog=["price", "sale"], **SMALL)
    data = columns(y) | {name: X[name].to_numpy() for name in X}
    expected.fit({name: values[:36] for name, values in data.items()})
    future = {name: values[36:] for name, values in data.items()}
    found = actual.predict(MONTHS[36:], X[36:])
    np.testing.assert_array_equal(found, expected.predict(4, futr_df=future)["RNNForecaster"])
    with pytest.raises(ValueError, match="price"):
        actual.predict([1, 2])


def test_each_series_of_a_panel_has_its_own_network():
    lengths = {"a": 40, "b": 37}
    y = pd.concat(
        {shop: series(length).to_frame() for shop, length in lengths.items()}, names=["shop", "month"]
    )
    found = RNNForecaster(**SMALL).fit(y).predict([1, 3])["sales"]
    for shop, length in lengths.items():
        expected = RNNForecaster(**SMALL).fit(series(length)).predict([1, 3])
        pd.testing.assert_series_equal(found[shop], expected, check_names=False)


def test_an_update_without_training_reads_on():
    y = series()
    actual = RNNForecaster(**SMALL).fit(y[:30])
    expected = forecast.RNNForecaster("M", **SMALL).fit(columns(y[:30]))
    np.testing.assert_array_equal(
        actual.update(y[25:34], update_params=False).predict([1, 2]),
        expected.update(columns(y[30:34])).predict(2)["RNNForecaster"],
    )
    assert actual.cutoff[0] == MONTHS[33]
    back = actual.update(y[20:28], update_params=False)
    np.testing.assert_array_equal(back.predict([1, 2]), expected.predict(2, columns(y[:28]))["RNNForecaster"])


def test_covariates_of_an_update_may_overlap_too():
    y, X = series(), pd.DataFrame({"price": walk(40, 1)}, MONTHS)
    whole, cut = RNNForecaster(**SMALL), RNNForecaster(**SMALL)
    whole.fit(y[:30], X[:30]).update(y[30:36], X[30:36], update_params=False)
    cut.fit(y[:30], X[:30]).update(y[20:36], X[20:36], update_params=False)
    expected = whole.predict([1, 2], X[36:])
    np.testing.assert_array_equal(cut.predict([1, 2], X[36:]), expected)


def test_numbered_series_may_be_set_back():
    y = walk(40)
    data = {"unique_id": np.zeros(40, int), "ds": np.arange(5, 45), "y": y}
    expected = forecast.RNNForecaster(1, **SMALL).fit(data)
    expected = expected.predict(2, {name: values[:30] for name, values in data.items()})
    numbered = pd.Series(y, data["ds"])
    actual = RNNForecaster(**SMALL).fit(numbered).update(numbered[20:30], update_params=False)
    assert actual.predict([2])[36] == expected["RNNForecaster"][1]


def test_an_update_trains_on_all_values():
    y = series()
    actual = RNNForecaster(**SMALL).fit(y[:30]).update(y[30:])
    np.testing.assert_array_equal(actual.predict([1]), RNNForecaster(**SMALL).fit(y).predict([1]))


@pytest.mark.parametrize(("head", "expected"), [("gaussian", True), ("absolute", False)])
def test_a_head_without_a_distribution_has_no_intervals(head, expected):
    assert RNNForecaster(head=head).get_tag("capability:pred_int") is expected
