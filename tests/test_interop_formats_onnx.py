"""Models and layers of other formats as ONNX files."""

import numpy as np
import pytest

import rnnfast
from rnnfast.interop.formats import convert
from rnnfast.interop.named import arrays_of

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
