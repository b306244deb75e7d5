"""A `backward` that would read what it has overwritten by then is refused, or gives the right result."""

import numpy as np
import pytest
from helpers import assert_same_bits

import rnnfast
from rnnfast import time_layers

N, T, D, H = 2, 3, 4, 4
XS = np.random.default_rng(0).standard_normal((N, T, D))
LABELS = np.array([[0, 1, 2], [3, 3, 0]])


def weights(*shape):
    return np.random.default_rng(1).standard_normal(shape)


def recurrent(kind):
    return getattr(rnnfast, kind).from_sizes(D, H, rng=np.random.default_rng(2), dtype=np.float64)


LAYERS = {
    "TimeRNN": (lambda: recurrent("TimeRNN"), XS),
    "TimeLSTM": (lambda: recurrent("TimeLSTM"), XS),
    "TimeGRU": (lambda: recurrent("TimeGRU"), XS),
    "Bidirectional": (lambda: rnnfast.Bidirectional(recurrent("TimeRNN"), recurrent("TimeGRU")), XS),
    "TimeAffine": (lambda: rnnfast.TimeAffine(weights(D, H), weights(H)), XS),
    "TimeEmbedding": (lambda: rnnfast.TimeEmbedding(weights(12, H)), LABELS),
    "TimeContextSum": (lambda: rnnfast.TimeContextSum(weights(12, H), 2), LABELS),
}


def within(layer, count, last=False):
    """The first or last `count` elements of a gradient that has as many."""
    fitting = [grad for grad in layer.grads if grad.size >= count]
    flat = fitting[0].reshape(-1)
    return flat[-count:] if last else flat[:count]


def larger(layer, xs, batch=1, steps=1):
    """Rows and steps of the input, few enough for their outputs to lie in a gradient."""
    return xs[:batch, :steps].copy()


@pytest.mark.parametrize("name", LAYERS)
def test_a_gradient_in_the_memory_of_grads_is_refused(name):
    make, xs = LAYERS[name]
    layer, xs = make(), larger(make(), xs)
    ys = layer.forward(xs)
    for last in (False, True):
        dys = within(layer, ys.size, last).reshape(ys.shape)
        argument = "dout" if name == "TimeAffine" else "dhs"
        sentence = (
            rf"{argument} shares memory with grads, which backward overwrites; pass {argument}\.copy\(\)\.$"
        )
        before = [grad.copy() for grad in layer.grads]
        with pytest.raises(ValueError, match=rf"^{name}\.backward: {sentence}"):
            layer.backward(dys)
        for grad, old in zip(layer.grads, before, strict=True):
            assert_same_bits(grad, old)
    layer.backward(dys.copy())


@pytest.mark.parametrize("name", ["TimeRNN", "TimeLSTM", "TimeGRU"])
def test_gradients_of_final_states_and_inputs_in_the_memory_of_grads_are_refused(name):
    layer = recurrent(name)
    ys = layer.forward(XS)
    for state in layer.cell.states:
        given = within(layer, N * H).reshape(N, H)
        with pytest.raises(ValueError, match=rf"^{name}\.backward: d{state}_next shares memory with grads"):
            layer.backward(np.ones_like(ys), **{f"d{state}_next": given})
    ys = layer.forward(within(layer, D).reshape(1, 1, D))
    with pytest.raises(ValueError, match=rf"^{name}\.backward: xs shares memory with grads"):
        layer.backward(np.ones_like(ys))


def test_an_input_of_an_affine_layer_in_the_memory_of_grads_is_refused():
    layer = rnnfast.TimeAffine(weights(D, H), weights(H))
    ys = layer.forward(within(layer, D).reshape(1, 1, D))
    with pytest.raises(ValueError, match=r"^TimeAffine\.backward: x shares memory with grads"):
        layer.backward(np.ones_like(ys))


@pytest.mark.parametrize("transposed", [False, True])
def test_a_gradient_in_the_array_that_an_embedding_adds_to_is_refused(transposed):
    layer = rnnfast.TimeEmbedding(weights(12, H))
    ys = layer.forward(LABELS)
    memory = np.zeros((H, 12) if transposed else (12, H))
    dys = memory.reshape(-1)[: ys.size].reshape(ys.shape)
    with pytest.raises(ValueError, match=r"^TimeEmbedding\.backward: out shares memory with an input"):
        layer.backward(dys, add_to=memory.T if transposed else memory)


def test_a_product_is_right_wherever_its_gradient_lies():
    layer, twin = (time_layers.MatMul(weights(D, H)) for _ in range(2))
    for each in (layer, twin):
        each.forward(XS[0])
        each.backward(np.ones((T, H)))
    dys = layer.grads[0][:T]
    expected = twin.backward(twin.grads[0][:T].copy())
    assert_same_bits(layer.backward(dys), expected)
    assert_same_bits(layer.grads[0], twin.grads[0])


def test_layers_of_one_step_are_refused_the_same():
    layer = time_layers.LSTM(*(p.copy() for p in recurrent("TimeLSTM").params))
    layer.forward(XS[:, 0], np.zeros((N, H)), np.zeros((N, H)))
    with pytest.raises(ValueError, match=r"backward: dh_next shares memory with grads"):
        layer.backward(within(layer, N * H).reshape(N, H), np.zeros((N, H)))


def test_losses_give_the_same_gradient_whoever_writes_into_grads_in_between():
    """Their gradients are made by `forward`; `backward` reads nothing of the caller."""
    for layer, ts in (
        (rnnfast.TimeAffineSoftmaxWithLoss(weights(D, 5), weights(5)), LABELS[:1, :1]),
        (rnnfast.TimeAffineSquaredLoss(weights(D, 5), weights(5)), np.ones((1, 1, 5))),
    ):
        xs = within(layer, D).reshape(1, 1, D)
        xs[...] = XS[0, 0]
        layer.forward(xs, ts)
        expected = [layer.backward(), *(grad.copy() for grad in layer.grads)]
        for actual, array in zip([layer.backward(), *layer.grads], expected, strict=True):
            assert_same_bits(actual, array)
