"""What two models compute from the same random input, and how far they are apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.interop.structure import assembled, directions, layer_of, parameters
from rnnfast.layers.recurrent import Recurrent
from rnnfast.models.regressor import SequenceRegressor
from rnnfast.models.rnnlm import RNNLM

# Of the largest output: a sum in another order differs by some parts of the last place.
LIMITS: dict[Any, float] = {np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-8}
BATCH, STEPS = 3, 7


def random_inputs(size: int, dtype: np.dtype) -> np.ndarray:
    """The same numbers (N, T, D) for every model of the same size."""
    return np.random.default_rng(0).standard_normal((BATCH, STEPS, size)).astype(dtype)


def random_words(words: int) -> np.ndarray:
    """The same ids (N, T) below `words`, likewise."""
    return np.random.default_rng(0).integers(words, size=(BATCH, STEPS))


def computed(model: Any) -> list[np.ndarray]:
    """Scores (N, T, V) of an `RNNLM`, the distribution (N, T, O) of a `SequenceRegressor`, or outputs (N, T,
    H) of layers, from a fresh state and without dropout; the model's own state is not touched.

    Given arrays of a cell are random inputs too.
    """
    if isinstance(model, RNNLM | SequenceRegressor):
        exact = model.another()
        exact.precision = None  # a setting, which not every format keeps
        if isinstance(model, RNNLM):
            return [exact.predict(random_words(model.config["vocab_size"]))]
        return list(exact.distribution(random_inputs(model.config["input_size"], model.dtype)).values())
    twins: list[list[Recurrent]] = []
    given: dict[str, np.ndarray] = {}
    for both in directions("computed", model):
        twins.append([layer_of(layer.cell, parameters(layer)) for layer in both])
        for twin, layer in zip(twins[-1], both, strict=True):
            twin.share_constants(layer)
            twin.train_flg = False
            given |= {name: random_inputs(layer.hidden_size, layer.dtype) for name in layer.given_names}
    layers: Any = assembled(twins)
    return [layers.forward(random_inputs(model.input_size, model.dtype), **given)]


def agree(
    owner: str,
    what: str,
    ours: Sequence[np.ndarray],
    theirs: Sequence[np.ndarray],
    limits: Mapping[Any, float] = LIMITS,
) -> float:
    """The largest difference between pairs of arrays, relative to the largest number of the other side, such
    as "ONNX Runtime"; ValueError if it is above the limit of the other side's dtype."""
    difference = largest = 0.0
    for one, other in zip(ours, theirs, strict=True):
        _check.objects.equal(owner, f"shapes of rnnfast and {what}", one.shape, other.shape)
        apart = np.abs(one.astype(np.float64) - other)
        difference = float(np.maximum(difference, apart.max(initial=0.0)))  # NaN stays
        largest = max(largest, float(np.abs(other).max(initial=0.0)))
    difference /= largest or 1.0
    if not difference <= limits[theirs[0].dtype]:
        raise ValueError(
            f"{owner}: rnnfast and {what} differ by {difference:.1e} of the largest output on "
            f"random input, more than {limits[theirs[0].dtype]:.0e}; the weights do not belong to "
            "this kind of layer, or it computes another function."
        )
    return difference
