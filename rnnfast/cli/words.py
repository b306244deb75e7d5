"""Text for the commands that use a trained model: prompts in, streams of words out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import typer

from rnnfast import _check
from rnnfast.cli.errors import BAD_FILES, fail, one_line
from rnnfast.data import CharTokenizer, Tokenizer, WordTokenizer, split_words
from rnnfast.models import CBOWLM, RNNLM
from rnnfast.models.cells import named_cell
from rnnfast.training import load_checkpoint
from rnnfast.training.checkpoint import LAST, MODEL


def load_run(
    folder: Path, cell: str | None = None, *, last: bool = False
) -> tuple[RNNLM | CBOWLM, Tokenizer, dict[str, Any]]:
    """`load_any_run` of a run that has a tokenizer."""
    model, tokenizer, config = load_any_run(folder, cell, last=last)
    if tokenizer is None:
        fail(f"{folder}: this run was saved without a tokenizer, so it cannot read text.")
    return model, tokenizer, config


def load_any_run(folder: Path, cell: str | None = None, *, last: bool = False) -> Any:
    """The model of a run folder, its tokenizer, if it has one, and its `config.json`; a bad folder ends with
    one line.

    `cell` names the user's own cell from the command line; its module has been imported.
    """
    if last and (folder / MODEL).is_file() and not (folder / LAST).exists():
        fail(f"{folder}: this run did not stop early; leave out --last.")
    with one_line(*BAD_FILES):
        try:
            model, tokenizer, config = load_checkpoint(folder, last=last)
        except _check.CellMissing as error:
            if cell is None:
                raise _check.objects.cell_needed(folder, error.name) from None
            raise _check.objects.other_cell(folder, error.name, cell) from None
    if cell is not None:
        saved = model.config.get("cell")
        with one_line(ValueError):
            if not isinstance(saved, dict):
                raise _check.values.no_effect("--cell", "on a run with a ready cell")
            if saved["fingerprint"] != named_cell("rnnfast", cell, "--cell").fingerprint:
                raise _check.objects.other_cell(folder, saved["name"], cell)
    return model, tokenizer, config


def encode_prompt(tokenizer: Tokenizer, text: str) -> np.ndarray:
    """Ids of a prompt; stderr lists unknown words, and a prompt without words ends the command."""
    ids = tokenizer.encode(text)
    if not ids.size:
        fail(f"the prompt has no {'characters' if isinstance(tokenizer, CharTokenizer) else 'words'}.")
    if (ids == tokenizer.unk_id).any():
        words = set(_pieces(tokenizer, text)) - set(tokenizer.special)  # prepared texts contain <unk>
        unknown = sorted(word for word in words if (tokenizer.encode(word) == tokenizer.unk_id).all())
        if unknown:
            typer.echo(f"warning: not in the model's vocabulary: {', '.join(unknown)}", err=True)
    return ids


def _pieces(tokenizer: Tokenizer, text: str) -> Iterable[str]:
    """The words or characters of a text."""
    if isinstance(tokenizer, CharTokenizer):
        return text
    if isinstance(tokenizer, WordTokenizer):
        return split_words(text.lower() if tokenizer.lower else text)
    return text.split()


def stream_text(tokenizer: Tokenizer, prompt: np.ndarray, ids: Iterable[int]) -> Iterator[str]:
    """The prompt, then each new word as it is drawn, with the right spaces between them.

    The space before a word depends only on its line, so only the current line is decoded again.
    """
    line = [int(index) for index in prompt]
    shown = tokenizer.decode(line)
    yield shown
    for index in ids:
        line.append(index)
        text = tokenizer.decode(line)
        yield text[len(shown) :]
        shown = text
        if index == tokenizer.eos_id:
            line, shown = [], ""


def after_a_line_end(tokenizer: Tokenizer, ids: np.ndarray) -> np.ndarray:
    """A prompt after a line end, as words at the beginning of a line occur in training."""
    return np.concatenate([first_words(tokenizer), ids])


def first_words(tokenizer: Tokenizer) -> np.ndarray:
    """The start of generation without a prompt: a line end."""
    return np.array([tokenizer.eos_id], dtype=np.int64)
