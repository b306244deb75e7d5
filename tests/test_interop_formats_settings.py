"""What a conversion keeps besides parameters, what it says is lost, and arguments that a file contradicts."""

import numpy as np
import pytest
from helpers import assert_same_bits

import rnnfast
from rnnfast import CheckpointError
from rnnfast.cells import cell, sigmoid, tanh
from rnnfast.interop.formats import FORMATS, Entry, convert
from rnnfast.interop.named import arrays_of
from rnnfast.interop.settings import settings_of


def lstm(*sizes, stateful=False):
    return rnnfast.TimeLSTM.from_sizes(*sizes, rng=np.random.default_rng(0), stateful=stateful)


def stack(dropout=0.5, **options):
    return rnnfast.Stack([lstm(3, 4, stateful=True), lstm(4, 5)], dropout, **options)


def lm(**options):
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
    notes = convert(written(lm(dropout=0.25), tmp_path / "b.npz"), tmp_path / "b.pkl").notes
    assert notes == ["dropout=0.25 is not stored in a .pkl file"]
    assert convert(tmp_path / "b.pkl", tmp_path / "c.npz").notes == []
    notes = convert(written(lm(precision="bfloat16"), tmp_path / "d.safetensors"), tmp_path / "d.pkl").notes
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


def test_an_onnx_file_keeps_settings_or_says_that_it_does_not(tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    for model in (stack(), lm(dropout=0.25), rnnfast.SequenceRegressor(3, 4, 2, dropout=0.25)):
        notes = convert(written(model, tmp_path / "a.npz"), tmp_path / "a.onnx").notes
        told = [note.split("=")[0] for note in notes]
        try:
            again = settings_of(FORMATS[".onnx"].read(tmp_path / "a.onnx", None).model)
        except CheckpointError:
            assert "dropout" in told
        else:
            lost = [one != other for one, other in zip(settings_of(model), again, strict=True)]
            assert told == [name for name, is_lost in zip(again._fields, lost, strict=True) if is_lost]


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
        FORMATS[path.suffix].write(lm(), path)
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
    model = lm()
    model.params[2][0, 0] = value
    model.save(tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=f"a.safetensors: .*layer0_Wh must be {words}"):
        convert(tmp_path / "a.safetensors", tmp_path / "b.npz")
    theirs = {f"weight_{part}_l0": np.zeros((16, 4), "f4") for part in ("ih", "hh")}
    theirs["weight_hh_l0"][0, 0] = value
    np.savez(tmp_path / "a.npz", **theirs)
    with pytest.raises(CheckpointError, match=f"a.npz: .*weight_hh_l0 must be {words}"):
        convert(tmp_path / "a.npz", tmp_path / "b.npz")
