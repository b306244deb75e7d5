"""`Graph.model` and the layers of graphs that do not run."""

import warnings

import numpy as np
import pytest
from onnx_reference import model, recurrent_model, weights

import rnnfast
from rnnfast.interop import from_onnx

onnx = pytest.importorskip("onnx")

from onnx import helper  # noqa: E402

V, D, H = 11, 4, 6


def loaded(made, folder, **options):
    onnx.save(made, folder / "model.onnx")
    return from_onnx(folder / "model.onnx", **options)


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
def test_an_embedding_layers_and_an_output_are_a_language_model(kind, layers, tied, tmp_path, capsys):
    made, constants = language_model(kind, layers, tied)
    graph = loaded(made, tmp_path)
    actual = graph.model()
    assert capsys.readouterr().out.startswith("Graph.model: rnnfast and the graph differ by at most ")
    assert graph.model(verbose=False) is not None
    assert capsys.readouterr().out == ""
    assert isinstance(actual, rnnfast.RNNLM)
    assert (actual.config["layers"], actual.tied) == (layers, tied)
    np.testing.assert_array_equal(actual.params[0], constants["table"])
    ids = np.random.default_rng(1).integers(0, V, (4, 9))
    np.testing.assert_allclose(actual.predict(ids), graph.run({"ids": ids})["scores"], atol=1e-5)
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


def test_a_graph_that_computes_something_else_is_no_model(tmp_path):
    """All its nodes have a place, but the words are shifted by a step."""
    made, _ = language_model("LSTM", 1)
    shift = helper.make_node("Pad", ["xs0", "pads"], ["padded"])
    made.graph.node.insert(2, shift)
    made.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 0, 0, 0, 0, 0]), "pads"))
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
def test_places_are_the_arrays_of_the_file(tied, tmp_path):
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
    assert graph.places() == expected
    assert list(graph.places()) == graph.model().parameter_names


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_layers_alone_are_a_layer(direction, tmp_path):
    count = 2 if direction == "bidirectional" else 1
    given = {"X": np.random.default_rng(2).standard_normal((5, 3, D)).astype(np.float32)}
    held = weights("LSTM", np.random.default_rng(3), D, H, count)
    graph = loaded(recurrent_model("LSTM", given, held, ("Y",), direction=direction), tmp_path)
    if count == 2:  # Y has the directions as an axis of its own
        with pytest.raises(ValueError, match="computes another function"):
            graph.model()
        return
    actual = graph.model()
    assert isinstance(actual, rnnfast.TimeLSTM)
    assert actual.params[0] is not graph.layers["the node"].params[0]
    hs = actual.forward(given["X"].swapaxes(0, 1).copy())
    np.testing.assert_array_equal(hs, graph.run(given)["Y"][:, 0].swapaxes(0, 1))


def test_a_node_in_reverse_is_no_model(tmp_path):
    given = {"X": np.zeros((5, 3, D), np.float32)}
    held = weights("GRU", np.random.default_rng(3), D, H)
    graph = loaded(recurrent_model("GRU", given, held, direction="reverse"), tmp_path)
    with pytest.raises(ValueError, match="the node 'the node'"):
        graph.model()


def test_the_layers_of_a_graph_that_does_not_run(tmp_path):
    made, constants = language_model("LSTM", 1, middle=[helper.make_node("Det", ["xs1"], ["d"], name="odd")])
    with pytest.raises(rnnfast.CheckpointError, match=r"not served: Det \(node 'odd'\)"):
        loaded(made, tmp_path)
    graph = loaded(made, tmp_path, run=False)
    layer = graph.layers["layer 0"]
    np.testing.assert_array_equal(layer.params[0][:, :H], constants["W0"][0].T[:, 2 * H : 3 * H])
    with pytest.raises(ValueError, match=r"Graph.run: it has operators that are not served: Det"):
        graph.run({"ids": np.zeros((1, 1), np.int64)})
    with pytest.raises(ValueError, match=r"Graph.model: it has operators"):
        graph.model()


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_the_language_model_of_pytorch_s_examples(kind, tmp_path):
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


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a text"),
        (b'ir_version: 8\ngraph {\n  name: "g"\n}\n', "a text"),
        (b"{" * 4000, "a text"),
        (b"PK\x03\x04" + bytes(60), "a zip archive, as TorchScript"),
        (b"\x89HDF\r\n\x1a\n" + bytes(60), "a file of HDF5"),
        (b"\x80\x02}q\x00.", "a pickle"),
    ],
)
def test_a_file_of_another_kind_is_one_sentence(content, kind, tmp_path):
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(rnnfast.CheckpointError, match=f"it is {kind}.*, not an ONNX file"):
        from_onnx(tmp_path / "model.onnx")


def test_torchscript_is_one_sentence(tmp_path):
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(torch.nn.Linear(2, 3)).save(tmp_path / "model.onnx")
    with pytest.raises(rnnfast.CheckpointError, match="TorchScript"):
        from_onnx(tmp_path / "model.onnx")
