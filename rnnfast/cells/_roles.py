"""What the keyword arguments of a cell's step may be: parameters, constants, given arrays, random numbers."""

from __future__ import annotations

from typing import NamedTuple

from rnnfast import _check


class Role(NamedTuple):
    """What a keyword argument of a step is.

    Attributes
    ----------
    kind : {"unit", "scalar", "constant", "given", "normal", "bernoulli"}
    value : float
        Where it starts, or the parameter of the random numbers.
    """

    kind: str
    value: float = 0.0

    @property
    def is_trained(self) -> bool:
        """Whether it is a parameter with a gradient."""
        return self.kind in ("unit", "scalar")

    @property
    def is_random(self) -> bool:
        """Whether it is drawn anew at each step."""
        return self.kind in ("normal", "bernoulli")

    @property
    def is_row(self) -> bool:
        """Whether it has a value for each sequence and step, not only for each unit."""
        return self.kind == "given" or self.is_random

    @property
    def mean(self) -> float:
        """What takes the place of random numbers when predicting."""
        return self.value if self.kind == "bernoulli" else 0.0


def unit(value: float) -> Role:
    """A parameter of each unit, (H,), that starts from `value` and is trained."""
    return Role("unit", _check.number("unit", "value", value))


def scalar(value: float) -> Role:
    """A parameter of the whole layer, (1,), that starts from `value` and is trained."""
    return Role("scalar", _check.number("scalar", "value", value))


def constant(value: float) -> Role:
    """A number of the whole layer that is not trained; `layer.constants` sets it."""
    return Role("constant", _check.number("constant", "value", value))


def given() -> Role:
    """An array (N, T, H) or (N, T) that the caller hands to `forward` under the argument's name."""
    return Role("given")


def normal(std: float) -> Role:
    """Random numbers with mean 0 and this standard deviation, new for each sequence, step and unit.

    They follow from the layer's seed, the step, the sequence and the unit alone. When predicting
    (``layer.train_flg = False``) they are 0.
    """
    return Role("normal", _check.number("normal", "std", std, 0.0))


def bernoulli(p: float) -> Role:
    """Random numbers that are 1 with probability `p` and else 0, new for each sequence, step and unit.

    They follow from the layer's seed, the step, the sequence and the unit alone. When predicting
    (``layer.train_flg = False``) they are their mean, `p`.
    """
    return Role("bernoulli", _check.number("bernoulli", "p", p, 0.0, 1.0))
