"""Models and layers of other formats as ONNX files."""

import numpy as np
import pytest

import rnnfast
from rnnfast import CheckpointError, _check
from rnnfast.interop.formats import convert
from rnnfast.interop.named import arrays_of
from rnnfast.interop.onnx_graph import Graph

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def test_a_language_model_of_the_book_becomes_an_onnx_file(tmp_path):
    model = rnnfast.RNNLM(11, 5, 5, cell="lstm", layers=2, tied=True, rng=np.random.default_rng(0))
    model.save(tmp_path / "model.safetensors")
    convert(tmp_path / "model.safetensors", tmp_path / "book.pkl")
    converted = convert(tmp_path / "book.pkl", tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").is_file()
    assert converted.difference < 1e-5
    assert all(row.written for row in converted.rows)


def test_layers_become_an_onnx_file(tmp_path):
    layer = rnnfast.TimeGRU.from_sizes(3, 4, rng=np.random.default_rng(0))
    np.savez(tmp_path / "layer.npz", **arrays_of(layer))
    converted = convert(tmp_path / "layer.npz", tmp_path / "layer.onnx")
    assert converted.difference < 1e-5
    assert all(row.written for row in converted.rows)


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_the_rows_name_the_initializers_that_were_read(tied, tmp_path):
    model = rnnfast.RNNLM(11, 5, 5, cell="gru", tied=tied, rng=np.random.default_rng(0))
    model.save(tmp_path / "model.safetensors")
    wrote = convert(tmp_path / "model.safetensors", tmp_path / "model.onnx").rows
    read = convert(tmp_path / "model.onnx", tmp_path / "back.npz").rows
    for one, other in zip(wrote, read, strict=True):
        assert other.parameter == one.parameter
        assert {entry.name for entry in other.read} == {entry.name for entry in one.written}
        assert other.read


def test_a_graph_without_a_model_is_refused_by_the_name_of_the_file(tmp_path, monkeypatch):
    layer = rnnfast.TimeGRU.from_sizes(3, 4, rng=np.random.default_rng(0))
    np.savez(tmp_path / "layer.npz", **arrays_of(layer))
    convert(tmp_path / "layer.npz", tmp_path / "layer.onnx")

    def refuses(graph, *, verbose):
        raise _check.no_language_model("Graph.model")

    monkeypatch.setattr(Graph, "model", refuses)
    with pytest.raises(CheckpointError, match="computes another function") as error:
        convert(tmp_path / "layer.onnx", tmp_path / "back.npz")
    assert str(error.value).startswith(f"{tmp_path / 'layer.onnx'}: the graph")
    assert "graph.layers" not in str(error.value)
    assert not (tmp_path / "back.npz").exists()


def test_numbers_that_are_not_finite_are_told_by_their_node(tmp_path, monkeypatch):
    layer = rnnfast.TimeGRU.from_sizes(3, 4, rng=np.random.default_rng(0))
    np.savez(tmp_path / "layer.npz", **arrays_of(layer))
    layers = Graph.__init__

    def damaged(graph, *arguments, **options):
        layers(graph, *arguments, **options)
        for one in graph.layers.values():
            one.params[1][0, 0] = np.nan

    convert(tmp_path / "layer.npz", tmp_path / "layer.onnx")
    monkeypatch.setattr(Graph, "__init__", damaged)
    with pytest.raises(CheckpointError, match=r"layer.onnx: layer0_Wh of the node .* finite, got nan"):
        convert(tmp_path / "layer.onnx", tmp_path / "back.npz")
