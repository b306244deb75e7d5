"""Forecasting of time series.

* `metrics.py`: how good forecasts are.
"""

from rnnfast.forecast import metrics

__all__ = ["metrics"]
