"""Whole models from ONNX files: those of `to_onnx`, and layers with an embedding and an affine layer."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.interop.agreement import LIMITS
from rnnfast.interop.named import described_cells, described_model
from rnnfast.interop.onnx_export import METADATA
from rnnfast.interop.onnx_import import MOVES, Constant, Graph, Home, Node
from rnnfast.interop.onnx_layers import HOMES
from rnnfast.interop.structure import Layers, assembled
from rnnfast.layers.recurrent import Recurrent
from rnnfast.models import RNNLM

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
            turned = first._replace(array=first.array.T) if given == [1] else first
            return self._keeps("W", turned, name, kind) and (
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
