"""The functions for equations of a cell; arrays and numbers are computed at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rnnfast.kernels.cell.expression import function_of, relu, sigmoid, tanh
from rnnfast.kernels.cell.node import Node

__all__ = [
    "exp", "log", "maximum", "minimum", "relu", "sigmoid", "softplus", "sqrt", "step", "stop_gradient",
    "tanh", "where",
]  # fmt: skip


def exp(x: Any) -> Any:
    """The exponential of x.

    Examples
    --------
    >>> from rnnfast.cells import exp
    >>> float(exp(0.0))
    1.0
    """
    return function_of("exp", x)


def log(x: Any) -> Any:
    """The natural logarithm.

    Examples
    --------
    >>> from rnnfast.cells import log
    >>> float(log(1.0))
    0.0
    """
    return function_of("log", x)


def sqrt(x: Any) -> Any:
    """The square root.

    Examples
    --------
    >>> from rnnfast.cells import sqrt
    >>> float(sqrt(9.0))
    3.0
    """
    return function_of("sqrt", x)


def softplus(x: Any) -> Any:
    """log(1 + exp(x))

    Examples
    --------
    >>> from rnnfast.cells import softplus
    >>> round(float(softplus(0.0)), 4)
    0.6931
    """
    return function_of("softplus", x)


def where(condition: Any, chosen: Any, other: Any) -> Any:
    """`chosen` where the condition holds, else `other`; the gradient flows to the selected one.

    Examples
    --------
    >>> import numpy as np
    >>> from rnnfast.cells import where
    >>> x = np.array([-1.0, 2.0])
    >>> where(x > 0, x, 0.0)
    array([0., 2.])
    """
    return function_of("select", condition, chosen, other)


def maximum(a: Any, b: Any) -> Any:
    """The larger of two; NaN if either is NaN. Equal values each get half of the gradient.

    Examples
    --------
    >>> from rnnfast.cells import maximum
    >>> float(maximum(1.0, 2.0))
    2.0
    """
    return function_of("maximum", a, b)


def minimum(a: Any, b: Any) -> Any:
    """The smaller of two; NaN if either is NaN. Equal values each get half of the gradient.

    Examples
    --------
    >>> from rnnfast.cells import minimum
    >>> float(minimum(1.0, 2.0))
    1.0
    """
    return function_of("minimum", a, b)


def stop_gradient(x: Any) -> Any:
    """x, without a gradient.

    Examples
    --------
    >>> import rnnfast
    >>> from rnnfast.cells import step, stop_gradient
    >>> @rnnfast.cell(states=("h", "v"))
    ... def reset(a, h, v):
    ...     v = 0.9 * v * (1 - stop_gradient(h)) + a    # the gradient ignores the reset
    ...     return step(v - 1), v
    """
    return function_of("stop", x)


def step(x: Any, *, surrogate: Callable[[Any], Any] | None = None) -> Any:
    """1 where x > 0, else 0.

    Parameters
    ----------
    x
        A value of a step, or an array.
    surrogate : callable
        Replacement of the derivative, as a function of x; by default ``1 / (1 + 10 |x|)^2``, the SuperSpike
        of Zenke and Ganguli, 2018. Calls on one x may have a surrogate each.

    Examples
    --------
    >>> import numpy as np
    >>> from rnnfast.cells import step
    >>> step(np.array([-1.0, 0.0, 2.0]))
    array([0., 0., 1.])
    """
    if isinstance(x, Node):
        return x.graph.step(x, _super_spike if surrogate is None else surrogate)
    return function_of("step", x)


def _super_spike(x: Any) -> Any:
    return 1 / (1 + 10 * abs(x)) ** 2
