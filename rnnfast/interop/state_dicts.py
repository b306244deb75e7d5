"""Whole models as PyTorch names them: a recurrent layer, perhaps between an embedding and an affine layer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from rnnfast import _check, cells
from rnnfast.cells import Cell
from rnnfast.interop.named import arrays_of, model_of
from rnnfast.interop.structure import Layers, assembled
from rnnfast.models.regressor import SequenceRegressor
from rnnfast.models.rnnlm import RNNLM

_PARAMETER = re.compile(r"(?:weight|bias)_(?:ih|hh|hr)_l\d+(?:_reverse)?")
_RECURRENT = re.compile(rf"((?:.*\.)?)({_PARAMETER.pattern})")
_OURS = re.compile(r"layer(\d+)(_reverse)?_(\w+)")
_PARTS = {"Wx": ("weight_ih",), "Wh": ("weight_hh",), "b": ("bias_ih", "bias_hh"), "bhh": ("bias_hh",)}
# The names of PyTorch's example word_language_model.
_WORDS = {"embed_W": "encoder.weight", "output_W": "decoder.weight", "output_b": "decoder.bias"}
# In the name of an embedding, where shapes do not tell it from an affine layer.
_EMBEDDING = re.compile("emb|encoder|lookup|wte", re.IGNORECASE)
# Heads whose predictions are the outputs of the affine layer.
_MEANS = ("squared", "absolute")
_NUMBERS = {"output_W": "linear.weight", "output_b": "linear.bias"}

Named = Mapping[str, np.ndarray]


def is_state_dict(arrays: Named) -> bool:
    """Whether names are those of a recurrent layer of PyTorch, alone or in a model."""
    return any(map(_RECURRENT.fullmatch, arrays))


def model_of_state_dict(owner: str, arrays: Named, cell: Cell | None) -> tuple[Any, dict[str, list[str]]]:
    """The model or the layers, and for each of their parameters the names of its arrays.

    Shapes tell the parts, whatever their names: an embedding and an affine layer with an output for each word
    make an `RNNLM`, an affine layer alone a `SequenceRegressor`. `cell` tells an RNN with relu from one with
    tanh.
    """
    from rnnfast.interop import from_torch

    recurrent = {name: found for name in arrays if (found := _RECURRENT.fullmatch(name))}
    prefixes = {found[1] for found in recurrent.values()}
    if len(prefixes) != 1:
        raise _check.interop.one_recurrent_layer(owner, sorted(prefixes))
    (prefix,) = prefixes
    nonlinearity = "relu" if cell is cells.rnn_relu else "tanh"
    own = {found[2]: arrays[name] for name, found in recurrent.items()}
    try:
        layers: Layers = from_torch(own, nonlinearity=nonlinearity)
    except (TypeError, ValueError) as error:
        error.args = (_PARAMETER.sub(lambda found: prefix + found[0], str(error)),)  # as the file names it
        raise
    rest = {name: array for name, array in arrays.items() if name not in recurrent}
    if not rest:
        return layers, places(layers, prefix, {}, arrays)
    for name, found in recurrent.items():
        if found[2].endswith("_reverse"):
            raise _check.interop.array_unknown(owner, name, "models read in one direction")
    names = _around(owner, rest, layers)
    ours = {**arrays_of(layers), **{name: arrays[theirs] for name, theirs in names.items()}}
    output = arrays[names["output_W"]]
    ours.setdefault("output_b", np.zeros(len(output), output.dtype))
    ours["output_W"] = np.ascontiguousarray(output.T)
    if "embed_W" in ours and np.array_equal(ours["embed_W"], output):
        del ours["output_W"]
    bottom = layers.layers[0] if hasattr(layers, "layers") else layers
    model = model_of(owner, ours, bottom.cell if hasattr(bottom, "cell") else None)
    return model, places(model, prefix, names, arrays)


def _around(owner: str, rest: Named, layers: Any) -> dict[str, str]:
    """The names of the embedding (V, D) and the affine layer (O, H), perhaps with a bias (O,), by ours;
    tied weights may be there once."""
    weights = [name for name, array in rest.items() if name.endswith("weight") and array.ndim == 2]
    biases = [name for name in rest if name.endswith("bias") and len(weights) > 0]
    for name in rest:
        if name not in (*weights[:2], *biases[:1]):
            raise _check.interop.array_unknown(
                owner, name, "expected an embedding and an affine layer at most"
            )
    output, table = _output_and_table(owner, rest, weights, biases, layers)
    dtype, width = layers.dtype, layers.hidden_size
    outputs = len(_check.objects.parameter(owner, output, rest[output], ("outputs", width), dtype))
    for bias in biases:
        _check.objects.parameter(owner, bias, rest[bias], (outputs,), dtype)
    if table:
        words = (outputs, layers.input_size)  # one output for each word
        _check.objects.parameter(owner, table, rest[table], words, dtype)
    names = {"embed_W": table, "output_W": output, "output_b": biases[0] if biases else ""}
    return {ours: theirs for ours, theirs in names.items() if theirs}


def _output_and_table(
    owner: str, rest: Named, weights: list[str], biases: list[str], layers: Any
) -> tuple[str, str]:
    """The names of the affine layer's weights and of the embedding, "" if there is none."""
    beside = [f"{bias.removesuffix('bias')}weight" for bias in biases]
    if len(weights) == 1:
        return weights[0], "" if beside in ([], weights) else weights[0]
    if beside and beside[0] in weights:
        outputs = beside
    else:
        outputs = [name for name in weights if rest[name].shape[1] == layers.hidden_size]
        if len(outputs) == 2 and layers.input_size == layers.hidden_size:
            outputs = [name for name in weights if not _EMBEDDING.search(name)]
    if len(outputs) != 1:
        raise _check.interop.array_unknown(
            owner, weights[1], f"it may be an embedding or an affine layer above {weights[0]}"
        )
    return outputs[0], weights[1 - weights.index(outputs[0])]


def state_dict_of(model: Any) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
    """The arrays of a model or layers by PyTorch's names, and the names for each parameter."""
    from rnnfast.interop import to_torch

    if isinstance(model, SequenceRegressor) and model.head.name not in _MEANS:
        raise _check.interop.no_place_for("convert", "a PyTorch file", f"the head {model.head.name}")
    is_model = isinstance(model, RNNLM | SequenceRegressor)
    names = _WORDS if isinstance(model, RNNLM) else _NUMBERS if is_model else {}
    prefix = "rnn." if is_model else ""
    layers = assembled([[layer] for layer in model.body.layers]) if is_model else model
    tensors = to_torch(layers).state_dict()
    arrays = {f"{prefix}{name}": tensor.numpy() for name, tensor in tensors.items()}
    if is_model:
        own = arrays_of(model)
        own["output_W"] = model.output.params[0].T
        arrays |= {theirs: own[name] for name, theirs in names.items()}
    return arrays, places(model, prefix, names, arrays)


def places(model: Any, prefix: str, names: Mapping[str, str], arrays: Named) -> dict[str, list[str]]:
    """PyTorch's names for each parameter of a model."""
    found: dict[str, list[str]] = {}
    for ours in arrays_of(model):
        of_layer = _OURS.fullmatch(ours)
        if of_layer:
            layer, reverse, part = of_layer.groups(default="")
            theirs = [f"{prefix}{start}_l{layer}{reverse}" for start in _PARTS[part]]
        else:
            theirs = [names.get(ours, "")]
        found[ours] = [name for name in theirs if name in arrays]
    if "embed_W" in found and "output_W" not in found and names["output_W"] not in found["embed_W"]:
        found["embed_W"].append(names["output_W"])
    return found
