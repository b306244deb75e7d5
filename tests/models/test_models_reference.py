"""Whole language models against naive twins made of the naive layers: losses and every gradient."""

import numpy as np
import pytest
import reference
from helpers import relative_distance

from rnnfast import CBOWLM, RNNLM

V, N, T = 11, 3, 7


def assert_two_windows_equal_the_reference(model, twin):
    """Two, since the second starts from what the first has left: the state, or the words before it."""
    rng = np.random.default_rng(1)
    for _ in range(2):
        xs, ts = rng.integers(0, V, (N, T)), rng.integers(-1, V, (N, T))
        ts[0, 0] = -1
        loss, expected = model.forward(xs, ts), twin.forward(xs, ts)
        assert loss == pytest.approx(expected, rel=1e-11)
        model.backward()
        twin.backward()
        for name, actual, wanted in zip(model.parameter_names, model.grads, twin.grads, strict=True):
            assert relative_distance(actual, wanted) <= 1e-11, name


def with_weights_that_matter(model):
    """Large enough that every part of the gradient counts, biases too."""
    rng = np.random.default_rng(2)
    for param in model.params:
        param[...] = rng.standard_normal(param.shape) * 0.5
    return model


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("cell", ["rnn", "relu", "lstm", "gru"])
def test_rnnlm_equals_embedding_recurrent_layers_and_output_put_together(cell, layers, tied):
    width = 5 if tied else 4
    model = RNNLM(V, 5, width, cell=cell, layers=layers, tied=tied, dtype=np.float64)
    model = with_weights_that_matter(model)
    twin = reference.RNNLM([param.copy() for param in model.params], cell, tied)
    assert_two_windows_equal_the_reference(model, twin)


@pytest.mark.parametrize("window", [1, 2, 5, 9])
def test_cbowlm_equals_context_sum_and_output_put_together(window):
    model = with_weights_that_matter(CBOWLM(V, 5, window, dtype=np.float64))
    twin = reference.CBOWLM([param.copy() for param in model.params], window)
    assert_two_windows_equal_the_reference(model, twin)
