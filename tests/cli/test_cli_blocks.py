"""--blocks: saved with a run, kept by --resume, and 1 for runs that began without it."""

import json
import shutil

import numpy as np
import pytest
from cli_helpers import assert_one_line, rnnfast_command
from kill_and_resume import OFTEN, SMALL, TEXT, outcome

from rnnfast.forecast import RNNForecaster


def train(*arguments):
    code, out, err = rnnfast_command("train", *arguments)
    assert (code, err) == (0, ""), (out, err)


def saved(folder):
    """The saved options of a run."""
    return json.loads((folder / "settings.json").read_text())["arguments"]


def forget_blocks(folder):
    """Make the run one of a time without blocks."""
    told = json.loads((folder / "settings.json").read_text())
    del told["arguments"]["blocks"]
    (folder / "settings.json").write_text(json.dumps(told))


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "song.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture(scope="module")
def runs(text, tmp_path_factory):
    """A finished run for each number of blocks."""
    place, found = tmp_path_factory.mktemp("runs"), {}
    for blocks in (1, 4):
        found[blocks] = place / str(blocks)
        options = (*SMALL.split(), *OFTEN.split(), "--batch-size", 10, "--blocks", blocks)
        train(text, *options, "--save", found[blocks])
    return found


TINY = ("--epochs", 1, "--no-baseline", "--bptt", 2, "--nhid", 4, "--emsize", 4)


def test_the_number_of_blocks_follows_from_the_batch_size_and_is_saved(text, runs, tmp_path):
    for batch_size, blocks in ((9, 1), (10, 2), (20, 4)):
        folder = tmp_path / str(batch_size)
        train(text, *TINY, "--batch-size", batch_size, "--save", folder)
        assert saved(folder)["blocks"] == blocks
        assert json.loads((folder / "config.json").read_text())["settings"]["blocks"] == blocks
    assert saved(runs[4])["blocks"] == 4


def test_runs_of_different_blocks_differ(runs):
    models = [(folder / "model.safetensors").read_bytes() for folder in runs.values()]
    assert models[0] != models[1]


def test_a_run_keeps_its_blocks(runs, tmp_path):
    for blocks, other in ((1, 4), (4, 2)):
        folder = shutil.copytree(runs[blocks], tmp_path / str(blocks))
        words = f"--blocks was {blocks} when the run in {folder} began, and is {other} now"
        assert_one_line(("train", "--resume", folder, "--blocks", other), words)
        train("--resume", folder, "--blocks", blocks)
        assert outcome(folder) == outcome(runs[blocks])


def test_a_run_that_began_without_blocks_has_one(runs, tmp_path):
    folder, whole = (shutil.copytree(runs[1], tmp_path / name) for name in ("old", "whole"))
    forget_blocks(folder)
    for place in (folder, whole):
        train("--resume", place, "--epochs", 7)
    assert outcome(folder) == outcome(whole)
    assert saved(folder)["blocks"] == 1
    other = shutil.copytree(runs[1], tmp_path / "other")
    forget_blocks(other)
    assert_one_line(("train", "--resume", other, "--blocks", 2), "--blocks was 1")


@pytest.mark.parametrize(
    ("number", "words"), [("3", "--blocks must be a power of two"), ("0", "--blocks must be at least 1")]
)
@pytest.mark.parametrize("command", ["train", "forecast"])
def test_other_numbers_are_refused(command, number, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_one_line((command, "--blocks", number), words)
    assert list(tmp_path.iterdir()) == []


def test_forecasts_have_the_blocks_that_were_given(tmp_path):
    file, folder = tmp_path / "waves.csv", tmp_path / "out"
    values = np.round(10 + np.sin(np.arange(200) / 3), 3)
    file.write_text("\n".join(["ds,y", *(f"{place},{value}" for place, value in enumerate(values))]) + "\n")
    options = ("--h", 3, "--hidden-size", 4, "--max-epochs", 2, "--windows", 0, "--no-plot", "--level", 80)
    code, _, err = rnnfast_command("forecast", file, *options, "--blocks", 4, "--out", folder)
    assert (code, err) == (0, "")
    assert saved(folder)["blocks"] == 4
    assert RNNForecaster.load(folder / "model.safetensors").blocks == 4
    assert_one_line(("forecast", "--resume", folder, "--blocks", 2), "--blocks was 4", "is 2 now")
    assert rnnfast_command("forecast", "--resume", folder)[0] == 0
    forget_blocks(folder)
    code, _, err = rnnfast_command("forecast", "--resume", folder)
    assert (code, err.count("\n")) == (2, 1)
    assert "blocks is 1 and not 4" in err  # of the training that was saved
