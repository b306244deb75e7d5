"""Runs that diverge: which parameters are kept, what the record says, and that the model can be used."""

import math

import numpy as np
import pytest
from helpers import assert_equal, copies, small_model

from rnnfast.models import CBOWLM
from rnnfast.optim import SGD
from rnnfast.training import (
    Checkpoint,
    Trainer,
    TrainingDiverged,
    TruncatedBPTT,
    load_checkpoint,
    perplexity,
    trainer,
)

IDS = np.random.default_rng(100).integers(7, size=121)  # six windows of 10 steps and 2 rows

# Plain Python warns of it; compiled code does not.
pytestmark = pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered")


def diverged(model, optimizer=None, *, valid=None, epochs=4, **options):
    """The error of a run that diverges, what was saved, and the parameters before each update."""
    optimizer, saved, before = optimizer or SGD(lr=1.0), [], []
    update = optimizer.update

    def watched(params, grads):
        before.append(copies(model))
        update(params, grads)

    optimizer.update = watched
    run = Trainer(
        model,
        optimizer,
        TruncatedBPTT(10),
        anneal=None,
        checkpoint=lambda model, record: saved.append((copies(model), record)),
        **options,
    )
    with pytest.raises(TrainingDiverged) as caught:
        run.fit(IDS, epochs=epochs, batch_size=2, valid=valid)
    return caught.value, saved, before


def with_losses(model, losses):
    """Let `forward` report other losses: number of the call, from 1, to loss."""
    forward, calls = model.forward, []

    def report(xs, ts):
        calls.append(0)
        return losses.get(len(calls), forward(xs, ts))

    model.forward = report
    return model


@pytest.mark.parametrize("lr", [200.0, 500.0, 700.0, 1000.0, 2000.0, 3000.0])
@pytest.mark.parametrize("make", [small_model, lambda seed: CBOWLM(7, 6, rng=np.random.default_rng(seed))])
def test_a_run_that_diverges_keeps_and_saves_parameters_with_a_finite_perplexity(tmp_path, make, lr):
    stopped = 0
    for seed in range(4):
        for valid in (None, IDS[:40]):
            model, folder = make(seed), tmp_path / f"{seed}{valid is None}"
            run = Trainer(
                model,
                SGD(lr=lr),
                TruncatedBPTT(10),
                clip_norm=None,
                anneal=None,
                checkpoint=Checkpoint(folder),
            )
            try:
                run.fit(IDS, epochs=3, batch_size=2, valid=valid)
            except TrainingDiverged:
                stopped += 1
                assert math.isfinite(perplexity(model, IDS))
                last = (folder / "last.safetensors").exists()
                assert math.isfinite(perplexity(load_checkpoint(folder, last=last).model, IDS))
            assert math.isfinite(perplexity(load_checkpoint(folder).model, IDS))
    assert stopped


@pytest.mark.parametrize("loss", [math.nan, math.inf, 701.0])
def test_a_bad_loss_undoes_the_update_before_it(loss):
    model = with_losses(small_model(), {4: loss})
    error, saved, before = diverged(model)
    assert (error.epoch, error.step) == (1, 4)
    assert "in epoch 1 at step 4: the loss is" in str(error)
    assert len(before) == 3
    assert_equal(model.params, before[2])
    assert_equal(saved[-1][0], before[2])
    assert (saved[-1][1]["epoch"], saved[-1][1]["steps"], saved[-1][1]["tokens"]) == (1, 2, 40)


def test_a_bad_loss_after_growing_ones_undoes_all_updates_since_the_last_good_loss():
    model = with_losses(small_model(), {3: 99.0, 4: 150.0, 5: 600.0, 6: 1e9})
    error, saved, before = diverged(model)
    assert error.step == 6
    assert_equal(model.params, before[2])
    assert saved[-1][1]["steps"] == 2


def test_a_bad_loss_of_the_first_window_leaves_the_parameters_as_they_were():
    model = with_losses(small_model(), {1: math.nan})
    expected = copies(model)
    error, saved, before = diverged(model)
    assert (error.epoch, error.step, before) == (1, 1, [])
    assert_equal(model.params, expected)
    assert (saved[-1][1]["steps"], saved[-1][1]["tokens"]) == (0, 0)


def test_an_earlier_fit_is_not_undone():
    model = small_model()
    run = Trainer(model, SGD(lr=1.0), TruncatedBPTT(10))
    run.fit(IDS, epochs=1, batch_size=2)
    expected = copies(model)
    with_losses(model, {1: math.nan})
    with pytest.raises(TrainingDiverged):
        run.fit(IDS, epochs=1, batch_size=2)
    assert_equal(model.params, expected)


def test_a_bad_gradient_after_a_good_loss_keeps_the_parameters():
    model = small_model()
    backward, calls = model.backward, []

    def spoiled():
        backward()
        calls.append(0)
        if len(calls) == 4:
            model.grads[2][1, 1] = math.nan

    model.backward = spoiled
    expected = small_model()
    run = Trainer(expected, SGD(lr=1.0), TruncatedBPTT(10), clip_norm=None, callback=stop_after(3))
    with pytest.raises(KeyboardInterrupt):
        run.fit(IDS, epochs=1, batch_size=2)
    error, saved, _ = diverged(model, clip_norm=None)
    assert (error.step, saved[-1][1]["steps"]) == (4, 3)
    assert_equal(model.params, expected.params)


def stop_after(step):
    def stop(progress):
        if progress.step == step:
            raise KeyboardInterrupt

    return stop


class ExplodingAtTheEnd(SGD):
    """The last update of the first epoch spoils a parameter."""

    harm = math.nan

    def update(self, params, grads):
        super().update(params, grads)
        if self.steps == 6:
            params[4][:, ::2] = self.harm
            params[4][:, 1::2] = -self.harm


@pytest.mark.parametrize("harm", [math.nan, 1e38])
@pytest.mark.parametrize("valid", [None, IDS[:40]])
def test_the_last_update_of_an_epoch_is_judged_in_that_epoch_and_not_saved(harm, valid):
    model, optimizer = small_model(), ExplodingAtTheEnd(lr=1.0)
    optimizer.harm = harm
    error, saved, before = diverged(model, optimizer, valid=valid)
    assert (error.epoch, error.step) == (1, 6)
    assert [record.get("stopped") for _, record in saved] == ["diverged"]
    assert saved[0][1]["steps"] == 5
    assert_equal(model.params, before[5])


def test_the_model_has_a_fresh_state_after_a_run_that_diverged():
    for model in (small_model(cell="lstm", layers=2), CBOWLM(7, 6, rng=np.random.default_rng(0))):
        expected = model.get_state()
        diverged(with_losses(model, {4: math.inf}))
        assert model.get_state() == expected
        assert math.isfinite(model.forward(IDS[np.newaxis, :-1], IDS[np.newaxis, 1:]))


def test_looking_at_the_last_update_changes_nothing_else():
    models = small_model(dropout=0.5), small_model(dropout=0.5)
    for model, valid in zip(models, (None, IDS[:40]), strict=True):
        Trainer(model, SGD(lr=1.0), TruncatedBPTT(10), anneal=None).fit(
            IDS, epochs=3, batch_size=2, valid=valid
        )
        assert model.train_flg
    assert_equal(models[0].params, models[1].params)


def test_a_good_loss_leaves_room_for_other_texts():
    assert trainer._GOOD_LOSS < trainer._LARGEST_LOSS / 2
    assert math.isfinite(math.exp(trainer._LARGEST_LOSS))
