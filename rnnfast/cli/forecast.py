"""`rnnfast forecast`: from series to forecasts, with a backtest."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from rich.console import Console

from rnnfast import _check
from rnnfast.cli.errors import BAD_VALUES, counted, one_line
from rnnfast.cli.options import READY_CELLS, between, blocks_option, cell, whole, word
from rnnfast.cli.processes import Processes
from rnnfast.cli.progress import clock, compilations, show_steps
from rnnfast.cli.results import numbers_table
from rnnfast.cli.resumable import Resumable
from rnnfast.cli.series_files import SeriesFile, as_texts, built_in, read_series, write_csv
from rnnfast.files.atomic import write_atomically
from rnnfast.forecast import PredictionIntervals, RNNForecaster, drift, metrics, plot, seasonal_naive
from rnnfast.forecast.fitting import windows_of
from rnnfast.forecast.frames import Grid, column_names, columns_of, grid_of, panel_of_rows, rows_of_frame
from rnnfast.forecast.panel import Panel
from rnnfast.forecast.preprocessing import TARGETS
from rnnfast.models.weights import MOST_LAYERS, named_cell
from rnnfast.training import Progress

_WITH_MODEL = {"file", "h", "level", "plot", "id_col", "time_col", "target_col", "cell"}
_WITH_MODEL |= {"model", "out", "overwrite", "resume"}


def forecast(
    context: typer.Context,
    file: File = None,
    h: Horizon = None,
    season_length: SeasonLength = None,
    freq: Freq = None,
    id_col: IdColumn = None,
    time_col: TimeColumn = None,
    target_col: TargetColumn = None,
    cell: Cell = "gru",
    hidden_size: HiddenSize = 32,
    layers: Layers = 1,
    head: Head = "student_t",
    target: Target = None,
    max_epochs: MaxEpochs = None,
    blocks: Blocks = None,
    windows: Windows = 3,
    seed: Seed = 0,
    level: Level = None,
    plot: Plot = True,
    out: Out = None,
    overwrite: Overwrite = False,
    model: Model = None,
    resume: Resume = None,
) -> None:
    """Forecast time series with one recurrent network for all of them.

    Without a file it forecasts a year of the CO2 at Mauna Loa, in some seconds. A backtest first compares the
    network with forecasts that need none: seasonal naive, which repeats the last season, and drift, which
    also adds its mean change. A second network is then trained on all values, and forecasts. Intervals are
    calibrated on forecasts of values that were not learned from.

    \b
    Examples:
    [bold]rnnfast forecast[/bold]
    [bold]rnnfast forecast sales.csv --h 12 --level 80 --level 95 --out runs/sales[/bold]
    [bold]rnnfast forecast --model runs/sales/model.safetensors --h 24[/bold]
    [bold]rnnfast forecast --resume runs/sales[/bold]

    Values may be missing, and dates too. The folder holds forecast.csv, forecast.png and the model.
    """
    processes: Processes = context.obj
    console = processes.console()
    with ExitStack() as stack:
        with one_line(*BAD_VALUES, ImportError):
            call = Resumable(context, FILES, unsaved=("model",))
            told = call.told
            if not call.resumes:
                _refuse_unused(told, call.given)
            data = processes.of_first(
                lambda: read_series(told["file"], _columns(told)) if told["file"] else built_in()
            )
            given = None if model is not None and not told["file"] else data
            work = Forecasting(told, given, console, processes)
            if work.trains:
                call.choose_blocks(work.batch_size())
            folder = call.folder(stack, trains=work.trains)
        processes.say_blocks(console)
        with compilations(lambda: console.print("compiling kernels, once")):
            call.run(lambda: work.run(folder.path, resumes=call.resumes), folder, trains=work.trains)


def _columns(told: dict[str, Any]) -> dict[str, str | None]:
    return {part: told[f"{part}_col"] for part in ("id", "time", "target")}


def _refuse_unused(told: dict[str, Any], given: set[str]) -> None:
    """Refuse options that have no effect with the other options given."""
    columns = {"id_col", "time_col", "target_col"}
    for names, is_unused, when in (
        (given - _WITH_MODEL, told["model"] is not None, "with --model"),
        (columns, not told["file"], "without a file"),
    ):
        for name in sorted(given & names if is_unused else ()):
            raise _check.values.no_effect("--" + name.replace("_", "-"), when)


# The options of `rnnfast forecast` and their help.


_DATA, _MODEL, _TRAINING, _OUTPUT = "Series", "Network", "Training", "Output"
HEADS = ("student_t", "gaussian", "negative_binomial", "squared", "absolute")


def _freq(text: Any) -> Any:
    """A frequency; a text of digits is a number of steps."""
    return int(text) if str(text).isdecimal() else str(text)


_PARSERS: dict[str, Callable[[Any], Any]] = {
    "h": whole("--h", 1, 100_000),
    "season_length": whole("--season-length", 1, 1_000_000),
    "freq": _freq,
    "cell": cell("--cell"),
    "hidden_size": whole("--hidden-size", 1, 1_000_000),
    "layers": whole("--layers", 1, MOST_LAYERS),
    "head": word("--head", *HEADS),
    "target": word("--target", *TARGETS),
    "max_epochs": whole("--max-epochs", 1),
    "windows": whole("--windows", 0, 10_000),
    "seed": whole("--seed", 0),
    "level": between("--level", 0, 100),
}


def _value(name: str, metavar: str, panel: str, text: str, shown: bool | str = True) -> Any:
    """An option whose value is parsed by its entry in `_PARSERS`."""
    option = "--" + name.replace("_", "-")
    return typer.Option(
        option, parser=_PARSERS[name], metavar=metavar, rich_help_panel=panel, help=text, show_default=shown
    )


# One line per option, as a table.
# fmt: off
File = Annotated[str | None, typer.Argument(
    metavar="FILE", show_default=False,
    help="A CSV or Parquet file with the columns unique_id, ds and y, or, of one series, a date and a value; "
    "- is CSV on standard input. Default: the CO2 at Mauna Loa, week by week.")]
Horizon = Annotated[int | None, _value("h", "N", _DATA, "Steps to forecast.", "one season, or 12")]
SeasonLength = Annotated[int | None, _value(
    "season_length", "N", _DATA, "Steps of a season; 1 for none.",
    "hours 24, days 7, weeks 52, months 12, quarters 4, else 1")]
Freq = Annotated[Any, _value(
    "freq", "STEP", _DATA, "Step between dates: 15min, h, D, W, B, MS, ME, QS, YS, ..., or a number.",
    "found in the dates")]
IdColumn = Annotated[str | None, typer.Option(
    "--id-col", metavar="NAME", rich_help_panel=_DATA, show_default="unique_id",
    help="Column of the names of the series.")]
TimeColumn = Annotated[str | None, typer.Option(
    "--time-col", metavar="NAME", rich_help_panel=_DATA, show_default="ds", help="Column of the dates.")]
TargetColumn = Annotated[str | None, typer.Option(
    "--target-col", metavar="NAME", rich_help_panel=_DATA, show_default="y", help="Column of the values.")]

Cell = Annotated[str, _value("cell", "NAME", _MODEL, READY_CELLS)]
HiddenSize = Annotated[int, _value("hidden_size", "N", _MODEL, "Units of each layer.")]
Layers = Annotated[int, _value("layers", "N", _MODEL, "Recurrent layers.")]
Head = Annotated[str, _value(
    "head", "NAME", _MODEL,
    f"Distribution that is predicted: {', '.join(HEADS)}. negative_binomial is for counts; squared and "
    "absolute have no intervals.")]
Target = Annotated[str | None, _value(
    "target", "NAME", _MODEL,
    "What the network learns: level, the values; difference, changes from the last value; "
    "seasonal_difference, changes from the season before.",
    "difference; level for negative_binomial")]

MaxEpochs = Annotated[int | None, _value(
    "max_epochs", "N", _TRAINING, "Passes over the series.", "for 30 to 200 updates, one for five values")]
Blocks = Annotated[int | None, blocks_option(_TRAINING)]
Windows = Annotated[int, _value(
    "windows", "N", _TRAINING, "Origins of the backtest, h steps apart; 0 for no backtest.")]
Seed = Annotated[int, _value("seed", "N", _TRAINING, "The same seed gives the same numbers.")]

Level = Annotated[list[float] | None, _value(
    "level", "PERCENT", _OUTPUT, "Coverage of an interval; may be repeated.", "80")]
Plot = Annotated[bool, typer.Option(
    "--plot/--no-plot", rich_help_panel=_OUTPUT, help="Draw the forecasts of the first four series.")]
Out = Annotated[Path | None, typer.Option(
    "--out", metavar="FOLDER", rich_help_panel=_OUTPUT, show_default="runs/DATE_TIME",
    help="Folder for the forecast, the picture and the model.")]
Overwrite = Annotated[bool, typer.Option(
    "--overwrite", rich_help_panel=_OUTPUT, help="Replace earlier results of the command in that folder.")]
Model = Annotated[Path | None, typer.Option(
    "--model", metavar="MODEL", show_default=False, rich_help_panel=_OUTPUT,
    help="Forecast with a saved model, without training; without FILE, continue the series it was trained "
    "on.")]
Resume = Annotated[Path | None, typer.Option(
    "--resume", metavar="FOLDER", show_default=False, rich_help_panel=_OUTPUT,
    help="Continue a command that was stopped or killed, with the same result.")]
# fmt: on


# The steps of `rnnfast forecast`: describe the series, backtest, train, forecast, write.


TABLE, PICTURE, MODEL = "forecast.csv", "forecast.png", "model.safetensors"
_BACKTEST, _RUN = "backtest.training", "model.training"
FILES = (TABLE, PICTURE, MODEL, _BACKTEST, _RUN)

_SEASONS = {"h": 24, "D": 7, "W": 52, "M": 12, "Q": 4}
_STEPS = {"s": "second", "min": "minute", "h": "hour", "D": "day", "W": "week", "B": "working day"}
_STEPS |= {"M": "month", "Q": "quarter", "Y": "year", "step": "step"}
_NAME = "RNNForecaster"
_ROWS = 8  # the most in the table


class Forecasting:
    """One run of `rnnfast forecast`.

    Parameters
    ----------
    told : dict
        The options.
    data : SeriesFile or None
        The series; None for those of a saved model.
    console : Console
    processes : Processes

    Raises
    ------
    ValueError, TypeError
        The series or the options cannot be used.
    """

    def __init__(
        self, told: dict[str, Any], data: SeriesFile | None, console: Console, processes: Processes
    ) -> None:
        self._told, self._data, self._console, self._processes = told, data, console, processes
        self.trains = told["model"] is None
        self._model = None if self.trains else _loaded(told["model"], told["cell"])
        if data is not None:
            self._panel, self._grid = _panel(data, told["freq"])
        self._season = self._season_length()
        self._h = told["h"] or (self._season if self._season > 1 else 12)
        head = self._model.head.name if self._model is not None else told["head"]
        has_intervals = head not in ("squared", "absolute")
        self._levels = list(told["level"] or ([80.0] if has_intervals else []))
        if self.trains:
            self._forecaster()  # reports options that do not fit together

    def batch_size(self) -> int:
        """Rows of the largest batch of the training on all values."""
        forecaster = self._forecaster()
        return min(forecaster.batch_size, len(windows_of(forecaster, self._panel)))

    def _season_length(self) -> int:
        """The length of a season: given, the model's, or that of the step if there are two seasons."""
        if self._model is not None:
            return self._model.season_length
        if self._told["season_length"] is not None:
            return self._told["season_length"]
        usual = _SEASONS.get(self._grid.unit, 1) if self._grid.size == 1 else 1
        return usual if self._panel.lengths.max() > 2 * usual else 1

    def run(self, folder: Path, *, resumes: bool) -> None:
        """Backtest, train, forecast, write the files, and print the results."""
        if self._data is not None:
            self._describe(self._data)
        forecaster = self._model
        if forecaster is None:
            self._backtest(folder / _BACKTEST, resumes)
            forecaster = self._train(folder / _RUN, resumes)
        if not self._processes.is_first:
            return
        others = None if self.trains or self._data is None else self._data.columns
        found = forecaster.predict(self._h, others, level=self._levels or None)
        if isinstance(found, np.ndarray):
            raise _check.CorpusError(
                f"forecast: {self._told['model']}: this model of arrays knows no dates; use it in Python."
            )
        columns = columns_of("forecast", "forecasts", found, column_names(found))
        self._show(columns)
        write_csv(folder / TABLE, columns)
        files = [TABLE]
        if self._told["plot"] and self._data is not None:
            self._draw(folder / PICTURE, self._data, columns)
            files.append(PICTURE)
        if self.trains:
            forecaster.save(folder / MODEL)
            files.append(MODEL)
        self._say(f"written to {folder}: {', '.join(files)}")
        if self.trains:
            model = shlex.quote(str(folder / MODEL))
            self._say(f"use the model again: rnnfast forecast --model {model} --h {self._h}")
            self._say(f"or in Python: RNNForecaster.load({str(folder / MODEL)!r}).predict({self._h})")

    def _say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)

    def _describe(self, data: SeriesFile) -> None:
        """Print one line: series, steps, gaps, season."""
        panel, grid = self._panel, self._grid
        missing = int(np.isnan(panel.values).sum())
        size, unit = grid.size, _STEPS[grid.unit]
        step = f"{size} {unit}s" if size > 1 else f"1 {unit}"
        gaps = f"{missing:,} missing" if missing else "none missing"
        season = f"season {self._season}" if self._season > 1 else "no season"
        self._say(
            f"{data.title}: {len(panel.ids):,} series, {counted(panel.values.size, 'step')} of {step}, "
            f"{gaps}, {season}"
        )

    def _forecaster(self, on_update: Any = None) -> RNNForecaster:
        told = self._told
        counts = told["head"] == "negative_binomial"
        return RNNForecaster(
            told["freq"],
            cell=named_cell("forecast", told["cell"]),
            hidden_size=told["hidden_size"],
            layers=told["layers"],
            head=told["head"],
            season_length=self._season,
            target=told["target"] or ("level" if counts else "difference"),
            max_epochs=told["max_epochs"],
            random_state=told["seed"],
            on_update=on_update,
            ranks=self._processes.ranks,
            blocks=told["blocks"],
        )

    def _intervals(self, lengths: np.ndarray) -> PredictionIntervals | None:
        """How intervals are calibrated on series of these lengths (n,), if any are asked for."""
        return PredictionIntervals.suggested(self._h, lengths) if self._levels else None

    def _watched(self, name: str, work: Any) -> Any:
        """The result of `work`, called with a forecaster whose training is shown."""
        with show_steps(self._console, name) as display:

            def update(progress: Progress) -> None:
                seconds.append(progress.seconds)
                epochs.append(progress.epoch)
                display.reached(progress.epoch, progress.epochs, progress.step, progress.steps, progress.loss)

            seconds, epochs = [0.0], [0]
            result = work(self._forecaster(update))
        if epochs[-1]:
            self._say(f"{name}: {counted(epochs[-1], 'epoch')} in {clock(seconds[-1])}")
        return result

    def _backtest(self, file: Path, resumes: bool) -> None:
        """Compare the network with forecasts without one, or say why not."""
        assert self._data is not None
        data, plan = self._data, Plan(self._h, self._told["windows"], self._season)
        if not plan.windows:
            return
        fits = plan.fits(self._panel)
        origins = counted(plan.windows, "origin")
        if not fits.any():
            self._say(
                f"no backtest: {origins} {counted(plan.h, 'step')} apart need series of more than "
                f"{plan.least:,} steps; the longest has {self._panel.lengths.max():,}"
            )
            return
        frame, panel = data.columns, self._panel
        if not fits.all():
            kept = [name for name, fit in zip(panel.ids, fits, strict=True) if fit]
            rows = np.isin(frame[data.names.id], kept)
            frame = {name: values[rows] for name, values in frame.items()}
            panel = _panel(data._replace(columns=frame), self._told["freq"])[0]
        columns = dict(zip(("id_col", "time_col", "target_col"), data.names, strict=True))
        history = self._watched(
            "backtest",
            lambda forecaster: forecaster.cross_validation(
                frame,
                plan.h,
                plan.windows,
                level=self._levels or None,
                prediction_intervals=self._intervals(panel.lengths - plan.h * plan.windows),
                checkpoint_file=file,
                resume=resumes,
                **columns,
            ),
        )
        cell = named_cell("forecast", self._told["cell"])
        title = f"{cell.title}, {self._told['layers']} x {self._told['hidden_size']}"
        found = scores(plan, panel, history, data.names.target, title, self._levels)
        some = "" if fits.all() else f"; only {fits.sum():,} of {len(fits):,} series are long enough"
        self._say(f"\nbacktest: forecasts of {counted(plan.h, 'step')} from {origins}{some}")
        self._table(found)

    def _table(self, found: list[Score]) -> None:
        """Print the scores, and who errs least."""
        table = numbers_table("", "MAE", "MASE", *(f"in {level:g} %" for level in self._levels))
        for score in found:
            covered = [f"{share:.1%}" for share in score.coverage]
            table.add_row(score.title, _number(score.mae), _number(score.mase), *covered)
        self._console.print(table)
        others = found[1:]
        by_mase = not any(np.isnan(score.mase) for score in found)
        ours, *theirs = (score.mase if by_mase else score.mae for score in found)
        least, measure = int(np.argmin(theirs)), "MASE" if by_mase else "MAE"
        if ours < theirs[least]:
            share = 1 - ours / theirs[least]
            self._say(f"the network's {measure} is {share:.0%} smaller than that of {others[least].title}")
        elif ours > theirs[least]:
            self._say(
                f"warning: {others[least].title} has a smaller {measure} than the network; fewer "
                f"--max-epochs, another --target or --cell, or more data may help."
            )

    def _train(self, file: Path, resumes: bool) -> RNNForecaster:
        assert self._data is not None
        frame, names = self._data.columns, self._data.names
        return self._watched(
            "all values",
            lambda forecaster: forecaster.fit(
                frame,
                prediction_intervals=self._intervals(self._panel.lengths),
                id_col=names.id,
                time_col=names.time,
                target_col=names.target,
                checkpoint_file=file,
                resume=resumes,
            ),
        )

    def _show(self, columns: dict[str, np.ndarray]) -> None:
        """Print the first rows of the forecast, with the first interval."""
        series, dates, *values = list(columns)[:5]
        many = len(set(columns[series].tolist())) > 1
        ends = [name.removeprefix(f"{_NAME}-").split("-") for name in values[1:]]
        titles = [f"{level} % {'from' if side == 'lo' else 'to'}" for side, level in ends]
        table = numbers_table(*([series] if many else []), dates, "forecast", *titles)
        shown = [as_texts(columns[name]) for name in ([series, dates] if many else [dates])]
        shown += [[_number(value) for value in columns[name].tolist()] for name in values]
        for row in list(zip(*shown, strict=True))[:_ROWS]:
            table.add_row(*row)
        self._say(f"\nforecast: {counted(self._h, 'step')}")
        self._console.print(table)
        more = len(columns[dates]) - _ROWS
        if more > 0:
            self._say(f"{counted(more, 'more row')} in {TABLE}")

    def _draw(self, path: Path, data: SeriesFile, columns: dict[str, np.ndarray]) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        names = list(dict.fromkeys(columns[data.names.id].tolist()))[:4]
        figure = Figure(figsize=(8, 1 + 2.6 * len(names)), dpi=144, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(len(names), squeeze=False)[:, 0]
        last = max(4 * self._h, 3 * self._season)
        id_col, time_col, target_col = data.names
        plot(
            data.columns,
            columns,
            ids=names,
            last=last,
            ax=axes,
            id_col=id_col,
            time_col=time_col,
            target_col=target_col,
        )
        with write_atomically(path) as file:
            figure.savefig(file, format="png")


def _panel(data: SeriesFile, freq: Any) -> tuple[Panel, Grid]:
    owner, names = "forecast", data.names
    rows = rows_of_frame(owner, data.title, data.columns, names, [names.target])
    return panel_of_rows(owner, rows, None if freq is None else grid_of(owner, freq), names.target)


def _loaded(path: Path, cell: str) -> RNNForecaster:
    """The forecaster of a file; `cell` has been imported if it is the user's own."""
    try:
        return RNNForecaster.load(path)
    except _check.CellMissing as error:
        if ":" in cell:
            raise _check.objects.other_cell(path, error.name, cell) from None
        raise _check.objects.cell_needed(path, error.name) from None


def _number(value: float) -> str:
    """Four digits, and all those before the decimal point."""
    return "" if value != value else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.4g}"


# The backtest of `rnnfast forecast`: the network beside forecasts without one.


class Score(NamedTuple):
    """Mean errors of a forecast over all series and origins, and the coverage of its intervals."""

    title: str
    mae: float
    mase: float
    coverage: tuple[float, ...] = ()


class Plan(NamedTuple):
    """Origins `h` steps apart, the last one `h` steps before the end of each series."""

    h: int
    windows: int
    season: int

    @property
    def least(self) -> int:
        """The most values of a series that is too short."""
        return self.h * self.windows + max(self.h, self.season)

    def fits(self, panel: Panel) -> np.ndarray:
        """Which series (n,) are long enough, and have a value before the first origin."""
        before = np.maximum(0, panel.lengths - self.h * self.windows)
        known = np.concatenate(([0], np.cumsum(~np.isnan(panel.values))))
        begins = panel.begins[:-1]
        return (panel.lengths > self.least) & (known[begins + before] > known[begins])


def scores(
    plan: Plan,
    panel: Panel,
    history: Mapping[str, np.ndarray],
    target: str,
    title: str,
    levels: Sequence[float],
) -> list[Score]:
    """The scores of the network, of seasonal naive and of drift.

    Parameters
    ----------
    plan : Plan
    panel : Panel
        The n series of the backtest.
    history
        The columns (n W h,) of `RNNForecaster.cross_validation`.
    target, title : str
        The column of the values; the network's title.
    levels : sequence of float
        Coverage of the intervals in per cent.
    """
    shape = (len(panel.ids), plan.windows, plan.h)

    def column(name: str) -> np.ndarray:
        return np.asarray(history[name], np.float64).reshape(shape)

    actual, name = column(target), "RNNForecaster"
    covered = tuple(
        _mean(metrics.coverage(actual, *(column(f"{name}-{side}-{level:g}") for side in ("lo", "hi"))))
        for level in levels
    )
    parts = [panel.until(panel.lengths - plan.h * (plan.windows - window)) for window in range(plan.windows)]
    before = [np.split(part.values, part.begins[1:-1]) for part in parts]
    found = {title: column(name)}
    naive = "seasonal naive" if plan.season > 1 else "naive"
    for label, baseline in ((naive, seasonal_naive), ("drift", drift)):
        found[label] = np.stack([baseline(part, plan.h, plan.season) for part in before], axis=1)
    return [
        Score(
            label,
            _mean(metrics.mae(actual, one)),
            _mean(_scaled(actual, one, before, plan.season)),
            covered if label == title else (),
        )
        for label, one in found.items()
    ]


def _scaled(
    actual: np.ndarray, forecast: np.ndarray, before: Sequence[Sequence[np.ndarray]], season: int
) -> np.ndarray:
    """The MASE (n, W); `before` has the values of each series, for each origin."""
    found = np.empty(actual.shape[:2])
    for row, window in np.ndindex(found.shape):
        pair = actual[row, window], forecast[row, window]
        found[row, window] = metrics.mase(*pair, before[window][row], season)
    return found


def _mean(values: Any) -> float:
    """The mean of the numbers; NaN if all are NaN."""
    known = np.asarray(values)[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
