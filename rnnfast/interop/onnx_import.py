"""RNN, LSTM and GRU nodes of ONNX files as layers: `from_onnx`."""

from __future__ import annotations

import copy
import json
import os
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from rnnfast import _check, cells
from rnnfast.cells import Cell
from rnnfast.interop.named import LIMITS, described_cells, described_model
from rnnfast.interop.onnx_export import METADATA
from rnnfast.interop.onnx_layers import HOMES
from rnnfast.interop.structure import LAYOUTS, Arrays, Layers, assembled, from_library, layer_of
from rnnfast.layers.bidirectional import Bidirectional
from rnnfast.layers.recurrent import Recurrent
from rnnfast.layers.stack import Stack
from rnnfast.models import RNNLM, SequenceRegressor

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
# The activations of each direction that are served, and the cell of the RNN.
_ACTIVATIONS = {"LSTM": ["sigmoid", "tanh", "tanh"], "GRU": ["sigmoid", "tanh"], "RNN": ["tanh"]}
_RNN_CELLS = {"tanh": cells.rnn, "relu": cells.rnn_relu}
_DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}
_LARGEST_FLOAT = float(np.finfo(np.float32).max)
_KNOWN = {
    "activation_alpha", "activation_beta", "activations", "clip", "direction", "hidden_size", "input_forget",
    "layout", "linear_before_reset", "output_sequence",
}  # fmt: skip
# The inputs of a node that are weights.
_PLACES = {"W": 1, "R": 2, "B": 3, "P": 7}
# Operators through which exporters pass weights. A result has no more numbers than the inputs together.
MOVES = {"Cast", "Concat", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"}
# Layers and moved weights may take 16 times the bytes of the file, and a megabyte; gates that are cut apart
# and joined again take 11 times.
_MOST_TIMES, _SLACK = 16, 1 << 20


class Home(NamedTuple):
    """An array of a file: its name and its shape."""

    name: str
    shape: tuple[int, ...]


class Constant(NamedTuple):
    """A constant of a graph, and the arrays of the file that it was made from."""

    array: np.ndarray
    homes: list[Home]


class Node(NamedTuple):
    """A recurrent node.

    Attributes
    ----------
    name : str
    proto : onnx.NodeProto
    layers : list of Recurrent
        One for each direction.
    homes : dict of str to list of Home
        The arrays of the file that hold W, R, B and P.
    reads_in_reverse : bool
        Whether it has one direction, from the last step to the first.
    """

    name: str
    proto: Any
    layers: list[Recurrent]
    homes: dict[str, list[Home]]
    reads_in_reverse: bool


class Graph:
    """The recurrent layers of an ONNX file; made by `from_onnx`.

    Attributes
    ----------
    layers : dict of str to layer
        The layers by the name of the node: `TimeRNN`, `TimeLSTM`, `TimeGRU`, `Recurrent` (with peepholes) or
        `Bidirectional`, on copies of the weights. The layer of a node that reads in reverse reads what has
        been reversed.

    Examples
    --------
    >>> graph = rnnfast.interop.from_onnx("tagger.onnx")                        # doctest: +SKIP
    >>> hs = graph.layers["lstm"].forward(xs)                                   # doctest: +SKIP
    """

    def __init__(self, path: str | os.PathLike[str], proto: Any) -> None:
        self.path, self.proto = path, proto
        self.nodes, self.constants = _read(proto)
        self.layers: dict[str, Recurrent | Bidirectional] = {}
        for node in self.nodes:
            name = node.name
            while name in self.layers:  # a second node of a name
                name += "'"
            self.layers[name] = Bidirectional(*node.layers) if len(node.layers) == 2 else node.layers[0]

    def __repr__(self) -> str:
        return f"Graph({', '.join(f'{name}: {layer!r}' for name, layer in self.layers.items())})"

    def model(self) -> RNNLM | SequenceRegressor | Recurrent | Bidirectional | Stack:
        """The model that computes the graph, on copies of its parameters.

        A file of `to_onnx` gives the model that it was made from. Any other graph of recurrent layers is a
        layer or a `Stack`; with an embedding before and an affine layer after layers of one cell and size, it
        is an `RNNLM`. Such a model is compared with the graph, which runs in ONNX Runtime on random input.

        Raises
        ------
        ValueError
            A node, which is named, has no place in such a model, or the model gives other numbers.
        CheckpointError
            The file says of itself that it is from `to_onnx`, but is damaged, or its cell is not defined.
        ModuleNotFoundError
            onnxruntime is not installed.

        Examples
        --------
        >>> rnnfast.interop.from_onnx("words.onnx").model()                     # doctest: +SKIP
        RNNLM(vocab_size=10000, embed_size=650, hidden_size=650, cell='lstm', layers=2, ...)
        """

        return model_of(self)[0]


def from_onnx(path: str | os.PathLike[str]) -> Graph:
    """The RNN, LSTM and GRU nodes of an ONNX file as layers.

    The weights of each node must be constants: arrays of the file, perhaps moved by operators such as
    Transpose and Concat, as exporters write them. Nodes in the branches of an If are read too. The rest of
    the graph is not run.

    Parameters
    ----------
    path
        The file, also of a stranger. Tensors outside of it are read from files in the same folder.

    Returns
    -------
    Graph

    Raises
    ------
    CheckpointError
        The file is damaged, has no recurrent node, or has one with weights that are no constants, other
        activations, clipping or coupled gates. The message names the nodes.
    ModuleNotFoundError
        onnx is not installed.
    OSError
        The file cannot be read.

    Examples
    --------
    >>> rnnfast.interop.from_onnx("tagger.onnx").layers                         # doctest: +SKIP
    {'/rnn/LSTM': TimeLSTM(input_size=64, hidden_size=128, stateful=False)}
    """
    _check.training.readable("from_onnx", path)
    _check.interop.installed("from_onnx", "onnx", "onnx")
    import onnx

    try:
        return Graph(path, onnx.load(path, format="protobuf"))
    except Exception as error:  # protobuf and onnx raise many kinds
        reason = str(error) or type(error).__name__
        what = "" if isinstance(error, _Refused) else "not an ONNX file that can be read: "
        raise _check.training.malformed(path, what + reason.rstrip(".")) from None


class _Refused(ValueError):
    """Nodes that no layer computes."""


def _read(proto: Any) -> tuple[list[Node], dict[str, Constant]]:
    """The recurrent nodes of a file, and the constants of its graph outside of branches."""
    room = _Room(_MOST_TIMES * proto.ByteSize() + _SLACK)
    nodes, refused = [], []
    whole = _Constants(proto, proto.graph, {}, room)
    for constants in whole.nested():
        for index, one in enumerate(constants.graph.node):
            if one.op_type in GATES and one.domain in ("", "ai.onnx"):
                name = one.name or f"{one.op_type} {index}"
                try:
                    nodes.append(_node(name, one, constants.known, room))
                except ValueError as error:
                    refused.append(f"{one.op_type} {name!r}: {error}")
    if refused:
        raise _Refused("; ".join(refused))
    if not nodes and all(one.key != METADATA for one in proto.metadata_props):
        raise _Refused("it has no RNN, LSTM or GRU")
    return nodes, whole.known


class _Room:
    """The bytes that moved weights and layers may still take, so that a small file cannot take all memory."""

    def __init__(self, nbytes: int) -> None:
        self._nbytes = nbytes

    def take(self, nbytes: int) -> None:
        """Count bytes before they are taken."""
        self._nbytes -= nbytes
        if self._nbytes < 0:
            raise ValueError("its constants are used many times, and there would be too many copies")


class _Constants:
    """The constants of a graph by name: its arrays, and what operators in `MOVES` make of them."""

    def __init__(self, proto: Any, graph: Any, outer: dict[str, Constant], room: _Room) -> None:
        from onnx import numpy_helper

        self.graph, self.known = graph, dict(outer)
        self._proto, self._room = proto, room
        for tensor in graph.initializer:
            array = numpy_helper.to_array(tensor)
            self.known[tensor.name] = Constant(array, [Home(tensor.name, array.shape)])
        for node in graph.node:
            if node.op_type == "Constant" and [one.name for one in node.attribute] == ["value"]:
                array = numpy_helper.to_array(node.attribute[0].t)
                self.known[node.output[0]] = Constant(array, [Home(node.output[0], array.shape)])
            elif node.op_type == "Constant":
                self._fold(node)  # a number or a list of numbers
            elif node.op_type in MOVES and all(name in self.known for name in node.input if name):
                self._fold(node)

    def nested(self) -> Iterator[_Constants]:
        """These constants, and those of the graphs inside nodes."""
        yield self
        for node in self.graph.node:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    yield from _Constants(self._proto, attribute.g, self.known, self._room).nested()

    def _fold(self, node: Any) -> None:
        """Compute a node of constants by the reference of onnx."""
        from onnx import helper
        from onnx.reference import ReferenceEvaluator

        given = {name: self.known[name] for name in node.input if name}
        self._room.take(2 * sum(self.known[name].array.nbytes for name in node.input if name))
        values = [helper.make_tensor_value_info(name, 0, None) for name in (*given, *node.output)]
        graph = helper.make_graph([node], "moved", values[: len(given)], values[len(given) :])
        model = helper.make_model(graph, opset_imports=self._proto.opset_import)
        arrays = ReferenceEvaluator(model).run(None, {name: one.array for name, one in given.items()})
        homes = [home for one in given.values() for home in one.homes if one.array.dtype.kind == "f"]
        for name, array in zip(node.output, arrays, strict=True):
            self.known[name] = Constant(np.asarray(array), homes)


def _node(name: str, proto: Any, known: dict[str, Constant], room: _Room) -> Node:
    """The layers of a node on its constants; ValueError for what they do not compute."""
    from onnx import helper

    attributes = {one.name: helper.get_attribute_value(one) for one in proto.attribute}
    _check_attributes(attributes)
    arrays, homes = {}, {}
    for weight, place in _PLACES.items():
        given = proto.input[place] if place < len(proto.input) else ""
        if given and given not in known:
            raise ValueError(f"its {weight} is computed when the graph runs, and layers need constants")
        arrays[weight] = known[given].array if given else None
        homes[weight] = known[given].homes if given else []
    made = _cells(proto.op_type, attributes, arrays["P"] is not None)
    _check_shapes(GATES[proto.op_type], arrays, len(made), attributes.get("hidden_size"))
    room.take(2 * sum(array.nbytes for array in arrays.values() if array is not None))
    layers = [
        _layer(cell, [None if array is None else array[place] for array in arrays.values()])
        for place, cell in enumerate(made)
    ]
    return Node(name, proto, layers, homes, _text(attributes.get("direction", "")) == "reverse")


def _text(value: Any) -> str:
    return value.decode("ascii", "backslashreplace") if isinstance(value, bytes) else f"{value!s:.30}"


def _check_attributes(attributes: dict[str, Any]) -> None:
    """What changes the equations is served or refused by name."""
    for name in attributes.keys() - _KNOWN:
        raise ValueError(f"its attribute {name} is not known")
    if _text(attributes.get("direction", "forward")) not in _DIRECTIONS:
        raise ValueError(f"its direction is {_text(attributes['direction'])}")
    clip = attributes.get("clip", _LARGEST_FLOAT)
    if not isinstance(clip, float) or not clip >= _LARGEST_FLOAT:
        raise ValueError(f"its clip is {clip!s:.30}; the layers do not clip")
    for name, allowed in (("input_forget", (0,)), ("layout", (0, 1)), ("linear_before_reset", (0, 1))):
        if attributes.get(name, 0) not in allowed:
            raise ValueError(f"its {name} is {attributes[name]!s:.30}, which is not served")
    for name in ("activation_alpha", "activation_beta"):
        if np.any(np.asarray(attributes.get(name, 0.0)) != 0):
            raise ValueError(f"its {name} is not served")


def _cells(kind: str, attributes: dict[str, Any], peepholes: bool) -> list[Cell]:
    """The cell of each direction."""
    count = _DIRECTIONS[_text(attributes.get("direction", "forward"))]
    default = _ACTIVATIONS[kind]
    given = attributes.get("activations") or default * count
    names = [_text(name).lower() for name in (given if isinstance(given, list) else [given])]
    if len(names) != len(default) * count:
        raise ValueError(f"its activations must be {len(default) * count} names")
    if kind == "RNN" and set(names) <= set(_RNN_CELLS):
        return [_RNN_CELLS[name] for name in names]
    if names != default * count:
        told = ", ".join(map(_text, given))
        raise ValueError(f"its activations are {told}; only {', '.join(default)} are served")
    if kind == "GRU":
        return [cells.gru_after if attributes.get("linear_before_reset") else cells.gru] * count
    return [cells.peephole_lstm if peepholes else cells.lstm] * count


def _check_shapes(gates: int, arrays: dict[str, Any], count: int, hidden: Any) -> None:
    """The shapes of W (directions, G*H, D), R (directions, G*H, H), B (directions, 2*G*H), P (directions,
    3*H), and one dtype."""
    w, r = arrays["W"], arrays["R"]
    if w is None or r is None:
        raise ValueError("its W or R is missing")
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
        if array.dtype not in _check.arrays.FLOAT_DTYPES or array.dtype != w.dtype:
            raise ValueError(f"its {name} is {array.dtype}; W, R, B and P must be all float32 or float64")
    if hidden is not None and hidden != width:
        raise ValueError(f"its hidden_size is {hidden!s:.30}, but R has {width} columns")


def _layer(cell: Cell, arrays: list[Any]) -> Recurrent:
    """A layer from W (G*H, D), R (G*H, H), B (2*G*H,) and P (3*H,)."""
    w, r, b, p = arrays
    rows = r.shape[0]
    b = np.zeros(2 * rows, w.dtype) if b is None else b
    params = from_library(cell, LAYOUTS["ONNX"][cell], Arrays(w, r, b[:rows], b[rows:]))
    if p is not None:
        names = LAYOUTS["ONNX"][cell].peepholes
        params.update(zip(names, np.split(p, len(names)), strict=True))
    return layer_of(cell, {name: np.array(params[name], order="C") for name in cell.shapes(1, 1)})


# Whole models from ONNX files: those of `to_onnx`, and layers with an embedding and an affine layer.


_OWNER = "Graph.model"
# The arrays of the file that hold each parameter of a model.
Homes = dict[str, list[Home]]


def model_of(graph: Graph) -> tuple[Any, Homes]:
    """The model of a graph, and the arrays of the file that hold each of its parameters."""
    metadata = {one.key: one.value for one in graph.proto.metadata_props}
    if METADATA in metadata:
        return _described(graph, metadata[METADATA])
    chain = _Chain(graph)
    model = chain.model()
    _compare(graph, model, chain.last)
    return model, chain.homes(model)


# Files of `to_onnx`.

_PARAMETER = re.compile(r"embed_W|output_W|output_b|(layer\d+(?:_reverse)?)_\w+")


def _described(graph: Graph, text: str) -> tuple[Any, Homes]:
    """The model that a file of `to_onnx` was made from."""
    try:
        description = json.loads(text)
        arrays, homes = _parameters(graph, description)
        return described_model(_OWNER, arrays, description), homes
    except _check.CellMissing as error:
        raise _check.objects.cell_missing(error.name, error.fingerprint, graph.path) from None
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        told = isinstance(error, ValueError | TypeError) and not isinstance(error, json.JSONDecodeError)
        reason = str(error).removeprefix(f"{_OWNER}: ").rstrip(".") if told else "it is damaged"
        raise _check.training.malformed(
            graph.path, f"its entry {METADATA} does not fit the graph: {reason}"
        ) from None


def _parameters(graph: Graph, description: Any) -> tuple[dict[str, np.ndarray], Homes]:
    """Copies of the parameters by our names: those of recurrent nodes, and arrays of the file as they are."""
    weights = {name for node in graph.nodes for name in node.proto.input}
    plain = {
        name: one.array
        for name, one in graph.constants.items()
        if _PARAMETER.fullmatch(name) and name not in weights
    }
    homes = {name: graph.constants[name].homes for name in plain}
    layers: dict[str, tuple[Node, Recurrent]] = {}
    for node in graph.nodes:
        start = node.proto.input[1].removesuffix("_W")
        layers |= {start + "_reverse" * place: (node, layer) for place, layer in enumerate(node.layers)}
    scanned = {found[1] for name in plain if (found := _PARAMETER.fullmatch(name)) and found[1]}
    arrays = {name: np.array(array, order="C") for name, array in plain.items()}
    for place, cell in described_cells(_OWNER, description, {*layers, *scanned}).items():
        if place not in layers:
            continue
        node, layer = layers[place]
        if layer.cell.fingerprint != cell.fingerprint:
            raise ValueError(f"{place} is not a layer of the cell {cell.name}")
        for name, known, param in zip(cell.shapes(1, 1), layer.parameter_names, layer.params, strict=True):
            arrays[f"{place}_{name}"] = param.copy()
            homes[f"{place}_{name}"] = node.homes[HOMES.get(known, "P")]
    return arrays, homes


# Files of others.

# Nodes around the layers of a model: they move values, or compute lengths and zeros.
_AROUND = MOVES | {
    "Constant", "ConstantOfShape", "Div", "Dropout", "Equal", "Expand", "Flatten", "Gather", "Mod", "Mul",
    "Range", "Shape", "Size", "Sub", "Where",
}  # fmt: skip
# What may follow the scores of a language model.
_LAST = ("LogSoftmax", "Softmax")
# Sizes of the random input, where they are dynamic, and the longest axis where they are not.
_BATCH, _STEPS, _LONGEST = 2, 5, 1 << 12
_DTYPES = {"tensor(float)": "f4", "tensor(double)": "f8", "tensor(int64)": "i8", "tensor(int32)": "i4"}


class _Chain:
    """The parts of a graph in the order in which they are found: an embedding, layers, an affine layer.

    Attributes
    ----------
    nodes : list of Node
        Those of the layers.
    parts : dict of str to Constant
        "table", the embedding (V, D); "W" (H, V) and "b" (V,) of the affine layer.
    last : str
        The operator after the scores, "" if there is none.
    """

    def __init__(self, graph: Graph) -> None:
        self.nodes: list[Node] = []
        self.parts: dict[str, Constant] = {}
        self.last = ""
        self._places: dict[str, tuple[str, str]] = {}  # the nodes of the ends, for errors
        recurrent = {tuple(node.proto.output): node for node in graph.nodes}
        for index, proto in enumerate(graph.proto.graph.node):
            name = proto.name or f"{proto.op_type} {index}"
            held = [graph.constants.get(one) for one in proto.input]
            if not self._takes(proto, name, held, recurrent.get(tuple(proto.output))):
                raise _check.interop.no_model(_OWNER, name, proto.op_type)

    def _takes(self, proto: Any, name: str, held: list[Constant | None], node: Node | None) -> bool:
        """Take a node as one of the parts, or as one around them; False if it is neither."""
        kind = proto.op_type if proto.domain in ("", "ai.onnx") else ""
        axes = [None if one is None or one.array.dtype.kind != "f" else one.array.ndim for one in held]
        if node is not None:
            self.nodes.append(node)
            return "W" not in self.parts and not node.reads_in_reverse
        if kind == "Gather" and axes[0] == 2:
            return not self.nodes and self._keeps("table", held[0], name, kind)
        if kind in ("MatMul", "Gemm"):
            if len(axes) < 2 or axes[1] != 2 or not self.nodes:
                return False
            first, given = held[1], [one.i for one in proto.attribute if one.name == "transB"]
            assert first is not None
            transposed = first._replace(array=first.array.T) if given == [1] else first
            return self._keeps("W", transposed, name, kind) and (
                len(held) < 3 or self._keeps("b", held[2], name, kind)
            )
        if kind == "Add" and "W" in self.parts and 1 in axes:
            return self._keeps("b", held[axes.index(1)], name, kind)
        if kind in _LAST and not self.last:
            self.last = kind
            return True
        return kind in _AROUND

    def _keeps(self, part: str, constant: Constant | None, name: str, kind: str) -> bool:
        """Keep a part; False if there is one already."""
        if part in self.parts or constant is None:
            return False
        self.parts[part], self._places[part] = constant, (name, kind)
        return True

    def model(self) -> RNNLM | Layers:
        """The model of these parts, on copies of the arrays."""
        if not self.nodes:
            raise _check.interop.no_model(_OWNER, "", "")
        if not self.parts:
            return assembled([[copy.deepcopy(layer) for layer in node.layers] for node in self.nodes])
        self._check_parts()
        first, (table, W) = self.nodes[0].layers[0], (self.parts[part].array for part in ("table", "W"))
        words, depth = table.shape
        b = self.parts["b"].array if "b" in self.parts else np.zeros(words, W.dtype)
        tied = depth == first.hidden_size and np.array_equal(W, table.T)
        made = RNNLM(words, depth, first.hidden_size, cell=first.cell, layers=len(self.nodes), tied=tied,
                     dtype=first.dtype)  # fmt: skip
        held = [array for node in self.nodes for array in node.layers[0].params]
        for param, array in zip(made.params, [table, *held, *([] if tied else [W]), b], strict=True):
            param[...] = array
        return made

    def _check_parts(self) -> None:
        """ValueError, with the name of the node, for parts that an RNNLM does not have."""
        first: Recurrent = self.nodes[0].layers[0]
        for node in self.nodes:
            layer, why = node.layers[0], ""
            if len(node.layers) == 2:
                why = "reads in two directions, and layers of an RNNLM read forwards"
            elif layer.cell.fingerprint != first.cell.fingerprint:
                why = "has another cell than the first layer"
            elif layer.hidden_size != first.hidden_size:
                why = f"has the hidden size {layer.hidden_size}, but the first layer {first.hidden_size}"
            if why:
                raise _check.interop.no_model(_OWNER, node.name, node.proto.op_type, why)
        for part, other, why in (
            ("table", "W", "is an embedding without an affine layer after the layers"),
            ("W", "table", "is an affine layer without an embedding before the layers"),
        ):
            if part in self.parts and other not in self.parts:
                raise _check.interop.no_model(_OWNER, *self._places[part], why)
        words, width = len(self.parts["table"].array), first.hidden_size
        expected = {"table": (words, first.input_size), "W": (width, words), "b": (words,)}
        for part, constant in self.parts.items():
            if constant.array.shape != expected[part]:
                why = f"has {constant.array.shape}, but layers and words need {expected[part]}"
                raise _check.interop.no_model(_OWNER, *self._places[part], why)

    def homes(self, model: RNNLM | Layers) -> Homes:
        """The arrays of the file that hold each parameter of the model."""
        found: Homes = {}
        for place, node in enumerate(self.nodes):
            for end, layer in zip(("", "_reverse"), node.layers, strict=False):
                for name in layer.parameter_names:
                    found[f"layer{place}{end}_{name}"] = node.homes[HOMES.get(name, "P")]
        if not isinstance(model, RNNLM):
            return found
        ends = {name: self.parts[part].homes if part in self.parts else []
                for name, part in (("embed_W", "table"), ("output_W", "W"), ("output_b", "b"))}  # fmt: skip
        if model.tied:
            ends["embed_W"] = ends["embed_W"] + ends["output_W"]
        return {name: (found | ends)[name] for name in model.parameter_names}


def _compare(graph: Graph, model: RNNLM | Layers, last: str) -> None:
    """ValueError unless the graph computes what the model does, with the batch first or the time first."""
    _check.interop.installed(_OWNER, "onnx", "onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # an order of axes that does not fit is no news
    try:
        session = onnxruntime.InferenceSession(str(graph.path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has kinds of its own
        raise _check.interop.not_runnable(_OWNER, str(error)) from None
    failures = []
    for batch_first in (True, False):
        given = _random_inputs(model, session.get_inputs(), batch_first)
        try:
            theirs = session.run([session.get_outputs()[0].name], given)[0]
        except Exception as error:  # of the other order of axes, perhaps
            failures.append(str(error))
            continue
        xs = given[session.get_inputs()[0].name]
        ours = _computed(model, xs if batch_first else xs.swapaxes(0, 1), last)
        ours = ours if batch_first else ours.swapaxes(0, 1)
        limit = LIMITS[ours.dtype] * max(1.0, float(np.abs(ours).max(initial=0.0)))
        if ours.size == theirs.size and np.allclose(ours.reshape(theirs.shape), theirs, rtol=0, atol=limit):
            return
    if len(failures) == 2:
        raise _check.interop.not_runnable(_OWNER, failures[1])
    raise _check.interop.no_language_model(_OWNER)


def _random_inputs(model: RNNLM | Layers, inputs: list[Any], batch_first: bool) -> dict[str, np.ndarray]:
    """Words or vectors for the first input; for the others, states of zeros and whole lengths."""
    first = inputs[0].shape if inputs else []
    if len(first) < 2 or any(one.type not in _DTYPES for one in inputs):
        raise _check.interop.no_language_model(_OWNER)
    sizes = (_BATCH, _STEPS) if batch_first else (_STEPS, _BATCH)
    lengths = [axis if isinstance(axis, int) else size for axis, size in zip(first[:2], sizes, strict=True)]
    known = dict(zip(first[:2], lengths, strict=True))
    batch, steps = lengths if batch_first else lengths[::-1]
    rng, given = np.random.default_rng(0), {}
    for one in inputs:
        axes = [axis if isinstance(axis, int) else known.get(axis, batch) for axis in one.shape]
        if not all(0 <= axis <= _LONGEST for axis in axes) or len(axes) > 3:
            raise _check.interop.no_language_model(_OWNER)
        dtype = np.dtype(_DTYPES[one.type])
        given[one.name] = np.full(axes, steps if dtype.kind == "i" else 0, dtype)
    drawn: np.ndarray
    if isinstance(model, RNNLM):
        drawn = rng.integers(0, model.params[0].shape[0], lengths)
    else:
        drawn = rng.standard_normal((*lengths, model.input_size))
    given[inputs[0].name] = drawn.astype(_DTYPES[inputs[0].type])
    return given


def _computed(model: RNNLM | Layers, xs: np.ndarray, last: str) -> np.ndarray:
    """Scores or hidden vectors (N, T, ...) of the model, from a fresh state."""
    xs = np.ascontiguousarray(xs)
    if not isinstance(model, RNNLM):
        return model.forward(xs.astype(model.dtype), keep=False)
    scores = model.predict(xs.astype(np.int64))
    model.reset_state()
    if last:
        scores = scores - scores.max(-1, keepdims=True)
        scores -= np.log(np.exp(scores).sum(-1, keepdims=True))
    return np.exp(scores) if last == "Softmax" else scores
