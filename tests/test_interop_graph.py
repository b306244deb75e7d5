"""`from_onnx`: recurrent nodes, graphs inside nodes, and what is refused by name."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from onnx_reference import model, recurrent, recurrent_model, weights

import rnnfast
from rnnfast.interop import from_onnx

onnx = pytest.importorskip("onnx")

from onnx import helper, numpy_helper  # noqa: E402

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
    path = folder / "model.onnx"
    onnx.save(made, path)
    return from_onnx(path)


def case(kind, direction, dtype, rng, *, full, depth=3, width=5, steps=6, batch=4):
    """Inputs, constants, attributes and the reference's options of one node, with all inputs or the least."""
    op, attributes, how = KINDS[kind]
    count = 2 if direction == "bidirectional" else 1
    constants = weights(op, rng, depth, width, count, dtype, kind == "peepholes")
    given = {"X": rng.standard_normal((steps, batch, depth)).astype(dtype)}
    if full:
        given["sequence_lens"] = np.array([6, 1, 3, 4], np.int32)
        states = ("initial_h", "initial_c") if op == "LSTM" else ("initial_h",)
        given |= {name: rng.standard_normal((count, batch, width)).astype(dtype) for name in states}
    else:
        del constants["B"]
    attributes = {**attributes, "direction": direction, "hidden_size": width}
    if "activations" in attributes:
        attributes["activations"] = attributes["activations"] * count
    return op, given, constants, attributes, how


def expected_of(op, direction, given, constants, how):
    names = {"sequence_lens": "lengths", "initial_h": "h0", "initial_c": "c0"}
    arrays = {names.get(name, name): array for name, array in {**given, **constants}.items()}
    return recurrent(op, direction, **arrays, **how)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(("kind", "direction"), list(itertools.product(KINDS, DIRECTIONS)))
def test_recurrent_nodes_equal_the_reference(kind, direction, full, dtype, tmp_path):
    op, given, constants, attributes, how = case(kind, direction, dtype, np.random.default_rng(0), full=full)
    graph = loaded(recurrent_model(op, given, constants, dtype=dtype, **attributes), tmp_path)
    actual = graph.run(given)
    expected = expected_of(op, direction, given, constants, how)
    assert list(actual) == (["Y", "Y_h", "Y_c"] if op == "LSTM" else ["Y", "Y_h"])
    for one, other in zip(actual.values(), expected, strict=False):
        assert one.dtype == dtype
        np.testing.assert_allclose(one, other, rtol=LIMITS[dtype], atol=LIMITS[dtype])


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_layout_1_has_the_batch_first(direction, tmp_path):
    op, given, constants, attributes, how = case(
        "LSTM", direction, np.float32, np.random.default_rng(1), full=True
    )
    expected = expected_of(op, direction, given, constants, how)
    turned = {name: a if a.ndim == 1 else a.swapaxes(0, 1).copy() for name, a in given.items()}
    actual = loaded(recurrent_model(op, turned, constants, layout=1, **attributes), tmp_path).run(turned)
    np.testing.assert_allclose(actual["Y"], expected[0].transpose(2, 0, 1, 3), atol=1e-6)
    for name, other in zip(("Y_h", "Y_c"), expected[1:], strict=True):
        np.testing.assert_allclose(actual[name], other.swapaxes(0, 1), atol=1e-6)


@pytest.mark.parametrize("opset", range(7, 23))
def test_every_version_of_the_operators_is_read(opset, tmp_path):
    op, given, constants, attributes, how = case(
        "GRU", "forward", np.float32, np.random.default_rng(2), full=True
    )
    actual = loaded(recurrent_model(op, given, constants, opset=opset, **attributes), tmp_path).run(given)
    expected = expected_of(op, "forward", given, constants, how)
    np.testing.assert_allclose(actual["Y"], expected[0], atol=1e-6)


def test_outputs_may_be_missing(tmp_path):
    op, given, constants, attributes, how = case(
        "LSTM", "forward", np.float32, np.random.default_rng(3), full=True
    )
    made = recurrent_model(op, given, constants, ("", "", "Y_c"), **attributes)
    actual = loaded(made, tmp_path).run(given)
    assert list(actual) == ["Y_c"]
    np.testing.assert_allclose(actual["Y_c"], expected_of(op, "forward", given, constants, how)[2], atol=1e-6)


def test_two_directions_may_have_two_activations(tmp_path):
    op, given, constants, attributes, _ = case(
        "RNN", "bidirectional", np.float32, np.random.default_rng(4), full=True
    )
    attributes["activations"] = ["Relu", "Tanh"]
    actual = loaded(recurrent_model(op, given, constants, **attributes), tmp_path).run(given)["Y"]
    for place, relu in enumerate((True, False)):
        expected = expected_of(op, "bidirectional", given, constants, {"relu": relu})[0]
        np.testing.assert_allclose(actual[:, place], expected[:, place], atol=1e-6)


@pytest.mark.parametrize(("steps", "batch"), [(0, 4), (6, 0), (0, 0)])
def test_empty_windows_give_the_initial_state(steps, batch, tmp_path):
    op, given, constants, attributes, _ = case(
        "LSTM", "forward", np.float32, np.random.default_rng(5), full=True
    )
    graph = loaded(recurrent_model(op, given, constants, **attributes), tmp_path)
    given = {
        "X": np.zeros((steps, batch, 3), np.float32),
        "sequence_lens": np.zeros(batch, np.int32),
        "initial_h": given["initial_h"][:, :batch],
        "initial_c": given["initial_c"][:, :batch],
    }
    actual = graph.run(given)
    assert actual["Y"].shape == (steps, 1, batch, 5)
    np.testing.assert_array_equal(actual["Y_c"], given["initial_c"])


def test_a_run_leaves_no_state_behind(tmp_path):
    op, given, constants, attributes, _ = case(
        "LSTM", "bidirectional", np.float32, np.random.default_rng(6), full=True
    )
    graph = loaded(recurrent_model(op, given, constants, **attributes), tmp_path)
    first = graph.run(given)
    second = graph(**given)
    assert all((first[name] == second[name]).all() for name in first)
    assert graph.layers["the node"].layer_forward.h is None


def test_layers_hold_the_parameters_of_the_graph(tmp_path):
    op, given, constants, attributes, _ = case(
        "LSTM", "bidirectional", np.float32, np.random.default_rng(7), full=False
    )
    graph = loaded(recurrent_model(op, given, constants, **attributes), tmp_path)
    layer = graph.layers["the node"]
    assert isinstance(layer, rnnfast.Bidirectional)
    hs = layer.forward(given["X"].swapaxes(0, 1).copy())
    actual = graph.run(given)["Y"].transpose(2, 0, 1, 3).reshape(hs.shape)
    np.testing.assert_array_equal(actual, hs)
    assert np.isfinite(layer.backward(np.ones_like(hs))).all()
    layer.params[0][...] *= 2  # what is trained is what runs
    changed = graph.run(given)["Y"].transpose(2, 0, 1, 3).reshape(hs.shape)
    np.testing.assert_array_equal(changed, layer.forward(given["X"].swapaxes(0, 1).copy()))


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
    op, given, constants, attributes, _ = case(
        "LSTM", "forward", np.float32, np.random.default_rng(0), full=False
    )
    changed, message = REFUSED[name]
    made = recurrent_model(op, given, constants, **{**attributes, **changed})
    with pytest.raises(rnnfast.CheckpointError, match=message) as caught:
        loaded(made, tmp_path)
    assert "the node" in str(caught.value)
    assert str(tmp_path / "model.onnx") in str(caught.value)


def test_what_changes_nothing_is_accepted(tmp_path):
    op, given, constants, attributes, _ = case(
        "LSTM", "forward", np.float32, np.random.default_rng(0), full=False
    )
    same = {"clip": float("inf"), "activations": ["Sigmoid", "tanh", "TANH"], "input_forget": 0}
    assert loaded(recurrent_model(op, given, constants, **{**attributes, **same}), tmp_path).layers


def test_weights_that_are_computed_are_refused(tmp_path):
    op, given, constants, attributes, _ = case(
        "RNN", "forward", np.float32, np.random.default_rng(0), full=False
    )
    given["W"] = constants.pop("W")
    with pytest.raises(
        rnnfast.CheckpointError, match="RNN 'the node': its W is computed when the graph runs"
    ):
        loaded(recurrent_model(op, given, constants, **attributes), tmp_path)


def test_all_operators_that_are_not_served_are_named_in_one_sentence(tmp_path):
    x = np.zeros(3, np.float32)
    nodes = [
        helper.make_node("Det", ["x"], ["a"], name="first"),
        helper.make_node("Loop", ["a"], ["b"], name="second"),
        helper.make_node("Det", ["b"], ["y"], name="third"),
    ]
    with pytest.raises(
        rnnfast.CheckpointError, match=r"Det \(node 'first', 'third'\), Loop \(node 'second'\)"
    ):
        loaded(model(nodes, {"x": x}, {"y": x}, {}), tmp_path)


def test_weights_behind_nodes_of_constants_are_folded(tmp_path):
    op, given, constants, attributes, how = case(
        "LSTM", "forward", np.float32, np.random.default_rng(8), full=False
    )
    expected = expected_of(op, "forward", given, constants, how)[0]
    made = recurrent_model(op, given, constants, **attributes)
    node = made.graph.node[0]
    node.input[1] = "W again"
    halves = {f"half {k}": part.T.copy() for k, part in enumerate(np.split(constants["W"][0], 2))}
    nodes = [
        *(helper.make_node("Transpose", [name], [f"{name}T"]) for name in halves),
        helper.make_node("Concat", [f"{name}T" for name in halves], ["rows"], axis=0),
        helper.make_node("Constant", [], ["zero"], value=numpy_helper.from_array(np.array([0]))),
        helper.make_node("Unsqueeze", ["rows", "zero"], ["W 3"]),
        helper.make_node("Identity", ["W 3"], ["W again"]),
        node,
    ]
    rest = {name: array for name, array in constants.items() if name != "W"}
    like = {"Y": np.zeros((1, 1, 1, 1), np.float32)}
    node.output[:] = ["Y"]
    graph = loaded(model(nodes, given, like, {**halves, **rest}), tmp_path)
    np.testing.assert_allclose(graph.run(given)["Y"], expected, atol=1e-6)


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
    op, given, constants, attributes, how = case(
        "GRU", "forward", np.float32, np.random.default_rng(9), full=False
    )
    made = recurrent_model(op, given, constants, ("Y", ""), **attributes)
    graph = loaded(branches(made), tmp_path)
    assert list(graph.layers) == ["the node"]
    expected = expected_of(op, "forward", given, constants, how)[0]
    np.testing.assert_allclose(graph.run({**given, "flag": np.array(True)})["out"], expected, atol=1e-6)
    assert not graph.run({**given, "flag": np.array(False)})["out"].any()


def test_a_scan_runs_its_body_at_each_step(tmp_path):
    rng = np.random.default_rng(10)
    xs, start = (rng.standard_normal(shape).astype(np.float32) for shape in ((7, 2, 3), (2, 3)))
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Add", ["h", "x"], ["sum"]),
            helper.make_node("Tanh", ["sum"], ["next"]),
            helper.make_node("Mul", ["next", "two"], ["out"]),
        ],
        "body",
        [value("h", 1, [2, 3]), value("x", 1, [2, 3])],
        [value("next", 1, [2, 3]), value("out", 1, [2, 3])],
    )
    attributes = {"num_scan_inputs": 1, "scan_input_directions": [1], "scan_output_axes": [1]}
    node = helper.make_node("Scan", ["start", "xs"], ["last", "ys"], body=body, **attributes)
    made = model([node], {"start": start, "xs": xs}, {"last": start, "ys": xs}, {"two": np.float32(2)})
    actual = loaded(made, tmp_path).run({"start": start, "xs": xs})
    h, expected = start, []
    for x in xs[::-1]:
        h = np.tanh(h + x)
        expected.append(2 * h)
    np.testing.assert_allclose(actual["last"], h, atol=1e-6)
    np.testing.assert_allclose(actual["ys"], np.stack(expected, 1), atol=1e-6)
    with pytest.raises(
        ValueError, match=r"\(Scan\) cannot be computed: its inputs have no steps, and a Scan"
    ):
        from_onnx(tmp_path / "model.onnx").run({"start": start, "xs": xs[:0]})


def test_inputs_are_checked_by_name(tmp_path):
    op, given, constants, attributes, _ = case(
        "RNN", "forward", np.float32, np.random.default_rng(0), full=False
    )
    graph = loaded(recurrent_model(op, given, constants, **attributes), tmp_path)
    assert [value.name for value in graph.inputs] == ["X"]
    assert graph.inputs[0].shape == ("X_0", "X_1", "X_2")
    with pytest.raises(ValueError, match="the input X is missing"):
        graph.run({})
    with pytest.raises(ValueError, match="there is no input Z; inputs are X"):
        graph.run({**given, "Z": given["X"]})
    with pytest.raises(TypeError, match="X must be float32, got float64"):
        graph.run({"X": given["X"].astype(float)})
    with pytest.raises(ValueError, match="X must be"):
        graph.run({"X": given["X"][0]})
    with pytest.raises(ValueError, match=r"'the node' \(RNN\) cannot be computed"):
        graph.run({"X": given["X"][..., :2].copy()})


def test_a_result_larger_than_allowed_is_an_error(tmp_path):
    lengths = np.array([1 << 20, 1 << 20])
    made = model(
        [helper.make_node("ConstantOfShape", ["n"], ["y"])], {"n": lengths}, {"y": np.zeros((1, 1))}, {}
    )
    graph = loaded(made, tmp_path)
    with pytest.raises(ValueError, match=r"takes more than the 1073741824 bytes of graph\.memory"):
        graph.run({"n": lengths})
    assert graph.run({"n": np.array([2, 3])})["y"].shape == (2, 3)


def test_nodes_with_the_same_weights_share_their_layer(tmp_path):
    op, given, constants, attributes, _ = case(
        "GRU", "forward", np.float32, np.random.default_rng(11), full=False
    )
    made = recurrent_model(op, given, constants, ("Y", ""), **attributes)
    again = made.graph.node.add()
    again.CopyFrom(made.graph.node[0])
    again.name, again.output[0] = "again", "Y2"
    graph = loaded(made, tmp_path)
    assert graph.layers["the node"].params[0] is graph.layers["again"].params[0]


def test_threads_take_turns(tmp_path):
    rng = np.random.default_rng(12)
    op, given, constants, attributes, _ = case("LSTM", "forward", np.float32, rng, full=True)
    graph = loaded(recurrent_model(op, given, constants, **attributes), tmp_path)
    windows = [{**given, "X": rng.standard_normal((6, 4, 3)).astype(np.float32)} for _ in range(40)]
    expected = [graph.run(window)["Y_c"] for window in windows]
    with ThreadPoolExecutor(4) as pool:
        actual = list(pool.map(lambda window: graph.run(window)["Y_c"], windows))
    np.testing.assert_array_equal(actual, expected)
