"""A model as it goes into an ONNX file: words, layers in their directions, scores, values of a head."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from rnnfast import _check
from rnnfast.heads import Head
from rnnfast.interop.structure import Layers, directions
from rnnfast.layers.bidirectional import Bidirectional
from rnnfast.layers.recurrent import Recurrent
from rnnfast.layers.stack import Stack
from rnnfast.models.regressor import SequenceRegressor
from rnnfast.models.rnnlm import RNNLM

# The metadata of a file: the model's configuration, and constants of cells that have been set, by layer.
METADATA, CONSTANTS = "rnnfast.model", "rnnfast.constants"
KINDS = (Recurrent, Bidirectional, Stack, RNNLM, SequenceRegressor)


class Way(NamedTuple):
    """A layer in one direction, and the start of its names: "layer0", or "layer0_reverse"."""

    name: str
    layer: Recurrent

    def of(self, name: str) -> str:
        """The name in the file of a state, a given array or a parameter of the layer."""
        return f"{self.name}_{name}"

    def alone(self, dtype: np.dtype) -> Way:
        """The same with memory of its own and means for random arguments, in a dtype."""
        layer = Recurrent(
            self.layer.cell, [param.astype(dtype) for param in self.layer.params], stateful=True
        )
        layer.share_constants(self.layer)
        layer.train_flg = False
        return Way(self.name, layer)


class Source(NamedTuple):
    """What an ONNX file is made from.

    Attributes
    ----------
    config : dict
        What the model is, as JSON values.
    words : ndarray (V, D) or None
        The word vectors, if the model reads ids.
    layers : list of tuples of Way
        From bottom to top, each with one or two directions.
    output : pair of ndarray or None
        The weights (H, P*O) and the bias (P*O,) of the output layer.
    tied : bool
        Whether these weights are the transposed word vectors.
    head : Head or None
        What the scores mean.
    """

    config: dict[str, Any]
    words: np.ndarray | None
    layers: list[tuple[Way, ...]]
    output: tuple[np.ndarray, np.ndarray] | None = None
    tied: bool = False
    head: Head | None = None

    @property
    def dtype(self) -> np.dtype:
        """The dtype of all parameters."""
        return self.layers[0][0].layer.dtype

    def rounded(self, dtype: np.dtype) -> Source:
        """The same in another dtype."""

        def cast(array: np.ndarray) -> np.ndarray:
            return array.astype(dtype)

        return self._replace(
            words=None if self.words is None else cast(self.words),
            layers=[tuple(way.alone(dtype) for way in both) for both in self.layers],
            output=None if self.output is None else (cast(self.output[0]), cast(self.output[1])),
        )

    def metadata(self) -> dict[str, str]:
        """What the file says of itself, as JSON."""
        constants = {way.name: dict(way.layer.constants) for way in self.ways() if way.layer.constants}
        found = {METADATA: self.config} | ({CONSTANTS: constants} if constants else {})
        return {name: json.dumps(value, sort_keys=True) for name, value in found.items()}

    def ways(self) -> Iterator[Way]:
        """The layers of all directions, from bottom to top."""
        for both in self.layers:
            yield from both

    @property
    def hidden_size(self) -> int:
        """The size of the top layer's output."""
        return sum(way.layer.hidden_size for way in self.layers[-1])


def source_of(owner: str, model: Any) -> Source:
    """The parts of a layer or a model; TypeError for others."""
    if isinstance(model, RNNLM | SequenceRegressor):
        return _of_model(model)
    if not isinstance(model, Recurrent | Bidirectional | Stack):
        raise _check.not_exported(owner, model, KINDS)
    return Source(_config_of(model), None, _named(directions(owner, model)))


def _of_model(model: RNNLM | SequenceRegressor) -> Source:
    words = model.body.embedding
    W, b = model.output.params
    return Source(
        model.config,
        None if words is None else words.params[0],
        _named([(layer,) for layer in model.body.layers]),
        (W, b),
        model.tied,
        model.head if isinstance(model, SequenceRegressor) else None,
    )


def _named(layers: Sequence[tuple[Recurrent, ...]]) -> list[tuple[Way, ...]]:
    return [
        tuple(Way(f"layer{place}{end}", one) for end, one in zip(("", "_reverse"), both, strict=False))
        for place, both in enumerate(layers)
    ]


def _config_of(model: Layers) -> dict[str, Any]:
    """What a layer is, as a model's `config` says it."""
    owner = type(model).__name__
    if isinstance(model, Recurrent):
        cell = {"name": model.cell.name, "fingerprint": model.cell.fingerprint}
        sizes = {"input_size": model.input_size, "hidden_size": model.hidden_size}
        return {"model": owner, "cell": cell, **sizes, "dtype": model.dtype.name}
    parts = model.layers if isinstance(model, Stack) else [model.layer_forward, model.layer_backward]
    return {"model": owner, "layers": [_config_of(part) for part in parts]}
