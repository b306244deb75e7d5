"""Models of cells with a relu start so that ordinary settings train them."""

import numpy as np
import pytest
from helpers import needs_jit

from rnnfast import RNNLM, SequenceRegressor, Trainer, TruncatedBPTT, optim
from rnnfast.cells import li_gru
from rnnfast.cli.experiment import Unigram
from rnnfast.data import WordTokenizer, default_corpus


@pytest.fixture(scope="module")
def text():
    """The beginning of the default corpus, and the size of its vocabulary."""
    train, _ = default_corpus().split()
    tokenizer = WordTokenizer.fit(train, min_count=2, lower=True)
    return np.concatenate(list(tokenizer.encode_pieces(train)))[:8_000], tokenizer.vocab_size


@needs_jit
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("cell", ["relu", "li_gru"])
def test_a_language_model_learns_with_the_settings_of_the_command_line(text, cell, tied, seed):
    ids, words = text
    model = RNNLM(words, 100, 100, cell=cell, tied=tied, rng=np.random.default_rng(seed))
    optimizer = optim.AdamW(lr=0.003, weight_decay=0.1)
    trainer = Trainer(model, optimizer, TruncatedBPTT(35), anneal=1.5)
    history = trainer.fit(ids, epochs=3, batch_size=10)
    assert history[-1]["train_perplexity"] < 0.8 * Unigram(ids, words).perplexity(ids)


@needs_jit
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_light_gru_learns_with_large_updates(text, seed):
    ids, words = text
    model = RNNLM(words, 100, 100, cell="li_gru", tied=True, rng=np.random.default_rng(seed))
    history = Trainer(model, optim.Adam(lr=0.01), TruncatedBPTT(35)).fit(ids, epochs=3, batch_size=10)
    assert history[-1]["train_perplexity"] < 0.5 * Unigram(ids, words).perplexity(ids)


@needs_jit
@pytest.mark.parametrize("make_optimizer", [lambda: optim.Adam(lr=0.01), lambda: optim.SGD(lr=0.1)])
@pytest.mark.parametrize("cell", ["relu", "li_gru"])
def test_a_regressor_learns_a_noisy_sine(cell, make_optimizer):
    rng = np.random.default_rng(0)
    phases = np.arange(201) * 0.2 + rng.random((64, 1)) * 6
    ys = (np.sin(phases) + 0.1 * rng.standard_normal(phases.shape)).astype(np.float32)[..., np.newaxis]
    model = SequenceRegressor(1, 32, 1, cell=cell, rng=rng)
    trainer = Trainer(model, make_optimizer(), TruncatedBPTT(35), anneal=None)
    history = trainer.fit((ys[:, :-1], ys[:, 1:]), epochs=10, batch_size=16)
    assert history[-1]["train_loss"] < 0.2 * float(ys.var())


def test_the_recurrence_starts_as_half_the_identity():
    for model in (RNNLM(5, 4, 4, cell="relu"), SequenceRegressor(3, 4, 1, cell="relu", layers=2)):
        arrays = dict(zip(model.parameter_names, model.params, strict=True))
        for name, array in arrays.items():
            if name.endswith("_Wh"):
                np.testing.assert_array_equal(array, 0.5 * np.eye(4))
            if name.startswith("layer") and name.endswith("_b"):
                np.testing.assert_array_equal(array, 0.5)


def test_the_light_gru_starts_orthogonal_with_open_candidates():
    layer = li_gru.layer(3, 4, rng=np.random.default_rng(0), dtype=np.float64)
    _, Wh, b = layer.params
    for block in (Wh[:, :4], Wh[:, 4:]):
        np.testing.assert_allclose(block @ block.T, np.eye(4), atol=1e-12)
    np.testing.assert_array_equal(b, [0, 0, 0, 0, 0.5, 0.5, 0.5, 0.5])
