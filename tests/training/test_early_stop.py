"""Training that ends early: by a callback, and with the parameters of the best epoch."""

import numpy as np
from helpers import assert_equal, copies, small_model

from rnnfast.optim import SGD
from rnnfast.training import StopTraining, Trainer, TruncatedBPTT

IDS = np.random.default_rng(100).integers(7, size=121)


def test_a_callback_may_stop_training_and_the_epoch_is_saved():
    for place, epochs, steps in (("on_epoch", 2, 12), ("callback", 1, 8)):
        saved, reports = [], []

        def stop(report, place=place, reports=reports):
            reports.append(report)
            reached = report["epoch"] == 2 if place == "on_epoch" else report.step == 8
            if reached:
                raise StopTraining

        trainer = Trainer(
            small_model(), SGD(lr=0.1), TruncatedBPTT(10), **{place: stop},
            checkpoint=lambda model, record, saved=saved: saved.append(record["epoch"]),
        )  # fmt: skip
        history = trainer.fit(IDS, epochs=9, batch_size=2)
        assert [record["epoch"] for record in history] == saved == list(range(1, epochs + 1))
        assert trainer.history is history
        assert len(reports) == (epochs if place == "on_epoch" else steps)


def test_the_parameters_of_the_best_epoch_come_back_also_after_a_resume(monkeypatch, tmp_path):
    def run(epochs, **options):
        values = iter(options.pop("values"))
        monkeypatch.setattr("rnnfast.training.fitting.perplexity", lambda model, ids: next(values))
        model, seen = small_model(), []
        trainer = Trainer(
            model, SGD(lr=0.5), TruncatedBPTT(10), anneal=None, restore_best=True,
            on_epoch=lambda record: seen.append(copies(model)),
        )  # fmt: skip
        trainer.fit(IDS, epochs=epochs, batch_size=2, valid=IDS[:50], **options)
        return model, seen

    model, seen = run(4, values=[9.0, 7.0, 8.0, 7.5])
    assert_equal(model.params, seen[1])
    assert (model.params[0] != seen[3][0]).any()
    file = tmp_path / "run.safetensors"
    run(3, values=[9.0, 7.0, 8.0], checkpoint_file=file)
    again, last = run(4, values=[7.5], checkpoint_file=file, resume=True)
    assert_equal(again.params, seen[1])
    assert_equal(last[0], seen[3])  # the run went on from its own parameters, not from the best
