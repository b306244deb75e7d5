"""Weights that travel: PyTorch, Keras, Flax, ONNX, and the book's pickles."""

from __future__ import annotations

from rnnfast.interop.book import from_book, to_book
from rnnfast.interop.flax import from_flax, to_flax
from rnnfast.interop.formats import convert, load, save
from rnnfast.interop.keras import from_keras, keras_config, to_keras
from rnnfast.interop.onnx_export import export_run, to_onnx
from rnnfast.interop.onnx_import import Graph, from_onnx
from rnnfast.interop.torch import from_torch, to_torch

__all__ = [
    "Graph",
    "convert",
    "export_run",
    "from_book",
    "from_flax",
    "from_keras",
    "from_onnx",
    "from_torch",
    "keras_config",
    "load",
    "save",
    "to_book",
    "to_flax",
    "to_keras",
    "to_onnx",
    "to_torch",
]
