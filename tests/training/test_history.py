"""The counts of a record run on from the beginning of a run, through its epochs and across a resume."""

import numpy as np

from rnnfast import RNNLM, SequenceRegressor, Trainer, TruncatedBPTT
from rnnfast.optim import SGD

IDS = np.arange(41) % 7  # two rows of 20 steps
XS = np.random.default_rng(0).standard_normal((3, 10, 2)).astype(np.float32)


def trainer_of(data):
    rng = np.random.default_rng(0)
    model = SequenceRegressor(2, 4, 2, rng=rng) if isinstance(data, tuple) else RNNLM(7, 4, 4, rng=rng)
    return Trainer(model, SGD(lr=0.1), TruncatedBPTT(5))


def test_steps_and_tokens_are_counted_from_the_beginning_of_the_run(tmp_path):
    for data, steps, tokens in ((IDS, 4, 40), ((XS, XS), 4, 30)):
        for epochs in (1, 3):  # the second goes on from the first
            history = trainer_of(data).fit(
                data, epochs=epochs, batch_size=2, checkpoint_file=tmp_path / f"{steps}{tokens}", resume=True
            )
        assert [record["steps"] for record in history] == [steps, 2 * steps, 3 * steps]
        assert [record["tokens"] for record in history] == [tokens, 2 * tokens, 3 * tokens]
        seconds = [record["seconds"] for record in history]
        assert seconds == sorted(seconds)
        assert all(record["tokens_per_second"] > 0 for record in history)


def test_the_documentation_says_from_where_counts_run():
    assert "count from the beginning of the run, also across a resume" in " ".join(Trainer.__doc__.split())
