"""`rnnfast classify`: a classifier of sequences, how often it is right, and input that cannot be used."""

import json
import re
import shutil
import sys

import numpy as np
import pytest
from cli_helpers import assert_one_line, rnnfast_command

pytest.importorskip("rnnfast.sklearn")

from rnnfast.cli.progress import PlainSteps
from rnnfast.data import read_ts
from rnnfast.sklearn import RNNClassifier

SMALL = ("--hidden-size", "6", "--max-epochs", "4", "--pooling", "mean")


def write(path, seed, count, channels=2, names=("up", "down")):
    """Sequences of unequal lengths that go up, or down; more go up, and a value is missing."""
    rng, lines = np.random.default_rng(seed), [f"@classLabel true {' '.join(names)}", "@data"]
    for number in range(count):
        name = names[number % 3 == 0]
        slope = 1 if name == names[0] else -1
        steps = np.arange(rng.integers(4, 9))
        values = slope * steps + rng.normal(size=(channels, len(steps)))
        parts = list(np.round(values, 3).astype(str))
        if number == 1:
            parts[0][2] = "?"
        lines.append(":".join([*map(",".join, parts), name]))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ts")
    return write(folder / "walk_TRAIN.ts", 0, 40), write(folder / "walk_TEST.ts", 1, 25)


@pytest.fixture(scope="module")
def done(files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "walk"
    code, out, err = rnnfast_command("classify", *files, *SMALL, "--out", folder)
    assert (code, err) == (0, "")
    return folder, out


def test_the_results_are_those_of_the_estimator(files, done):
    folder, out = done
    (xs, labels), (new_xs, new_labels) = map(read_ts, files)
    model = RNNClassifier(hidden_size=6, max_epochs=4, pooling="mean", random_state=0).fit(xs, labels)
    shares, predicted = model.predict_proba(new_xs), model.predict(new_xs)
    names, *rows = [line.split(",") for line in (folder / "predictions.csv").read_text().splitlines()]
    assert names == ["sequence", "class", "predicted", "probability"]
    assert [row[:3] for row in rows] == [
        [str(number), *pair] for number, pair in enumerate(zip(new_labels, predicted, strict=True), 1)
    ]
    np.testing.assert_allclose([float(row[3]) for row in rows], shares.max(axis=1), atol=1e-6)
    scores = [f"{model.score(*data):.1%}" for data in ((xs, labels), (new_xs, new_labels))]
    assert re.search(rf"^ +accuracy +{scores[0]} +{scores[1]} *$", out, re.M), out
    common = [f"{np.mean(one == 'up'):.1%}" for one in (labels, new_labels)]
    assert re.search(rf"^ +always up, the most common class +{common[0]} +{common[1]} *$", out, re.M), out
    for name in ("up", "down"):
        ours = new_labels == name
        cells = (np.sum(labels == name), ours.sum(), f"{np.mean(predicted[ours] == name):.1%}")
        assert re.search(rf"^ +{name} +{cells[0]} +{cells[1]} +{cells[2]} *$", out, re.M), out
    again = RNNClassifier.load(folder / "model.safetensors")
    np.testing.assert_array_equal(again.predict_proba(new_xs), shares)


def test_what_is_said(done):
    folder, out = done
    first = "40 sequences to learn, 25 to judge: 4 to 8 steps, 2 channels, 2 classes, 2 values missing"
    assert out.splitlines()[0] == first
    assert re.search(r"^GRU, 1 x 6 epoch 4/4: loss [\d.]+, 0:00 left$", out, re.M)
    assert f"written to {folder}: predictions.csv, model.safetensors\n" in out
    assert "\x1b" not in out


def test_other_networks_can_be_trained(files, tmp_path):
    options = ("--cell", "lstm", "--layers", "2", "--forward", "--pooling", "max", "--seed", "3")
    code, out, err = rnnfast_command("classify", *files, *SMALL, *options, "--out", tmp_path / "run")
    assert (code, err) == (0, "")
    assert "LSTM, 2 x 6: 4 epochs in" in out
    model = RNNClassifier.load(tmp_path / "run" / "model.safetensors")
    assert (model.layers, model.bidirectional, model.pooling, model.random_state) == (2, False, "max", 3)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--hidden-size", "0"), "--hidden-size must be at least 1"),
        (("--pooling", "median"), "--pooling must be one of last, mean, max"),
        (("--cell", "quantum"), "cell must be"),
        (("--max-epochs", "0"), "--max-epochs must be"),
        (("--overwrite",), "--overwrite has no effect without --out"),
        (("--speed", "9"), "No such option"),
    ],
)
def test_options_that_make_no_sense_are_refused(files, options, word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_one_line(("classify", *files, *options), word)
    assert list(tmp_path.iterdir()) == []


def test_files_that_cannot_be_used_are_refused_and_nothing_is_left_behind(files, done, tmp_path):
    train, test = files
    out = ("--out", tmp_path / "deep" / "out")
    bad = tmp_path / "bad.ts"
    bad.write_text("@classLabel true up down\n@data\n1,x:2,3:up\n")
    assert_one_line(("classify", bad, test, *out), "bad.ts, line 3: values must be numbers, got 'x'")
    assert_one_line(("classify", train, tmp_path / "none.ts", *out), "none.ts: No such file or directory")
    narrow = write(tmp_path / "narrow.ts", 2, 5, channels=1)
    assert_one_line(("classify", train, narrow, *out), "narrow.ts: must have 2 channels, as TRAIN has, got 1")
    one = write(tmp_path / "one.ts", 2, 6, names=("same", "same"))
    assert_one_line(("classify", one, test, *out), "class")
    assert not (tmp_path / "deep").exists()
    assert_one_line(("classify", *files, "--out", done[0]), "already has a run (settings.json)")
    assert_one_line(("classify", train), "Missing argument 'TEST'")


@pytest.mark.parametrize("epoch", [2, 4])
def test_an_interrupted_command_continues_to_the_same_files(files, done, epoch, tmp_path, monkeypatch):
    reached, folder = PlainSteps.reached, tmp_path / "out"

    def stopped(self, now, *rest):
        reached(self, now, *rest)
        if now == epoch:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(PlainSteps, "reached", stopped)
        command = ("classify", *files, *SMALL, "--out", folder)
        again = f"rnnfast classify --resume {folder}"
        assert_one_line(command, f"rnnfast: interrupted; {again} continues it.\n", code=130)
    again = ("classify", "--resume", folder)
    assert_one_line((*again, "--hidden-size", "9"), "--hidden-size was 6 when the run in")
    assert_one_line((*again, "--forward"), "--bidirectional was on when the run in")
    assert_one_line((*again, files[1]), f"TRAIN was {files[0]} when the run in")
    assert_one_line((*again, "--out", tmp_path), "--out belongs to a run that begins, not to --resume")
    assert_one_line(("classify", *files, "--out", folder), "already has a run (settings.json)")
    code, out, err = rnnfast_command(*again, files[0], *SMALL)
    assert (code, err) == (0, "")
    assert ("4 epochs in" in out) == (epoch < 4)
    for name in ("predictions.csv", "model.safetensors"):
        assert (folder / name).read_bytes() == (done[0] / name).read_bytes()
    assert re.findall(r"^ .*$", out, re.M) == re.findall(r"^ .*$", done[1], re.M)


def test_runs_that_cannot_be_resumed_are_refused(files, done, tmp_path):
    assert_one_line(("classify", "--resume", tmp_path / "none"), "there is no such run folder")
    saved = json.loads((done[0] / "settings.json").read_text())
    told = saved["arguments"]
    wrong = {"train": 3, "hidden_size": "many", "layers": None, "bidirectional": "perhaps", "seed": -1}
    arguments = [{**told, name: value} for name, value in wrong.items()] + [[], {}]
    for changes in ({"command": "forecast"}, *({"arguments": one} for one in arguments)):
        (tmp_path / "settings.json").write_text(json.dumps({**saved, **changes}))
        assert_one_line(("classify", "--resume", tmp_path), "settings.json")
    (tmp_path / "settings.json").write_text(json.dumps({**saved, "arguments": {**told, "test": None}}))
    assert_one_line(("classify", "--resume", tmp_path), "Missing argument 'TEST'")
    shutil.copy(done[0] / "model.training", tmp_path)
    told["train"] = str(files[1])
    (tmp_path / "settings.json").write_text(json.dumps(saved))
    assert_one_line(("classify", "--resume", tmp_path), "sequences has changed")
    assert (tmp_path / "model.training").exists()


def test_a_run_that_cannot_write_keeps_one_line(files, done, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device", "predictions.csv")

    monkeypatch.setattr("rnnfast.cli.classify.write_csv", fail)
    command = ("classify", *files, *SMALL, "--out", tmp_path / "out")
    again = f"rnnfast classify --resume {tmp_path / 'out'} continues it."
    assert_one_line(command, "predictions.csv: No space left on device", again, code=1)
    monkeypatch.undo()
    assert rnnfast_command("classify", "--resume", tmp_path / "out")[0] == 0
    for name in ("predictions.csv", "model.safetensors"):
        assert (tmp_path / "out" / name).read_bytes() == (done[0] / name).read_bytes()


def test_without_scikit_learn_it_is_one_sentence(files, monkeypatch):
    monkeypatch.delitem(sys.modules, "rnnfast.sklearn")
    monkeypatch.setitem(sys.modules, "sklearn.utils.validation", None)
    assert_one_line(("classify", *files), "needs scikit-learn: pip install")
