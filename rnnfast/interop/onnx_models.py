"""Models from ONNX graphs: an embedding, recurrent layers and an output layer become an `RNNLM`."""

from __future__ import annotations

import copy

import numpy as np

from rnnfast import _check
from rnnfast.interop.agreement import LIMITS
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
    """

    def __init__(self, program: Program) -> None:
        self.layers: list[Recurrent | Bidirectional] = []
        self.table: np.ndarray | None = None
        self.W: np.ndarray | None = None
        self.b: np.ndarray | None = None
        self.last = ""
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
        elif node.op == "Gather" and held[0] is not None and held[0].ndim == 2:
            if self.table is not None or self.layers:
                return False
            self.table = held[0]
        elif node.op in ("MatMul", "Gemm"):
            if self.W is not None or held[1] is None or held[1].ndim != 2 or not self.layers:
                return False
            self.W = held[1].T if node.attributes.get("transB") else held[1]
            self.b = held[2] if len(held) > 2 else None
        elif node.op == "Add" and self.W is not None and self.b is None:
            self.b = next((array for array in held if array is not None and array.ndim == 1), None)
            return self.b is not None
        elif node.op in _LAST and not self.last:
            self.last = node.op
        else:
            return node.op in MOVES
        return True

    def _counts(self, node: Node, constants: dict[str, np.ndarray]) -> bool:
        """Whether a node computes with lengths of axes only."""
        if node.op in ("Shape", "Size"):
            return True
        known = {name for name, array in constants.items() if array.dtype.kind in "iu"} | self._sizes
        return bool(node.inputs) and all(name in known for name in node.inputs if name)

    def model(self) -> RNNLM | Layers:
        """The model of these parts, on copies of the arrays."""
        if not self.layers:
            raise _check.no_model(_OWNER, "", "")
        if self.table is None and self.W is None:
            both = [copy.deepcopy(layer) for layer in self.layers]
            return assembled([(one.layer_forward, one.layer_backward) if isinstance(one, Bidirectional)
                              else (one,) for one in both])  # fmt: skip
        layers = [layer for layer in self.layers if isinstance(layer, Recurrent)]
        kinds = {(layer.cell.fingerprint, layer.hidden_size) for layer in layers}
        if self.table is None or self.W is None or len(layers) < len(self.layers) or len(kinds) > 1:
            raise _check.no_language_model(_OWNER)
        (words, depth), width = self.table.shape, layers[0].hidden_size
        if depth != layers[0].input_size or self.W.shape != (width, words):
            raise _check.no_language_model(_OWNER)
        b = np.zeros(words, self.W.dtype) if self.b is None else self.b
        tied = depth == width and np.array_equal(self.W, self.table.T)
        made = RNNLM(words, depth, width, cell=layers[0].cell, layers=len(layers), tied=tied,
                     dtype=layers[0].dtype)  # fmt: skip
        held = [array for layer in layers for array in parameters(layer).values()]
        output = [b] if tied else [self.W, b]
        for param, array in zip(made.params, [self.table, *held, *output], strict=True):
            param[...] = array
        return made


def model_of(program: Program, inputs: list[Value], outputs: list[Value]) -> RNNLM | Layers:
    """The model that computes the graph; ValueError if there is none, or if it gives other numbers."""
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
            return made
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
