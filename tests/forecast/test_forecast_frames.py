"""`RNNForecaster` on long frames of pandas and polars, with covariates and gaps; and its pictures."""

import datetime

import numpy as np
import pytest

pytest.importorskip("narwhals")
pandas = pytest.importorskip("pandas")
polars = pytest.importorskip("polars")

from rnnfast.forecast import RNNForecaster, plot  # noqa: E402

FIRST = np.datetime64("2024-01-01", "s")
DAY = np.timedelta64(1, "D")


def columns(series=3, steps=40, drop=()):
    """Columns of series of unequal lengths, without the rows `drop`."""
    rng = np.random.default_rng(0)
    rows = {"unique_id": [], "ds": [], "y": [], "price": [], "promo": []}
    for number in range(series):
        count = steps - 5 * number
        rows["unique_id"] += [f"s{number}"] * count
        rows["ds"] += list(FIRST + DAY * np.arange(count))
        rows["y"] += list(rng.standard_normal(count).cumsum())
        rows["price"] += list(rng.random(count))
        rows["promo"] += [str(kind) for kind in rng.choice(["none", "half"], count)]
    return {name: [one for row, one in enumerate(values) if row not in drop] for name, values in rows.items()}


def pandas_frame(data):
    return pandas.DataFrame({**data, "ds": np.array(data["ds"], "datetime64[ns]")})


def polars_frame(data):
    return polars.DataFrame({**data, "ds": np.array(data["ds"], "datetime64[us]")})


def after(data, steps, **others):
    """The next dates of each series, with covariates."""
    rows = {"unique_id": [], "ds": [], **{name: [] for name in others}}
    for name in dict.fromkeys(data["unique_id"]):
        last = max(ds for one, ds in zip(data["unique_id"], data["ds"], strict=True) if one == name)
        rows["unique_id"] += [name] * steps
        rows["ds"] += list(last + DAY * np.arange(1, steps + 1))
        for key, value in others.items():
            rows[key] += [value] * steps
    return rows


def small(**options):
    return RNNForecaster(**{"hidden_size": 5, "max_epochs": 2, "random_state": 0, **options})


both = pytest.mark.parametrize("frame", [pandas_frame, polars_frame])


@both
def test_forecasts_come_back_in_the_same_kind_of_frame(frame):
    data = columns()
    df = frame(data)
    found = small(freq="D").fit(df).predict(4, level=[80], quantiles=[0.5])
    assert type(found) is type(df)
    names = ["RNNForecaster", "RNNForecaster-lo-80", "RNNForecaster-hi-80", "RNNForecaster_ql0.5"]
    assert list(found.columns) == ["unique_id", "ds", *names]
    expected = after(data, 4)
    assert list(found["unique_id"]) == expected["unique_id"]
    np.testing.assert_array_equal(found["ds"].to_numpy(), np.array(expected["ds"]))
    assert found["ds"].dtype == df["ds"].dtype
    low, high = (found[f"RNNForecaster-{side}-80"].to_numpy() for side in ("lo", "hi"))
    assert (low < high).all()


@both
def test_frames_have_the_bits_of_arrays(frame):
    y = np.random.default_rng(0).standard_normal((2, 30)).cumsum(axis=1)
    data = {
        "unique_id": np.repeat(["a", "b"], 30).tolist(),
        "ds": list(FIRST + DAY * np.arange(30)) * 2,
        "y": y.reshape(-1).tolist(),
    }
    found = small(calendar=False).fit(frame(data)).predict(3)["RNNForecaster"].to_numpy()
    np.testing.assert_array_equal(found.reshape(2, 3), small().fit(y).predict(3))


@both
def test_missing_dates_are_missing_values(frame):
    drop = (3, 4, 50)
    with_gaps = columns(drop=drop)
    as_nan = columns()
    for row in drop:
        as_nan["y"][row] = float("nan")
    one, same = (small(freq="D").fit(frame(data)).predict(3) for data in (with_gaps, as_nan))
    np.testing.assert_array_equal(one["RNNForecaster"].to_numpy(), same["RNNForecaster"].to_numpy())


@both
def test_rows_of_series_may_be_mixed(frame):
    data = columns()
    order = np.argsort(np.array(data["ds"]), kind="stable")
    mixed = {name: [values[row] for row in order] for name, values in data.items()}
    one, same = (small(freq="D").fit(frame(rows)).predict(3) for rows in (data, mixed))
    for name in ("RNNForecaster", "unique_id"):
        np.testing.assert_array_equal(one[name].to_numpy(), same[name].to_numpy())


@both
def test_covariates_are_read(frame):
    data = columns()
    static = {"unique_id": ["s2", "s1", "s0"], "kind": ["x", "y", "x"], "size": [1.0, 2.0, 4.0]}
    make = type(frame(data))
    forecaster = small(freq="D", futr_exog=["price", "promo"], stat_exog=["kind", "size"])
    forecaster.fit(frame(data), make(static))
    assert (
        forecaster.model_.config["input_size"] == 1 + 2 + 3 + 3
    )  # value, week, price and promo, kind and size
    one, other = (
        forecaster.predict(3, futr_df=frame(after(data, 4, price=price, promo="half")))
        for price in (0.1, 0.9)
    )
    assert (one["RNNForecaster"].to_numpy() != other["RNNForecaster"].to_numpy()).all()
    new = {**data, "unique_id": ["new " + one for one in data["unique_id"]]}
    known = make({**static, "unique_id": ["new s2", "new s1", "new s0"]})
    future = frame(after(new, 3, price=0.1, promo="half"))
    found = forecaster.predict(3, frame(new), futr_df=future, static_df=known)
    assert found["unique_id"][0] == "new s0"


@both
def test_update_and_predict_of_other_frames(frame):
    data = columns()
    forecaster = small(freq="D").fit(frame(data))
    rows = {**after(data, 2), "y": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]}
    whole = {name: data[name] + rows[name] for name in ("unique_id", "ds", "y")}
    expected = forecaster.predict(3, frame(whole))
    # One series has a date without a row, and the others follow later.
    part = {name: [values[row] for row in (0, 1)] for name, values in rows.items()}
    rest = {name: [values[row] for row in (4, 5, 2, 3)] for name, values in rows.items()}
    found = forecaster.update(frame(part)).update(frame(rest)).predict(3)
    np.testing.assert_array_equal(found["RNNForecaster"].to_numpy(), expected["RNNForecaster"].to_numpy())


@both
def test_backtests_name_origins_and_values(frame):
    data = columns()
    found = small(freq="D").cross_validation(frame(data), 3, 2, 4)
    assert list(found.columns) == ["unique_id", "ds", "cutoff", "y", "RNNForecaster"]
    values = dict(zip(zip(data["unique_id"], data["ds"], strict=True), data["y"], strict=True))
    rows = zip(
        found["unique_id"], found["ds"].to_numpy(), found["cutoff"].to_numpy(), found["y"], strict=True
    )
    seen = 0
    for name, ds, cutoff, y in rows:
        assert values[name, ds.astype("datetime64[s]")] == y
        assert 1 <= (ds - cutoff) / DAY <= 3
        seen += 1
    assert seen == 3 * 2 * 3


def test_columns_and_dates_of_other_kinds():
    data = columns()
    days = [datetime.date(2024, 1, 1) + datetime.timedelta(int(n)) for n in range(30)]
    found = (
        small().fit(polars.DataFrame({"unique_id": ["a"] * 30, "ds": days, "y": data["y"][:30]})).predict(1)
    )
    assert found["ds"].to_list() == [datetime.date(2024, 1, 31)]
    numbers = pandas.DataFrame({"shop": [7] * 20, "week": 2 * np.arange(20), "sales": data["y"][:20]})
    forecaster = small().fit(numbers, id_col="shop", time_col="week", target_col="sales")
    found = forecaster.predict(2)
    assert found["week"].tolist() == [40, 42]
    assert found["shop"].tolist() == [7, 7]
    texts = pandas.DataFrame({"unique_id": "a", "ds": [str(day) for day in days], "y": data["y"][:30]})
    assert str(small().fit(texts).predict(1)["ds"][0])[:10] == "2024-01-31"


def test_a_file_knows_the_frame(tmp_path):
    forecaster = small(freq="D").fit(polars_frame(columns()))
    forecaster.save(tmp_path / "forecaster")
    assert RNNForecaster.load(tmp_path / "forecaster").predict(2).equals(forecaster.predict(2))


def test_frames_that_do_not_fit_name_series_and_date():
    data = columns()
    df = pandas_frame(data)
    with_covariates = small(freq="D", futr_exog=["price", "promo"], stat_exog=["kind"])
    static = pandas.DataFrame({"unique_id": ["s0", "s1", "s2"], "kind": ["x", "y", "x"]})
    with_covariates.fit(df, static)
    future = after(data, 3, price=1.0, promo="half")
    plain = small(freq="D").fit(df)
    gap = df.drop(index=4)
    for call, match in [
        (lambda: small().fit(df.iloc[::-1]), "series 's2' at 2024-01-29 comes after a later date"),
        (lambda: small().fit(df.iloc[[0, 1, 1, 2]]), "series 's0' at 2024-01-02 occurs twice"),
        (lambda: small(freq="W").fit(df), "step W does not fit series 's0' at 2024-01-02"),
        (lambda: small(freq="min").fit(df), "only 105 of 146883 values would be known"),
        (lambda: small(freq=1).fit(df), "freq does not fit a column of dates"),
        (lambda: small().fit(df.assign(y=np.nan)), "series 's0' has no value that is not NaN"),
        (lambda: small().fit(df.assign(y="x")), "the column 'y' must hold numbers"),
        (lambda: small().fit(df.assign(y=df.y.where(df.index != 3, np.inf))), "series 's0' at 2024-01-04"),
        (lambda: small().fit(df.drop(columns="y")), "df needs the column 'y'"),
        (lambda: small().fit(df.iloc[:0]), "df must have at least one row"),
        (lambda: small().fit(df.assign(ds="soon")), "the column 'ds' must hold dates"),
        (lambda: small().fit(df.assign(ds=df.ds.dt.tz_localize("UTC"))), "without a time zone"),
        (lambda: plain.predict(3, np.zeros(4)), "df must be a frame"),
        (lambda: plain.update(df), "series 's0': 2024-01-01 must be whole steps after"),
        (lambda: plain.update(df.assign(unique_id="other")), "dates must rise"),
        (lambda: plain.update(df.iloc[:3].assign(unique_id="z")), "series 'z' was not in fit"),
        (lambda: plain.predict(3, futr_df=df), "futr_df"),
        (lambda: with_covariates.predict(3), "futr_df is needed, with the future values of price, promo"),
        (lambda: with_covariates.predict(4, futr_df=pandas_frame(future)), "'s0' are missing at 2024-02-13"),
        (
            lambda: with_covariates.predict(3, futr_df=pandas_frame({**future, "promo": ["new"] * 9})),
            "promo was never 'new' in the training data, but is in series 's0' at 2024-02-10",
        ),
        (lambda: with_covariates.fit(df), "static_df is needed"),
        (lambda: with_covariates.fit(df, static.iloc[:2]), "static_df has no row of series 's2'"),
        (lambda: with_covariates.fit(gap, static), "but is not in series 's0' at 2024-01-05"),
        (lambda: with_covariates.fit(df.assign(promo=None), static), "'promo' must be known"),
    ]:  # fmt: skip
        with pytest.raises((ValueError, TypeError), match=match):
            call()


def test_pictures_show_values_forecasts_and_intervals():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    from matplotlib import pyplot

    df = pandas_frame(columns())
    forecaster = small(freq="D").fit(df)
    found = forecaster.predict(4, level=[50, 90])
    drawn = plot(df, found, last=10)
    assert [axes.get_title(loc="left") for axes in drawn] == ["s0", "s1", "s2"]
    labels = [text.get_text() for text in drawn[0].get_legend().get_texts()]
    assert labels == ["values", "90 %", "50 %", "forecast"]
    assert len(drawn[0].lines[0].get_xdata()) == 10
    figure, axes = pyplot.subplots()
    assert plot(df, found, ids=["s1"], ax=axes) == [axes]
    assert axes.get_figure() is figure
    quantiles = small().fit(np.arange(30.0)).predict(4, quantiles=[0.1, 0.9])
    assert len(plot(np.arange(30.0), quantiles)[0].collections) == 1
    with pytest.raises(ValueError, match="series 'z'"):
        plot(df, found, ids=["z"])
    with pytest.raises(ValueError, match="series and axes"):
        plot(df, found, ax=axes)
    pyplot.close("all")


DAYS = [FIRST + DAY * number for number in range(24)]
DAYS_US = np.array(DAYS, "datetime64[us]")
Y = np.random.default_rng(0).standard_normal(24).cumsum()
HOURS = pandas.date_range(
    "2024-03-30", periods=24, freq="h", tz="Europe/Berlin"
)  # a day before the clocks change
HOURS_ACROSS = pandas.date_range("2024-03-30 20:00", periods=24, freq="h", tz="Europe/Berlin")


def gap(missing):
    return [missing if row == 4 else value for row, value in enumerate(Y.tolist())]


def of_pandas(**changes):
    data = {"unique_id": "a", "ds": DAYS_US, "y": Y}
    return pandas.DataFrame({**data, **changes})


def of_polars(**changes):
    data = {"unique_id": ["a"] * 24, "ds": DAYS_US, "y": Y}
    return polars.DataFrame({**data, **changes})


def of_dict(**changes):
    return {"unique_id": ["a"] * 24, "ds": DAYS, "y": Y, **changes}


RIGHT = {  # frames, and whether row 4 has no value
    "Float64": (lambda: of_pandas(y=pandas.array(Y, "Float64")), False),
    "Float64 with NA": (lambda: of_pandas(y=pandas.array(gap(pandas.NA), "Float64")), True),
    "objects with NA": (lambda: of_pandas(y=pandas.Series(gap(pandas.NA), dtype=object)), True),
    "objects with NaT": (lambda: of_pandas(y=pandas.Series(gap(pandas.NaT), dtype=object)), True),
    "Sparse": (lambda: of_pandas(y=pandas.arrays.SparseArray(Y)), False),
    "categorical names": (lambda: of_pandas(unique_id=pandas.Categorical(["a"] * 24, ["b", "a"])), False),
    "one index for all rows": (lambda: of_pandas().set_axis([0] * 24), False),
    "index out of order": (lambda: of_pandas().set_axis(range(24, 0, -1)), False),
    "periods": (lambda: of_pandas(ds=pandas.period_range("2024-01-01", periods=24, freq="D")), False),
    "Decimal": (lambda: of_polars(y=polars.Series(Y.tolist()).cast(polars.Decimal(38, 20))), False),
    "null": (lambda: of_polars(y=polars.Series(gap(None))), True),
    "Categorical": (lambda: of_polars(unique_id=polars.Series(["a"] * 24, dtype=polars.Categorical)), False),
    "dict of Series with NA": (
        lambda: of_dict(y=pandas.Series(pandas.array(gap(pandas.NA), "Float64"))),
        True,
    ),
    "dict of masked array": (lambda: of_dict(y=np.ma.masked_invalid(gap(np.nan))), True),
    "across a change of clocks, in UTC": (lambda: of_pandas(ds=HOURS_ACROSS.tz_convert(None)), None),
}


@pytest.mark.parametrize("kind", RIGHT)
def test_columns_of_all_kinds_are_read(kind):
    make, has_gap = RIGHT[kind]
    expected = of_dict(y=np.array(gap(np.nan)) if has_gap else Y)
    if has_gap is None:
        expected["ds"] = np.datetime64("2024-03-30T19:00:00") + np.arange(24).astype("timedelta64[h]")
    actual, expected = (small().fit(data).predict(3)["RNNForecaster"] for data in (make(), expected))
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=1e-12)


REFUSED = {
    "without a time zone; convert them to UTC, pandas with": [
        lambda: of_pandas(ds=HOURS),
        lambda: of_pandas(ds=HOURS_ACROSS),
        lambda: of_pandas(ds=HOURS.astype(object)),
        lambda: of_pandas(ds=HOURS.astype(str)),
        lambda: of_pandas(ds=[f"{day}Z" for day in DAYS]),
        lambda: of_polars(ds=polars.Series(DAYS_US).cast(polars.Datetime("us", "Europe/Berlin"))),
        lambda: of_dict(ds=polars.Series(DAYS_US).cast(polars.Datetime("us", "UTC"))),
        lambda: of_dict(ds=pandas.Series(HOURS)),
        lambda: of_dict(ds=[day.tz_localize("UTC") for day in map(pandas.Timestamp, DAYS)]),
    ],
    "in whole seconds, or whole numbers, got NaT.* in row 4, of series 'a'": [
        lambda: of_pandas(ds=[pandas.NaT if row == 4 else day for row, day in enumerate(DAYS)]),
        lambda: of_pandas(
            ds=pandas.Series([pandas.NaT if row == 4 else d for row, d in enumerate(DAYS)], dtype=object)
        ),
        lambda: of_polars(ds=[None if row == 4 else day.item() for row, day in enumerate(DAYS)]),
        lambda: of_dict(ds=np.where(np.arange(24) == 4, np.datetime64("NaT"), np.array(DAYS))),
    ],
    "whole numbers, got 'today' in row 0": [lambda: of_dict(ds=["today"] * 24)],
    "whole numbers, got '7' in row 0": [lambda: of_dict(ds=["7"] * 24)],
    "whole numbers, got 9223372036854775808": [lambda: of_dict(ds=np.arange(24).astype("u8") + 2**63)],
    "the column 'unique_id' has no name at 2024-01-24": [
        lambda: of_pandas(unique_id=pandas.array(["a"] * 23 + [pandas.NA], "string")),
        lambda: of_pandas(unique_id=pandas.Categorical(["a"] * 23 + [None])),
        lambda: of_polars(unique_id=["a"] * 23 + [None]),
    ],
    "the column 'unique_id' must hold texts or numbers, got list": [
        lambda: of_pandas(unique_id=pandas.Series([["a"]] * 24, dtype=object))
    ],
    "df has two columns 'y'; rename or drop one": [
        lambda: pandas.concat([of_pandas(), of_pandas()[["y"]]], axis=1)
    ],
    "df needs the column 'unique_id', got": [
        lambda: of_pandas().set_axis(
            pandas.MultiIndex.from_product([["x"], ["unique_id", "ds", "y"]]), axis=1
        ),
        lambda: of_pandas().set_index("unique_id"),
    ],
    "comes after a later date; sort the rows by date": [lambda: of_pandas().iloc[::-1]],
    "'a' has no value that is not NaN": [lambda: of_polars(y=polars.Series([None] * 24))],
    "the column 'y' must hold numbers": [
        lambda: of_polars(y=polars.Series([[1.0]] * 24)),
        lambda: of_polars(y=polars.Series(range(24), dtype=polars.Int128)),
        lambda: of_pandas(y=DAYS),
        lambda: of_pandas(y=Y + 1j),
    ],
    "df must be a frame, an array .* got DataFrameGroupBy": [lambda: of_pandas().groupby("unique_id")],
}


@pytest.mark.parametrize(
    ("words", "make"), [(words, make) for words, all_ in REFUSED.items() for make in all_]
)
def test_columns_that_mean_something_else_are_refused_in_one_sentence(words, make):
    with pytest.raises((ValueError, TypeError), match=rf"^RNNForecaster\.fit: [^\n]*{words}[^\n]*\.$"):
        small().fit(make())


def test_covariates_are_numbers_whatever_holds_them():
    rows = np.arange(24)
    expected = small(futr_exog=["p"]).fit(of_dict(p=rows.astype(float))).model_.config["input_size"]
    for data in (
        of_pandas(p=pandas.Series(rows.tolist(), dtype=object)),
        of_pandas(p=pandas.array(rows, "Int64")),
        of_polars(p=polars.Series(rows).cast(polars.Decimal(10, 2))),
    ):
        assert small(futr_exog=["p"]).fit(data).model_.config["input_size"] == expected
    for column, words in (
        (DAYS, "'p' must hold numbers, or texts as categories, got datetime64"),
        (Y + 1j, "'p' must hold numbers, or texts as categories, got complex128"),
        (
            pandas.Series(["x"] * 23 + [pandas.NA], dtype=object),
            "'p' must be known and finite.* at 2024-01-24",
        ),
    ):
        with pytest.raises((TypeError, ValueError), match=words):
            small(futr_exog=["p"]).fit(of_pandas(p=column))
