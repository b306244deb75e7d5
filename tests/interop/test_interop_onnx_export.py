"""Models as ONNX files, run by ONNX Runtime beside rnnfast, and read again."""

import json

import numpy as np
import pytest
from helpers import needs_jit
from rnnfast.kernels.cell.expression import OPERATIONS, Graph
from rnnfast.kernels.cell.node import in_order
from user_cells import CELLS, layer_of

import rnnfast
from rnnfast import RNNLM, SequenceRegressor, cells, heads
from rnnfast.cells import (
    constant,
    exp,
    log,
    maximum,
    minimum,
    relu,
    scalar,
    sigmoid,
    softplus,
    sqrt,
    step,
    stop_gradient,
    tanh,
    unit,
    where,
)
from rnnfast.interop import from_onnx
from rnnfast.interop.named import arrays_of
from rnnfast.interop.onnx_export import METADATA, to_onnx
from rnnfast.interop.onnx_import import model_of
from rnnfast.interop.onnx_layers import FUNCTIONS, Writer, write_formula
from rnnfast.interop.onnx_layers import OPERATORS as CELLS_OF_ONNX
from rnnfast.interop.structure import LAYOUTS

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

pytestmark = needs_jit  # layers of many cells
OF_ONNX = ("rnn", "relu", "lstm", "gru", "gru_after", "peephole_lstm")


def exported(model, path, **options):
    to_onnx(model, path, **options)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run(session, **inputs):
    """The outputs by name."""
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def zeros(session, batch):
    """The initial states, by name."""
    rest = ("xs", "ids", "lengths")
    return {
        one.name: np.zeros((batch, one.shape[1]), np.float32)
        for one in session.get_inputs()
        if one.name not in rest and len(one.shape) == 2
    }


def states_of(layers):
    """The states of layers by name, from a list of the directions of each."""
    found = {}
    for place, both in enumerate(layers):
        for end, layer in zip(("", "_reverse"), both, strict=False):
            names = [f"layer{place}{end}_{state}" for state in layer.cell.states]
            found |= dict(zip(names, layer.get_state(), strict=True))
    return found


def given_to(layers, name_of_array, array):
    return {
        f"layer{place}{end}_{name_of_array}": array
        for place, both in enumerate(layers)
        for end, layer in zip(("", "_reverse"), both, strict=False)
        if name_of_array in layer.given_names
    }


def built(name, kind, dtype=np.float32):
    """A layer of a cell, in two directions or as a stack, and the directions of its layers."""
    lower = layer_of(name, dtype=dtype)
    if kind == "layer":
        return lower, [(lower,)]
    if kind == "bidirectional":
        back = layer_of(name, dtype=dtype, seed=1)
        return rnnfast.Bidirectional(lower, back), [(lower, back)]
    other = 5 if lower.given_names else 4  # a given array has the width of every layer
    uppers = [layer_of(name, D=5, H=H, dtype=dtype, seed=H) for H in (5, other)]
    top = rnnfast.Bidirectional(*uppers)
    return rnnfast.Stack([lower, top]), [(lower,), tuple(uppers)]


@pytest.mark.parametrize("lengths", [None, (4, 0, 9, 1, 9)], ids=["whole", "lengths"])
@pytest.mark.parametrize("kind", ["layer", "bidirectional", "stack"])
@pytest.mark.parametrize("name", CELLS)
def test_a_file_computes_what_the_layers_do(name, kind, lengths, tmp_path):
    """In two windows: the second continues the states of the first, with another size of batch and time than
    the comparison of `to_onnx`."""
    model, layers = built(name, kind)
    model.train_flg = False
    session = exported(model, tmp_path / "model.onnx", lengths=lengths is not None)
    rng, batch, steps = np.random.default_rng(5), 5, 9
    states = zeros(session, batch)
    for count in (steps, steps) if lengths is None else (steps,):
        xs = rng.standard_normal((batch, count, 3)).astype(np.float32)
        given = {
            array: rng.standard_normal((batch, count, 5)).astype(np.float32)
            for array in CELLS[name].equations.wanted
        }
        named = {}
        for array, value in given.items():
            named |= given_to(layers, array, value)
        if lengths is not None:
            named["lengths"] = np.array(lengths, np.int32)
        actual = run(session, xs=xs, **named, **states)
        expected = model.forward(xs, lengths=lengths, **given)
        np.testing.assert_allclose(actual.pop("hs"), expected, rtol=1e-5, atol=1e-5)
        states = {key.removesuffix("_next"): value for key, value in actual.items()}
        assert states.keys() == states_of(layers).keys()
        for key, value in states_of(layers).items():
            np.testing.assert_allclose(states[key], value, rtol=1e-5, atol=1e-5)


def operators(path):
    """The operators of a file outside of bodies."""
    return {node.op_type for node in onnx.load(path).graph.node}


@pytest.mark.parametrize("name", CELLS)
def test_cells_of_onnx_are_its_operators_and_others_a_scan(name, tmp_path):
    exported(layer_of(name), tmp_path / "model.onnx")
    kinds = operators(tmp_path / "model.onnx")
    assert ("Scan" in kinds) is (name not in OF_ONNX)
    assert bool(kinds & {"RNN", "LSTM", "GRU"}) is (name in OF_ONNX)


def test_directions_of_different_cells_and_sizes_are_two_nodes(tmp_path):
    for back in (layer_of("gru", H=2), layer_of("gru_after"), layer_of("li_gru"), layer_of("lstm", H=3)):
        model = rnnfast.Bidirectional(layer_of("gru"), back)
        session = exported(model, tmp_path / "model.onnx", lengths=True)
        xs = np.random.default_rng(0).standard_normal((4, 6, 3)).astype(np.float32)
        lengths = np.array([6, 1, 0, 3], np.int32)
        actual = run(session, xs=xs, lengths=lengths, **zeros(session, 4))["hs"]
        np.testing.assert_allclose(actual, model.forward(xs, lengths=lengths), rtol=1e-5, atol=1e-5)
    peepholes = rnnfast.Bidirectional(layer_of("peephole_lstm"), layer_of("lstm"))
    assert to_onnx(peepholes, tmp_path / "model.onnx").difference < 1e-6


@pytest.mark.skipif(
    tuple(map(int, onnx.__version__.split(".")[:2])) < (1, 23),
    reason="the reference computes neither LSTM nor two directions as ONNX Runtime does",
)
@pytest.mark.parametrize("kind", ["layer", "bidirectional", "stack"])
@pytest.mark.parametrize("name", sorted({*OF_ONNX} - {"relu"}))
def test_float64_operators_compute_what_the_layers_do(name, kind, tmp_path):
    """By the reference of onnx, which has no relu: ONNX Runtime has the operators in float32 only."""
    from onnx.reference import ReferenceEvaluator

    model, layers = built(name, kind, np.float64)
    assert to_onnx(model, tmp_path / "model.onnx").difference < 1e-5
    session = ReferenceEvaluator(str(tmp_path / "model.onnx"))
    rng, batch = np.random.default_rng(5), 4
    xs = rng.standard_normal((batch, 6, 3))
    for layer in (layer for both in layers for layer in both):
        layer.set_state(*(rng.standard_normal((batch, layer.hidden_size)) for _ in layer.cell.states))
    states = states_of(layers)
    actual = dict(zip(session.output_names, session.run(None, {"xs": xs, **states}), strict=True))
    expected = {"hs": model.forward(xs), **{f"{key}_next": v for key, v in states_of(layers).items()}}
    assert actual.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_allclose(actual[key], value, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in CELLS if name not in OF_ONNX])
def test_float64_scans_run_in_onnx_runtime(name, tmp_path):
    for kind in ("layer", "bidirectional"):
        model = built(name, kind, np.float64)[0]
        assert to_onnx(model, tmp_path / "model.onnx", lengths=True).difference < 1e-12


def test_a_cell_that_onnx_has_is_known_under_any_names(tmp_path):
    @rnnfast.cell(states=("told", "inner"))
    def remembering(stay, new, take, show, told, inner, *, a=unit(0.0), e=unit(0.0), j=unit(0.0)):
        inner = sigmoid(stay + a * inner) * inner + sigmoid(take + e * inner) * tanh(new)
        return sigmoid(show + j * inner) * tanh(inner), inner

    layer = remembering.layer(3, 5, rng=np.random.default_rng(0))
    for param in layer.params[3:]:
        param[...] = np.random.default_rng(1).standard_normal(5)
    result = to_onnx(rnnfast.Bidirectional(layer, layer_of("peephole_lstm")), tmp_path / "model.onnx")
    assert result.difference < 1e-6
    assert "Scan" not in operators(tmp_path / "model.onnx")
    homes = {row.parameter: row.initializer for row in result.placed}
    assert homes["layer0_a"] == homes["layer0_reverse_pf"] == "layer0_P"


def test_the_operators_are_those_of_the_table_of_layouts():
    assert {operator.cell for operator in CELLS_OF_ONNX} == LAYOUTS["ONNX"].keys()


@rnnfast.cell(states=("h", "v"))
def all_operations(a, n, h, v, *, floor=constant(-0.4), scale=scalar(0.7), tau=unit(2.0)):
    """Every operation of a formula, and a state that no number of the sequence enters."""
    rising = where(a <= n, a, -n) + where(a < 0.3, minimum(a, h), maximum(n, floor)) * where(
        h > n, 1.0, scale
    )
    grown = exp(-abs(a)) + log(1.5 + sigmoid(n)) - sqrt(abs(h) + 0.1) / softplus(a)
    return tanh(rising) + relu(grown) * step(a - 0.1) + stop_gradient(h) * 0.1, tau * scale


def test_every_operation_is_written_and_compared(tmp_path):
    """The kernels alone use fma; it is written as it is defined."""
    assert FUNCTIONS.keys() == OPERATIONS.keys()
    used = {node.op for node in in_order(all_operations.equations.after)}
    assert OPERATIONS.keys() - used == {"fma"}
    layer = all_operations.layer(3, 5, rng=np.random.default_rng(0))
    layer.constants["floor"] = 0.25
    for lengths in (False, True):
        assert to_onnx(layer, tmp_path / "model.onnx", lengths=lengths).difference < 1e-5


def test_a_multiply_add_is_written_as_two_nodes(tmp_path):
    formula, graph = Graph(), Writer(np.dtype(np.float32))
    inputs = [formula.input(name) for name in "abc"]
    write_formula(graph, [formula.apply("fma", *inputs)], dict(zip(inputs, "abc", strict=True)))
    assert [node.op_type for node in graph.nodes] == ["Mul", "Add"]
    assert list(graph.nodes[0].input) == ["a", "b"]
    assert graph.nodes[1].input[1] == "c"


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("cell", ["lstm", "gru", "li_gru"])
def test_a_language_model_gives_the_same_scores_in_one_call_and_in_two(cell, tied, tmp_path):
    model = RNNLM(31, 8, 8, cell=cell, layers=2, dropout=0.5, tied=tied, rng=np.random.default_rng(0))
    session = exported(model, tmp_path / "model.onnx")
    ids = np.random.default_rng(1).integers(31, size=(4, 12))
    whole = run(session, ids=ids, **zeros(session, 4))
    np.testing.assert_allclose(whole["scores"], model.predict(ids), rtol=1e-5, atol=1e-5)
    first = run(session, ids=ids[:, :5], **zeros(session, 4))
    states = {key.removesuffix("_next"): value for key, value in first.items() if key != "scores"}
    second = run(session, ids=ids[:, 5:], **states)
    both = np.concatenate([first["scores"], second["scores"]], axis=1)
    np.testing.assert_allclose(both, whole["scores"], rtol=1e-5, atol=1e-6)
    for key in states:
        np.testing.assert_allclose(second[f"{key}_next"], whole[f"{key}_next"], rtol=1e-5, atol=1e-6)


def test_tied_weights_are_stored_once(tmp_path):
    sizes = []
    for tied in (False, True):
        model = RNNLM(500, 8, 8, tied=tied, rng=np.random.default_rng(0))
        placed = to_onnx(model, tmp_path / "model.onnx").placed
        assert sorted(row.parameter for row in placed) == sorted(model.parameter_names)
        sizes.append((tmp_path / "model.onnx").stat().st_size)
    assert sizes[0] - sizes[1] > 500 * 8 * 4 - 100


@pytest.mark.parametrize("head", ["squared", "absolute", "gaussian", "student_t", "negative_binomial"])
def test_a_regressor_gives_the_values_of_its_distribution(head, tmp_path):
    model = SequenceRegressor(3, 8, 2, head=head, rng=np.random.default_rng(0))
    session = exported(model, tmp_path / "model.onnx", lengths=True)
    xs = np.random.default_rng(1).standard_normal((4, 9, 3)).astype(np.float32)
    lengths = np.array([9, 2, 0, 5], np.int32)
    actual = run(session, xs=xs, lengths=lengths, **zeros(session, 4))
    expected = model.distribution(xs, lengths=lengths)
    assert actual.keys() == expected.keys() | {"layer0_h_next", "layer0_c_next"}
    for key, value in expected.items():
        np.testing.assert_allclose(actual[key], value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("head", [heads.quantiles(0.1, 0.5, 0.9), heads.categorical(4)])
def test_values_of_several_scores_are_left_to_the_reader(head, tmp_path):
    model = SequenceRegressor(3, 8, 1, head=head, rng=np.random.default_rng(0))
    session = exported(model, tmp_path / "model.onnx")
    xs = np.random.default_rng(1).standard_normal((4, 9, 3)).astype(np.float32)
    scores = run(session, xs=xs, **zeros(session, 4))["scores"]
    for key, value in model.distribution(xs).items():
        np.testing.assert_allclose(head.values(scores)[key], value, rtol=1e-5, atol=1e-5)


def test_axes_and_metadata_say_what_the_file_is(tmp_path):
    model = RNNLM(31, 8, 6, cell="lstm", rng=np.random.default_rng(0))
    exported(model, tmp_path / "model.onnx")
    file = onnx.load(tmp_path / "model.onnx")
    assert (file.producer_name, file.producer_version) == ("rnnfast", rnnfast.__version__)
    assert json.loads({one.key: one.value for one in file.metadata_props}[METADATA])["model"] == model.config
    axes = {
        one.name: [axis.dim_param or axis.dim_value for axis in one.type.tensor_type.shape.dim]
        for one in (*file.graph.input, *file.graph.output)
    }
    assert axes == {
        "ids": ["batch", "time"],
        "layer0_h": ["batch", 6],
        "layer0_c": ["batch", 6],
        "scores": ["batch", "time", 31],
        "layer0_h_next": ["batch", 6],
        "layer0_c_next": ["batch", 6],
    }


def test_equal_models_give_equal_bytes(tmp_path):
    for name in ("lstm", "everything"):
        for path in ("one.onnx", "two.onnx"):
            to_onnx(built(name, "bidirectional")[0], tmp_path / path, lengths=True)
        assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()


def test_the_state_of_the_model_stays_and_does_not_matter(tmp_path):
    layer = layer_of("lstm")
    to_onnx(layer, tmp_path / "one.onnx")
    layer.forward(np.ones((7, 2, 3), np.float32))
    state = layer.get_state()
    to_onnx(layer, tmp_path / "two.onnx")
    np.testing.assert_array_equal(layer.get_state(), state)
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()


def test_a_file_that_disagrees_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setitem(FUNCTIONS, "tanh", "Sigmoid")
    with pytest.raises(ValueError, match="to_onnx: rnnfast and ONNX Runtime differ by"):
        to_onnx(layer_of("coupled_lstm"), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []
    exported = to_onnx(layer_of("coupled_lstm"), tmp_path / "model.onnx", check=False)
    assert exported.difference is None
    assert list(tmp_path.iterdir()) == [tmp_path / "model.onnx"]


def test_other_models_are_refused_by_name(tmp_path):
    kinds = "Recurrent, Bidirectional, Stack, RNNLM or SequenceRegressor"
    for model in (rnnfast.CBOWLM(7, 4), rnnfast.TimeAffine.from_sizes(3, 4), [layer_of("lstm")]):
        with pytest.raises(TypeError, match=f"to_onnx: model must be {kinds}, got {type(model).__name__}"):
            to_onnx(model, tmp_path / "model.onnx")


def test_names_that_meet_are_refused(tmp_path):
    @rnnfast.cell(states=("h", "h_next"))
    def of_states(a, h, h_next):
        return a, h

    @rnnfast.cell(states=("h",))
    def of_parameters(a, h, *, h_next=unit(0.5)):
        return a * h_next

    for cell in (of_states, of_parameters):
        with pytest.raises(
            ValueError, match="to_onnx: two values have the name layer0_h_next; rename one in"
        ):
            to_onnx(cell.layer(3, 4), tmp_path / "model.onnx")


def test_a_package_missing_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"to_onnx needs onnx: pip install 'rnnfast\[onnx\]'\."):
        to_onnx(layer_of("lstm"), tmp_path / "model.onnx")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name if name == "onnx" else None)
    with pytest.raises(ModuleNotFoundError, match="to_onnx needs onnxruntime"):
        to_onnx(layer_of("lstm"), tmp_path / "model.onnx")
    to_onnx(layer_of("lstm"), tmp_path / "model.onnx", check=False)


# The way back.


def assert_comes_back(model, path, **options):
    """What the file gives, after a comparison of all parameters and of their places."""
    exported = to_onnx(model, path, **options)
    graph = from_onnx(path)
    actual = graph.model()
    assert isinstance(actual, type(model))
    expected, found = arrays_of(model), arrays_of(actual)
    assert expected.keys() == found.keys()
    for name, array in expected.items():
        assert array.dtype == found[name].dtype
        assert array.tobytes() == found[name].tobytes(), name
        assert found[name].flags.writeable
    shapes = {one.name: tuple(one.dims) for one in onnx.load(path).graph.initializer}
    wanted = {row.parameter: [(row.initializer, shapes[row.initializer])] for row in exported.placed}
    assert model_of(graph)[1] == wanted
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
    to_onnx(random(cells.slstm.layer(3, 4)), tmp_path / "model.onnx")
    cell = {"name": "mine", "fingerprint": "0" * 64}
    written = changed(tmp_path / "model.onnx", cells=[cell])
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


def changed(path, text=None, **entries):
    """The file with another description, or with other entries of it or of its model."""
    file = onnx.load(path)
    description = json.loads(file.metadata_props[0].value)
    description.get("model", description).update(entries)
    onnx.helper.set_model_props(file, {METADATA: json.dumps(description) if text is None else text})
    onnx.save(file, path.with_name("changed.onnx"))
    return path.with_name("changed.onnx")


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        ({"hidden_size": 7}, "layer0_Wx must be"),
        ({"hidden_size": 1 << 40}, "layer0_Wx must be"),
        ({"hidden_size": -1}, "hidden_size must be"),
        ({"layers": 3}, "the array layer2_Wx is missing"),
        ({"layers": 1}, "layer1_Wx is an array too many"),
        ({"layers": 10**9}, "layers must be"),
        ({"cell": "gru"}, "is not a layer of the cell gru"),
        ({"cell": "os:system"}, "cell must be"),
        ({"dtype": "float64"}, "must be float64"),
        ({"dtype": "complex64"}, "dtype"),
        ({"model": "CBOWLM"}, "does not fit the graph"),
        ({"tied": True}, "tied"),
        ({"tied": 3, "more": 4}, "does not fit the graph"),
    ],
)
def test_metadata_that_do_not_fit_are_one_sentence(entries, why, tmp_path):
    to_onnx(random(RNNLM(11, 5, 6, cell="lstm", layers=2)), tmp_path / "model.onnx")
    graph = from_onnx(changed(tmp_path / "model.onnx", **entries))  # its layers can be read nevertheless
    assert len(graph.layers) == 2
    with pytest.raises(rnnfast.CheckpointError, match=r"rnnfast\.model does not fit the graph: ") as caught:
        graph.model()
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[" * 100_000, '"' + "x" * (1 << 19), "3", "null", "[]", "{}", '{"model": 3}', '{"cells": 3}',
     '{"cells": [], "constants": [], "dropout": 0}', '{"cells": ["lstm"], "constants": [3], "dropout": 0}',
     '{"cells": ["lstm", "lstm"], "constants": [{}, {}], "dropout": 0}', '{"model": {"cell": "lstm"}}'],
)  # fmt: skip
def test_metadata_of_another_form_are_one_sentence(text, tmp_path):
    to_onnx(layer_of("lstm"), tmp_path / "model.onnx")
    with pytest.raises(rnnfast.CheckpointError, match=r"rnnfast\.model does not fit the graph: "):
        from_onnx(changed(tmp_path / "model.onnx", text)).model()


def test_settings_of_a_stack_come_back(tmp_path):
    layers = [rnnfast.TimeLSTM.from_sizes(3, 4, stateful=True), rnnfast.TimeLSTM.from_sizes(4, 4)]
    again = assert_comes_back(rnnfast.Stack(layers, 0.25, per_step=False), tmp_path / "model.onnx")
    assert [layer.stateful for layer in again.layers] == [True, False]
    assert [(drop.dropout_ratio, drop.per_step) for drop in again.dropouts] == [(0.25, False)]
