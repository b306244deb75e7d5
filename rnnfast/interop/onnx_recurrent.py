"""RNN, LSTM and GRU nodes of ONNX graphs, computed by the layers of this library."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from rnnfast import _check, cells
from rnnfast.cells import Cell
from rnnfast.interop.layouts import LAYOUTS, Arrays, from_library
from rnnfast.interop.onnx_reading import Node
from rnnfast.interop.structure import layer_of
from rnnfast.layers.bidirectional import Bidirectional, reversed_places
from rnnfast.layers.recurrent import Recurrent

# The activations that are served, of each direction, and the cell of the RNN.
_ACTIVATIONS = {"LSTM": ["sigmoid", "tanh", "tanh"], "GRU": ["sigmoid", "tanh"], "RNN": ["tanh"]}
_RNN_CELLS = {"tanh": cells.rnn, "relu": cells.rnn_relu}
# Whether the cells of a direction are read in reverse.
_DIRECTIONS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
_LARGEST_FLOAT = float(np.finfo(np.float32).max)
_KNOWN = {
    "activation_alpha", "activation_beta", "activations", "clip", "direction", "hidden_size", "input_forget",
    "layout", "linear_before_reset", "output_sequence",
}  # fmt: skip
# The places of inputs.
X, W, R, B, LENGTHS, INITIAL_H, INITIAL_C, P = range(8)
WEIGHTS = {"W": W, "R": R, "B": B, "P": P}
# Where the parameters of a layer are; others are peepholes.
HOMES = {"Wx": "W", "Wh": "R", "b": "B", "bhh": "B"}


class Shared:
    """The layers made so far, for nodes that share their constants, and the bytes that others may take."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self._layers: dict[tuple[Any, ...], Recurrent] = {}

    def layer(self, cell: Cell, place: int, arrays: list[Any]) -> Recurrent:
        """The layer of one direction of the constants W, R, B and P."""
        key = (cell.fingerprint, place, *(id(array) for array in arrays))
        if key not in self._layers:
            parts = [None if array is None else array[place] for array in arrays]
            self.nbytes -= sum(part.nbytes for part in parts if part is not None)
            if self.nbytes < 0:
                raise ValueError("its constants are those of other nodes too, and there would be many copies")
            self._layers[key] = _layer(cell, parts)
        return self._layers[key]


class RecurrentNode:
    """One node: its layer, and how its inputs become those of the layer.

    Attributes
    ----------
    layer : Recurrent or Bidirectional
        The layer on the parameters of the node; of a node that reads in reverse, the layer that reads what
        has been reversed.
    layers : list of Recurrent
        One for each direction, on the same parameters, which starts from a given state.
    backwards : tuple of bool
        Whether each of them reads in reverse.
    batch_first : bool
        Whether the batch is the first axis of inputs and outputs.
    """

    def __init__(self, node: Node, layers: list[Recurrent]) -> None:
        self.backwards = _DIRECTIONS[_text(node, "direction", "forward")]
        self.layer = Bidirectional(*layers) if len(layers) == 2 else layers[0]
        self.layers = [copy.copy(layer) for layer in layers]
        for layer in self.layers:
            layer.stateful = True
        self.batch_first = bool(node.attributes.get("layout", 0))
        inputs = dict(enumerate(node.inputs))
        self._weights = {name: inputs.get(place, "") for name, place in WEIGHTS.items()}

    def homes(self) -> list[tuple[str, str]]:
        """The parameters of a layer in their order, each with the name of the constant that holds it."""
        names = self.layers[0].parameter_names
        return [(name, self._weights[HOMES.get(name, "P")]) for name in names]

    @property
    def dtype(self) -> np.dtype:
        """The dtype of parameters, inputs and outputs."""
        return self.layers[0].dtype

    def size(self, inputs: list[Any]) -> int:
        """The number of elements of the largest array that `run` will make."""
        batch_steps = math.prod(inputs[X].shape[:2])
        width = self.layers[0].hidden_size
        return batch_steps * max(*inputs[X].shape[2:], width * len(self.layers))

    def run(self, inputs: list[Any]) -> list[np.ndarray]:
        """Y, Y_h and, of an LSTM, Y_c, in the axes of ONNX."""
        inputs = [*inputs, *[None] * 8][:8]
        xs = inputs[X] if self.batch_first else inputs[X].swapaxes(0, 1)
        if xs.ndim != 3:
            raise ValueError(f"X must have 3 axes, got {xs.ndim}")
        xs = np.ascontiguousarray(xs)
        batch, steps, _ = xs.shape
        lengths = inputs[LENGTHS]
        lengths = None if lengths is None else _check.lengths("sequence_lens", lengths, batch, steps)
        states = [self._initial(array, batch) for array in inputs[INITIAL_H : INITIAL_C + 1]]
        width = self.layers[0].hidden_size
        ys = np.empty((batch, steps, len(self.layers), width), self.dtype)
        last = np.zeros((len(self.layers[0].cell.states), len(self.layers), batch, width), self.dtype)
        for place, (layer, back) in enumerate(zip(self.layers, self.backwards, strict=True)):
            given = [None if state is None else state[place] for state in states]
            ys[:, :, place], last[:, place] = _run(layer, xs, lengths, given, back)
        if self.batch_first:
            return [ys, *(state.swapaxes(0, 1) for state in last)]
        return [ys.transpose(1, 2, 0, 3), *last]

    def _initial(self, array: Any, batch: int) -> np.ndarray | None:
        """An initial state (directions, N, H)."""
        if array is None:
            return None
        array = array.swapaxes(0, 1) if self.batch_first else array
        expected = (len(self.layers), batch, self.layers[0].hidden_size)
        return _check.floats("initial_h or initial_c", "state", array, expected, self.dtype)


def _run(
    layer: Recurrent, xs: np.ndarray, lengths: np.ndarray | None, given: list[Any], back: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Outputs (N, T, H) and final states (S, N, H) of one direction, in the order of time."""
    batch, steps, _ = xs.shape
    start = np.zeros((len(layer.cell.states), batch, layer.hidden_size), layer.dtype)
    for state, value in zip(start, given, strict=False):
        if value is not None:
            state[...] = value
    if not batch * steps:
        return np.zeros((batch, steps, layer.hidden_size), layer.dtype), start
    places = None
    if back:
        whole = np.full(batch, steps) if lengths is None else lengths
        places = reversed_places(whole, steps)
        xs = xs[places]
    layer.carry(start)
    try:
        hs = layer.forward(xs, lengths=lengths, keep=False)
        last = np.array(layer.carried)
    finally:
        layer.reset_state()
        layer.forget_window()
    return (hs if places is None else hs[places]), last


def recurrent_node(node: Node, constants: Mapping[str, np.ndarray], shared: Shared) -> RecurrentNode:
    """The node on its constants; ValueError for what is not served."""
    attributes = node.attributes
    _check_attributes(node)
    arrays = {}
    for name, place in WEIGHTS.items():
        given = node.inputs[place] if place < len(node.inputs) else ""
        if given and given not in constants:
            raise ValueError(f"its {name} is computed when the graph runs, and layers need constants")
        arrays[name] = constants[given] if given else None
    if (arrays["W"] is None) or (arrays["R"] is None):
        raise ValueError("its W or R is missing")
    cells_of = _cells(node, arrays["P"] is not None)
    _check_shapes(node, arrays, len(cells_of))
    layers = [shared.layer(cell, place, list(arrays.values())) for place, cell in enumerate(cells_of)]
    hidden = attributes.get("hidden_size")
    if hidden is not None and hidden != layers[0].hidden_size:
        raise ValueError(f"its hidden_size is {hidden}, but R has {layers[0].hidden_size} columns")
    return RecurrentNode(node, layers)


def _text(node: Node, name: str, default: str) -> str:
    value = node.attributes.get(name, default)
    if not isinstance(value, str):
        raise ValueError(f"its {name} is not a text")
    return value


def _whole(node: Node, name: str, allowed: tuple[int, ...]) -> int:
    value = node.attributes.get(name, 0)
    if not isinstance(value, int) or value not in allowed:
        raise ValueError(f"its {name} is {value!s:.30}, which is not served")
    return value


def _check_attributes(node: Node) -> None:
    """What changes the equations is served or refused by name."""
    attributes = node.attributes
    for name in attributes.keys() - _KNOWN:
        raise ValueError(f"its attribute {name} is not known")
    if _text(node, "direction", "forward") not in _DIRECTIONS:
        raise ValueError(f"its direction is {attributes['direction']}")
    clip = attributes.get("clip", _LARGEST_FLOAT)
    if not isinstance(clip, float) or not clip >= _LARGEST_FLOAT:
        raise ValueError(f"its clip is {clip!s:.30}; the layers do not clip")
    _whole(node, "input_forget", (0,))
    _whole(node, "layout", (0, 1))
    _whole(node, "linear_before_reset", (0, 1))
    for name in ("activation_alpha", "activation_beta"):
        if np.any(np.asarray(attributes.get(name, 0.0)) != 0):
            raise ValueError(f"its {name} is not served")


def _cells(node: Node, peepholes: bool) -> list[Cell]:
    """The cell of each direction."""
    count = len(_DIRECTIONS[_text(node, "direction", "forward")])
    default = _ACTIVATIONS[node.op]
    names = node.attributes.get("activations") or default * count
    if not isinstance(names, list) or len(names) != len(default) * count:
        raise ValueError(f"its activations must be {len(default) * count} names")
    names = [name.lower() for name in names]
    if node.op == "RNN" and set(names) <= set(_RNN_CELLS):
        return [_RNN_CELLS[name] for name in names]
    if names != default * count:
        raise ValueError(f"its activations are {', '.join(node.attributes['activations'])}; only "
                         f"{', '.join(default)} are served")  # fmt: skip
    if node.op == "GRU":
        return [cells.gru_after if node.attributes.get("linear_before_reset") else cells.gru] * count
    return [cells.peephole_lstm if peepholes else cells.lstm] * count


def _check_shapes(node: Node, arrays: dict[str, Any], count: int) -> None:
    """The shapes of W (directions, G*H, D), R (directions, G*H, H), B (directions, 2*G*H), P (directions,
    3*H), and one dtype."""
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[node.op]
    w, r = arrays["W"], arrays["R"]
    if w.ndim != 3 or r.ndim != 3:
        raise ValueError("its W and R must have 3 axes")
    rows, depth, width = gates * r.shape[2], w.shape[2], r.shape[2]
    if not depth or not width:
        raise ValueError("its W or R is empty")
    expected = {"W": (rows, depth), "R": (rows, width), "B": (2 * rows,), "P": (3 * width,)}
    for name, array in arrays.items():
        if array is None:
            continue
        if array.shape != (count, *expected[name]):
            raise ValueError(f"its {name} is {array.shape}, but must be {(count, *expected[name])}")
        if array.dtype not in _check.FLOAT_DTYPES or array.dtype != w.dtype:
            raise ValueError(f"its {name} is {array.dtype}; W, R, B and P must be all float32 or float64")


def _layer(cell: Cell, arrays: list[Any]) -> Recurrent:
    """A layer from W (G*H, D), R (G*H, H), B (2*G*H,) and P (3*H,)."""
    w, r, b, p = arrays
    rows = r.shape[0]
    b = np.zeros(2 * rows, w.dtype) if b is None else b
    params = from_library(cell, LAYOUTS["ONNX"][cell], Arrays(w, r, b[:rows], b[rows:]))
    if p is not None:
        names = LAYOUTS["ONNX"][cell].peepholes
        params.update(zip(names, np.split(p, len(names)), strict=True))
    named = {name: params.pop(name) for name in cell.shapes(1, 1)}
    for name, array in named.items():  # one by one, since each may need a second copy
        named[name] = np.require(array, array.dtype.newbyteorder("="), ["C", "A", "W"])
    return layer_of(cell, named)
