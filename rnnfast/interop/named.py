"""Models and layers as arrays by name, and back: `embed_W`, `layer0_Wx`, `layer0_reverse_Wx`, `output_W`.

Names and shapes alone tell an `RNNLM`, a `SequenceRegressor` with squared error, and layers of RNN, LSTM and
GRU. A description, JSON values, tells the rest: cells, constants, dropout, carried state.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rnnfast import _check, cells
from rnnfast.cells import Cell, defined
from rnnfast.interop.structure import assembled, directions, layer_of, parameters
from rnnfast.layers.recurrent import Recurrent
from rnnfast.layers.stack import Stack
from rnnfast.models.loading import expected_tensors, model_from
from rnnfast.models.model import Model
from rnnfast.models.regressor import SequenceRegressor
from rnnfast.models.rnnlm import RNNLM
from rnnfast.models.weights import SavedModel, cell_of, saved_cell, saved_constants

_OF_LAYER = re.compile(r"(layer\d+(?:_reverse)?)_(\w+)")
# Cells by their gates, and whether they have a bias for the state.
_CELLS = {(1, False): cells.rnn, (3, False): cells.gru, (3, True): cells.gru_after, (4, False): cells.lstm}

Arrays = Mapping[str, np.ndarray]


def layers_by_name(model: Any) -> dict[str, Recurrent]:
    """The layers of a layer or a stack, "layer0", "layer0_reverse" and so on, from bottom to top."""
    return {
        f"layer{place}{end}": layer
        for place, both in enumerate(directions("layers_by_name", model))
        for end, layer in zip(("", "_reverse"), both, strict=False)
    }


def arrays_of(model: Any) -> dict[str, np.ndarray]:
    """The parameters of a model, a layer or a stack by name; not copies."""
    if isinstance(model, Model):
        return dict(zip(model.parameter_names, model.params, strict=True))
    return {
        f"{place}_{name}": array
        for place, layer in layers_by_name(model).items()
        for name, array in parameters(layer).items()
    }


def description_of(model: Any) -> dict[str, Any]:
    """What names and shapes do not tell, as JSON values."""
    if isinstance(model, Model):
        return {"model": model.config, "constants": [dict(own) for own in model.constants] or None}
    layers = layers_by_name(model).values()
    return {
        "cells": [_saved_cell_of_layer(layer.cell) for layer in layers],
        "constants": [dict(layer.constants) for layer in layers],
        "stateful": [layer.stateful for layer in layers],
        "stack": isinstance(model, Stack),
        **settings_of_dropout(model),
    }


def settings_of_dropout(model: Any) -> dict[str, Any]:
    """The arguments `dropout` and `per_step` of a stack; the defaults for a single layer."""
    if not isinstance(model, Stack) or not model.dropouts:
        return {"dropout": 0.0, "per_step": True}
    return {"dropout": model.dropouts[0].dropout_ratio, "per_step": model.dropouts[0].per_step}


def described_cells(owner: str, description: Mapping[str, Any], places: Iterable[str]) -> dict[str, Cell]:
    """The cell of each of the layers "layer0", "layer0_reverse" and so on."""
    if "model" in description:
        return dict.fromkeys(places, cell_of(owner, description["model"]["cell"]))
    ordered = zip(sorted(places, key=_order), description["cells"], strict=True)
    return {place: _cell_of_layer(owner, entry) for place, entry in ordered}


def _order(place: str) -> tuple[int, str]:
    """The key that sorts "layer0", "layer0_reverse", "layer1" from bottom to top."""
    return len(place.partition("_")[0]), place


def _saved_cell_of_layer(cell: Cell) -> Any:
    """The entry of a cell, also of one that takes given arrays, which models do not have."""
    return (
        {"name": cell.name, "fingerprint": cell.fingerprint}
        if cell.equations.wanted
        else saved_cell("cell", cell)
    )


def _cell_of_layer(owner: str, entry: Any) -> Cell:
    """The inverse of `_saved_cell_of_layer`."""
    if isinstance(entry, dict) and set(entry) == {"name", "fingerprint"}:
        return defined(str(entry["name"]), str(entry["fingerprint"]))
    return cell_of(owner, entry)


def described_model(owner: str, arrays: Arrays, description: Mapping[str, Any]) -> Any:
    """The inverse of `arrays_of` and `description_of`, on these arrays; ValueError or TypeError if they do
    not fit each other."""
    constants = description["constants"]
    if "model" in description:
        return _model(owner, arrays, description["model"], constants)
    found, rest = _by_layer(arrays)
    for name in rest:
        raise _check.interop.array_unknown(owner, name)
    stateful = description.get("stateful", [False] * len(found))
    named = zip(found.items(), description["cells"], constants, stateful, strict=True)
    layers = {}
    for (place, params), cell, values, carries in named:
        own = _cell_of_layer(owner, cell)
        _check_layer(owner, place, params, own)
        layers[place] = layer_of(own, params, _check.values.boolean(owner, "stateful", carries))
        layers[place].constants = values
    made = _together(owner, layers, description["dropout"])
    if description.get("stack") and not isinstance(made, Stack):  # a stack of one layer
        made = Stack([made])
    for drop in made.dropouts if isinstance(made, Stack) else []:
        drop.per_step = _check.values.boolean(owner, "per_step", description.get("per_step", True))
    return made


def model_of(owner: str, arrays: Arrays, cell: str | Cell | None = None) -> Any:
    """The model or the layers on these arrays, found by names and shapes.

    `cell` is that of every layer; by default, 1, 3 or 4 gates are those of RNN, GRU and LSTM.

    Raises
    ------
    TypeError, ValueError
        An array is missing, unknown, or of another shape or dtype.
    """
    found, rest = _by_layer(arrays)
    if not found:
        raise _check.interop.no_layer_found(
            owner, "layer0_Wx, or weight_ih_l0 of PyTorch", " among its arrays"
        )
    if "layer0" not in found:
        raise _check.interop.array_missing(owner, "layer0_Wx")
    chosen = []
    for place, params in found.items():
        chosen.append(_cell_by_shape(owner, place, params) if cell is None else cell_of(owner, cell))
        _check_layer(owner, place, params, chosen[-1])
    if not rest:
        named = zip(found.items(), chosen, strict=True)
        return _together(owner, {place: layer_of(own, params) for (place, params), own in named})
    for name in ("output_b", *([] if "embed_W" in rest else ["output_W"])):
        if name not in rest:
            raise _check.interop.array_missing(owner, name)
    for own in chosen:
        if own is not chosen[0]:
            raise ValueError(
                f"{owner}: all layers of a model have one cell, got {chosen[0].name} and {own.name}."
            )
    bottom = next(iter(found.values()))
    depth, width = bottom["Wx"].shape[0], bottom["b"].shape[0] // len(chosen[0].gates)
    config: dict[str, Any] = {"hidden_size": width, "cell": saved_cell(owner, chosen[0])}
    config |= {"layers": len(found), "dropout": 0.0, "dtype": bottom["Wx"].dtype.name}
    if "embed_W" in rest:
        kind: dict[str, Any] = {"model": "RNNLM", "vocab_size": rest["output_b"].size, "embed_size": depth}
        return _model(owner, arrays, {**kind, **config, "tied": "output_W" not in rest})
    kind = {"model": "SequenceRegressor", "input_size": depth, "output_size": rest["output_b"].size}
    return _model(owner, arrays, {**kind, **config})


def _by_layer(arrays: Arrays) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, np.ndarray]]:
    """The arrays of each layer by their own names, from bottom to top, and the others."""
    layers: dict[str, dict[str, np.ndarray]] = {}
    rest = {}
    for name, array in arrays.items():
        of_layer = _OF_LAYER.fullmatch(name)
        if of_layer:
            layers.setdefault(of_layer[1], {})[of_layer[2]] = array
        else:
            rest[name] = array
    return {place: layers[place] for place in sorted(layers, key=_order)}, rest


def _cell_by_shape(owner: str, place: str, params: Arrays) -> Cell:
    if "Wh" not in params:
        raise _check.interop.array_missing(owner, f"{place}_Wh")
    _, gates = _check.interop.gates(owner, f"{place}_Wh", params["Wh"], "(H, G*H)")
    return _CELLS.get((gates, "bhh" in params), _CELLS[gates, False])


def _check_layer(owner: str, place: str, params: dict[str, np.ndarray], cell: Cell) -> None:
    """Names and shapes, checked here so that errors have the whole name; puts `params` into their order."""
    names = tuple(cell.shapes(1, 1))
    for name in names:
        if name not in params:
            raise _check.interop.array_missing(owner, f"{place}_{name}")
    for name in params:
        if name not in names:
            raise _check.interop.array_unknown(owner, f"{place}_{name}", f"the cell {cell.name} has none")
    wide = params["Wh" if "Wh" in names else "b"]
    _check.arrays.shape(owner, f"{place}_Wx", params["Wx"], ("D", "columns"))
    width = wide.shape[0] if wide.ndim > 1 else wide.size // len(cell.gates)
    shapes = cell.shapes(params["Wx"].shape[0], width)
    for name, shape in shapes.items():
        params[name] = _check.objects.parameter(owner, f"{place}_{name}", params.pop(name), shape)


def _together(owner: str, layers: Mapping[str, Recurrent], dropout: float = 0.0) -> Any:
    """The layers as one; ValueError for a layer that is missing."""
    both: list[list[Recurrent]] = []
    while len(both) < len(layers) and f"layer{len(both)}" in layers:
        pair = (f"layer{len(both)}", f"layer{len(both)}_reverse")
        both.append([layers[name] for name in pair if name in layers])
    if sum(map(len, both)) != len(layers):
        raise _check.interop.array_missing(owner, f"layer{len(both)}_Wx")
    return assembled(both, dropout)


def _model(owner: str, arrays: Arrays, config: dict[str, Any], constants: Any = None) -> Any:
    """A model on arrays that must be those of its configuration."""
    dtype, shapes = expected_tensors(config)
    for name in arrays:
        if name not in shapes:
            raise _check.interop.array_unknown(owner, name)
    for name, shape in shapes.items():
        if name not in arrays:
            raise _check.interop.array_missing(owner, name)
        _check.objects.parameter(owner, name, arrays[name], shape, dtype)
    return model_from(SavedModel(config, dict(arrays), {}, saved_constants(config, constants)))


# What a model is besides its parameters.


class Settings(NamedTuple):
    """What a model is besides its parameters and its cells."""

    dropout: float
    per_step: bool
    stateful: bool
    head: str = "squared"
    precision: str | None = None


def cells_of(model: Any) -> list[Cell]:
    """The cells of all layers."""
    layers = model.body.layers if isinstance(model, Model) else layers_by_name(model).values()
    return [layer.cell for layer in layers]


def settings_of(model: Any) -> Settings:
    """The settings of a model or of layers; the state of a model is always carried."""
    if isinstance(model, Model):
        head = model.head.name if isinstance(model, SequenceRegressor) else "squared"
        return Settings(model.config["dropout"], True, False, head, model.precision)
    stateful = any(layer.stateful for layer in layers_by_name(model).values())
    precisions = [layer.precision for layer in layers_by_name(model).values() if layer.precision]
    return Settings(
        **settings_of_dropout(model), stateful=stateful, precision=precisions[0] if precisions else None
    )


def lost_settings(model: Any, again: Any, ending: str) -> list[str]:
    """A sentence for each setting of a model that the one from its file does not have."""
    own, kept = settings_of(model), settings_of(again)
    lost = [
        f"{name}={value} is not stored in a {ending} file"
        for name, value, other in zip(Settings._fields, own, kept, strict=True)
        if value != other
    ]
    if ending == ".pt" and cells.rnn_relu in cells_of(model):
        lost.append("the activation relu is not stored in a .pt file, which needs the cell relu to be read")
    return lost


# What two models compute from the same random input, and how far they are apart.


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
