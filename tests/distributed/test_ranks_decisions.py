"""Decisions of a `fit` on ranks: all take those of one process, and rank 0 calls the user's functions."""

import hashlib
from typing import NamedTuple

import numpy as np
import pytest
from helpers import takes_minutes_interpreted
from threads_as_ranks import on_ranks, without_times

import rnnfast
from rnnfast.data import Sequences
from rnnfast.training import StopTraining, TrainingDiverged

pytestmark = takes_minutes_interpreted
IDS = np.random.default_rng(0).integers(7, size=20 * 30 + 1)
VALID = np.random.default_rng(1).integers(7, size=150)


class Ended(NamedTuple):
    """What a rank has after a `fit`."""

    bits: str  # a hash of the parameters
    history: list
    learning_rate: float
    error: str


def text(rank):
    """A model and its data; training begins with the parameters and the random numbers of rank 0."""
    seed = None if rank.rank else 1
    model = rnnfast.RNNLM(7, 8, 8, cell="lstm", dropout=0.3, rng=np.random.default_rng(seed))
    return model, IDS, VALID


def series(rank):
    rng, seed = np.random.default_rng(2), None if rank.rank else 1
    lengths = rng.integers(1, 16, 45)
    xs = [rng.standard_normal((length, 3)).astype(np.float32) for length in lengths]
    ts = [rng.standard_normal((length, 1)).astype(np.float32) for length in lengths]
    model = rnnfast.SequenceRegressor(3, 8, 1, cell="gru", dropout=0.3, rng=np.random.default_rng(seed))
    return model, Sequences(xs, ts, weights=rng.random(45)), Sequences(xs[:20], ts[:20])


def ended(trainer, data, epochs, **options):
    """`fit`, and what it leaves."""
    error = ""
    try:
        trainer.fit(data, epochs=epochs, batch_size=20, **options)
    except TrainingDiverged as diverged:
        error = str(diverged)
    history = without_times(trainer.history)
    params = b"".join(param.tobytes() for param in trainer.model.params)
    return Ended(hashlib.sha256(params).hexdigest(), history, float(trainer.optimizer.lr), error)


def on_any_number_of_ranks(work):
    """The result of `work(rank, calls)` on every rank of 1, 2 and 4, and what one process has called."""
    found, called = [], []
    for size in (1, 2, 4):
        calls = [[] for _ in range(size)]
        found += on_ranks(size, lambda rank, calls=calls: work(rank, calls[rank.rank]))
        assert not any(calls[1:])
        called.append(calls[0])
    for one in found[1:]:
        assert one == found[0]
    assert called == [called[0]] * 3
    return found[0], called[0]


def trainer_of(rank, model, optimizer=None, **options):
    optimizer = rnnfast.optim.Adam(lr=0.03) if optimizer is None else optimizer
    options |= {"ranks": rank, "blocks": 4, "rng": np.random.default_rng(3)}
    return rnnfast.Trainer(model, optimizer, rnnfast.TruncatedBPTT(6), **options)


@pytest.mark.parametrize("kind", [text, series])
def test_annealing_and_patience_and_the_best_epoch(kind):
    def work(rank, calls):
        model, data, valid = kind(rank)
        trainer = trainer_of(rank, model, anneal=2.0, patience=2, restore_best=True)
        last, name = [], "best_valid_perplexity" if kind is text else "best_valid_loss"
        trainer.on_epoch = lambda record: (calls.append(record[name]), last.append(model.params[0].copy()))
        trainer.checkpoint = lambda model, record: calls.append(record["epoch"])
        found = ended(trainer, data, 40, valid=valid)
        assert not last or (model.params[0] != last[-1]).any()
        return found

    found, calls = on_any_number_of_ranks(work)
    assert 2 < len(found.history) < 40
    assert not any(record["improved"] for record in found.history[-2:])
    assert found.learning_rate < 0.03
    assert len(calls) > len(found.history)


@pytest.mark.parametrize(("place", "epochs", "steps"), [("callback", 1, 8), ("on_epoch", 2, 10)])
def test_a_function_may_stop_training_and_set_the_learning_rate(place, epochs, steps):
    def work(rank, calls):
        model, data, _ = text(rank)
        trainer = trainer_of(rank, model)

        def stop(report):
            calls.append(report.step if place == "callback" else report["steps"])
            trainer.optimizer.lr = 0.01
            if calls[-1] == steps:
                raise StopTraining

        setattr(trainer, place, stop)
        stopped = ended(trainer, data, 9)
        setattr(trainer, place, None)
        return stopped, ended(trainer, data, 2)

    (first, second), calls = on_any_number_of_ranks(work)
    assert calls[-1] == steps
    assert first.learning_rate == second.learning_rate == 0.01
    assert (len(first.history), len(second.history)) == (epochs, 2)
    assert first.bits != second.bits


@pytest.mark.parametrize("place", ["callback", "on_epoch", "checkpoint"])
def test_a_learning_rate_that_a_function_sets_holds_for_all_and_for_the_next_fit(place):
    def work(rank, calls):
        model, data, _ = text(rank)
        trainer = trainer_of(rank, model, anneal=None)

        def slower(*_):
            calls.append(trainer.optimizer.lr)
            trainer.optimizer.lr *= 0.75

        setattr(trainer, place, slower)
        return [ended(trainer, data, epochs) for epochs in (2, 1, 1)]

    found, calls = on_any_number_of_ranks(work)
    assert len(calls) == (20 if place == "callback" else 4)
    assert found[-1].learning_rate == calls[-1] * 0.75


def test_a_learning_rate_that_blows_up_ends_all_with_the_last_good_parameters():
    def work(rank, calls):
        model, data, valid = text(rank)
        trainer = trainer_of(rank, model, rnnfast.optim.SGD(lr=0.1), clip_norm=None)
        before = []

        def explode(report):
            calls.append(report.step)
            if report.step == 7:
                before.extend(param.copy() for param in model.params)
                trainer.optimizer.lr = 1e30

        trainer.callback = explode
        trainer.checkpoint = lambda model, record: calls.append((record["epoch"], record.get("stopped")))
        found = ended(trainer, data, 3, valid=valid)
        assert rank.rank or all(map(np.array_equal, before, model.params))
        return found

    found, calls = on_any_number_of_ranks(work)
    assert "epoch 2 at step 9" in found.error
    assert calls[-1] == (2, "diverged")
    assert len(found.history) == 1


@pytest.mark.parametrize("place", ["xs", "ts"])
def test_a_number_that_is_not_finite_is_named_by_all(place):
    def work(rank, calls):
        model, data, _ = series(rank)
        getattr(data, place)[30][-1] = np.inf
        trainer = trainer_of(rank, model)
        trainer.checkpoint = lambda model, record: calls.append(record["stopped"])
        return ended(trainer, data, 3)

    found, calls = on_any_number_of_ranks(work)
    assert "not finite: inf in sequence 30 at step" in found.error, found.error
    assert calls == ["diverged"]
