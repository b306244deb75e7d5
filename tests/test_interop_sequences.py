"""Operators that make several tensors one value, beside ONNX Runtime."""

import warnings

import numpy as np
import pytest
from onnx_reference import model

from rnnfast.interop import from_onnx

onnx = pytest.importorskip("onnx")

from onnx import helper  # noqa: E402


def parts_of(split, axis, keepdims, places, path, like):
    """A graph whose outputs are parts of its input."""
    constants = {f"place{k}": np.array(place) for k, place in enumerate(places)}
    names = ["x"] if split is None else ["x", "split"]
    constants |= {} if split is None else {"split": np.array(split)}
    nodes = [helper.make_node("SplitToSequence", names, ["parts"], axis=axis, keepdims=keepdims)]
    nodes += [helper.make_node("SequenceAt", ["parts", f"place{k}"], [f"y{k}"]) for k in range(len(places))]
    outputs = {f"y{k}": np.zeros([1] * like, np.float32) for k in range(len(places))}
    made = model(nodes, {"x": np.zeros((1, 1, 1), np.float32)}, outputs, constants)
    onnx.save(made, path)
    return path


@pytest.mark.parametrize(
    ("split", "axis", "keepdims", "places"),
    [(None, 1, 0, (0, 2, -1)), (None, 0, 1, (1, -4)), (2, 1, 1, (0, 2)), (9, 1, 1, (0,)),
     ([1, 0, 4], 1, 0, (0, 1, 2))],
)  # fmt: skip
def test_parts_are_those_of_onnx_runtime(split, axis, keepdims, places, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    path = parts_of(split, axis, keepdims, places, tmp_path / "model.onnx", 3 if keepdims or split else 2)
    x = np.random.default_rng(0).standard_normal((4, 5, 3)).astype(np.float32)
    actual = from_onnx(path).run({"x": x})
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for one, other in zip(actual.values(), session.run(None, {"x": x}), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("split", "place", "why"),
    [(0, 0, "the size of the parts is 0"), ([2, 2], 0, "5 is not the sum"), (2, 7, "range"),
     ([-1, 6], 0, "sum")],
)  # fmt: skip
def test_parts_that_do_not_exist_are_one_sentence(split, place, why, tmp_path):
    graph = from_onnx(parts_of(split, 1, 1, (place,), tmp_path / "model.onnx", 3))
    with pytest.raises(ValueError, match=why):
        graph.run({"x": np.zeros((4, 5, 3), np.float32)})


def test_many_parts_of_no_bytes_are_too_large(tmp_path):
    graph = from_onnx(parts_of(None, 1, 1, (0,), tmp_path / "model.onnx", 3))
    with pytest.raises(ValueError, match="takes more than"):
        graph.run({"x": np.zeros((0, 1 << 40, 1), np.float32)})


@pytest.mark.parametrize("op", ["Tanh", "Identity", "Concat", "Tile", "Add"])
def test_other_operators_do_not_read_them(op, tmp_path):
    inputs = ["parts", "x"] if op in ("Add", "Tile") else ["parts"]
    nodes = [
        helper.make_node("SplitToSequence", ["x"], ["parts"]),
        helper.make_node(op, inputs, ["y"], **({"axis": 0} if op == "Concat" else {})),
    ]
    onnx.save(model(nodes, {"x": np.zeros((1,))}, {"y": np.zeros(1)}, {}), tmp_path / "model.onnx")
    with pytest.raises(ValueError, match="an input is a sequence of tensors"):
        from_onnx(tmp_path / "model.onnx").run({"x": np.ones(3)})
    nodes[1] = helper.make_node("SequenceAt", ["x", "x"], ["y"])
    onnx.save(model(nodes, {"x": np.zeros((1,))}, {"y": np.zeros(1)}, {}), tmp_path / "model.onnx")
    with pytest.raises(ValueError, match="or should be one"):
        from_onnx(tmp_path / "model.onnx").run({"x": np.ones(1)})


@pytest.mark.parametrize("both", [False, True])
def test_an_rnn_of_the_exporter_with_automatic_axes(both, tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = torch.nn.RNN(3, 4, bidirectional=both)

        def forward(self, xs):
            return self.rnn(xs)

    net, xs = Network().eval(), torch.randn(5, 2, 3)
    auto = torch.export.Dim.AUTO
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (xs,), tmp_path / "model.onnx", dynamo=True, verbose=False,
                          dynamic_shapes=({0: auto, 1: auto},), input_names=["xs"])  # fmt: skip
    graph = from_onnx(tmp_path / "model.onnx")
    with torch.no_grad():
        expected = net(xs)
    for one, other in zip(graph.run({"xs": xs.numpy()}).values(), expected, strict=True):
        np.testing.assert_allclose(one, other.numpy(), atol=1e-6)
    assert graph.layers == {}
    with pytest.raises(ValueError, match=r"is not part of one"):
        graph.model()
