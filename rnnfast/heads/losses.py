"""The losses of the heads, as equations."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

from rnnfast.cells import exp, log, maximum, minimum, softplus, where

_HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)
# Added to scales and rates, so that a loss stays finite where softplus underflows.
LEAST = 1e-6


def _log_gamma(x: Any) -> Any:
    """log(gamma(x)) for x > 0: Stirling's series from 8 on, reached by the recurrence from smaller x.

    The error of the series at 8 is below 1e-13.
    """
    product = shifted = minimum(x, 8.0)  # larger products would overflow float32
    for _ in range(7):
        shifted = shifted + 1
        product = product * shifted
    z = where(x < 8, x + 8, x)
    inverse = 1 / z
    square = inverse * inverse
    series = 1 / 1260 - square * (1 / 1680 - square / 1188)
    series = inverse * (1 / 12 - square * (1 / 360 - square * series))
    return (z - 0.5) * log(z) - z + _HALF_LOG_TAU + series - log(where(x < 8, product, 1))


def squared(location: Any, t: Any) -> Any:
    error = location - t
    return error * error


def absolute(location: Any, t: Any) -> Any:
    return abs(location - t)


def gaussian(location: Any, scale: Any, t: Any) -> Any:
    sigma = softplus(scale) + LEAST
    z = (t - location) / sigma
    return 0.5 * (z * z) + log(sigma) + _HALF_LOG_TAU


def student_t(location: Any, scale: Any, freedom: Any, t: Any) -> Any:
    sigma, nu = softplus(scale) + LEAST, 2 + softplus(freedom)
    z = (t - location) / sigma
    half = 0.5 * (nu + 1)
    constant = _log_gamma(0.5 * nu) - _log_gamma(half) + 0.5 * log(math.pi * nu)
    return constant + log(sigma) + half * log(1 + z * z / nu)


def negative_binomial(log_mean: Any, dispersion: Any, t: Any) -> Any:
    mean, alpha = exp(log_mean), softplus(dispersion) + LEAST
    rate, product = 1 / alpha, alpha * mean
    counted = _log_gamma(rate) + _log_gamma(t + 1) - _log_gamma(t + rate)
    return counted + rate * log(1 + product) - t * (log(product) - log(1 + product))


def quantile_loss(levels: Sequence[float]) -> Callable:
    """The sum of the pinball losses of quantiles that cannot cross: each adds a positive step to the last."""
    names = [f"q{index}" for index in range(len(levels))]

    def loss(*arguments: Any) -> Any:
        *raw, t = arguments
        total: Any = 0.0
        for level, value in zip(levels, rising(raw), strict=True):
            error = t - value
            total = total + maximum(level * error, (level - 1) * error)
        return total

    loss.__signature__ = _signature((*names, "t"))  # type: ignore[attr-defined]
    return loss


def _signature(names: Sequence[str]) -> Any:
    kind = inspect.Parameter.POSITIONAL_ONLY
    return inspect.Signature([inspect.Parameter(name, kind) for name in names])


def rising(raw: Sequence[Any]) -> list[Any]:
    """The first value, then each value plus the softplus of the next."""
    values = [raw[0]]
    for step in raw[1:]:
        values.append(values[-1] + softplus(step))
    return values
