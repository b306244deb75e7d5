"""`RNNForecaster` on dicts of columns, without a library of frames; and backtests that can be resumed."""

import datetime
import sys

import numpy as np
import pytest

from rnnfast._check import CheckpointError
from rnnfast.forecast import RNNForecaster, plot

FIRST = np.datetime64("2024-01-01")


def frame(steps=30, **others):
    """Two series of days, the second one shorter by 4."""
    days = FIRST + np.arange(steps)
    values = np.random.default_rng(0).standard_normal(2 * steps - 4).cumsum()
    ids = ["a"] * steps + ["b"] * (steps - 4)
    return {"unique_id": ids, "ds": np.concatenate((days, days[:-4])), "y": values, **others}


def small(**options):
    return RNNForecaster(**{"hidden_size": 5, "max_epochs": 2, "random_state": 0, **options})


@pytest.fixture
def without_libraries(monkeypatch):
    """No library of frames can be imported."""
    for name in ("narwhals", "pandas", "polars"):
        monkeypatch.setitem(sys.modules, name, None)


def test_a_dict_of_columns_gives_a_dict_of_arrays(without_libraries):
    found = small().fit(frame()).predict(3, level=80)
    assert list(found) == [
        "unique_id",
        "ds",
        *("RNNForecaster" + end for end in ("", "-lo-80", "-hi-80")),
    ]
    assert found["unique_id"].tolist() == ["a"] * 3 + ["b"] * 3
    np.testing.assert_array_equal(found["ds"][:3], FIRST + np.arange(30, 33))
    assert found["ds"].dtype == "datetime64[D]"
    assert (found["RNNForecaster-lo-80"] < found["RNNForecaster-hi-80"]).all()


def test_a_dict_has_the_bits_of_a_frame_and_of_arrays():
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("narwhals")
    data = frame()
    one, same = (small().fit(given).predict(4) for given in (data, pandas.DataFrame(data)))
    np.testing.assert_array_equal(one["RNNForecaster"], same["RNNForecaster"].to_numpy())
    arrays = [data["y"][:30], data["y"][30:]]
    plain = small(calendar=False)
    np.testing.assert_array_equal(
        plain.fit(data).predict(4)["RNNForecaster"].reshape(2, 4), plain.fit(arrays).predict(4)
    )


def test_columns_may_be_lists_with_gaps_dates_and_missing_values():
    days = [datetime.date(2024, 1, 1) + datetime.timedelta(number) for number in range(20)]
    values = [float(number % 7) for number in range(20)]
    values[4] = None
    data = {"unique_id": ["a"] * 20, "ds": days, "y": values}
    kept = [row for row in range(20) if row != 4]
    with_gap = {name: [column[row] for row in kept] for name, column in data.items()}
    one, same = (small(freq="D").fit(given).predict(3) for given in (data, with_gap))
    np.testing.assert_array_equal(one["RNNForecaster"], same["RNNForecaster"])


def test_backtests_of_series_with_missing_dates_are_those_with_missing_values():
    data, row = frame(), 20
    found = []
    for name in ("ds", "y"):
        if name == "y":
            changed = {**data, "y": np.where(np.arange(56) == row, np.nan, data["y"])}
        else:
            changed = {key: np.delete(np.asarray(values), row) for key, values in data.items()}
        found.append(small(freq="D").cross_validation(changed, 6, 3)["RNNForecaster"])
    np.testing.assert_array_equal(*found)


def test_covariates_updates_backtests_files_and_pictures_work_with_dicts(without_libraries, tmp_path):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    data = frame(price=np.linspace(0, 1, 56))
    static = {"unique_id": ["b", "a"], "kind": ["x", "y"]}
    future = {
        "unique_id": ["a"] * 4 + ["b"] * 4,
        "ds": [FIRST + day for day in (*range(30, 34), *range(26, 30))],
        "price": np.ones(8),
    }
    forecaster = small(futr_exog=["price"], stat_exog=["kind"]).fit(data, static)
    found = forecaster.predict(3, futr_df=future)
    forecaster.save(tmp_path / "file")
    again = RNNForecaster.load(tmp_path / "file")
    np.testing.assert_array_equal(again.predict(3, futr_df=future)["RNNForecaster"], found["RNNForecaster"])
    again.update({"unique_id": ["a"], "ds": [FIRST + 30], "y": [0.5], "price": [1.0]})
    assert again.predict(1, futr_df=future)["ds"].tolist() == [
        datetime.date(2024, 2, 1),
        datetime.date(2024, 1, 27),
    ]
    history = forecaster.cross_validation(data, 3, static_df=static)
    assert list(history) == ["unique_id", "ds", "cutoff", "y", "RNNForecaster"]
    np.testing.assert_array_equal(history["y"][:3], data["y"][27:30])
    assert len(plot(data, found)) == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ds": None}, "df needs the column 'ds', got unique_id, y"),
        ({"y": [1.0]}, "df must have columns of one length, got unique_id 56, ds 56, y 1"),
        ({"y": np.ones((56, 1))}, r"the column 'y' must be \(rows,\), got \(56, 1\)"),
        ({"y": ["x"] * 56}, "the column 'y' must hold numbers"),
        ({"ds": ["soon"] * 56}, "the column 'ds' must hold dates"),
    ],
)
def test_columns_that_do_not_fit_are_named(changes, words):
    data = {name: values for name, values in {**frame(), **changes}.items() if values is not None}
    with pytest.raises((TypeError, ValueError), match=words):
        small().fit(data)


def test_an_interrupted_backtest_continues_to_the_same_bits(tmp_path):
    def stopped_at(count):
        def stop(progress):
            if progress.step == count:
                raise KeyboardInterrupt

        return stop

    data, file = frame(), tmp_path / "training"
    expected = small(max_epochs=6).cross_validation(data, 3, 2)
    with pytest.raises(KeyboardInterrupt):
        small(max_epochs=6, on_update=stopped_at(3)).cross_validation(data, 3, 2, checkpoint_file=file)
    steps = []
    resumed = small(max_epochs=6, on_update=lambda progress: steps.append(progress.step))
    actual = resumed.cross_validation(data, 3, 2, checkpoint_file=file, resume=True)
    assert steps == [4, 5, 6]
    np.testing.assert_array_equal(actual["RNNForecaster"], expected["RNNForecaster"])
    with pytest.raises(CheckpointError):
        small(max_epochs=6).cross_validation(data, 4, 2, checkpoint_file=file, resume=True)
    with pytest.raises(ValueError, match="checkpoint_file belongs to refit=False"):
        small().cross_validation(data, 3, 2, refit=True, checkpoint_file=file)
