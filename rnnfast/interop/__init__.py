"""Weights that travel: PyTorch, Keras, Flax, ONNX, and the book's pickles."""

from __future__ import annotations

from rnnfast.interop.book import from_book, to_book
from rnnfast.interop.formats import convert

__all__ = [
    "convert",
    "from_book",
    "to_book",
]
