"""Compiled kernels of rnnfast: gemm, activations, time loops, losses and updates. README.md states each contract."""
