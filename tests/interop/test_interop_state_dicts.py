"""State_dicts of PyTorch in .pt, .npz and .safetensors files, to and from models and layers; parts may have
any names."""

import numpy as np
import pytest
from safetensors.numpy import save_file

import rnnfast
from rnnfast import CheckpointError
from rnnfast.interop.formats import Entry, convert
from rnnfast.interop.named import arrays_of

torch = pytest.importorskip("torch")

V, N, T = 11, 3, 7


class WordModel(torch.nn.Module):
    """The parameters and the names of PyTorch's example word_language_model."""

    def __init__(self, kind, width=5, layers=2, tied=False, **options):
        super().__init__()
        self.encoder = torch.nn.Embedding(V, 5)
        self.rnn = getattr(torch.nn, kind)(5, width, layers, **options)
        self.decoder = torch.nn.Linear(width, V)
        if tied:
            self.decoder.weight = self.encoder.weight

    def forward(self, ids):
        return self.decoder(self.rnn(self.encoder(ids.T))[0]).transpose(0, 1)


class Numbers(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = torch.nn.LSTM(3, 4, 2, batch_first=True)
        self.head = torch.nn.Linear(4, 2)

    def forward(self, xs):
        return self.head(self.lstm(xs)[0])


def saved(module, path):
    """A file of a module's state_dict."""
    state = module.state_dict()
    if path.suffix == ".pt":
        torch.save(state, path)
    elif path.suffix == ".npz":
        np.savez(path, **{name: tensor.numpy() for name, tensor in state.items()})
    else:
        save_file({name: tensor.numpy() for name, tensor in state.items()}, path)
    return path


def scores(module, inputs):
    with torch.no_grad():
        return module(torch.from_numpy(inputs)).numpy()


@pytest.mark.parametrize("ending", [".pt", ".npz", ".safetensors"])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_the_word_language_model_becomes_an_rnnlm_and_comes_back(kind, tied, ending, tmp_path):
    torch.manual_seed(0)
    module = WordModel(kind, width=5 if tied else 4, tied=tied)
    converted = convert(saved(module, tmp_path / f"words{ending}"), tmp_path / "words.npz")
    model = converted.model
    assert isinstance(model, rnnfast.RNNLM)
    assert model.tied == tied
    ids = np.random.default_rng(0).integers(V, size=(N, T))
    np.testing.assert_allclose(model.predict(ids), scores(module, ids), atol=1e-5, rtol=0)
    back = convert(tmp_path / "words.npz", tmp_path / "back.pt")
    assert back.difference <= 1e-6
    again = WordModel(kind, width=5 if tied else 4, tied=tied)
    again.load_state_dict(torch.load(tmp_path / "back.pt", weights_only=True))
    np.testing.assert_allclose(scores(again, ids), scores(module, ids), atol=1e-5, rtol=0)


def test_the_rows_name_both_biases_and_tied_weights(tmp_path):
    path = saved(WordModel("GRU", layers=1, tied=True), tmp_path / "words.pt")
    rows = {row.parameter: row.read for row in convert(path, tmp_path / "words.npz").rows}
    assert rows == {
        "embed_W": [Entry("encoder.weight", (11, 5)), Entry("decoder.weight", (11, 5))],
        "layer0_Wx": [Entry("rnn.weight_ih_l0", (15, 5))],
        "layer0_Wh": [Entry("rnn.weight_hh_l0", (15, 5))],
        "layer0_b": [Entry("rnn.bias_ih_l0", (15,)), Entry("rnn.bias_hh_l0", (15,))],
        "layer0_bhh": [Entry("rnn.bias_hh_l0", (15,))],
        "output_b": [Entry("decoder.bias", (11,))],
    }
    rows = convert(tmp_path / "words.npz", tmp_path / "back.pt").rows
    assert {row.parameter: row.written for row in rows} == {row.parameter: row.read for row in convert(
        tmp_path / "back.pt", tmp_path / "words2.npz").rows}  # fmt: skip


def test_an_affine_layer_above_makes_a_regressor(tmp_path):
    torch.manual_seed(0)
    module = Numbers()
    model = convert(saved(module, tmp_path / "numbers.pt"), tmp_path / "numbers.safetensors").model
    assert isinstance(model, rnnfast.SequenceRegressor)
    xs = np.random.default_rng(0).standard_normal((N, T, 3), dtype=np.float32)
    np.testing.assert_allclose(model.predict(xs), scores(module, xs), atol=1e-6, rtol=0)
    back = convert(tmp_path / "numbers.safetensors", tmp_path / "back.pt")
    assert [entry.name for entry in back.rows[-2].written] == ["linear.weight"]


@pytest.mark.parametrize("bidirectional", [False, True], ids=["one direction", "two directions"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bias", [False, True], ids=["no biases", "biases"])
@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_layers_alone_become_layers_and_come_back(kind, bias, layers, bidirectional, tmp_path):
    torch.manual_seed(0)
    options = {"batch_first": True, "bidirectional": bidirectional}
    module = getattr(torch.nn, kind)(3, 4, layers, bias=bias, dtype=torch.float64, **options)
    model = convert(saved(module, tmp_path / "layers.pt"), tmp_path / "layers.npz").model
    xs = np.random.default_rng(0).standard_normal((N, T, 3))
    expected = module(torch.from_numpy(xs))[0].detach().numpy()
    np.testing.assert_allclose(model.forward(xs), expected, atol=1e-12, rtol=0)
    convert(tmp_path / "layers.npz", tmp_path / "back.pt")
    again = getattr(torch.nn, kind)(3, 4, layers, dtype=torch.float64, **options)
    again.load_state_dict(torch.load(tmp_path / "back.pt", weights_only=True))
    actual = again(torch.from_numpy(xs))[0].detach().numpy()
    np.testing.assert_allclose(actual, expected, atol=1e-12, rtol=0)


def test_relu_must_be_named_and_halves_become_float32(tmp_path):
    torch.manual_seed(0)
    module = torch.nn.RNN(3, 4, nonlinearity="relu", batch_first=True).half()
    path = saved(module, tmp_path / "relu.pt")
    model = convert(path, tmp_path / "relu.npz", cell=rnnfast.cells.rnn_relu).model
    assert model.cell is rnnfast.cells.rnn_relu
    assert model.dtype == np.float32
    again = convert(tmp_path / "relu.npz", tmp_path / "back.pt")
    assert again.difference <= 1e-6
    assert convert(path, tmp_path / "tanh.npz").model.cell is rnnfast.cells.rnn


def test_what_is_no_such_model_is_refused_by_the_name_of_the_file(tmp_path):
    target = tmp_path / "model.npz"
    modules = {
        "expected one recurrent layer, got several: a, b": torch.nn.ModuleDict(
            {"a": torch.nn.GRU(3, 4), "b": torch.nn.GRU(3, 4)}
        ),
        "is an array too many": torch.nn.ModuleDict({"a": torch.nn.GRU(3, 4), "b": torch.nn.Conv1d(3, 4, 2)}),
        "no recurrent layer found": torch.nn.Linear(3, 4),
        "proj_size": torch.nn.LSTM(3, 4, proj_size=2),
        "reverse": WordModel("LSTM", width=5, layers=1, bidirectional=True),
    }
    for words, module in modules.items():
        path = saved(module, tmp_path / "module.pt")
        with pytest.raises(CheckpointError, match=words):
            convert(path, target)
    assert not target.exists()


def test_what_pytorch_cannot_hold_is_refused(tmp_path):
    layer = rnnfast.TimeGRU.from_sizes(3, 4)
    np.savez(tmp_path / "gru.npz", **arrays_of(layer))
    with pytest.raises(ValueError, match="resets the state before the product"):
        convert(tmp_path / "gru.npz", tmp_path / "gru.pt")
    assert not (tmp_path / "gru.pt").exists()


@pytest.mark.parametrize("name", ["text", "list", "objects", "damaged", "empty"])
def test_other_files_are_refused(name, tmp_path):
    path = tmp_path / "other.pt"
    contents = {"text": b"harm", "empty": b"", "damaged": None}
    if name in contents:
        torch.save(torch.nn.GRU(3, 4).state_dict(), path)
        content = contents[name]
        path.write_bytes(path.read_bytes()[:700] if content is None else content)
    else:
        torch.save([torch.ones(2)] if name == "list" else {"a": torch.nn.GRU(3, 4)}, path)
    with pytest.raises(CheckpointError, match="not a state_dict of PyTorch") as error:
        convert(path, tmp_path / "model.npz")
    assert str(error.value).startswith(f"{path}: ")


# Parts of any name.


class Words(torch.nn.Module):
    """An embedding, a layer and an affine layer, under names of one's own."""

    def __init__(self, names=("emb", "lstm", "fc"), kind="LSTM", depth=5, width=4, bias=True, tied=False):
        super().__init__()
        self.names = names
        self.add_module(names[0], torch.nn.Embedding(V, depth))
        self.add_module(names[1], getattr(torch.nn, kind)(depth, width, batch_first=True))
        self.add_module(names[2], torch.nn.Linear(width, V, bias=bias))
        if tied:
            self.get_submodule(names[2]).weight = self.get_submodule(names[0]).weight

    def forward(self, ids):
        table, layer, affine = map(self.get_submodule, self.names)
        return affine(layer(table(ids))[0])


def assert_same_scores(model, module):
    ids = np.random.default_rng(0).integers(V, size=(N, T))
    with torch.no_grad():
        expected = module(torch.from_numpy(ids)).numpy()
    np.testing.assert_allclose(model.predict(ids), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize(("width", "tied"), [(4, False), (5, False), (5, True)])
@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_shapes_tell_the_parts_of_a_language_model(kind, width, tied, bias, tmp_path):
    torch.manual_seed(0)
    module = Words(kind=kind, width=width, tied=tied, bias=bias)
    torch.save(module.state_dict(), tmp_path / "words.pt")
    converted = convert(tmp_path / "words.pt", tmp_path / "words.npz")
    assert isinstance(converted.model, rnnfast.RNNLM)
    assert converted.model.tied == tied
    assert_same_scores(converted.model, module)
    rows = {row.parameter: row.read for row in converted.rows}
    assert rows["embed_W"][0] == Entry("emb.weight", (V, 5))
    assert rows["output_b"] == ([Entry("fc.bias", (V,))] if bias else [])


@pytest.mark.parametrize("names", [("a", "b", "c"), ("wte", "gru", "affine"), ("z", "rnn", "a")])
def test_names_do_not_matter_where_shapes_or_a_bias_tell_the_parts(names, tmp_path):
    torch.manual_seed(0)
    for width in (4, 5):
        module = Words(names, "GRU", width=width)
        state = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
        save_file(state, tmp_path / "words.safetensors")
        assert_same_scores(convert(tmp_path / "words.safetensors", tmp_path / "words.npz").model, module)


def test_two_matrices_that_nothing_tells_apart_are_refused(tmp_path):
    torch.save(Words(("a", "b", "c"), width=5, bias=False).state_dict(), tmp_path / "words.pt")
    with pytest.raises(CheckpointError, match="it may be an embedding or an affine"):
        convert(tmp_path / "words.pt", tmp_path / "words.npz")


def test_tied_weights_may_be_there_once(tmp_path):
    torch.manual_seed(0)
    module = Words(width=5, tied=True)
    state = {name: tensor for name, tensor in module.state_dict().items() if name != "fc.weight"}
    torch.save(state, tmp_path / "words.pt")
    converted = convert(tmp_path / "words.pt", tmp_path / "words.npz")
    assert converted.model.tied
    assert converted.rows[0].read == [Entry("emb.weight", (V, 5))]
    assert_same_scores(converted.model, module)


def test_an_affine_layer_without_a_bias_makes_a_regressor(tmp_path):
    torch.manual_seed(0)
    layer, affine = torch.nn.LSTM(3, 4, batch_first=True), torch.nn.Linear(4, 2, bias=False)
    module = torch.nn.ModuleDict({"cells": layer, "out": affine})
    torch.save(module.state_dict(), tmp_path / "numbers.pt")
    model = convert(tmp_path / "numbers.pt", tmp_path / "numbers.npz").model
    assert isinstance(model, rnnfast.SequenceRegressor)
    xs = np.random.default_rng(0).standard_normal((N, T, 3), dtype=np.float32)
    expected = affine(layer(torch.from_numpy(xs))[0]).detach().numpy()
    np.testing.assert_allclose(model.predict(xs), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["model", "state_dict", "model_state_dict"])
def test_a_checkpoint_is_unwrapped(name, tmp_path):
    torch.manual_seed(0)
    module = Words()
    optimizer = torch.optim.Adam(module.parameters()).state_dict()
    torch.save({"epoch": 3, "optimizer": optimizer, name: module.state_dict()}, tmp_path / "last.pt")
    assert_same_scores(convert(tmp_path / "last.pt", tmp_path / "words.npz").model, module)


def test_bfloat16_is_read_from_both_kinds_of_files(tmp_path):
    from safetensors.torch import save_file as save_tensors

    torch.manual_seed(0)
    state = Words().bfloat16().state_dict()
    torch.save(state, tmp_path / "words.pt")
    save_tensors(state, tmp_path / "words.safetensors")
    one, two = (
        convert(tmp_path / f"words{end}", tmp_path / "a.npz").model for end in (".pt", ".safetensors")
    )
    assert one.config == two.config
    for actual, expected in zip(two.params, one.params, strict=True):
        assert actual.dtype == np.float32
        np.testing.assert_array_equal(actual, expected)


def changed(**arrays):
    state = {**Words().state_dict(), **{name.replace("__", "."): array for name, array in arrays.items()}}
    return {name: array for name, array in state.items() if array is not None}


WRONG_NAMES = {
    "a third matrix": (changed(more__weight=torch.zeros(3, 4)), "more.weight is an array too many"),
    "a scale": (changed(norm__weight=torch.ones(4)), "norm.weight is an array too many"),
    "another width": (changed(fc__weight=torch.zeros(V, 6)), r"fc.weight must be \(outputs, 4\), got"),
    "other words": (changed(emb__weight=torch.zeros(9, 5)), r"emb.weight must be \(11, 5\), got \(9, 5\)"),
    "another bias": (changed(fc__bias=torch.zeros(9)), r"fc.bias must be \(11,\), got \(9,\)"),
    "another dtype": (changed(fc__bias=torch.zeros(V).double()), "fc.bias must be float32 like the other"),
    "only an embedding": (changed(fc__weight=None, fc__bias=None), r"emb.weight must be \(outputs, 4\)"),
    "a layer's bias": (changed(lstm__bias_hh_l0=None), "the array lstm.bias_hh_l0 is missing"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_NAMES)
def test_refusals_name_arrays_as_their_file_does(name, tmp_path):
    state, words = WRONG_NAMES[name]
    torch.save(state, tmp_path / "words.pt")
    with pytest.raises(CheckpointError, match=words) as error:
        convert(tmp_path / "words.pt", tmp_path / "words.npz")
    assert str(error.value).startswith(f"{tmp_path / 'words.pt'}: ")
    assert not any(ours in str(error.value) for ours in ("embed_W", "output_", "layer0_", "from_torch"))
