"""What both models share: probabilities, the chain rule and generation."""

from functools import partial

import numpy as np
import pytest
from helpers import DTYPES, assert_same_bits

from rnnfast.layers.recurrent import Recurrent
from rnnfast.models import CBOWLM, RNNLM, language_model
from rnnfast.models.language_model import probabilities


def lively(model, seed=0):
    rng = np.random.default_rng(seed)
    for param in model.params:
        param[...] = rng.standard_normal(param.shape)
    return model


@pytest.fixture(params=["rnn", "tied", "cbow"])
def model(request):
    rng = np.random.default_rng(1)
    if request.param == "cbow":
        return lively(CBOWLM(9, 5, window=2, rng=rng))
    return lively(RNNLM(9, 5, 5, layers=2, dropout=0.5, tied=request.param == "tied", rng=rng))


def test_probabilities_sum_to_one_and_losses_are_their_logarithms(model):
    xs, ts = np.random.default_rng(2).integers(9, size=(2, 3, 7))
    chances = model.predict_proba(xs)
    model.reset_state()
    losses = model.losses(xs, ts)
    np.testing.assert_allclose(chances.sum(axis=-1), 1.0, rtol=1e-14)
    picked = np.take_along_axis(chances, ts[..., np.newaxis], axis=-1)[..., 0]
    np.testing.assert_allclose(losses, -np.log(picked), rtol=2e-5, atol=1e-5)


def test_log_prob_is_the_chain_rule_over_next_word_distributions(model):
    ids = np.random.default_rng(3).integers(9, size=12)
    expected = sum(np.log(model.next_proba(ids[:t])[ids[t]]) for t in range(1, len(ids)))
    np.testing.assert_allclose(model.log_prob(ids), expected, rtol=1e-5)
    assert model.log_prob(list(map(int, ids))) == model.log_prob(ids)
    assert model.log_prob(ids[:1]) == model.log_prob([]) == 0.0


def test_all_sentences_of_two_words_after_a_first_have_probability_one(model):
    total = sum(np.exp(model.log_prob([3, a, b])) for a in range(9) for b in range(9))
    np.testing.assert_allclose(total, 1.0, rtol=1e-5)


def test_with_a_start_the_first_word_is_scored_too(model):
    ids = np.random.default_rng(12).integers(9, size=6)
    expected = sum(np.log(model.next_proba([4, *ids[:t]])[ids[t]]) for t in range(len(ids)))
    np.testing.assert_allclose(model.log_prob(ids, start_id=4), expected, rtol=1e-5)
    total = sum(np.exp(model.log_prob([a, b], start_id=4)) for a in range(9) for b in range(9))
    np.testing.assert_allclose(total, 1.0, rtol=1e-5)
    assert model.log_prob([], start_id=4) == 0.0
    for wrong, error in [(9, IndexError), (-1, IndexError), (0.5, TypeError)]:
        with pytest.raises(error, match=r"log_prob: start_id must hold"):
            model.log_prob(ids, start_id=wrong)


def test_scoring_and_generating_leave_the_carried_state_alone(model):
    xs = np.random.default_rng(4).integers(9, size=(2, 4))
    model.predict(xs)
    state = model.get_state()
    expected = model.predict(xs)
    model.set_state(state)
    model.log_prob([1, 2, 3])
    model.next_proba([1, 2])
    words = model.generate_iter([5], 4, rng=np.random.default_rng(5))
    next(words)
    np.testing.assert_array_equal(model.predict(xs), expected)
    again = model.generate([5], 4, rng=np.random.default_rng(5))[1:]
    assert list(words) == again


def test_generation_is_decided_by_the_generator(model):
    texts = [model.generate([1], 30, rng=np.random.default_rng(seed)) for seed in (6, 6, 7)]
    assert texts[0] == texts[1] != texts[2]
    assert all(0 <= word < 9 and isinstance(word, int) for word in texts[0])


def written_by_reading(model, prompt, length, rng):
    """Scores and words as `generate` makes them, each word read with `predict` from the state before it."""
    rules, ids, scores, words = (
        language_model.SamplingRules(1.0, None, None, np.array([], int)),
        prompt,
        [],
        [],
    )
    model.reset_state()
    for _ in range(length):
        scores.append(model.predict(np.array([ids]))[0, -1])
        words.append(language_model.draw(scores[-1], rules, rng))
        ids = words[-1:]
    return scores, words


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["rnn", "relu", "lstm", "gru", "tied", "two layers", "cbow"])
def test_words_go_one_by_one_through_step_with_the_bits_of_reading(kind, dtype, monkeypatch):
    rng = np.random.default_rng(20)
    options = {
        "tied": {"tied": True},
        "two layers": {"cell": "lstm", "layers": 2, "dropout": 0.5},
        "cbow": {"window": 3},
    }.get(kind, {"cell": kind})
    maker = partial(CBOWLM, 37, 5) if kind == "cbow" else partial(RNNLM, 37, 5, 5)
    model = lively(maker(rng=rng, dtype=dtype, **options))
    expected, words = written_by_reading(model, [3, 1, 4], 20, np.random.default_rng(21))
    actual, draw, reads, read = [], language_model.draw, [], Recurrent.read

    def noted(scores, *others):
        actual.append(scores.copy())
        return draw(scores, *others)

    monkeypatch.setattr(language_model, "draw", noted)
    monkeypatch.setattr(Recurrent, "read", lambda *a, **k: (reads.append(1), read(*a, **k))[1])
    assert model.generate([3, 1, 4], 20, rng=np.random.default_rng(21)) == words
    for one, other in zip(actual, expected, strict=True):
        assert_same_bits(one, other)
    assert len(reads) == len(getattr(model.body, "layers", []))  # the prompt


def test_texts_that_are_written_in_turns_do_not_disturb_each_other_nor_the_model(model):
    xs = np.random.default_rng(22).integers(9, size=(1, 6))
    expected = [model.generate([word], 12, rng=np.random.default_rng(word)) for word in (1, 2)]
    model.predict(xs)
    state = model.get_state()
    scores = model.predict(xs)
    model.set_state(state)
    texts = [model.generate_iter([word], 12, rng=np.random.default_rng(word)) for word in (1, 2)]
    words = []
    for pair in zip(*texts, strict=True):
        words.append(pair)
        model.next_proba([5, 6])
        assert_same_bits(model.predict(xs), scores)
        model.set_state(state)
    assert [list(text) for text in zip(*words, strict=True)] == expected


def test_temperature_zero_takes_the_likeliest_word_each_time(model):
    prompt = [2, 4]
    actual = model.generate(prompt, 6, temperature=0)
    for word in actual:
        assert word == int(model.next_proba(prompt).argmax())
        prompt.append(word)
    assert model.generate([2, 4], 6, temperature=1e-300, rng=np.random.default_rng(8)) == actual
    assert model.generate([2, 4], 6, top_k=1, rng=np.random.default_rng(8)) == actual
    assert model.generate([2, 4], 6, top_p=1e-9, rng=np.random.default_rng(8)) == actual


def frequencies(model, **rules):
    rng = np.random.default_rng(9)
    drawn = [model.generate([3], 1, rng=rng, **rules)[0] for _ in range(2000)]
    return np.bincount(drawn, minlength=9) / 2000


def test_words_are_drawn_as_often_as_the_rules_say():
    # A model whose scores are its output biases, so that the distribution is known.
    model = CBOWLM(9, 2, rng=np.random.default_rng(0))
    for param in model.params:
        param[...] = 0.0
    model.params[-1][...] = np.log([0.3, 0.2, 0.15, 0.1, 0.1, 0.05, 0.05, 0.03, 0.02])
    chances = model.next_proba([3])

    def allowed(words, power=1.0):
        expected = np.zeros(9)
        expected[words] = chances[words] ** power
        return expected / expected.sum()

    tolerance = 4 * 0.5 / np.sqrt(2000)  # four standard deviations of a frequency
    for rules, expected in [
        ({}, allowed(range(9))),
        ({"temperature": 0.5}, allowed(range(9), 2.0)),
        ({"temperature": 2.0}, allowed(range(9), 0.5)),
        ({"top_k": 3}, allowed([0, 1, 2])),
        ({"top_k": 4}, allowed([0, 1, 2, 3])),
        ({"top_k": 99}, allowed(range(9))),
        ({"top_p": 0.6}, allowed([0, 1, 2])),
        ({"top_p": 1.0}, allowed(range(9))),
        ({"skip_ids": [0, 2]}, allowed([1, 3, 4, 5, 6, 7, 8])),
        ({"skip_ids": [0], "top_k": 2}, allowed([1, 2])),
    ]:
        actual = frequencies(model, **rules)
        np.testing.assert_allclose(actual, expected, atol=tolerance)
        assert not actual[expected == 0].any()


def test_the_text_ends_with_the_stop_id(model):
    full = model.generate([1], 200, rng=np.random.default_rng(10))
    stop = full[20]
    actual = model.generate([1], 200, stop_id=stop, rng=np.random.default_rng(10))
    assert actual == full[: full.index(stop) + 1]
    assert model.generate([1], 0) == []


def test_softmax_stands_large_scores():
    actual = probabilities(np.array([[1e30, 0.0, -1e30], [-1e4, -1e4, -1e4]], np.float32))
    np.testing.assert_allclose(actual, [[1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]])


def test_generation_from_damaged_parameters_says_so():
    model = CBOWLM(4, 2)
    model.params[-1][...] = np.nan
    with pytest.raises(FloatingPointError, match="scores are not finite"):
        model.generate([0], 1)


def test_probabilities_from_damaged_parameters_are_refused(model):
    for param in model.params:
        param[...] = np.nan
    with pytest.raises(FloatingPointError, match=r"LM\.next_proba: the model's scores are not finite"):
        model.next_proba([0])


@pytest.mark.parametrize(
    ("prompt", "options", "error", "message"),
    [
        ([], {}, ValueError, "prompt_ids must hold at least one id"),
        ([9], {}, IndexError, "prompt_ids must hold ids from 0 to 8, got 9"),
        ([0.5], {}, TypeError, "prompt_ids must hold integers"),
        ([1], {"temperature": -1}, ValueError, "temperature must be at least 0, got -1"),
        ([1], {"temperature": float("inf")}, ValueError, "temperature must be finite"),
        ([1], {"top_k": 0}, ValueError, "top_k must be at least 1"),
        ([1], {"top_p": 0.0}, ValueError, "top_p must be above 0"),
        ([1], {"top_p": 1.5}, ValueError, "top_p must be from 0 to 1, got 1.5"),
        ([1], {"skip_ids": range(9)}, ValueError, "skip_ids must leave at least one"),
        ([1], {"skip_ids": [-1]}, IndexError, "skip_ids must hold ids from 0 to 8"),
        ([1], {"stop_id": 12}, IndexError, "stop_id must hold ids from 0 to 8"),
        ([1], {"length": -1}, ValueError, "length must be at least 0"),
    ],
)
def test_wrong_rules_are_named_before_the_first_word(model, prompt, options, error, message):
    with pytest.raises(error, match=message):
        model.generate_iter(prompt, **{"length": 3, **options})


@pytest.mark.parametrize("method", ["forward", "losses"])
def test_a_wrong_call_leaves_the_state_alone(model, method):
    xs = np.array([[1, 2], [3, 4]])
    model.predict(xs)
    expected = model.get_state()
    for wrong_xs, wrong_ts, error in [
        (xs, xs + 7, IndexError),
        (xs + 7, xs, IndexError),
        (xs, xs[:, :1], ValueError),
        (xs[0], xs[0], ValueError),
        (xs.astype(float), xs, TypeError),
    ]:
        with pytest.raises(error, match=method):
            getattr(model, method)(wrong_xs, wrong_ts)
        np.testing.assert_array_equal(model.get_state(), expected)


def test_a_refused_call_leaves_the_last_forward_to_backward(model):
    xs, ts = np.random.default_rng(13).integers(9, size=(2, 2, 5))
    model.train_flg = False
    model.forward(xs, ts)
    model.backward()
    expected = [grad.copy() for grad in model.grads]
    model.forward(ts, xs)
    model.backward()
    model.reset_state()
    model.forward(xs, ts)
    other = np.ones((3, 5), np.int64)
    for refused in (lambda: model.forward(other, other), lambda: model.losses(other, other)):
        with pytest.raises(ValueError, match=r"LM\.(forward|losses): the carried state has 2 rows .* has 3"):
            refused()
    with pytest.raises(ValueError, match=r"LM\.predict: the carried state has 2 rows"):
        model.predict(other)
    model.backward()
    for actual, grad in zip(model.grads, expected, strict=True):
        np.testing.assert_array_equal(actual, grad)


def test_backward_before_forward_is_refused(model):
    with pytest.raises(RuntimeError, match=r"LM\.backward: call forward first"):
        model.backward()


@pytest.mark.parametrize(
    "read",
    [
        lambda model, xs: model.losses(xs, xs),
        lambda model, xs: model.predict(xs),
        lambda model, xs: model.predict_proba(xs),
        lambda model, xs: model.log_prob(xs[0]),
        lambda model, xs: model.next_proba(xs[0]),
        lambda model, xs: model.generate(xs[0], 2),
    ],
)
def test_reading_between_forward_and_backward_changes_no_bit(model, read):
    xs, ts, others = np.random.default_rng(14).integers(9, size=(3, 2, 5))
    model.train_flg = False
    model.forward(xs, ts)
    model.backward()
    expected = [grad.copy() for grad in model.grads]
    model.reset_state()
    model.forward(xs, ts)
    for grad in model.grads:
        grad[...] = np.nan
    read(model, others)
    model.backward()
    for actual, grad in zip(model.grads, expected, strict=True):
        assert_same_bits(actual, grad)


@pytest.mark.parametrize("shape", [(0, 3), (2, 0)])
def test_no_words_give_no_loss_and_leave_the_state_alone(model, shape):
    model.reset_state()
    if shape[0]:
        model.predict(np.ones((shape[0], 2), np.int64))
    expected = model.get_state()
    empty = np.zeros(shape, np.int64)
    assert model.forward(empty, empty) == 0.0
    model.backward()
    assert all(not grad.any() for grad in model.grads)
    assert model.losses(empty, empty).shape == shape
    assert model.predict(empty).shape == (*shape, 9)
    if shape[0]:
        np.testing.assert_array_equal(model.get_state(), expected)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_no_words_are_not_refused_whatever_the_rows_of_the_state(model, shape):
    model.predict(np.ones((2, 2), np.int64))
    expected = model.get_state()
    empty = np.zeros(shape, np.int64)
    assert model.forward(empty, empty) == 0.0
    assert model.predict(empty).shape == (*shape, 9)
    np.testing.assert_array_equal(model.get_state(), expected)
