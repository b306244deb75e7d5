"""Roles of the keyword arguments of a cell's step: parameters, constants, given arrays, random numbers."""

from __future__ import annotations

from typing import NamedTuple

from rnnfast import _check


class Role(NamedTuple):
    """The role of a keyword argument of a step.

    Attributes
    ----------
    kind : {"unit", "scalar", "constant", "given", "normal", "bernoulli"}
    value : float
        The initial value, or the parameter of the random numbers.

    Examples
    --------
    >>> import rnnfast
    >>> rnnfast.cells.leaky.roles["alpha"]
    Role(kind='unit', value=0.1)
    """

    kind: str
    value: float = 0.0

    @property
    def is_trained(self) -> bool:
        """Whether it is a parameter with a gradient."""
        return self.kind in ("unit", "scalar")

    @property
    def is_random(self) -> bool:
        """Whether it is drawn again at each step."""
        return self.kind in ("normal", "bernoulli")

    @property
    def is_row(self) -> bool:
        """Whether it has a value for each sequence and step, not only for each unit."""
        return self.kind == "given" or self.is_random

    @property
    def mean(self) -> float:
        """The value that replaces random numbers in prediction."""
        return self.value if self.kind == "bernoulli" else 0.0


def unit(value: float) -> Role:
    """A trained parameter for each unit, (H,), with the initial value `value`.

    Examples
    --------
    >>> import rnnfast
    >>> @rnnfast.cell(states=("h",))
    ... def slow(a, h, *, alpha=rnnfast.unit(0.1)):
    ...     return h + alpha * (a - h)
    >>> slow.layer(3, 5).params[3].shape
    (5,)
    """
    return Role("unit", _check.values.number("unit", "value", value))


def scalar(value: float) -> Role:
    """A trained parameter for the whole layer, (1,), with the initial value `value`.

    Examples
    --------
    >>> import rnnfast
    >>> @rnnfast.cell(states=("h",))
    ... def slow(a, h, *, alpha=rnnfast.scalar(0.1)):
    ...     return h + alpha * (a - h)
    >>> slow.layer(3, 5).params[3].shape
    (1,)
    """
    return Role("scalar", _check.values.number("scalar", "value", value))


def constant(value: float) -> Role:
    """A number for the whole layer that is not trained; `layer.constants` sets it.

    Examples
    --------
    >>> import rnnfast
    >>> @rnnfast.cell(states=("h",))
    ... def slow(a, h, *, alpha=rnnfast.constant(0.1)):
    ...     return h + alpha * (a - h)
    >>> layer = slow.layer(3, 5)
    >>> layer.constants["alpha"] = 0.2
    >>> layer.constants
    {'alpha': 0.2}
    """
    return Role("constant", _check.values.number("constant", "value", value))


def given() -> Role:
    """An array (N, T, H) or (N, T) that the caller passes to `forward` by the argument's name.

    Examples
    --------
    >>> import numpy as np, rnnfast
    >>> @rnnfast.cell(states=("h",))
    ... def paced(a, h, *, pace=rnnfast.given()):
    ...     return h + pace * (a - h)
    >>> layer = paced.layer(3, 5)
    >>> hs = layer.forward(np.ones((2, 4, 3), np.float32), pace=np.full((2, 4), 0.1, np.float32))
    >>> dxs = layer.backward(np.ones_like(hs))
    >>> layer.given_gradients["pace"].shape
    (2, 4, 5)
    """
    return Role("given")


def normal(std: float) -> Role:
    """Random numbers with mean 0 and this standard deviation, drawn for each sequence, step and unit.

    The layer's seed, the step, the sequence and the unit determine them. In prediction
    (``layer.train_flg = False``) they are 0.

    Examples
    --------
    >>> import rnnfast
    >>> @rnnfast.cell(states=("h",))
    ... def noisy(a, h, *, noise=rnnfast.normal(0.1)):
    ...     return a + noise
    >>> noisy.random
    ('noise',)
    """
    return Role("normal", _check.values.number("normal", "std", std, 0.0))


def bernoulli(p: float) -> Role:
    """Random numbers that are 1 with probability `p` and else 0, drawn for each sequence, step and unit.

    The layer's seed, the step, the sequence and the unit determine them. In prediction
    (``layer.train_flg = False``) they are their mean, `p`.

    Examples
    --------
    >>> import rnnfast
    >>> @rnnfast.cell(states=("h",))
    ... def sometimes(a, h, *, stays=rnnfast.bernoulli(0.5)):
    ...     return stays * h + (1 - stays) * a
    >>> sometimes.random
    ('stays',)
    """
    return Role("bernoulli", _check.values.number("bernoulli", "p", p, 0.0, 1.0))
