"""Forecasting of time series: one network for many series.

* `forecaster.py`: `RNNForecaster`; `fitting.py` trains its network, `fitted.py` has the network with what it
  knows of each series.
* `data.py`: arrays and long frames, in and out; `frames.py` reads frames and counts the steps between dates;
  `panel.py` holds series and covariates as flat arrays.
* `preprocessing.py`: the inputs and targets of a step; `reading.py` reads series into states and continues
them.
* `intervals.py`: intervals that are calibrated, and forecasts from several origins.
* `metrics.py`: how good forecasts are; `baselines.py`: forecasts to compare with; `plot.py`: pictures.
* `saving.py`: a forecaster as one file.
"""

from rnnfast.forecast import metrics
from rnnfast.forecast.baselines import drift, seasonal_naive
from rnnfast.forecast.forecaster import RNNForecaster
from rnnfast.forecast.intervals import PredictionIntervals
from rnnfast.forecast.plot import plot

__all__ = ["PredictionIntervals", "RNNForecaster", "drift", "metrics", "plot", "seasonal_naive"]
