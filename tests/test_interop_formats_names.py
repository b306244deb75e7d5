"""State_dicts of PyTorch whose parts have any names, alone or in a checkpoint."""

import numpy as np
import pytest
from safetensors.numpy import save_file

import rnnfast
from rnnfast import CheckpointError
from rnnfast.interop.formats import Entry, convert

torch = pytest.importorskip("torch")

V, N, T = 11, 3, 7


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


WRONG = {
    "a third matrix": (changed(more__weight=torch.zeros(3, 4)), "more.weight is an array too many"),
    "a scale": (changed(norm__weight=torch.ones(4)), "norm.weight is an array too many"),
    "another width": (changed(fc__weight=torch.zeros(V, 6)), r"fc.weight must be \(outputs, 4\), got"),
    "other words": (changed(emb__weight=torch.zeros(9, 5)), r"emb.weight must be \(11, 5\), got \(9, 5\)"),
    "another bias": (changed(fc__bias=torch.zeros(9)), r"fc.bias must be \(11,\), got \(9,\)"),
    "another dtype": (changed(fc__bias=torch.zeros(V).double()), "fc.bias must be float32 like the other"),
    "only an embedding": (changed(fc__weight=None, fc__bias=None), r"emb.weight must be \(outputs, 4\)"),
    "a layer's bias": (changed(lstm__bias_hh_l0=None), "the array lstm.bias_hh_l0 is missing"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_refusals_name_arrays_as_their_file_does(name, tmp_path):
    state, words = WRONG[name]
    torch.save(state, tmp_path / "words.pt")
    with pytest.raises(CheckpointError, match=words) as error:
        convert(tmp_path / "words.pt", tmp_path / "words.npz")
    assert str(error.value).startswith(f"{tmp_path / 'words.pt'}: ")
    assert not any(ours in str(error.value) for ours in ("embed_W", "output_", "layer0_", "from_torch"))
