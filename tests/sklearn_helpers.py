"""Sequences for tests of the estimators."""

import numpy as np


def sequences(count=60, channels=2, seed=0, dtype=np.float64):
    """Sequences (T_i, D) of unequal lengths, and whether the first channel has a positive sum."""
    rng = np.random.default_rng(seed)
    X = [rng.normal(size=(length, channels)).astype(dtype) for length in rng.integers(4, 12, count)]
    return X, np.array(["up" if x[:, 0].sum() > 0 else "down" for x in X])


def rectangle(X, steps=4):
    """The first steps of sequences as one array (N, T, D)."""
    return np.stack([x[:steps] for x in X])


SMALL = {"hidden_size": 8, "max_epochs": 4, "learning_rate": 0.02, "random_state": 0}
