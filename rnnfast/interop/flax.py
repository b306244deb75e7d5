"""Flax' recurrent layers and layers of rnnfast, one from the other, on nested dicts: `from_flax` and
`to_flax`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rnnfast import _check, cells
from rnnfast.cells import Cell
from rnnfast.interop.structure import (
    LAYOUTS,
    Arrays,
    Layers,
    Layout,
    Sides,
    cell_with,
    copied_all,
    layers_of,
    sides_of,
)
from rnnfast.layers.rnn import ACTIVATIONS

APIS = ("nnx", "linen")


class Form(NamedTuple):
    """How a cell of Flax names its parts: one matrix of all gates, or one a gate, in the layout's order."""

    library: str
    inputs: tuple[str, ...]
    states: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all parts."""
        return self.inputs + self.states

    def biased(self, layout: Layout) -> tuple[str, ...]:
        """The parts that have a bias."""
        return {
            "recurrent": self.states,
            "one": self.inputs,
            "candidate": self.inputs + self.states[-1:],
        }[layout.biases]


class Found(NamedTuple):
    """One cell in nested mappings."""

    path: str
    form: Form
    arrays: dict[str, Any]  # by path


_WHOLE = Form("flax nnx", ("dense_i",), ("dense_h",))
_LSTM = Form("flax linen", ("ii", "if", "ig", "io"), ("hi", "hf", "hg", "ho"))
_NNX_LSTM = Form("flax nnx", ("ii", "if_", "ig", "io"), ("hi", "hf", "hg", "ho"))
_GRU = Form("flax linen", ("ir", "iz", "in"), ("hr", "hz", "hn"))
_SIMPLE = Form("flax linen", ("i",), ("h",))
_MINIMAL = Form("flax linen", ("if", "in"), ("hf", "hn"))
_FORMS = (_WHOLE, _LSTM, _NNX_LSTM, _GRU, _SIMPLE, _MINIMAL)
_LINEN = {cells.rnn: _SIMPLE, cells.rnn_relu: _SIMPLE, cells.lstm: _LSTM, cells.gru_after: _GRU}


def from_flax(
    params: Any,
    *,
    activation: str = "tanh",
    dtype: np.typing.DTypeLike | None = None,
) -> Layers:
    """A layer with the weights of an LSTM, GRU or simple cell of Flax.

    Flax need not be installed.

    Parameters
    ----------
    params : mapping of str to array or mapping, or list of these
        ``nnx.state(model)`` or ``variables["params"]``, of a cell, an `RNN`, a `Bidirectional`, a
        `Sequential` of recurrent layers only, or a model that holds one of them. A list, from bottom to top,
        makes a `Stack`. In linen a model's automatic names, such as `GRUCell_0` and `GRUCell_1`, do not tell
        layers from directions; pass ``[params["GRUCell_0"], params["GRUCell_1"]]`` or
        ``{"forward_rnn": params["GRUCell_0"], "backward_rnn": params["GRUCell_1"]}``.
    activation : {"tanh", "relu"}
        The `activation_fn` of a `SimpleCell`, which is not in its arrays; nor are its `residual`, the
        activations of other cells, and the `reverse` of an `RNN`, which must be the default.
    dtype : float32 or float64, optional
        The layer's dtype; that of the weights by default. Weights in float16 or bfloat16 need it.

    Returns
    -------
    layer : TimeRNN, TimeLSTM, TimeGRU, Bidirectional or Stack
        On copies of the weights. A GRU has ``reset="after"``.

    Raises
    ------
    TypeError, ValueError
        The dict holds no recurrent layer, or several that are not one after the other; an array is missing,
        unknown, of another shape or dtype, or has a NaN or an infinity.

    Examples
    --------
    >>> import numpy as np, rnnfast
    >>> rng = np.random.default_rng(0)
    >>> inputs = {"kernel": rng.standard_normal((3, 12)), "bias": rng.standard_normal(12)}
    >>> cell = {"dense_i": inputs, "dense_h": {"kernel": rng.standard_normal((4, 12))}}
    >>> layer = rnnfast.interop.from_flax({"cell": cell})
    >>> layer.forward(np.ones((2, 5, 3))).shape
    (2, 5, 4)
    """
    owner = "from_flax"
    activation = _check.values.choice(owner, "activation", activation, ACTIVATIONS)
    kind = None if dtype is None else _check.arrays.float_dtype(owner, dtype)
    parts = enumerate(params) if isinstance(params, list | tuple) else [("", params)]
    layers = [both for name, part in parts for both in _layers(owner, part, str(name))]
    if not layers:
        raise _check.interop.no_layer_found(
            owner, "the parameters of an LSTM, GRU or simple cell of Flax", ""
        )
    arrays = {name: array for both in layers for one in both for name, array in one.arrays.items()}
    copies = copied_all(owner, arrays, kind)
    sides: Sides = [tuple(_side(owner, one, copies, activation) for one in both) for both in layers]
    return layers_of(owner, layers[0][0].form.library, sides, [False] * len(sides))


def to_flax(layer: Layers, api: str = "nnx") -> dict[str, Any]:
    """The weights of a layer or a stack as the nested dict of Flax' modules.

    Flax need not be installed.

    Parameters
    ----------
    layer : Recurrent, Bidirectional or Stack
        `TimeRNN`, `TimeLSTM`, `TimeGRU` with ``reset="after"``, or a `Bidirectional` or `Stack` of them.
    api : {"nnx", "linen"}
        Whose names: ``nnx.update(module, params)``, or ``module.apply({"params": params}, xs)``.

    Returns
    -------
    params : dict
        Those of ``RNN(cell)``, so that the cell's are ``params["cell"]``; of `Bidirectional` of two of them;
        or of `Sequential` of a stack's. The cells are `OptimizedLSTMCell` (of linen also `LSTMCell`),
        `GRUCell` and `SimpleCell`, that of a relu with ``activation_fn=nnx.relu``. Copies.

    Raises
    ------
    ValueError
        Flax has no such cell: the book's GRU, which resets the state before the product, peepholes, or your
        own. The GRU of nnx has no recurrent bias `bhh`. A parameter has a NaN or an infinity.

    Examples
    --------
    >>> import numpy as np, rnnfast
    >>> layer = rnnfast.TimeLSTM.from_sizes(3, 4, rng=np.random.default_rng(0))
    >>> params = rnnfast.interop.to_flax(layer)
    >>> params["cell"]["dense_h"]["bias"].shape
    (16,)
    """
    owner = "to_flax"
    library = f"flax {_check.values.choice(owner, 'api', api, APIS)}"
    sides = sides_of(owner, library, layer)
    made = []
    for both in sides:
        parts = [{"cell": _cell(library, *side)} for side in both]
        names = ("forward_rnn", "backward_rnn")
        made.append(dict(zip(names, parts, strict=True)) if len(both) == 2 else parts[0])
    if len(made) == 1:
        return made[0]
    if library == "flax nnx":
        return {"layers": dict(enumerate(made))}
    return {f"layers_{number}": one for number, one in enumerate(made)}


def _cell(library: str, cell: Cell, arrays: Arrays) -> dict[str, dict[str, np.ndarray]]:
    """The mapping of a cell."""
    form = _WHOLE if library == "flax nnx" else _LINEN[cell]
    made: dict[str, dict[str, np.ndarray]] = {}
    biased = form.biased(LAYOUTS[library][cell])
    for parts, weights, bias in ((form.inputs, arrays.wx, arrays.bx), (form.states, arrays.wh, arrays.bh)):
        kernels, biases = (np.split(array, len(parts), axis=-1) for array in (weights, bias))
        for part, kernel, own in zip(parts, kernels, biases, strict=True):
            made[part] = {"kernel": kernel.copy(), **({"bias": own.copy()} if part in biased else {})}
    return made


# From Flax.


def _children(node: Any) -> dict[str, Any]:
    """The mappings in a mapping, by name."""
    entries = node.items() if isinstance(node, Mapping) else ()
    return {str(name): one for name, one in entries if isinstance(one, Mapping)}


def _layers(owner: str, node: Any, path: str) -> list[tuple[Found, ...]]:
    """The layers in nested mappings from bottom to top, each as the one that reads forwards and, if there is
    one, that which reads backwards."""
    for kind in type(node).__mro__:
        if kind.__name__ == "Module" and kind.__module__.startswith("flax."):
            way = 'variables["params"]' if ".linen" in kind.__module__ else "nnx.state(module)"
            raise _check.interop.pass_instead(owner, path or "params", "a module", way)
    form = _form(node)
    if form is not None:
        return [(_found(owner, node, path, form),)]
    children = _children(node)
    inside = {name: _layers(owner, one, _joined(path, name)) for name, one in children.items()}
    found = {name: layers for name, layers in inside.items() if layers}
    if len(found) < 2:
        return [both for layers in found.values() for both in layers]
    places = [_joined(path, name) for name in found]
    if set(found) == {"forward_rnn", "backward_rnn"}:
        both = [one for name in ("forward_rnn", "backward_rnn") for layer in found[name] for one in layer]
        if len(both) == 2:
            return [tuple(both)]
    if min(map(_number, found)) < 0:
        way = "pass one of them, a list from bottom to top, or a dict of forward_rnn and backward_rnn"
        raise _check.interop.several_layers(owner, places, way)
    for name, child in children.items():
        if name not in found and _has_arrays(child):
            raise ValueError(
                f"{owner}: {_joined(path, name)} is not a recurrent layer; pass a list of the "
                "recurrent ones, from bottom to top."
            )
    return [both for name in sorted(found, key=_number) for both in found[name]]


def _joined(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


def _number(name: str) -> int:
    """The number of a layer in a `Sequential`; -1 for another name."""
    last = name.removeprefix("layers_")
    return int(last) if last.isdecimal() else -1


def _has_arrays(node: Any) -> bool:
    """Whether a module has parameters; its random numbers are none."""
    return any(
        _has_arrays(one) if isinstance(one, Mapping) else True for name, one in node.items() if name != "rngs"
    )


def _form(node: Any) -> Form | None:
    """The form that shares most names with a mapping, and more than half of its own."""
    names = {name for name, one in _children(node).items() if "kernel" in one}
    best = max(_FORMS, key=lambda form: len(names.intersection(form.names)))
    return best if 2 * len(names.intersection(best.names)) > len(best.names) else None


def _found(owner: str, node: Mapping[str, Any], path: str, form: Form) -> Found:
    """The arrays of a cell."""
    if form is _MINIMAL:
        raise ValueError(
            f"{owner}: {path or 'the mapping'} is a MGUCell, which no layer of rnnfast computes."
        )
    arrays = {}
    for part, one in node.items():
        if part == "rngs":
            continue
        if part not in form.names or not isinstance(one, Mapping):
            raise _check.interop.array_unknown(owner, _joined(path, part))
        for name, array in one.items():
            if name not in ("kernel", "bias"):
                raise _check.interop.array_unknown(owner, _joined(path, f"{part}/{name}"))
            if array is not None:
                arrays[_joined(path, f"{part}/{name}")] = array
    for part in form.names:
        if _joined(path, f"{part}/kernel") not in arrays:
            raise _check.interop.array_missing(owner, _joined(path, f"{part}/kernel"))
    return Found(path, form, arrays)


def _side(owner: str, found: Found, arrays: Mapping[str, np.ndarray], activation: str) -> tuple[Cell, Arrays]:
    """The cell of one direction of one layer, and its arrays out of all by path."""
    form = found.form
    kernel, bias = (
        {part: _joined(found.path, f"{part}/{name}") for part in form.names} for name in ("kernel", "bias")
    )
    first = kernel[form.states[0]]
    if form is _WHOLE:
        hidden, gates = _check.interop.gates(owner, first, arrays[first], "(H, G*H)")
    else:
        hidden, gates = (
            _check.arrays.shape(owner, first, arrays[first], ("H", "H")).shape[0],
            len(form.states),
        )
    cell = cell_with(gates, activation)
    biased = form.biased(LAYOUTS[form.library][cell])
    for part in form.names:
        if (bias[part] in found.arrays) != (part in biased):
            raise (_check.interop.array_missing if part in biased else _check.interop.array_unknown)(
                owner, bias[part]
            )
    width = hidden * gates // len(form.states)
    name = kernel[form.inputs[0]]
    size = _check.arrays.shape(owner, name, arrays[name], ("D", width)).shape[0]
    none = np.zeros(width, arrays[first].dtype)

    def joined(names: Sequence[str], shape: tuple[int, ...]) -> np.ndarray:
        blocks = [_check.arrays.shape(owner, name, arrays.get(name, none), shape) for name in names]
        return np.concatenate(blocks, axis=-1)

    return cell, Arrays(
        joined([kernel[part] for part in form.inputs], (size, width)),
        joined([kernel[part] for part in form.states], (hidden, width)),
        joined([bias[part] for part in form.inputs], (width,)),
        joined([bias[part] for part in form.states], (width,)),
    )
