"""The options of `rnnfast forecast` and their help."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from rnnfast.cli.numbers import between, cell, whole, word
from rnnfast.cli.options import READY_CELLS, blocks_option
from rnnfast.forecast.recipe import TARGETS
from rnnfast.models.cells import MOST_LAYERS

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
