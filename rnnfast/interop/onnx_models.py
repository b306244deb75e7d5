"""Models from ONNX graphs: an embedding, recurrent layers and an output layer become an `RNNLM`."""

from __future__ import annotations

import copy

import numpy as np

from rnnfast import _check
from rnnfast.interop.agreement import LIMITS, agree
from rnnfast.interop.onnx_described import Homes
from rnnfast.interop.onnx_operators import OPERATORS
from rnnfast.interop.onnx_program import Program, Step
from rnnfast.interop.onnx_reading import Node, Value
from rnnfast.interop.onnx_shapes import MOVES
from rnnfast.interop.structure import Layers, assembled, parameters
from rnnfast.layers.bidirectional import Bidirectional
from rnnfast.layers.recurrent import Recurrent
from rnnfast.models import RNNLM

_OWNER = "Graph.model"
# Sizes of the random input that both sides read, where they are dynamic.
_BATCH, _STEPS = 2, 5
_LONGEST, _MOST_BYTES = 1 << 12, 1 << 28
# What may follow the scores of a language model.
_LAST = ("LogSoftmax", "Softmax")


class Parts:
    """The parts of a graph in the order in which they are found.

    Attributes
    ----------
    layers : list of Recurrent or Bidirectional
    table : ndarray (V, D) or None
        The embedding.
    W, b : ndarray (H, V), (V,) or None
        The output layer.
    last : str
        The operator after the scores, "" if there is none.
    steps : list of Step
        The nodes of the layers.
    nodes : dict of str to Node
        The nodes of the embedding and of the output layer, by the attributes that come from them.
    homes : dict of str to str
        The names of the table, W and b.
    """

    def __init__(self, program: Program) -> None:
        self.layers: list[Recurrent | Bidirectional] = []
        self.table: np.ndarray | None = None
        self.W: np.ndarray | None = None
        self.b: np.ndarray | None = None
        self.last = ""
        self.steps: list[Step] = []
        self.nodes: dict[str, Node] = {}
        self.homes: dict[str, str] = {}
        self._sizes: set[str] = set()  # values that are lengths of axes
        for step in program.steps:
            if not self._takes(step, program.constants):
                raise _check.no_model(_OWNER, step.node.name, step.node.op)

    def _takes(self, step: Step, constants: dict[str, np.ndarray]) -> bool:
        """Take a node as one of the parts, or as one that only moves values; False if it is neither."""
        node = step.node
        held = [constants.get(name) for name in node.inputs]
        if self._counts(node, constants):
            self._sizes.update(node.outputs)
        elif step.recurrent is not None:
            if self.W is not None or step.recurrent.backwards == (True,):
                return False
            self.layers.append(step.recurrent.layer)
            self.steps.append(step)
        elif node.op == "Gather" and held[0] is not None and held[0].ndim == 2:
            if self.table is not None or self.layers:
                return False
            self.table = held[0]
            self._note("table", node, 0)
        elif node.op in ("MatMul", "Gemm"):
            if self.W is not None or held[1] is None or held[1].ndim != 2 or not self.layers:
                return False
            self.W = held[1].T if node.attributes.get("transB") else held[1]
            self._note("W", node, 1)
            self.b = held[2] if len(held) > 2 else None
            if self.b is not None:
                self._note("b", node, 2)
        elif node.op == "Add" and self.W is not None and self.b is None:
            for place, array in enumerate(held):
                if array is not None and array.ndim == 1:
                    self.b = array
                    self._note("b", node, place)
            return self.b is not None
        elif node.op in _LAST and not self.last:
            self.last = node.op
        else:
            return node.op in MOVES
        return True

    def _note(self, part: str, node: Node, place: int) -> None:
        self.nodes[part], self.homes[part] = node, node.inputs[place]

    def _counts(self, node: Node, constants: dict[str, np.ndarray]) -> bool:
        """Whether a node computes with lengths of axes only."""
        if node.op in ("Shape", "Size"):
            return True
        known = {name for name, array in constants.items() if array.dtype.kind in "iu"} | self._sizes
        return bool(node.inputs) and all(name in known for name in node.inputs if name)

    def places(self, made: RNNLM | Layers) -> Homes:
        """The names of the constants that hold each parameter of the model."""
        found: Homes = {}
        for place, step in enumerate(self.steps):
            assert step.recurrent is not None
            for end, _ in zip(("", "_reverse"), step.recurrent.backwards, strict=False):
                for name, home in step.recurrent.homes():
                    found[f"layer{place}{end}_{name}"] = [home] if home else []
        if not isinstance(made, RNNLM):
            return found
        found |= {"embed_W": [self.homes["table"]], "output_W": [self.homes["W"]]}
        found["output_b"] = [self.homes["b"]] if "b" in self.homes else []
        if made.tied:
            found["embed_W"] += found["output_W"]
        return {name: found[name] for name in made.parameter_names}

    def _refuse_other_shapes(self) -> None:
        """ValueError, with the name of the node, for parts that an RNNLM does not have."""
        first = self.layers[0]
        for step, layer in zip(self.steps, self.layers, strict=True):
            why = ""
            if isinstance(layer, Bidirectional):
                why = "reads in two directions, and layers of an RNNLM read forwards"
            elif isinstance(first, Recurrent) and layer.cell.fingerprint != first.cell.fingerprint:
                why = "has another cell than the first layer"
            elif layer.hidden_size != first.hidden_size:
                why = f"has the hidden size {layer.hidden_size}, but the first layer {first.hidden_size}"
            if why:
                raise _check.no_model(_OWNER, step.node.name, step.node.op, why)
        for part, other, why in (
            ("table", "W", "is an embedding without an affine layer after the layers"),
            ("W", "table", "is an affine layer without an embedding before the layers"),
        ):
            if part in self.nodes and other not in self.nodes:
                raise _check.no_model(_OWNER, self.nodes[part].name, self.nodes[part].op, why)
        assert self.table is not None
        assert self.W is not None
        words, width = len(self.table), first.hidden_size
        expected = {"table": (words, first.input_size), "W": (width, words)}
        for part, array in (("table", self.table), ("W", self.W)):
            if array.shape != expected[part]:
                why = f"has {array.shape}, but layers and words need {expected[part]}"
                raise _check.no_model(_OWNER, self.nodes[part].name, self.nodes[part].op, why)

    def model(self) -> RNNLM | Layers:
        """The model of these parts, on copies of the arrays."""
        if not self.layers:
            raise _check.no_model(_OWNER, "", "")
        if self.table is None and self.W is None:
            both = [copy.deepcopy(layer) for layer in self.layers]
            return assembled([(one.layer_forward, one.layer_backward) if isinstance(one, Bidirectional)
                              else (one,) for one in both])  # fmt: skip
        self._refuse_other_shapes()
        assert self.table is not None
        assert self.W is not None
        layers = [layer for layer in self.layers if isinstance(layer, Recurrent)]
        (words, depth), width = self.table.shape, layers[0].hidden_size
        b = np.zeros(words, self.W.dtype) if self.b is None else self.b
        tied = depth == width and np.array_equal(self.W, self.table.T)
        made = RNNLM(words, depth, width, cell=layers[0].cell, layers=len(layers), tied=tied,
                     dtype=layers[0].dtype)  # fmt: skip
        held = [array for layer in layers for array in parameters(layer).values()]
        output = [b] if tied else [self.W, b]
        for param, array in zip(made.params, [self.table, *held, *output], strict=True):
            param[...] = array
        return made


def model_of(
    program: Program, inputs: list[Value], outputs: list[Value], show: bool = False
) -> tuple[RNNLM | Layers, Homes]:
    """The model that computes the graph, and the constants that hold each parameter; ValueError if there is
    none, or if it gives other numbers."""
    parts = Parts(program)
    made = parts.model()
    for batch_first in (True, False):
        given = _random_inputs(made, inputs, batch_first)
        try:
            with np.errstate(all="ignore"):
                theirs = program.run(given, _MOST_BYTES)[outputs[0].name]
        except ValueError:  # the other order of axes
            continue
        xs = given[inputs[0].name]
        ours = _computed(made, xs if batch_first else xs.swapaxes(0, 1), parts.last)
        ours = ours if batch_first else ours.swapaxes(0, 1)
        limit = LIMITS[ours.dtype] * max(1.0, float(np.abs(ours).max(initial=0.0)))
        if ours.size == theirs.size and np.allclose(ours.reshape(theirs.shape), theirs, rtol=0, atol=limit):
            agree(_OWNER, "the graph", [ours.reshape(theirs.shape)], [theirs], show)
            return made, parts.places(made)
    raise _check.no_language_model(_OWNER)


def _random_inputs(made: RNNLM | Layers, inputs: list[Value], batch_first: bool) -> dict[str, np.ndarray]:
    """Words or vectors for the first input; for the others, states of zeros and whole lengths."""
    first = inputs[0].shape if inputs else None
    if first is None or len(first) < 2:
        raise _check.no_language_model(_OWNER)
    sizes = (_BATCH, _STEPS) if batch_first else (_STEPS, _BATCH)
    lengths = [axis if isinstance(axis, int) else size for axis, size in zip(first[:2], sizes, strict=True)]
    known = dict(zip(first[:2], lengths, strict=True))
    batch, steps = lengths if batch_first else lengths[::-1]
    rng = np.random.default_rng(0)
    given = {}
    for value in inputs:
        dtype = value.dtype or made.dtype
        axes = [axis if isinstance(axis, int) else known.get(axis, batch) for axis in value.shape or ()]
        if not all(0 <= axis <= _LONGEST for axis in axes) or len(axes) > 3:
            raise _check.no_language_model(_OWNER)
        given[value.name] = np.full(axes, steps if dtype.kind in "iu" else 0, dtype)
    drawn: np.ndarray
    if isinstance(made, RNNLM):
        drawn = rng.integers(0, made.params[0].shape[0], lengths)
    else:
        drawn = rng.standard_normal((*lengths, made.input_size))
    given[inputs[0].name] = drawn.astype(inputs[0].dtype or (np.int64 if drawn.ndim == 2 else made.dtype))
    return given


def _computed(made: RNNLM | Layers, xs: np.ndarray, last: str) -> np.ndarray:
    """Scores or hidden vectors (N, T, ...) of the model, from a fresh state."""
    xs = np.ascontiguousarray(xs)
    if not isinstance(made, RNNLM):
        return made.forward(xs, keep=False)
    scores = made.predict(xs.astype(np.int64))
    made.reset_state()
    return OPERATORS[last].run([scores], {"axis": -1}, 13) if last else scores
