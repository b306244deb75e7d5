"""Windows without rows or without steps: defined results, and the state as it was."""

import numpy as np
import pytest
from cell_cases import KINDS, make
from helpers import assert_same_bits
from rnnfast.kernels.recurrence.sequence import time_grid

from rnnfast import RNNLM, Bidirectional, Stack

D, H = 3, 4


def window(N, T):
    return np.ones((N, T, D), np.float32)


@pytest.mark.parametrize("stateful", [False, True])
@pytest.mark.parametrize(("N", "T"), [(0, 5), (2, 0), (0, 0)])
@pytest.mark.parametrize("kind", KINDS)
def test_a_fresh_state_stays_fresh(kind, N, T, stateful):
    layer = make(kind, D, H, np.float32, stateful=stateful)
    assert layer.forward(window(N, T)).shape == (N, T, H)
    assert layer.h is None
    assert layer.backward(np.ones((N, T, H), np.float32)).shape == (N, T, D)
    assert not any(grad.any() for grad in layer.grads)
    assert layer.forward(window(3, 2)).shape == (3, 2, H)  # whatever N was


@pytest.mark.parametrize("stateful", [False, True])
@pytest.mark.parametrize(("N", "T"), [(0, 5), (2, 0)])
@pytest.mark.parametrize("kind", KINDS)
def test_a_state_that_was_reached_stays_as_it_is(kind, N, T, stateful):
    layer = make(kind, D, H, np.float32, stateful=stateful)
    layer.forward(window(2, 3))
    expected = layer.get_state()
    layer.forward(window(N, T))
    layer.step(np.ones((0, D), np.float32))
    for actual, array in zip(layer.get_state(), expected, strict=True):
        assert_same_bits(actual, array)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_of_no_rows_gives_no_rows(kind):
    layer = make(kind, D, H, np.float32)
    assert layer.step(np.ones((0, D), np.float32)).shape == (0, H)
    assert layer.h is None


def test_stacks_and_bidirectional_layers_pass_it_on():
    halves = Bidirectional(make("lstm", D, H, np.float32), make("gru-before", D, H, np.float32))
    layer = Stack([halves, make("rnn", 2 * H, H, np.float32)])
    layer.forward(window(2, 3))
    expected = layer.get_state()
    for N, T in ((0, 4), (2, 0)):
        assert layer.forward(window(N, T)).shape == (N, T, H)
        assert layer.backward(np.ones((N, T, H), np.float32)).shape == (N, T, D)
    assert str(layer.get_state()) == str(expected)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_a_model_reads_nothing_and_goes_on(cell):
    model = RNNLM(7, D, H, cell=cell, layers=2, rng=np.random.default_rng(0))
    ids = np.array([[1, 2, 3], [4, 5, 6]])
    for fresh in (True, False):
        for N, T in ((0, 3), (2, 0)):
            assert model.forward(np.zeros((N, T), int), np.zeros((N, T), int)) == 0
            assert model.predict(np.zeros((N, T), int)).shape == (N, T, 7)
            assert (model.get_state() == (None, None)) is fresh
        model.forward(ids, ids)


def test_blocks_reach_further_where_sequences_have_ended():
    full = np.arange(301) * 4
    assert time_grid(full, 4).tolist() == [0, 128, 256, 300]
    ragged = np.concatenate([full[:11], full[10] + np.arange(1, 291)])  # one of four goes on after step 10
    assert time_grid(ragged, 4).tolist() == [0, 300]
    assert time_grid(np.zeros(6, int), 4).tolist() == [0, 5]
    assert time_grid(np.zeros(1, int), 4).tolist() == [0]
