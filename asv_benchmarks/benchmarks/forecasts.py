"""Forecasts of many series: an epoch, reading, a step of new values, and a backtest that reads once."""

import functools

import numpy as np

from rnnfast.forecast import RNNForecaster

from .measuring import Timed

SHAPES = [(1, 2000), (200, 50), (2000, 100)]
HORIZON, ORIGINS = 12, 20


@functools.cache
def _series(shape):
    return np.random.default_rng(0).standard_normal(shape).cumsum(axis=1)


def _new():
    return RNNForecaster(max_epochs=1, random_state=0)


@functools.cache
def _calls(shape):
    """The calls to time, each checked once."""
    y, forecaster = _series(shape), _new().fit(_series(shape))
    last, fresh = forecaster.predict(1)[:, 0], np.full(shape[0], 0.5)
    assert np.abs(last - y[:, -1]).mean() < 10  # a walk stays near its last value
    backtest = _new().cross_validation(y, HORIZON, ORIGINS, 1)
    assert backtest.shape == (shape[0], ORIGINS, HORIZON)
    return {
        "fit": lambda: _new().fit(y),
        "read": lambda: forecaster.predict(1, y),
        "update": lambda: forecaster.update(fresh),
        "predict": lambda: forecaster.predict(HORIZON),
        "intervals": lambda: forecaster.predict(HORIZON, level=80, n_paths=20),
        "backtest": lambda: _new().cross_validation(y, HORIZON, ORIGINS, 1),
    }


class Forecasts(Timed):
    """The calls of `RNNForecaster` on (series, steps)."""

    params = (SHAPES, ["fit", "read", "update", "predict", "intervals", "backtest"])
    param_names = ("shape", "call")

    def setup(self, shape, call):
        self.call = _calls(shape)[call]

    def time_call(self, shape, call):
        self.call()
