"""Resumed training on long sequences: exact gradients, windows that overlap, sequences with targets."""

import hashlib

import numpy as np
import pytest
from helpers import sized

from rnnfast import RNNLM, ExactBPTT, SequenceRegressor, State, Trainer, TruncatedBPTT
from rnnfast._check import CheckpointError
from rnnfast.optim import Adam
from rnnfast.training.chain import Window
from rnnfast.training.checkpointing import checksum, read_training

IDS = np.random.default_rng(100).integers(7, size=61)  # two rows of 30 steps
XS = np.random.default_rng(101).standard_normal((5, 11, 3)).astype(np.float32)
EVERY, LAST = XS[..., :2] + 1, XS[:, -1, :1] * 2
EPOCHS, BATCH = 3, 2
TIMES = {"seconds", "tokens_per_second"}


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


class Killed(BaseException):
    """What no handler expects: nothing is saved when it comes."""


# The data, what makes the way through it, windows an epoch, and after which of them a run can go on.
CASES = {
    "exact, text": (IDS, lambda: ExactBPTT(chunk=7), 1, (0,)),
    "exact, sequences": ((XS, EVERY), lambda: ExactBPTT(memory="1MB"), 3, (0, 1, 2)),
    "exact, last step": ((XS, LAST), ExactBPTT, 3, (0, 1, 2)),
    "windows, sequences": ((XS, EVERY), lambda: TruncatedBPTT(4), 9, tuple(range(9))),
    "windows, last step": ((XS, LAST), lambda: TruncatedBPTT(4), 3, (0, 1, 2)),
    "overlap, text": (IDS, lambda: TruncatedBPTT(4, 10), 8, (0,)),
    "overlap, sequences": ((XS, EVERY), lambda: TruncatedBPTT(4, 8), 9, (0, 3, 6)),
    "overlap, last step": ((XS, LAST), lambda: TruncatedBPTT(4, 6), 3, (0, 1, 2)),
    "measured, text": (IDS, lambda: TruncatedBPTT(5, "auto", tolerance=0.01), 6, (0,)),
}


def trainer_of(case, **options):
    data, bptt, _, _ = CASES[case]
    rng = np.random.default_rng(0)
    if isinstance(data, tuple):
        model = SequenceRegressor(3, 6, data[1].shape[-1], cell="gru", layers=2, dropout=0.3, rng=rng)
    else:
        model = RNNLM(7, 6, 6, cell="lstm", dropout=0.3, tied=True, rng=rng)
    return Trainer(model, Adam(lr=0.02), bptt(), anneal=2.0, rng=np.random.default_rng(9), **options)


def fit(trainer, case, path, **options):
    data = CASES[case][0]
    options = {"epochs": EPOCHS, "batch_size": BATCH, "valid": data, "checkpoint_every": 0.0, **options}
    return trainer.fit(data, checkpoint_file=path, **options)


def everything(trainer):
    """All that training has come to, without its times."""
    model, optimizer = trainer.model, trainer.optimizer.state_dict()
    history = [{k: v for k, v in record.items() if k not in TIMES} for record in trainer.history]
    arrays = [*model.params, *optimizer["arrays"].values(), *(trainer.last_good.copies or ())]
    sums = [hashlib.sha256(array.tobytes()).hexdigest() for array in arrays]
    return sums, optimizer["scalars"], model.rng_state, State.of(model), history


def ending(step, with_what):
    """A callback that ends the run at a step."""

    def report(progress):
        if progress.step == step:
            raise with_what

    return report


@pytest.mark.parametrize("validates", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_a_run_that_ends_anywhere_goes_on_to_the_bits_of_one_that_did_not(case, validates, tmp_path):
    path, (data, _, windows, places) = tmp_path / "t", CASES[case]
    valid = data if validates else None
    expected = trainer_of(case)
    fit(expected, case, None, valid=valid)
    assert expected.history[-1]["steps"] == windows * EPOCHS
    for stop in range(1, windows * EPOCHS + 1, sized(1, 5)):
        for how, done in ((Killed, stop - 1), (KeyboardInterrupt, stop)):
            with pytest.raises(how):
                fit(trainer_of(case, callback=ending(stop, how)), case, path, valid=valid)
            steps = []
            actual = trainer_of(case, callback=lambda report, s=steps: s.append(report.step))
            fit(actual, case, path, valid=valid, resume=True)
            assert everything(actual) == everything(expected), (stop, how)
            ends = {epoch * windows + place for epoch in range(EPOCHS + 1) for place in places}
            first = steps[0] if steps else windows * EPOCHS + 1
            assert first - 1 == max(place for place in ends if place <= done), (stop, how)
            path.unlink()


def test_the_file_of_a_regression_tells_its_losses(tmp_path):
    trainer = trainer_of("exact, sequences")
    history = fit(trainer, "exact, sequences", tmp_path / "t")
    kept = read_training(tmp_path / "t").history
    assert kept == history
    assert {"train_loss", "valid_loss", "best_valid_loss"} < set(kept[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": (XS + 1, EVERY)}, "sequences has changed"),
        ({"data": (XS, EVERY[::-1])}, "sequences has changed"),
        ({"valid": (XS, EVERY[::-1])}, "valid has changed"),
        ({"bptt": ExactBPTT()}, r"bptt is 'ExactBPTT\(\)' and not 'TruncatedBPTT\(4\)'"),
        ({"bptt": TruncatedBPTT(4, 8)}, r"bptt is 'TruncatedBPTT\(4, 8\)' and not 'TruncatedBPTT\(4\)'"),
    ],
)
def test_what_is_not_as_it_was_is_named_in_one_sentence(tmp_path, options, message):
    fit(trainer_of("windows, sequences"), "windows, sequences", tmp_path / "t")
    trainer = trainer_of("windows, sequences")
    trainer.bptt = options.get("bptt", trainer.bptt)
    data, valid = options.get("data", (XS, EVERY)), options.get("valid", (XS, EVERY))
    with pytest.raises(
        CheckpointError, match=rf"^Trainer\.fit: {message}, so the run in .*t cannot continue\.$"
    ):
        trainer.fit(
            data, epochs=EPOCHS, batch_size=BATCH, valid=valid, checkpoint_file=tmp_path / "t", resume=True
        )


def test_a_way_through_the_text_that_cannot_begin_in_the_middle_is_refused(tmp_path):
    class Own(TruncatedBPTT):
        def windows(self, model, data, batch_size):
            yield Window(1, 1, 1, 0.0)

    trainer = trainer_of("overlap, text")
    trainer.bptt = Own(3)
    with pytest.raises(TypeError, match=r"^Trainer\.fit: checkpoint_file: Own\.windows must take passed="):
        fit(trainer, "overlap, text", tmp_path / "t")


def test_the_checksum_of_sequences_tells_values_and_shapes_apart_and_not_pieces_or_dtypes(monkeypatch):
    expected = checksum((XS, EVERY))
    assert checksum((XS.astype(np.float64), EVERY[:])) == expected
    assert checksum((XS.reshape(11, 5, 3), EVERY)) != expected
    assert checksum((XS, -EVERY)) != expected
    assert checksum(None) is None
    monkeypatch.setattr("rnnfast.training.checkpointing._PIECE", 10)
    assert checksum((XS, EVERY)) == expected
