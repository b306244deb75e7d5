"""A run folder with one damaged file: the command goes on, or says one line that names the file."""

import errno
import os
import pickle
import random
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from cli_helpers import rnnfast_command
from kill_and_resume import OFTEN, SMALL, TEXT

from rnnfast.cli.app import app

BYTES = ("missing", "empty", "truncated", "random", "end", "folder")
TEXTS = (*BYTES, "other JSON", "nested")
FILES = {
    "model.safetensors": TEXTS,
    "training.safetensors": TEXTS,
    "settings.json": TEXTS,
    "tokenizer.json": TEXTS,
    "config.json": TEXTS,
    "metrics.jsonl": TEXTS,
    "train.npy": BYTES,
    "valid.npy": BYTES,
    "learning_curve.png": ("empty", "folder"),
    "cbow/model.safetensors": BYTES,
    "cbow/training.safetensors": BYTES,
    "cbow/config.json": ("empty", "folder"),
}
CASES = [(name, how) for name, damages in FILES.items() for how in damages]
READ = [case for case in CASES if case[0] in ("model.safetensors", "config.json", "tokenizer.json")]


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    (folder / "song.txt").write_text(TEXT)
    options = [*SMALL.split(), *OFTEN.split()]
    assert rnnfast_command("train", folder / "song.txt", *options, "--save", folder / "run")[0] == 0
    return folder / "run"


def damage(path, how):
    content = path.read_bytes()
    if how in ("missing", "folder"):
        path.unlink()
    if how == "folder":
        path.mkdir()
        (path / "inside").write_bytes(b"")
    changed = {
        "empty": b"",
        "truncated": content[: len(content) // 2],
        "random": random.Random(0).randbytes(len(content)),
        "end": content[:-40] + b"\xff" * 40,
        "other JSON": b'{"format": [1, null], "arguments": {"seed": {}}}',
        "nested": b"[" * 100_000,
    }
    if how in changed:
        path.write_bytes(changed[how])


def assert_one_line_or_done(whole, run, name, how, *arguments):
    shutil.copytree(whole, run)
    damage(run / name, how)
    code, _, err = rnnfast_command(*arguments)
    if code:
        assert code in (1, 2)
        assert err.count("\n") == 1, err
        assert err.startswith("rnnfast: ")
        assert name.rsplit("/", 1)[-1] in err
    return code


@pytest.mark.parametrize(("name", "how"), CASES)
def test_a_run_that_goes_on_names_its_damaged_file(whole, tmp_path, name, how):
    run = tmp_path / "run"
    code = assert_one_line_or_done(whole, run, name, how, "train", "--resume", run)
    assert code or name in ("config.json", "metrics.jsonl", "learning_curve.png", "cbow/config.json")


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("valid.npy", ("evaluate",)),
        ("valid.npy", ("diagnose", "--lags", "3")),
        ("valid.npy", ("train", "--resume")),
        ("train.npy", ("train", "--resume")),
    ],
)
def test_an_id_outside_of_the_vocabulary_is_named_with_what_to_do(whole, tmp_path, name, command):
    run = shutil.copytree(whole, tmp_path / "run")
    ids = np.load(run / name)
    ids[5] = 900
    np.save(run / name, ids)
    code, _, err = rnnfast_command(*command, run)
    assert code == 2
    assert re.fullmatch(
        rf"rnnfast: {re.escape(str(run / name))} is not a whole file of token ids \(it must hold ids from "
        r"0 to \d+, got 900 at 5\); train again with --overwrite\.\n",
        err,
    )


def test_a_file_that_holds_no_ids_is_told_without_advice_on_pickles(whole, tmp_path):
    run = shutil.copytree(whole, tmp_path / "run")
    for content in (b"junk of another program", pickle.dumps([1, 2])):
        (run / "valid.npy").write_bytes(content)
        _, _, err = rnnfast_command("evaluate", run)
        assert "valid.npy is not a whole file of token ids (" in err
        assert err.endswith("; train again with --overwrite.\n")
        assert "pickle" not in err


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no disk that is always full")
@pytest.mark.parametrize(
    "command", [("generate", "--length", "3"), ("predict", "you"), ("evaluate", "--json")]
)
def test_a_full_disk_behind_standard_output_ends_in_one_line(whole, command):
    name, *options = command
    arguments = [sys.executable, "-m", "rnnfast", name, str(whole), *options]
    with open("/dev/full", "w") as full:
        done = subprocess.run(arguments, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, "rnnfast: standard output: No space left on device.\n")


def test_a_full_disk_elsewhere_is_not_called_standard_output(whole, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("rnnfast.cli.models.perplexity", full)
    with pytest.raises(OSError, match="No space left"):
        app(["evaluate", str(whole)])


@pytest.mark.parametrize("command", ["generate", "evaluate"])
@pytest.mark.parametrize(("name", "how"), READ)
def test_what_reads_a_run_names_its_damaged_file(whole, tmp_path, name, how, command):
    run = tmp_path / "run"
    more = ["--prompt", "the", "--length", "3"] if command == "generate" else [whole.parent / "song.txt"]
    assert assert_one_line_or_done(whole, run, name, how, command, run, *more)
