"""Optimisers and clipping under the name users know; `rnnfast.training.optim` has them.

>>> from rnnfast.optim import Adam
>>> Adam(lr=0.01).lr
0.01
"""

from rnnfast.training.optim import (
    SGD,
    AdaGrad,
    Adam,
    AdamW,
    Momentum,
    Nesterov,
    Optimizer,
    RMSprop,
    all_finite,
    clip_by_norm,
    clip_by_value,
    global_norm,
    merge_shared,
)

__all__ = [
    "SGD",
    "AdaGrad",
    "Adam",
    "AdamW",
    "Momentum",
    "Nesterov",
    "Optimizer",
    "RMSprop",
    "all_finite",
    "clip_by_norm",
    "clip_by_value",
    "global_norm",
    "merge_shared",
]
