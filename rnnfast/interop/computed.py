"""What a model or layers compute from random input, the same for every model of the same sizes."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnfast.interop.agreement import BATCH, STEPS, random_inputs
from rnnfast.interop.structure import assembled, directions, layer_of, parameters
from rnnfast.models.regressor import SequenceRegressor
from rnnfast.models.rnnlm import RNNLM


def random_words(words: int) -> np.ndarray:
    """The same ids (N, T) below `words` for every conversion."""
    return np.random.default_rng(0).integers(words, size=(BATCH, STEPS))


def computed(model: Any) -> list[np.ndarray]:
    """Scores (N, T, V) of an `RNNLM`, the distribution (N, T, O) of a `SequenceRegressor`, or outputs (N, T,
    H) of layers, from a fresh state and without dropout; the model's own state is not touched."""
    if isinstance(model, RNNLM | SequenceRegressor):
        exact = model.another()
        exact.precision = None  # a setting, which not every format keeps
        if isinstance(model, RNNLM):
            return [exact.predict(random_words(model.config["vocab_size"]))]
        return list(exact.distribution(random_inputs(model.config["input_size"], model.dtype)).values())
    twins = []
    for both in directions("computed", model):
        twins.append([layer_of(layer.cell, parameters(layer)) for layer in both])
        for twin, layer in zip(twins[-1], both, strict=True):
            twin.share_constants(layer)
            twin.train_flg = False
    return [assembled(twins).forward(random_inputs(model.input_size, model.dtype))]
