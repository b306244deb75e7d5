"""CBOWLM: the sum of the last words, its gradients, and what it cannot tell apart."""

import numpy as np
import pytest

from rnnfast.models import CBOWLM
from rnnfast.optim import Adam
from rnnfast.training import Trainer, TruncatedBPTT

SENTENCE = ["you", "say", "goodbye", "and", "i", "say", "hello", "."]
WORDS = list(dict.fromkeys(SENTENCE))
SENTENCE_IDS = np.array([WORDS.index(word) for word in SENTENCE])


def small_model(rng, window, dtype=np.float64):
    model = CBOWLM(7, 4, window, rng=rng, dtype=dtype)
    for param in model.params:
        param[...] = rng.standard_normal(param.shape) * 0.5
    return model


def losses_by_the_equations(model, before, xs, ts):
    """The definition, one position at a time; `before` are the words read earlier."""
    embed_W, W, b = model.params
    losses = np.full(xs.shape, np.nan)
    for n, t in np.ndindex(xs.shape):
        words = [*before[n], *xs[n, : t + 1]][-model.config["window"] :]
        scores = sum(embed_W[word] for word in words) @ W + b
        losses[n, t] = np.log(np.exp(scores).sum()) - scores[ts[n, t]]
    return losses


@pytest.mark.parametrize("window", [1, 2, 3, 9])
def test_losses_and_gradients_are_those_of_the_definition(window):
    rng = np.random.default_rng(window)
    model = small_model(rng, window)
    before, xs, ts = rng.integers(7, size=(3, 2, 6))
    model.predict(before)
    state = model.get_state()
    np.testing.assert_allclose(
        model.losses(xs, ts), losses_by_the_equations(model, before, xs, ts), rtol=1e-12
    )
    model.set_state(state)
    model.forward(xs, ts)
    model.backward()
    eps = 1e-5
    for param, actual in zip(model.params, model.grads, strict=True):
        expected = np.full(param.shape, np.nan)
        for index in np.ndindex(param.shape):
            kept = param[index]
            param[index] = kept + eps
            above = losses_by_the_equations(model, before, xs, ts).mean()
            param[index] = kept - eps
            below = losses_by_the_equations(model, before, xs, ts).mean()
            param[index] = kept
            expected[index] = (above - below) / (2 * eps)
        assert np.linalg.norm(actual - expected) < 1e-5 * np.linalg.norm(expected)


@pytest.mark.parametrize("window", [1, 2, 5])
def test_two_windows_with_carried_words_equal_one_pass(window):
    rng = np.random.default_rng(20 + window)
    model = small_model(rng, window, np.float32)
    xs, ts = rng.integers(7, size=(2, 3, 11))
    expected = model.losses(xs, ts)
    model.reset_state()
    actual = np.concatenate([model.losses(xs[:, :2], ts[:, :2]), model.losses(xs[:, 2:], ts[:, 2:])], axis=1)
    np.testing.assert_array_equal(actual, expected)


def test_one_word_of_context_cannot_tell_who_says_it():
    text = np.tile(SENTENCE_IDS, 30)
    model = CBOWLM(len(WORDS), 16, window=1, rng=np.random.default_rng(30))
    Trainer(model, Adam(lr=0.02), TruncatedBPTT(8), clip_norm=1.0).fit(text, epochs=15, batch_size=2)
    ids = {word: index for index, word in enumerate(WORDS)}
    assert WORDS[int(model.next_proba([ids["you"]]).argmax())] == "say"
    after_you_say = model.next_proba([ids["you"], ids["say"]])
    after_i_say = model.next_proba([ids["i"], ids["say"]])
    np.testing.assert_array_equal(after_you_say, after_i_say)
    assert 0.3 < after_you_say[ids["goodbye"]] < 0.7
    assert 0.3 < after_you_say[ids["hello"]] < 0.7


def test_a_sum_forgets_the_order_of_its_words_but_not_which_they_are():
    model = small_model(np.random.default_rng(31), 2, np.float32)
    np.testing.assert_array_equal(model.next_proba([1, 2]), model.next_proba([2, 1]))
    assert np.abs(model.next_proba([1, 2]) - model.next_proba([1, 3])).max() > 1e-3
    np.testing.assert_array_equal(model.next_proba([4, 1, 2]), model.next_proba([5, 1, 2]))


def test_a_state_that_was_taken_comes_back_exactly():
    rng = np.random.default_rng(32)
    model = small_model(rng, 3, np.float32)
    xs = rng.integers(7, size=(2, 5))
    model.predict(xs)
    state = model.get_state()
    np.testing.assert_array_equal(state, xs[:, -2:])
    expected = model.predict(xs)
    model.set_state(state)
    np.testing.assert_array_equal(model.predict(xs), expected)


@pytest.mark.parametrize("window", [0, -1])
def test_a_window_without_words_is_refused(window):
    with pytest.raises(ValueError, match=r"CBOWLM: window must be at least 1"):
        CBOWLM(7, 4, window)
