"""Resumed training: wherever a run ends, going on from its file gives the bits of a run that never ended."""

import hashlib
import json
import shutil

import numpy as np
import pytest

from rnnfast import CBOWLM, RNNLM, State
from rnnfast._check import CheckpointError
from rnnfast.optim import SGD, AdaGrad, Adam, AdamW, Momentum, Nesterov, RMSprop
from rnnfast.training import Checkpoint, Trainer, TrainingDiverged, TruncatedBPTT, progress
from rnnfast.training.chain import Window
from rnnfast.training.checkpointing import read_training

IDS = np.random.default_rng(100).integers(7, size=61)
VALID = IDS[:25]
EPOCHS, WINDOWS = 4, 6
TIMES = {"seconds", "tokens_per_second"}


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch):
    """Nothing here cuts the power; test_files.py checks the order of writes to the disk."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


class Killed(BaseException):
    """What no handler expects: nothing is saved when it comes."""


class Twice:
    """A model of one's own: `W` and `W.T` are two parameters in one array."""

    def __init__(self):
        self.W = np.random.default_rng(5).standard_normal((4, 3))
        self.params, self.grads = [self.W, self.W.T], [np.zeros((4, 3)), np.zeros((3, 4))]
        self.h = np.zeros((2, 3))

    def reset_state(self):
        self.h = np.zeros((2, 3))

    def get_state(self):
        return (self.h.copy(),)

    def set_state(self, state):
        self.h = state[0].copy()

    def forward(self, xs, ts):
        self.h = np.tanh(self.h + xs.mean() * self.W.sum(axis=0) / 100)
        return float(self.h.mean() ** 2) + 1.0

    def backward(self):
        self.grads[0][...] = self.h.mean(axis=0)
        self.grads[1][...] = self.h.mean()


def rnn(**options):
    return RNNLM(7, 6, 6, rng=np.random.default_rng(0), **options)


CASES = {
    "lstm": (lambda: rnn(cell="lstm", layers=2, dropout=0.4, tied=True), lambda: Adam(lr=0.02)),
    "gru64": (lambda: rnn(cell="gru", dropout=0.2, dtype=np.float64), lambda: AdamW(lr=0.02)),
    "relu": (lambda: rnn(cell="relu"), lambda: Momentum(lr=0.5)),
    "rnn": (rnn, lambda: SGD(lr=1.0)),
    "cbow": (lambda: CBOWLM(7, 4, window=3, rng=np.random.default_rng(0)), lambda: RMSprop(lr=0.05)),
    "bigram": (lambda: CBOWLM(7, 4, window=1, rng=np.random.default_rng(0)), lambda: AdaGrad(lr=0.1)),
    "own": (Twice, lambda: Nesterov(lr=0.01)),
}


def trainer_of(case, folder=None, **options):
    model, optimizer = (make() for make in CASES[case])
    if folder is not None:
        options["checkpoint"] = Checkpoint(folder, settings={"case": case})
    return Trainer(model, optimizer, TruncatedBPTT(5), anneal=2.0, **options)


def fit(trainer, path, case="lstm", **options):
    valid = None if case == "own" else VALID
    options = {"epochs": EPOCHS, "batch_size": 2, "valid": valid, "checkpoint_every": 0.0, **options}
    return trainer.fit(IDS, checkpoint_file=path, **options)


def everything(trainer):
    """All that training has come to, without its times."""
    model, optimizer = trainer.model, trainer.optimizer.state_dict()
    history = [{k: v for k, v in record.items() if k not in TIMES} for record in trainer.history]
    arrays = [*model.params, *optimizer["arrays"].values(), *(trainer.last_good.copies or ())]
    return (
        [(array.dtype, array.shape, hashlib.sha256(array.tobytes()).hexdigest()[:16]) for array in arrays],
        optimizer["scalars"],
        getattr(model, "rng_state", None),
        State.of(model),
        history,
    )


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "training"}


def killed_at(case, folder, moment, path):
    """Train until `moment`, (hook, how many calls of it), and leave nothing but files."""
    calls = 0

    def maybe(hook):
        nonlocal calls
        calls += hook == moment[0]
        if (hook, calls) == moment:
            raise Killed

    trainer = trainer_of(
        case, folder, callback=lambda report: maybe("window"), on_epoch=lambda record: maybe("epoch")
    )
    save, validated = trainer.checkpoint, trainer._validated
    trainer._validated = lambda *arguments: (maybe("validation"), validated(*arguments))[1]

    class Saver:
        get_state, set_state = save.get_state, save.set_state

        def __call__(self, model, record):
            maybe("before saving")
            save(model, record)
            maybe("after saving")

    trainer.checkpoint = Saver()
    with pytest.raises(Killed):
        fit(trainer, path, case)


@pytest.mark.parametrize("case", CASES)
def test_a_run_killed_anywhere_goes_on_to_the_bits_of_one_that_was_not(case, tmp_path):
    own = case == "own"
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    expected = trainer_of(case, None if own else whole)
    fit(expected, tmp_path / "t", case)
    windows = range(1, EPOCHS * WINDOWS + 1) if case == "lstm" else (1, 6, 7, 15)
    moments = [("window", n) for n in windows]
    moments += [] if own else [(hook, n) for hook in ("epoch", "validation") for n in (1, 2, EPOCHS)]
    moments += [] if own else [("before saving", 1), ("after saving", 1), ("after saving", 2)]
    for moment in moments:
        shutil.rmtree(folder, ignore_errors=True)
        if own:
            stop_at = moment[1]

            def stop(report, stop_at=stop_at):
                if report.step == stop_at:
                    raise Killed

            with pytest.raises(Killed):
                fit(trainer_of(case, callback=stop), tmp_path / "training", case)
        else:
            killed_at(case, folder, moment, tmp_path / "training")
        steps = []
        place = None if own else folder
        actual = trainer_of(case, place, callback=lambda report, s=steps: s.append(report.step))
        fit(actual, tmp_path / "training", case, resume=True)
        assert everything(actual) == everything(expected), moment
        assert steps == list(range(EPOCHS * WINDOWS + 1 - len(steps), EPOCHS * WINDOWS + 1))
        if moment[0] == "window":  # the file is that of the window before
            assert len(steps) == EPOCHS * WINDOWS + 1 - moment[1]
        if not own:
            assert contents(folder) == contents(whole), moment
        (tmp_path / "training").unlink()


def test_ctrl_c_keeps_the_window_under_way_and_the_run_goes_on_as_if_nothing_had_been(tmp_path):
    whole, folder = tmp_path / "whole", tmp_path / "stopped"
    expected = trainer_of("lstm", whole)
    fit(expected, tmp_path / "t")
    for hook, moment in [
        ("callback", 3),
        ("callback", 12),
        ("callback", 20),
        ("on_epoch", 1),
        ("on_epoch", 3),
    ]:
        shutil.rmtree(folder, ignore_errors=True)
        count = iter(range(1, 100))

        def stop(_, moment=moment, count=count):
            if next(count) == moment:
                raise KeyboardInterrupt

        stopped = trainer_of("lstm", folder, **{hook: stop})
        with pytest.raises(KeyboardInterrupt):
            fit(stopped, tmp_path / "training", checkpoint_every=1e9)
        assert json.loads((folder / "config.json").read_text())["stopped"]["why"] == "interrupted"
        steps = []
        actual = trainer_of("lstm", folder, callback=lambda report, s=steps: s.append(report.step))
        fit(actual, tmp_path / "training", resume=True)
        done = moment if hook == "callback" else moment * WINDOWS
        assert len(steps) == EPOCHS * WINDOWS - done
        assert everything(actual) == everything(expected)
        assert contents(folder) == contents(whole)


def test_a_finished_run_has_nothing_left_to_do_and_more_epochs_go_on_from_its_end(tmp_path):
    expected = trainer_of("gru64")
    fit(expected, None, epochs=6)
    trainer = trainer_of("gru64")
    fit(trainer, tmp_path / "t", epochs=4)
    for epochs, fresh in [(4, 0), (6, 2 * WINDOWS), (6, 0)]:
        steps = []
        trainer = trainer_of("gru64", callback=lambda report, s=steps: s.append(report.step))
        assert fit(trainer, tmp_path / "t", epochs=epochs, resume=True) is trainer.history
        assert (len(steps), len(trainer.history)) == (fresh, epochs)
        assert len(read_training(tmp_path / "t").history) == epochs
    assert everything(trainer) == everything(expected)
    sentence = r"^Trainer\.fit: epochs must be at least 6, which the run in .*t has reached, got 5\.$"
    with pytest.raises(CheckpointError, match=sentence):
        fit(trainer_of("gru64"), tmp_path / "t", epochs=5, resume=True)


def test_a_run_that_ended_for_want_of_patience_stays_ended(tmp_path):
    trainer = trainer_of("rnn", patience=1)
    trainer.optimizer.lr = 1e-9
    perplexities = len(fit(trainer, tmp_path / "t", epochs=50))
    assert perplexities < 50
    again = trainer_of("rnn", patience=1)
    again.optimizer.lr = 1e-9
    assert len(fit(again, tmp_path / "t", epochs=50, resume=True)) == perplexities


def test_a_learning_rate_set_by_a_callback_is_kept(tmp_path):
    def falling(trainer, stop=0):
        def report(progress):
            trainer.optimizer.lr = 1.0 / (1 + progress.step)
            if progress.step == stop:
                raise KeyboardInterrupt

        trainer.callback = report
        return trainer

    expected = falling(trainer_of("rnn"))
    fit(expected, None)
    with pytest.raises(KeyboardInterrupt):
        fit(falling(trainer_of("rnn"), stop=9), tmp_path / "t")
    actual = falling(trainer_of("rnn"))
    fit(actual, tmp_path / "t", resume=True)
    assert everything(actual)[0] == everything(expected)[0]


def test_a_run_that_diverges_after_it_was_resumed_goes_back_as_far_as_one_that_was_not(tmp_path):
    def bad(trainer, at):
        """The losses grow beyond what counts as good, then no float can hold their perplexity."""
        count, forward = iter(range(100)), trainer.model.forward

        def loss(xs, ts):
            value, n = forward(xs, ts), next(count)
            return value if n < at else 200.0 if n < at + 2 else 1e9

        trainer.model.forward = loss
        return trainer

    expected = bad(trainer_of("rnn"), 9)
    with pytest.raises(TrainingDiverged) as at_once:
        fit(expected, tmp_path / "whole", valid=None)
    trainer = bad(trainer_of("rnn", callback=stop_after(9)), 9)
    with pytest.raises(Killed):
        fit(trainer, tmp_path / "t", valid=None)
    actual = bad(trainer_of("rnn"), 0)  # eight windows are behind it: the file is that of the eighth
    with pytest.raises(TrainingDiverged) as resumed:
        fit(actual, tmp_path / "t", valid=None, resume=True)
    assert str(resumed.value) == str(at_once.value)
    assert everything(actual)[0] == everything(expected)[0]


def stop_after(step):
    def stop(report):
        if report.step == step:
            raise Killed

    return stop


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 3}, "batch_size is 3 and not 2"),
        ({"ids": IDS[::-1]}, "text has changed"),
        ({"valid": VALID[::-1]}, "valid has changed"),
        ({"valid": None}, "valid has changed"),
        ({"model": lambda: rnn(cell="lstm")}, "cell is 'lstm' and not 'rnn'"),
        ({"model": lambda: CBOWLM(7, 4)}, "cell is None and not 'rnn'"),
        ({"optimizer": lambda: SGD(lr=2.0)}, "lr is 2.0 and not 1.0"),
        ({"optimizer": lambda: Adam(lr=1.0)}, "beta1 is 0.9 and not None"),
        ({"bptt": TruncatedBPTT(4)}, r"bptt is 'TruncatedBPTT\(4\)' and not 'TruncatedBPTT\(5\)'"),
        ({"clip_norm": 1.0}, "clip_norm is 1.0 and not 0.25"),
        ({"anneal": None}, "anneal is None and not 2.0"),
        ({"patience": 3}, "patience is 3 and not None"),
    ],
)
def test_what_is_not_as_it_was_is_named_in_one_sentence(tmp_path, options, message):
    fit(trainer_of("rnn"), tmp_path / "t")
    before = (tmp_path / "t").read_bytes()
    model, optimizer = options.pop("model", CASES["rnn"][0])(), options.pop("optimizer", CASES["rnn"][1])()
    fitting = {"ids": IDS, "batch_size": 2, "valid": VALID}
    fitting.update({name: options.pop(name) for name in list(options) if name in fitting})
    options = {"bptt": TruncatedBPTT(5), "anneal": 2.0, **options}
    trainer = Trainer(model, optimizer, **options)
    kept = [param.copy() for param in model.params]
    sentence = rf"^Trainer\.fit: {message}, so the run in .*t cannot continue\.$"
    with pytest.raises(CheckpointError, match=sentence):
        trainer.fit(**fitting, epochs=EPOCHS, checkpoint_file=tmp_path / "t", resume=True)
    assert (tmp_path / "t").read_bytes() == before
    for param, old in zip(model.params, kept, strict=True):
        np.testing.assert_array_equal(param, old)


def test_a_model_or_an_optimizer_that_cannot_be_kept_is_refused(tmp_path):
    class Plain:
        params = grads = ()

    class Simple:
        lr = 1.0

        def update(self, params, grads):
            pass

    with pytest.raises(TypeError, match="checkpoint_file: the model must be an object like RNNLM"):
        Trainer(Plain(), SGD(), TruncatedBPTT(5)).fit(
            IDS, epochs=1, batch_size=2, checkpoint_file=tmp_path / "t"
        )
    with pytest.raises(TypeError, match=r"checkpoint_file: the optimizer must be an object like SGD\(\)"):
        Trainer(rnn(), Simple(), TruncatedBPTT(5)).fit(
            IDS, epochs=1, batch_size=2, checkpoint_file=tmp_path / "t"
        )
    for every in (-1.0, float("nan"), "often"):
        with pytest.raises((TypeError, ValueError), match="checkpoint_every must be"):
            fit(trainer_of("rnn"), tmp_path / "t", checkpoint_every=every)


def test_a_disk_that_is_full_leaves_the_last_file_and_says_which_it_was(tmp_path, monkeypatch):
    def full_at(step):
        def report(progress):
            if progress.step == step:

                def fail(*_):
                    raise OSError(28, "No space left on device")

                monkeypatch.setattr("os.fsync", fail)

        return report

    with pytest.raises(OSError, match="No space left on device") as error:
        fit(trainer_of("lstm", callback=full_at(8)), tmp_path / "t")
    monkeypatch.undo()
    assert error.value.filename == str(tmp_path / "t")
    assert [path.name for path in tmp_path.iterdir()] == ["t"]
    expected, actual, steps = trainer_of("lstm"), trainer_of("lstm"), []
    actual.callback = lambda report: steps.append(report.step)
    fit(expected, None)
    fit(actual, tmp_path / "t", resume=True)
    assert steps[0] == 8
    assert everything(actual) == everything(expected)


def test_the_file_is_written_as_often_as_asked_for(tmp_path, monkeypatch):
    def writes(every, seconds_a_window):
        written, clock = [], [1000.0]
        monkeypatch.setattr("rnnfast.training.checkpointing.time.monotonic", lambda: clock[0])
        trainer = trainer_of("rnn", callback=lambda report: clock.__setitem__(0, clock[0] + seconds_a_window))
        monkeypatch.setattr(
            "rnnfast.training.checkpointing.write_tensors", lambda *_: written.append(len(trainer.history))
        )
        fit(trainer, tmp_path / "t", checkpoint_every=every)
        return len(written)

    total = EPOCHS * WINDOWS
    assert writes(0.0, 1.0) == 1 + total + EPOCHS - 1 + 1  # first, windows, epochs but the last, end
    assert writes(10.0, 1.0) == 1 + total // 10 + 1
    assert writes(1e9, 1.0) == 2


def test_the_first_window_of_each_process_does_not_count_for_speed(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])

    def learn(meter, seconds):
        now[0] += seconds
        meter.add(Window(number=1, windows=4, tokens=100, loss=1.0))

    meter = progress.Meter(epochs=2, windows=4, tokens=400)
    meter.start_epoch()
    learn(meter, 9.0)  # loads the kernels
    learn(meter, 1.0)
    resumed = progress.Meter(epochs=2, windows=4, tokens=400)
    resumed.set_state(meter.state())
    learn(resumed, 9.0)
    learn(resumed, 1.0)
    assert meter.tokens_per_second == 100.0
    assert resumed.tokens_per_second == 100.0
