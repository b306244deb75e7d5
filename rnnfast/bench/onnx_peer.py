"""ONNX Runtime as a contender: one recurrent operator, time-major, forward only, results in a bound array."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnfast.bench.contenders import Runs, reorder
from rnnfast.bench.grid import LayerProblem, ModelProblem

# Which of rnnfast's gates its blocks are: i, o, f, c, and z, r, h with z for "keep", so of the other sign.
_ORDER: dict[str, tuple[int, ...]] = {"rnn": (0,), "lstm": (2, 3, 0, 1), "gru": (0, 1, 2)}
_NEGATED: dict[str, tuple[int, ...]] = {"rnn": (), "lstm": (), "gru": (0,)}
_OPSET, _IR = 14, 8  # the operators as they have been since 2021, so that older runtimes read them too


def start(threads: int) -> str:
    """The version; each session is bound to its number of threads."""
    import onnxruntime

    return str(onnxruntime.__version__)


def _model(problem: LayerProblem) -> bytes:
    """The operator with its weights."""
    from onnx import TensorProto, helper, numpy_helper

    cell, (N, T, D, H) = problem.cell, problem.shape
    Wx, Wh, b = (reorder(param, _ORDER[cell], _NEGATED[cell]) for param in problem.params[:3])
    recurrent_bias = np.zeros_like(b)
    if cell == "gru":
        recurrent_bias[-H:] = problem.params[3]
    weights = {"W": Wx.T, "R": Wh.T, "B": np.concatenate([b, recurrent_bias])}
    options = {"linear_before_reset": 1} if cell == "gru" else {}
    node = helper.make_node(cell.upper(), ["X", *weights], ["Y"], hidden_size=H, **options)
    graph = helper.make_graph(
        [node],
        cell,
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, (T, N, D))],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, (T, 1, N, H))],
        [numpy_helper.from_array(np.ascontiguousarray(w[None]), name) for name, w in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
    return bytes(model.SerializeToString())


def layer(problem: LayerProblem) -> Runs:
    """A session for the operator."""
    import onnxruntime

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
    """Not measured: ONNX Runtime is for inference."""
