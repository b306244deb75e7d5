"""`RNNForecaster` as a forecaster of sktime, with its pipelines, splitters, tuning and metrics.

Tested with sktime 1.2, whose own checks it passes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnfast import forecast
from rnnfast.cells import Cell
from rnnfast.heads import Head, head_of

try:
    import pandas as pd
    from sktime.datatypes import update_data
    from sktime.forecasting.base import BaseForecaster
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "rnnfast.sktime needs sktime: pip install 'rnnfast[sktime]', or, in a clone, "
        "pip install -e '.[sktime]'."
    ) from error

__all__ = ["RNNForecaster"]

_MTYPES = ["pd.DataFrame", "pd-multiindex", "pd_multiindex_hier"]


class RNNForecaster(BaseForecaster):
    """`rnnfast.forecast.RNNForecaster` for series, panels and hierarchies of sktime.

    All series of a panel train one network. NaN in `y` is a value that was not observed; `X` has no gaps, and
    `predict` needs it for every step up to the last one of the horizon. The step is that of the index.
    `update` trains a new network; with `update_params=False` it reads the values after the cutoff.

    Parameters
    ----------
    cell, hidden_size, layers, dropout, head, season_length, target, scaler, calendar, train_horizon, window
        The network, as in `rnnfast.forecast.RNNForecaster`. The heads "squared" and "absolute" have no
        intervals.
    max_epochs, batch_size, learning_rate, clip_norm, random_state
        The training, as in `rnnfast.forecast.RNNForecaster`.

    Attributes
    ----------
    forecaster_ : rnnfast.forecast.RNNForecaster
        The fitted forecaster.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from rnnfast.sktime import RNNForecaster
    >>> months = np.arange(96)
    >>> index = pd.period_range("2016-01", periods=96, freq="M")
    >>> sales = pd.Series(10 + 0.1 * months + 3 * np.sin(2 * np.pi * months / 12), index)
    >>> forecaster = RNNForecaster(season_length=12, max_epochs=30, random_state=0).fit(sales)
    >>> forecaster.predict(fh=[1, 6]).index.astype(str).tolist()
    ['2024-01', '2024-06']
    >>> forecaster.predict_interval(fh=[1, 6], coverage=0.8).shape
    (2, 2)
    """

    _tags = {  # noqa: RUF012
        "y_inner_mtype": _MTYPES,
        "X_inner_mtype": _MTYPES,
        "capability:missing_values": True,
        "capability:pred_int": True,
        "capability:pred_int:insample": False,
        "capability:insample": False,
        "capability:update": True,
        "capability:random_state": True,
        "property:randomness": "derandomized",
        "capability:non_contiguous_X": False,
        "requires-fh-in-fit": False,
    }
    _config = {"remember_data": False}  # noqa: RUF012

    def __init__(
        self,
        cell: str | Cell = "gru",
        hidden_size: int = 32,
        layers: int = 1,
        dropout: float = 0.1,
        head: str | Head = "student_t",
        season_length: int = 1,
        target: str = "difference",
        scaler: str | None = "auto",
        calendar: bool = True,
        train_horizon: int = 1,
        window: int = 128,
        max_epochs: int | None = None,
        batch_size: int = 32,
        learning_rate: float = 0.01,
        clip_norm: float | None = 1.0,
        random_state: int | None = None,
    ) -> None:
        self.cell = cell
        self.hidden_size = hidden_size
        self.layers = layers
        self.dropout = dropout
        self.head = head
        self.season_length = season_length
        self.target = target
        self.scaler = scaler
        self.calendar = calendar
        self.train_horizon = train_horizon
        self.window = window
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.clip_norm = clip_norm
        self.random_state = random_state
        super().__init__()
        self._y = self._X = None  # sktime fills them where its `remember_data` is set
        if not head_of(type(self).__name__, head).has_distribution:
            self.set_tags(**{"capability:pred_int": False})

    def _fit(self, y: Any, X: Any, fh: Any) -> RNNForecaster:
        freq = self.cutoff.freqstr if hasattr(self.cutoff, "freq") else 1
        futures = [] if X is None else _named(X).columns.tolist()
        forecaster = forecast.RNNForecaster(freq, futr_exog=futures, **self.get_params(deep=False))
        self._cur_y, self._cur_X, self._end = y, X, self.cutoff
        self.forecaster_ = forecaster.fit(self._rows(y, X))
        return self

    def _update(self, y: Any, X: Any = None, update_params: bool = True) -> RNNForecaster:
        self._cur_y, self._cur_X = update_data(self._cur_y, y), update_data(self._cur_X, X)
        if update_params:
            return self._fit(self._cur_y, self._cur_X, None)
        if self.cutoff[0] > self._end[0]:
            self.forecaster_.update(self._rows(y[_times(y) > self._end[0]], X))
            self._end = self.cutoff
        return self

    def _predict(self, fh: Any, X: Any) -> Any:
        index, found = self._forecasts(fh, X, None)
        return pd.DataFrame(found, index, self._cur_y.columns)

    def _predict_quantiles(self, fh: Any, X: Any, alpha: Any) -> Any:
        index, found = self._forecasts(fh, X, alpha)
        return pd.DataFrame(found, index, pd.MultiIndex.from_product([self._get_varnames(), alpha]))

    def _forecasts(self, fh: Any, X: Any, alpha: Any) -> tuple[Any, np.ndarray]:
        """The index of the horizon for each series, and forecasts or quantiles in its rows."""
        steps, times = fh.to_indexer(self.cutoff).to_numpy(), fh.to_absolute_index(self.cutoff)
        h, series = int(steps.max()) + 1, _series(self._cur_y.index)
        before = None
        if self.cutoff[0] != self._end[0]:  # an update has set the cutoff back
            before = self._rows(self._cur_y[_times(self._cur_y) <= self.cutoff[0]], self._cur_X)
        futures = None if X is None else _frame(X.index, X)
        found = self.forecaster_.predict(h, before, quantiles=alpha, futr_df=futures)
        order = pd.Index(found.pop("unique_id")[::h]).get_indexer(_ids(self._cur_y.index).unique())
        del found["ds"]
        if alpha is not None:
            del found["RNNForecaster"]
        table = np.stack([column.reshape(-1, h) for column in found.values()], axis=-1)
        index = times if series is None else _crossed(series, times).set_names(self._cur_y.index.names)
        return index, table[order][:, steps].reshape(len(index), -1)

    def _rows(self, y: Any, X: Any) -> dict[str, Any]:
        """Values and covariates as a long frame; series that end before the cutoff are continued by NaN."""
        index, series = y.index, _series(self._cur_y.index)
        if series is not None:
            ends = _crossed(series, self.cutoff)
            index = index.append(ends[~ends.isin(index)])
        return _frame(index, X) | {"y": y.reindex(index).iloc[:, 0].to_numpy(float)}

    @classmethod
    def get_test_params(cls, parameter_set: str = "default") -> list[dict[str, Any]]:
        """Small networks for the checks of sktime."""
        small = {"hidden_size": 4, "max_epochs": 2, "random_state": 0}
        return [small, {**small, "cell": "lstm", "head": "absolute", "target": "level", "scaler": None}]


def _times(data: Any) -> Any:
    return data.index.get_level_values(-1)


def _series(index: Any) -> Any:
    """The series of a panel or hierarchy, or None for one series."""
    return index.droplevel(-1).unique() if index.nlevels > 1 else None


def _ids(index: Any) -> Any:
    """A name for the series of each row."""
    if index.nlevels == 1:
        return pd.Index(np.zeros(len(index), int))
    return index.droplevel(-1) if index.nlevels == 2 else index.droplevel(-1).map(str)


def _crossed(series: Any, times: Any) -> Any:
    """Each series at each time."""
    rows, columns = np.divmod(np.arange(len(series) * len(times)), len(times))
    levels = [series.get_level_values(level).take(rows) for level in range(series.nlevels)]
    return pd.MultiIndex.from_arrays([*levels, times.take(columns)])


def _named(X: Any) -> Any:
    return X.rename(columns=lambda name: f"X[{name!r}]")


def _frame(index: Any, X: Any) -> dict[str, Any]:
    """Names, dates and covariates of rows."""
    times = index.get_level_values(-1)
    times = times.to_timestamp() if isinstance(times, pd.PeriodIndex) else times
    covariates = {} if X is None else {name: one.to_numpy() for name, one in _named(X.reindex(index)).items()}
    return {"unique_id": _ids(index).to_numpy(), "ds": times.to_numpy(), **covariates}
