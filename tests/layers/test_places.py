"""Files while a run lasts: another working directory, a text that is cut short, a text that is in use."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import takes_minutes_interpreted

from rnnfast import RNNLM, ExactBPTT, SequenceRegressor, Trainer, TruncatedBPTT, perplexity
from rnnfast.cli.run_folder import SETTINGS, TRAIN, RunFolder
from rnnfast.data import CharTokenizer, CorpusError, WindowBatches, encode_to_memmap, read_files
from rnnfast.optim import SGD
from rnnfast.training import Checkpoint
from rnnfast.training.checkpointing import read_training

POSIX = pytest.mark.skipif(os.name == "nt", reason="Windows cuts no file that is mapped")
IDS = np.arange(401) % 5


def model(seed=0):
    return RNNLM(5, 4, 4, rng=np.random.default_rng(seed))


def test_relative_paths_mean_the_folder_they_were_given_in(tmp_path, monkeypatch):
    started, other = tmp_path / "started", tmp_path / "other"
    started.mkdir()
    other.mkdir()
    monkeypatch.chdir(started)
    Path("text").write_text("a b\n")
    corpus = read_files("text")
    trainer = Trainer(
        model(),
        SGD(lr=0.1),
        TruncatedBPTT(50),
        callback=lambda progress: os.chdir(other),
        checkpoint=Checkpoint("run"),
    )
    trainer.fit(IDS, epochs=1, batch_size=2, checkpoint_file="training", checkpoint_every=0)
    assert Path.cwd() == other
    assert list(corpus) == ["a b\n"]
    assert list(other.iterdir()) == []
    assert read_training(started / "training").step == 4
    assert (started / "run" / "model.safetensors").is_file()


TRUNCATED = """
import os, sys
import numpy as np
from rnnfast import RNNLM, Trainer, TruncatedBPTT
from rnnfast.data import CorpusError
from rnnfast.optim import SGD

ids = np.load(sys.argv[1], mmap_mode="r")
cut = lambda progress: os.truncate(sys.argv[1], 5000)
trainer = Trainer(RNNLM(5, 4, 4), SGD(lr=0.1), TruncatedBPTT(50), callback=cut)
try:
    trainer.fit(ids, epochs=1, batch_size=2)
except CorpusError as error:
    print(error)
"""


@POSIX
def test_a_text_that_is_cut_short_while_it_trains_is_an_error_and_no_crash(tmp_path):
    path = tmp_path / "ids.npy"
    encode_to_memmap(CharTokenizer("abc"), "abcab" * 20_000, path)
    size = path.stat().st_size
    done = subprocess.run([sys.executable, "-c", TRUNCATED, path], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"truncated while in use: {size} bytes were mapped, 5000 are left" in done.stdout


@takes_minutes_interpreted
@POSIX
def test_every_reader_of_a_mapped_file_sees_that_it_was_cut_short(tmp_path):
    def mapped(name, array):
        np.save(tmp_path / name, array)
        return np.load(tmp_path / name, mmap_mode="r")

    rng = np.random.default_rng(0)
    ids = mapped("ids.npy", np.tile(IDS, 50).astype(np.uint16))
    xs = mapped("xs.npy", rng.standard_normal((2, 600, 3)).astype(np.float32))
    ts = mapped("ts.npy", rng.standard_normal((2, 600, 1)).astype(np.float32))
    sequences, ready = SequenceRegressor(3, 4, 1, rng=rng), np.array(xs)
    windows = WindowBatches(ids[3:], 2, 10)
    readers = [
        lambda: windows[0],
        lambda: perplexity(model(), ids),
        lambda: sequences.evaluate(xs, ts),
        lambda: ExactBPTT(chunk=256).gradients(sequences, xs, ts),
        lambda: next(TruncatedBPTT(20).windows(sequences, (xs, ts), 2)),
        lambda: Trainer(model(), SGD()).fit(ids, epochs=1, batch_size=2),
        lambda: Trainer(sequences, SGD()).fit((xs, ts), epochs=1, batch_size=2),
        lambda: Trainer(sequences, SGD(), ExactBPTT()).fit((xs, ts), epochs=1, batch_size=2),
        lambda: Trainer(sequences, SGD()).fit((ready, ts[:, 0]), epochs=1, batch_size=2),
    ]
    for read in readers:
        read()
    for name in ("ids.npy", "xs.npy", "ts.npy"):
        os.truncate(tmp_path / name, 4000)
    for read in readers:
        with pytest.raises(CorpusError, match="the memory-mapped file was truncated while in use"):
            read()


def test_a_run_whose_text_another_process_holds_is_left_whole(tmp_path, monkeypatch):
    run = tmp_path / "run"
    run.mkdir()
    names = (SETTINGS, TRAIN, "model.safetensors", "training.safetensors")
    for name in names:
        (run / name).write_bytes(b"earlier")
    folder = RunFolder(run, overwrite=True)
    (folder.staged / TRAIN).write_bytes(b"later")
    unlink = Path.unlink

    def refused(path, **options):
        if path.name == TRAIN:
            raise PermissionError(13, "in use", str(path))
        unlink(path, **options)

    monkeypatch.setattr(Path, "unlink", refused)
    with pytest.raises(PermissionError):
        folder.begin()
    assert all((run / name).read_bytes() == b"earlier" for name in names)
