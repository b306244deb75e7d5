"""Peak memory of `from_onnx`, as the system counts it."""

import os
import subprocess
import sys

import numpy as np
import pytest
from onnx_reference import model, recurrent_model, weights

onnx = pytest.importorskip("onnx")

from onnx import helper  # noqa: E402

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="the peak is read from /proc")
SLACK = 4 << 20
WIDTH = 800
CHILD = """
import sys
import rnnfast.interop.onnx_graph

def high():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))

before = high()
graph = rnnfast.interop.onnx_graph.from_onnx(sys.argv[1])
print(1024 * (high() - before))
"""


def plain(given, held):
    return recurrent_model("LSTM", given, held, ("Y",), hidden_size=WIDTH)


def folded(given, held):
    """The same node, its weights put together from the transposed weights of gates."""
    node = plain(given, held).graph.node[0]
    constants = {"B": held["B"], "zero": np.array([0])}
    nodes = []
    for name in ("W", "R"):
        gates = [f"{name} gate {k}" for k in range(4)]
        constants |= {
            gate: part.T.copy() for gate, part in zip(gates, np.split(held[name][0], 4), strict=True)
        }
        nodes += [helper.make_node("Transpose", [gate], [f"{gate} T"]) for gate in gates]
        nodes.append(helper.make_node("Concat", [f"{gate} T" for gate in gates], [f"{name} rows"], axis=0))
        nodes.append(helper.make_node("Unsqueeze", [f"{name} rows", "zero"], [name]))
    return model([*nodes, node], given, {"Y": np.zeros((1, 1, 1, 1), np.float32)}, constants)


def embedding(given, held):
    """Two large constants that stay as they are."""
    rng = np.random.default_rng(1)
    table = rng.standard_normal((9000, 256)).astype(np.float32)
    nodes = [helper.make_node("Gather", ["t", "i"], ["r"]), helper.make_node("MatMul", ["r", "o"], ["s"])]
    like = {"s": np.zeros((1, 1, 1), np.float32)}
    return model(nodes, {"i": np.zeros((1, 1), np.int64)}, like, {"t": table, "o": table.T.copy()})


@pytest.mark.parametrize("made", [plain, folded, embedding])
def test_a_large_file_takes_three_times_its_size(made, tmp_path):
    given = {"X": np.zeros((1, 1, WIDTH), np.float32)}
    path = tmp_path / "large.onnx"
    onnx.save(made(given, weights("LSTM", np.random.default_rng(0), WIDTH, WIDTH)), path)
    result = subprocess.run([sys.executable, "-c", CHILD, path], capture_output=True, text=True, check=True)
    peak, size = int(result.stdout), path.stat().st_size
    print(made.__name__, size, peak / size)
    assert peak < 3 * size + SLACK
