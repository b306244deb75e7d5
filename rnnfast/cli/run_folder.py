"""Files of a run folder besides the checkpoint: ids of the text, metrics, the learning curve.

* `model.safetensors`, `tokenizer.json`, `config.json`: see `training/checkpoint.py`.
* `train.npy`, `valid.npy`: the encoded text, memory-mapped during training.
* `settings.json`: the arguments of the run, for resuming it.
* `training.safetensors`: the training state, see `training/checkpointing.py`.
* `metrics.jsonl`: one JSON object per line, written during training.
* `learning_curve.png`: perplexity over epochs.
* `cbow/`: the baseline, itself a run folder.
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
from rnnfast.data.ids_file import map_ids
from rnnfast.files.atomic import only_one, remove_leftovers, write_atomically
from rnnfast.files.tensors import parse_object
from rnnfast.models.loading import load_model
from rnnfast.models.weights import FORMAT
from rnnfast.training import checkpoint
from rnnfast.training.checkpointing import read_training

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
    SETTINGS,  # first: a folder without it is not a run
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
    """Progress of training: updates made, the current epoch, epochs finished."""

    step: int
    epoch: int
    finished: int


class RunFolder:
    """A folder for a new run. Until `begin`, an earlier run stays intact and new files are kept apart.

    Parameters
    ----------
    path
        Created if missing; unrelated files in it are not touched.
    overwrite : bool
        Whether an earlier run in it may be replaced.

    Attributes
    ----------
    path, metrics, curve, baseline : Path
        The folder and its files.
    staged : Path
        Folder for files that are prepared before the run begins.

    Raises
    ------
    OSError
        The folder cannot be created or written; `FileExistsError` if it has an earlier run.

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
            raise _check.training.run_in_the_way(self.path, earlier[0])
        self._made = missing_folders(self.path)
        self.path.mkdir(parents=True, exist_ok=True)
        self._clear()
        self.staged = Path(tempfile.mkdtemp(prefix=".rnnfast-", dir=self.path))

    @classmethod
    def resume(cls, path: str | os.PathLike[str]) -> RunFolder:
        """The folder of a run to be continued; remnants of a killed process are removed.

        Raises
        ------
        CheckpointError
            It has no such run.
        OSError
            The folder is missing.
        """
        folder = cls.beside(path)
        checkpoint.run_file(folder.path, SETTINGS)
        folder._clear()
        return folder

    @classmethod
    def beside(cls, path: str | os.PathLike[str]) -> RunFolder:
        """The folder in which another rank has begun or resumed a run; nothing in it is changed."""
        folder = cls.__new__(cls)
        folder._name(path)
        folder._made = []
        return folder

    def _name(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.metrics, self.curve, self.baseline = self.path / METRICS, self.path / CURVE, self.path / BASELINE

    def _clear(self) -> None:
        """Remove remnants of a killed process: temporary and staged files."""
        with self.alone():
            for leftover in self.path.glob(".rnnfast-*"):
                if leftover.is_dir():
                    shutil.rmtree(leftover, ignore_errors=True)
            remove_leftovers(self.path)
            remove_leftovers(self.baseline)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Lock the folder against other processes inside the block; OSError if one already has it."""
        with only_one(self.path) as is_ours:
            if not is_ours:
                raise _check.training.run_under_way(self.path)
            yield

    def begin(self) -> None:
        """Replace the earlier run by the staged files, once everything is ready."""
        for name in (
            TRAIN,
            VALID,
        ):  # first: Windows refuses while a process maps one, and then nothing else is removed
            (self.path / name).unlink(missing_ok=True)
        for folder in (self.path, self.baseline):
            for name in _OURS:
                (folder / name).unlink(missing_ok=True)
        # The settings last: their presence means that every file needed to continue exists.
        for file in sorted(self.staged.iterdir(), key=lambda file: file.name == SETTINGS):
            file.rename(self.path / file.name)
        self.staged.rmdir()

    def write_settings(
        self, arguments: dict[str, Any], text: str, fingerprint: str, *, staged: bool = False
    ) -> None:
        """Save the arguments of the run as JSON values, and the names of its text and tokenizer."""
        value = {"format": FORMAT, "arguments": arguments, "text": text, "tokenizer": fingerprint}
        with write_atomically((self.staged if staged else self.path) / SETTINGS) as file:
            file.write(json.dumps(value, indent=1, sort_keys=True, allow_nan=False).encode())

    def read_settings(self) -> dict[str, Any]:
        """A dict with the "arguments", "text" and "tokenizer" of `write_settings`."""
        value = checkpoint.read_json(self.path / SETTINGS)
        kinds = {"arguments": dict, "text": str, "tokenizer": str}
        if value.get("format") != FORMAT or not all(isinstance(value.get(k), v) for k, v in kinds.items()):
            raise _check.training.malformed(self.path / SETTINGS, "not the settings of a run of this format")
        return value

    def reached(self, *, baseline: bool = False) -> Reached | None:
        """Progress of training the model or the baseline; None before its first file is written.

        Raises
        ------
        CheckpointError, OSError
            The file or the saved model is damaged; or a model exists without the file, which is written
            first and so must have been lost.
        """
        folder = self.baseline if baseline else self.path
        path = folder / TRAINING
        if not path.exists():
            if (folder / checkpoint.MODEL).exists():
                raise _check.CheckpointError(
                    f"{folder} has no {TRAINING} to resume; train again with --save {self.path} --overwrite."
                )
            return None
        saved = read_training(path)
        if saved.has_model:  # it may remain the best, so a damaged one is reported now
            load_model(checkpoint.run_file(folder, checkpoint.MODEL))
        return Reached(saved.step, saved.epoch, len(saved.history))

    def discard(self) -> None:
        """Remove the staged files and the folders created for a run that cannot begin."""
        shutil.rmtree(self.staged, ignore_errors=True)
        with suppress(OSError):  # the folder is no longer empty
            for folder in self._made:
                folder.rmdir()


def _is_ours_or_absent(folder: Path) -> bool:
    """Whether the `config.json` of a folder is missing or written by a run; any other one is kept."""
    path = folder / checkpoint.CONFIG
    try:
        return not path.exists() or checkpoint.read_json(path).get("format") == FORMAT
    except (_check.CheckpointError, OSError):
        return False


def _lines(path: Path, keep: Callable[[dict[str, Any]], bool]) -> list[bytes]:
    """The complete lines that `keep` accepts; a killed process may leave an incomplete one."""
    kept = []
    for line in path.read_bytes().splitlines(keepends=True) if path.exists() else ():
        with suppress(_check.CheckpointError, LookupError, TypeError):
            if line.endswith(b"\n") and keep(parse_object(path, line, "a line")):
                kept.append(line)
    return kept


def missing_folders(path: Path) -> list[Path]:
    """The missing ones among the folder and its parents, innermost first."""
    missing = []
    for folder in (path, *path.parents):
        if folder.exists():
            break
        missing.append(folder)
    return missing


def open_run_ids(path: str | os.PathLike[str], vocab_size: int) -> np.memmap:
    """Map the ids (tokens,) of a run's text; all are read once to check that they are below `vocab_size`.

    Raises
    ------
    CorpusError
        As for `rnnfast.data.open_ids`, or an id is outside the vocabulary.
    """
    owner, fix = "open_run_ids", "train again with --overwrite"
    ids = map_ids(owner, path, fix)
    try:
        _check.arrays.ids_in_vocabulary(owner, "it", ids, vocab_size)
    except IndexError as error:
        problem = str(error).removeprefix(f"{owner}: ").rstrip(".")
        raise _check.training.ids_file(owner, os.fspath(path), problem, fix) from None
    return ids


def dated_folder(parent: str | os.PathLike[str] = "runs", now: datetime | None = None) -> Path:
    """An unused path below `parent`, named after date and time.

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
    """Writes `metrics.jsonl`, each line at once, so that a run can be watched and interrupted.

    Parameters
    ----------
    path
        The file; earlier lines are removed unless `keep` accepts them.
    keep : callable, optional
        Called with each line of an earlier process, a dict; accepted lines are kept.

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
        """Add a line: the event and JSON values. Infinity and NaN, which JSON lacks, become null."""
        line = {"event": event, **{name: checkpoint.finite_or_none(value) for name, value in values.items()}}
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
