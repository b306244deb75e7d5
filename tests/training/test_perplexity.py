"""perplexity: every word but the first once, one value whatever the batch and window."""

import math

import numpy as np
import pytest

from rnnfast.models import CBOWLM, RNNLM
from rnnfast.training import perplexity


def models(rng):
    return [
        RNNLM(11, 6, 9, rng=rng),
        RNNLM(11, 8, 8, layers=2, dropout=0.5, tied=True, rng=rng),
        CBOWLM(11, 6, window=3, rng=rng),
    ]


def test_the_value_is_the_same_bit_for_bit_whatever_the_batch_size_and_window():
    rng = np.random.default_rng(0)
    ids = rng.integers(11, size=203)
    for model in models(rng):
        for param in model.params:
            param[...] = rng.standard_normal(param.shape)
        expected = perplexity(model, ids)
        for batch_size, window in [
            (1, 1),
            (1, 7),
            (3, 5),
            (10, 35),
            (202, 1),
            (1, 202),
            (64, 1000),
            (10**9, 10**9),
        ]:
            assert perplexity(model, ids, batch_size, window) == expected


def test_every_word_but_the_first_is_scored_once():
    rng = np.random.default_rng(1)
    ids = rng.integers(11, size=97)
    for model in models(rng):
        expected = math.exp(-model.log_prob(ids) / 96)
        assert perplexity(model, ids, 3, 4) == expected
        model.reset_state()
        by_hand = model.losses(ids[np.newaxis, :-1], ids[np.newaxis, 1:])
        np.testing.assert_allclose(expected, np.exp(by_hand.mean()), rtol=1e-13)


def test_a_model_that_knows_nothing_has_the_perplexity_of_its_vocabulary():
    model = RNNLM(11, 6, 9, rng=np.random.default_rng(2), dtype=np.float64)
    for param in model.params:
        param[...] = 0.0
    np.testing.assert_allclose(perplexity(model, np.arange(50) % 11), 11.0, rtol=1e-13)


def test_the_models_own_state_stays_as_it_is():
    rng = np.random.default_rng(3)
    xs = rng.integers(11, size=(4, 6))
    for model in models(rng):
        model.predict(xs)
        state = model.get_state()
        expected = model.predict(xs)
        model.set_state(state)
        perplexity(model, rng.integers(11, size=50))
        np.testing.assert_array_equal(model.predict(xs), expected)


def test_a_wrong_id_is_named_and_the_models_state_stays():
    model = RNNLM(11, 6, 9, rng=np.random.default_rng(4))
    model.predict(np.array([[1, 2]]))
    expected = model.get_state()
    ids = np.arange(60) % 11
    ids[50] = 11
    with pytest.raises(IndexError, match="from 0 to 10, got 11"):
        perplexity(model, ids, 1, 10)
    np.testing.assert_array_equal(model.get_state(), expected)


def test_a_read_only_memory_map_is_scored_like_an_array(tmp_path):
    rng = np.random.default_rng(5)
    ids = rng.integers(11, size=300).astype(np.uint16)
    ids.tofile(tmp_path / "ids")
    mapped = np.memmap(tmp_path / "ids", dtype=np.uint16, mode="r")
    for model in models(rng):
        assert perplexity(model, mapped) == perplexity(model, ids.astype(np.int64))


def test_a_loss_beyond_floats_is_infinite_not_an_error():
    model = RNNLM(3, 2, 2, rng=np.random.default_rng(6))
    model.params[-1][...] = [1e6, 0.0, 0.0]
    assert perplexity(model, np.array([0, 1, 2, 1])) == math.inf


@pytest.mark.parametrize("ids", [np.zeros(0, np.int64), np.zeros(1, np.int64)])
def test_a_text_without_a_word_to_predict_is_refused(ids):
    with pytest.raises(ValueError, match="perplexity: the text is too short"):
        perplexity(RNNLM(3, 2, 2), ids)


@pytest.mark.parametrize("sizes", [(0, 35), (10, 0), (10, -1)])
def test_sizes_below_one_are_refused(sizes):
    with pytest.raises(ValueError, match="must be at least 1"):
        perplexity(RNNLM(3, 2, 2), np.array([0, 1]), *sizes)
