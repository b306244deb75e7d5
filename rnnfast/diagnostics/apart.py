"""Separate layers on a model's parameters, so that diagnostics leave its state unchanged."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.layers.recurrent import Recurrent
from rnnfast.models.regressor import SequenceRegressor
from rnnfast.models.rnnlm import RNNLM


class Apart:
    """New layers on the parameters of a model, with a fresh state, without dropout and noise.

    Attributes
    ----------
    cell : Cell
    layers : list of Recurrent
        From the bottom to the top.
    output : TimeAffineSoftmaxWithLoss or TimeAffineWithLoss
    """

    def __init__(self, owner: str, model: Any) -> None:
        if not isinstance(model, RNNLM | SequenceRegressor):
            raise TypeError(
                f"{owner}: the model must be an RNNLM or a SequenceRegressor, got {type(model).__name__}; "
                f"other models have no recurrence."
            )
        self._owner, self._model = owner, model
        self._arrays = dict(zip(model.parameter_names, model.params, strict=True))
        self.layers = [_again(layer) for layer in model.body.layers]
        self.cell = self.layers[0].cell
        self.output: Any = model.another().output

    def vectors(self, xs: np.ndarray) -> np.ndarray:
        """The input (N, T, D) of the bottom layer, with at least one sequence and one step."""
        model = self._model
        if isinstance(model, RNNLM):
            xs = _check.arrays.ids(self._owner, "xs", xs, ("N", "T"), model.vocab_size)
        else:
            depth, why = model.config["input_size"], "the last axis is input_size"
            xs = _check.arrays.floats(self._owner, "xs", xs, ("N", "T", depth), model.dtype, why)
        _check.values.size(self._owner, "the number of sequences in xs", xs.shape[0])
        _check.values.size(self._owner, "the number of steps in xs", xs.shape[1])
        return self._arrays["embed_W"][xs] if isinstance(model, RNNLM) else xs

    def targets(self, ts: np.ndarray, batch: int, steps: int) -> np.ndarray:
        """The checked targets: of every step, (N, T) or (N, T, O), or of the last one, (N, O)."""
        model = self._model
        if isinstance(model, RNNLM):
            return _check.arrays.ids(self._owner, "ts", ts, (batch, steps), model.vocab_size, also=-1)
        outputs = model.config["output_size"]
        shape = (batch, outputs) if np.ndim(ts) == 2 else (batch, steps, outputs)
        return _check.arrays.floats(self._owner, "ts", ts, shape, model.dtype)

    @property
    def names(self) -> list[str]:
        """Names of the layers, as in the names of the parameters."""
        return [f"layer{index}" for index, _ in enumerate(self.layers)]


def _again(layer: Recurrent) -> Recurrent:
    """A layer on the same parameters, with its own gradients and state, without noise."""
    other = Recurrent(layer.cell, layer.params, layer.stateful)
    other.constants.update(layer.constants)
    other.train_flg = False
    return other
