"""rnnfast train --resume: what it goes on with, what it refuses, and what it leaves behind."""

import json
import shutil

import kill_and_resume
import numpy as np
import pytest
from cli_helpers import rnnfast_command
from kill_and_resume import OFTEN, SMALL, outcome

from rnnfast.cli.app import app
from rnnfast.cli.experiment import Experiment
from rnnfast.files.atomic import fcntl, only_one
from rnnfast.training import TrainingDiverged
from rnnfast.training.checkpointing import read_training

TEXT = kill_and_resume.TEXT  # of the fixture `text`


def assert_refused(arguments, *words, code=2):
    actual, out, err = rnnfast_command(*arguments)
    assert (actual, err.count("\n")) == (code, 1), (out, err)
    assert err.startswith("rnnfast: ")
    for word in words:
        assert str(word) in err


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, text):
    """A run that was never stopped."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert rnnfast_command("train", text, *SMALL.split(), *OFTEN.split(), "--save", folder)[0] == 0
    return folder


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "run")


def stopped_run(monkeypatch, text, folder, model, window, *, options=OFTEN):
    """A run ended by Ctrl-C in a window of one of its models."""
    fit = Experiment.fit

    def until_ctrl_c(experiment, trainer):
        report = trainer.callback

        def stop(progress):
            report(progress)
            if trainer.model.config["model"] == model and progress.step == window:
                raise KeyboardInterrupt

        trainer.callback = stop
        return fit(experiment, trainer)

    with monkeypatch.context() as patched:
        patched.setattr(Experiment, "fit", until_ctrl_c)
        code, _, err = rnnfast_command("train", text, *SMALL.split(), *options.split(), "--save", folder)
    assert code == 130
    assert f"rnnfast train --resume {folder} continues it" in err


@pytest.mark.parametrize(("model", "window"), [("RNNLM", 1), ("RNNLM", 17), ("CBOWLM", 7)])
def test_a_run_ended_by_ctrl_c_goes_on_to_the_same_files(whole, text, tmp_path, monkeypatch, model, window):
    folder = tmp_path / "run"
    stopped_run(monkeypatch, text, folder, model, window)
    assert json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["event"] == "stopped"
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"event": "progress", "model": "LSTM", "st')  # what a killed process may leave
    code, out, err = rnnfast_command("train", "--resume", folder)
    assert (code, err) == (0, "")
    assert f"continues after {window} window" in out
    assert outcome(folder) == outcome(whole)
    assert (folder / "learning_curve.png").exists()


def test_a_run_killed_before_its_first_checkpoint_begins_again(whole, copy):
    for name in ("training.safetensors", "metrics.jsonl", "model.safetensors", "config.json", "cbow"):
        path = copy / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert rnnfast_command("train", "--resume", copy)[0] == 0
    assert outcome(copy) == outcome(whole)


@pytest.mark.parametrize("place", ["", "cbow"])
def test_a_run_that_lost_where_it_stands_is_refused_and_keeps_its_model(copy, place):
    (copy / place / "training.safetensors").unlink()
    before = (copy / place / "model.safetensors").read_bytes()
    assert_refused(
        ("train", "--resume", copy),
        f"{copy / place} has no training.safetensors to resume",
        f"train again with --save {copy} --overwrite.",
    )
    assert (copy / place / "model.safetensors").read_bytes() == before


def test_a_finished_run_says_that_it_is_finished(copy):
    code, out, err = rnnfast_command("train", "--resume", copy)
    assert (code, err) == (0, "")
    for name in ("LSTM", "CBOW"):
        assert f"{name}: already finished; --epochs N trains longer" in out
    assert "continues after" not in out
    assert "epochs in" not in out


def test_a_baseline_that_had_made_no_window_begins(text, tmp_path, monkeypatch):
    fit = Experiment.fit

    def killed(progress):
        raise ZeroDivisionError

    def until_the_baseline(experiment, trainer):
        if trainer.model.config["model"] == "CBOWLM":
            trainer.callback = killed
        return fit(experiment, trainer)

    rare = OFTEN.replace("--checkpoint-every 0", "--checkpoint-every 1e9").split()
    command = ["train", str(text), *SMALL.split(), *rare, "--save", str(tmp_path / "run")]
    with monkeypatch.context() as patched:
        patched.setattr(Experiment, "fit", until_the_baseline)
        with pytest.raises(ZeroDivisionError):
            app(command)
    code, out, _ = rnnfast_command("train", "--resume", tmp_path / "run")
    assert code == 0
    assert "CBOW: begins\n" in out


def test_a_baseline_that_diverges_is_named_beside_the_network_that_is_complete(text, tmp_path, monkeypatch):
    fit = Experiment.fit

    def diverging(experiment, trainer):
        if trainer.model.config["model"] == "CBOWLM":
            raise TrainingDiverged("training stopped in epoch 1 at step 2: the loss is nan.", 1, 2)
        return fit(experiment, trainer)

    monkeypatch.setattr(Experiment, "fit", diverging)
    options = (*SMALL.split(), *OFTEN.split(), "--eps", "0", "--save", tmp_path / "run")
    code, out, err = rnnfast_command("train", text, *options)
    assert (code, err.count("\n")) == (1, 1)
    assert err.startswith("rnnfast: CBOW (the baseline): training stopped in epoch 1")
    assert "--eps is 0, and may be the cause; the LSTM is complete; the run is saved in" in err
    assert "LSTM, 2 x 8" in out
    assert "CBOW, last" not in out


def test_a_finished_run_can_be_given_more_epochs(text, copy, tmp_path):
    longer = tmp_path / "longer"
    more = OFTEN.replace("--epochs 4", "--epochs 6").split()
    assert rnnfast_command("train", text, *SMALL.split(), *more, "--save", longer)[0] == 0
    assert rnnfast_command("train", "--resume", copy, "--epochs", "6")[0] == 0
    expected, actual = outcome(longer), outcome(copy)
    for line in actual["metrics"] + expected["metrics"]:
        line.pop("settings", None)
        line.pop("epochs", None)
        line.pop("steps", None)
    assert actual["training"] == expected["training"]
    order = lambda lines: sorted(map(str, lines))  # noqa: E731, those of the baseline came in between
    assert order(line for line in actual["metrics"]) == order(expected["metrics"])
    assert actual["files"]["model.safetensors"] == expected["files"]["model.safetensors"]
    assert json.loads((copy / "settings.json").read_text())["arguments"]["epochs"] == 6
    assert_refused(("train", "--resume", copy, "--epochs", "5"), "epochs must be at least 6", copy)


def test_checkpoints_are_made_as_often_as_the_run_is_told(text, tmp_path, monkeypatch):
    rare = OFTEN.replace("--checkpoint-every 0", "--checkpoint-every 1e9")
    for options, step in ((OFTEN, 9), (rare, 0)):
        folder = tmp_path / options[-3:]

        def killed(experiment, trainer, fit=Experiment.fit):
            def stop(progress):
                if progress.step == 10:
                    raise ZeroDivisionError

            trainer.callback = stop
            return fit(experiment, trainer)

        with monkeypatch.context() as patched:
            patched.setattr(Experiment, "fit", killed)
            command = ["train", str(text), *SMALL.split(), *options.split(), "--save", str(folder)]
            with pytest.raises(ZeroDivisionError):
                app(command)
        assert read_training(folder / "training.safetensors").step == step


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--nhid", "9"), "--nhid was 8 when the run in"),
        (("--cell", "gru"), "began, and is gru now; leave it out to continue that run, or begin another."),
        (("--no-baseline",), "--baseline was on when the run in"),
        (("--no-lower",), "--lower was not given when the run in"),
        (("--valid-fraction", "0.2"), "--valid-fraction was 0.1 when the run in"),
        (("--log-interval", "1"), "--log-interval was 3 when the run in"),
        (("another.txt",), "began, and is another.txt now"),
        (("--save", "there"), "--save belongs to a run that begins, not to --resume; leave it out"),
        (("--overwrite",), "--overwrite belongs to a run that begins"),
        (("--epochs", "3"), "epochs must be at least 4"),
        (("--checkpoint-every", "inf"), "--checkpoint-every must be finite"),
    ],
)
def test_what_is_not_as_it_was_is_named_and_nothing_changes(copy, options, words):
    before = outcome(copy)
    assert_refused(("train", "--resume", copy, *options), words)
    assert outcome(copy) == before


def test_the_same_arguments_may_be_given_again(whole, text, copy):
    same = (*SMALL.replace("--cell lstm", "--model LSTM").split(), *OFTEN.split())
    assert rnnfast_command("train", text, "--resume", copy, *same)[0] == 0
    assert outcome(copy) == outcome(whole)


def test_a_folder_without_a_run_to_go_on_with_is_refused(copy, tmp_path):
    assert_refused(("train", "--resume", tmp_path / "missing"), "there is no such run folder", "missing")
    (copy / "settings.json").unlink()
    assert_refused(("train", "--resume", copy), "settings.json is missing", copy)


def test_damaged_files_are_named_in_one_line(copy):
    told = json.loads((copy / "settings.json").read_text())
    for changes in (
        {"format": "x"},
        {"arguments": 1},
        {"arguments": {}},
        {"tokenizer": "another"},
        *(
            {"arguments": {**told["arguments"], name: value}}
            for name, value in [
                ("nhid", "many"),
                ("anneal", None),
                ("anneal", 0.5),
                ("baseline", 1),
                ("log_interval", 0),
                ("lr", 10**400),
                ("checkpoint_every", -1),
                ("color", 1),
            ]
        ),
    ):
        (copy / "settings.json").write_text(json.dumps({**told, **changes}))
        assert_refused(
            ("train", "--resume", copy), "tokenizer.json" if "tokenizer" in changes else "settings.json"
        )
    (copy / "settings.json").write_text(json.dumps(told))
    for name in ("training.safetensors", "cbow/training.safetensors"):
        content = bytearray((copy / name).read_bytes())
        content[-5] ^= 4
        (copy / name).write_bytes(content)
        assert_refused(("train", "--resume", copy), name, "the checksum does not match")
        content[-5] ^= 4
        (copy / name).write_bytes(content)
    changed = {**told["arguments"], "nhid": 9, "emsize": 9}
    (copy / "settings.json").write_text(json.dumps({**told, "arguments": changed}))
    assert_refused(("train", "--resume", copy), "embed_size is 9 and not 8", code=1)
    (copy / "settings.json").write_text(json.dumps(told))
    ids = np.load(copy / "train.npy")
    ids[7] = ids[7] % 3 + 2
    np.save(copy / "train.npy", ids)
    assert_refused(
        ("train", "--resume", copy), f"{copy / 'train.npy'} was changed since the run began", code=1
    )


@pytest.mark.skipif(fcntl is None, reason="this system has no locks of this kind")
def test_two_processes_do_not_train_in_one_folder(copy, text):
    with only_one(copy):
        assert_refused(("train", "--resume", copy), "another process is training in this folder", copy)
        assert_refused(
            ("train", text, *SMALL.split(), "--save", copy, "--overwrite"), "another process is training"
        )


@pytest.mark.skipif(fcntl is None, reason="this system has no locks of this kind")
def test_what_a_killed_process_left_is_removed(copy):
    (copy / ".rnnfast-staged").mkdir()
    (copy / ".rnnfast-staged" / "train.npy").write_bytes(b"half")
    for folder in (copy, copy / "cbow"):
        (folder / ".rnnfast-01.tmp").write_bytes(b"half")
    (copy / "mine.txt").write_text("kept")
    assert rnnfast_command("train", "--resume", copy)[0] == 0
    assert list(copy.rglob(".rnnfast-*")) == []
    assert (copy / "mine.txt").read_text() == "kept"


@pytest.mark.parametrize(
    ("number", "words"), [(28, "No space left on device"), (30, "Read-only file system")]
)
def test_a_disk_that_takes_no_more_ends_in_one_line_and_the_last_checkpoint_is_good(
    whole, text, tmp_path, monkeypatch, number, words
):
    folder = tmp_path / "run"
    stopped_run(monkeypatch, text, folder, "RNNLM", 10)
    before = (folder / "training.safetensors").read_bytes()

    def fail(descriptor):
        raise OSError(number, words)

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", fail)
        assert_refused(("train", "--resume", folder), f"settings.json: {words}")
        patched.setattr("rnnfast.cli.run_folder.RunFolder.write_settings", lambda *_: None)
        patched.setattr("rnnfast.training.checkpoint.Checkpoint.set_state", lambda *_: None)
        patched.setattr("rnnfast.cli.run_folder._lines", lambda *_: [])
        assert_refused(("train", "--resume", folder), f"training.safetensors: {words}", code=1)
    assert (folder / "training.safetensors").read_bytes() == before
    assert list(folder.rglob(".rnnfast-*")) == []
    stopped = [line for line in (folder / "metrics.jsonl").read_text().splitlines() if '"start"' in line]
    assert len(stopped) == 1
    assert rnnfast_command("train", "--resume", folder)[0] == 0
    assert outcome(folder)["training"] == outcome(whole)["training"]
