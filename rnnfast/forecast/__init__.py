"""Forecasting of time series: one network for many series.

* `forecaster.py`: `RNNForecaster`; `fitting.py` trains its network, `fitted.py` has the network with what it
  knows of each series.
* `data.py`: arrays and long frames, in and out; `frames.py` reads frames, `panel.py` holds series as flat
  arrays, `grid.py` counts the steps between dates, `covariates.py` encodes covariates.
* `recipe.py`: the inputs and targets of a step; `windows.py` cuts series for training; `reading.py` reads
  series into states and continues them.
* `intervals.py`: intervals that are calibrated; `backtest.py`: forecasts from several origins.
* `metrics.py`: how good forecasts are; `baselines.py`: forecasts to compare with; `plot.py`: pictures.
* `saving.py`: a forecaster as one file.
"""

from rnnfast.forecast import metrics
from rnnfast.forecast.baselines import drift, seasonal_naive
from rnnfast.forecast.forecaster import RNNForecaster
from rnnfast.forecast.intervals import PredictionIntervals
from rnnfast.forecast.plot import plot

__all__ = ["PredictionIntervals", "RNNForecaster", "drift", "metrics", "plot", "seasonal_naive"]
