"""`RNNForecaster` as a forecaster of sktime, with its pipelines, splitters, tuning and metrics."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

from rnnfast import forecast
from rnnfast.heads import head_of

try:
    import pandas as pd
    from sktime.datatypes import update_data
    from sktime.forecasting.base import BaseForecaster
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("rnnfast.sktime needs sktime: pip install 'rnnfast[sktime]'.") from error

__all__ = ["RNNForecaster"]

_ABSENT = {"freq", "futr_exog", "stat_exog", "patience", "verbose", "callbacks", "on_update", "ranks"}
_ALL = inspect.signature(forecast.RNNForecaster.__init__)
_SIGNATURE = _ALL.replace(parameters=[one for name, one in _ALL.parameters.items() if name not in _ABSENT])


class RNNForecaster(BaseForecaster):
    """`rnnfast.forecast.RNNForecaster` for sktime: one network for each series.

    NaN in `y` is a value that was not observed. `X` holds covariates without gaps; `predict` needs them for
    every step up to the last one of the horizon. `update` trains a new network on all values; with
    `update_params=False` it only reads the values that follow.

    Parameters
    ----------
    **options
        Names and defaults are those of `rnnfast.forecast.RNNForecaster`: `hidden_size`, `season_length`, ...

    Examples
    --------
    >>> from rnnfast.sktime import RNNForecaster
    >>> from sktime.datasets import load_airline
    >>> forecaster = RNNForecaster(season_length=12, max_epochs=5, random_state=0).fit(load_airline())
    >>> forecaster.predict_interval([1, 6], coverage=0.8).index.astype(str).tolist()
    ['1961-01', '1961-06']
    """

    _tags: ClassVar[dict[str, Any]] = {"property:randomness": "derandomized", "requires-fh-in-fit": False}
    _tags |= {f"capability:{name}": True for name in ("missing_values", "pred_int", "update", "random_state")}
    _tags |= {f"capability:{name}": False for name in ("insample", "pred_int:insample", "non_contiguous_X")}
    _config: ClassVar[dict[str, Any]] = {"remember_data": False}

    def __init__(self, **options: Any) -> None:
        _SIGNATURE.bind(self, **options)
        self.__dict__.update(self.get_param_defaults() | options, _y=None, _X=None)
        super().__init__()
        self.set_tags(**{"capability:pred_int": head_of("RNNForecaster", self.head).has_distribution})

    __init__.__signature__ = _SIGNATURE  # type: ignore[attr-defined]

    def _fit(self, y: Any, X: Any, fh: Any) -> RNNForecaster:
        self._y, self._X, self._end = y, X, y.index[-1]
        rows, freq = self._rows(y.index, X), getattr(self.cutoff, "freqstr", 1)
        inner = forecast.RNNForecaster(freq, futr_exog=list(rows)[3:], **self.get_params(deep=False))
        self.forecaster_ = inner.fit(rows)
        return self

    def _update(self, y: Any, X: Any = None, update_params: bool = True) -> RNNForecaster:
        self._y, self._X = update_data(self._y, y), update_data(self._X, X)
        if update_params:
            return self._fit(self._y, self._X, None)
        index = y.index[y.index > self._end]
        if len(index):
            self.forecaster_.update(self._rows(index, X))
            self._end = index[-1]
        return self

    def _predict(self, fh: Any, X: Any, alpha: Any = None) -> Any:
        steps, index = fh.to_indexer(self.cutoff), fh.to_absolute_index(self.cutoff)
        back = self.cutoff[0] != self._end  # an update has set the cutoff back
        past = self._rows(self._y.loc[: self.cutoff[0]].index, self._X) if back else None
        future = None if X is None else self._rows(X.index, X)
        found = self.forecaster_.predict(steps.max() + 1, past, quantiles=alpha, futr_df=future)
        table = pd.DataFrame(found).iloc[steps].set_axis(index)
        if alpha is None:
            return table["RNNForecaster"].rename(self._y.name)
        return table.iloc[:, 3:].set_axis(pd.MultiIndex.from_product([self._get_varnames(), alpha]), axis=1)

    _predict_quantiles = _predict

    def _rows(self, index: Any, X: Any) -> dict[str, Any]:
        """The columns of a long frame: dates, values, which are NaN where unknown, and covariates."""
        times = index.to_timestamp() if isinstance(index, pd.PeriodIndex) else index
        covariates = {} if X is None else {f"X[{name!r}]": X[name].reindex(index).to_numpy() for name in X}
        y = self._y.reindex(index).to_numpy(float)
        return {"unique_id": [0] * len(index), "ds": times.to_numpy(), "y": y, **covariates}

    @classmethod
    def get_test_params(cls, parameter_set: str = "default") -> list[dict[str, Any]]:
        """Small networks for the checks of sktime."""
        return [{"max_epochs": 2, "random_state": 0, "head": head} for head in ("student_t", "absolute")]
