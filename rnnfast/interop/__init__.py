"""Weights that travel: PyTorch, Keras, Flax, ONNX, and the book's pickles."""


def __getattr__(name: str) -> object:
    """Import a converter at its first use."""
    import importlib

    modules = {"from_onnx": "onnx_graph"}
    if name not in modules:
        raise AttributeError(f"module 'rnnfast.interop' has no attribute {name!r}")
    return getattr(importlib.import_module(f"rnnfast.interop.{modules[name]}"), name)


__all__ = ["from_onnx"]
