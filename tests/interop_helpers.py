"""Layers and stacks for tests of conversions, with biases that matter, and comparisons."""

import numpy as np
from cell_cases import make
from helpers import assert_same_bits, normal

from rnnfast import Bidirectional, Stack

D, H, N, T = 3, 4, 2, 6
LIMIT = {np.dtype(np.float32): 1e-6, np.dtype(np.float64): 1e-12}  # of the largest output
FORMS = [(layers, directions) for layers in (1, 2, 3) for directions in (1, 2)]
KINDS = {
    "torch": ("rnn", "relu", "lstm", "gru-after"),
    "keras": ("rnn", "relu", "lstm", "gru-before", "gru-after"),
    "flax": ("rnn", "relu", "lstm", "gru-after"),
}


def built(kind, dtype, layers=1, directions=1, *, stateful=False, dropout=0.0, hidden=H):
    """A layer, a `Bidirectional` or a `Stack`."""
    made = []
    for number in range(layers):
        size = hidden * directions if number else D
        seeds = (10 * number + k for k in range(directions))
        both = [make(kind, size, hidden, dtype, seed=seed, stateful=stateful) for seed in seeds]
        assert all(param.any() for one in both for param in one.params)
        made.append(Bidirectional(*both) if directions == 2 else both[0])
    return made[0] if layers == 1 else Stack(made, dropout, rng=np.random.default_rng(0))


def state_dict(gates, layers=1, directions=1, *, biases=True, dtype=np.float64, prefix="", seed=0):
    """Random arrays by PyTorch's names."""
    rng, made = np.random.default_rng(seed), {}
    for k in range(layers):
        for end in ("", "_reverse")[:directions]:
            depth = H * directions if k else D
            shapes = {"weight_ih": (gates * H, depth), "weight_hh": (gates * H, H)}
            if biases:
                shapes |= {"bias_ih": (gates * H,), "bias_hh": (gates * H,)}
            for name, shape in shapes.items():
                made[f"{prefix}{name}_l{k}{end}"] = normal(rng, shape, dtype) * dtype(0.5)
    return made


def keras_weights(gates, *, biases=True, two=False, dtype=np.float64, seed=0):
    """Random arrays of a layer of Keras."""
    rng = np.random.default_rng(seed)
    bias = (2, gates * H) if two else (gates * H,)
    shapes = [(D, gates * H), (H, gates * H)] + ([bias] if biases else [])
    return [normal(rng, shape, dtype) * dtype(0.5) for shape in shapes]


def random_like(arrays, dtype):
    """Random numbers in the shape of each array."""
    rng = np.random.default_rng(3)
    return [(0.5 * rng.standard_normal(np.shape(array))).astype(dtype) for array in arrays]


def inputs(dtype, size=D):
    return normal(np.random.default_rng(5), (N, T, size), dtype)


def assert_close(actual, expected):
    """Both (N, T, H) within the limit, relative to the largest output."""
    assert actual.shape == expected.shape
    largest = np.abs(expected).max()
    assert largest > 0.01
    assert np.abs(actual - expected).max() <= LIMIT[actual.dtype] * largest


def assert_same_layer(actual, expected):
    """Layers of one kind with equal parameters and the same bits of outputs."""
    assert repr(actual) == repr(expected)
    for one, other in zip(actual.params, expected.params, strict=True):
        assert_same_bits(one, other)
        assert not np.may_share_memory(one, other)
    xs = inputs(actual.dtype)
    actual.train_flg = expected.train_flg = False
    assert_same_bits(actual.forward(xs), expected.forward(xs))


def assert_equal_trees(actual, expected):
    """Equal arrays in lists and dicts of the same form."""
    if isinstance(expected, dict):
        assert set(actual) == set(expected)
        actual, expected = [actual[name] for name in expected], list(expected.values())
    if isinstance(expected, list) or not hasattr(expected, "shape"):
        for one, other in zip(actual, expected, strict=True):
            assert_equal_trees(one, other)
    else:
        assert_same_bits(np.asarray(actual), np.asarray(expected))
