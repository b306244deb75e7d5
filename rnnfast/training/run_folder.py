"""What else lies in a run folder beside the checkpoint: ids of the text, metrics, the learning curve.

* `model.safetensors`, `tokenizer.json`, `config.json`: see `checkpoint.py`.
* `train.npy`, `valid.npy`: the encoded text, memory-mapped while it trains.
* `metrics.jsonl`: one JSON object a line, written as training goes.
* `learning_curve.png`: perplexity over epochs.
* `cbow/`: the baseline, a run folder of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from rnnfast import _check
from rnnfast.training import checkpoint

TRAIN, VALID, METRICS, CURVE, BASELINE = (
    "train.npy",
    "valid.npy",
    "metrics.jsonl",
    "learning_curve.png",
    "cbow",
)
_OURS = (
    checkpoint.MODEL,
    checkpoint.LAST,
    checkpoint.TOKENIZER,
    checkpoint.CONFIG,
    TRAIN,
    VALID,
    METRICS,
    CURVE,
)


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
        self.path = Path(path)
        self.metrics, self.curve, self.baseline = self.path / METRICS, self.path / CURVE, self.path / BASELINE
        earlier = [name for name in _OURS if (self.path / name).exists()]
        if earlier and not (overwrite and checkpoint.is_ours_or_absent(self.path)):
            raise _check.run_in_the_way(self.path, earlier[0])
        self._made = _missing_folders(self.path)
        self.path.mkdir(parents=True, exist_ok=True)
        self.staged = Path(tempfile.mkdtemp(prefix=".rnnfast-", dir=self.path))

    def begin(self) -> None:
        """Everything is ready: remove the earlier run, and put the staged files in their places."""
        for folder in (self.baseline, self.path):
            for name in _OURS:
                (folder / name).unlink(missing_ok=True)
        for file in self.staged.iterdir():
            file.rename(self.path / file.name)
        self.staged.rmdir()

    def discard(self) -> None:
        """The run cannot begin: remove what was staged, and the folders that were made for it."""
        shutil.rmtree(self.staged, ignore_errors=True)
        with suppress(OSError):  # something else has come to lie there
            for folder in self._made:
                folder.rmdir()


def _missing_folders(path: Path) -> list[Path]:
    """The folder and its parents, as far as they are not there yet, innermost first."""
    missing = []
    for folder in (path, *path.parents):
        if folder.exists():
            break
        missing.append(folder)
    return missing


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

    Examples
    --------
    >>> path = Path(tempfile.mkdtemp()) / METRICS
    >>> with Metrics(path) as metrics:
    ...     metrics.write("epoch", model="rnn", epoch=1, train_perplexity=float("inf"))
    >>> path.read_text()
    '{"event": "epoch", "model": "rnn", "epoch": 1, "train_perplexity": null}\\n'
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file = open(path, "w", encoding="utf-8", buffering=1)  # noqa: SIM115, closed by __exit__

    def __enter__(self) -> Metrics:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, event: str, **values: Any) -> None:
        """Add a line: what happened, and JSON values. Infinity and NaN are no JSON; they become null."""
        line = {"event": event, **{name: checkpoint.finite_or_none(value) for name, value in values.items()}}
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
