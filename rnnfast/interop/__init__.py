"""Weights that travel: PyTorch, Keras, Flax, ONNX, and the book's pickles."""

from __future__ import annotations

from rnnfast.interop.book import from_book, to_book
from rnnfast.interop.formats import convert
from rnnfast.interop.onnx_export import to_onnx
from rnnfast.interop.onnx_run import export_run

__all__ = ["convert", "export_run", "from_book", "to_book", "to_onnx"]
