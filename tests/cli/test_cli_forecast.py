"""`rnnfast forecast`: series in, backtest, forecasts, files out; input that cannot be used; stopped runs."""

import json
import re
import sys

import matplotlib.image
import numpy as np
import pytest
from cli_helpers import assert_one_line, rnnfast_command
from helpers import takes_minutes_interpreted

from rnnfast.cli.forecast import Forecasting
from rnnfast.cli.progress import PlainSteps
from rnnfast.data import mauna_loa_co2
from rnnfast.forecast import PredictionIntervals, RNNForecaster, drift, metrics, seasonal_naive

SMALL = ("--cell", "gru", "--hidden-size", "4", "--max-epochs", "3")
H, WINDOWS = 4, 2


def series(steps=80):
    """A dict of columns of three series of days, one of them too short for a backtest."""
    rng = np.random.default_rng(0)
    lengths = {"a": steps, "b": steps - 7, "c": 12}
    days = [np.datetime64("2024-01-01") + np.arange(length) for length in lengths.values()]
    waves = [10 + np.sin(2 * np.pi * np.arange(n) / 7) + rng.normal(0, 0.1, n) for n in lengths.values()]
    ids = np.repeat(list(lengths), list(lengths.values()))
    return {"unique_id": ids, "ds": np.concatenate(days), "y": np.concatenate(waves)}


def write(path, columns, header=None, delimiter=","):
    rows = [list(header or columns), *zip(*columns.values(), strict=True)]
    path.write_text("".join(delimiter.join(map(str, row)) + "\n" for row in rows))
    return path


def rows_of(path):
    names, *rows = [line.split(",") for line in path.read_text().splitlines()]
    return {name: [row[place] for row in rows] for place, name in enumerate(names)}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A folder with results, what the command said, and its file."""
    place = tmp_path_factory.mktemp("forecast")
    file = write(place / "shops.csv", series())
    options = ("--h", H, "--windows", WINDOWS, "--level", 80, "--level", 50, "--out", place / "out")
    code, out, err = rnnfast_command("forecast", file, *SMALL, *options)
    assert (code, err) == (0, "")
    return place / "out", out, file


def small(**options):
    known = {"cell": "gru", "hidden_size": 4, "max_epochs": 3, "season_length": 7, "random_state": 0}
    return RNNForecaster(**{**known, **options})


def test_the_forecast_is_that_of_the_library(done):
    folder, _, _ = done
    intervals = PredictionIntervals.suggested(H, np.array([80, 73, 12]))
    expected = small().fit(series(), prediction_intervals=intervals).predict(H, level=[80, 50])
    actual = rows_of(folder / "forecast.csv")
    assert list(actual) == list(expected)
    assert actual["unique_id"] == expected["unique_id"].tolist()
    assert actual["ds"] == expected["ds"].astype(str).tolist()
    for name in list(expected)[2:]:
        np.testing.assert_array_equal(np.array(actual[name], float), expected[name])


def test_the_backtest_has_the_network_beside_forecasts_without_one(done):
    _, out, _ = done
    data = {name: values[:153] for name, values in series().items()}  # without the short series
    intervals = PredictionIntervals.suggested(H, np.array([80, 73]) - H * WINDOWS)
    history = small().cross_validation(data, H, WINDOWS, prediction_intervals=intervals, level=[80, 50])
    shape = (2, WINDOWS, H)
    actual = history["y"].reshape(shape)
    values = np.split(data["y"], [80])
    cuts = [[one[: len(one) - H * (WINDOWS - window)] for window in range(WINDOWS)] for one in values]
    found = {"GRU, 1 x 4": history["RNNForecaster"].reshape(shape)}
    for title, baseline in (("seasonal naive", seasonal_naive), ("drift", drift)):
        found[title] = np.array([[baseline(one, H, 7) for one in parts] for parts in cuts])
    for title, forecasts in found.items():
        mae = metrics.mae(actual, forecasts).mean()
        pairs = zip(
            actual.reshape(-1, H),
            forecasts.reshape(-1, H),
            [one for parts in cuts for one in parts],
            strict=True,
        )
        mase = np.mean([metrics.mase(*pair, 7) for pair in pairs])
        shown = re.search(rf"^ +{title} +([\d.]+) +([\d.]+)", out, re.M)
        assert shown is not None, out
        assert [float(shown[1]), float(shown[2])] == pytest.approx([mae, mase], rel=1e-3)
    low, high = (history[f"RNNForecaster-{side}-80"].reshape(shape) for side in ("lo", "hi"))
    assert f" {metrics.coverage(actual, low, high).mean():.1%} " in out
    assert "from 2 origins; only 2 of 3 series are long enough" in out


def test_what_is_said_and_written(done):
    folder, out, file = done
    first = f"{file}: 3 series, 165 steps of 1 day, none missing, season 7"
    assert out.splitlines()[0].removeprefix("compiling kernels, once") in (first, "")
    assert first in out
    assert "\x1b" not in out
    assert len(re.findall(r"^all values epoch \d/3: loss -?[\d.]+, \d+:\d\d left$", out, re.M)) >= 3
    assert "4 more rows in forecast.csv" in out
    assert re.search(r"^  a +2024-03-21 +[\d.]+ +[\d.]+ +[\d.]+", out, re.M)
    assert f"rnnfast forecast --model {folder / 'model.safetensors'} --h 4" in out
    picture = matplotlib.image.imread(folder / "forecast.png")
    assert picture.shape[0] > 900  # three series
    assert picture.shape[1] > 1000
    assert {path.name for path in folder.iterdir()} == {
        *("backtest.training", "forecast.csv", "forecast.png"),
        *("model.safetensors", "model.training", "settings.json"),
    }


def test_a_saved_model_forecasts_its_series_and_others(done, tmp_path):
    folder = done[0]
    model = ("--model", folder / "model.safetensors", "--h", H, "--level", 80, "--level", 50)
    code, out, err = rnnfast_command("forecast", *model, "--out", tmp_path / "again")
    assert (code, err) == (0, "")
    assert "backtest" not in out
    expected = (folder / "forecast.csv").read_text()
    assert (tmp_path / "again" / "forecast.csv").read_text() == expected
    assert not (tmp_path / "again" / "forecast.png").exists()
    longer = {**series(90), "unique_id": np.char.add("new ", series(90)["unique_id"])}
    other = write(tmp_path / "other.csv", longer)
    code, _, err = rnnfast_command("forecast", other, *model, "--out", tmp_path / "others")
    assert (code, err) == (0, "")
    forecaster = RNNForecaster.load(folder / "model.safetensors")
    actual = rows_of(tmp_path / "others" / "forecast.csv")
    np.testing.assert_array_equal(
        np.array(actual["RNNForecaster"], float), forecaster.predict(H, longer)["RNNForecaster"]
    )
    assert (tmp_path / "others" / "forecast.png").exists()


@takes_minutes_interpreted
def test_without_a_file_it_forecasts_a_year_of_co2(tmp_path):
    code, out, err = rnnfast_command("forecast", "--max-epochs", "1", "--out", tmp_path)
    assert (code, err) == (0, "")
    days, _ = mauna_loa_co2()
    assert "CO2 at Mauna Loa: 1 series, 2,284 steps of 1 week, 59 missing, season 52" in out
    found = rows_of(tmp_path / "forecast.csv")
    assert found["ds"] == (days[-1] + 7 * np.arange(1, 53)).astype(str).tolist()
    assert list(found)[2:] == ["RNNForecaster", "RNNForecaster-lo-80", "RNNForecaster-hi-80"]


@pytest.mark.parametrize(
    "kind", ["two columns", "mixed order", "semicolons", "other names", "times", "numbers"]
)
def test_kinds_of_csv(kind, tmp_path, monkeypatch):
    for name in ("narwhals", "pandas", "polars"):  # none of them is needed
        monkeypatch.setitem(sys.modules, name, None)
    days = np.datetime64("2024-01-01") + np.arange(30)
    y = np.round(np.random.default_rng(0).standard_normal(30), 3)
    y[[4, 11, 12]] = np.nan
    columns = {"day": days, "value": np.where(np.isnan(y), "", y)}
    options = ()
    if kind == "mixed order":
        columns = {"y": columns["value"], "ds": days}
    if kind == "other names":
        columns = {"shop": ["s"] * 30, "color": ["red"] * 30, **columns}
        options = ("--id-col", "shop", "--time-col", "day", "--target-col", "value")
    if kind == "times":
        columns["day"] = np.char.replace(
            (days[0] + np.arange(30).astype("timedelta64[h]")).astype(str), "T", " "
        )
    if kind == "numbers":
        columns["day"] = np.arange(1990, 2020)
    file = write(tmp_path / "one.csv", columns, delimiter=";" if kind == "semicolons" else ",")
    command = (
        "forecast",
        file,
        *SMALL,
        *options,
        "--windows",
        0,
        "--h",
        3,
        "--no-plot",
        "--out",
        tmp_path / "out",
    )
    code, out, err = rnnfast_command(*command)
    assert (code, err) == (0, "")
    assert "3 missing" in out
    found = rows_of(tmp_path / "out" / "forecast.csv")
    expected = {"times": "2024-01-02T06:00:00", "numbers": "2020"}.get(kind, "2024-01-31")
    assert (
        found["shop" if kind == "other names" else "unique_id"]
        == ["s" if kind == "other names" else "one"] * 3
    )
    assert found["ds" if kind == "mixed order" else "day"][0] == expected


def test_standard_input_is_csv(done, tmp_path):
    folder, _, file = done
    model = ("forecast", "-", "--model", folder / "model.safetensors", "--no-plot", "--out", tmp_path)
    code, out, err = rnnfast_command(*model, given=file.read_bytes())
    assert (code, err) == (0, "")
    assert out.startswith("standard input: 3 series")


@pytest.mark.parametrize("library", ["polars", "pandas"])
def test_parquet_is_read_by_the_library_that_is_installed(library, done, tmp_path, monkeypatch):
    module = pytest.importorskip(library)
    if library == "pandas":
        pytest.importorskip("pyarrow")
        monkeypatch.setitem(sys.modules, "polars", None)
    frame, file = module.DataFrame(series()), tmp_path / "shops.parquet"
    frame.to_parquet(file) if library == "pandas" else frame.write_parquet(file)
    options = ("--h", H, "--windows", 0, "--level", 80, "--level", 50, "--no-plot", "--out", tmp_path / "out")
    assert rnnfast_command("forecast", file, *SMALL, *options)[0] == 0
    actual, expected = (rows_of(folder / "forecast.csv") for folder in (tmp_path / "out", done[0]))
    assert actual["RNNForecaster"] == expected["RNNForecaster"]


def test_parquet_without_a_library_is_one_sentence(tmp_path, monkeypatch):
    for name in ("pandas", "polars"):
        monkeypatch.setitem(sys.modules, name, None)
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    assert_one_line(
        ("forecast", tmp_path / "x.parquet"), "x.parquet: Parquet needs polars: pip install polars."
    )


def test_short_series_have_no_backtest(tmp_path):
    file = write(tmp_path / "short.csv", {name: values[:20] for name, values in series().items()})
    code, out, err = rnnfast_command("forecast", file, *SMALL, "--h", "5", "--out", tmp_path / "out")
    assert (code, err) == (0, "")
    assert (
        "no backtest: 3 origins 5 steps apart need series of more than 22 steps; the longest has 20\n" in out
    )
    assert len(rows_of(tmp_path / "out" / "forecast.csv")["ds"]) == 5


BAD_LINES = {
    "unique_id,ds,y\na,2024-01-01,1\na,yesterday,2\n": "line 3: ds must be a date such as",
    "unique_id,ds,y\na,2024-01-01,1\na,2024-02-30,2\n": "line 3: ds must be a date such as",
    "unique_id,ds,y\na,2024-01-01,1\n\na,2024-01-02,much\n": "line 4: y must be a finite number, or empty",
    "unique_id,ds,y\na,2024-01-01,inf\n": "line 2: y must be a finite number",
    "unique_id,ds,y\na,2024-01-01\n": "line 2: has 2 fields, but the header has 3",
    "unique_id,day,y\na,2024-01-01,1\n": "has no column ds, but unique_id, day, y; name it with --time-col",
    "day,value\n": "needs a header and at least one row",
    "": "needs a header and at least one row",
    "unique_id,ds,y\na,2024-01-02,1\na,2024-01-01,2\n": "series 'a' at 2024-01-01 comes after a later date",
    "day,y\n2024-01-01,1\n": "no series has two dates from which the step could be found; give --freq",
    "day,y\n2024-01-01,\n2024-01-02,\n2024-01-03,\n": "has no value that is not NaN",
    "day,y\n2024-01-01,1\n2024-01-02,caf\xe9\n": "line 3: byte 0xE9 is not UTF-8 text; convert the file",
}


@pytest.mark.parametrize("content", BAD_LINES)
def test_files_that_cannot_be_used_are_named_with_the_line(content, tmp_path):
    file = tmp_path / "bad.csv"
    file.write_bytes(content.encode("latin-1"))
    assert_one_line(("forecast", file, *SMALL, "--out", tmp_path / "deep" / "out"), BAD_LINES[content])
    assert not (tmp_path / "deep").exists()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--h", "0"), "--h must be at least 1"),
        (("--level", "100"), "--level must be between 0 and 100, got 100"),
        (("--level", "high"), "--level must be a"),
        (("--head", "squared", "--level", "80"), "the head squared has no distribution"),
        (("--head", "poisson"), "--head must be one of"),
        (("--target", "seasonal_difference", "--season-length", "1"), "--target seasonal_difference needs a"),
        (("--freq", "fortnight"), "--freq must be"),
        (("--freq", "2D"), "the step 2D does not fit series 'a'"),
        (("--cell", "quantum"), "cell must be"),
        (("--hidden-size", "0"), "--hidden-size must be"),
        (("--time-col", "when"), "has no column when, but unique_id, ds, y; name it with --time-col"),
        (("--overwrite",), "--overwrite has no effect without --out"),
        (("--speed", "9"), "No such option"),
    ],
)
def test_options_that_make_no_sense_are_refused(done, options, word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_one_line(("forecast", done[2], *options), word)
    assert list(tmp_path.iterdir()) == []


def test_options_that_do_nothing_and_missing_files_are_refused(done, tmp_path):
    folder, _, file = done
    model = ("--model", folder / "model.safetensors")
    assert_one_line(("forecast", *model, "--max-epochs", "3"), "--max-epochs has no effect with --model")
    assert_one_line(("forecast", "--id-col", "shop"), "--id-col has no effect without a file")
    assert_one_line(("forecast", tmp_path / "none.csv"), "none.csv: No such file or directory")
    assert_one_line(("forecast", "--model", file), "shops.csv")
    assert_one_line(("forecast", file, "--out", folder), "already has a run (settings.json)")
    (tmp_path / "forecast.csv").write_text("mine")
    assert_one_line(("forecast", file, "--out", tmp_path, "--overwrite"), "already has a run (forecast.csv)")
    arrays = tmp_path / "arrays.safetensors"
    RNNForecaster(max_epochs=1, hidden_size=3).fit(np.arange(20.0)).save(arrays)
    assert_one_line(
        ("forecast", "--model", arrays, "--out", tmp_path / "x"), "this model of arrays knows no dates"
    )
    assert not (tmp_path / "x").exists()


def test_results_are_overwritten_if_told_so(done, tmp_path):
    _, _, file = done
    command = (
        "forecast",
        file,
        *SMALL,
        "--h",
        3,
        "--windows",
        0,
        "--no-plot",
        "--out",
        tmp_path,
        "--overwrite",
    )
    for h in (3, 2):
        assert rnnfast_command(*command, "--h", h)[0] == 0
    assert len(rows_of(tmp_path / "forecast.csv")["ds"]) == 6


@takes_minutes_interpreted
@pytest.mark.parametrize(("training", "step"), [(0, 2), (1, 1)])
def test_an_interrupted_command_continues_to_the_same_forecast(done, training, step, tmp_path, monkeypatch):
    folder, expected, file = done
    reached, trainings = PlainSteps.reached, []

    def stopped(self, epoch, epochs, at, steps, loss):
        reached(self, epoch, epochs, at, steps, loss)
        if self not in trainings:
            trainings.append(self)
        if (len(trainings) - 1, at) == (training, step):
            raise KeyboardInterrupt

    options = ("--h", H, "--windows", WINDOWS, "--level", 80, "--level", 50, "--out", tmp_path / "out")
    with monkeypatch.context() as patched:
        patched.setattr(PlainSteps, "reached", stopped)
        code, _, err = rnnfast_command("forecast", file, *SMALL, *options)
    assert code == 130
    assert err == f"rnnfast: interrupted; rnnfast forecast --resume {tmp_path / 'out'} continues it.\n"
    again = ("forecast", "--resume", tmp_path / "out")
    assert_one_line((*again, "--h", "9"), "--h was 4 when the run in")
    assert_one_line((*again, "--out", tmp_path), "--out belongs to a run that begins, not to --resume")
    code, out, err = rnnfast_command(*again)
    assert (code, err) == (0, "")
    assert (tmp_path / "out" / "forecast.csv").read_bytes() == (folder / "forecast.csv").read_bytes()
    table = "".join(re.findall(r"^ .*$", expected, re.M))
    assert "".join(re.findall(r"^ .*$", out, re.M)) == table


def test_runs_that_cannot_be_resumed_are_refused(done, tmp_path):
    assert_one_line(("forecast", "--resume", tmp_path / "none"), "there is no such run folder")
    saved = json.loads((done[0] / "settings.json").read_text())
    arguments = [
        {**saved["arguments"], name: value}
        for name, value in [("h", "many"), ("cell", 3), ("level", [200]), ("level", "x"), ("plot", "perhaps")]
    ]
    arguments += [{**saved["arguments"], "season_length": 0}, {**saved["arguments"], "windows": -1}, [], {}]
    for changes in ({"command": "classify"}, *({"arguments": one} for one in arguments)):
        (tmp_path / "settings.json").write_text(json.dumps({**saved, **changes}))
        assert_one_line(("forecast", "--resume", tmp_path), "settings.json")


def test_a_run_that_cannot_write_keeps_one_line(done, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device", "forecast.csv")

    monkeypatch.setattr("rnnfast.cli.forecast.write_csv", fail)
    command = ("forecast", done[2], *SMALL, "--windows", 0, "--h", 2, "--out", tmp_path / "out")
    again = f"rnnfast forecast --resume {tmp_path / 'out'} continues it."
    assert_one_line(command, "forecast.csv: No space left on device", again, code=1)
    monkeypatch.undo()
    assert rnnfast_command("forecast", "--resume", tmp_path / "out")[0] == 0


def test_a_season_needs_two_of_them_in_the_series(tmp_path):
    from rnnfast.cli.processes import Processes
    from rnnfast.cli.series_files import read_series

    for steps, season in ((14, 1), (15, 7)):
        days = {"ds": np.datetime64("2024-01-01") + np.arange(steps), "y": np.arange(steps)}
        data = read_series(str(write(tmp_path / "x.csv", days)), {"id": None, "time": None, "target": None})
        told = {
            "model": None,
            "freq": None,
            "season_length": None,
            "h": None,
            "head": "gaussian",
            "level": [],
            "blocks": None,
        }
        told |= {"cell": "gru", "hidden_size": 3, "layers": 1, "target": None, "max_epochs": 1, "seed": 0}
        alone = Processes()
        work = Forecasting(told, data, alone.console(), alone)
        assert work._season == season
        assert work._h == (season if season > 1 else 12)
