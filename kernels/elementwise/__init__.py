"""Kernels without products: embeddings, dropout, noise, optimizers, fingerprints."""
