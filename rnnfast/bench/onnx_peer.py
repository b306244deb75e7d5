"""ONNX Runtime as a contender: one recurrent operator, time-major, forward only, bound output array."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnfast.bench.contenders import Runs
from rnnfast.bench.grid import LayerProblem, ModelProblem
from rnnfast.interop.layouts import to_library
from rnnfast.interop.onnx_layers import OPERATORS

_OPERATORS = {operator.cell: operator for operator in OPERATORS if not operator.layout.peepholes}
_OPSET, _IR = 14, 8  # operators of 2021, which older runtimes can also read


def start(threads: int) -> str:
    """The version; each session has its own limit of threads."""
    import onnxruntime

    return str(onnxruntime.__version__)


def _model(problem: LayerProblem) -> bytes:
    """The serialized operator with its weights."""
    from onnx import TensorProto, helper, numpy_helper

    how, (N, T, D, H) = _OPERATORS[problem.cell], problem.shape
    params = dict(zip(problem.cell.shapes(D, H), problem.params, strict=True))
    wx, wh, bx, bh = to_library(how.cell, how.layout, params)
    weights = {"W": wx, "R": wh, "B": np.concatenate([bx, bh])}
    attributes = how.attributes | ({"activations": [how.activation]} if how.activation else {})
    node = helper.make_node(how.kind, ["X", *weights], ["Y"], hidden_size=H, **attributes)
    graph = helper.make_graph(
        [node],
        problem.cell.name,
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, (T, N, D))],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, (T, 1, N, H))],
        [numpy_helper.from_array(np.ascontiguousarray(w[None]), name) for name, w in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
    return bytes(model.SerializeToString())


def layer(problem: LayerProblem) -> Runs | None:
    """A session for the operator; None for a cell that ONNX does not have."""
    import onnxruntime

    if problem.cell not in _OPERATORS:
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = problem.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(_model(problem), options, providers=["CPUExecutionProvider"])
    N, T, _, H = problem.shape
    xs = np.ascontiguousarray(problem.xs.swapaxes(0, 1))
    given = onnxruntime.OrtValue.ortvalue_from_numpy(xs)
    taken = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros((T, 1, N, H), np.float32))
    binding: Any = session.io_binding()
    binding.bind_ortvalue_input("X", given)
    binding.bind_ortvalue_output("Y", taken)

    def forward() -> None:
        session.run_with_iobinding(binding)

    def results(which: str) -> dict[str, np.ndarray]:
        forward()
        return {"hs": taken.numpy()[:, 0].swapaxes(0, 1)}

    return Runs({"forward": forward}, results)


def language_model(problem: ModelProblem) -> None:
    """None: ONNX Runtime is for inference."""
