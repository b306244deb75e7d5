"""Optimizers with the book's names and formulas, and the processing of gradients before an update.

* `optimizers.py`: `SGD` to `AdamW`; `base.py`: their base.
* `gradients.py`: clipping, sums of shared gradients, a health check.

>>> from rnnfast.optim import Adam
>>> Adam(lr=0.01).lr
0.01
"""

from rnnfast.optim.base import Optimizer
from rnnfast.optim.gradients import all_finite, clip_by_norm, clip_by_value, global_norm, merge_shared
from rnnfast.optim.optimizers import SGD, AdaGrad, Adam, AdamW, Momentum, Nesterov, RMSprop

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
