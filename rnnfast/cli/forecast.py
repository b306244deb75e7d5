"""`rnnfast forecast`: from series to forecasts, with a backtest."""

from __future__ import annotations

import shlex
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from rnnfast import _check
from rnnfast.cli import forecast_options as options
from rnnfast.cli.errors import (
    BAD_INPUT,
    BAD_VALUES,
    INTERRUPTED,
    STOPPED,
    fail,
    is_closed_pipe,
    one_line,
    wording,
)
from rnnfast.cli.forecasting import FILES, Forecasting
from rnnfast.cli.options import given_options
from rnnfast.cli.out_folder import OutFolder
from rnnfast.cli.progress import compilations
from rnnfast.cli.run_folder import SETTINGS, dated_folder
from rnnfast.cli.series_files import built_in, read_series
from rnnfast.training import TrainingDiverged

_OF_ONE_CALL = ("model", "out", "overwrite", "resume")
_WITH_MODEL = {"file", "h", "level", "plot", "id_col", "time_col", "target_col", "cell", *_OF_ONE_CALL}


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
    told, given = dict(context.params), given_options(context)
    console = Console(highlight=False, markup=False)
    with ExitStack() as stack:
        with one_line(*BAD_VALUES, ImportError):
            if resume is None:
                _refuse_unused(told, given)
            else:
                told = _agreed(resume, told, given)
            data = read_series(told["file"], _columns(told)) if told["file"] else built_in()
            work = Forecasting(told, None if model is not None and not told["file"] else data, console)
            folder = _folder(told)
            stack.enter_context(folder.alone())
        with compilations(lambda: console.print("compiling kernels, once")):
            _run(work, folder, resumes=resume is not None)


def _columns(told: dict[str, Any]) -> dict[str, str | None]:
    return {part: told[f"{part}_col"] for part in ("id", "time", "target")}


def _refuse_unused(told: dict[str, Any], given: set[str]) -> None:
    """Refuse options that have no effect with the other options given."""
    columns = {"id_col", "time_col", "target_col"}
    for names, is_unused, when in (
        (given - _WITH_MODEL, told["model"] is not None, "with --model"),
        (columns, not told["file"], "without a file"),
        ({"overwrite"}, told["out"] is None, "without --out, since each run then has a new folder"),
    ):
        for name in sorted(given & names if is_unused else ()):
            raise _check.no_effect("--" + name.replace("_", "-"), when)


def _agreed(path: Path, told: dict[str, Any], given: set[str]) -> dict[str, Any]:
    """The options with which a stopped command began; those given again must be the same."""
    saved = OutFolder.resume(path, "forecast", FILES).read_settings()
    if set(saved) != set(_saved(told)):
        raise _check.malformed(path / SETTINGS, "not the arguments of this version of rnnfast forecast")
    for name in sorted(given - {"resume"}):
        flag = "FILE" if name == "file" else "--" + name.replace("_", "-")
        if name in _OF_ONE_CALL:
            _check.absent("forecast", flag, told[name], "a run that begins, not to --resume")
        _check.same_option(path, flag, saved[name], _saved(told)[name])
    return {**told, **_parsed(path / SETTINGS, saved)}


def _parsed(path: Path, saved: dict[str, Any]) -> dict[str, Any]:
    """Saved options, checked like those on the command line, since anybody may have edited the file."""
    try:
        _check.boolean("settings", "plot", saved["plot"])
        found = {name: value if value is None else _value(name, value) for name, value in saved.items()}
        return {**found, "level": list(map(options.PARSERS["level"], saved["level"] or ()))}
    except (typer.BadParameter, ValueError, TypeError) as error:
        raise _check.malformed(path, f"not the settings of a run ({error})") from None


def _value(name: str, value: Any) -> Any:
    if name in ("plot", "level"):
        return value
    return options.PARSERS.get(name, str)(value)


def _saved(told: dict[str, Any]) -> dict[str, Any]:
    """The options saved with a run, as JSON values: all except those of a single call."""
    saved = {name: value for name, value in told.items() if name not in _OF_ONE_CALL}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in saved.items()}


def _folder(told: dict[str, Any]) -> OutFolder:
    if told["resume"] is not None:
        return OutFolder.resume(told["resume"], "forecast", FILES)
    folder = OutFolder(told["out"] or dated_folder(), "forecast", FILES, overwrite=told["overwrite"])
    if told["model"] is None:
        folder.write_settings(_saved(told))
    return folder


def _run(work: Forecasting, folder: OutFolder, *, resumes: bool) -> None:
    """Do all of it; a command that cannot go on leaves no files, and one that was stopped can be resumed."""
    again = f"; rnnfast forecast --resume {shlex.quote(str(folder.path))} continues it" if work.trains else ""
    try:
        work.run(folder.path, resumes=resumes)
    except KeyboardInterrupt:
        fail(f"interrupted{again}.", INTERRUPTED)
    except OSError as error:
        if is_closed_pipe(error):
            raise
        fail(f"{wording(error).rstrip('.')}{again}.", STOPPED)
    except (ValueError, TypeError, MemoryError, ImportError, TrainingDiverged) as error:
        if not resumes:
            folder.discard()
        fail(wording(error), STOPPED if isinstance(error, TrainingDiverged | MemoryError) else BAD_INPUT)
