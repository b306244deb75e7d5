"""Heads: how a model predicts a target, as the loss of its parameters.

A head has parameters for each output, which the output layer computes from the hidden vector, and a loss,
written as equations. Its gradient is derived, and both are compiled. The losses of distributions are negative
log-likelihoods in nats.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.cells import log, maximum, minimum, softplus, where
from rnnfast.kernels import head as kernels

__all__ = [
    "Head",
    "absolute",
    "categorical",
    "gaussian",
    "negative_binomial",
    "quantiles",
    "squared",
    "student_t",
]

_HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)
# Added to scales and rates, so that a loss stays finite where softplus underflows.
_LEAST = 1e-6
# A damaged file could otherwise ask for a billion.
_MOST_CLASSES = 1 << 16


class Head:
    """A way to predict a target.

    Parameters
    ----------
    name : str
        Its name in models and their files.
    loss : callable
        Takes the parameters of one output, then its target; returns the loss. It may use arithmetic and the
        functions of `rnnfast.cells`.
    values : callable
        The values of the distribution's own parameters from those of the output layer, as a dict; "mean" is
        the point forecast.
    options : optional
        What distinguishes the head from others of its name, as a JSON value.

    Attributes
    ----------
    parameters : tuple of str
        The names of the parameters.

    Examples
    --------
    >>> import numpy as np
    >>> from rnnfast.heads import gaussian
    >>> gaussian.parameters
    ('location', 'scale')
    >>> sorted(gaussian.values(np.zeros((2, 3, 2))))
    ['mean', 'scale']
    """

    def __init__(
        self,
        name: str,
        loss: Callable,
        values: Callable[..., dict[str, np.ndarray]],
        options: Any = None,
    ) -> None:
        self.name, self.options, self._loss, self._values = name, options, loss, values
        self.parameters = tuple(inspect.signature(loss).parameters)[:-1]

    @functools.cached_property
    def equations(self) -> kernels.Head | kernels.Softmax:
        """The loss and its gradient, derived when they are first needed; FormulaError if they cannot be."""
        return kernels.Head(self.name, self._loss)

    def __repr__(self) -> str:
        return f"rnnfast.heads.{self.name}" + ("" if self.options is None else f"({self.options})")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Head) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self.equations)

    def __reduce__(self) -> Any:
        """A head of this module by its name and options; another one with its functions."""
        if self.is_ready:
            return _ready, (self.name, self.options)
        return Head, (self.name, self._loss, self._values, self.options)

    @property
    def is_ready(self) -> bool:
        """Whether this module makes the head."""
        return self == _ready(self.name, self.options)

    def _key(self) -> tuple[Any, ...]:
        return self.name, self.options, self.equations

    def values(self, scores: np.ndarray) -> dict[str, np.ndarray]:
        """The distribution's parameters (..., O) by name from the scores (..., P*O) of the output layer."""
        blocks = np.split(np.asarray(scores), len(self.parameters), axis=-1)
        return self._values(*blocks)

    def mean(self, scores: np.ndarray) -> np.ndarray:
        """The point forecast (..., O)."""
        return self.values(scores)["mean"]

    def check(self, owner: str, ts: np.ndarray, is_read: Callable[[], np.ndarray]) -> None:
        """An error of `owner` unless the head can take the targets `ts` (N, T, O).

        `is_read()` says which of the first targets are read, (N, steps).
        """


class _Categorical(Head):
    """The head of K classes, whose loss is compiled for every K."""

    def __init__(self, classes: int) -> None:
        self.name, self.options = "categorical", classes
        self.parameters = self.equations.parameters

    @functools.cached_property
    def equations(self) -> kernels.Softmax:
        return kernels.Softmax(self.options)

    def values(self, scores: np.ndarray) -> dict[str, np.ndarray]:
        scores = np.asarray(scores)
        by_class = scores.reshape(*scores.shape[:-1], self.options, -1)
        powers = np.exp(by_class - by_class.max(axis=-2, keepdims=True))
        powers /= powers.sum(axis=-2, keepdims=True)
        most = by_class.argmax(axis=-2).astype(scores.dtype)
        return {"mean": most, "probabilities": powers.reshape(scores.shape)}

    def check(self, owner: str, ts: np.ndarray, is_read: Callable[[], np.ndarray]) -> None:
        _check.class_numbers(owner, ts, self.options, is_read)


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


def _squared(location: Any, t: Any) -> Any:
    error = location - t
    return error * error


def _absolute(location: Any, t: Any) -> Any:
    return abs(location - t)


def _gaussian(location: Any, scale: Any, t: Any) -> Any:
    sigma = softplus(scale) + _LEAST
    z = (t - location) / sigma
    return 0.5 * (z * z) + log(sigma) + _HALF_LOG_TAU


def _student_t(location: Any, scale: Any, freedom: Any, t: Any) -> Any:
    sigma, nu = softplus(scale) + _LEAST, 2 + softplus(freedom)
    z = (t - location) / sigma
    half = 0.5 * (nu + 1)
    constant = _log_gamma(0.5 * nu) - _log_gamma(half) + 0.5 * log(math.pi * nu)
    return constant + log(sigma) + half * log(1 + z * z / nu)


def _negative_binomial(location: Any, dispersion: Any, t: Any) -> Any:
    mean, alpha = softplus(location) + _LEAST, softplus(dispersion) + _LEAST
    rate, product = 1 / alpha, alpha * mean
    counted = _log_gamma(rate) + _log_gamma(t + 1) - _log_gamma(t + rate)
    return counted + rate * log(1 + product) - t * (log(product) - log(1 + product))


def _quantile_loss(levels: Sequence[float]) -> Callable:
    """The sum of the pinball losses of quantiles that cannot cross: each adds a positive step to the last."""
    names = [f"q{index}" for index in range(len(levels))]

    def loss(*arguments: Any) -> Any:
        *raw, t = arguments
        total: Any = 0.0
        for level, value in zip(levels, _rising(raw), strict=True):
            error = t - value
            total = total + maximum(level * error, (level - 1) * error)
        return total

    loss.__signature__ = _signature((*names, "t"))  # type: ignore[attr-defined]
    return loss


def _signature(names: Sequence[str]) -> Any:
    kind = inspect.Parameter.POSITIONAL_ONLY
    return inspect.Signature([inspect.Parameter(name, kind) for name in names])


def _rising(raw: Sequence[Any]) -> list[Any]:
    """The first value, then each value plus the softplus of the next."""
    values = [raw[0]]
    for step in raw[1:]:
        values.append(values[-1] + softplus(step))
    return values


def quantiles(*levels: float) -> Head:
    """Quantiles of the target at these levels, which never cross.

    Parameters
    ----------
    *levels : float
        Rising levels between 0 and 1. The point forecast is the quantile nearest to the median.

    Examples
    --------
    >>> import numpy as np
    >>> from rnnfast.heads import quantiles
    >>> head = quantiles(0.1, 0.5, 0.9)
    >>> low, middle, high = head.values(np.zeros((1, 3)))["quantiles"]
    >>> bool(low < middle < high)
    True
    """
    checked = tuple(_check.number("quantiles", "a level", level, 0.0, 1.0) for level in levels)
    if not checked or any(not 0 < level < 1 for level in checked) or list(checked) != sorted(set(checked)):
        raise ValueError(f"quantiles: levels must rise between 0 and 1, got {levels}.")
    middle = int(np.argmin(np.abs(np.subtract(checked, 0.5))))

    def values(*raw: np.ndarray) -> dict[str, np.ndarray]:
        rising = _rising(raw)
        return {"mean": rising[middle], "quantiles": np.stack(rising)}

    return Head("quantiles", _quantile_loss(checked), values, list(checked))


def categorical(classes: int) -> Head:
    """One of K classes; the loss is the cross-entropy of a softmax.

    A target is the number of a class, from 0 to K-1, as a float. The values are "probabilities", (..., K),
    and as "mean" the number of the most probable class.

    Parameters
    ----------
    classes : int
        K, at least 2.

    Examples
    --------
    >>> import numpy as np
    >>> from rnnfast.heads import categorical
    >>> values = categorical(3).values(np.array([0.0, 5.0, 0.0]))
    >>> values["mean"], values["probabilities"].round(2)
    (array([1.]), array([0.01, 0.99, 0.01]))
    """
    return _Categorical(_check.size("categorical", "classes", classes, 2, _MOST_CLASSES))


def head_of(owner: str, head: Any) -> Head:
    """A head, the ready one with this name, or the one of an entry of `saved_head`."""
    if isinstance(head, Head):
        return head
    if isinstance(head, str) and head in _READY:
        return _READY[head]
    if isinstance(head, dict) and len(head) == 1:
        ((name, options),) = head.items()
        found = _ready(name, options)
        if found is not None:
            return found
    known = ", ".join(_READY)
    raise ValueError(f"{owner}: head must be {known}, or one of rnnfast.heads, got {head!r:.60}.")


def saved_head(owner: str, head: Head) -> str | dict[str, Any]:
    """The entry of a head in a saved model: its name, with its options."""
    if not head.is_ready:
        raise ValueError(f"{owner}: {head.name} is a head of your own; models take those of rnnfast.heads.")
    return head.name if head.options is None else {head.name: head.options}


def _ready(name: str, options: Any) -> Head | None:
    """The head of this module with this name and these options, if there is one."""
    if options is None:
        return _READY.get(name)
    if name == "quantiles" and isinstance(options, list):
        return quantiles(*options)
    return categorical(options) if name == "categorical" else None


squared = Head("squared", _squared, lambda m: {"mean": m})
absolute = Head("absolute", _absolute, lambda m: {"mean": m})
gaussian = Head("gaussian", _gaussian, lambda m, s: {"mean": m, "scale": softplus(s) + _LEAST})
student_t = Head(
    "student_t",
    _student_t,
    lambda m, s, n: {"mean": m, "scale": softplus(s) + _LEAST, "freedom": 2 + softplus(n)},
)
negative_binomial = Head(
    "negative_binomial",
    _negative_binomial,
    lambda m, a: {"mean": softplus(m) + _LEAST, "dispersion": softplus(a) + _LEAST},
)

_READY = {head.name: head for head in (squared, absolute, gaussian, student_t, negative_binomial)}
