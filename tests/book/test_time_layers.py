"""The drop-in for the book's module: names, values, identities, and a training run with the same curve."""

# ruff: noqa: NPY002 (the book draws from the global generator)

import numpy as np
import pytest
import reference
from helpers import DTYPES, assert_same_bits, relative_distance, sized

import rnnfast
from rnnfast import optim, time_layers
from rnnfast.book.simple import cross_entropy_error, sigmoid, softmax

BOOK = [
    "RNN",
    "TimeRNN",
    "LSTM",
    "TimeLSTM",
    "TimeEmbedding",
    "TimeAffine",
    "TimeSoftmaxWithLoss",
    "TimeDropout",
    "TimeBiLSTM",
    "TimeSigmoidWithLoss",
    "GRU",
    "TimeGRU",
    "Simple_TimeSoftmaxWithLoss",
    "Simple_TimeAffine",
    "np",
    "sigmoid",
    "softmax",
    "cross_entropy_error",
    "MatMul",
    "Affine",
    "Softmax",
    "SoftmaxWithLoss",
    "Sigmoid",
    "SigmoidWithLoss",
    "Dropout",
    "Embedding",
]


def test_the_star_import_brings_the_books_names_and_nothing_else():
    space = {}
    exec("from rnnfast.time_layers import *", space)
    assert set(space) - {"__builtins__"} == set(BOOK) == set(time_layers.__all__)
    assert space["np"] is np


class BookModel:
    """A language model as the book writes it, around a module of layers."""

    def __init__(self, layers, cell, params, tied=False):
        embed_W, Wx, Wh, b, affine_W, affine_b = params
        self.layers = [
            layers.TimeEmbedding(embed_W),
            getattr(layers, cell)(Wx, Wh, b, stateful=True),
            layers.TimeAffine(embed_W.T if tied else affine_W, affine_b),
        ]
        self.loss_layer = layers.TimeSoftmaxWithLoss()
        self.params = [param for layer in self.layers for param in layer.params]
        self.grads = [grad for layer in self.layers for grad in layer.grads]

    def forward(self, xs, ts):
        for layer in self.layers:
            xs = layer.forward(xs)
        return self.loss_layer.forward(xs, ts)

    def backward(self, dout=1):
        dout = self.loss_layer.backward(dout)
        for layer in reversed(self.layers):
            dout = layer.backward(dout)
        return dout

    def reset_state(self):
        self.layers[1].reset_state()


def book_params(V, D, H, gates, seed=0):
    """The book's initial weights, as float32."""
    rn = np.random.default_rng(seed).standard_normal
    params = [rn((V, D)) / 100, rn((D, gates * H)) / np.sqrt(D), rn((H, gates * H)) / np.sqrt(H)]
    params += [np.zeros(gates * H), rn((H, V)) / np.sqrt(H), np.zeros(V)]
    return [param.astype("f") for param in params]


@pytest.mark.parametrize(("cell", "gates"), [("TimeRNN", 1), ("TimeLSTM", 4), ("TimeGRU", 3)])
def test_two_hundred_steps_of_training_have_the_curve_of_the_books_arithmetic(cell, gates):
    V, D, H, N, T = 30, 12, 16, 5, 6
    params = book_params(V, D, H, gates)
    ours = BookModel(time_layers, cell, params)
    theirs = BookModel(reference, cell, [param.astype(np.float64) for param in params])
    rng = np.random.default_rng(1)
    text = rng.integers(0, V, 400)
    text[1::3] = text[:-1:3] * 7 % V  # something to learn
    first = None
    for step in range(sized(200, 5)):
        places = (np.arange(N)[:, None] * 60 + step * T + np.arange(T)) % 399
        losses = []
        for model in (ours, theirs):
            losses.append(model.forward(text[places], text[places + 1]))
            model.backward()
            for param, grad in zip(model.params, model.grads, strict=True):
                param -= 0.5 * grad
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)
        first = losses[1] if first is None else first
    assert losses[1] < first * sized(0.97, 1.1)


def test_the_trainer_adds_up_the_gradients_of_tied_weights():
    V, D = 9, 6
    params = book_params(V, D, D, 1)
    tied = BookModel(time_layers, "TimeRNN", params, tied=True)
    assert np.shares_memory(tied.params[0], tied.params[4])
    ids = np.arange(41) % V
    expected = [param.copy() for param in params]
    twin = BookModel(reference, "TimeRNN", [param.astype(np.float64) for param in expected], tied=True)
    twin.forward(ids[None, :40], ids[None, 1:])
    twin.backward()
    expected[0] -= 0.1 * (twin.grads[0] + twin.grads[4].T)
    trainer = rnnfast.Trainer(tied, optim.SGD(0.1), rnnfast.TruncatedBPTT(40), clip_norm=None)
    trainer.fit(ids, epochs=1, batch_size=1)
    assert relative_distance(params[0], expected[0]) <= 1e-6


def test_dropout_draws_its_masks_as_the_book_does():
    x = np.random.default_rng(0).standard_normal((3, 4, 5)).astype("f")
    over_time, one_step = time_layers.TimeDropout(0.3), time_layers.Dropout(0.3)
    for layer, factor in ((over_time, np.float32(1 / 0.7)), (one_step, np.float32(1))):  # inverted, and not
        np.random.seed(7)
        actual = layer.forward(x)
        np.random.seed(7)
        mask = (np.random.rand(*x.shape) > 0.3).astype("f") * factor
        assert_same_bits(actual, x * mask)
        assert_same_bits(layer.backward(x), x * mask)
    over_time.train_flg = False
    assert_same_bits(over_time.forward(x), x)
    assert_same_bits(over_time.backward(x), x)
    assert_same_bits(one_step.forward(x, train_flg=False), x * np.float32(0.7))
    with pytest.raises(ValueError, match=r"^Dropout: dropout_ratio must be at least 0 and below 1, got 1"):
        time_layers.TimeDropout(1)
    with pytest.raises(RuntimeError, match=r"^Dropout.backward: call forward first"):
        time_layers.Dropout().backward(x)


def test_an_encoder_decoder_passes_state_and_gradient_between_layers():
    rng = np.random.default_rng(2)
    parts = [rng.standard_normal(shape) * 0.5 for shape in ((3, 16), (4, 16), (16,))]
    encoder, decoder = time_layers.TimeLSTM(*parts), time_layers.TimeLSTM(*parts, stateful=True)
    xs, ys, douts = (rng.standard_normal(shape) for shape in ((2, 5, 3), (2, 3, 3), (2, 3, 4)))

    def loss():
        decoder.set_state(encoder.forward(xs)[:, -1])
        return (decoder.forward(ys) * douts).sum()

    loss()
    decoder.backward(douts)
    dhs = np.zeros((2, 5, 4))
    dhs[:, -1] = decoder.dh
    actual = encoder.backward(dhs)
    assert relative_distance(actual, reference.central_differences(loss, xs, step=1e-6)) <= 1e-5


def test_losses_are_finite_where_the_books_are_not():
    scores = np.array([[[0.0, -1e4], [-1e4, 0.0]]], "f")
    layer = time_layers.TimeSoftmaxWithLoss()
    assert layer.forward(scores, np.array([[-1, 1]])) == 0
    assert layer.forward(scores, np.array([[1, 1]], np.int32)) == pytest.approx(5e3)
    assert layer.forward(scores, np.array([[-1, -1]])) == 0
    assert not layer.backward().any()
    binary = time_layers.TimeSigmoidWithLoss()
    assert binary.forward(np.array([[-1e4, 1e4]], "f"), np.array([[1, 1]])) == pytest.approx(5e3)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_sigmoid_loss_equals_the_reference_and_may_be_repeated(dtype):
    rng = np.random.default_rng(3)
    xs, ts = (rng.standard_normal((4, 5)) * 3).astype(dtype), rng.integers(0, 2, (4, 5))
    layer, twin = time_layers.TimeSigmoidWithLoss(), reference.TimeSigmoidWithLoss()
    assert layer.forward(xs, ts) == pytest.approx(twin.forward(xs.astype(np.float64), ts), rel=1e-6)
    first = layer.backward(2.0)
    assert_same_bits(layer.backward(2.0), first)
    assert relative_distance(first, twin.backward(2.0)) <= 1e-6
    one = time_layers.SigmoidWithLoss()
    assert one.forward(xs[:, 0], ts[:, 0]) == pytest.approx(
        twin.forward(xs[:, :1].astype(np.float64), ts[:, :1])
    )
    assert one.backward().shape == (4,)
    with pytest.raises(
        ValueError, match=r"^TimeSigmoidWithLoss.forward: ts must hold 0 and 1, got 2 at \(1, 0\)"
    ):
        layer.forward(xs[:2, :1], np.array([[0], [2]]))


def naive_softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def test_layers_of_one_step_have_the_books_values_and_true_gradients():
    rng = np.random.default_rng(4)
    x, W, b = rng.standard_normal((3, 4)), rng.standard_normal((4, 5)), rng.standard_normal(5)
    cases = [
        (time_layers.MatMul(W), x @ W),
        (time_layers.Affine(W, b), x @ W + b),
        (time_layers.Softmax(), naive_softmax(x)),
        (time_layers.Sigmoid(), 1 / (1 + np.exp(-x))),
    ]
    for layer, expected in cases:
        np.testing.assert_allclose(layer.forward(x), expected, rtol=1e-13)
        dout = rng.standard_normal(expected.shape)
        dx = layer.backward(dout)
        gradients = [dx, *(grad.copy() for grad in layer.grads)]
        for array, gradient in zip([x, *layer.params], gradients, strict=True):

            def loss(layer=layer, dout=dout):
                return (layer.forward(x) * dout).sum()

            assert relative_distance(gradient, reference.central_differences(loss, array)) <= 1e-5


def test_softmax_with_loss_and_embedding_of_one_step():
    rng = np.random.default_rng(5)
    x, t = rng.standard_normal((3, 4)), np.array([0, 3, 1])
    layer = time_layers.SoftmaxWithLoss()
    loss = layer.forward(x, t)
    assert loss == pytest.approx(cross_entropy_error(naive_softmax(x), t), abs=1e-5)
    one_hot = np.eye(4, dtype=int)[t]
    assert cross_entropy_error(naive_softmax(x), one_hot) == cross_entropy_error(naive_softmax(x), t)
    assert cross_entropy_error(naive_softmax(x)[0], one_hot[0]) == pytest.approx(
        -np.log(naive_softmax(x)[0, 0] + 1e-7)
    )
    assert layer.forward(x, one_hot) == loss
    np.testing.assert_allclose(layer.backward(), (naive_softmax(x) - one_hot) / 3, rtol=1e-12)
    W = rng.standard_normal((6, 2)).astype("f")
    embedding = time_layers.Embedding(W)
    assert_same_bits(embedding.forward(np.array([5, 0, 5], np.int32)), W[[5, 0, 5]])
    embedding.backward(np.ones((3, 2), "f"))
    np.testing.assert_array_equal(embedding.grads[0][:, 0], [1, 0, 0, 0, 0, 2])
    assert embedding.params[0] is W


def test_functions_take_numbers_and_arrays_of_any_shape():
    assert sigmoid(0) == 0.5
    assert sigmoid(np.zeros((2, 1, 3), "f")).dtype == np.float32
    assert_same_bits(softmax(np.zeros(2)), np.array([0.5, 0.5]))


def test_outputs_and_slices_of_the_caller_are_never_written_again():
    """As attention models need them, which keep what every call returned."""
    rng = np.random.default_rng(6)
    layer = time_layers.TimeGRU(*[rng.standard_normal(s).astype("f") for s in ((3, 12), (4, 12), (12,))])
    wide = rng.standard_normal((2, 6, 9)).astype("f")
    first = layer.forward(wide[:, :, 3:6])
    kept = first.copy()
    second = layer.forward(wide[:, 1:4, :3])
    assert_same_bits(first, kept)
    assert second.shape == (2, 3, 4)
    assert layer.backward(np.ones((2, 6, 4), "f")[:, 1:4]).shape == (2, 3, 3)


def test_calls_out_of_order_and_wrong_shapes_are_refused_in_one_line():
    for layer in (time_layers.MatMul(np.eye(2)), time_layers.Softmax(), time_layers.Sigmoid()):
        with pytest.raises(RuntimeError, match=r"\.backward: call forward first"):
            layer.backward(np.ones((1, 2)))
    with pytest.raises(ValueError, match=r"^MatMul.forward: x must be \(N, 2\), got \(1, 3\)"):
        time_layers.MatMul(np.eye(2)).forward(np.ones((1, 3)))
    with pytest.raises(TypeError, match=r"^Sigmoid.forward: dtype must be float32 or float64"):
        time_layers.Sigmoid().forward(np.ones((1, 3), int))
    with pytest.raises(IndexError, match=r"^cross_entropy_error: t must hold ids from 0 to 1, got 2"):
        cross_entropy_error(np.full((1, 2), 0.5), np.array([2]))


def test_ids_of_any_shape_are_looked_up_and_labels_must_fit_scores():
    W = np.arange(12.0).reshape(6, 2)
    layer = time_layers.Embedding(W)
    for idx in (np.array(3), np.array([[1, 2], [5, 0]])):
        assert_same_bits(layer.forward(idx), W[idx])
        layer.backward(np.ones((*idx.shape, 2)))
        assert layer.grads[0].sum() == 2 * idx.size
    with pytest.raises(ValueError, match=r"^SigmoidWithLoss.forward: shapes of scores and labels must be"):
        time_layers.SigmoidWithLoss().forward(np.zeros((2, 3)), np.zeros((3, 2)))
