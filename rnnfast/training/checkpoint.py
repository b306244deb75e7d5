"""A run folder: the trained model, its tokenizer and its settings; each file is complete or absent.

* `model.safetensors`: the model; with validation, the best one.
* `last.safetensors`: the last good parameters, if a run stopped early after a model was saved.
* `tokenizer.json`: the vocabulary. The model's file holds its fingerprint, so a wrong vocabulary is found.
* `training.safetensors`, `settings.json`: only from `rnnfast train`, see `cli/run_folder.py`.
* `config.json`: hyperparameters, epoch and perplexity of the model, and the reason if the run stopped early.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rnnfast import _check
from rnnfast.data.tokenizer import tokenizer_from_dict
from rnnfast.data.vocabulary import Tokenizer
from rnnfast.files.atomic import write_atomically
from rnnfast.files.tensors import parse_object
from rnnfast.models.cbow import CBOWLM
from rnnfast.models.loading import load_with_notes
from rnnfast.models.rnnlm import RNNLM
from rnnfast.models.weights import FORMAT

MODEL, LAST, TOKENIZER, CONFIG = "model.safetensors", "last.safetensors", "tokenizer.json", "config.json"
_JSON_LIMIT = 256 << 20  # bytes; a vocabulary of ten million words stays below


class Run(NamedTuple):
    """The content of a run folder; `tokenizer` is None if the run was saved without one.

    Examples
    --------
    >>> from rnnfast.training import load_checkpoint
    >>> run = load_checkpoint("runs/first")                                     # doctest: +SKIP
    >>> run.model, run.tokenizer, run.config["cell"]                            # doctest: +SKIP
    """

    model: RNNLM | CBOWLM
    tokenizer: Tokenizer | None
    config: dict[str, Any]


class Checkpoint:
    """Saves a run to a folder; give it to `Trainer(checkpoint=...)`.

    Parameters
    ----------
    folder
        Made if it is missing. The first save replaces files of an earlier run.
    tokenizer : Tokenizer, optional
        The tokenizer that made the ids.
    settings : dict, optional
        A description of the run in JSON values; kept in `config.json` under "settings".

    Attributes
    ----------
    folder : Path
    saved : bool
        Whether a model has been saved.

    Raises
    ------
    OSError
        The folder cannot be made or written to; raised at once, not after the first epoch.
    TypeError, ValueError
        `settings` are not JSON values, or NaN or infinity is among them; NumPy numbers are converted.

    Examples
    --------
    >>> folder = tempfile.mkdtemp()
    >>> checkpoint = Checkpoint(folder, settings={"lr": 20.0})
    >>> checkpoint(CBOWLM(7, 4), {"epoch": 1, "valid_perplexity": 6.5})
    >>> load_checkpoint(folder).config["valid_perplexity"]
    6.5
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        tokenizer: Tokenizer | None = None,
        settings: dict[str, Any] | None = None,
    ) -> None:
        self.folder = Path(os.path.abspath(folder))  # the working directory may change before a save
        self.saved = False
        self._tokenizer = tokenizer
        self._settings: dict[str, Any] = _json_values("settings", settings or {})
        self._config: dict[str, Any] = {}
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self.folder):
            pass

    def __call__(self, model: RNNLM | CBOWLM, record: dict[str, Any]) -> None:
        """Save the model of an epoch; a run that stopped early does not replace a model saved before.

        Parameters
        ----------
        model : RNNLM or CBOWLM
        record : dict
            A record of `Trainer`; "epoch", "steps", the perplexities and "stopped" go into `config.json`.

        Raises
        ------
        TypeError
            A value of the record is not JSON; nothing is written. NumPy numbers are converted.
        """
        stopped = record.get("stopped")
        name = LAST if stopped and self.saved else MODEL
        notes: dict[str, Any] = {}
        if self._tokenizer is not None:
            if model.vocab_size != self._tokenizer.vocab_size:
                raise _check.CorpusError(
                    f"Checkpoint: the model has a vocabulary of {model.vocab_size} tokens, got a "
                    f"tokenizer of {self._tokenizer.vocab_size}; use the tokenizer saved in the "
                    "checkpoint."
                )
            notes["tokenizer"] = self._tokenizer.fingerprint()
        config = self._described(model, record, name)
        if not self.saved:
            (self.folder / LAST).unlink(missing_ok=True)
            self.save_tokenizer()
        model.save(self.folder / name, notes=notes)
        self._write_json(CONFIG, config)
        self._config, self.saved = config, True

    def save_tokenizer(self) -> None:
        """Write the tokenizer, if there is one; the first save of a model does so too."""
        if self._tokenizer is not None:
            self._write_json(TOKENIZER, self._tokenizer.to_dict())

    def get_state(self) -> dict[str, Any]:
        """The saves so far as JSON values, for a resumed run."""
        return {"saved": self.saved, "config": self._config}

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to a `get_state`: saves made after it are undone."""
        saved = _check.values.boolean("Checkpoint.set_state", "saved", state["saved"])
        config = _json_values("state", dict(state["config"]))
        if saved:
            self._write_json(CONFIG, config)
            (self.folder / LAST).unlink(missing_ok=True)
        self.saved, self._config = saved, config

    def _described(self, model: RNNLM | CBOWLM, record: dict[str, Any], name: str) -> dict[str, Any]:
        """The content of `config.json` after this save."""
        config = dict(self._config)
        if name == MODEL:
            kept = ("epoch", "steps", "train_perplexity", "valid_perplexity", "learning_rate")
            config = {"format": FORMAT, "model": model.config, "settings": self._settings}
            config.update({key: finite_or_none(record.get(key)) for key in kept})
        config["stopped"] = None
        if record.get("stopped"):
            reason = {"why": record["stopped"], "weights": name, "message": str(record.get("message", ""))}
            reason.update({key: finite_or_none(record.get(key)) for key in ("epoch", "steps")})
            config["stopped"] = reason
        return _json_values("record", config)

    def _write_json(self, name: str, value: dict[str, Any]) -> None:
        with write_atomically(self.folder / name) as file:
            file.write(json.dumps(value, indent=1, allow_nan=False).encode())


def _json_values(name: str, value: dict[str, Any]) -> dict[str, Any]:
    """A copy as JSON values; NumPy numbers become Python numbers."""

    def plain(item: Any) -> Any:
        if isinstance(item, np.generic):
            return item.item()
        raise TypeError(f"Checkpoint: {name} must hold JSON values, got {type(item).__name__} in it.")

    try:
        return json.loads(json.dumps(value, default=plain, allow_nan=False))
    except ValueError as error:
        raise ValueError(f"Checkpoint: {name} must hold JSON values; {error}.") from None


def finite_or_none(value: Any) -> Any:
    """The value for JSON: infinity and NaN become None, a NumPy number a Python number."""
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def load_checkpoint(
    folder: str | os.PathLike[str], *, last: bool = False, rng: np.random.Generator | None = None
) -> Run:
    """Read a run folder.

    Parameters
    ----------
    folder
        Written by `Checkpoint`.
    last : bool
        Read the last good parameters of a run that stopped early, instead of its best model.
    rng : numpy.random.Generator, optional
        Used by dropout in further training.

    Returns
    -------
    Run
        Model, tokenizer and the content of `config.json`.

    Raises
    ------
    CheckpointError
        A file is missing, damaged or from another run, or the program has not defined the model's cell. The
        message names the file.
    OSError
        The folder does not exist, or a file cannot be read.

    Examples
    --------
    >>> from rnnfast.training import load_checkpoint
    >>> model, tokenizer, config = load_checkpoint("runs/first")                # doctest: +SKIP
    >>> model.generate(tokenizer.encode("the value of"), length=20)             # doctest: +SKIP
    """
    path = run_file(folder, LAST if last else MODEL)
    model, notes = load_with_notes(path, rng=rng)
    config = read_json(run_file(folder, CONFIG))
    if config.get("format") != FORMAT or not isinstance(config.get("settings"), dict):
        raise _check.training.malformed(Path(folder) / CONFIG, "not the description of a run of this format")
    if config.get("model") != model.config:
        raise _check.training.malformed(Path(folder) / CONFIG, f"describes another model than {path.name}")
    fingerprint, words = notes.get("tokenizer"), getattr(model, "vocab_size", None)
    return Run(model, None if fingerprint is None else load_tokenizer(folder, words, fingerprint), config)


def load_tokenizer(folder: Any, vocab_size: int | None, fingerprint: Any) -> Tokenizer:
    """The tokenizer of a run folder; CheckpointError unless vocabulary size and fingerprint match."""
    path = run_file(folder, TOKENIZER)
    value = read_json(path)
    try:
        tokenizer = tokenizer_from_dict(value)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _check.training.malformed(path, f"not a tokenizer ({error})") from None
    if vocab_size not in (None, tokenizer.vocab_size):
        raise _check.training.malformed(
            path, f"has {tokenizer.vocab_size} tokens, but the model has a vocabulary of {vocab_size}"
        )
    if tokenizer.fingerprint() != fingerprint:
        raise _check.training.malformed(
            path, "not the tokenizer the model was trained with, some tokens differ"
        )
    return tokenizer


def run_file(folder: Any, name: str) -> Path:
    """The path of a file of a run folder; an error if the file is missing."""
    path = Path(folder) / name
    if path.is_file():
        return path
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"{folder}: there is no such run folder.")
    raise _check.training.malformed(folder, f"not a complete run folder, {name} is missing")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a run folder; CheckpointError if there is none."""
    with open(path, "rb") as file:
        content = file.read(_JSON_LIMIT + 1)
    if len(content) > _JSON_LIMIT:
        raise _check.training.malformed(
            path, f"larger than {_JSON_LIMIT} bytes, which no file of a run folder is"
        )
    return parse_object(path, content, "the file")
