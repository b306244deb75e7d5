"""Weights that travel: PyTorch, Keras, Flax, ONNX, and the book's pickles."""

from __future__ import annotations

from rnnfast.interop.torch import from_torch, to_torch

__all__ = [
    "from_torch",
    "to_torch",
]
