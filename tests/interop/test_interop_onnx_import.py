"""`from_onnx`: recurrent nodes of files as layers, whole models, and what is refused by name.

RNNFAST_FUZZ is the number of mutated files.
"""

import importlib.util
import itertools
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from onnx_reference import model, recurrent, recurrent_model, weights

import rnnfast
from rnnfast import CheckpointError
from rnnfast.interop import from_onnx
from rnnfast.interop.onnx_import import model_of

onnx = pytest.importorskip("onnx")

from onnx import helper, numpy_helper  # noqa: E402

V, D, H = 11, 4, 6
FILES = int(os.environ.get("RNNFAST_FUZZ", "1000"))
DIRECTIONS = ("forward", "reverse", "bidirectional")
# The kinds of nodes: operator, attributes, and how the reference computes it.
KINDS = {
    "RNN": ("RNN", {}, {}),
    "relu": ("RNN", {"activations": ["Relu"]}, {"relu": True}),
    "LSTM": ("LSTM", {}, {}),
    "peepholes": ("LSTM", {}, {}),
    "GRU": ("GRU", {}, {}),
    "GRU after": ("GRU", {"linear_before_reset": 1}, {"after": True}),
}
LIMITS = {np.float32: 1e-6, np.float64: 1e-13}


def loaded(made, folder):
    onnx.save(made, folder / "model.onnx")
    return from_onnx(folder / "model.onnx")


def case(kind, direction, dtype, *, biases=True):
    """Inputs, constants, attributes and the reference's options of one node."""
    op, attributes, how = KINDS[kind]
    rng, count = np.random.default_rng(0), 2 if direction == "bidirectional" else 1
    constants = weights(op, rng, 3, 5, count, dtype, kind == "peepholes")
    if not biases:
        del constants["B"]
    attributes = {**attributes, "direction": direction, "hidden_size": 5}
    if "activations" in attributes:
        attributes["activations"] = attributes["activations"] * count
    return op, {"X": rng.standard_normal((6, 4, 3)).astype(dtype)}, constants, attributes, how


def outputs_of(layer, direction, X):
    """Y (T, directions, N, H) of a node from its layer."""
    xs = X.swapaxes(0, 1)[:, :: -1 if direction == "reverse" else 1]
    hs = layer.forward(np.ascontiguousarray(xs))[:, :: -1 if direction == "reverse" else 1]
    return np.stack(np.split(hs.swapaxes(0, 1), 2 if direction == "bidirectional" else 1, axis=-1), axis=1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize(("kind", "direction"), list(itertools.product(KINDS, DIRECTIONS)))
def test_layers_compute_what_their_nodes_do(kind, direction, biases, dtype, tmp_path):
    op, given, constants, attributes, how = case(kind, direction, dtype, biases=biases)
    graph = loaded(recurrent_model(op, given, constants, dtype=dtype, **attributes), tmp_path)
    layer = graph.layers["the node"]
    assert isinstance(layer, rnnfast.Bidirectional) is (direction == "bidirectional")
    actual = outputs_of(layer, direction, given["X"])
    assert actual.dtype == dtype
    expected = recurrent(op, direction, **given, **constants, **how)[0]
    np.testing.assert_allclose(actual, expected, rtol=LIMITS[dtype], atol=LIMITS[dtype])
    assert np.isfinite(layer.backward(np.ones_like(layer.forward(given["X"].swapaxes(0, 1).copy())))).all()


@pytest.mark.parametrize("opset", [7, 11, 12, 13, 14, 17, 22])
def test_every_version_of_the_operators_is_read(opset, tmp_path):
    op, given, constants, attributes, how = case("GRU", "forward", np.float32)
    graph = loaded(recurrent_model(op, given, constants, opset=opset, **attributes), tmp_path)
    expected = recurrent(op, "forward", **given, **constants, **how)[0]
    np.testing.assert_allclose(
        outputs_of(graph.layers["the node"], "forward", given["X"]), expected, atol=1e-6
    )


def test_two_directions_may_have_two_activations(tmp_path):
    op, given, constants, attributes, _ = case("RNN", "bidirectional", np.float32)
    attributes["activations"] = ["Relu", "Tanh"]
    layer = loaded(recurrent_model(op, given, constants, **attributes), tmp_path).layers["the node"]
    assert (layer.layer_forward.activation, layer.layer_backward.activation) == ("relu", "tanh")


def test_layers_are_on_copies_and_have_the_names_of_their_nodes(tmp_path):
    op, given, constants, attributes, _ = case("GRU", "forward", np.float32)
    made = recurrent_model(op, given, constants, ("Y", ""), **attributes)
    for name in ("", "the node"):
        again = made.graph.node.add()
        again.CopyFrom(made.graph.node[0])
        again.name, again.output[0] = name, f"Y of {name}"
    layers = loaded(made, tmp_path).layers
    assert list(layers) == ["the node", "GRU 1", "the node'"]
    layers["the node"].params[0][...] = 0
    assert layers["GRU 1"].params[0].any()


REFUSED = {
    "clip": ({"clip": 3.0}, "clip is 3.0"),
    "activations": (
        {"activations": ["HardSigmoid", "Tanh", "Tanh"]},
        "activations are HardSigmoid, Tanh, Tanh",
    ),
    "too few": ({"activations": ["Sigmoid"]}, "activations must be 3 names"),
    "input_forget": ({"input_forget": 1}, "input_forget is 1"),
    "direction": ({"direction": "sideways"}, "direction is sideways"),
    "alpha": ({"activation_alpha": [0.5]}, "activation_alpha"),
    "hidden_size": ({"hidden_size": 6}, "hidden_size is 6, but R has 5 columns"),
    "unknown": ({"colour": 1}, "colour is not known"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_layers_do_not_compute_is_refused_by_name(name, tmp_path):
    op, given, constants, attributes, _ = case("LSTM", "forward", np.float32)
    changed, message = REFUSED[name]
    made = recurrent_model(op, given, constants, **{**attributes, **changed})
    with pytest.raises(CheckpointError, match=message) as caught:
        loaded(made, tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'model.onnx'}: LSTM 'the node': ")


WRONG = {
    "rows": ("W", lambda a: a[:, :-1], "its W is"),
    "a bias": ("B", lambda a: a[:, :-1], "its B is"),
    "directions": ("R", lambda a: np.repeat(a, 2, 0), "its R is"),
    "axes": ("W", lambda a: a[0], "must have 3 axes"),
    "another dtype": ("R", lambda a: a.astype(float), "its R is float64"),
    "whole numbers": ("W", lambda a: a.astype(np.int64), "its R is float32|its W is int64"),
    "nothing": ("R", lambda a: a[:, :, :0], "is empty"),
}


@pytest.mark.parametrize("name", WRONG)
def test_weights_of_another_form_are_refused_by_name(name, tmp_path):
    op, given, constants, attributes, _ = case("LSTM", "forward", np.float32)
    weight, change, message = WRONG[name]
    constants[weight] = change(constants[weight])
    with pytest.raises(CheckpointError, match=f"LSTM 'the node': .*({message})"):
        loaded(recurrent_model(op, given, constants, **attributes), tmp_path)


def test_what_changes_nothing_is_accepted(tmp_path):
    op, given, constants, attributes, _ = case("LSTM", "forward", np.float32)
    same = {"clip": float("inf"), "activations": ["Sigmoid", "tanh", "TANH"], "input_forget": 0, "layout": 1}
    assert loaded(recurrent_model(op, given, constants, **{**attributes, **same}), tmp_path).layers


def test_all_nodes_that_are_refused_are_named_in_one_sentence(tmp_path):
    op, given, constants, attributes, _ = case("RNN", "forward", np.float32)
    given["W"] = constants.pop("W")
    made = recurrent_model(op, given, constants, **attributes)
    again = made.graph.node.add()
    again.CopyFrom(made.graph.node[0])
    again.name, again.output[:] = "other", ["Y2", "H2"]
    again.attribute.append(helper.make_attribute("clip", 2.0))
    with pytest.raises(CheckpointError, match=r"RNN 'the node': its W is computed.*; RNN 'other': its clip"):
        loaded(made, tmp_path)


def test_a_graph_without_a_recurrent_node_says_so(tmp_path):
    x = np.zeros(3, np.float32)
    with pytest.raises(CheckpointError, match="it has no RNN, LSTM or GRU"):
        loaded(model([helper.make_node("Tanh", ["x"], ["y"])], {"x": x}, {"y": x}, {}), tmp_path)


@pytest.mark.parametrize("opset", [11, 14])
def test_weights_are_found_behind_operators_that_move_them(opset, tmp_path):
    op, given, constants, attributes, how = case("LSTM", "forward", np.float32, biases=False)
    expected = recurrent(op, "forward", **given, **constants, **how)[0]
    node = recurrent_model(op, given, constants, **attributes).graph.node[0]
    node.input[1] = "W again"
    node.output[:] = ["Y"]
    halves = {f"half {k}": part.T.copy() for k, part in enumerate(np.split(constants["W"][0], 2))}
    zero = helper.make_node("Constant", [], ["zero"], value=numpy_helper.from_array(np.array([0])))
    older = {"inputs": ["rows"], "axes": [0]}  # an attribute up to version 12
    nodes = [
        *(helper.make_node("Transpose", [name], [f"{name}T"]) for name in halves),
        helper.make_node("Concat", [f"{name}T" for name in halves], ["rows"], axis=0),
        zero,
        helper.make_node(
            "Unsqueeze", outputs=["W 3"], **(older if opset < 13 else {"inputs": ["rows", "zero"]})
        ),
        helper.make_node("Identity", ["W 3"], ["W again"]),
        node,
    ]
    rest = {name: array for name, array in constants.items() if name != "W"}
    like = {"Y": np.zeros((1, 1, 1, 1), np.float32)}
    graph = loaded(model(nodes, given, like, {**halves, **rest}, opset), tmp_path)
    np.testing.assert_allclose(
        outputs_of(graph.layers["the node"], "forward", given["X"]), expected, atol=1e-6
    )


def branches(made):
    """A model that runs the graph of `made` if `flag` is true, and gives zeros otherwise."""
    graph = made.graph
    inner = helper.make_graph(list(graph.node), "then", [], list(graph.output), list(graph.initializer))
    zero = numpy_helper.from_array(np.zeros((1, 1, 1, 1), np.float32))
    other = helper.make_graph(
        [helper.make_node("Constant", [], ["none"], value=zero)],
        "else",
        [],
        [helper.make_tensor_value_info("none", 1, None)],
    )
    node = helper.make_node("If", ["flag"], ["out"], then_branch=inner, else_branch=other)
    flag = helper.make_tensor_value_info("flag", 9, [])
    out = helper.make_tensor_value_info("out", 1, None)
    whole = helper.make_graph([node], "graph", [*graph.input, flag], [out])
    return helper.make_model(whole, opset_imports=made.opset_import)


def test_the_branches_of_an_if_hold_layers(tmp_path):
    op, given, constants, attributes, how = case("GRU", "forward", np.float32)
    graph = loaded(branches(recurrent_model(op, given, constants, ("Y", ""), **attributes)), tmp_path)
    expected = recurrent(op, "forward", **given, **constants, **how)[0]
    np.testing.assert_allclose(
        outputs_of(graph.layers["the node"], "forward", given["X"]), expected, atol=1e-6
    )


# Whole models, compared with the graph in ONNX Runtime.


@pytest.fixture
def runtime():
    return pytest.importorskip("onnxruntime")


def run(path, **inputs):
    """The first output of a file in ONNX Runtime."""
    import onnxruntime

    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, inputs)[0]


def language_model(kind, layers, tied=False, middle=()):
    """A graph of an embedding, layers and an output layer, with the batch first; and its constants."""
    rng = np.random.default_rng(0)
    make, depth = helper.make_node, H if tied else D
    table = rng.standard_normal((V, depth)).astype(np.float32)
    constants = {"table": table, "one": np.array([1])}
    nodes = [make("Gather", ["table", "ids"], ["rows"]), make("Transpose", ["rows"], ["xs0"], perm=[1, 0, 2])]
    for k in range(layers):
        held = weights(kind, rng, H if k else depth, H)
        constants |= {f"{name}{k}": array for name, array in held.items()}
        inputs = [f"xs{k}", *(f"{name}{k}" for name in ("W", "R", "B"))]
        nodes += [
            make(kind, inputs, [f"Y{k}"], name=f"layer {k}", hidden_size=H),
            make("Squeeze", [f"Y{k}", "one"], [f"xs{k + 1}"]),
        ]
    constants["out"] = table.T.copy() if tied else rng.standard_normal((H, V)).astype(np.float32)
    constants["b"] = rng.standard_normal(V).astype(np.float32)
    nodes += [
        *middle,
        make("Transpose", [f"xs{layers}"], ["hs"], perm=[1, 0, 2]),
        make("MatMul", ["hs", "out"], ["product"], name="output"),
        make("Add", ["product", "b"], ["scores"]),
    ]
    like = {"scores": np.zeros((1, 1, 1), np.float32)}
    return model(nodes, {"ids": np.zeros((2, 3), np.int64)}, like, constants), constants


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(("kind", "layers"), [("RNN", 1), ("LSTM", 2), ("GRU", 3)])
def test_an_embedding_layers_and_an_output_are_a_language_model(kind, layers, tied, runtime, tmp_path):
    made, constants = language_model(kind, layers, tied)
    actual = loaded(made, tmp_path).model()
    assert isinstance(actual, rnnfast.RNNLM)
    assert (actual.config["layers"], actual.tied) == (layers, tied)
    np.testing.assert_array_equal(actual.params[0], constants["table"])
    ids = np.random.default_rng(1).integers(0, V, (4, 9))
    np.testing.assert_allclose(actual.predict(ids), run(tmp_path / "model.onnx", ids=ids), atol=1e-4)
    assert np.isfinite(actual.forward(ids[:, :-1], ids[:, 1:]))  # it trains
    actual.backward()


def test_a_node_that_does_not_fit_is_named(tmp_path):
    made, _ = language_model(
        "GRU", 1, middle=[helper.make_node("Relu", ["xs1"], ["xs2"], name="the odd one")]
    )
    for node in made.graph.node:
        node.input[:] = [
            "xs2" if name == "xs1" and node.name != "the odd one" else name for name in node.input
        ]
    graph = loaded(made, tmp_path)
    with pytest.raises(ValueError, match=r"the node 'the odd one' \(Relu\) is not part of one"):
        graph.model()


def test_a_graph_that_computes_something_else_is_no_model(runtime, tmp_path):
    """All its nodes may be around a model, but one halves the vectors of words."""
    made, _ = language_model("LSTM", 1)
    halved = helper.make_node("Mul", ["xs0", "half"], ["padded"])
    made.graph.node.insert(2, halved)
    made.graph.initializer.append(numpy_helper.from_array(np.float32(0.5), "half"))
    made.graph.node[3].input[0] = "padded"
    with pytest.raises(ValueError, match="computes another function"):
        loaded(made, tmp_path).model()


def test_the_part_that_a_language_model_does_not_have_is_named(tmp_path):
    """PyTorch's Embedding, LSTM in two directions, and Linear; then layers of two cells."""
    made, _ = language_model("GRU", 1)
    held = weights("GRU", np.random.default_rng(1), D, H, 2)
    for one in made.graph.initializer:
        if one.name[0] in held and one.name[1:] == "0":
            one.CopyFrom(onnx.numpy_helper.from_array(held[one.name[0]], one.name))
        if one.name == "out":
            one.CopyFrom(onnx.numpy_helper.from_array(np.zeros((2 * H, V), np.float32), "out"))
    (node,) = (node for node in made.graph.node if node.op_type == "GRU")
    node.attribute.append(helper.make_attribute("direction", "bidirectional"))
    with pytest.raises(ValueError, match=r"the node 'layer 0' \(GRU\) reads in two directions"):
        loaded(made, tmp_path).model()
    made, _ = language_model("GRU", 2)
    (node,) = (node for node in made.graph.node if node.name == "layer 1")
    node.attribute.append(helper.make_attribute("linear_before_reset", 1))
    with pytest.raises(ValueError, match=r"the node 'layer 1' \(GRU\) has another cell"):
        loaded(made, tmp_path).model()


@pytest.mark.parametrize("part", ["Gather", "MatMul"])
def test_a_language_model_without_one_of_its_ends_is_named(part, tmp_path):
    made, _ = language_model("GRU", 1)
    if part == "Gather":  # no affine layer
        made.graph.node[-2].CopyFrom(helper.make_node("Identity", ["hs"], ["scores"]))
        del made.graph.node[-1]
        pattern = r"the node 'Gather 0' \(Gather\) is an embedding without an affine layer"
    else:
        del made.graph.node[0]
        made.graph.input[0].CopyFrom(
            helper.make_tensor_value_info("rows", onnx.TensorProto.FLOAT, ["n", "t", D])
        )
        pattern = r"the node 'output' \(MatMul\) is an affine layer without an embedding"
    with pytest.raises(ValueError, match=pattern):
        loaded(made, tmp_path).model()


@pytest.mark.parametrize("tied", [False, True])
def test_the_homes_of_parameters_are_arrays_of_the_file(tied, runtime, tmp_path):
    """A node joins W of two arrays, as the exporter of PyTorch does."""
    made, constants = language_model("LSTM", 2, tied)
    for one in made.graph.initializer:
        if one.name == "W1":
            one.CopyFrom(onnx.numpy_helper.from_array(constants["W1"][:, :9], "upper"))
    made.graph.initializer.append(onnx.numpy_helper.from_array(constants["W1"][:, 9:], "lower"))
    made.graph.node.insert(0, helper.make_node("Concat", ["upper", "lower"], ["W1"], axis=1))
    graph = loaded(made, tmp_path)
    expected = {f"layer0_{name}": [(key, constants[key].shape)]
                for name, key in (("Wx", "W0"), ("Wh", "R0"), ("b", "B0"))}  # fmt: skip
    expected |= {
        "layer1_Wx": [("upper", (1, 9, H)), ("lower", (1, 4 * H - 9, H))],
        "layer1_Wh": [("R1", (1, 4 * H, H))],
        "layer1_b": [("B1", (1, 8 * H))],
        "embed_W": [("table", (V, H if tied else D))],
        "output_b": [("b", (V,))],
    }
    if tied:
        expected["embed_W"].append(("out", (H, V)))
    else:
        expected["output_W"] = [("out", (H, V))]
    actual, homes = model_of(graph)
    assert homes == expected
    assert list(homes) == actual.parameter_names


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_layers_alone_are_a_layer(direction, runtime, tmp_path):
    op, given, constants, attributes, _ = case("LSTM", direction, np.float32)
    graph = loaded(recurrent_model(op, given, constants, ("Y",), **attributes), tmp_path)
    if direction == "bidirectional":  # Y has the directions as an axis of its own
        with pytest.raises(ValueError, match=r"computes another function .* use graph\.layers"):
            graph.model()
        return
    actual = graph.model()
    assert isinstance(actual, rnnfast.TimeLSTM)
    assert actual.params[0] is not graph.layers["the node"].params[0]
    hs = actual.forward(given["X"].swapaxes(0, 1).copy())
    np.testing.assert_allclose(hs, run(tmp_path / "model.onnx", **given)[:, 0].swapaxes(0, 1), atol=1e-5)


def test_a_node_in_reverse_is_no_model(tmp_path):
    op, given, constants, attributes, _ = case("GRU", "reverse", np.float32)
    graph = loaded(recurrent_model(op, given, constants, **attributes), tmp_path)
    with pytest.raises(ValueError, match="the node 'the node'"):
        graph.model()


def test_a_graph_that_onnx_runtime_refuses_is_no_model(runtime, tmp_path):
    op, given, constants, attributes, _ = case("GRU", "forward", np.float64)
    graph = loaded(recurrent_model(op, given, constants, dtype=np.float64, **attributes), tmp_path)
    with pytest.raises(ValueError, match=r"ONNX Runtime does not run the graph, use graph\.layers"):
        graph.model()


# Exporters of others.


def network(kind, layers, both, batch_first, states, words, dtype="float32"):
    """A network of PyTorch and its inputs for N = 3 and T = 6."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = torch.nn.Embedding(V, D)
            options = {
                "bidirectional": both,
                "batch_first": batch_first,
                "dropout": 0.2 if layers > 1 else 0.0,
            }
            self.rnn = getattr(torch.nn, kind)(D, H, layers, **options)
            self.output = torch.nn.Linear(H * (1 + both), V)
            self.dropout = torch.nn.Dropout(0.1)

        def read(self, xs, state):
            xs = self.dropout(self.embedding(xs)) if words else xs
            hs, state = self.rnn(xs, state)
            scores = self.output(self.dropout(hs)) if words else hs
            last = state if isinstance(state, tuple) else (state,)
            return (torch.log_softmax(scores, -1) if words else scores, *last)

        # One method per number of states, since the exporter looks at the names of arguments.
        if not states:

            def forward(self, xs):
                return self.read(xs, None)
        elif kind == "LSTM":

            def forward(self, xs, h, c):
                return self.read(xs, (h, c))
        else:

            def forward(self, xs, h):
                return self.read(xs, h)

    net = Network().eval().to(getattr(torch, dtype))
    return net, inputs_of(kind, layers, both, batch_first, states, words, 3, 6, dtype)


def inputs_of(kind, layers, both, batch_first, states, words, batch, steps, dtype="float32"):
    import torch

    shape = (batch, steps) if batch_first else (steps, batch)
    xs = torch.randint(V, shape) if words else torch.randn(*shape, D)
    count = (2 if kind == "LSTM" else 1) if states else 0
    given = {"xs": xs}
    given |= {name: torch.randn(layers * (1 + both), batch, H) for name in ("h", "c")[:count]}
    return {name: a if a.dtype == torch.int64 else a.to(getattr(torch, dtype)) for name, a in given.items()}


def exported(net, given, path, batch_first, dynamo, time=True):
    """Write a file with dynamic batch, and dynamic time if `time`."""
    import torch

    place = 0 if batch_first else 1
    axes = {"xs": {place: "N", **({1 - place: "T"} if time else {})}}
    axes |= {name: {1: "N"} for name in given if name != "xs"}
    shapes = {name: dict.fromkeys(names, torch.export.Dim.DYNAMIC) for name, names in axes.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            torch.onnx.export(net, tuple(given.values()), path, dynamo=True, dynamic_shapes=shapes,
                              input_names=list(given), verbose=False)  # fmt: skip
        else:
            torch.onnx.export(net, tuple(given.values()), path, dynamo=False, dynamic_axes=axes,
                              input_names=list(given))  # fmt: skip


@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.parametrize("words", [False, True])
@pytest.mark.parametrize("states", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize(("kind", "layers"), [("RNN", 2), ("LSTM", 2), ("GRU", 1)])
def test_exports_of_pytorch(kind, layers, both, batch_first, states, words, dynamo, runtime, tmp_path):
    """The newer exporter writes weights into a second file, and unrolls nn.RNN."""
    if dynamo:
        pytest.importorskip("onnxscript")
        if not (words and states):  # each takes seconds
            return
    net, given = network(kind, layers, both, batch_first, states, words)
    exported(net, given, tmp_path / "model.onnx", batch_first, dynamo, time=not dynamo)
    if dynamo and kind == "RNN":
        with pytest.raises(CheckpointError, match="it has no RNN, LSTM or GRU"):
            from_onnx(tmp_path / "model.onnx")
        return
    graph = from_onnx(tmp_path / "model.onnx")
    assert len(graph.layers) == layers
    import torch

    torch.manual_seed(1)
    xs = given["xs"] if not words else net.embedding(given["xs"])
    stack = rnnfast.interop.from_torch(net.rnn)
    ours = stack.layers if isinstance(stack, rnnfast.Stack) else [stack]
    for layer, expected in zip(graph.layers.values(), ours, strict=True):
        for param, other in zip(layer.params, expected.params, strict=True):
            np.testing.assert_allclose(param, other, rtol=0, atol=1e-6)
    if words and both:
        with pytest.raises(ValueError, match="reads in two directions"):
            graph.model()
        return
    actual = graph.model()
    inputs = (given["xs"] if words else xs).numpy()
    inputs = inputs if batch_first else inputs.swapaxes(0, 1)
    with torch.no_grad():
        expected = net.rnn(xs)[0]
        expected = (net.output(expected) if words else expected).numpy()
    expected = expected if batch_first else expected.swapaxes(0, 1)
    inputs = np.ascontiguousarray(inputs)
    found = actual.predict(inputs) if words else actual.forward(inputs)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_the_language_model_of_pytorch_s_examples(kind, runtime, tmp_path):
    """Time first, states given, and the scores flattened before a log-softmax."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = torch.nn.Embedding(V, D)
            self.rnn = getattr(torch.nn, kind)(D, H, 2, dropout=0.5)
            self.decoder = torch.nn.Linear(H, V)

        def forward(self, ids, *state):
            hs, state = self.rnn(self.encoder(ids), state if kind == "LSTM" else state[0])
            return torch.log_softmax(self.decoder(hs).view(-1, V), dim=1), state

    net = Network().eval()
    ids = torch.randint(V, (7, 3))
    states = [torch.zeros(2, 3, H)] * (2 if kind == "LSTM" else 1)
    names = ["ids", "h", "c"][: 1 + len(states)]
    axes = {"ids": {0: "T", 1: "N"}, **{name: {1: "N"} for name in names[1:]}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (ids, *states), tmp_path / "model.onnx", dynamo=False, input_names=names,
                          dynamic_axes=axes)  # fmt: skip
    actual = from_onnx(tmp_path / "model.onnx").model()
    with torch.no_grad():
        expected = net(ids, *states)[0].numpy().reshape(7, 3, V).swapaxes(0, 1)
    scores = actual.predict(ids.numpy().T.copy()).astype(float)
    scores -= np.log(np.exp(scores).sum(-1, keepdims=True))
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def silero_files():
    found = importlib.util.find_spec("silero_vad")
    return [] if found is None else sorted(Path(found.submodule_search_locations[0], "data").glob("*.onnx"))


@pytest.mark.skipif(not silero_files(), reason="silero-vad is missing")
@pytest.mark.parametrize("path", silero_files(), ids=lambda path: path.name)
def test_the_layers_of_silero_vad(path):
    """A network that others use: convolutions and an LSTM of 128 units, in branches for two sample rates."""
    if "ifless" in path.name:  # it has its LSTM as products
        with pytest.raises(CheckpointError, match="it has no RNN, LSTM or GRU"):
            from_onnx(path)
        return
    layers = from_onnx(path).layers.values()
    assert {(type(layer).__name__, layer.hidden_size) for layer in layers} == {("TimeLSTM", 128)}


# Files of other kinds, and files of strangers.


@pytest.mark.parametrize(
    "content",
    [b"", b"{" * 4000, b"version https://git-lfs.github.com/spec/v1\noid", b"PK\x03\x04" + bytes(60),
     b"\x89HDF\r\n\x1a\n" + bytes(60), b"\x80\x02}q\x00.", b"\x08" + b"\xff" * (1 << 20)],
)  # fmt: skip
def test_a_file_of_another_kind_is_one_sentence(content, tmp_path):
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"not an ONNX file|it has no RNN, LSTM or GRU") as error:
        from_onnx(tmp_path / "model.onnx")
    assert str(error.value).startswith(f"{tmp_path / 'model.onnx'}: ")
    assert str(error.value).isprintable()


def test_a_missing_file_or_package_is_its_own_error(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError):
        from_onnx(tmp_path / "none.onnx")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (tmp_path / "some.onnx").touch()
    with pytest.raises(ModuleNotFoundError, match=r"from_onnx needs onnx: pip install 'rnnfast\[onnx\]'"):
        from_onnx(tmp_path / "some.onnx")


WHOLE = [
    -1,
    0,
    1,
    2,
    3,
    7,
    127,
    128,
    2**31 - 1,
    2**31,
    -(2**31),
    2**32,
    2**40,
    2**53,
    2**62,
    2**63 - 1,
    -(2**63),
]
FLOATS = [0.0, -1.0, 0.5, 1e38, float("inf"), float("-inf"), float("nan")]
NAMES = [
    "",
    "x",
    "Y",
    "W",
    "X",
    "y" * 5000,
    "\ud7ff",
    "../../etc/passwd",
    "LSTM",
    "Identity",
    "Expand",
    "Range",
    "Tile",
]


def lstm_file():
    """Two directions with all weights, one of them in pieces."""
    rng = np.random.default_rng(0)
    constants = weights("LSTM", rng, 4, 8, 2, peepholes=True)
    made = recurrent_model(
        "LSTM", {"X": np.zeros((3, 2, 4), np.float32)}, constants, direction="bidirectional", hidden_size=8
    )
    halves = np.split(constants["W"], 2, axis=1)
    for one in made.graph.initializer:
        if one.name == "W":
            one.CopyFrom(numpy_helper.from_array(halves[0], "upper"))
    made.graph.initializer.append(numpy_helper.from_array(halves[1].transpose(0, 2, 1).copy(), "lower"))
    made.graph.node.insert(0, helper.make_node("Transpose", ["lower"], ["transposed"], perm=[0, 2, 1]))
    made.graph.node.insert(1, helper.make_node("Concat", ["upper", "transposed"], ["W"], axis=1))
    return made


def numbers_of(message):
    """(message, field, place) for every number and text in a protobuf message."""
    for field, value in message.ListFields():
        repeated = not isinstance(value, int | float | str | bytes) and not hasattr(value, "ListFields")
        for place, one in enumerate(value if repeated else [value]):
            if hasattr(one, "ListFields"):
                yield from numbers_of(one)
            else:
                yield message, field, place if repeated else None, one


def replaced(base, rng):
    """The model with one number or text replaced by an extreme one."""
    made = onnx.ModelProto()
    made.CopyFrom(base)
    places = list(numbers_of(made))
    message, field, place, value = places[rng.integers(len(places))]
    kinds = {int: WHOLE, float: FLOATS, str: NAMES}
    if isinstance(value, bytes):
        new = value[: rng.integers(len(value) + 1)]
    else:
        choices = kinds[type(value)]
        new = choices[rng.integers(len(choices))]
    try:
        if place is None:
            setattr(message, field.name, new)
        else:
            getattr(message, field.name)[place] = new
    except (ValueError, TypeError):  # the field is smaller
        message.ClearField(field.name)
    return made.SerializeToString()


def mutated(content, base, rng):
    """One change of a random kind at a random place."""
    place = int(rng.integers(len(content)))
    match rng.integers(8):
        case 0 | 1:
            changed = bytearray(content)
            changed[place] ^= 1 << int(rng.integers(8))
            return bytes(changed)
        case 2:
            return content[:place]
        case 3:
            other, count = int(rng.integers(len(content))), int(rng.integers(1, 500))
            return content[:place] + content[other : other + count] + content[place:]
        case 4:
            changed = bytearray(content)
            patch = rng.integers(256, size=int(rng.integers(1, 16)), dtype=np.uint8).tobytes()
            changed[place : place + len(patch)] = patch
            return bytes(changed)
        case _:
            return replaced(base, rng)


@pytest.mark.filterwarnings("ignore")  # of onnx
def test_a_mutated_file_is_read_or_refused_in_one_sentence(tmp_path):
    base, path, rng = lstm_file(), tmp_path / "file.onnx", np.random.default_rng(0)
    original, counts = base.SerializeToString(), {"refused": 0, "read": 0}
    path.write_bytes(original)
    assert from_onnx(path).layers
    for _ in range(FILES):
        path.write_bytes(mutated(original, base, rng))
        message = f"{path}: "
        try:
            layers = from_onnx(path).layers
        except CheckpointError as error:
            counts["refused"] += 1
            message = str(error)
        else:
            counts["read"] += 1
            assert sum(param.nbytes for layer in layers.values() for param in layer.params) < 1 << 20
        assert message.startswith(f"{path}: ")
        assert message.isprintable()
    print(counts)
    assert min(counts.values()) > FILES // 10


def test_small_files_do_not_become_large_layers(tmp_path):
    """Weights that many nodes share, and a constant that doubles from node to node."""
    held = {name: np.zeros(shape, np.float32) for name, shape in (("W", (1, 256, 256)), ("R", (1, 256, 256)))}
    xs = np.zeros((1, 1, 256), np.float32)
    nodes = [helper.make_node("RNN", ["X", "W", "R"], [f"Y{k}"], hidden_size=256) for k in range(1000)]
    many = model(nodes, {"X": xs}, {"Y0": xs[None]}, held)
    nodes = [helper.make_node("Concat", [f"W{k}"] * 2, [f"W{k + 1}"], axis=1) for k in range(60)]
    nodes.append(helper.make_node("RNN", ["X", "W60", "R"], ["Y"], hidden_size=256))
    doubled = model(nodes, {"X": xs}, {"Y": xs[None]}, {"W0": held["W"], "R": held["R"]})
    for made in (many, doubled):
        with pytest.raises(CheckpointError, match="used many times, and there would be too many copies"):
            loaded(made, tmp_path)


@pytest.mark.filterwarnings("ignore")  # of onnx
@pytest.mark.parametrize("location", ["../weights", "/etc/passwd", "missing", "pipe", "link"])
def test_tensors_of_other_files_are_read_from_the_folder_of_the_file_alone(location, tmp_path):
    made = external(lstm_file(), location)
    folder = tmp_path / "inner"
    folder.mkdir()
    (tmp_path / "weights").write_bytes(bytes(1 << 16))
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe")
        (folder / "link").symlink_to(tmp_path / "weights")
    (folder / "model.onnx").write_bytes(made.SerializeToString())
    with pytest.raises(CheckpointError):
        from_onnx(folder / "model.onnx")


def external(made, location, **more):
    """The model with its first constant in another file."""
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, **more}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return made


@pytest.mark.filterwarnings("ignore")  # of onnx
def test_a_tensor_in_another_file_is_read(tmp_path):
    whole = lstm_file()
    raw = whole.graph.initializer[0].raw_data
    onnx.save(whole, tmp_path / "whole.onnx")
    (tmp_path / "weights").write_bytes(b"before" + raw)
    made = external(whole, "weights", offset="6", length=str(len(raw)))
    (tmp_path / "model.onnx").write_bytes(made.SerializeToString())
    one, two = (from_onnx(tmp_path / name).layers["the node"] for name in ("whole.onnx", "model.onnx"))
    assert all((a == b).all() for a, b in zip(one.params, two.params, strict=True))
    for offset, length in (("7", str(len(raw))), ("-1", "9"), ("6", "9"), ("x", "9"), ("9" * 30, "9")):
        entries = made.graph.initializer[0].external_data
        entries[1].value, entries[2].value = offset, length
        (tmp_path / "model.onnx").write_bytes(made.SerializeToString())
        with pytest.raises(CheckpointError):
            from_onnx(tmp_path / "model.onnx")
