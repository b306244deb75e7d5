"""Layers as other libraries see them: from bottom to top, each with one or two directions; their arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rnnfast import _check, cells
from rnnfast.cells import Cell
from rnnfast.interop.layouts import (
    LAYOUTS,
    Arrays,
    cell_of,
    from_library,
    to_library,
    where_biases_are,
)
from rnnfast.layers.bidirectional import Bidirectional
from rnnfast.layers.gru import TimeGRU
from rnnfast.layers.lstm import TimeLSTM
from rnnfast.layers.recurrent import Recurrent
from rnnfast.layers.rnn import TimeRNN
from rnnfast.layers.stack import Stack

# A layer, and what is made of layers.
Layers = Recurrent | Bidirectional | Stack
# A library's arrays for each direction of each layer, from bottom to top, and the cell that they are of.
Sides = list[tuple[tuple[Cell, Arrays], ...]]


def directions(owner: str, model: Any) -> list[tuple[Recurrent, ...]]:
    """The layers of a layer or a stack from bottom to top, each as the one that reads forwards and, if there
    is one, that which reads backwards."""
    _check.objects.instances(owner, [model], (Recurrent, Bidirectional, Stack))
    layers = model.layers if isinstance(model, Stack) else [model]
    return [
        (one.layer_forward, one.layer_backward) if isinstance(one, Bidirectional) else (one,)
        for one in layers
    ]


def parameters(layer: Recurrent) -> dict[str, np.ndarray]:
    """A layer's parameters by name."""
    return dict(zip(layer.parameter_names, layer.params, strict=True))


def layer_of(cell: Cell, params: Mapping[str, Any], stateful: bool = False) -> Recurrent:
    """The layer of a cell on these parameters, one of the book's layers where there is one."""
    if cell is cells.lstm:
        return TimeLSTM(**params, stateful=stateful)
    if cell in (cells.gru, cells.gru_after):
        return TimeGRU(**params, stateful=stateful, reset="after" if cell is cells.gru_after else "before")
    if cell in (cells.rnn, cells.rnn_relu):
        return TimeRNN(**params, stateful=stateful, activation="tanh" if cell is cells.rnn else "relu")
    return Recurrent(cell, list(params.values()), stateful)


def assembled(layers: Sequence[Sequence[Recurrent]], dropout: float = 0.0) -> Layers:
    """One layer, or a `Stack` of several, from the directions of each."""
    made = [Bidirectional(*both) if len(both) == 2 else both[0] for both in layers]
    return made[0] if len(made) == 1 else Stack(made, dropout)


def sides_of(owner: str, library: str, model: Any) -> Sides:
    """The arrays of a layer or a stack in the form of a library; copies. ValueError for a NaN or infinity."""

    def side(layer: Recurrent, place: str) -> tuple[Cell, Arrays]:
        cell = cell_of(owner, library, layer.cell)
        for name, param in parameters(layer).items():
            _check.interop.finite_array(owner, f"{name} of layer {place}", param)
        layout = LAYOUTS[library][cell]
        arrays = to_library(cell, layout, parameters(layer))
        return cell, where_biases_are(owner, library, layout, arrays)

    return [
        tuple(side(layer, f"{number}{end}") for layer, end in zip(both, ("", " (backwards)"), strict=False))
        for number, both in enumerate(directions(owner, model))
    ]


def layers_of(
    owner: str, library: str, sides: Sides, stateful: Sequence[bool], dropout: float = 0.0
) -> Layers:
    """The inverse of `sides_of`; one entry of `stateful` for each layer. ValueError if one layer does not fit
    another."""

    def layer(cell: Cell, arrays: Arrays, stateful: bool) -> Recurrent:
        return layer_of(cell, from_library(cell, LAYOUTS[library][cell], arrays), stateful)

    made = [[layer(*side, carries) for side in both] for both, carries in zip(sides, stateful, strict=True)]
    _check_sizes(owner, made)
    return assembled(made, dropout)


def _check_sizes(owner: str, layers: Sequence[Sequence[Recurrent]]) -> None:
    size, why = layers[0][0].input_size, "the input size of the other direction"
    for number, both in enumerate(layers):
        for layer, end in zip(both, ("", " (backwards)"), strict=False):
            if layer.input_size != size:
                raise ValueError(
                    f"{owner}: the input size of layer {number}{end} must be {size}, {why}, got "
                    f"{layer.input_size}."
                )
        size, why = sum(layer.hidden_size for layer in both), f"what layer {number} puts out"


# Arrays and tensors of other libraries.

HALVES = ("float16", "bfloat16")  # both fit into float32


def copied(owner: str, name: str, value: Any, dtype: np.dtype | None = None) -> np.ndarray:
    """A C-ordered copy of an array or tensor of any library, in float32 or float64.

    `dtype` converts it; without one, only float32 and float64 are accepted, and kept.
    """
    is_tensor = hasattr(value, "detach")
    if not (is_tensor or hasattr(value, "__array__")) or isinstance(value, np.ndarray):
        value = _check.arrays.shape(owner, name, value, ("...",) if np.ndim(value) else ())
    kind = getattr(value.dtype, "name", str(value.dtype).rpartition(".")[2])
    if kind not in ("float32", "float64") and (dtype is None or kind not in HALVES):
        raise _check.interop.array_kind(owner, name, kind)
    if getattr(value, "is_meta", False):
        raise ValueError(
            f"{owner}: {name} is on the device meta, which holds no numbers; load the weights into it first."
        )
    if is_tensor:
        value = value.detach().cpu()
        value = (value.float() if kind in HALVES else value).numpy()
    return np.array(np.asarray(value), np.dtype(kind) if dtype is None else dtype, order="C")


def copied_all(owner: str, given: dict[str, Any], dtype: np.dtype | None) -> dict[str, np.ndarray]:
    """Copies of all arrays of a model, which must be finite and of one dtype."""
    copies = {name: copied(owner, name, value, dtype) for name, value in given.items()}
    first = next(iter(copies.values()))
    for name, array in copies.items():
        if array.dtype != first.dtype:
            raise TypeError(
                f"{owner}: {name} must be {first.dtype.name}, the dtype of the first array, got "
                f"{array.dtype.name}; pass dtype=np.{first.dtype.name} to convert all."
            )
        _check.interop.finite_array(owner, name, array)
    return copies
