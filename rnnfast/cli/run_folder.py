"""What else lies in a run folder beside the checkpoint: ids of the text, metrics, the learning curve.

* `model.safetensors`, `tokenizer.json`, `config.json`: see `training/checkpoint.py`.
* `train.npy`, `valid.npy`: the encoded text, memory-mapped while it trains.
* `settings.json`: what the run was told, for resuming it.
* `training.safetensors`: where training stands, see `training/keeper.py`.
* `metrics.jsonl`: one JSON object a line, written as training goes.
* `learning_curve.png`: perplexity over epochs.
* `cbow/`: the baseline, a run folder of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rnnfast import _check
from rnnfast._files import only_one, remove_leftovers, write_atomically
from rnnfast._tensors import parse_object
from rnnfast.data.ids_file import map_ids
from rnnfast.models.loading import load_model
from rnnfast.models.weights import FORMAT
from rnnfast.training import checkpoint
from rnnfast.training.keeper import read_training

TRAIN, VALID, METRICS, CURVE, BASELINE = (
    "train.npy",
    "valid.npy",
    "metrics.jsonl",
    "learning_curve.png",
    "cbow",
)
SETTINGS, TRAINING = "settings.json", "training.safetensors"
# Pictures that `rnnfast diagnose` adds, in its order.
PICTURES = ("gradient_by_lag.png", "truncation_bias.png", "spectral_radius.png", "gate_saturation.png")
_OURS = (
    SETTINGS,  # first: without it a folder is no run to go on with
    TRAINING,
    checkpoint.MODEL,
    checkpoint.LAST,
    checkpoint.TOKENIZER,
    checkpoint.CONFIG,
    TRAIN,
    VALID,
    METRICS,
    CURVE,
    *PICTURES,
)


class Reached(NamedTuple):
    """Where training stands: updates made, the epoch under way, epochs finished."""

    step: int
    epoch: int
    finished: int


class RunFolder:
    """A folder for a new run. Until `begin`, an earlier run in it stays whole and new files lie apart.

    Parameters
    ----------
    path
        Made if it is not there; other files in it are left alone.
    overwrite : bool
        Whether an earlier run in it may be replaced.

    Attributes
    ----------
    path, metrics, curve, baseline : Path
        The folder and what lies in it.
    staged : Path
        Where files are made ready before the run begins.

    Raises
    ------
    OSError
        The folder cannot be made or written to; `FileExistsError` where there is an earlier run in it.

    Examples
    --------
    >>> folder = RunFolder(Path(tempfile.mkdtemp()) / "run")
    >>> folder.metrics.name, folder.path.is_dir()
    ('metrics.jsonl', True)
    >>> folder.discard()
    >>> folder.path.exists()
    False
    """

    def __init__(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        self._name(path)
        earlier = [name for name in _OURS if (self.path / name).exists()]
        if earlier and not (overwrite and _is_ours_or_absent(self.path)):
            raise _check.run_in_the_way(self.path, earlier[0])
        self._made = _missing_folders(self.path)
        self.path.mkdir(parents=True, exist_ok=True)
        self._clear()
        self.staged = Path(tempfile.mkdtemp(prefix=".rnnfast-", dir=self.path))

    @classmethod
    def resume(cls, path: str | os.PathLike[str]) -> RunFolder:
        """The folder of a run that has begun and is to go on; what a killed process left is removed.

        Raises
        ------
        CheckpointError
            There is no such run in it.
        OSError
            The folder is missing.
        """
        folder = cls.__new__(cls)
        folder._name(path)
        checkpoint.run_file(folder.path, SETTINGS)
        folder._made = []
        folder._clear()
        return folder

    def _name(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.metrics, self.curve, self.baseline = self.path / METRICS, self.path / CURVE, self.path / BASELINE

    def _clear(self) -> None:
        """Remove what a process that was killed has left: temporary files, and what it had staged."""
        with self.alone():
            for leftover in self.path.glob(".rnnfast-*"):
                if leftover.is_dir():
                    shutil.rmtree(leftover, ignore_errors=True)
            remove_leftovers(self.path)
            remove_leftovers(self.baseline)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes out of the folder inside the block; OSError if one is there already."""
        with only_one(self.path) as is_ours:
            if not is_ours:
                raise _check.run_under_way(self.path)
            yield

    def begin(self) -> None:
        """Everything is ready: remove the earlier run, and put the staged files in their places."""
        for name in (
            TRAIN,
            VALID,
        ):  # first: Windows refuses while a process maps one, and the rest then stays
            (self.path / name).unlink(missing_ok=True)
        for folder in (self.path, self.baseline):
            for name in _OURS:
                (folder / name).unlink(missing_ok=True)
        # The settings last: once they are there, so is all that is needed to go on.
        for file in sorted(self.staged.iterdir(), key=lambda file: file.name == SETTINGS):
            file.rename(self.path / file.name)
        self.staged.rmdir()

    def write_settings(
        self, arguments: dict[str, Any], text: str, fingerprint: str, *, staged: bool = False
    ) -> None:
        """Write down what the run was told, as JSON values, and the name of its text and tokenizer."""
        value = {"format": FORMAT, "arguments": arguments, "text": text, "tokenizer": fingerprint}
        with write_atomically((self.staged if staged else self.path) / SETTINGS) as file:
            file.write(json.dumps(value, indent=1, sort_keys=True, allow_nan=False).encode())

    def read_settings(self) -> dict[str, Any]:
        """A dict with the "arguments", "text" and "tokenizer" of `write_settings`."""
        value = checkpoint.read_json(self.path / SETTINGS)
        kinds = {"arguments": dict, "text": str, "tokenizer": str}
        if value.get("format") != FORMAT or not all(isinstance(value.get(k), v) for k, v in kinds.items()):
            raise _check.malformed(self.path / SETTINGS, "not the settings of a run of this format")
        return value

    def reached(self, *, baseline: bool = False) -> Reached | None:
        """Where the training of the model or the baseline stands; None before there is a file of it.

        Raises
        ------
        CheckpointError, OSError
            That file is damaged, or the model that was saved before it; or it is lost, since it is written
            before any model is.
        """
        folder = self.baseline if baseline else self.path
        path = folder / TRAINING
        if not path.exists():
            if (folder / checkpoint.MODEL).exists():
                raise _check.lost_training(folder, TRAINING, self.path)
            return None
        saved = read_training(path)
        if saved.has_model:  # the best so far, which may remain the best: said now, not after the last epoch
            load_model(checkpoint.run_file(folder, checkpoint.MODEL))
        return Reached(saved.step, saved.epoch, len(saved.history))

    def discard(self) -> None:
        """The run cannot begin: remove what was staged, and the folders that were made for it."""
        shutil.rmtree(self.staged, ignore_errors=True)
        with suppress(OSError):  # something else has come to lie there
            for folder in self._made:
                folder.rmdir()


def _is_ours_or_absent(folder: Path) -> bool:
    """Whether the `config.json` of a folder was written by a run, or is not there; a stranger's is kept."""
    path = folder / checkpoint.CONFIG
    try:
        return not path.exists() or checkpoint.read_json(path).get("format") == FORMAT
    except (_check.CheckpointError, OSError):
        return False


def _lines(path: Path, keep: Callable[[dict[str, Any]], bool]) -> list[bytes]:
    """The lines that are whole and wanted; what a killed process has written of another is none."""
    kept = []
    for line in path.read_bytes().splitlines(keepends=True) if path.exists() else ():
        with suppress(_check.CheckpointError, LookupError, TypeError):
            if line.endswith(b"\n") and keep(parse_object(path, line, "a line")):
                kept.append(line)
    return kept


def _missing_folders(path: Path) -> list[Path]:
    """The folder and those of its parents that are not there yet, innermost first."""
    missing = []
    for folder in (path, *path.parents):
        if folder.exists():
            break
        missing.append(folder)
    return missing


def open_run_ids(path: str | os.PathLike[str], vocab_size: int) -> np.memmap:
    """Map the ids (tokens,) of a run's text, which are all read once and must be below `vocab_size`.

    Raises
    ------
    CorpusError
        As for `rnnfast.data.open_ids`, or an id has no token.
    """
    owner, fix = "open_run_ids", "train again with --overwrite"
    ids = map_ids(owner, path, fix)
    try:
        _check.ids_in_vocabulary(owner, "it", ids, vocab_size)
    except IndexError as error:
        problem = str(error).removeprefix(f"{owner}: ").rstrip(".")
        raise _check.ids_file(owner, os.fspath(path), problem, fix) from None
    return ids


def dated_folder(parent: str | os.PathLike[str] = "runs", now: datetime | None = None) -> Path:
    """A path below `parent` named after date and time, at which there is nothing yet.

    Examples
    --------
    >>> dated_folder("runs", datetime(2026, 1, 31, 23, 59, 8)).as_posix()
    'runs/2026-01-31_23-59-08'
    """
    name = (datetime.now() if now is None else now).strftime("%Y-%m-%d_%H-%M-%S")
    path, number = Path(parent) / name, 1
    while path.exists():
        number += 1
        path = Path(parent) / f"{name}_{number}"
    return path


class Metrics:
    """Writes `metrics.jsonl`; each line is on the disk at once, so that a run can be watched and cut short.

    Parameters
    ----------
    path
        The file, which is emptied.
    keep : callable, optional
        Called with each line of an earlier process, a dict; those it accepts stay, and new ones follow.

    Attributes
    ----------
    began : bool
        Whether there are earlier lines.

    Examples
    --------
    >>> path = Path(tempfile.mkdtemp()) / METRICS
    >>> with Metrics(path) as metrics:
    ...     metrics.write("epoch", model="rnn", epoch=1, train_perplexity=float("inf"))
    >>> path.read_text()
    '{"event": "epoch", "model": "rnn", "epoch": 1, "train_perplexity": null}\\n'
    """

    def __init__(
        self, path: str | os.PathLike[str], keep: Callable[[dict[str, Any]], bool] | None = None
    ) -> None:
        kept = [] if keep is None else _lines(Path(path), keep)
        self.began = bool(kept)
        if kept:
            with write_atomically(path) as file:
                file.writelines(kept)
        mode = "a" if kept else "w"
        self._file = open(path, mode, encoding="utf-8", buffering=1)  # noqa: SIM115, closed by __exit__

    def __enter__(self) -> Metrics:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, event: str, **values: Any) -> None:
        """Add a line: what happened, and JSON values. Infinity and NaN are no JSON; they become null."""
        line = {"event": event, **{name: checkpoint.finite_or_none(value) for name, value in values.items()}}
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
