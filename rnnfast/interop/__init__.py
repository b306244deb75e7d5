"""Weights that travel: PyTorch, Keras, Flax, ONNX, and the book's pickles."""

from __future__ import annotations

from rnnfast.interop.onnx_export import to_onnx

__all__ = ["to_onnx"]
