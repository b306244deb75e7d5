"""`Graph.model` and `Graph.places` on files of `to_onnx`: the model that was written comes back."""

import json

import numpy as np
import pytest
from helpers import needs_jit
from user_cells import CELLS, layer_of

import rnnfast
from rnnfast import RNNLM, SequenceRegressor, cells, heads
from rnnfast.interop import from_onnx

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from rnnfast.interop.onnx_export import to_onnx  # noqa: E402
from rnnfast.interop.onnx_source import CONSTANTS, METADATA, source_of  # noqa: E402

pytestmark = needs_jit  # layers of many cells


def parameters_of(model):
    """All parameters by name."""
    if isinstance(model, RNNLM | SequenceRegressor):
        return dict(zip(model.parameter_names, model.params, strict=True))
    return {
        way.of(name): array
        for way in source_of("test", model).ways()
        for name, array in zip(way.layer.parameter_names, way.layer.params, strict=True)
    }


def assert_comes_back(model, path, **options):
    """What the file gives, after a comparison of all parameters and of their places."""
    exported = to_onnx(model, path, verbose=False, **options)
    graph = from_onnx(path)
    actual = graph.model()
    assert isinstance(actual, type(model))
    expected, found = parameters_of(model), parameters_of(actual)
    assert expected.keys() == found.keys()
    for name, array in expected.items():
        assert array.dtype == found[name].dtype
        assert array.tobytes() == found[name].tobytes(), name
        assert found[name].flags.writeable
    shapes = {one.name: tuple(one.dims) for one in onnx.load(path).graph.initializer}
    wanted = {row.parameter: [(row.initializer, shapes[row.initializer])] for row in exported.placed}
    assert graph.places() == wanted
    return actual


def random(model, seed=0):
    rng = np.random.default_rng(seed)
    for param in model.params:
        param[...] = rng.standard_normal(param.shape)
    return model


@pytest.mark.parametrize("kind", ["layer", "bidirectional", "stack"])
@pytest.mark.parametrize("name", CELLS)
def test_layers_of_any_cell_come_back(name, kind, tmp_path):
    lower = layer_of(name)
    upper = rnnfast.Bidirectional(layer_of(name, D=5, H=5, seed=1), layer_of(name, D=5, H=5, seed=2))
    both = rnnfast.Bidirectional(lower, layer_of(name, seed=1))
    made = {"layer": lower, "bidirectional": both, "stack": rnnfast.Stack([lower, upper])}[kind]
    assert_comes_back(made, tmp_path / "model.onnx", lengths=kind == "stack")


@pytest.mark.parametrize(("ahead", "back"), [("lstm", "gru"), ("lstm", "everything"), ("rnn", "relu")])
def test_directions_of_different_cells_and_sizes_come_back(ahead, back, tmp_path):
    layers = [layer_of(ahead, H=4), layer_of(back, H=6, seed=1)]
    assert_comes_back(rnnfast.Bidirectional(*layers), tmp_path / "model.onnx")


@pytest.mark.parametrize("cell", ["gru_after", "slstm"])
def test_float64_comes_back(cell, tmp_path):
    assert_comes_back(rnnfast.Stack([layer_of(cell, dtype=np.float64)]), tmp_path / "model.onnx")


HEADS = ("squared", "absolute", "gaussian", "student_t", "negative_binomial", heads.quantiles(0.1, 0.9))


@pytest.mark.parametrize("head", HEADS, ids=str)
def test_a_regressor_comes_back(head, tmp_path):
    model = SequenceRegressor(
        3, 5, 2, cell="gru", layers=2, head=head, dropout=0.25, rng=np.random.default_rng(0)
    )
    assert assert_comes_back(model, tmp_path / "model.onnx").config == model.config


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("cell", ["lstm", "gru_after", "slstm", "li_gru"])
def test_a_language_model_comes_back(cell, tied, tmp_path):
    model = random(RNNLM(11, 6, 6, cell=cell, layers=2, dropout=0.5, tied=tied))
    assert assert_comes_back(model, tmp_path / "model.onnx").config == model.config


def test_constants_of_a_cell_come_back(tmp_path):
    layer = random(cells.lif.layer(3, 4))
    layer.constants["beta"] = 0.5
    assert assert_comes_back(layer, tmp_path / "model.onnx").constants == layer.constants
    model = random(SequenceRegressor(3, 4, 1, cell="lif", layers=2))
    model.body.layers[1].constants["beta"] = 0.25
    assert assert_comes_back(model, tmp_path / "model.onnx").body.layers[1].constants["beta"] == 0.25


def test_a_cell_of_the_user_is_known_by_its_fingerprint(tmp_path):
    to_onnx(random(cells.slstm.layer(3, 4)), tmp_path / "model.onnx", verbose=False)
    config = {"model": "Recurrent", "cell": {"name": "mine", "fingerprint": "0" * 64}}
    written = changed(tmp_path / "model.onnx", config)
    with pytest.raises(rnnfast.CheckpointError, match=r"the cell 'mine' .* is not defined in this program"):
        from_onnx(written).model()


@pytest.mark.parametrize("cell", ["gru", "gru_after"])
def test_zero_biases_keep_their_sign(cell, tmp_path):
    """ONNX stores the gate z with the other sign."""
    model = RNNLM(11, 5, 6, cell=cell)
    model.params[-1][:3] = -0.0
    assert not any(param.any() for name, param in zip(model.parameter_names, model.params, strict=True)
                   if name == "layer0_b")  # fmt: skip
    assert_comes_back(model, tmp_path / "model.onnx")


def changed(path, config=..., **entries):
    """The file with another configuration, or with other entries of it."""
    file = onnx.load(path)
    props = {one.key: one.value for one in file.metadata_props}
    props[METADATA] = json.dumps(json.loads(props[METADATA]) | entries if config is ... else config)
    onnx.helper.set_model_props(file, props)
    onnx.save(file, path.with_name("changed.onnx"))
    return path.with_name("changed.onnx")


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        ({"hidden_size": 7}, "layer0_Wx is"),
        ({"hidden_size": 1 << 40}, "layer0_Wx is"),
        ({"hidden_size": -1}, "hidden_size must be"),
        ({"layers": 3}, "the array layer2_Wx is missing"),
        ({"layers": 1}, "such a model has the inputs"),
        ({"layers": 10**9}, "layers must be"),
        ({"cell": "gru"}, "layer0 is not a layer of the cell gru"),
        ({"cell": "os:system"}, "cell must be"),
        ({"dtype": "float64"}, "of float32, but must be"),
        ({"dtype": "complex64"}, "dtype"),
        ({"model": "CBOWLM"}, "does not fit the graph"),
        ({"tied": True}, "tied"),
        ({"tied": 3, "more": 4}, "does not fit the graph"),
    ],
)
def test_metadata_that_do_not_fit_are_one_sentence(entries, why, tmp_path):
    to_onnx(random(RNNLM(11, 5, 6, cell="lstm", layers=2)), tmp_path / "model.onnx", verbose=False)
    path = changed(tmp_path / "model.onnx", **entries)
    graph = from_onnx(path)  # it runs nevertheless
    with pytest.raises(rnnfast.CheckpointError, match=r"rnnfast\.model does not fit the graph: ") as caught:
        graph.model()
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [3, None, [], {}, {"model": "Stack"}, {"model": "Stack", "layers": []}, {"model": "Stack", "layers": [3]},
     {"model": "Bidirectional", "layers": [{"cell": "lstm"}] * 3}, {"model": ["Stack"]}],
)  # fmt: skip
def test_metadata_of_another_form_are_one_sentence(config, tmp_path):
    to_onnx(layer_of("lstm"), tmp_path / "model.onnx", verbose=False)
    with pytest.raises(rnnfast.CheckpointError, match=r"rnnfast\.model does not fit the graph: "):
        from_onnx(changed(tmp_path / "model.onnx", config)).model()


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '"' + "x" * (1 << 19)])
@pytest.mark.parametrize("entry", [METADATA, CONSTANTS])
def test_metadata_that_are_no_json_are_one_sentence(entry, text, tmp_path):
    to_onnx(layer_of("lstm"), tmp_path / "model.onnx", verbose=False)
    file = onnx.load(tmp_path / "model.onnx")
    props = {one.key: one.value for one in file.metadata_props} | {entry: text}
    onnx.helper.set_model_props(file, props)
    onnx.save(file, tmp_path / "model.onnx")
    with pytest.raises(rnnfast.CheckpointError, match=r"rnnfast\.model does not fit the graph"):
        from_onnx(tmp_path / "model.onnx").model()


def test_a_graph_that_was_changed_is_no_model(tmp_path):
    to_onnx(random(RNNLM(11, 5, 6, cell="lstm")), tmp_path / "model.onnx", verbose=False)
    file = onnx.load(tmp_path / "model.onnx")
    (add,) = (node for node in file.graph.node if node.op_type == "Add")
    add.op_type = "Sub"
    onnx.save(file, tmp_path / "model.onnx")
    with pytest.raises(rnnfast.CheckpointError, match="rnnfast and the graph differ by"):
        from_onnx(tmp_path / "model.onnx").model()
