"""`RNNForecaster` on arrays: bits, accuracy, options, files and errors."""

import numpy as np
import pytest
from helpers import takes_minutes_interpreted

import rnnfast
from rnnfast.forecast import RNNForecaster, metrics
from rnnfast.forecast.panel import panel_of_arrays
from rnnfast.training import StopTraining

NAN = np.nan


def walks(count=5, steps=60, seed=0):
    """Random walks, two of them with gaps."""
    values = np.random.default_rng(seed).standard_normal((count, steps)).cumsum(axis=1) + 10
    values[1, 5:9] = values[1, 30] = values[2, :3] = NAN
    return values


def small(**options):
    return RNNForecaster(**{"hidden_size": 5, "max_epochs": 2, "random_state": 0, **options})


OPTIONS = [
    {},
    {"season_length": 7, "cell": "lstm", "layers": 2},
    {"season_length": 7, "target": "seasonal_difference", "cell": "rnn"},
    {"season_length": 7, "target": "level", "train_horizon": 3},
]
each = pytest.mark.parametrize("options", OPTIONS, ids=str)


@each
def test_updates_have_the_bits_of_reading_all_again(options):
    y, h = walks(), 5
    by_one, by_parts = small(**options).fit(y[:, :40]), small(**options).fit(y[:, :40])
    for step in range(40, 60):
        by_one.update(y[:, step])
    by_parts.update(y[:, 40:53]).update(y[:, 53:])
    expected = by_one.predict(h)
    assert np.isfinite(expected).all()
    np.testing.assert_array_equal(by_parts.predict(h), expected)
    trained = by_one._trained
    group = trained.fitted.read(panel_of_arrays("test", "y", y), trained.group.scale, trained.group.static)
    again = trained.fitted.forecast(group, h, np.zeros((5, h, 0)), [], 2, 0).points
    np.testing.assert_array_equal(again, expected)


@each
def test_branches_have_the_bits_of_calls_to_predict(options):
    y, h, windows, stride = walks(), 4, 6, 3
    found = small(**options).cross_validation(y, h, windows, stride)
    assert found.shape == (5, windows, h)
    first = 60 - h - stride * (windows - 1)
    forecaster = small(**options).fit(y[:, :first])
    for window in range(windows):
        np.testing.assert_array_equal(found[:, window], forecaster.predict(h))
        place = first + stride * window
        forecaster.update(y[:, place : place + stride])


def test_refit_trains_for_each_origin():
    y, h = walks(), 4
    found = small().cross_validation(y, h, 2, refit=True)
    for window, end in enumerate((52, 56)):
        np.testing.assert_array_equal(found[:, window], small().fit(y[:, :end]).predict(h))


@each
def test_a_series_does_not_depend_on_the_others(options):
    forecaster = small(**options).fit(walks())
    new = walks(4, 33, seed=1)
    together = forecaster.predict(6, new)
    for row in range(4):
        np.testing.assert_array_equal(forecaster.predict(6, new[row : row + 1])[0], together[row])
    np.testing.assert_array_equal(forecaster.predict(6, [new[3], new[0]]), together[[3, 0]])


def test_a_shorter_forecast_is_the_beginning_of_a_longer_one():
    forecaster = small(season_length=7, train_horizon=3).fit(walks())
    np.testing.assert_array_equal(forecaster.predict(4), forecaster.predict(8)[:, :4])


def test_the_same_seed_gives_the_same_bits():
    one, same, other = (small(random_state=seed).fit(walks()).predict(3) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


@each
def test_a_file_brings_the_forecaster_back(options, tmp_path):
    forecaster = small(**options).fit(walks())
    forecaster.save(tmp_path / "forecaster.safetensors")
    loaded = RNNForecaster.load(tmp_path / "forecaster.safetensors")
    np.testing.assert_array_equal(loaded.predict(4), forecaster.predict(4))
    new = np.arange(10.0).reshape(5, 2)
    np.testing.assert_array_equal(loaded.update(new).predict(4), forecaster.update(new).predict(4))
    assert repr(loaded) == repr(forecaster)
    assert loaded.history_ == forecaster.history_


def test_a_damaged_file_is_refused(tmp_path):
    path = tmp_path / "forecaster.safetensors"
    small().fit(walks()).save(path)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(rnnfast.CheckpointError, match="checksum"):
        RNNForecaster.load(path)
    rnnfast.SequenceRegressor(3, 4, 1).save(path)
    with pytest.raises(rnnfast.CheckpointError, match="format must be"):
        RNNForecaster.load(path)


def test_a_stopped_training_continues_to_the_same_bits(tmp_path):
    whole = small(max_epochs=4).fit(walks()).predict(3)

    def stop(record):
        if record["epoch"] == 2:
            raise KeyboardInterrupt

    file = tmp_path / "training"
    with pytest.raises(KeyboardInterrupt):
        small(max_epochs=4, callbacks=[stop]).fit(walks(), checkpoint_file=file)
    resumed = small(max_epochs=4).fit(walks(), checkpoint_file=file, resume=True)
    np.testing.assert_array_equal(resumed.predict(3), whole)


def test_callbacks_see_each_epoch_and_may_stop():
    seen = []

    def watch(record):
        seen.append(record["epoch"])
        if record["epoch"] == 3:
            raise StopTraining

    forecaster = small(max_epochs=9, callbacks=[watch]).fit(walks())
    assert seen == [1, 2, 3]
    assert len(forecaster.history_) == 3


def test_verbose_prints_a_line_for_each_epoch(capsys):
    small(verbose=1).fit(walks(), val_size=6)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert "validation" in lines[0]


def test_validation_values_are_not_learned_from():
    y = walks()
    changed = y.copy()
    changed[:, -6:] += 100
    one = small(max_epochs=1).fit(y, val_size=6)
    other = small(max_epochs=1).fit(changed, val_size=6)
    for mine, theirs in zip(one.model_.params, other.model_.params, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert one.history_[0]["valid_loss"] < other.history_[0]["valid_loss"]


@takes_minutes_interpreted
def test_seasons_and_trends_are_learned():
    t = np.arange(132)
    y = 10 + 0.1 * t + 3 * np.sin(2 * np.pi * t / 12)
    forecaster = RNNForecaster(season_length=12, random_state=0).fit(y[:120])
    assert metrics.mae(y[120:], forecaster.predict(12)) < 0.5 * metrics.mae(y[120:], y[108:120])


def test_long_series_are_cut_into_windows():
    y = np.random.default_rng(0).standard_normal(700).cumsum()
    forecaster = small(window=50).fit(y)
    assert forecaster.history_[0]["tokens"] > 699
    assert forecaster.predict(3).shape == (3,)


@pytest.mark.parametrize("data", [np.arange(30.0), list(range(30)), np.arange(30, dtype=np.float32)])
def test_one_series_gives_one_forecast(data):
    forecaster = small().fit(data)
    assert forecaster.predict(4).shape == (4,)
    assert forecaster.update([1.0]).update(2.0 * np.ones(3)).predict(4).shape == (4,)
    assert forecaster.cross_validation(data, 3, 2).shape == (2, 3)


def test_short_series_are_forecast_too():
    forecaster = small(season_length=4, target="seasonal_difference")
    forecaster.fit([np.arange(30.0), np.array([5.0]), np.array([NAN, 7.0])])
    found = forecaster.predict(6)
    assert np.isfinite(found).all()
    assert abs(found[1] - 5).max() < 10


def test_integers_and_booleans_are_numbers():
    assert small().fit(np.arange(40).reshape(2, 20)).predict(2).shape == (2, 2)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"target": "seasonal_difference"}, "needs a season_length above 1"),
        ({"target": "trend"}, "target must be"),
        ({"head": "negative_binomial"}, 'target must be "level"'),
        ({"season_length": 4, "train_horizon": 5}, "train_horizon must be at most 4"),
        ({"futr_exog": ["a"], "train_horizon": 2}, "futr_exog needs train_horizon=1"),
        ({"futr_exog": "price"}, "must be a list of column names"),
        ({"stat_exog": ["a", "a"]}, "must name each column once"),
        ({"window": 1}, "window must be at least 2"),
        ({"head": "normal"}, "head must be"),
        ({"cell": "transformer"}, "cell must be"),
        ({"scaler": "robust"}, "scaler must be"),
    ],
)
def test_options_that_do_not_fit(options, match):
    with pytest.raises((ValueError, TypeError), match=match):
        RNNForecaster(**options)


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (np.zeros((0, 3)), "at least one series"),
        ([[1.0, 2.0], []], "series 1 has no value"),
        (np.full((2, 5), NAN), "series 0 has no value that is not NaN"),
        (np.array([1.0, np.inf]), r"finite or NaN, got inf at \[1\]"),
        (np.ones((3, 1)), "needs more than 1 known values"),
        (np.ones((2, 3, 4)), "must be a frame"),
        ("text", "must be a frame"),
    ],
)
def test_data_that_do_not_fit(data, match):
    with pytest.raises((ValueError, TypeError), match=match):
        small().fit(data)


def test_calls_that_do_not_fit():
    with pytest.raises(RuntimeError, match="call fit first"):
        small().predict(3)
    forecaster = small().fit(walks())
    for call, match in [
        (lambda: forecaster.predict(0), "h must be at least 1"),
        (lambda: forecaster.predict(3, level=100), "level must be numbers between 0 and 100"),
        (lambda: forecaster.predict(3, quantiles=[0.5, 1]), "quantiles must be numbers between 0 and 1"),
        (lambda: forecaster.predict(3, futr_df=1), "futr_df"),
        (lambda: forecaster.update(np.ones((3, 2))), "series of fit and of new_rows"),
        (lambda: forecaster.cross_validation(walks(), 30, 3), "these origins need more than 90 values"),
        (lambda: small(head="squared").fit(walks()).predict(3, level=80), "squared has no distribution"),
        (lambda: small(head="absolute").fit(walks()).simulate(3), "absolute has no distribution"),
    ]:
        with pytest.raises((ValueError, TypeError), match=match):
            call()
