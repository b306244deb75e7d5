"""Trainer: order of the steps, annealing, reports, and stopping without losing anything."""

import math
import signal
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest
from helpers import assert_equal, copies, sends_interrupts, small_model

from rnnfast._check import CorpusError
from rnnfast.models import CBOWLM, RNNLM
from rnnfast.optim import SGD, Adam, clip_by_norm
from rnnfast.training import Progress, Trainer, TrainingDiverged, TruncatedBPTT
from rnnfast.training.safety import interrupts_deferred

IDS = np.random.default_rng(100).integers(7, size=121)


def train_by_hand(model, steps, optimizer, batch_size=2, k1=10, clip_norm=0.25):
    """The loop as the book writes it, for a number of steps."""
    while True:
        for _ in TruncatedBPTT(k1).windows(model, IDS, batch_size):
            if steps == 0:
                return
            if clip_norm is not None:
                clip_by_norm(model.grads, clip_norm)
            optimizer.update(model.params, model.grads)
            steps -= 1


@pytest.mark.parametrize("clip_norm", [0.25, None])
def test_fit_takes_the_steps_of_the_plain_loop(clip_norm):
    actual, expected = small_model(), small_model()
    trainer = Trainer(actual, SGD(lr=1.0), TruncatedBPTT(10), clip_norm=clip_norm)
    trainer.fit(IDS, epochs=2, batch_size=2)
    train_by_hand(expected, 12, SGD(lr=1.0), clip_norm=clip_norm)
    assert_equal(actual.params, expected.params)


def test_elements_are_clipped_after_the_norm():
    class Watch(SGD):
        largest = 0.0

        def update(self, params, grads):
            self.largest = max(self.largest, *(float(np.abs(grad).max()) for grad in grads))
            super().update(params, grads)

    watch = Watch(lr=1.0)
    Trainer(small_model(), watch, TruncatedBPTT(10), clip_norm=None, clip_value=1e-3).fit(
        IDS, epochs=1, batch_size=2
    )
    assert watch.largest == np.float32(1e-3)


def test_reports_say_where_training_stands():
    model = small_model()
    reports = []
    trainer = Trainer(model, SGD(lr=1.0), TruncatedBPTT(11), callback=reports.append)
    history = trainer.fit(IDS, epochs=2, batch_size=2, valid=IDS[:30])
    assert [(report.epoch, report.window, report.step) for report in reports] == [
        (1 + step // 6, 1 + step % 6, 1 + step) for step in range(12)
    ]
    assert all(
        isinstance(report, Progress) and report.windows == 6 and report.steps == 12 for report in reports
    )
    assert [report.tokens for report in reports[:6]] == [22, 44, 66, 88, 110, 120]
    sums = np.cumsum(
        [report.loss * tokens for report, tokens in zip(reports[:6], [22] * 5 + [10], strict=True)]
    )
    expected = np.exp(sums / [22, 44, 66, 88, 110, 120])
    np.testing.assert_allclose([report.train_perplexity for report in reports[:6]], expected, rtol=1e-12)
    assert reports[0].seconds_left is None
    assert all(report.seconds_left >= 0 for report in reports[1:])
    assert all(report.tokens_per_second > 0 and report.grad_norm > 0 for report in reports)
    assert [record["epoch"] for record in history] == [1, 2]
    assert history[0]["train_perplexity"] == reports[5].train_perplexity
    assert history[-1]["tokens"] == 240
    assert history[-1]["steps"] == 12
    assert history is trainer.history


def test_the_learning_rate_falls_only_when_validation_does_not_improve(monkeypatch):
    values = iter([9.0, 8.0, 8.5, 8.0, 7.0])
    monkeypatch.setattr("rnnfast.training.fitting.perplexity", lambda model, ids: next(values))
    saved, epochs = [], []
    optimizer = SGD(lr=1.0)
    trainer = Trainer(
        small_model(),
        optimizer,
        TruncatedBPTT(10),
        anneal=4.0,
        on_epoch=epochs.append,
        checkpoint=lambda model, record: saved.append(record["epoch"]),
    )
    history = trainer.fit(IDS, epochs=5, batch_size=2, valid=IDS)
    assert [record["learning_rate"] for record in history] == [1.0, 1.0, 1.0, 0.25, 0.0625]
    assert [record["improved"] for record in history] == [True, True, False, False, True]
    assert [record["best_valid_perplexity"] for record in history] == [9.0, 8.0, 8.0, 8.0, 7.0]
    assert saved == [1, 2, 5]
    assert epochs == history
    assert optimizer.lr == 0.0625


def test_without_validation_or_annealing_the_learning_rate_stays():
    for options, valid in [({}, None), ({"anneal": None}, IDS)]:
        optimizer = SGD(lr=1e-9)
        saved = []

        def save(model, record, saved=saved):
            saved.append(record)

        trainer = Trainer(small_model(), optimizer, TruncatedBPTT(10), checkpoint=save, **options)
        trainer.fit(IDS, epochs=3, batch_size=2, valid=valid)
        assert optimizer.lr == 1e-9
        if valid is None:
            assert len(saved) == 3
            assert trainer.history[-1]["valid_perplexity"] is None


def test_training_lowers_the_perplexity_of_both_models():
    text = np.tile(np.arange(7), 40)
    for model in (small_model(), CBOWLM(7, 6, rng=np.random.default_rng(1))):
        history = Trainer(model, Adam(lr=0.02), TruncatedBPTT(10)).fit(
            text, epochs=8, batch_size=2, valid=text
        )
        assert history[-1]["valid_perplexity"] < 1.5 < 2 < history[0]["train_perplexity"]


class Sabotage:
    """Wraps a model's method so that one call of it goes wrong."""

    def __init__(self, model, method, call, harm):
        self.calls, self.call, self.harm = 0, call, harm
        self.method = getattr(model, method)
        setattr(model, method, self)

    def __call__(self, *arguments):
        self.calls += 1
        result = self.method(*arguments)
        return self.harm(result) if self.calls == self.call else result


def sabotage_gradient(model, value):
    def harm(result):
        model.grads[2][1, 1] = value
        return result

    Sabotage(model, "backward", 9, harm)
    return 8  # good steps


def sabotage_loss(model, value):
    # The tenth, as one more looks at the last update of the first epoch.
    Sabotage(model, "forward", 10, lambda loss: value)
    return 7  # a bad loss is the fault of the update before it


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("sabotage", [sabotage_gradient, sabotage_loss])
@pytest.mark.parametrize("clip_norm", [0.25, None])
def test_a_value_that_is_not_finite_stops_training_before_its_update(value, sabotage, clip_norm):
    model, expected = small_model(), small_model()
    good = sabotage(model, value)
    saved = []
    trainer = Trainer(
        model,
        SGD(lr=1.0),
        TruncatedBPTT(10),
        clip_norm=clip_norm,
        clip_value=0.1 if clip_norm is None else None,
        checkpoint=lambda model, record: saved.append((copies(model), record)),
    )
    with pytest.raises(TrainingDiverged, match="in epoch 2 at step 9") as caught:
        trainer.fit(IDS, epochs=3, batch_size=2)
    assert (caught.value.epoch, caught.value.step) == (2, 9)
    assert isinstance(caught.value, FloatingPointError)
    if clip_norm is not None:
        train_by_hand(expected, good, SGD(lr=1.0), clip_norm=clip_norm)
        assert_equal(model.params, expected.params)
    assert saved[-1][1]["steps"] == good
    assert_equal(saved[-1][0], model.params)
    assert saved[-1][1]["stopped"] == "diverged"
    assert [record["epoch"] for record in trainer.history] == [1]


# Plain Python warns of it; compiled code does not.
values_overflow = pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered")


@pytest.mark.parametrize("harm", [math.nan, math.inf, 1e38])
@pytest.mark.parametrize("step", [1, 4, 6])
@values_overflow
def test_an_update_that_blows_the_parameters_up_is_undone(harm, step):
    class Exploding(SGD):
        def update(self, params, grads):
            super().update(params, grads)
            if self.steps == step:
                params[4][:, ::2] = harm
                params[4][:, 1::2] = -harm

    model, expected = small_model(), small_model()
    trainer = Trainer(model, Exploding(lr=1.0), TruncatedBPTT(10))
    with pytest.raises(TrainingDiverged):
        trainer.fit(IDS, epochs=2, batch_size=2, valid=IDS)
    train_by_hand(expected, step - 1, SGD(lr=1.0))
    assert_equal(model.params, expected.params)


@pytest.mark.parametrize("lr", [1e10, 1e30, 1e300])
@values_overflow
def test_an_absurd_learning_rate_ends_in_a_model_that_still_works(lr):
    model = small_model()
    with pytest.raises(TrainingDiverged):
        Trainer(model, SGD(lr=lr), TruncatedBPTT(10)).fit(IDS, epochs=2, batch_size=2, valid=IDS)
    assert all(np.isfinite(param).all() for param in model.params)
    assert math.isfinite(model.log_prob(IDS))


class InterruptedUpdate(SGD):
    """Presses Ctrl-C after the first parameter of one update."""

    def update(self, params, grads):
        super().update(params[:1], grads[:1])
        if self.steps == 5:
            signal.raise_signal(signal.SIGINT)
            for _ in range(1000):  # time for Python to deliver it
                pass
        super().update(params[1:], grads[1:])
        self.steps -= 1


def test_ctrl_c_in_the_middle_of_an_update_waits_for_its_end_and_saves():
    model, expected = small_model(), small_model()
    saved = []
    trainer = Trainer(
        model,
        InterruptedUpdate(lr=1.0),
        TruncatedBPTT(10),
        checkpoint=lambda model, record: saved.append((copies(model), record)),
    )
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(IDS, epochs=3, batch_size=2)
    train_by_hand(expected, 5, SGD(lr=1.0))
    assert_equal(model.params, expected.params)
    assert_equal(saved[0][0], expected.params)
    assert (saved[0][1]["stopped"], saved[0][1]["epoch"], saved[0][1]["steps"]) == ("interrupted", 1, 5)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_ctrl_c_waits_until_the_model_is_saved():
    saved = []

    def save(model, record):
        signal.raise_signal(signal.SIGINT)
        for _ in range(1000):
            pass
        saved.append(record)

    def interrupt(progress):
        raise KeyboardInterrupt

    trainer = Trainer(small_model(), SGD(), TruncatedBPTT(10), callback=interrupt, checkpoint=save)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(IDS, epochs=1, batch_size=2)
    assert saved[0]["stopped"] == "interrupted"


def test_training_works_outside_the_main_thread_and_with_ignored_signals():
    expected = small_model()
    train_by_hand(expected, 6, SGD(lr=1.0))
    model = small_model()
    thread = threading.Thread(
        target=lambda: Trainer(model, SGD(lr=1.0), TruncatedBPTT(10)).fit(IDS, epochs=1, batch_size=2)
    )
    thread.start()
    thread.join()
    assert_equal(model.params, expected.params)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupts_deferred():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@sends_interrupts
def test_a_run_stopped_by_a_real_signal_can_be_loaded_and_scored(tmp_path):
    script = """
        import sys
        import numpy as np
        from rnnfast.models import RNNLM
        from rnnfast.training import Checkpoint, Trainer, TruncatedBPTT
        from rnnfast.optim import SGD

        def report(progress):
            if progress.step == 20:
                print("running", flush=True)

        ids = np.random.default_rng(0).integers(7, size=2001)
        model = RNNLM(7, 6, 6, rng=np.random.default_rng(0))
        checkpoint = Checkpoint(sys.argv[1])
        trainer = Trainer(model, SGD(), TruncatedBPTT(10), callback=report, checkpoint=checkpoint)
        try:
            trainer.fit(ids, epochs=10**6, batch_size=1)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
            sys.exit(5)
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout.readline() == "running\n"
        child.send_signal(signal.SIGINT)
        assert child.stdout.read() == "interrupted\n"
    assert child.returncode == 5
    from rnnfast.training import load_checkpoint, perplexity

    run = load_checkpoint(tmp_path)
    assert run.config["stopped"]["why"] == "interrupted"
    assert 5 < perplexity(run.model, IDS) < 8


@pytest.mark.parametrize(
    ("ids", "options", "error", "message"),
    [
        (IDS[:20], {}, CorpusError, "too short for batch size 2 and window 10: 21 tokens are needed, got 20"),
        (IDS[:0], {}, CorpusError, "too short"),
        (IDS + 1, {}, IndexError, "ids must hold ids from 0 to 6, got 7"),
        (-IDS, {}, IndexError, "ids must hold ids from 0 to 6, got -"),
        (IDS.astype(float), {}, TypeError, "must hold integers"),
        (IDS[np.newaxis], {}, ValueError, "must be"),
        (IDS, {"valid": IDS[:1]}, CorpusError, "valid: the text is too short"),
        (IDS, {"valid": IDS + 1}, IndexError, "valid must hold ids from 0 to 6"),
        (IDS, {"epochs": -1}, ValueError, "epochs must be at least 0"),
        (IDS, {"batch_size": 0}, ValueError, "batch_size must be at least 1"),
    ],
)
def test_a_text_that_cannot_be_trained_on_is_refused_before_training_starts(ids, options, error, message):
    def never(*given):
        raise AssertionError

    model = small_model()
    expected = copies(model)
    trainer = Trainer(model, SGD(), TruncatedBPTT(10), callback=never, on_epoch=never, checkpoint=never)
    with pytest.raises(error, match=message):
        trainer.fit(ids, **{"epochs": 1, "batch_size": 2, **options})
    assert_equal(model.params, expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip_norm": 0}, "clip_norm must be above 0, or None"),
        ({"clip_value": -1.0}, "clip_value must be at least 0"),
        ({"anneal": 1.0}, "anneal must be above 1, or None"),
        ({"anneal": math.nan}, "anneal must be finite"),
    ],
)
def test_limits_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Trainer(small_model(), SGD(), **options)


def test_no_epochs_train_nothing():
    assert Trainer(small_model(), SGD(), TruncatedBPTT(10)).fit(IDS, epochs=0, batch_size=2) == []


def test_the_error_survives_pickling():
    import pickle

    error = pickle.loads(pickle.dumps(TrainingDiverged("training stopped", 2, 9)))
    assert (str(error), error.epoch, error.step) == ("training stopped", 2, 9)


def test_what_is_no_optimizer_or_no_bptt_is_refused_at_once():
    for arguments in (("adam",), (SGD,), (SGD(), 8)):
        with pytest.raises(TypeError, match=r"^Trainer: \w+ must be an object like .*, got"):
            Trainer(RNNLM(4, 3, 3), *arguments)
