"""PyTorch's recurrent layers and layers of rnnfast, one from the other: `from_torch` and `to_torch`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from rnnfast import _check, cells
from rnnfast.cells import Cell
from rnnfast.interop.named import arrays_of, model_of
from rnnfast.interop.structure import (
    Arrays,
    Layers,
    Sides,
    assembled,
    cell_with,
    copied_all,
    layers_of,
    sides_of,
)
from rnnfast.layers.rnn import ACTIVATIONS
from rnnfast.layers.stack import Stack
from rnnfast.models.regressor import SequenceRegressor
from rnnfast.models.rnnlm import RNNLM

_NAME = re.compile(r"(weight_ih|weight_hh|weight_hr|bias_ih|bias_hh)(?:_l(\d+)(_reverse)?)?")
CLASSES = {
    cells.rnn: "torch.nn.RNN",
    cells.rnn_relu: "torch.nn.RNN",
    cells.lstm: "torch.nn.LSTM",
    cells.gru_after: "torch.nn.GRU",
}


def from_torch(
    source: Any,
    *,
    nonlinearity: str = "tanh",
    prefix: str = "",
    dtype: np.typing.DTypeLike | None = None,
) -> Layers:
    """A layer with the weights of PyTorch's RNN, LSTM or GRU.

    Parameters
    ----------
    source : torch.nn.Module or mapping of str to Tensor or ndarray
        `torch.nn.RNN`, `LSTM` or `GRU`, one of their cells, or a model that holds one; or a state_dict, for
        which PyTorch need not be installed. The number of gates tells the cell.
    nonlinearity : {"tanh", "relu"}
        That of an RNN in a state_dict; a module knows its own.
    prefix : str
        Where in a model the layer is, as in ``"encoder.rnn"``; needed if there are several.
    dtype : float32 or float64, optional
        The layer's dtype; that of the weights by default. Weights in float16 or bfloat16 need it.

    Returns
    -------
    layer : TimeRNN, TimeLSTM, TimeGRU, Bidirectional or Stack
        On copies of the weights; the two biases of a gate become their sum. A GRU has ``reset="after"``. The
        input of `forward` is (N, T, D) whatever `batch_first` was. A `Stack` has the module's dropout, which
        is off (`train_flg`) if the module was in eval mode; a state_dict does not record dropout.

    Raises
    ------
    TypeError, ValueError
        The source holds no or several recurrent layers, a projection (`proj_size`) or arrays of another
        dtype; an array is missing, unknown or of another shape, or has a NaN or an infinity.

    Examples
    --------
    >>> import numpy as np, rnnfast
    >>> rng = np.random.default_rng(0)
    >>> shapes = {"weight_ih_l0": (16, 3), "weight_hh_l0": (16, 4), "bias_ih_l0": 16, "bias_hh_l0": 16}
    >>> state_dict = {f"rnn.{name}": rng.standard_normal(shape) for name, shape in shapes.items()}
    >>> layer = rnnfast.interop.from_torch(state_dict)
    >>> layer.forward(np.ones((2, 5, 3))).shape
    (2, 5, 4)
    """
    owner = "from_torch"
    nonlinearity = _check.values.choice(owner, "nonlinearity", nonlinearity, ACTIVATIONS)
    kind = None if dtype is None else _check.arrays.float_dtype(owner, dtype)
    module = None
    if isinstance(source, Mapping):
        named = _chosen_arrays(owner, source, prefix)
    else:
        module = _chosen_module(owner, source, prefix)
        nonlinearity = getattr(module, "nonlinearity", nonlinearity)
        named = {name: getattr(module, name) for name in _names_of(module)}
    names = _check_names(owner, named)
    sides = _sides(owner, names, copied_all(owner, named, kind), nonlinearity)
    dropout = getattr(module, "dropout", 0.0) if len(sides) > 1 else 0.0
    model = layers_of(owner, "torch", sides, [False] * len(sides), dropout)
    model.train_flg = getattr(module, "training", True)
    return model


def to_torch(layer: Layers) -> Any:
    """A `torch.nn.RNN`, `LSTM` or `GRU` with the weights of a layer or a stack.

    Parameters
    ----------
    layer : Recurrent, Bidirectional or Stack
        `TimeRNN`, `TimeLSTM`, `TimeGRU` with ``reset="after"``, or a `Bidirectional` or `Stack` of them. The
        layers of a stack must have one cell, one hidden size and as many directions, as in one module of
        PyTorch.

    Returns
    -------
    module : torch.nn.RNN, torch.nn.LSTM or torch.nn.GRU
        With ``batch_first=True``, the layer's dtype, the stack's dropout and its mode (`train_flg`), on
        copies of the weights. The biases are in `bias_ih`, but that of a reset state in `bias_hh`. A module
        of PyTorch carries no state from call to call, whatever `stateful` was.

    Raises
    ------
    ModuleNotFoundError
        PyTorch is not installed.
    ValueError
        PyTorch has no module for the cell (the book's GRU, which resets the state before the product;
        peepholes; your own cell), a layer differs from the first one, or a parameter is not finite.

    Examples
    --------
    >>> import numpy as np, torch, rnnfast
    >>> layer = rnnfast.TimeGRU.from_sizes(3, 4, rng=np.random.default_rng(0), reset="after")
    >>> rnnfast.interop.to_torch(layer)
    GRU(3, 4, batch_first=True)
    """
    owner = "to_torch"
    sides = sides_of(owner, "torch", layer)
    _check_alike(owner, sides, CLASSES[sides[0][0][0]])
    dropout = _dropout(owner, layer)
    _check.interop.installed(owner, "torch", "torch")
    import torch

    cell, arrays = sides[0][0]
    module = module_of(
        cell,
        arrays.wx.shape[1],
        arrays.wh.shape[1],
        num_layers=len(sides),
        bidirectional=len(sides[0]) == 2,
        batch_first=True,
        dropout=dropout,
        dtype=getattr(torch, layer.dtype.name),
        device="meta",  # on the CPU, it would draw from the program's generator
    ).to_empty(device="cpu")
    flat = [array for both in sides for _, arrays in both for array in arrays]
    named = dict(zip(_names_of(module), map(torch.from_numpy, flat), strict=True))
    module.load_state_dict(named)
    return module.train(layer.train_flg)


def module_of(cell: Cell, *sizes: int, **options: Any) -> Any:
    """The module of PyTorch for a cell."""
    import torch

    if len(cell.gates) == 1:
        options["nonlinearity"] = "relu" if cell is cells.rnn_relu else "tanh"
    return getattr(torch.nn, CLASSES[cell].rpartition(".")[2])(*sizes, **options)


def _is_cell(module: Any) -> bool:
    return not hasattr(module, "num_layers")


# Which arrays of which layer.


def _names(layers: int, directions: int, biases: bool, numbered: bool = True) -> list[str]:
    """The names of the arrays of a module, direction by direction and from bottom to top."""
    parts = ["weight_ih", "weight_hh", *(["bias_ih", "bias_hh"] if biases else [])]
    if not numbered:
        return parts
    ends = [f"_l{k}{end}" for k in range(layers) for end in ("", "_reverse")[:directions]]
    return [part + end for end in ends for part in parts]


def _names_of(module: Any) -> list[str]:
    if _is_cell(module):
        return _names(1, 1, module.bias, numbered=False)
    names = _names(module.num_layers, 1 + module.bidirectional, module.bias)
    return [*names, "weight_hr_l0"] if getattr(module, "proj_size", 0) else names


def _chosen(owner: str, names: Iterable[str], prefix: str) -> str:
    """The one name that is the prefix or begins with it."""
    prefix = prefix.rstrip(".")
    inside = [name for name in dict.fromkeys(names) if f"{name}.".startswith(f"{prefix}." if prefix else "")]
    if prefix in inside or len(inside) == 1:
        return prefix if prefix in inside else inside[0]
    if inside:
        raise _check.interop.several_layers(owner, inside, "choose one with prefix=")
    what = "an RNN, LSTM or GRU of PyTorch, or arrays named weight_ih_l0, weight_hh_l0, ..."
    raise _check.interop.no_layer_found(owner, what, f" under {prefix}" if prefix else "")


def _chosen_arrays(owner: str, source: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The arrays of one layer in a state_dict, by their names in it."""
    split = {name: name.rpartition(".") for name in source if isinstance(name, str)}
    heads = [head for head, _, last in split.values() if _NAME.fullmatch(last)]
    chosen = _chosen(owner, heads, prefix)
    return {last: source[name] for name, (head, _, last) in split.items() if head == chosen}


def _chosen_module(owner: str, source: Any, prefix: str) -> Any:
    """The one recurrent module in a module."""
    _check.objects.offers(
        owner, "source", source, ("named_modules", "state_dict"), "torch.nn.LSTM or its state_dict"
    )
    import torch

    kinds = (torch.nn.RNNBase, torch.nn.RNNCellBase)
    modules = {name: one for name, one in source.named_modules() if isinstance(one, kinds)}
    if not modules:
        _check_readable(owner, source)
    return modules[_chosen(owner, modules, prefix)]


def _check_readable(owner: str, source: Any) -> None:
    """A module whose recurrent layers, if there are any, are those of `torch.nn`."""
    for module in source.modules():
        if type(module).__module__.startswith("torch.jit."):
            raise _check.interop.pass_instead(owner, "source", "a TorchScript module", "its state_dict()")
        if ".quantized" in type(module).__module__:
            raise _check.interop.pass_instead(
                owner, "source", "a quantized module", "what it was before quantization"
            )


def _check_names(owner: str, named: Mapping[str, Any]) -> list[str]:
    """The names in the order of `_names`, all of which are there, and no others."""
    found = {name: match for name in named if (match := _NAME.fullmatch(name))}
    for name, match in found.items():
        if match[1] == "weight_hr":
            raise ValueError(f"{owner}: {name} is a projection (proj_size), which no layer of rnnfast has.")
    numbers = [int(match[2]) for match in found.values() if match[2]]
    directions = 2 if any(match[3] for match in found.values()) else 1
    has_biases = any(name.startswith("bias") for name in found)
    layers = max(numbers, default=0) + 1
    if layers > len(named):  # a far layer without those below it
        raise _check.interop.array_missing(owner, "weight_ih_l0")
    names = _names(layers, directions, has_biases, numbered=bool(numbers))
    for name in names:
        if name not in named:
            raise _check.interop.array_missing(owner, name)
    for name in named:
        if name not in names:
            raise _check.interop.array_unknown(owner, name)
    return names


def _sides(owner: str, names: list[str], arrays: Mapping[str, np.ndarray], nonlinearity: str) -> Sides:
    """The arrays of each direction of each layer; `names` are in the order of `_names`."""
    each = 4 if any(name.startswith("bias") for name in names) else 2
    directions = 2 if any(name.endswith("_reverse") for name in names) else 1
    hidden, gates = _check.interop.gates(owner, names[1], arrays[names[1]].T, "(G*H, H)")
    cell, rows = cell_with(gates, nonlinearity), gates * hidden
    size = _check.arrays.shape(owner, names[0], arrays[names[0]], (rows, "D")).shape[1]
    flat: list[tuple[Cell, Arrays]] = []
    for first in range(0, len(names), each):
        depth = size if len(flat) < directions else directions * hidden
        shapes: list[tuple] = [(rows, depth), (rows, hidden), (rows,), (rows,)]
        named = zip(names[first : first + each], shapes, strict=False)
        weights = [_check.arrays.shape(owner, name, arrays[name], shape) for name, shape in named]
        biases = [np.zeros(rows, weights[0].dtype)] * (4 - each)
        flat.append((cell, Arrays(*weights, *biases)))
    return [tuple(flat[k : k + directions]) for k in range(0, len(flat), directions)]


# What one module of PyTorch has in common.


def _check_alike(owner: str, sides: Sides, what: str) -> None:
    """One cell, one hidden size, as many directions in each layer."""
    first, arrays = sides[0][0]
    for number, both in enumerate(sides):
        if len(both) != len(sides[0]):
            raise _check.interop.unlike_the_first(
                owner, str(number), "number of directions", len(both), len(sides[0]), what
            )
        for (cell, w), place in zip(both, (f"{number}", f"{number} (backwards)"), strict=False):
            if cell is not first:
                raise _check.interop.unlike_the_first(owner, place, "cell", cell.name, first.name, what)
            width, expected = w.wh.shape[1], arrays.wh.shape[1]
            if width != expected:
                raise _check.interop.unlike_the_first(owner, place, "hidden size", width, expected, what)


def _dropout(owner: str, layer: Layers) -> float:
    """The dropout between the layers of a stack."""
    if not isinstance(layer, Stack) or not layer.dropouts:
        return 0.0
    drop = layer.dropouts[0]
    if drop.dropout_ratio and not drop.per_step:
        raise ValueError(
            f"{owner}: PyTorch draws a dropout mask for every step; make the Stack with per_step=True."
        )
    return drop.dropout_ratio


# Whole models as PyTorch names them: a recurrent layer, perhaps between an embedding and an affine
# layer.


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
