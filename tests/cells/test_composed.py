"""`Stack` and `Bidirectional` of cells with random and given arguments: what they share."""

import copy

import numpy as np
import pytest

import rnnfast
from rnnfast import RNNLM, Bidirectional, Stack, cells

RNG = np.random.default_rng


@rnnfast.cell(states=("h",))
def driven(a, h, *, push=rnnfast.given(), noise=rnnfast.normal(0.3)):
    return cells.tanh(a + 0.5 * h + push + noise)


def stack(cell=driven, **options):
    rng = RNG(3)
    lower = Bidirectional(*(cell.layer(3, 4, rng=rng, stateful=False) for _ in range(2)))
    return Stack([lower, cell.layer(8, 5, rng=rng, stateful=True)], rng=rng, **options)


def window(seed=0):
    rng = RNG(seed)
    return rng.normal(size=(2, 6, 3)).astype(np.float32), rng.normal(size=(2, 6)).astype(np.float32)


def test_switching_training_off_reaches_every_layer():
    layer, (xs, push) = stack(dropout=0.5), window()
    assert not (layer.forward(xs, push=push) == layer.forward(xs, push=push)).all()
    layer.train_flg = False
    layer.reset_state()
    first = layer.forward(xs, push=push)
    layer.reset_state()
    np.testing.assert_array_equal(layer.forward(xs, push=push), first)
    assert not any(inner.train_flg for inner in layer.recurrent)


def test_random_numbers_go_on_from_a_state_of_theirs():
    layer, (xs, push) = stack(dropout=0.5), window()
    kept = layer.rng_state
    assert len(kept) == 4  # one dropout and three layers
    first = layer.forward(xs, push=push)
    layer.reset_state()
    layer.rng_state = kept
    np.testing.assert_array_equal(layer.forward(xs, push=push), first)
    with pytest.raises(ValueError, match="one per dropout or layer that draws"):
        layer.rng_state = kept[1:]
    before = layer.rng_state
    with pytest.raises((TypeError, ValueError), match=r"Stack\.rng_state"):
        layer.rng_state = (*kept[:-1], (1, -5))
    assert layer.rng_state == before


def test_a_pass_that_fails_leaves_states_and_random_numbers(monkeypatch):
    layer, (xs, push) = stack(dropout=0.5), window()
    layer.forward(xs, push=push)
    twin = copy.deepcopy(layer)
    with monkeypatch.context() as patched:
        patched.setattr(layer.layers[1], "run_forward", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            layer.forward(xs, push=push)
    assert layer.rng_state == twin.rng_state
    np.testing.assert_array_equal(layer.forward(xs, push=push), twin.forward(xs, push=push))


def test_a_model_whose_pass_fails_draws_the_same_again(monkeypatch):
    model = RNNLM(7, 4, 5, cell=cells.leaky, layers=2, dropout=0.25, rng=RNG(0))
    ids = RNG(1).integers(0, 7, (2, 6))
    twin = copy.deepcopy(model)
    with monkeypatch.context() as patched:
        patched.setattr(model.output, "forward", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            model.forward(ids, ids)
    assert model.rng_state == twin.rng_state
    assert model.forward(ids, ids) == twin.forward(ids, ids)


def test_given_arrays_reach_each_layer_that_asks_for_them():
    layer, (xs, push) = stack(), window()
    layer.train_flg = False
    hs = layer.forward(xs, push=push)
    lower, upper = layer.layers
    halves = [
        lower.layer_forward.forward(xs, push=push),
        lower.layer_backward.forward(xs[:, ::-1], push=push[:, ::-1])[:, ::-1],
    ]
    upper.reset_state()
    np.testing.assert_array_equal(hs, upper.forward(np.concatenate(halves, axis=-1), push=push))


def test_given_arrays_are_turned_within_their_length():
    (xs, push), lengths = window(), [4, 6]
    layer = stack().layers[0]
    layer.train_flg = False
    hs = layer.forward(xs, push=push, lengths=lengths)
    np.testing.assert_array_equal(hs[:1, :4], layer.forward(xs[:1, :4], push=push[:1, :4]))


def test_gradients_of_given_arrays_come_in_the_order_of_time():
    (xs, push), dhs = window(), np.zeros((2, 6, 8), np.float32)
    layer = stack().layers[0]
    layer.train_flg = False
    layer.forward(xs, push=push)
    dhs[:, 4] = 1
    layer.backward(dhs)
    ahead, back = np.split(layer.given_gradients["push"], 2, axis=-1)
    assert ahead[:, :5].any(axis=(0, 2)).all()
    assert not ahead[:, 5:].any()
    assert back[:, 4:].any(axis=(0, 2)).all()
    assert not back[:, :4].any()


def test_steps_of_a_stack_take_given_arrays():
    rng, (xs, push) = RNG(0), window()
    layer = Stack([driven.layer(3, 4, rng=rng), cells.leaky.layer(4, 5, rng=rng)])
    hs = layer.forward(xs, push=push)
    layer.reset_state()
    layer.rng_state = [(seed, 0) for seed, _ in layer.rng_state]
    steps = [layer.step(xs[:, t], push=push[:, t]) for t in range(6)]
    np.testing.assert_array_equal(np.stack(steps, axis=1), hs)


@pytest.mark.parametrize("given", [{}, {"pull": 1}, {"push": np.zeros((2, 5), np.float32)}])
def test_wrong_given_arrays_are_refused_before_the_first_layer_moves(given):
    layer, (xs, _) = stack(), window()
    for tested in (layer, layer.layers[0]):
        before = layer.rng_state
        with pytest.raises((TypeError, ValueError), match=rf"{type(tested).__name__}\.forward: "):
            tested.forward(xs, **given)
        assert layer.rng_state == before
