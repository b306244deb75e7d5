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

from rnnfast import _check, _quantiles
from rnnfast.cells import exp, log, maximum, minimum, softplus, where
from rnnfast.kernels import head as kernels

__all__ = [
    "Head",
    "absolute",
    "gaussian",
    "negative_binomial",
    "quantiles",
    "squared",
    "student_t",
]

_HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)
# Added to scales and rates, so that a loss stays finite where softplus underflows.
_LEAST = 1e-6


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
    options : dict, optional
        What distinguishes the head from others of its name, as JSON values.
    quantile : callable, optional
        The quantiles of the target from the dict of `values` and an array of levels, all in float64.

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

    A head of one's own, the exponential distribution with the logarithm of the mean as parameter:

    >>> from rnnfast.cells import exp
    >>> from rnnfast.heads import Head
    >>> exponential = Head(
    ...     "exponential",
    ...     lambda a, t: a + t * exp(-a),
    ...     lambda a: {"mean": np.exp(a)},
    ...     quantile=lambda values, levels: -values["mean"] * np.log(1 - levels),
    ... )
    >>> exponential.quantile(np.zeros((1, 1)), 0.5).round(4)
    array([[0.6931]])
    """

    def __init__(
        self,
        name: str,
        loss: Callable,
        values: Callable[..., dict[str, np.ndarray]],
        options: dict[str, Any] | None = None,
        quantile: Callable[[dict[str, np.ndarray], np.ndarray], np.ndarray] | None = None,
    ) -> None:
        self.name, self.options, self._loss, self._values = name, options or {}, loss, values
        self._quantile = quantile
        self.parameters = tuple(inspect.signature(loss).parameters)[:-1]

    @functools.cached_property
    def equations(self) -> kernels.Head:
        """The loss and its gradient, derived when they are first needed; FormulaError if they cannot be."""
        return kernels.Head(self.name, self._loss)

    def __repr__(self) -> str:
        options = ", ".join(f"{value}" for value in self.options.values())
        return f"rnnfast.heads.{self.name}" + (f"({options})" if options else "")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Head) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self.equations)

    def __reduce__(self) -> Any:
        """A head of this module by its name, with the levels of quantiles; another one with its functions."""
        if self.is_ready:
            return _head_again, (self.name, self.options)
        return Head, (self.name, self._loss, self._values, self.options, self._quantile)

    @property
    def is_ready(self) -> bool:
        """Whether this module makes the head."""
        made = quantiles(*self.options["levels"]) if self.name == "quantiles" else _READY.get(self.name)
        return self == made

    def _key(self) -> tuple[Any, ...]:
        return self.name, self.options, self.equations

    def values(self, scores: np.ndarray) -> dict[str, np.ndarray]:
        """The distribution's parameters (..., O) by name from the scores (..., P*O) of the output layer."""
        blocks = np.split(np.asarray(scores), len(self.parameters), axis=-1)
        return self._values(*blocks)

    def mean(self, scores: np.ndarray) -> np.ndarray:
        """The point forecast (..., O)."""
        return self.values(scores)["mean"]

    @property
    def has_distribution(self) -> bool:
        """Whether the head has quantiles and can be drawn from."""
        return self._quantile is not None

    def quantile(self, scores: np.ndarray, levels: Any) -> np.ndarray:
        """The quantiles of the target at `levels`, in float64; NaN for NaN scores.

        `quantiles` interpolates and extends its quantiles linearly in the normal scores of the levels.

        Parameters
        ----------
        scores : (..., P*O) array
            Scores of the output layer.
        levels : float or array
            Levels between 0 and 1, both excluded, which broadcast with (..., O).

        Raises
        ------
        ValueError
            The head has no distribution, or a level is not between 0 and 1.

        Examples
        --------
        >>> import numpy as np
        >>> from rnnfast.heads import negative_binomial
        >>> negative_binomial.quantile(np.array([[4.0, -1.0]]), np.array([0.1, 0.5, 0.9]))
        array([[20., 49., 97.]])
        """
        owner = f"{self.name}.quantile"
        if self._quantile is None:
            raise ValueError(
                f"{owner}: the head has no distribution; take gaussian or another one that has, "
                "or give your own head the argument quantile."
            )
        values = self.values(np.asarray(scores, np.float64))
        return self._quantile(values, _check.probabilities(owner, "levels", levels, values["mean"].shape))

    def sample(self, scores: np.ndarray, seed: int, streams: np.ndarray, step: int, count: int) -> np.ndarray:
        """Random draws (count, N, O) of the target, in float64: `quantile` at uniform numbers.

        A draw is a function of its scores and of (seed, stream, step, number of the draw, output, O). So the
        draws of a series depend neither on the other series nor on `count`.

        Parameters
        ----------
        scores : (N, P*O) array
            Scores of the output layer.
        seed, step : int
            Seed of the random numbers, and the step they are for, from 0 to 2**63 - 1.
        streams : (N,) array
            A whole number for each row, such as the number of its series.
        count : int
            Number of draws.

        Examples
        --------
        >>> import numpy as np
        >>> from rnnfast.heads import gaussian
        >>> gaussian.sample(np.zeros((2, 2)), seed=0, streams=np.array([7, 8]), step=0, count=100).shape
        (100, 2, 1)
        """
        owner = f"{self.name}.sample"
        N, cols = _check.shape(owner, "scores", scores, ("N", "P*O")).shape
        streams = _check.whole_numbers(owner, "streams", streams, (N,))
        seed, step = (
            _check.size(owner, name, value, 0, 2**63 - 1) for name, value in (("seed", seed), ("step", step))
        )
        shape = _check.size(owner, "count", count), N, cols // len(self.parameters)
        return self.quantile(scores, _quantiles.uniform(seed, streams, step, shape))


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


def _negative_binomial(log_mean: Any, dispersion: Any, t: Any) -> Any:
    mean, alpha = exp(log_mean), softplus(dispersion) + _LEAST
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

    def quantile(values: dict[str, np.ndarray], levels: np.ndarray) -> np.ndarray:
        return _quantiles.interpolated(checked, values["quantiles"], levels)

    return Head("quantiles", _quantile_loss(checked), values, {"levels": list(checked)}, quantile)


def head_of(owner: str, head: Any) -> Head:
    """A head, the ready one with this name, or the one of an entry of `saved_head`."""
    if isinstance(head, Head):
        return head
    if isinstance(head, str) and head in _READY:
        return _READY[head]
    if isinstance(head, dict) and head.keys() == {"quantiles"} and isinstance(head["quantiles"], list):
        return quantiles(*head["quantiles"])
    known = ", ".join(_READY)
    raise ValueError(f"{owner}: head must be {known}, or one of rnnfast.heads, got {head!r:.60}.")


def saved_head(owner: str, head: Head) -> str | dict[str, Any]:
    """The entry of a head in a saved model: its name, with the levels of quantiles."""
    if not head.is_ready:
        raise ValueError(f"{owner}: {head.name} is a head of your own; models take those of rnnfast.heads.")
    return {head.name: head.options["levels"]} if head.options else head.name


def _head_again(name: str, options: dict[str, Any]) -> Head:
    """The head of this module with this name and these options."""
    return quantiles(*options["levels"]) if options else _READY[name]


squared = Head("squared", _squared, lambda m: {"mean": m})
absolute = Head("absolute", _absolute, lambda m: {"mean": m})
gaussian = Head(
    "gaussian",
    _gaussian,
    lambda m, s: {"mean": m, "scale": softplus(s) + _LEAST},
    quantile=lambda values, levels: values["mean"] + values["scale"] * _quantiles.normal(levels),
)
student_t = Head(
    "student_t",
    _student_t,
    lambda m, s, n: {"mean": m, "scale": softplus(s) + _LEAST, "freedom": 2 + softplus(n)},
    quantile=lambda values, levels: (
        values["mean"] + values["scale"] * _quantiles.student_t(levels, values["freedom"])
    ),
)
negative_binomial = Head(
    "negative_binomial",
    _negative_binomial,
    lambda m, a: {"mean": exp(m), "dispersion": softplus(a) + _LEAST},
    quantile=lambda values, levels: _quantiles.negative_binomial(
        levels, values["mean"], values["dispersion"]
    ),
)

_READY = {head.name: head for head in (squared, absolute, gaussian, student_t, negative_binomial)}
