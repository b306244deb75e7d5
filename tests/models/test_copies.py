"""Copies and pickles of layers and models: apart from the original, and tied inside as it is."""

import copy
import multiprocessing
import pickle
import threading

import numpy as np
import pytest
from cell_cases import KINDS, make
from helpers import assert_same_bits, normal

from rnnfast import (
    CBOWLM,
    RNNLM,
    Bidirectional,
    SequenceRegressor,
    Stack,
    State,
    TimeAffine,
    TimeAffineSoftmaxWithLoss,
    TimeBiLSTM,
    TimeDropout,
    TimeEmbedding,
    TimeLSTM,
    Trainer,
    TruncatedBPTT,
    optim,
    perplexity,
    time_layers,
)
from rnnfast.diagnostics import truncation_bias


def pickled(value):
    return pickle.loads(pickle.dumps(value))


DEEP = pytest.mark.parametrize("duplicate", [copy.deepcopy, pickled])
IDS = np.random.default_rng(5).integers(9, size=200)


def tied():
    return RNNLM(9, 6, 6, cell="gru", layers=2, dropout=0.3, tied=True, rng=np.random.default_rng(0))


def trained(model, epochs=2):
    trainer = Trainer(model, optim.Adam(lr=0.01), TruncatedBPTT(7))
    trainer.fit(IDS, epochs=epochs, batch_size=2)
    return [param.copy() for param in model.params]


@DEEP
def test_a_copy_of_a_tied_model_stays_tied_and_trains_as_the_original(duplicate):
    model = tied()
    other = duplicate(model)
    assert other.output.params[0].base is other.params[0]
    assert other.output.grads[0].base is other.grads[0]
    before = [param.copy() for param in model.params]
    actual = trained(other)
    for param, untouched in zip(model.params, before, strict=True):
        assert_same_bits(param, untouched)
    for found, expected in zip(actual, trained(model), strict=True):
        assert_same_bits(found, expected)
    assert perplexity(other, IDS) == perplexity(model, IDS)


@DEEP
def test_a_copy_goes_on_from_the_same_state_and_random_numbers(duplicate):
    for model in (tied(), CBOWLM(9, 4, window=3, rng=np.random.default_rng(0))):
        trained(model, epochs=1)
        other = duplicate(model)
        assert State.of(other) == State.of(model)
        xs, ts = IDS[:20].reshape(2, 10), IDS[1:21].reshape(2, 10)
        assert other.forward(xs, ts) == model.forward(xs, ts)
        model.backward()
        other.backward()
        for actual, expected in zip(other.grads, model.grads, strict=True):
            assert_same_bits(actual, expected)


def test_a_shallow_copy_works_on_the_same_parameters_with_a_state_of_its_own():
    model = tied()
    xs = IDS[:10].reshape(1, 10)
    model.predict(xs)
    other = copy.copy(model)
    assert all(a is b for a, b in zip(other.params, model.params, strict=True))
    assert other.output.params[0].base is model.params[0]
    expected = model.predict(xs)
    assert_same_bits(other.predict(xs), expected)
    other.predict(xs)
    state = State.of(model)
    other.reset_state()
    assert State.of(model) == state


@DEEP
def test_layers_of_the_users_own_that_share_an_array_share_it_in_the_copy(duplicate):
    W = normal(np.random.default_rng(1), (9, 6), np.float32)
    whole = normal(np.random.default_rng(1), (4, 8), np.float32)
    parts = [
        TimeEmbedding(W),
        TimeAffine(W.T, np.zeros(9, np.float32)),
        TimeEmbedding(whole[:2]),
        TimeEmbedding(whole[::-1]),
    ]
    embedding, affine, head, transposed = duplicate(parts)
    embedding.params[0][...] = 0.0
    assert not affine.params[0].any()
    assert not affine.forward(np.ones((1, 1, 6), np.float32)).any()
    head.params[0][...] = 3.0
    assert (transposed.params[0][-2:] == 3.0).all()
    assert not (transposed.params[0][:-2] == 3.0).any()
    assert not (whole == 3.0).any()
    assert W.any()


def many_layers():
    rng = np.random.default_rng(2)
    lstm = [TimeLSTM.from_sizes(4, 4, rng=rng, stateful=True) for _ in range(4)]
    yield from ((make(kind, 4, 3, np.float64), (2, 5, 4)) for kind in KINDS)
    yield Bidirectional(*lstm[:2]), (2, 5, 4)
    yield Stack(lstm[2:], dropout=0.5, rng=rng), (2, 5, 4)
    yield TimeBiLSTM(*lstm[0].params, *lstm[1].params), (2, 5, 4)
    yield TimeDropout(0.5, rng=rng), (2, 5, 4)
    yield TimeAffine.from_sizes(4, 3, rng=rng), (2, 5, 4)


@DEEP
def test_a_copied_layer_has_the_bits_of_the_original_and_memory_of_its_own(duplicate):
    for layer, shape in many_layers():
        xs = normal(np.random.default_rng(3), shape, getattr(layer, "dtype", np.float32))
        layer.forward(xs)
        other = duplicate(layer)
        assert [type(p) for p in other.params] == [np.ndarray] * len(layer.params)
        outputs = [each.forward(xs) for each in (layer, other)]
        gradients = [each.backward(np.ones_like(outputs[0])) for each in (layer, other)]
        for actual, expected in (outputs, gradients, *zip(layer.grads, other.grads, strict=True)):
            assert_same_bits(actual, expected)
            assert not np.shares_memory(actual, expected)


@DEEP
def test_what_forward_left_for_backward_stays_with_the_original(duplicate):
    layer = TimeLSTM.from_sizes(3, 4, rng=np.random.default_rng(0))
    hs = layer.forward(np.ones((2, 5, 3), np.float32))
    other = duplicate(layer)
    with pytest.raises(RuntimeError, match="call forward first"):
        other.backward(hs)
    layer.backward(hs)


def test_a_copy_of_one_step_layers_keeps_their_parameters_together():
    for layer in (
        time_layers.LSTM(np.zeros((3, 8)), np.zeros((2, 8)), np.ones(8)),
        time_layers.Embedding(np.eye(3)),
        time_layers.MatMul(np.eye(3)),
    ):
        other = copy.deepcopy(layer)
        for param in other.params:
            param *= 2.0
        inner = getattr(other, "_time", other)
        assert all((a == b).all() for a, b in zip(inner.params, other.params, strict=True))
        assert all((a == 2 * b).all() for a, b in zip(other.params, layer.params, strict=True))


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickled])
def test_params_and_grads_copy_as_ordinary_lists(duplicate):
    layer = TimeAffineSoftmaxWithLoss.from_sizes(3, 4)
    assert type(duplicate(layer.params)) is list
    assert type(layer.params[:]) is list


def test_a_model_works_in_a_spawned_process():
    model = tied()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply(model.next_proba, ([1, 2, 3],))
    assert_same_bits(found, model.next_proba([1, 2, 3]))


@DEEP
def test_a_regressor_is_copied_with_its_gradients(duplicate):
    model = SequenceRegressor(3, 4, 2, layers=2, rng=np.random.default_rng(0))
    xs, ts = np.ones((2, 5, 3), np.float32), np.ones((2, 5, 2), np.float32)
    model.forward(xs, ts)
    model.backward()
    other = duplicate(model)
    for actual, expected in zip(other.grads, model.grads, strict=True):
        assert_same_bits(actual, expected)
    assert other.config == model.config
    assert_same_bits(other.predict(xs), model.predict(xs))


def test_a_model_of_the_users_own_reads_whatever_it_holds():
    class Locked(RNNLM):
        def __init__(self):
            super().__init__(9, 4, 4, rng=np.random.default_rng(0))
            self.lock = threading.Lock()

    model = Locked()
    assert_same_bits(
        model.next_proba([1, 2]), RNNLM(9, 4, 4, rng=np.random.default_rng(0)).next_proba([1, 2])
    )
    assert truncation_bias(model, IDS[None, :20], IDS[None, 1:21], 5).relative_error >= 0


@pytest.mark.parametrize("make_layer", [time_layers.Softmax, time_layers.Sigmoid, time_layers.Dropout])
def test_the_input_of_the_last_forward_is_not_pickled(make_layer):
    layer = make_layer()
    fresh = len(pickle.dumps(layer))
    layer.forward(np.ones((100, 100)))
    assert len(pickle.dumps(layer)) < fresh + 200


def test_a_pickle_of_another_version_is_refused_in_one_sentence():
    layer = TimeAffine.from_sizes(3, 4)
    with pytest.raises(TypeError, match="TimeAffine: another version of rnnfast wrote this pickle"):
        TimeAffine.__new__(TimeAffine).__setstate__({"params": layer.params, "grads": layer.grads})
