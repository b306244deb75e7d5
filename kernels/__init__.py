"""Compiled kernels of rnnfast: products, activations, time loops, losses, updates. See README.md."""
