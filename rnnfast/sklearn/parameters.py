"""Checks of the parameters of an estimator."""

from __future__ import annotations

from typing import Any

from rnnfast import _check
from rnnfast.models.cells import cell_of
from rnnfast.models.pooling import POOLINGS


def check_parameters(owner: str, estimator: Any) -> None:
    """Check all parameters but `random_state`, `callbacks` and `ranks`, before anything changes."""
    given = estimator.get_params(deep=False)
    cell_of(owner, given["cell"])
    _check.arrays.float_dtype(owner, given["dtype"])
    for name in ("hidden_size", "layers", "batch_size", "patience"):
        _check.values.size(owner, name, given[name])
    if given["max_epochs"] is not None:
        _check.values.size(owner, "max_epochs", given["max_epochs"])
    _check.training.blocks(owner, given["blocks"])
    _check.values.number_below(owner, "dropout", given["dropout"], 0, 1)
    _check.values.above(
        owner, "learning_rate", _check.values.number(owner, "learning_rate", given["learning_rate"]), 0.0
    )
    _check.values.above(owner, "clip_norm", given["clip_norm"], 0.0)
    _check.values.fraction(owner, "validation_fraction", given["validation_fraction"])
    if "pooling" in given:
        _check.values.choice(owner, "pooling", given["pooling"], POOLINGS)
    for name in ("bidirectional", "scale", "early_stopping", "warm_start"):
        _check.values.boolean(owner, name, given[name])
