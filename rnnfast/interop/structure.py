"""Layers as other libraries see them: from bottom to top, each with one or two directions."""

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
    _check.instances(owner, [model], (Recurrent, Bidirectional, Stack))
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
    """The arrays of a layer or a stack in the form of a library; copies."""

    def side(layer: Recurrent) -> tuple[Cell, Arrays]:
        cell = cell_of(owner, library, layer.cell)
        layout = LAYOUTS[library][cell]
        arrays = to_library(cell, layout, parameters(layer))
        return cell, where_biases_are(owner, library, layout, arrays)

    return [tuple(side(layer) for layer in both) for both in directions(owner, model)]


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
                raise _check.fits_no_layer(owner, f"layer {number}{end}", size, layer.input_size, why)
        size, why = sum(layer.hidden_size for layer in both), f"what layer {number} puts out"


def carrying(model: Any, dtype: np.dtype) -> Layers:
    """A stateful layer or stack with the same parameters in a dtype, without dropout and with states of its
    own."""

    def layer(one: Recurrent) -> Recurrent:
        params = {name: param.astype(dtype, copy=False) for name, param in parameters(one).items()}
        return layer_of(one.cell, params, True)

    return assembled([[layer(one) for one in both] for both in directions("", model)])
