"""The book's lists of parameters: read, written, and computed by its formulas."""

import pickle

import numpy as np
import pytest
import reference
from helpers import assert_same_bits

import rnnfast
from rnnfast import CheckpointError
from rnnfast.interop.book import from_book, to_book

V, N, T = 11, 3, 7
CELLS = ("rnn", "gru", "lstm")
GATES = {"rnn": 1, "gru": 3, "lstm": 4}


def params_of_book(cell="lstm", layers=1, depth=5, width=4, tied=False, dtype=np.float16):
    """The `params` of `Rnnlm` with other sizes or, tied and with two layers, of `BetterRnnlm`."""
    rng, gates = np.random.default_rng(0), GATES[cell]
    shapes = [(V, depth)]
    for layer in range(layers):
        shapes += [(width if layer else depth, gates * width), (width, gates * width), (gates * width,)]
    params = [rng.standard_normal(shape) for shape in [*shapes, (width, V), (V,)]]
    if tied:
        params[-2] = params[0].T
    return [param.astype(dtype) for param in params]


def saved(tmp_path, params, protocol=None):
    """The file of the book's `save_params`."""
    path = tmp_path / "Rnnlm.pkl"
    with open(path, "wb") as file:
        pickle.dump(params, file, protocol)
    return path


def scores_by_reference(params, cell, tied=False):
    """Scores (N, T, V) of random words by the naive layers."""
    wide = [param.astype(np.float64) for param in params]
    xs = wide[0][np.random.default_rng(1).integers(V, size=(N, T))]
    for first in range(1, len(wide) - 2, 3):
        layer = {"rnn": reference.TimeRNN, "gru": reference.TimeGRU, "lstm": reference.TimeLSTM}[cell]
        xs = layer(*wide[first : first + 3]).forward(xs)
    return xs @ wide[-2] + wide[-1]


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("cell", CELLS)
def test_a_file_of_the_book_becomes_a_language_model(cell, layers, tied, tmp_path, capsys):
    params = params_of_book(cell, layers, width=5 if tied else 4, tied=tied)
    model = from_book(saved(tmp_path, params))
    assert isinstance(model, rnnfast.RNNLM)
    assert (model.config["cell"], model.config["layers"], model.tied) == (cell, layers, tied)
    assert model.dtype == np.float32
    expected = scores_by_reference(params, cell, tied)
    actual = model.predict(np.random.default_rng(1).integers(V, size=(N, T)))
    np.testing.assert_allclose(actual, expected, atol=1e-5 * abs(expected).max(), rtol=0)
    told = capsys.readouterr().out
    assert told.startswith("from_book: rnnfast and the book's formulas differ by at most ")
    assert told.count("\n") == 1


@pytest.mark.parametrize("protocol", range(6))
def test_a_model_survives_the_way_through_the_book_in_every_protocol(protocol, tmp_path):
    model = rnnfast.RNNLM(V, 4, 4, cell="lstm", layers=2, tied=True, rng=np.random.default_rng(0))
    params = to_book(model, dtype=np.float32)
    again = from_book(saved(tmp_path, params, protocol), verbose=False)
    assert again.config == model.config
    for actual, expected in zip(again.params, model.params, strict=True):
        assert_same_bits(actual, expected)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("cell", CELLS)
def test_a_written_file_is_a_plain_pickle_of_the_books_list(cell, dtype, tmp_path):
    params = params_of_book(cell, dtype=dtype)
    model = from_book(params, verbose=False)
    listed = to_book(model, tmp_path / "Rnnlm.pkl", dtype=dtype)
    with open(tmp_path / "Rnnlm.pkl", "rb") as file:
        read = pickle.load(file)
    assert type(read) is list
    for actual, in_list, expected in zip(read, listed, params, strict=True):
        assert_same_bits(actual, expected)
        assert_same_bits(in_list, expected)


def test_the_list_is_a_copy_and_the_model_too():
    params = params_of_book(dtype=np.float32)
    model = from_book(params, verbose=False)
    listed = to_book(model, dtype=np.float32)
    params[1][...] = np.nan
    model.params[1][...] = np.inf
    assert np.isfinite(listed[1]).all()


@pytest.mark.parametrize("cell", CELLS)
def test_layers_alone_become_layers(cell, capsys):
    params = params_of_book(cell, layers=2, dtype=np.float64)[1:-2]
    one, two = from_book(params[:3]), from_book(params)
    name = {"rnn": "TimeRNN", "gru": "TimeGRU", "lstm": "TimeLSTM"}[cell]
    assert type(one).__name__ == name
    assert [type(layer).__name__ for layer in two.layers] == [name] * 2
    xs = np.random.default_rng(2).standard_normal((N, T, 5))
    lower = getattr(reference, name)(*params[:3]).forward(xs)
    np.testing.assert_allclose(one.forward(xs), lower, rtol=0, atol=1e-13)
    upper = getattr(reference, name)(*params[3:]).forward(lower)
    np.testing.assert_allclose(two.forward(xs), upper, rtol=0, atol=1e-13)
    for actual, expected in zip(to_book(two, dtype=np.float64), params, strict=True):
        assert_same_bits(actual, expected)


def test_weights_that_nearly_equal_the_embedding_stay_apart():
    params = params_of_book(width=5, tied=True)
    params[-2] = params[-2].copy()
    params[-2][0, 0] += 1
    model = from_book(params, verbose=False)
    assert not model.tied
    assert model.params[-2][0, 0] == params[-2][0, 0]


def test_a_cell_may_be_asked_for():
    assert from_book(params_of_book("gru"), cell="gru", verbose=False).config["cell"] == "gru"
    with pytest.raises(ValueError, match="from_book: cell must be lstm, which the list has, got rnn"):
        from_book(params_of_book("lstm"), cell="rnn")
    with pytest.raises(ValueError, match="from_book: cell must be one of rnn, gru, lstm, got 'relu'"):
        from_book(params_of_book("rnn"), cell="relu")


def test_an_unknown_cell_is_not_blamed_on_the_file(tmp_path):
    path = saved(tmp_path, params_of_book("lstm"))
    with pytest.raises(
        ValueError, match=r"^from_book: cell must be one of rnn, gru, lstm, got 'xx'"
    ) as error:
        from_book(path, cell="xx")
    assert not isinstance(error.value, CheckpointError)
    with pytest.raises(ValueError, match=r"cell must be lstm, which .*Rnnlm.pkl has, got gru") as error:
        from_book(path, cell=rnnfast.cells.gru)
    assert not isinstance(error.value, CheckpointError)


def changed(place, value):
    params = params_of_book(layers=2)
    params[place] = value
    return params


WRONG = {
    "nothing": ([], "got 0 arrays"),
    "too few": (params_of_book()[:5], "got 5 arrays"),
    "one array": (params_of_book()[:1], "got 1 arrays"),
    "a number": (changed(1, 3), "layer0_Wx must be a NumPy array, got int"),
    "integers": (changed(1, np.ones((5, 16), int)), "layer0_Wx must be float32 or float64, got int64"),
    "a bias of two axes": (changed(3, np.ones((16, 1), "f2")), r"layer0_b must be \(columns,\)"),
    "another depth": (changed(1, np.ones((3, 16), "f2")), r"embed_W must be \(11, 3\), got \(11, 5\)"),
    "two gates": (changed(2, np.ones((4, 8), "f2")), r"layer0_Wh must be \(H, G\*H\) with 1, 3 or 4 gates"),
    "another width above": (
        changed(5, np.ones((7, 28), "f2")),
        r"layer1_Wx must be \(4, 28\), got \(4, 16\)",
    ),
    "two cells": (
        [*params_of_book("lstm", 2)[:4], *params_of_book("gru", 2)[4:]],
        "all layers of a model have one cell, got lstm and gru",
    ),
    "another vocabulary": (changed(-1, np.ones(12, "f2")), r"embed_W must be \(12, 5\), got \(11, 5\)"),
    "no numbers": (changed(1, np.full((5, 16), np.nan, "f2")), "layer0_Wx must be finite, got nan"),
}


@pytest.mark.parametrize("name", WRONG)
def test_other_lists_are_refused_and_in_a_file_by_its_name(name, tmp_path):
    params, words = WRONG[name]
    with pytest.raises((TypeError, ValueError), match=words) as error:
        from_book(params)
    assert str(error.value).startswith("from_book: ")
    path = saved(tmp_path, params)
    if name == "a number":
        words = "it holds 3"
    with pytest.raises(CheckpointError, match=words) as error:
        from_book(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "from_book" not in str(error.value)


def test_what_the_book_lacks_is_refused_by_name(tmp_path):
    lstm = rnnfast.TimeLSTM.from_sizes
    with pytest.raises(ValueError, match="to_book: the book has no list of layers in two directions"):
        to_book(rnnfast.Bidirectional(lstm(3, 4), lstm(3, 4)))
    with pytest.raises(ValueError, match=r"to_book: .*the book .*the cell gru_after"):
        to_book(rnnfast.TimeGRU.from_sizes(3, 4, reset="after"))
    with pytest.raises(ValueError, match=r"to_book: .*the book .*the cell relu"):
        to_book(rnnfast.RNNLM(V, 3, 4, cell="relu"))
    with pytest.raises(
        ValueError, match="to_book: dtype must be one of float16, float32, float64, got 'int8'"
    ):
        to_book(lstm(3, 4), dtype=np.int8)
    with pytest.raises(ValueError, match="to_book: the book's list has no place for a SequenceRegressor"):
        to_book(rnnfast.SequenceRegressor(3, 4, 2))
    with pytest.raises(TypeError, match="to_book"):
        to_book(rnnfast.TimeEmbedding(np.ones((3, 4), np.float32)))
    big = lstm(3, 4)
    big.params[0][0, 0] = 1e5
    path = tmp_path / "big.pkl"
    with pytest.raises(ValueError, match="to_book: layer0_Wx has values that float16 cannot hold"):
        to_book(big, path)
    assert not path.exists()
    assert to_book(big, path, dtype=np.float32)[0][0, 0] == np.float32(1e5)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("tied", [False, True])
def test_a_written_list_is_compared_with_the_books_formulas(cell, tied, tmp_path, capsys):
    model = rnnfast.RNNLM(V, 4, 4, cell=cell, layers=2, tied=tied, rng=np.random.default_rng(0))
    to_book(model, tmp_path / "Rnnlm.pkl")
    told = capsys.readouterr().out
    assert told.startswith("to_book: rnnfast and the book's formulas differ by at most ")
    assert 0 <= float(told.split("at most ")[1].split()[0]) < 1e-5
    to_book(model, verbose=False)
    assert capsys.readouterr().out == ""


def test_a_list_that_computes_other_numbers_is_not_written(tmp_path, monkeypatch):
    from rnnfast.interop import book

    layer = rnnfast.TimeLSTM.from_sizes(3, 4, rng=np.random.default_rng(0))
    steps = {rnnfast.cells.lstm: lambda x, h, c, *weights: (h + 1, c)}
    monkeypatch.setattr(book, "_STEPS", steps)
    with pytest.raises(ValueError, match="to_book: rnnfast and the book's formulas differ by"):
        to_book(layer, tmp_path / "layer.pkl")
    assert not (tmp_path / "layer.pkl").exists()


@pytest.mark.parametrize(("value", "words"), [(np.nan, "finite, got nan"), (np.inf, "finite, got inf")])
def test_numbers_that_are_not_finite_are_not_written(value, words, tmp_path):
    layer = rnnfast.TimeLSTM.from_sizes(3, 4, rng=np.random.default_rng(0))
    layer.params[1][2, 3] = value
    with pytest.raises(ValueError, match=f"to_book: layer0_Wh must be {words}"):
        to_book(layer, tmp_path / "layer.pkl")
    assert not (tmp_path / "layer.pkl").exists()
