"""Weights that travel: PyTorch, Keras, Flax, ONNX, and the book's pickles."""
