"""Heads: how a model predicts a target, as the loss of its parameters.

A head has parameters for each output, which the output layer computes from the hidden vector, and a loss,
written as equations. Its gradient is derived, and both are compiled. The losses of distributions are negative
log-likelihoods in nats.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast._check.values import nothing_masked
from rnnfast.cells import exp, softplus
from rnnfast.heads import distributions, losses
from rnnfast.heads.losses import LEAST, rising
from rnnfast.kernels.cell import head as kernels
from rnnfast.kernels.cell.expression import Graph
from rnnfast.kernels.cell.node import FormulaError, Node

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
        options: Any = None,
        quantile: Callable[[dict[str, np.ndarray], np.ndarray], np.ndarray] | None = None,
    ) -> None:
        self.name, self.options, self._loss, self._values = name, options, loss, values
        self._quantile = quantile
        self.parameters = tuple(inspect.signature(loss).parameters)[:-1]

    @functools.cached_property
    def equations(self) -> kernels.Head:
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
        return Head, (self.name, self._loss, self._values, self.options, self._quantile)

    @property
    def is_ready(self) -> bool:
        """Whether this module makes the head."""
        return self == _ready(self.name, self.options)

    def _key(self) -> tuple[Any, ...]:
        return self.name, self.options, self.equations

    def values(self, scores: np.ndarray) -> dict[str, np.ndarray]:
        """The distribution's parameters (..., O) by name from the scores (..., P*O) of the output layer."""
        scores = nothing_masked(f"{self.name}.values", "scores", scores)
        blocks = np.split(np.asarray(scores), len(self.parameters), axis=-1)
        return self._values(*blocks)

    def formulas(self) -> dict[str, Node] | None:
        """The values as formulas of the parameters, which are inputs by name; None if they are more than a
        function of each output alone, as quantiles and probabilities of classes are.

        Examples
        --------
        >>> from rnnfast.heads import gaussian
        >>> gaussian.formulas()
        {'mean': location, 'scale': softplus(scale) + 1e-06}
        """
        graph = Graph()
        try:
            values = self._values(*map(graph.input, self.parameters))
            return {name: graph.as_number(value) for name, value in values.items()}
        except FormulaError:
            return None

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
        scores = np.asarray(nothing_masked(owner, "scores", scores), np.float64)
        values = self.values(scores)
        return self._quantile(
            values, _check.series.probabilities(owner, "levels", levels, values["mean"].shape)
        )

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
        N, cols = _check.arrays.shape(owner, "scores", scores, ("N", "P*O")).shape
        streams = _check.arrays.whole_numbers(owner, "streams", streams, (N,))
        seed, step = (
            _check.values.size(owner, name, value, 0, 2**63 - 1)
            for name, value in (("seed", seed), ("step", step))
        )
        shape = _check.values.size(owner, "count", count), N, cols // len(self.parameters)
        return self.quantile(scores, distributions.uniform(seed, streams, step, shape))

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
        scores = np.asarray(nothing_masked(f"{self.name}.values", "scores", scores))
        by_class = scores.reshape(*scores.shape[:-1], self.options, -1)
        powers = np.exp(by_class - by_class.max(axis=-2, keepdims=True))
        powers /= powers.sum(axis=-2, keepdims=True)
        most = by_class.argmax(axis=-2).astype(scores.dtype)
        return {"mean": most, "probabilities": powers.reshape(scores.shape)}

    def formulas(self) -> None:
        """None: the probability of a class depends on all scores."""

    def _quantile(self, values: dict[str, np.ndarray], levels: np.ndarray) -> np.ndarray:
        """The first class at which the sum of the probabilities reaches the level."""
        chances = values["probabilities"]
        sums = np.cumsum(chances.reshape(*chances.shape[:-1], self.options, -1), axis=-2)
        below = (sums < np.atleast_1d(levels)[..., np.newaxis, :]).sum(axis=-2)
        return np.minimum(below, self.options - 1).astype(np.float64)

    def check(self, owner: str, ts: np.ndarray, is_read: Callable[[], np.ndarray]) -> None:
        _check.arrays.class_numbers(owner, ts, self.options, is_read)


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
    checked = tuple(_check.values.number("quantiles", "a level", level, 0.0, 1.0) for level in levels)
    if not checked or any(not 0 < level < 1 for level in checked) or list(checked) != sorted(set(checked)):
        raise ValueError(f"quantiles: levels must rise between 0 and 1, got {levels}.")
    middle = int(np.argmin(np.abs(np.subtract(checked, 0.5))))

    def values(*raw: np.ndarray) -> dict[str, np.ndarray]:
        found = rising(raw)
        return {"mean": found[middle], "quantiles": np.stack(found)}

    def quantile(values: dict[str, np.ndarray], levels: np.ndarray) -> np.ndarray:
        return distributions.interpolated(checked, values["quantiles"], levels)

    return Head("quantiles", losses.quantile_loss(checked), values, list(checked), quantile)


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
    return _Categorical(_check.values.size("categorical", "classes", classes, 2, _MOST_CLASSES))


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


squared = Head("squared", losses.squared, lambda m: {"mean": m})
absolute = Head("absolute", losses.absolute, lambda m: {"mean": m})
gaussian = Head(
    "gaussian",
    losses.gaussian,
    lambda m, s: {"mean": m, "scale": softplus(s) + LEAST},
    quantile=lambda values, levels: values["mean"] + values["scale"] * distributions.normal(levels),
)
student_t = Head(
    "student_t",
    losses.student_t,
    lambda m, s, n: {"mean": m, "scale": softplus(s) + LEAST, "freedom": 2 + softplus(n)},
    quantile=lambda values, levels: (
        values["mean"] + values["scale"] * distributions.student_t(levels, values["freedom"])
    ),
)
negative_binomial = Head(
    "negative_binomial",
    losses.negative_binomial,
    lambda m, a: {"mean": exp(m), "dispersion": softplus(a) + LEAST},
    quantile=lambda values, levels: distributions.negative_binomial(
        levels, values["mean"], values["dispersion"]
    ),
)

_READY = {head.name: head for head in (squared, absolute, gaussian, student_t, negative_binomial)}
