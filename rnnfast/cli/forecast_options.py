"""The options of `rnnfast forecast` and their help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rnnfast.cli.numbers import between, cell, word
from rnnfast.cli.options import MOST_LAYERS, READY_CELLS, whole_option
from rnnfast.forecast.recipe import TARGETS

_DATA, _MODEL, _TRAINING, _OUTPUT = "Series", "Network", "Training", "Output"
HEADS = ("student_t", "gaussian", "negative_binomial", "squared", "absolute")


def _freq(text: Any) -> Any:
    """A frequency; a text of digits is a number of steps."""
    return int(text) if str(text).isdecimal() else text


# One line per option, as a table.
# fmt: off
File = Annotated[str | None, typer.Argument(
    metavar="FILE", show_default=False,
    help="A CSV or Parquet file of long form: the columns unique_id, ds and y, or a date and a value; - is "
    "CSV on standard input. Default: the CO2 at Mauna Loa, week by week.")]
Horizon = Annotated[int | None, whole_option(
    "--h", 1, _DATA, "Steps to forecast.", "one season, or 12", high=100_000)]
SeasonLength = Annotated[int | None, whole_option(
    "--season-length", 1, _DATA, "Steps of a season; 1 for none.",
    "hours 24, days 7, weeks 52, months 12, quarters 4, else 1", high=1_000_000)]
Freq = Annotated[Any, typer.Option(
    "--freq", parser=_freq, metavar="STEP", rich_help_panel=_DATA, show_default="found in the dates",
    help="Step between dates: 15min, h, D, W, B, MS, ME, QS, YS, ..., or a number.")]
IdColumn = Annotated[str | None, typer.Option(
    "--id-col", metavar="NAME", rich_help_panel=_DATA, show_default="unique_id",
    help="Column of the names of the series.")]
TimeColumn = Annotated[str | None, typer.Option(
    "--time-col", metavar="NAME", rich_help_panel=_DATA, show_default="ds", help="Column of the dates.")]
TargetColumn = Annotated[str | None, typer.Option(
    "--target-col", metavar="NAME", rich_help_panel=_DATA, show_default="y", help="Column of the values.")]

Cell = Annotated[str, typer.Option(
    "--cell", parser=cell("--cell"), metavar="NAME", rich_help_panel=_MODEL, help=READY_CELLS)]
HiddenSize = Annotated[int, whole_option(
    "--hidden-size", 1, _MODEL, "Units of each layer.", high=1_000_000)]
Layers = Annotated[int, whole_option("--layers", 1, _MODEL, "Recurrent layers.", high=MOST_LAYERS)]
Head = Annotated[str, typer.Option(
    "--head", parser=word("--head", *HEADS), metavar="NAME", rich_help_panel=_MODEL,
    help=f"Distribution that is predicted: {', '.join(HEADS)}; negative_binomial is for counts.")]
Target = Annotated[str | None, typer.Option(
    "--target", parser=word("--target", *TARGETS), metavar="NAME", rich_help_panel=_MODEL,
    show_default="difference; level for negative_binomial",
    help=f"What is predicted: {', '.join(TARGETS)}.")]

MaxEpochs = Annotated[int | None, whole_option(
    "--max-epochs", 1, _TRAINING, "Passes over the series.", "as many as make 500 updates")]
Windows = Annotated[int, whole_option(
    "--windows", 0, _TRAINING, "Origins of the backtest, h steps apart; 0 for no backtest.", high=10_000)]
Seed = Annotated[int, whole_option("--seed", 0, _TRAINING, "The same seed gives the same numbers.")]

Level = Annotated[list[float] | None, typer.Option(
    "--level", parser=between("--level", 0, 100), metavar="PERCENT", rich_help_panel=_OUTPUT,
    show_default="80", help="Coverage of an interval; may be repeated.")]
Plot = Annotated[bool, typer.Option(
    "--plot/--no-plot", rich_help_panel=_OUTPUT, help="Draw the forecasts of the first four series.")]
Out = Annotated[Path | None, typer.Option(
    "--out", metavar="FOLDER", rich_help_panel=_OUTPUT, show_default="runs/DATE_TIME",
    help="Folder for the forecast, the picture and the model.")]
Overwrite = Annotated[bool, typer.Option(
    "--overwrite", rich_help_panel=_OUTPUT, help="Replace earlier results of the command in that folder.")]
Model = Annotated[Path | None, typer.Option(
    "--model", metavar="FILE", show_default=False, rich_help_panel=_OUTPUT,
    help="Forecast with a saved model, without training; without FILE, continue the series it was trained "
    "on.")]
Resume = Annotated[Path | None, typer.Option(
    "--resume", metavar="FOLDER", show_default=False, rich_help_panel=_OUTPUT,
    help="Continue a command that was stopped or killed, with the same result.")]
# fmt: on
