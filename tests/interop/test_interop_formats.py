"""Models and layers from one file format to another: weights, settings, what is lost; archives of strangers.

RNNFAST_FUZZ_ARCHIVES is the number of mutated files of each kind.
"""

import io
import os
import tracemalloc
import zipfile

import numpy as np
import pytest
from helpers import assert_same_bits
from safetensors.numpy import save_file

import rnnfast
from rnnfast import CheckpointError, heads
from rnnfast.cells import cell, sigmoid, tanh
from rnnfast.interop.archives import read_npz, read_safetensors
from rnnfast.interop.formats import FORMATS, Entry, convert, load, save
from rnnfast.interop.named import arrays_of, settings_of

FILES = int(os.environ.get("RNNFAST_FUZZ_ARCHIVES", "500"))
SLACK = 4 << 20


def lstm(*sizes, **options):
    return rnnfast.TimeLSTM.from_sizes(*sizes, rng=np.random.default_rng(0), **options)


def lm(cell, **options):
    return rnnfast.RNNLM(11, 5, 5, cell=cell, rng=np.random.default_rng(0), **options)


def regressor(**options):
    return rnnfast.SequenceRegressor(3, 4, 2, rng=np.random.default_rng(0), **options)


def lif():
    model = lm("lif", layers=2)
    model.constants[1]["beta"] = 0.5
    return model


def own_layer():
    layer = rnnfast.cells.lif.layer(3, 4, rng=np.random.default_rng(0))
    layer.constants["beta"] = 0.5
    return layer


MODELS = {
    "rnn": lambda: lm("rnn"),
    "tied lstm of two layers in float64": lambda: lm("lstm", layers=2, tied=True, dtype=np.float64),
    "gru": lambda: lm("gru", dropout=0.25),
    "relu": lambda: lm("relu"),
    "gru_after": lambda: lm("gru_after"),
    "constants": lif,
    "regressor": lambda: regressor(cell="gru", layers=2),
    "gaussian regressor": lambda: regressor(head="gaussian"),
    "quantiles": lambda: regressor(head=heads.quantiles(0.1, 0.9)),
    "layer": lambda: lstm(3, 4),
    "layer in float64": lambda: lstm(3, 4, dtype=np.float64),
    "own layer": own_layer,
    "two directions": lambda: rnnfast.Bidirectional(lstm(3, 4), lstm(3, 5)),
    "stack": lambda: rnnfast.Stack(
        [
            rnnfast.Bidirectional(lstm(3, 4), lstm(3, 4)),
            rnnfast.TimeGRU.from_sizes(8, 2, reset="after"),
            lstm(2, 3),
        ],
        0.5,
    ),
    "twelve layers": lambda: rnnfast.Stack([lstm(3, 3) for _ in range(12)]),
}
IN_BOOK = ["rnn", "tied lstm of two layers in float64", "gru", "layer", "layer in float64", "twelve layers"]


def start(model, path):
    """A first file of a model."""
    if hasattr(model, "save"):
        model.save(path)
        return path
    np.savez(path.with_suffix(".npz"), **arrays_of(model))
    return path.with_suffix(".npz")


def assert_same_model(actual, expected):
    assert type(actual) is type(expected)
    if hasattr(expected, "config"):
        assert actual.config == expected.config
    else:
        assert repr(actual) == repr(expected)
    for name, array in arrays_of(expected).items():
        assert_same_bits(arrays_of(actual)[name], array)
    for ours, theirs in zip(constants(actual), constants(expected), strict=True):
        assert dict(ours) == dict(theirs)


def constants(model):
    if isinstance(model.constants if hasattr(model, "constants") else [], list):
        return getattr(model, "constants", [])
    return [model.constants]


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
@pytest.mark.parametrize("name", MODELS)
def test_our_own_formats_keep_everything(name, ending, tmp_path):
    model, path = MODELS[name](), tmp_path / f"model{ending}"
    FORMATS[ending].write(model, path)
    assert_same_model(FORMATS[ending].read(path, None).model, model)
    for other in (".npz", ".safetensors"):
        converted = convert(path, tmp_path / f"other{other}")
        assert_same_model(converted.model, model)
        assert converted.difference == 0
        for row, (parameter, array) in zip(converted.rows, arrays_of(model).items(), strict=True):
            entry = Entry(parameter, array.shape)
            assert row == (parameter, array.shape, [entry], [entry])


@pytest.mark.parametrize("name", IN_BOOK)
def test_the_way_through_the_book_keeps_the_weights(name, tmp_path):
    model = MODELS[name]()
    first = start(model, tmp_path / "model.safetensors")
    to_book = convert(first, tmp_path / "book.pkl")
    assert to_book.difference == 0
    places = [entry.name for row in to_book.rows for entry in row.written]
    assert sorted(places) == sorted(f"[{place}]" for place in range(len(places)))
    back = convert(tmp_path / "book.pkl", tmp_path / "back.npz")
    for parameter, array in arrays_of(model).items():
        assert_same_bits(arrays_of(back.model)[parameter], array)
    if getattr(model, "tied", False):
        assert to_book.rows[0].written == [Entry("[0]", (11, 5)), Entry("[7]", (5, 11))]


@pytest.mark.parametrize("name", ["relu", "gru_after", "two directions", "regressor"])
def test_what_the_book_cannot_hold_is_refused_and_nothing_is_written(name, tmp_path):
    first = start(MODELS[name](), tmp_path / "model.safetensors")
    with pytest.raises((TypeError, ValueError), match="to_book"):
        convert(first, tmp_path / "book.pkl", cell=rnnfast.cells.rnn_relu if name == "relu" else None)
    assert not (tmp_path / "book.pkl").exists()


def test_arrays_by_our_names_are_enough(tmp_path):
    model, path = regressor(cell="gru_after", layers=2), tmp_path / "arrays.npz"
    np.savez_compressed(path, **arrays_of(model))
    assert_same_model(convert(path, tmp_path / "model.safetensors").model, model)
    save_file(arrays_of(model), tmp_path / "arrays.safetensors")
    assert_same_model(convert(tmp_path / "arrays.safetensors", path).model, model)


def test_halves_become_float32(tmp_path):
    layer = lstm(3, 4)
    np.savez(tmp_path / "half.npz", **{name: array.astype("f2") for name, array in arrays_of(layer).items()})
    model = convert(tmp_path / "half.npz", tmp_path / "layer.npz").model
    assert model.dtype == np.float32
    assert_same_bits(model.params[0], layer.params[0].astype("f2").astype("f4"))


def test_a_cell_may_be_named_where_the_file_does_not_tell_it(tmp_path):
    model = lm("relu")
    np.savez(tmp_path / "arrays.npz", **arrays_of(model))
    assert convert(tmp_path / "arrays.npz", tmp_path / "tanh.npz").model.config["cell"] == "rnn"
    named = convert(tmp_path / "arrays.npz", tmp_path / "relu.npz", cell=rnnfast.cells.rnn_relu).model
    assert_same_model(named, model)
    assert convert(tmp_path / "relu.npz", tmp_path / "again.npz").model.config["cell"] == "relu"


ARRAYS = {**arrays_of(lm("lstm"))}
WRONG = {
    "nothing": ({}, "no recurrent layer found among its arrays; expected layer0_Wx"),
    "no layers": ({"embed_W": ARRAYS["embed_W"]}, "no recurrent layer found"),
    "no output": ({n: a for n, a in ARRAYS.items() if n != "output_b"}, "the array output_b is missing"),
    "no bias": ({n: a for n, a in ARRAYS.items() if n != "layer0_b"}, "the array layer0_b is missing"),
    "too many": ({**ARRAYS, "words": np.ones(3, "f4")}, "words is an array too many"),
    "an array of no layer": ({**ARRAYS, "layer0_Wz": np.ones(3, "f4")}, "layer0_Wz is an array too many"),
    "a gap": ({n.replace("layer0", "layer1"): a for n, a in ARRAYS.items()}, "layer0_Wx is missing"),
    "a shape": ({**ARRAYS, "layer0_Wh": np.ones((5, 10), "f4")}, r"layer0_Wh must be \(H, G\*H\)"),
    "a scalar": ({**ARRAYS, "layer0_Wx": np.float32(3)}, r"layer0_Wx must be \(D, columns\), got \(\)"),
    "integers": ({**ARRAYS, "layer0_Wh": np.ones((5, 20), "i8")}, "layer0_Wh must be float32"),
    "two dtypes": ({**ARRAYS, "output_b": np.ones(11)}, "output_b must be float32 like the other"),
    "not finite": ({**ARRAYS, "output_b": np.full(11, np.nan, "f4")}, "output_b must be finite, got nan"),
    "infinite": ({**ARRAYS, "layer0_b": np.full(20, np.inf, "f4")}, "layer0_b must be finite, got inf"),
}


@pytest.mark.parametrize("name", WRONG)
def test_arrays_that_make_no_model_are_refused_by_the_name_of_the_file(name, tmp_path):
    arrays, words = WRONG[name]
    path = tmp_path / "arrays.npz"
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=words) as error:
        convert(path, tmp_path / "model.safetensors")
    assert isinstance(error.value, CheckpointError)
    assert str(error.value).startswith(f"{path}: ")
    assert not (tmp_path / "model.safetensors").exists()


def test_other_models_and_endings_are_refused(tmp_path):
    path = tmp_path / "cbow.safetensors"
    rnnfast.CBOWLM(11, 5).save(path)
    with pytest.raises(CheckpointError, match="a CBOWLM has no other format"):
        convert(path, tmp_path / "cbow.npz")
    with pytest.raises(ValueError, match=r"cbow.h5 must end in .safetensors, .onnx, .npz, .pt or .pkl"):
        convert(path, tmp_path / "cbow.h5")
    with pytest.raises(FileNotFoundError):
        convert(tmp_path / "none.npz", tmp_path / "cbow.npz")


@pytest.mark.parametrize("failure", [ValueError("apart"), KeyboardInterrupt()], ids=["differs", "Ctrl-C"])
@pytest.mark.parametrize("is_source", [False, True], ids=["another file", "the source"])
def test_a_failed_conversion_leaves_the_target_as_it_was(failure, is_source, tmp_path, monkeypatch):
    source, target = tmp_path / "layer.npz", tmp_path / "target.npz"
    np.savez(source, **arrays_of(lstm(3, 4)))
    target.write_bytes(b"mine")
    target = source if is_source else target
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def fails(*arguments, **options):
        raise failure

    monkeypatch.setattr("rnnfast.interop.formats.agree", fails)
    with pytest.raises(type(failure)):
        convert(source, target)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_file_may_be_converted_into_itself(tmp_path):
    path, layer = tmp_path / "layer.npz", lstm(3, 4)
    np.savez(path, **arrays_of(layer))
    convert(path, path)
    assert_same_model(FORMATS[".npz"].read(path, None).model, layer)
    assert list(tmp_path.iterdir()) == [path]


# ONNX.


def needs_onnx():
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")


def test_a_language_model_of_the_book_becomes_an_onnx_file(tmp_path):
    needs_onnx()
    model = rnnfast.RNNLM(11, 5, 5, cell="lstm", layers=2, tied=True, rng=np.random.default_rng(0))
    model.save(tmp_path / "model.safetensors")
    convert(tmp_path / "model.safetensors", tmp_path / "book.pkl")
    converted = convert(tmp_path / "book.pkl", tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").is_file()
    assert converted.difference < 1e-5
    assert all(row.written for row in converted.rows)


def test_layers_become_an_onnx_file(tmp_path):
    needs_onnx()
    layer = rnnfast.TimeGRU.from_sizes(3, 4, rng=np.random.default_rng(0))
    np.savez(tmp_path / "layer.npz", **arrays_of(layer))
    converted = convert(tmp_path / "layer.npz", tmp_path / "layer.onnx")
    assert converted.difference < 1e-5
    assert all(row.written for row in converted.rows)


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_the_rows_name_the_initializers_that_were_read(tied, tmp_path):
    needs_onnx()
    model = rnnfast.RNNLM(11, 5, 5, cell="gru", tied=tied, rng=np.random.default_rng(0))
    model.save(tmp_path / "model.safetensors")
    wrote = convert(tmp_path / "model.safetensors", tmp_path / "model.onnx").rows
    read = convert(tmp_path / "model.onnx", tmp_path / "back.npz").rows
    for one, other in zip(wrote, read, strict=True):
        assert other.parameter == one.parameter
        assert {entry.name for entry in other.read} == {entry.name for entry in one.written}
        assert other.read


def test_numbers_of_a_graph_that_are_not_finite_are_told_by_their_parameter(tmp_path):
    needs_onnx()
    layer = rnnfast.TimeGRU.from_sizes(3, 4, rng=np.random.default_rng(0))
    layer.params[1][0, 0] = np.nan
    rnnfast.interop.to_onnx(layer, tmp_path / "layer.onnx", check=False)
    with pytest.raises(CheckpointError, match=r"layer.onnx: layer0_Wh must be finite, got nan"):
        convert(tmp_path / "layer.onnx", tmp_path / "back.npz")
    assert not (tmp_path / "back.npz").exists()


# Settings.


def stack(dropout=0.5, **options):
    return rnnfast.Stack([lstm(3, 4, stateful=True), lstm(4, 5)], dropout, **options)


def own_lm(**options):
    return rnnfast.RNNLM(11, 5, 4, cell="lstm", rng=np.random.default_rng(0), **options)


def written(model, path):
    """A file of a model in one of our own formats."""
    FORMATS[path.suffix].write(model, path)
    return path


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_our_own_formats_keep_settings(ending, tmp_path):
    model = stack(per_step=False)
    converted = convert(written(model, tmp_path / "a.npz"), tmp_path / f"b{ending}")
    assert converted.notes == []
    again = FORMATS[ending].read(tmp_path / f"b{ending}", None).model
    assert [layer.stateful for layer in again.layers] == [True, False]
    assert [(drop.dropout_ratio, drop.per_step) for drop in again.dropouts] == [(0.5, False)]
    both = rnnfast.Bidirectional(lstm(3, 4, stateful=True), lstm(3, 4, stateful=True))
    convert(written(both, tmp_path / "c.npz"), tmp_path / f"d{ending}")
    assert FORMATS[ending].read(tmp_path / f"d{ending}", None).model.stateful


def test_a_book_file_says_what_it_does_not_keep(tmp_path):
    notes = convert(written(stack(per_step=False), tmp_path / "a.npz"), tmp_path / "a.pkl").notes
    assert notes == [
        "dropout=0.5 is not stored in a .pkl file",
        "per_step=False is not stored in a .pkl file",
        "stateful=True is not stored in a .pkl file",
    ]
    notes = convert(written(own_lm(dropout=0.25), tmp_path / "b.npz"), tmp_path / "b.pkl").notes
    assert notes == ["dropout=0.25 is not stored in a .pkl file"]
    assert convert(tmp_path / "b.pkl", tmp_path / "c.npz").notes == []
    notes = convert(
        written(own_lm(precision="bfloat16"), tmp_path / "d.safetensors"), tmp_path / "d.pkl"
    ).notes
    assert notes == ["precision=bfloat16 is not stored in a .pkl file"]


def test_a_pytorch_file_says_what_it_does_not_keep_or_refuses(tmp_path):
    pytest.importorskip("torch")
    model = rnnfast.Stack([lstm(3, 4), lstm(4, 4)], 0.5)
    notes = convert(written(model, tmp_path / "a.npz"), tmp_path / "a.pt").notes
    assert notes == ["dropout=0.5 is not stored in a .pt file"]
    locked = rnnfast.Stack([lstm(3, 4), lstm(4, 4)], 0.5, per_step=False)
    with pytest.raises(ValueError, match="PyTorch draws a dropout mask for every step"):
        convert(written(locked, tmp_path / "b.npz"), tmp_path / "b.pt")
    absolute = rnnfast.SequenceRegressor(3, 4, 2, head="absolute", rng=np.random.default_rng(0))
    notes = convert(written(absolute, tmp_path / "c.npz"), tmp_path / "c.pt").notes
    assert notes == ["head=absolute is not stored in a .pt file"]
    for head in ("gaussian", "student_t"):
        regressor = rnnfast.SequenceRegressor(3, 4, 2, head=head)
        with pytest.raises(ValueError, match=f"a PyTorch file has no place for the head {head}"):
            convert(written(regressor, tmp_path / "d.npz"), tmp_path / "d.pt")
    assert not (tmp_path / "d.pt").exists()


def test_an_onnx_file_keeps_settings(tmp_path):
    needs_onnx()
    for model in (stack(), own_lm(dropout=0.25), rnnfast.SequenceRegressor(3, 4, 2, dropout=0.25)):
        assert convert(written(model, tmp_path / "a.npz"), tmp_path / "a.onnx").notes == []
        assert settings_of(load(tmp_path / "a.onnx")) == settings_of(model)


@cell(states=("h",), product="diagonal")
def two_gates(a, u, h):
    """A gated leaky unit."""
    gate = sigmoid(a)
    return gate * h + (1 - gate) * tanh(u)


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_diagonal_cells_of_several_gates_are_read_back(ending, tmp_path):
    layer = two_gates.layer(3, 4, rng=np.random.default_rng(0))
    first = written(layer, tmp_path / f"first{ending}")
    converted = convert(first, tmp_path / "second.npz")
    assert converted.rows[1] == ("layer0_Wh", (8,), [Entry("layer0_Wh", (8,))], [Entry("layer0_Wh", (8,))])
    for actual, expected in zip(converted.model.params, layer.params, strict=True):
        assert_same_bits(actual, expected)
    arrays = tmp_path / "arrays.npz"
    np.savez(arrays, **arrays_of(layer))
    assert convert(arrays, tmp_path / "third.npz", cell=two_gates).model.cell is two_gates


def test_a_cell_that_the_file_contradicts_is_an_error(tmp_path):
    gru = rnnfast.cells.gru
    for name in ("a.npz", "a.safetensors", "a.pkl"):
        path = tmp_path / name
        FORMATS[path.suffix].write(own_lm(), path)
        with pytest.raises(ValueError, match=r"cell must be lstm, which .* has, got gru"):
            convert(path, tmp_path / "b.npz", cell=gru)
        convert(path, tmp_path / "b.npz", cell=rnnfast.cells.lstm)
    with pytest.raises(ValueError, match="from_book: cell must be one of rnn, gru, lstm") as error:
        convert(tmp_path / "a.pkl", tmp_path / "c.npz", cell=rnnfast.cells.rnn_relu)
    assert not isinstance(error.value, CheckpointError)
    assert not (tmp_path / "c.npz").exists()


def test_layers_of_several_cells_go_through_the_book(tmp_path):
    model = rnnfast.Stack([rnnfast.TimeRNN.from_sizes(3, 4), lstm(4, 5)])
    convert(written(model, tmp_path / "a.npz"), tmp_path / "a.pkl")
    assert repr(convert(tmp_path / "a.pkl", tmp_path / "b.npz").model) == repr(model)


def test_a_cell_that_a_pytorch_file_contradicts_is_an_error(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save(torch.nn.GRU(3, 4).state_dict(), tmp_path / "a.pt")
    convert(tmp_path / "a.pt", tmp_path / "a.npz", cell=rnnfast.cells.gru_after)
    for other in (rnnfast.cells.gru, rnnfast.cells.lstm, rnnfast.cells.rnn_relu):
        with pytest.raises(ValueError, match=f"cell must be gru_after, which .*a.pt has, got {other.name}"):
            convert(tmp_path / "a.pt", tmp_path / "a.npz", cell=other)


@pytest.mark.parametrize(("value", "words"), [(np.nan, "finite, got nan"), (-np.inf, "finite, got -inf")])
def test_numbers_that_are_not_finite_are_told_by_their_array(value, words, tmp_path):
    model = own_lm()
    model.params[2][0, 0] = value
    model.save(tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=f"a.safetensors: .*layer0_Wh must be {words}"):
        convert(tmp_path / "a.safetensors", tmp_path / "b.npz")
    theirs = {f"weight_{part}_l0": np.zeros((16, 4), "f4") for part in ("ih", "hh")}
    theirs["weight_hh_l0"][0, 0] = value
    np.savez(tmp_path / "a.npz", **theirs)
    with pytest.raises(CheckpointError, match=f"a.npz: .*weight_hh_l0 must be {words}"):
        convert(tmp_path / "a.npz", tmp_path / "b.npz")


# Archives of strangers.


def npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def zipped(name, content, compression=zipfile.ZIP_STORED, count=1):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for number in range(count):
            archive.writestr(f"{name}{number or ''}", content)
    return file.getvalue()


def npy(header, data=b""):
    text = header.encode() + b" " * (-len(header) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


def headed(shape, descr="'<f4'"):
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}"


HOSTILE = {
    "an empty file": b"",
    "no zip": b"PK\x03\x04" + bytes(1000),
    "objects": npz(a=np.array([print, {}], object)),
    "texts": npz(a=np.array(["harm"])),
    "fields": npz(a=np.zeros(2, [("a", "f4")])),
    "a terabyte": zipped("a.npy", npy(headed("(1099511627776,)"))),
    "2**62 times 0": zipped("a.npy", npy(headed("(4611686018427387904, 4611686018427387904, 0)"))),
    "a negative axis": zipped("a.npy", npy(headed("(-1, -1)"), bytes(4))),
    "an axis of text": zipped("a.npy", npy(headed("('a',)"), bytes(4))),
    "a subarray": zipped("a.npy", npy(headed("(1,)", "('<f4', (1000000000,))"))),
    "deep brackets": zipped("a.npy", npy("(" * 3000)),
    "deep minus": zipped("a.npy", npy("-" * 3000 + "1")),
    "a call": zipped("a.npy", npy("__import__('os').system('touch harm')")),
    "a long header": zipped("a.npy", npy(headed("(1,)") + " " * 60000, bytes(4))),
    "no array": zipped("a.npy", b"harm"),
    "a bomb": zipped("a.npy", npy(headed("(100000000,)"), bytes(400_000_000)), zipfile.ZIP_DEFLATED),
    "an old packing": zipped("a.npy", npy(headed("(1,)"), bytes(4)), zipfile.ZIP_BZIP2),
    "5,000 members": zipped("a.npy", npy(headed("()"), bytes(4)), count=5000),
    "a description of numbers": npz(rnnfast=np.ones(3)),
    "a description that is no object": npz(rnnfast=np.array("[]")),
    "a deep description": npz(rnnfast=np.array("[" * 60000)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_npz_files_are_refused_in_little_memory(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "arrays.npz"
    path.write_bytes(HOSTILE[name])
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError) as error:
            read_npz(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(error.value).startswith(f"{path}: ")
    assert str(error.value).isprintable()
    assert peak < 3 * len(HOSTILE[name]) + SLACK
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    "description",
    ["{}", '{"model": {}}', '{"model": 3, "constants": null}', '{"cells": 3, "constants": 4, "dropout": 5}',
     '{"cells": ["lstm"], "constants": [{"a": 1}], "dropout": 0}',
     '{"cells": [], "constants": [], "dropout": 0}',
     '{"cells": [{"name": "a", "fingerprint": "b"}], "constants": [{}], "dropout": 0}',
     '{"model": {"model": "RNNLM", "layers": 1e400}, "constants": null}'],
)  # fmt: skip
def test_descriptions_that_do_not_fit_are_refused(description, tmp_path):
    path = tmp_path / "arrays.npz"
    np.savez(path, rnnfast=np.array(description), **arrays_of(lstm(3, 4)))
    with pytest.raises(CheckpointError) as error:
        convert(path, tmp_path / "other.npz")
    assert str(error.value).startswith(f"{path}: ")


def mutated(content, rng):
    content = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        place = int(rng.integers(len(content) + 1))
        match rng.integers(5):
            case 0:
                content[place : place + 1] = [int(rng.integers(256))]
            case 1:
                del content[place:]
            case 2:
                del content[place : place + int(rng.integers(1, 50))]
            case 3:
                start = int(rng.integers(len(content) + 1))
                content[place:place] = content[start : start + int(rng.integers(1, 200))]
            case _:
                number = (0, 2**31, 2**32 - 1, 2**63, 2**64 - 1)[rng.integers(5)].to_bytes(8, "little")
                content[place : place + 8] = number[: 1 << rng.integers(4)]
    return bytes(content)


@pytest.mark.parametrize("kind", ["npz", "compressed npz", "safetensors", "foreign safetensors"])
def test_mutated_archives_are_refused_or_read_in_little_memory(kind, tmp_path):
    arrays, path, read = arrays_of(lstm(3, 4)), tmp_path / "file", read_npz
    if "npz" in kind:
        with open(path, "wb") as file:
            (np.savez_compressed if "compressed" in kind else np.savez)(file, **arrays)
    elif kind == "safetensors":
        np.savez(tmp_path / "file.npz", **arrays)
        convert(tmp_path / "file.npz", path.with_suffix(".safetensors"))
        path, read = path.with_suffix(".safetensors"), read_safetensors
    else:
        save_file(arrays, path)
        read = read_safetensors
    original, rng, refused = path.read_bytes(), np.random.default_rng(0), 0
    read(path)
    tracemalloc.start()
    try:
        for _ in range(FILES):
            content = mutated(original, rng)
            path.write_bytes(content)
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            message = f"{path}: "
            try:
                read(path)
            except CheckpointError as error:
                refused += 1
                message = str(error)
            assert message.startswith(f"{path}: ")
            assert tracemalloc.get_traced_memory()[1] - before < 2 * len(content) + SLACK
    finally:
        tracemalloc.stop()
    print(f"{kind}: {FILES} files, {refused} refused")
    assert refused > FILES // 3


def test_layers_are_saved_and_loaded_in_any_format(tmp_path):
    layer = rnnfast.TimeRNN.from_sizes(3, 4, activation="relu", rng=np.random.default_rng(0))
    for ending in (".npz", ".safetensors"):
        assert save(layer, tmp_path / f"layer{ending}").difference == 0
        again = load(tmp_path / f"layer{ending}")
        assert again.activation == "relu"
        for kept, own in zip(again.params, layer.params, strict=True):
            assert_same_bits(kept, own)
    assert load(tmp_path / "layer.npz", cell="relu").activation == "relu"
    with pytest.raises(ValueError, match="load: cell must be one of"):
        load(tmp_path / "layer.npz", cell="gibberish")
    with pytest.raises(TypeError, match="save: layers must be RNNLM"):
        save(rnnfast.CBOWLM(7, 4), tmp_path / "words.npz")
    assert not (tmp_path / "words.npz").exists()
