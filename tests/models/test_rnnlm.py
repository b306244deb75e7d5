"""RNNLM: gradients of whole models, the carried state, weight tying, and what no baseline can learn."""

import tracemalloc

import numpy as np
import pytest
from helpers import needs_jit
from rnnfast.kernels.recurrence.sequence import block_steps

from rnnfast.models import RNNLM
from rnnfast.optim import Adam
from rnnfast.training import Trainer, TruncatedBPTT

SENTENCE = ["you", "say", "goodbye", "and", "i", "say", "hello", "."]
WORDS = list(dict.fromkeys(SENTENCE))
SENTENCE_IDS = np.array([WORDS.index(word) for word in SENTENCE])

CONFIGURATIONS = [
    {},
    {"layers": 2},
    {"tied": True},
    {"tied": True, "layers": 2, "dropout": 0.4},
    {"layers": 2, "dropout": 0.5},
    {"cell": "lstm", "layers": 2, "dropout": 0.3, "tied": True},
    {"cell": "gru", "layers": 2},
    {"cell": "relu"},
]


def small_model(rng, dtype=np.float64, **options):
    """Weights large enough that every part of the gradient matters."""
    model = RNNLM(7, 5, 5, rng=rng, dtype=dtype, **options)
    for param in model.params:
        param[...] = rng.standard_normal(param.shape) * 0.5
    return model


def loss_with_the_same_masks(model, xs, ts, state):
    for dropout in model.body.dropouts:
        dropout.rng_state = (dropout.rng_state[0], 0)
    model.set_state(state)
    return model.forward(xs, ts)


def central_differences(loss, param, eps=1e-5):
    grad = np.full(param.shape, np.nan)
    for index in np.ndindex(param.shape):
        kept = param[index]
        param[index] = kept + eps
        above = loss()
        param[index] = kept - eps
        below = loss()
        param[index] = kept
        grad[index] = (above - below) / (2 * eps)
    return grad


def relative_error(actual, expected):
    return np.linalg.norm(actual - expected) / max(np.linalg.norm(expected), 1e-12)


@pytest.mark.parametrize("options", CONFIGURATIONS)
@pytest.mark.parametrize("carried", [False, True])
def test_gradients_of_the_whole_model_equal_central_differences(options, carried):
    rng = np.random.default_rng(1)
    model = small_model(rng, **options)
    xs, ts = rng.integers(7, size=(2, 3, 6))[:, :2], rng.integers(7, size=(2, 3, 6))[:, 2]
    xs, ts = xs[0], np.resize(ts, xs[0].shape)
    ts[0, 1] = -1
    state = None
    if carried:
        state = tuple(
            tuple(rng.standard_normal((2, 5)) for _ in layer.cell.states) for layer in model.body.layers
        )
    loss_with_the_same_masks(model, xs, ts, state)
    for grad in model.grads:
        grad[...] = np.nan if not model.config["tied"] else 0.0
    model.backward()
    actual = [grad.copy() for grad in model.grads]
    for name, param, grad in zip(model.parameter_names, model.params, actual, strict=True):
        expected = central_differences(lambda: loss_with_the_same_masks(model, xs, ts, state), param)
        assert relative_error(grad, expected) < 1e-5, name


def test_a_second_backward_does_not_add_to_the_first():
    rng = np.random.default_rng(2)
    for options in CONFIGURATIONS[:3]:
        model = small_model(rng, **options)
        xs, ts = rng.integers(7, size=(2, 2, 6))
        expected = None
        for _ in range(3):
            loss_with_the_same_masks(model, xs, ts, None)
            model.backward()
            expected = expected or [grad.copy() for grad in model.grads]
        for actual, first in zip(model.grads, expected, strict=True):
            np.testing.assert_array_equal(actual, first)


def test_the_loss_is_that_of_the_equations():
    rng = np.random.default_rng(3)
    model = small_model(rng)
    embed_W, Wx, Wh, b, W, bias = model.params
    xs, ts = rng.integers(7, size=(2, 2, 6))
    h, losses = np.zeros((2, 5)), []
    for t in range(6):
        h = np.tanh(h @ Wh + embed_W[xs[:, t]] @ Wx + b)
        scores = h @ W + bias
        losses.append(np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(2), ts[:, t]])
    expected = np.array(losses).T
    np.testing.assert_allclose(model.losses(xs, ts), expected, rtol=1e-12)
    model.reset_state()
    np.testing.assert_allclose(model.forward(xs, ts), expected.mean(), rtol=1e-12)


def test_tied_weights_are_one_parameter_and_both_uses_read_it():
    model = RNNLM(9, 4, 4, tied=True, rng=np.random.default_rng(4))
    assert model.parameter_names == ["embed_W", "layer0_Wx", "layer0_Wh", "layer0_b", "output_b"]
    assert len({id(param) for param in model.params}) == len(model.params) == len(model.grads)
    model.params[0][...] = 0.0
    np.testing.assert_array_equal(model.predict(np.array([[3, 1]])), np.zeros((1, 2, 9)))


def test_params_and_grads_keep_their_identity_and_layout_through_training():
    rng = np.random.default_rng(5)
    for options in CONFIGURATIONS:
        model = RNNLM(30, 8, 8, rng=rng, **options)
        before = [id(array) for array in (*model.params, *model.grads)]
        Trainer(model, Adam(), TruncatedBPTT(4)).fit(rng.integers(30, size=60), epochs=1, batch_size=2)
        assert [id(array) for array in (*model.params, *model.grads)] == before
        for param, grad in zip(model.params, model.grads, strict=True):
            assert param.shape == grad.shape
            assert param.flags.c_contiguous
            assert grad.flags.c_contiguous


def test_two_windows_with_carried_state_equal_one_pass():
    rng = np.random.default_rng(6)
    for options in CONFIGURATIONS:
        model = small_model(rng, np.float32, **options)
        xs, ts = rng.integers(7, size=(2, 3, 11))
        expected = model.losses(xs, ts)
        model.reset_state()
        actual = np.concatenate(
            [model.losses(xs[:, :4], ts[:, :4]), model.losses(xs[:, 4:], ts[:, 4:])], axis=1
        )
        np.testing.assert_array_equal(actual, expected)


def test_a_state_that_was_taken_is_a_copy_and_comes_back_exactly():
    rng = np.random.default_rng(7)
    model = small_model(rng, np.float32, layers=2)
    xs = rng.integers(7, size=(2, 5))
    model.predict(xs)
    state = model.get_state()
    expected = model.predict(xs)
    model.predict(xs)
    model.set_state(state)
    np.testing.assert_array_equal(model.predict(xs), expected)
    model.set_state(None)
    assert model.get_state() == (None, None)


def test_a_wrong_state_is_refused_and_changes_nothing():
    model = small_model(np.random.default_rng(14), np.float32, cell="lstm", layers=2)
    model.predict(np.array([[1, 2], [3, 4]]))
    expected = model.get_state()
    good, (h, c) = expected[0], expected[1]
    for wrong, error, message in [
        (
            (good,),
            ValueError,
            r"state, as get_state\(\) returns it, must be a tuple of 2 \(one per layer\), got 1",
        ),
        ((good, good, good), ValueError, "must be a tuple of 2 .*, got 3"),
        ((), ValueError, "must be a tuple of 2 .*, got 0"),
        (np.zeros((2, 2, 5), np.float32), TypeError, "must be a tuple of 2 .*, got ndarray"),
        ((good, h), TypeError, r"state\[1\], as .* must be a tuple of 2 \(h, c\), got ndarray"),
        ((good, (h,)), ValueError, r"state\[1\], as .* must be a tuple of 2 \(h, c\), got 1"),
        ((good, (h, c[:1])), ValueError, r"state\[1\]\[1\] must be \(2, 5\), got \(1, 5\)"),
        ((good, (h[:, :4], c)), ValueError, r"state\[1\]\[0\] must be \(2, 5\), got \(2, 4\)"),
        ((good, (h[:1], c[:1])), ValueError, "got .1, 5.; the same number of rows in every layer"),
        (((h + 1, c + 1), (h, c.astype(float))), TypeError, r"state\[1\]\[1\] must be float32"),
        (((h + 1, c + 1), (h, None)), TypeError, r"state\[1\]\[1\] must be a NumPy array"),
    ]:
        with pytest.raises(error, match=message) as caught:
            model.set_state(wrong)
        assert str(caught.value).startswith("RNNLM.set_state: ")
        np.testing.assert_array_equal(model.get_state(), expected)
    model.set_state((None, [h + 1, c]))
    assert model.get_state()[0] is None
    np.testing.assert_array_equal(model.get_state()[1], (h + 1, c))


def test_a_relu_cell_is_the_layer_with_relu():
    rng = np.random.default_rng(15)
    model = small_model(rng, cell="relu")
    embed_W, Wx, Wh, b, W, bias = model.params
    xs = rng.integers(7, size=(2, 6))
    h = np.zeros((2, 5))
    for t in range(6):
        h = np.maximum(h @ Wh + embed_W[xs[:, t]] @ Wx + b, 0.0)
    np.testing.assert_allclose(model.predict(xs)[:, -1], h @ W + bias, rtol=1e-12)


def test_dropout_acts_in_forward_only_and_only_while_training():
    rng = np.random.default_rng(8)
    model = RNNLM(7, 16, 16, dropout=0.5, rng=rng, dtype=np.float64)
    xs, ts = rng.integers(7, size=(2, 2, 6))
    expected = model.losses(xs, ts)
    model.reset_state()
    assert model.forward(xs, ts) != expected.mean()
    model.train_flg = False
    model.reset_state()
    np.testing.assert_allclose(model.forward(xs, ts), expected.mean(), rtol=1e-14)
    model.backward()
    model.reset_state()
    np.testing.assert_array_equal(model.losses(xs, ts), expected)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("read", ["losses", "predict", "log_prob"])
def test_reading_without_a_backward_keeps_no_gates(read, layers):
    xs, ts = np.random.default_rng(9).integers(7, size=(2, 2, 2 * block_steps(2) + 3))
    sizes = []
    for method in ("forward", read):
        model = RNNLM(7, 5, 5, cell="lstm", layers=layers, rng=np.random.default_rng(0))
        arguments = {"forward": (xs, ts), "losses": (xs, ts), "predict": (xs,), "log_prob": (xs[0],)}
        getattr(model, method)(*arguments[method])
        worker = model if method == "forward" else model._reader
        sizes.append([layer._workspace._buffers["tape"].size for layer in worker.body.layers])
    assert all(3 * fewer <= more for more, fewer in zip(*sizes, strict=True))


@needs_jit
def test_a_training_step_allocates_nothing_of_size():
    rng = np.random.default_rng(9)
    for options in CONFIGURATIONS:
        model = RNNLM(500, 128, 128, rng=rng, **options)
        xs, ts = rng.integers(500, size=(2, 8, 20))
        for _ in range(3):
            model.forward(xs, ts)
            model.backward()
        tracemalloc.start()
        model.forward(xs, ts)
        model.backward()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        # The smallest array of a window, (8, 20, 128) float32, has 80 kB. What is left are ids, Python
        # objects, and the 32 kB buffer in which NumPy transposes the gradient of tied weights.
        assert peak < 40_000, options


@pytest.mark.parametrize("tied", [False, True])
def test_it_learns_which_word_follows_from_more_than_the_last_word(tied):
    rng = np.random.default_rng(10)
    model = RNNLM(len(WORDS), 16, 16, tied=tied, rng=rng)
    trainer = Trainer(model, Adam(lr=0.02), TruncatedBPTT(7), clip_norm=1.0)
    trainer.fit(SENTENCE_IDS, epochs=300, batch_size=1)

    def likeliest(prompt):
        return WORDS[int(model.next_proba([WORDS.index(word) for word in prompt.split()]).argmax())]

    assert likeliest("you") == "say"
    assert likeliest("you say") == "goodbye"
    assert likeliest("you say goodbye and i say") == "hello"
    prompt = SENTENCE_IDS[:1]
    assert model.generate(prompt, 7, temperature=0) == SENTENCE_IDS[1:].tolist()


def test_after_i_say_comes_hello_whatever_the_sentence_began_with():
    text = np.tile(SENTENCE_IDS, 30)
    model = RNNLM(len(WORDS), 16, 16, rng=np.random.default_rng(11))
    Trainer(model, Adam(lr=0.01), TruncatedBPTT(8), clip_norm=1.0).fit(text, epochs=15, batch_size=2)
    ids = {word: index for index, word in enumerate(WORDS)}
    goodbye = model.next_proba([ids["you"], ids["say"]])
    hello = model.next_proba([ids["i"], ids["say"]])
    assert goodbye[ids["goodbye"]] > 0.8
    assert hello[ids["hello"]] > 0.8


def test_the_same_generator_gives_the_same_model():
    first, second = (RNNLM(9, 4, 6, layers=2, dropout=0.3, rng=np.random.default_rng(12)) for _ in range(2))
    xs, ts = np.random.default_rng(13).integers(9, size=(2, 2, 5))
    for model in (first, second):
        model.forward(xs, ts)
        model.backward()
    for actual, expected in zip(first.params + first.grads, second.params + second.grads, strict=True):
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((0, 4, 4), {}, ValueError, "vocab_size must be at least 1, got 0"),
        ((7, 4.0, 4), {}, TypeError, "embed_size must be a whole number"),
        ((7, 4, 4), {"cell": "lstmm"}, ValueError, "cell must be one of rnn, relu, lstm, gru, .*got 'lstmm'"),
        ((7, 4, 4), {"layers": 0}, ValueError, "layers must be at least 1"),
        ((7, 4, 4), {"layers": 10**9}, ValueError, "layers must be at most 1000"),
        ((7, 4, 4), {"dropout": 1.0}, ValueError, "dropout must be below 1"),
        ((7, 4, 4), {"dropout": float("nan")}, ValueError, "dropout must be finite"),
        (
            (7, 4, 5),
            {"tied": True},
            ValueError,
            "tied=True needs embed_size equal to hidden_size, got 4 and 5",
        ),
        ((7, 4, 4), {"tied": "no"}, TypeError, "tied must be True or False"),
        ((7, 4, 4), {"dtype": "float16"}, TypeError, "dtype must be float32 or float64"),
    ],
)
def test_a_wrong_argument_is_named(arguments, options, error, message):
    with pytest.raises(error, match=message):
        RNNLM(*arguments, **options)
