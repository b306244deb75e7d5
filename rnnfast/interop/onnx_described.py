"""The model that `to_onnx` made a file from, by the metadata of the file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.cells import Cell, defined
from rnnfast.interop.agreement import agree
from rnnfast.interop.onnx_agreement import computed, inputs_of
from rnnfast.interop.onnx_program import Program
from rnnfast.interop.onnx_recurrent import RecurrentNode
from rnnfast.interop.onnx_source import CONSTANTS, METADATA, source_of
from rnnfast.interop.structure import Layers, layer_of
from rnnfast.layers.bidirectional import Bidirectional
from rnnfast.layers.recurrent import Recurrent
from rnnfast.layers.stack import Stack
from rnnfast.models import RNNLM, SequenceRegressor
from rnnfast.models.cells import MOST_LAYERS, cell_of
from rnnfast.models.loading import expected_tensors, model_from
from rnnfast.models.weights import SavedModel

_OWNER = "Graph.model"
_MOST_BYTES = 1 << 28
# Parameters by name, each with the names of the constants that hold it.
Homes = dict[str, list[str]]


def described_model(
    program: Program, metadata: Mapping[str, str], show: bool = False
) -> tuple[RNNLM | SequenceRegressor | Layers, Homes]:
    """The model, on copies of its parameters; ValueError if the metadata do not belong to the graph."""
    config, constants = (json.loads(metadata.get(name, "{}")) for name in (METADATA, CONSTANTS))
    reader = _Reader(program, constants)
    made = reader.model(config)
    if constants.keys() - reader.layers.keys():
        raise ValueError("there are constants of layers that it does not have")
    source = source_of(_OWNER, made)
    inputs = inputs_of(source, "lengths" in program.inputs)
    if inputs.keys() != set(program.inputs):
        raise ValueError(f"such a model has the inputs {', '.join(inputs)}")
    ours = computed(source, inputs)
    with np.errstate(all="ignore"):
        theirs = program.run(inputs, _MOST_BYTES)
    agree(_OWNER, "the graph", list(ours.values()), [theirs[name] for name in ours], show)
    return made, reader.homes


class _Reader:
    """Parameters by the names that `to_onnx` gives them.

    Attributes
    ----------
    homes : dict of str to list of str
    layers : dict of str to dict
        The constants of each layer's cell, by the layer's name.
    """

    def __init__(self, program: Program, constants: Mapping[str, Any]) -> None:
        self.homes: Homes = {}
        self.layers: dict[str, Mapping[str, float]] = {}
        self._program, self._constants = program, constants
        self._nodes: dict[str, tuple[RecurrentNode, int]] = {}
        for step in program.steps:
            if step.recurrent is not None:
                name = step.node.inputs[1].removesuffix("_W")
                for place in range(len(step.recurrent.layers)):
                    self._nodes[name + "_reverse" * place] = step.recurrent, place

    def model(self, config: dict[str, Any]) -> RNNLM | SequenceRegressor | Layers:
        """The model of a configuration."""
        if config["model"] in ("RNNLM", "SequenceRegressor"):
            return self._trained(config)
        stacked = config["model"] == "Stack"
        made: list[Recurrent | Bidirectional] = []
        for place, part in enumerate(_parts(config) if stacked else [config]):
            both = [part] if "cell" in part else _parts(part)
            if len(both) > 2:
                raise ValueError("a layer has more than two directions")
            names = (f"layer{place}", f"layer{place}_reverse")
            layers = [self._layer(name, one) for name, one in zip(names, both, strict=False)]
            made.append(Bidirectional(*layers) if len(layers) == 2 else layers[0])
        return Stack(made) if stacked else made[0]

    def _trained(self, config: dict[str, Any]) -> RNNLM | SequenceRegressor:
        """A model of layers between an input and an output."""
        dtype, shapes = expected_tensors(config)
        cell = cell_of(_OWNER, config["cell"])
        names = [f"layer{place}" for place in range(config["layers"])]
        arrays: dict[str, np.ndarray] = {}
        for name in names:
            arrays |= {f"{name}_{own}": array for own, array in self._parameters(name, cell).items()}
        for name in shapes.keys() - arrays.keys():
            arrays[name] = self._array(name)
        tensors = {name: _copied(name, arrays[name], shape, dtype) for name, shape in shapes.items()}
        self.homes = {name: self.homes[name] for name in shapes}
        made = model_from(SavedModel(config, tensors, {}))
        for name, layer in zip(names, made.body.layers, strict=True):
            self._set_constants(name, layer)
        return made

    def _layer(self, name: str, config: dict[str, Any]) -> Recurrent:
        cell = defined(str(config["cell"]["name"]), str(config["cell"]["fingerprint"]))
        sizes = [_check.size(_OWNER, key, config[key]) for key in ("input_size", "hidden_size")]
        dtype, shapes = _check.float_dtype(_OWNER, config["dtype"]), cell.shapes(*sizes)
        found = self._parameters(name, cell)
        layer = layer_of(
            cell, {own: _copied(f"{name}_{own}", found[own], shape, dtype) for own, shape in shapes.items()}
        )
        self._set_constants(name, layer)
        return layer

    def _set_constants(self, name: str, layer: Recurrent) -> None:
        self.layers[name] = self._constants.get(name, {})
        layer.constants.update(self.layers[name])

    def _parameters(self, name: str, cell: Cell) -> dict[str, np.ndarray]:
        """The parameters of the layer of this name: of a recurrent node, or as they are."""
        own = list(cell.shapes(1, 1))
        if name not in self._nodes:
            return {one: self._array(f"{name}_{one}") for one in own}
        node, place = self._nodes[name]
        if node.layers[place].cell.fingerprint != cell.fingerprint:
            raise ValueError(f"{name} is not a layer of the cell {cell.name}")
        homes = [[home] if home else [] for _, home in node.homes()]
        self.homes |= {f"{name}_{one}": home for one, home in zip(own, homes, strict=True)}
        return dict(zip(own, node.layers[place].params, strict=True))

    def _array(self, name: str) -> np.ndarray:
        if name not in self._program.constants:
            raise ValueError(f"the array {name} is missing")
        self.homes[name] = [name]
        return self._program.constants[name]


def _parts(config: dict[str, Any]) -> list[dict[str, Any]]:
    """The configurations of the layers of a Stack, or of the directions of a layer."""
    parts = config["layers"]
    if not isinstance(parts, list) or not 0 < len(parts) <= MOST_LAYERS:
        raise ValueError(f"its layers must be a list of 1 to {MOST_LAYERS}")
    return parts


def _copied(name: str, array: np.ndarray, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array that a layer can have, once it has the right shape and dtype."""
    if (array.shape, array.dtype) != (shape, dtype):
        raise ValueError(f"{name} is {array.shape} of {array.dtype}, but must be {shape} of {dtype}")
    return np.array(array, order="C")
