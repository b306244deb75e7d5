"""`rnnfast forecast`: from series to forecasts, with a backtest."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import typer

from rnnfast import _check
from rnnfast.cli import forecast_options as options
from rnnfast.cli.errors import BAD_VALUES, one_line
from rnnfast.cli.forecasting import FILES, Forecasting
from rnnfast.cli.processes import Processes
from rnnfast.cli.progress import compilations
from rnnfast.cli.resumable import Resumable
from rnnfast.cli.series_files import built_in, read_series

_WITH_MODEL = {"file", "h", "level", "plot", "id_col", "time_col", "target_col", "cell"}
_WITH_MODEL |= {"model", "out", "overwrite", "resume"}


def forecast(
    context: typer.Context,
    file: options.File = None,
    h: options.Horizon = None,
    season_length: options.SeasonLength = None,
    freq: options.Freq = None,
    id_col: options.IdColumn = None,
    time_col: options.TimeColumn = None,
    target_col: options.TargetColumn = None,
    cell: options.Cell = "gru",
    hidden_size: options.HiddenSize = 32,
    layers: options.Layers = 1,
    head: options.Head = "student_t",
    target: options.Target = None,
    max_epochs: options.MaxEpochs = None,
    blocks: options.Blocks = None,
    windows: options.Windows = 3,
    seed: options.Seed = 0,
    level: options.Level = None,
    plot: options.Plot = True,
    out: options.Out = None,
    overwrite: options.Overwrite = False,
    model: options.Model = None,
    resume: options.Resume = None,
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
