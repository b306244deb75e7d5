"""The steps of `rnnfast forecast`: describe the series, backtest, train, forecast, write."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from rnnfast import _check
from rnnfast.cli.backtests import Plan, Score, scores
from rnnfast.cli.processes import Processes
from rnnfast.cli.progress import clock, show_steps
from rnnfast.cli.results import numbers_table
from rnnfast.cli.series_files import SeriesFile, as_texts, write_csv
from rnnfast.cli.wording import counted
from rnnfast.files.atomic import write_atomically
from rnnfast.forecast import PredictionIntervals, RNNForecaster, plot
from rnnfast.forecast.fitting import windows_of
from rnnfast.forecast.frames import column_names, columns_of, panel_of_rows, rows_of_frame
from rnnfast.forecast.grid import Grid, grid_of
from rnnfast.forecast.panel import Panel
from rnnfast.models.cells import named_cell
from rnnfast.training import Progress

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
