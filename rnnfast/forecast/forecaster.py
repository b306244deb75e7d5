"""`RNNForecaster`: one recurrent network for many series."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.cells import Cell
from rnnfast.engine.arrays import shown
from rnnfast.engine.locks import turn_of
from rnnfast.forecast.data import Arrays, Frames, levels_of, loaded
from rnnfast.forecast.fitting import NOT_MEASURED, Trained, trained_on
from rnnfast.forecast.frames import Names, checked_freq
from rnnfast.forecast.intervals import Origins, PredictionIntervals, backtest, continued_series
from rnnfast.forecast.preprocessing import SCALERS, TARGETS
from rnnfast.forecast.saving import read_forecaster, settings_of, write_forecaster
from rnnfast.heads.definition import Head, head_of
from rnnfast.models.weights import cell_of
from rnnfast.training.progress import Progress


class RNNForecaster:
    """Forecasts of many series by one recurrent network, which is trained on all of them.

    The network reads a series value by value and predicts the next ones. Series are a long frame with the
    columns `unique_id`, `ds` and `y`, of pandas, polars and others or a dict of arrays (rows,). Without
    dates, they are an array (T,) or (n, T), or a list of arrays (T_i,). NaN, masked values and missing dates
    were not observed. Dates have no time zone.

    Parameters
    ----------
    freq : str or int, optional
        The step between two dates: "15min", "h", "D", "W", "B", "MS", "ME", "QS", "Y", ..., or a number for
        `ds` that are numbers. By default it is found in the dates.
    cell : str or Cell
        The recurrent layers: "rnn", "lstm", "gru", ..., or your own cell.
    hidden_size, layers : int
        Units of a layer, and the number of layers.
    dropout : float
        Share of units dropped in training.
    head : str or Head
        The distribution that is predicted: one of `rnnfast.heads`, or its name. "squared" and "absolute"
        have none, thus no intervals; "negative_binomial" is for counts.
    season_length : int
        Steps of a season, 12 for months; 1 for none. Each forecast also reads the value of a season before.
    target : str
        What the network learns. "difference": changes from the last value; "seasonal_difference": changes
        from the season before; "level": the values themselves, for series without a trend.
    scaler : str or None
        What each series is divided by. "standard": the standard deviation of its targets; "mean": its mean
        absolute value; None: nothing. "auto" is "mean" for counts, else "standard". A series keeps the scale
        of `fit`.
    calendar : bool
        Whether the network reads the time of day, week and year, each if the series span two of them.
    futr_exog, stat_exog : sequence of str
        Columns of covariates: those known in advance, in the frame of the series and in `futr_df`; and those
        with one value for each series, in `static_df`. Texts are categories.
    train_horizon : int
        Steps that the network predicts at once. Later steps are predicted from its own forecasts.
    window : int
        Steps of a training window, through which gradients flow.
    max_epochs : int, optional
        Passes over the series; by default 2 to 200, for 30 to 200 updates: one for every five values.
    batch_size : int
        Windows in a batch.
    learning_rate, clip_norm : float
        Adam's first learning rate, which falls linearly to 0; the largest norm of all gradients, or None.
    patience : int
        With `val_size`, training ends after this number of epochs without a better validation loss.
    random_state : int, optional
        The seed of everything random; the same seed gives the same bits.
    verbose, callbacks : int, sequence of callable
        1 prints a line for each epoch. Callbacks get its record; `rnnfast.training.StopTraining` ends it.
    on_update : callable, optional
        Called with the `rnnfast.training.Progress` after each update.
    ranks, blocks
        The processes that train together, "world" for all, and the parts of a batch, as in
        `rnnfast.Trainer`. Each process calls `fit` with the same data. Copies and files hold no ranks.

    Attributes
    ----------
    history_ : list of dict
        The records of the last training.
    model_ : SequenceRegressor
        The network.

    Examples
    --------
    >>> import numpy as np
    >>> months = np.arange(96)
    >>> sales = 10 + 0.1 * months + 3 * np.sin(2 * np.pi * months / 12)
    >>> forecaster = RNNForecaster(season_length=12, max_epochs=30, random_state=0).fit(sales)
    >>> forecaster.predict(6).shape, forecaster.predict(6, quantiles=[0.1, 0.9]).shape
    ((6,), (6, 2))
    """

    def __init__(
        self,
        freq: str | int | None = None,
        *,
        cell: str | Cell = "gru",
        hidden_size: int = 32,
        layers: int = 1,
        dropout: float = 0.1,
        head: str | Head = "student_t",
        season_length: int = 1,
        target: str = "difference",
        scaler: str | None = "auto",
        calendar: bool = True,
        futr_exog: Sequence[str] = (),
        stat_exog: Sequence[str] = (),
        train_horizon: int = 1,
        window: int = 128,
        max_epochs: int | None = None,
        batch_size: int = 32,
        learning_rate: float = 0.01,
        clip_norm: float | None = 1.0,
        patience: int = 10,
        random_state: int | None = None,
        verbose: int = 0,
        callbacks: Sequence[Callable[[dict[str, Any]], object]] = (),
        on_update: Callable[[Progress], object] | None = None,
        ranks: Any = None,
        blocks: int | None = None,
    ) -> None:
        owner = type(self).__name__
        self.freq, self.cell = checked_freq(owner, freq), cell_of(owner, cell)
        self.hidden_size = _check.values.size(owner, "hidden_size", hidden_size)
        self.layers = _check.values.size(owner, "layers", layers)
        self.dropout = _check.values.number_below(owner, "dropout", dropout, 0, 1)
        self.head = head_of(owner, head)
        self.season_length = _check.values.size(owner, "season_length", season_length)
        self.target = _check.values.choice(owner, "target", target, TARGETS)
        self.scaler = None if scaler is None else _check.values.choice(owner, "scaler", scaler, SCALERS)
        self.calendar = _check.values.boolean(owner, "calendar", calendar)
        self.futr_exog = _check.series.names(owner, "futr_exog", futr_exog)
        self.stat_exog = _check.series.names(owner, "stat_exog", stat_exog)
        most = self.season_length if self.season_length > 1 else None
        self.train_horizon = _check.values.size(owner, "train_horizon", train_horizon, 1, most)
        self.window = _check.values.size(owner, "window", window, 2)
        self.max_epochs = None if max_epochs is None else _check.values.size(owner, "max_epochs", max_epochs)
        self.batch_size = _check.values.size(owner, "batch_size", batch_size)
        self.learning_rate = _check.values.above(owner, "learning_rate", learning_rate, 0.0)
        self.clip_norm = _check.values.above(owner, "clip_norm", clip_norm, 0.0)
        self.patience = _check.values.size(owner, "patience", patience)
        self.random_state = random_state
        if random_state is not None:
            _check.values.size(owner, "random_state", random_state, 0)
        self.verbose = _check.values.size(owner, "verbose", verbose, 0)
        self.callbacks, self.on_update = tuple(callbacks), on_update
        self.ranks, self.blocks = ranks, _check.training.blocks(owner, blocks)
        _check.series.forecaster(self, owner)
        self.history_: list[dict[str, Any]] = []
        self._kind: Arrays | Frames | None = None
        self._trained: Trained | None = None

    @property
    def model_(self) -> Any:
        """The network, a `SequenceRegressor`."""
        return self._parts("model_")[0].fitted.model

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the ranks, which belong to this process."""
        return {**self.__dict__, "ranks": None}

    def __repr__(self) -> str:
        values = {"cell": self.cell.name, "head": self.head.name}
        for name in ("freq", "hidden_size", "layers", "season_length", "target", "train_horizon"):
            values[name] = getattr(self, name)
        return shown(self, {name: value for name, value in values.items() if value is not None})

    def fit(
        self,
        df: Any,
        static_df: Any = None,
        val_size: int = 0,
        prediction_intervals: PredictionIntervals | None = None,
        *,
        id_col: str = "unique_id",
        time_col: str = "ds",
        target_col: str = "y",
        checkpoint_file: str | os.PathLike[str] | None = None,
        resume: bool = False,
    ) -> RNNForecaster:
        """Train a new network on series, and read them, so that `predict` can continue them.

        Parameters
        ----------
        df : frame, array (T,) or (n, T), or list of arrays (T_i,)
            The series. Their dates must rise within each series.
        static_df : frame, optional
            One row for each series, with the columns `stat_exog`.
        val_size : int
            The number of last values of each series that are held back for validation. The network of the
            epoch with the smallest loss on them is kept.
        prediction_intervals : PredictionIntervals, optional
            How to calibrate intervals and quantiles; by default they are those of the head.
        id_col, time_col, target_col : str
            The columns of the series' name, date and value.
        checkpoint_file, resume
            As in `Trainer.fit`: a file from which a stopped training continues to the same bits.

        Returns
        -------
        RNNForecaster
            The forecaster itself.
        """
        owner = f"{type(self).__name__}.fit"
        _check.series.calibration(owner, prediction_intervals, PredictionIntervals)
        data = loaded(self, owner, df, static_df, Names(id_col, time_col, target_col))
        errors = (
            NOT_MEASURED if prediction_intervals is None else prediction_intervals.measured(self, owner, data)
        )
        trained = trained_on(self, owner, data, val_size, errors, checkpoint_file, resume)
        self._kind, self._trained, self.history_ = data.kind, trained, trained.history
        return self

    def predict(
        self,
        h: int,
        df: Any = None,
        *,
        level: Sequence[float] | float | None = None,
        quantiles: Sequence[float] | float | None = None,
        futr_df: Any = None,
        static_df: Any = None,
        n_paths: int = 200,
    ) -> Any:
        """Forecasts of the next `h` values.

        Parameters
        ----------
        h : int
            Steps to forecast.
        df : frame, array or list, optional
            Series to continue, also ones that were not in `fit`; by default those of `fit`, after all that
            `update` has added. Series of a frame that were in `fit` keep their scale; arrays have new ones.
        level, quantiles : numbers, optional
            Coverage of central intervals in per cent; levels of quantiles between 0 and 1.
        futr_df : frame, optional
            The columns `futr_exog` for the `h` dates after each series.
        static_df : frame, optional
            The columns `stat_exog` of series that were not in the training data.
        n_paths : int
            Simulated paths from which quantiles are taken, where `h` is above `train_horizon`.

        Returns
        -------
        frame, or array
            For frames a frame of the same library: the columns of name and date, "RNNForecaster", and for
            each level "RNNForecaster-lo-80" and "RNNForecaster-hi-80", for each quantile
            "RNNForecaster_ql0.1". For arrays (n, h), with quantiles or levels (n, h, Q) in rising order;
            without n for one series (T,).
        """
        owner = f"{type(self).__name__}.predict"
        steps, paths = _check.values.size(owner, "h", h), _check.values.size(owner, "n_paths", n_paths, 2)
        levels = levels_of(owner, self.head, level, quantiles)
        trained, kind = self._parts("predict")
        fitted = trained.fitted
        with turn_of(fitted.model):
            kind, group, future = continued_series(owner, kind, trained, df, static_df, futr_df, steps)
            found = fitted.forecast(group, steps, future, levels.sorted, paths, trained.seed)
        return kind.forecasts(type(self).__name__, group, fitted.recipe.grid, found, levels)

    def simulate(
        self,
        h: int,
        n_paths: int = 100,
        seed: int | None = None,
        df: Any = None,
        *,
        futr_df: Any = None,
        static_df: Any = None,
    ) -> np.ndarray:
        """Paths of the next `h` values, drawn from the distributions of the head.

        A path of a series depends on `seed`, the series' name and the path's number alone. Arguments are as
        in `predict`; by default, the seed is that of `fit`.

        Returns
        -------
        ndarray (n, n_paths, h)
            In the order of the series; without n for one series (T,).
        """
        owner = f"{type(self).__name__}.simulate"
        steps, paths = _check.values.size(owner, "h", h), _check.values.size(owner, "n_paths", n_paths)
        levels_of(owner, self.head, None, 0.5)
        trained, kind = self._parts("simulate")
        fitted = trained.fitted
        seed = trained.seed if seed is None else _check.values.size(owner, "seed", seed, 0)
        with turn_of(fitted.model):
            kind, group, future = continued_series(owner, kind, trained, df, static_df, futr_df, steps)
            found = fitted.simulate(group, steps, future, paths, seed)
        return found[0] if isinstance(kind, Arrays) and kind.single else found

    def update(self, new_rows: Any) -> RNNForecaster:
        """Read the next values of the series, without training, as if all had been read at once.

        Parameters
        ----------
        new_rows : frame, array (k,) or (n, k), or list of n arrays (k_i,)
            The next values of the series; a frame may leave out some series.

        Returns
        -------
        RNNForecaster
            The forecaster itself.
        """
        owner = f"{type(self).__name__}.update"
        trained, kind = self._parts("update")
        fitted = trained.fitted
        with turn_of(fitted.model):
            group = self._parts("update")[0].group
            rows, panel = kind.following(owner, new_rows, group, fitted.futures, fitted.recipe.grid)
            group = group.with_rows(rows, fitted.read_on(group.rows(rows), panel))
            self._trained = trained._replace(group=group)
        return self

    def cross_validation(
        self,
        df: Any,
        h: int,
        n_windows: int = 1,
        step_size: int | None = None,
        refit: bool = False,
        prediction_intervals: PredictionIntervals | None = None,
        *,
        level: Sequence[float] | float | None = None,
        quantiles: Sequence[float] | float | None = None,
        static_df: Any = None,
        n_paths: int = 200,
        id_col: str = "unique_id",
        time_col: str = "ds",
        target_col: str = "y",
        checkpoint_file: str | os.PathLike[str] | None = None,
        resume: bool = False,
    ) -> Any:
        """Forecasts from several origins, each from the values before it alone.

        Covariates are encoded from all rows. With `refit=False` a network is trained once, on the values
        before the first origin; each series is then read once, and forecasts branch from its states. With
        `refit=True`, each origin has a network.

        Parameters
        ----------
        df, static_df, prediction_intervals, id_col, time_col, target_col, checkpoint_file, resume
            As in `fit`; `checkpoint_file` needs `refit=False`.
        h, n_windows, step_size : int
            Steps of a forecast, the number of origins, and steps between two origins, by default `h`. The
            last forecast ends with the series.
        level, quantiles, n_paths
            As in `predict`.

        Returns
        -------
        frame, or array
            For frames, as from `predict`, with the columns "cutoff", the last date that was read, and of the
            values. For arrays (n, n_windows, h), with quantiles (n, n_windows, h, Q).
        """
        owner = f"{type(self).__name__}.cross_validation"
        steps, windows = _check.values.size(owner, "h", h), _check.values.size(owner, "n_windows", n_windows)
        stride = steps if step_size is None else _check.values.size(owner, "step_size", step_size)
        refit, paths = (
            _check.values.boolean(owner, "refit", refit),
            _check.values.size(owner, "n_paths", n_paths, 2),
        )
        levels = levels_of(owner, self.head, level, quantiles)
        _check.series.calibration(owner, prediction_intervals, PredictionIntervals)
        data = loaded(self, owner, df, static_df, Names(id_col, time_col, target_col))
        origins = Origins(steps, windows, stride, refit)
        return backtest(
            self, owner, data, origins, levels, paths, prediction_intervals, checkpoint_file, resume
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted forecaster to one safetensors file, atomically, without callbacks and ranks."""
        owner = f"{type(self).__name__}.save"
        trained, kind = self._parts("save")
        write_forecaster(path, settings_of(owner, self), kind, trained)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> RNNForecaster:
        """Read a forecaster from a file of `save`.

        CheckpointError or OSError if it cannot be read or holds no forecaster, or its cell is not defined.
        """
        settings, kind, trained = read_forecaster(path)
        self = cls(**settings)
        self._kind, self._trained, self.history_ = kind, trained, trained.history
        return self

    def _parts(self, method: str) -> tuple[Trained, Arrays | Frames]:
        """What `fit` has left; an error before."""
        _check.objects.called_before(f"{type(self).__name__}.{method}", self._trained is not None, "fit")
        assert self._trained is not None
        assert self._kind is not None
        return self._trained, self._kind
