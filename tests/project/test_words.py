"""Words of a small vocabulary, whose products the lowest layer takes once a word and not once a step."""

import numpy as np
import pytest
import reference
from helpers import assert_same_bits, relative_distance, sized

import rnnfast
from rnnfast import RNNLM, ExactBPTT, TruncatedBPTT
from rnnfast.layers import plans

CELLS = ("rnn", "relu", "lstm", "gru")
V = 11


def model_of(cell, *, dtype=np.float64, seed=0, **options):
    rng = np.random.default_rng(seed)
    model = RNNLM(V, 5, 6, cell=cell, rng=rng, dtype=dtype, **options)
    for param in model.params:
        param[...] = rng.standard_normal(param.shape) * 0.4
    return model


def window(N, T, seed=1):
    rng = np.random.default_rng(seed)
    return rng.integers(0, V, (N, T)), rng.integers(-1, V, (N, T))


def looks_up(model):
    return model.body.layers[0]._run.inputs.ids is not None


def passed(model, data):
    loss = model.forward(*data)
    took_words = looks_up(model)
    for grad in model.grads:
        grad[...] = np.nan
    model.backward()
    return loss, [grad.copy() for grad in model.grads], took_words


def without(model):
    """The same model, with inputs that are vectors."""
    model.body._lookup = lambda ids, steps: None
    return model


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("options", [{}, {"layers": 2}], ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_words_give_the_loss_and_the_gradients_of_vectors(cell, options, dtype):
    models = model_of(cell, dtype=dtype, **options), without(model_of(cell, dtype=dtype, **options))
    # Blocks of 512 // 7 = 73 steps: two and a part; the second window goes on from the state of the first.
    for seed in (1, 2):
        data = window(7, sized(170, 80), seed)
        (loss, grads, words), (expected, expected_grads, vectors) = (passed(model, data) for model in models)
        assert words
        assert not vectors
        assert_same_bits(np.array(loss), np.array(expected))
        for state, other in zip(models[0].get_state(), models[1].get_state(), strict=True):
            for array, same in zip(state, other, strict=True):
                assert_same_bits(array, same)
        for name, grad, other in zip(models[0].parameter_names, grads, expected_grads, strict=True):
            assert relative_distance(grad, other) < 30 * np.finfo(dtype).eps, name


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_gradients_of_words_are_those_of_the_reference(cell, tied):
    model = RNNLM(V, 6, 6, cell=cell, tied=tied, rng=np.random.default_rng(3), dtype=np.float64)
    twin = reference.RNNLM([param.copy() for param in model.params], cell, tied)
    data = window(4, 9)
    loss, grads, words = passed(model, data)
    assert words
    assert abs(loss - twin.forward(*data)) < 1e-12
    twin.backward()
    for grad, expected in zip(grads, twin.grads, strict=True):
        assert relative_distance(grad, expected) < 1e-11


@pytest.mark.parametrize("cell", CELLS)
def test_the_gradient_of_a_word_is_the_slope_of_the_loss(cell):
    model, data = model_of(cell), window(3, 8)
    _, grads, words = passed(model, data)
    assert words
    table = model.params[0]
    for place in [(0, 0), (3, 4), (V - 1, 2)]:
        before, losses = table[place], []
        for shift in (1e-5, -1e-5):
            table[place] = before + shift
            model.reset_state()
            losses.append(model.forward(*data))
        table[place] = before
        slope = (losses[0] - losses[1]) / 2e-5
        assert abs(grads[0][place] - slope) <= 1e-5 * max(1e-2, abs(slope))


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_gates_made_again_change_no_bit(cell, monkeypatch):
    model, data = model_of(cell, dtype=np.float32), window(7, sized(170, 80))
    expected = passed(model, data)
    model.reset_state()
    monkeypatch.setattr(plans, "KEPT_BYTES", 1)
    actual = passed(model, data)
    assert model.body.layers[0]._run.intact > 0
    assert actual[0] == expected[0]
    for grad, other in zip(actual[1], expected[1], strict=True):
        assert_same_bits(grad, other)


@pytest.mark.parametrize("cell", CELLS)
def test_threads_and_chunks_change_no_bit(cell, monkeypatch):
    data = window(8, sized(300, 70))
    model = model_of(cell, dtype=np.float32)
    expected = passed(model, data)
    assert expected[2]
    before = rnnfast.get_num_threads()
    monkeypatch.setattr(rnnfast.engine.threads, "LEAST_OPERATIONS", 1.0)
    monkeypatch.setattr(rnnfast.engine.load, "allowed", lambda: 3)
    try:
        for threads in (2, 3):
            rnnfast.set_num_threads(threads)
            for _ in range(2):  # the first call of a kernel is on one thread
                model.reset_state()
                actual = passed(model, data)
            assert actual[0] == expected[0]
            for grad, other in zip(actual[1], expected[1], strict=True):
                assert_same_bits(grad, other)
    finally:
        rnnfast.set_num_threads(before)
    model.reset_state()
    loss = ExactBPTT(chunk=64).gradients(model, *data)
    assert looks_up(model)
    assert loss == expected[0]
    for grad, other in zip(model.grads, expected[1], strict=True):
        assert_same_bits(grad, other)


def test_a_damaged_word_that_does_not_occur_harms_no_gradient():
    model = model_of("lstm")
    xs, ts = window(6, 20)
    xs[xs == V - 1] = 0
    model.params[0][V - 1] = np.nan
    loss, grads, words = passed(model, (xs, ts))
    assert words
    assert np.isfinite(loss)
    assert all(np.isfinite(grad).all() for grad in grads)
    assert not grads[0][V - 1].any()


def test_an_update_between_forward_and_backward_changes_no_gradient_of_the_weights():
    """Cached steps keep the word vectors that they have read, as they keep any inputs."""
    data, grads = window(6, 20), []
    for model in (model_of("lstm"), without(model_of("lstm"))):
        model.forward(*data)
        model.params[0][...] += 1.0
        model.backward()
        grads.append(model.grads[1].copy())
    assert relative_distance(grads[0], grads[1]) < 1e-13


def test_truncated_windows_that_reach_further_back_agree():
    text = np.random.default_rng(5).integers(0, V, 6 * 60)
    losses = []
    for model in (model_of("lstm"), without(model_of("lstm"))):
        optimizer, found = rnnfast.optim.SGD(0.5), []
        for part in TruncatedBPTT(10, 30).windows(model, text, 6):
            optimizer.update(model.params, model.grads)
            found.append(part.loss)
        losses.append(found)
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-9)


@pytest.mark.parametrize(
    ("N", "T", "options", "expected"),
    [
        (2, V - 1, {}, False),  # as many rows as words: nothing is saved
        (2, V, {}, True),
        (600, 1, {}, True),
        (4, 20, {"dropout": 0.3}, False),  # no two uses of a word are the same
    ],
)
def test_words_are_looked_up_where_there_are_fewer_than_rows(N, T, options, expected):
    model = model_of("rnn", **options)
    model.forward(*window(N, T))
    assert looks_up(model) is expected


def test_a_window_without_steps_after_words_leaves_the_state():
    model = model_of("gru")
    model.forward(*window(3, 20))
    state = model.get_state()
    model.forward(np.zeros((3, 0), int), np.zeros((3, 0), int))
    model.backward()
    assert all(not np.any(grad) for grad in model.grads)
    assert_same_bits(model.get_state()[0][0], state[0][0])
