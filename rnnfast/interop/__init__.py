"""Weights that travel: PyTorch, Keras, Flax, ONNX, and the book's pickles."""

from __future__ import annotations

from rnnfast.interop.onnx_export import to_onnx
from rnnfast.interop.onnx_run import export_run

__all__ = ["export_run", "to_onnx"]
