"""Changes of frozen weights are refused; copies and other threads read on."""

import copy
import ctypes
import functools
import pickle
import threading

import numpy as np
import pytest
from helpers import assert_same_bits, normal

from rnnfast import (
    CBOWLM,
    RNNLM,
    Bidirectional,
    ExactBPTT,
    Stack,
    TimeAffine,
    TimeLSTM,
    Trainer,
    TruncatedBPTT,
    optim,
)
from rnnfast.layers import plans
from rnnfast.models.network import Network

D, H = 5, 51
READ_ONLY = "read-only"


def rng():
    return np.random.default_rng(0)


def lstm(depth=D, width=H, **options):
    return TimeLSTM.from_sizes(depth, width, rng=rng(), **options)


# Changes.


def trainable():
    yield lstm(), lambda layer: layer.forward(np.ones((2, 4, D), np.float32))
    yield Stack([lstm(), lstm(H)]), lambda layer: layer.forward(np.ones((2, 4, D), np.float32))
    yield Bidirectional(lstm(), lstm()), lambda layer: layer.forward(np.ones((2, 4, D), np.float32))
    yield TimeAffine.from_sizes(D, 3, rng=rng()), lambda layer: layer.forward(np.ones((2, 4, D), np.float32))
    model = RNNLM(9, 8, 8, tied=True, rng=rng())
    yield model, lambda model: model.forward(np.ones((1, 3), int), np.ones((1, 3), int))


@pytest.mark.parametrize(("owner", "forward"), list(trainable()), ids=lambda each: type(each).__name__)
def test_changes_are_refused_and_allowed_again(owner, forward):
    back = (np.zeros_like(forward(owner)),) if not isinstance(owner, RNNLM) else ()
    kept = [param.copy() for param in owner.params]
    update = optim.SGD(0.1)
    update.update(owner.params, owner.grads)  # checked arrays are known from now on
    with owner.frozen():
        with pytest.raises(RuntimeError, match="backward: the weights are frozen; leave the `with` block"):
            owner.backward(*back)
        with pytest.raises(ValueError, match=READ_ONLY):
            owner.params[0][...] = 0
        with pytest.raises(ValueError, match=READ_ONLY):
            owner.params[0][...].T[0] = 0
        with pytest.raises(ValueError, match=r"SGD.update: params\[0\] is read-only"):
            update.update(owner.params, owner.grads)
        with pytest.raises(TypeError, match="cannot be replaced"):
            owner.params[0] = kept[0]
    for param, before in zip(owner.params, kept, strict=True):
        assert_same_bits(param, before)
    forward(owner)
    owner.backward(*back)
    update.update(owner.params, owner.grads)


def test_parts_of_a_frozen_model_are_frozen():
    model = RNNLM(9, 8, 8, tied=True, rng=rng())
    with model.frozen():
        for part in (model.output, model.body.layers[0], model.body.embedding):
            with pytest.raises(ValueError, match=READ_ONLY):
                part.params[0][0, 0] = 0
        with pytest.raises(RuntimeError, match="frozen"):
            model.body.layers[0].backward(np.ones((1, 1, 8), np.float32))


def test_errors_end_the_context_as_they_end_any():
    layer = lstm()
    with pytest.raises(KeyError), layer.frozen():
        raise KeyError
    layer.params[0][...] = 0
    assert layer.freezes == ()


def test_contexts_nest_and_overlap(lent):
    layer, xs = lstm(), np.ones((2, 4, D), np.float32)
    twin = TimeLSTM(*layer.params)
    transposed = TimeAffine(layer.params[0].T, np.zeros(D, np.float32))
    first, second, third = layer.frozen(), twin.frozen(), transposed.frozen()
    first.__enter__()
    second.__enter__()
    third.__enter__()
    with layer.frozen():
        layer.forward(xs)
    layer.forward(xs)
    first.__exit__(None, None, None)
    with pytest.raises(ValueError, match=READ_ONLY):
        layer.params[1][...] = 0
    second.__exit__(None, None, None)
    layer.params[1][...] = 0
    with pytest.raises(ValueError, match=READ_ONLY):
        layer.params[0][...] = 0  # transposed has a view of it
    third.__exit__(None, None, None)
    layer.params[0][...] = 0
    assert lent == [[0, 0], [1, 1]]


def test_a_freeze_after_a_change_packs_anew():
    layer, xs = lstm(), np.ones((2, 20, D), np.float32)
    for value in (0.1, 0.2):
        for param in layer.params:
            param[...] = value
        expected = TimeLSTM(*(param.copy() for param in layer.params)).forward(xs)
        with layer.frozen():
            for _ in range(2):
                assert_same_bits(layer.forward(xs), expected)


def test_arrays_that_numpy_could_not_release_are_not_packed(lent):
    memory = (ctypes.c_float * (D * 4 * H))()
    foreign = np.frombuffer(memory, np.float32).reshape(D, 4 * H)
    owner = np.zeros((D, 4 * H), np.float32)
    view = owner[:]
    owner.flags.writeable = False
    _, Wh, b = lstm().params
    xs = np.ones((2, 4, D), np.float32)
    for Wx, is_frozen in ((foreign, True), (view, False)):
        layer = TimeLSTM(Wx, Wh, b)
        lent.clear()
        with layer.frozen():
            assert Wx.flags.writeable is not is_frozen
            first = layer.forward(xs)
            if not is_frozen:
                Wx[...] = 1
                assert (layer.forward(xs) != first).any()
        assert [bool(made) for made in lent] == [True] if is_frozen else [False, False]
        assert all(array.flags.writeable for array in layer.params)
        Wx[...] = 2


# Copies, and other threads.


def test_copies_made_inside_are_not_frozen():
    layer, xs = lstm(), np.ones((2, 4, D), np.float32)
    expected = layer.forward(xs)
    with layer.frozen():
        layer.forward(xs)
        apart = [copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))]
        shared = copy.copy(layer)
        assert_same_bits(shared.forward(xs), expected)
        assert not shared.params[0].flags.writeable
    for other in (*apart, shared):
        assert_same_bits(other.forward(xs), expected)
        other.backward(np.ones_like(expected))
        other.params[0][...] = 0
    assert (layer.params[0] == 0).all()


def test_a_frozen_layer_returns_its_activations(monkeypatch):
    monkeypatch.setattr(plans, "KEPT_BYTES", 0)  # the window is read again
    layer, xs = lstm(), normal(rng(), (30, 40, D), np.float32)
    layer.forward(xs)
    expected = layer.activations()
    with layer.frozen():
        layer.forward(xs)
        actual = layer.activations()
        another = RNNLM(9, 8, 8, rng=rng())
        with another.frozen():
            another.another().predict(np.ones((1, 3), int))
    for name, (_, values) in expected.items():
        assert_same_bits(actual[name].values, values)


def test_threads_read_one_frozen_model():
    model = RNNLM(9, 8, 8, cell="gru", layers=2, rng=rng())
    texts = [rng().integers(9, size=n) for n in (3, 30, 200)]
    expected = [model.next_proba(text) for text in texts]
    wrong = []

    def read():
        for _ in range(20):
            for text, one in zip(texts, expected, strict=True):
                if (model.next_proba(text) != one).any():
                    wrong.append(text)

    threads = [threading.Thread(target=read) for _ in range(4)]
    with model.frozen():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


# A part that refuses.


def refusing():
    """Owners of several parts, a call that trains them, and a part that is frozen."""
    xs, ids = np.ones((2, 4, D), np.float32), np.array([[1, 2, 3]])

    def pass_of(layer):
        hs = layer.forward(xs)
        return lambda: layer.backward(np.ones_like(hs))

    stack = Stack([lstm(), lstm(H), lstm(H)])
    yield "stack", stack, pass_of(stack), stack.layers[0]
    halves = Bidirectional(lstm(), lstm())
    yield "bidirectional", halves, pass_of(halves), halves.layer_backward
    nested = Stack([Bidirectional(lstm(), lstm()), lstm(2 * H)])
    yield "nested", nested, pass_of(nested), nested.layers[0].layer_backward
    for name in ("lower layer", "embedding"):
        model = RNNLM(9, 8, 8, layers=2, dropout=0.5, rng=rng())
        model.forward(ids, ids)
        part = model.body.embedding if name == "embedding" else model.body.layers[0]
        yield f"model, {name}", model, model.backward, part
    model = RNNLM(9, 8, 8, rng=rng())
    model.forward(ids, ids)
    yield "model, output", model, model.backward, model.output
    model = CBOWLM(9, 8, rng=rng())
    model.forward(ids, ids)
    yield "cbow", model, model.backward, model.body.layer
    network = Network(D, 3, 2, bidirectional=True, pooling="last", rng=rng())
    network.forward(xs, np.ones((2, 2), np.float32))
    yield "network", network, network.backward, network.body.layers[0].layer_backward
    for bptt in (TruncatedBPTT(3), TruncatedBPTT(3, 6), ExactBPTT(3)):
        model = RNNLM(9, 8, 8, layers=2, rng=rng())
        trainer = Trainer(model, optim.SGD(0.1), bptt)
        fit = functools.partial(trainer.fit, np.arange(40) % 9, epochs=1, batch_size=2)
        yield f"fit, {bptt}", model, fit, model.body.layers[0]
    model = RNNLM(9, 8, 8, layers=2, rng=rng())
    many = np.tile(ids, 40)
    yield "exact", model, functools.partial(ExactBPTT(64).gradients, model, many, many), model.body.layers[0]


@pytest.mark.parametrize(
    ("owner", "call", "part"), [pytest.param(*rest, id=name) for name, *rest in refusing()]
)
def test_a_frozen_part_is_refused_before_anything_changes(owner, call, part):
    for grad in owner.grads:
        grad[...] = np.nan
    with part.frozen(), pytest.raises(RuntimeError, match="the weights are frozen"):
        call()
    assert all(np.isnan(grad).all() for grad in owner.grads)
    call()
    assert all(np.isfinite(grad).all() for grad in owner.grads)


def test_a_wrong_gradient_of_a_state_is_refused_before_anything_changes():
    xs, wrong = np.ones((2, 4, D), np.float32), {"dh_next": np.ones((3, H), np.float32)}
    stack, halves = Stack([lstm(), lstm(H)]), Bidirectional(lstm(), lstm())
    for layer, given in ((stack, [wrong, {}]), (stack, [{"dx_next": None}, {}]), (halves, ({}, wrong))):
        hs = layer.forward(xs)
        for grad in layer.grads:
            grad[...] = np.nan
        with pytest.raises((ValueError, TypeError), match=r"TimeLSTM\.backward"):
            layer.backward(np.ones_like(hs), dstate_next=given)
        assert all(np.isnan(grad).all() for grad in layer.grads)


def test_a_part_that_has_read_another_window_is_refused_before_anything_changes():
    for layer in (Stack([lstm(), lstm(H)]), Bidirectional(lstm(), lstm())):
        hs = layer.forward(np.ones((2, 4, D), np.float32))
        layer.layers[0 if isinstance(layer, Stack) else 1].forward(np.ones((2, 3, D), np.float32))
        for grad in layer.grads:
            grad[...] = np.nan
        with pytest.raises(ValueError, match=r"the last windows of (all|both) layers must be equal"):
            layer.backward(np.ones_like(hs))
        assert all(np.isnan(grad).all() for grad in layer.grads)
