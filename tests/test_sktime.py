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


def panel(lengths, names=("shop", "month")):
    """A column of series that begin together, each with its own length."""
    rows = [(*one, month) for one, length in lengths.items() for month in MONTHS[:length]]
    index = pd.MultiIndex.from_tuples(rows, names=names)
    return pd.DataFrame({"sales": walk(len(rows))}, index)


def columns(y, ids=None):
    """The long frame of `rnnfast.forecast`."""
    ids = np.zeros(len(y), int) if ids is None else np.array(ids)
    times = y.index.get_level_values(-1)
    return {"unique_id": ids, "ds": times.to_timestamp().to_numpy(), "y": y.to_numpy().reshape(-1)}


# sktime warns of what it will change, and its checks of what they provoke.
@pytest.mark.filterwarnings("ignore")
def test_the_checks_of_sktime_pass():
    found = check_estimator(RNNForecaster, verbose=0)
    assert len(found) > 500
    assert {name: result for name, result in found.items() if result != "PASSED"} == {}


def test_parameters_are_those_of_the_forecaster():
    own, inner = (inspect.signature(one).parameters for one in (RNNForecaster, forecast.RNNForecaster))
    assert {name: one.default for name, one in own.items()} == {name: inner[name].default for name in own}
    assert list(own) == [name for name in inner if name in own]
    others = {"freq", "futr_exog", "stat_exog", "patience", "verbose", "callbacks", "on_update"}
    assert set(inner) - set(own) == others


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


@pytest.mark.parametrize("names", [("shop", "month"), ("town", "shop", "month")])
def test_all_series_of_a_panel_train_one_network(names):
    """A series that ends before the others has not been observed since."""
    lengths = {("a",): 40, ("b",): 37, ("c",): 40}
    lengths = {one * (len(names) - 1): length for one, length in lengths.items()}
    y = panel(lengths, names)
    actual = RNNForecaster(**SMALL).fit(y)
    whole = panel(dict.fromkeys(lengths, 40), names)
    whole = y.reindex(whole.index)
    ids = [one[0] if len(names) == 2 else str(one[:-1]) for one in whole.index]
    expected = forecast.RNNForecaster("M", **SMALL).fit(columns(whole, ids))
    found = actual.predict([1, 3])
    assert whole["sales"].isna().sum() == 3
    assert found.index.names == list(names)
    assert found.index.tolist() == [(*one, MONTHS[-1] + step) for one in lengths for step in (1, 3)]
    values = expected.predict(3)["RNNForecaster"].reshape(3, 3)[:, [0, 2]]
    np.testing.assert_array_equal(found["sales"], values.reshape(-1))


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


@pytest.mark.parametrize("last", [35, 37], ids=["back", "on"])
def test_each_series_keeps_its_forecasts_where_an_update_orders_them_anew(last):
    y = panel({("b",): 40, ("a",): 40})
    months = y.index.get_level_values(1)
    actual = RNNForecaster(**SMALL).fit(y[months <= MONTHS[36]])
    actual.update(y[months == MONTHS[last]], update_params=False)
    before = y[months <= MONTHS[last]]
    expected = actual.forecaster_.predict(1, columns(before, before.index.get_level_values(0)))
    found = actual.predict([1])["sales"]
    for shop, value in zip(expected["unique_id"], expected["RNNForecaster"], strict=True):
        assert found[shop].item() == value


def test_an_update_of_a_panel_may_leave_out_series():
    y = panel({("a",): 40, ("b",): 38, ("c",): 40})
    months = y.index.get_level_values(-1)
    actual = RNNForecaster(**SMALL).fit(y[months < MONTHS[36]])
    actual.update(y[months >= MONTHS[36]].drop(index="c"), update_params=False)
    whole = panel(dict.fromkeys([("a",), ("b",), ("c",)], 40))
    whole["sales"] = y.reindex(whole.index)["sales"]
    months, ids = (whole.index.get_level_values(level) for level in (1, 0))
    whole.loc[(ids == "c") & (months >= MONTHS[36]), "sales"] = np.nan
    expected = forecast.RNNForecaster("M", **SMALL)
    expected.fit(columns(whole[months < MONTHS[36]], ids[months < MONTHS[36]]))
    expected.update(columns(whole[months >= MONTHS[36]], ids[months >= MONTHS[36]]))
    np.testing.assert_array_equal(actual.predict([1])["sales"], expected.predict(1)["RNNForecaster"])


def test_an_update_trains_on_all_values():
    y = series()
    actual = RNNForecaster(**SMALL).fit(y[:30]).update(y[30:])
    np.testing.assert_array_equal(actual.predict([1]), RNNForecaster(**SMALL).fit(y).predict([1]))


@pytest.mark.parametrize(("head", "expected"), [("gaussian", True), ("absolute", False)])
def test_a_head_without_a_distribution_has_no_intervals(head, expected):
    assert RNNForecaster(head=head).get_tag("capability:pred_int") is expected
