"""Compiled kernels of rnnfast: products, activations, time loops, losses, updates. README.md states them."""
