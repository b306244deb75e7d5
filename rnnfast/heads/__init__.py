"""Heads: how a model predicts a target, as the loss of its parameters.

* `definition.py`: `Head`, its built-in instances, and those that take arguments.
* `losses.py`: the losses as equations; `distributions.py`: quantiles of the distributions, and draws.
"""

from rnnfast.heads.definition import (
    Head,
    absolute,
    categorical,
    gaussian,
    negative_binomial,
    quantiles,
    squared,
    student_t,
)

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
