"""`from_onnx` on files that others write: PyTorch, Keras, silero-vad, and ONNX's own tests of operators."""

import collections
import importlib.util
import re
import warnings
from pathlib import Path

import numpy as np
import pytest

import rnnfast
from rnnfast.interop import from_onnx

onnx = pytest.importorskip("onnx")

from onnx import numpy_helper  # noqa: E402

from rnnfast.interop.onnx_operators import OPERATORS  # noqa: E402

VOCABULARY, DEPTH, WIDTH = 11, 4, 5
# What of the served operators ONNX tests and this library refuses: training, rare options, types of machine
# learning that NumPy does not have.
CANNOT = r"Graph\.run: the node '\w+ 0' \((?:{})\) cannot be computed: {}"
REFUSALS = (
    r"the input or output '\w+' has the type \d+, which is not served",
    r"the input or output '\w+' is not a tensor",
    r"its operators have the version 1; 7 to \d+ are served",
    r"the node 'Scan 0' is a Scan of version 8; 9 and later are served",
    CANNOT.format("Dropout|BatchNormalization", "training_mode is not served"),
    CANNOT.format("Pad", "the mode wrap is not served"),
    CANNOT.format("GatherND", "batch_dims is not served"),
    CANNOT.format("Conv", "auto_pad SAME_LOWER is not served"),
    CANNOT.format("ReduceMax|ReduceMin", r"zero-size array to reduction operation \w+ which has no identity"),
)


@pytest.fixture(scope="module")
def operator_tests():
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with np.errstate(all="ignore"):
            return collect_testcases(None)


def array_of(value):
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)


def with_constants(made, given):
    """The model with the weights of its recurrent node as constants; what is left of the inputs."""
    node = made.graph.node[0]
    if node.op_type not in ("RNN", "LSTM", "GRU"):
        return given
    held = {node.input[k] for k in (1, 2, 3, 7) if k < len(node.input)} & set(given)
    made.graph.initializer.extend(numpy_helper.from_array(given[name], name) for name in held)
    kept = [value for value in made.graph.input if value.name not in held]
    del made.graph.input[:]
    made.graph.input.extend(kept)
    return {name: array for name, array in given.items() if name not in held}


def outcome(case, path):
    """ "equal", or why the case is refused; AssertionError if the results differ."""
    made = onnx.ModelProto()
    made.CopyFrom(case.model)
    inputs, expected = case.data_sets[0]
    given = {value.name: array_of(array) for value, array in zip(made.graph.input, inputs, strict=True)}
    given = with_constants(made, given)
    onnx.save(made, path)
    try:
        actual = from_onnx(path).run(given)
    except (rnnfast.CheckpointError, ValueError) as error:
        return str(error).removeprefix(f"{path}: ").removesuffix(".")
    for one, other in zip(actual.values(), map(array_of, expected), strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype), case.name
        np.testing.assert_allclose(one.astype(float), other.astype(float), 1e-5, 1e-6, err_msg=case.name)
    return "equal"


def operators_of(case):
    return {node.op_type for node in case.model.graph.node}


def test_all_operator_tests_of_recurrent_nodes_run(operator_tests, tmp_path):
    kinds = {"RNN", "LSTM", "GRU"}
    cases = {case.name: case for case in operator_tests if operators_of(case) & kinds}
    found = {name: outcome(case, tmp_path / "case.onnx") for name, case in cases.items()}
    for name, result in found.items():
        print(f"{name:45} {result}")
    assert len(found) >= 18
    assert set(found.values()) == {"equal"}


def test_operator_tests_run_or_are_refused(operator_tests, tmp_path):
    served = {*OPERATORS, "If", "Scan"}
    cases = [case for case in operator_tests if operators_of(case) <= served]
    found = {case.name: outcome(case, tmp_path / "case.onnx") for case in cases}
    refused = {name: result for name, result in found.items() if result != "equal"}
    reached = set().union(*(operators_of(case) for case in cases if found[case.name] == "equal"))
    print(len(found) - len(refused), "equal,", len(refused), "refused")
    matched = {name: [one for one in REFUSALS if re.fullmatch(one, why)] for name, why in refused.items()}
    assert {name: refused[name] for name, patterns in matched.items() if not patterns} == {}
    assert {one for patterns in matched.values() for one in patterns} == set(REFUSALS)
    assert len(found) - len(refused) > 700
    # The tests of Not are of version 1; sequences are no outputs.
    assert served - reached == {"Not", "SequenceAt", "SplitToSequence"}


# PyTorch.


def network(kind, layers, both, batch_first, states, words, dtype="float32"):
    """A network of PyTorch and its inputs for N = 3 and T = 6."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = torch.nn.Embedding(VOCABULARY, DEPTH)
            options = {
                "bidirectional": both,
                "batch_first": batch_first,
                "dropout": 0.2 if layers > 1 else 0.0,
            }
            self.rnn = getattr(torch.nn, kind)(DEPTH, WIDTH, layers, **options)
            self.output = torch.nn.Linear(WIDTH * (1 + both), VOCABULARY)
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
    xs = torch.randint(VOCABULARY, shape) if words else torch.randn(*shape, DEPTH)
    count = (2 if kind == "LSTM" else 1) if states else 0
    given = {"xs": xs}
    given |= {name: torch.randn(layers * (1 + both), batch, WIDTH) for name in ("h", "c")[:count]}
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


def assert_equal_to(net, graph, given, limit):
    import torch

    with torch.no_grad():
        expected = [array.numpy() for array in net(*given.values())]
    actual = list(graph.run({name: array.numpy() for name, array in given.items()}).values())
    for one, other in zip(actual, expected, strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        np.testing.assert_allclose(one, other, rtol=0, atol=limit)
    return actual


@pytest.mark.parametrize("words", [False, True])
@pytest.mark.parametrize("states", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize(("kind", "layers"), [("RNN", 2), ("LSTM", 1), ("LSTM", 3), ("GRU", 2)])
def test_the_older_exporter_of_pytorch(kind, layers, both, batch_first, states, words, tmp_path):
    options = kind, layers, both, batch_first, states, words
    net, given = network(*options)
    path = tmp_path / "model.onnx"
    exported(net, given, path, batch_first, dynamo=False)
    graph = from_onnx(path)
    assert len(graph.layers) == layers
    for batch, steps in ((3, 6), (1, 1), (5, 13)):
        given = inputs_of(*options, batch, steps)
        actual = assert_equal_to(net, graph, given, 1e-5)
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    expected = session.run(None, {name: array.numpy() for name, array in given.items()})
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize("both", [False, True])
def test_float64_of_pytorch(kind, both, tmp_path):
    options = kind, 2, both, True, True, False
    net, given = network(*options, "float64")
    exported(net, given, tmp_path / "model.onnx", True, dynamo=False)
    graph = from_onnx(tmp_path / "model.onnx")
    assert_equal_to(net, graph, inputs_of(*options, 4, 9, "float64"), 1e-12)


@pytest.mark.parametrize(
    ("kind", "layers", "both", "batch_first", "words"),
    [("RNN", 1, False, True, True), ("LSTM", 2, True, True, True), ("GRU", 2, True, False, False)],
)
def test_the_exporter_of_pytorch_through_torch_export(kind, layers, both, batch_first, words, tmp_path):
    """It writes weights into a second file, and fixes the steps; it unrolls nn.RNN."""
    pytest.importorskip("onnxscript")
    options = kind, layers, both, batch_first, True, words
    net, given = network(*options)
    exported(net, given, tmp_path / "model.onnx", batch_first, dynamo=True, time=False)
    graph = from_onnx(tmp_path / "model.onnx")
    assert len(graph.layers) == (0 if kind == "RNN" else layers)
    assert_equal_to(net, graph, inputs_of(*options, 5, 6), 1e-5)


# Keras.


@pytest.mark.parametrize("name", ["LSTM", "GRU", "SimpleRNN", "Bidirectional", "Embedding"])
def test_exports_of_keras(name, tmp_path, monkeypatch):
    """They are unrolled, so they have no recurrent nodes; their steps are fixed."""
    pytest.importorskip("torch")
    if importlib.util.find_spec("keras") is None:
        pytest.skip("keras is missing")
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import keras

        layers, words = keras.layers, name == "Embedding"
        first = {
            "Embedding": lambda: [
                layers.Embedding(VOCABULARY, DEPTH),
                layers.LSTM(WIDTH, return_sequences=True),
            ],
            "Bidirectional": lambda: [layers.Bidirectional(layers.LSTM(WIDTH, return_sequences=True))],
        }.get(name, lambda: [getattr(layers, name)(WIDTH, return_sequences=True)])()
        shape = keras.Input((7,), dtype="int32") if words else keras.Input((7, DEPTH))
        net = keras.Sequential([shape, *first, layers.Dense(3, activation="softmax")])
        rng = np.random.default_rng(0)
        draw = (lambda n: rng.integers(0, VOCABULARY, (n, 7)).astype(np.int32)) if words else (
            lambda n: rng.standard_normal((n, 7, DEPTH)).astype(np.float32))  # fmt: skip
        net(draw(2))
        net.export(tmp_path / "model.onnx", format="onnx", verbose=False)
        xs = draw(5)
        expected = keras.ops.convert_to_numpy(net(xs))
    graph = from_onnx(tmp_path / "model.onnx")
    actual = graph.run({graph.inputs[0].name: xs.astype(graph.inputs[0].dtype)})
    np.testing.assert_allclose(next(iter(actual.values())), expected, rtol=0, atol=1e-5)


# A network that others use: silero-vad, which hears whether somebody speaks.


def silero_files():
    found = importlib.util.find_spec("silero_vad")
    if found is None:
        return []
    return sorted(Path(found.submodule_search_locations[0], "data").glob("*.onnx"))


@pytest.mark.skipif(not silero_files(), reason="silero-vad is missing")
@pytest.mark.parametrize("path", silero_files(), ids=lambda path: path.name)
def test_silero_vad_runs(path):
    """All its files: convolutions and an LSTM of 128 units, in branches for two sample rates."""
    ort = pytest.importorskip("onnxruntime")
    ort.set_default_logger_severity(4)
    graph = from_onnx(path)
    print(path.name, collections.Counter(str(layer) for layer in graph.layers.values()))
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    names = {value.name: value for value in graph.inputs}
    for rate, samples in ((16000, 576), (8000, 288)) if "sr" in names else ((16000, 576),):
        sizes = {"sequence": samples, "sequence_length": 7, "batch": 2}
        given = {}
        for name, value in names.items():
            shape = [axis if isinstance(axis, int) else sizes.get(axis, 2) for axis in value.shape]
            if value.shape == ("", ""):
                shape = [2, samples]
            drawn = 0.1 * rng.standard_normal(shape)
            given[name] = np.full(shape, rate) if name == "sr" else drawn.astype(value.dtype)
        expected = session.run(None, given)
        for one, other in zip(graph.run(given).values(), expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)
    assert all(layer.hidden_size == 128 for layer in graph.layers.values())
    assert bool(graph.layers) != ("ifless" in path.name)  # that file has its LSTM as products


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_packed_sequences_in_any_order(kind, both, tmp_path):
    """The exporter sorts them by length, and puts the results back in their order."""
    torch = pytest.importorskip("torch")
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = getattr(torch.nn, kind)(DEPTH, WIDTH, bidirectional=both, batch_first=True)

        def forward(self, xs, lengths):
            packed = pack_padded_sequence(xs, lengths, batch_first=True, enforce_sorted=False)
            hs, last = self.rnn(packed)
            hs, _ = pad_packed_sequence(hs, batch_first=True)
            return hs, *(last if kind == "LSTM" else (last,))

    torch.manual_seed(0)
    net = Network().eval()
    given = {"xs": torch.randn(4, 6, DEPTH), "lengths": torch.tensor([3, 6, 1, 3])}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, tuple(given.values()), tmp_path / "model.onnx", dynamo=False,
                          input_names=list(given),
                          dynamic_axes={"xs": {0: "N", 1: "T"}, "lengths": {0: "N"}})  # fmt: skip
    assert operators_of_file(tmp_path / "model.onnx") >= {"TopK", "ScatterElements"}
    graph = from_onnx(tmp_path / "model.onnx")
    assert_equal_to(net, graph, given, 1e-5)
    given = {"xs": torch.randn(3, 9, DEPTH), "lengths": torch.tensor([2, 9, 8])}
    actual = assert_equal_to(net, graph, given, 1e-5)
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    theirs = session.run(None, {name: array.numpy() for name, array in given.items()})
    for one, other in zip(actual, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


def operators_of_file(path):
    return {node.op_type for node in onnx.load(path).graph.node}
