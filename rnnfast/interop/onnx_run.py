"""A run folder as an ONNX file with its tokenizer beside it, for programs without rnnfast."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from rnnfast.data import CharTokenizer, Tokenizer, WordTokenizer
from rnnfast.data.words import STRAIGHT_QUOTES, WORD
from rnnfast.files.atomic import write_atomically
from rnnfast.interop.onnx_export import Exported, to_onnx
from rnnfast.training import load_checkpoint


def export_run(
    folder: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    last: bool = False,
) -> Exported:
    """Write the model of a run folder as an ONNX file, and its tokenizer as JSON beside it.

    Parameters
    ----------
    folder
        Written by `rnnfast train` or `Checkpoint`.
    path
        The ONNX file. The tokenizer of ``model.onnx`` goes to ``model.tokenizer.json``.
    last : bool
        The last good parameters of a run that stopped early, instead of its best model.

    Returns
    -------
    Exported

    Raises
    ------
    CheckpointError
        A file of the folder is missing, damaged or from another run.
    TypeError, ValueError, ModuleNotFoundError, OSError
        As `to_onnx`.

    Examples
    --------
    >>> from rnnfast.interop import export_run
    >>> export_run("runs/first", "model.onnx")                                  # doctest: +SKIP
    """
    model, tokenizer, _ = load_checkpoint(folder, last=last)
    return export_with_tokenizer(model, tokenizer, path)


def export_with_tokenizer(model: Any, tokenizer: Tokenizer | None, path: str | os.PathLike[str]) -> Exported:
    """`to_onnx`, and the tokenizer, if there is one, as JSON at `tokenizer_path`."""
    exported = to_onnx(model, path)
    if tokenizer is not None:
        with write_atomically(tokenizer_path(path)) as file:
            file.write(json.dumps(portable(tokenizer), indent=1, ensure_ascii=False).encode())
    return exported


def tokenizer_path(path: str | os.PathLike[str]) -> Path:
    """The path of the tokenizer of an ONNX file.

    Examples
    --------
    >>> tokenizer_path("model.onnx").name
    'model.tokenizer.json'
    """
    return Path(path).with_suffix(".tokenizer.json")


def portable(tokenizer: Tokenizer) -> dict[str, Any]:
    """All that is needed to turn text into ids, as JSON values.

    Returns
    -------
    dict
        "kind" is "word", "whitespace" or "char". "tokens" are all tokens in the order of ids; "unknown" and
        "line_end" are the ids of the unknown token and of a line end. A text becomes tokens in four steps: it
        is turned to lower case if "lower" is true; it is brought to the Unicode form "normalize" unless that
        is null; matches of regular expressions become other text, for each pair in "replace"; the matches of
        the regular expression "split" are the tokens. "between" stands between tokens in readable text.

    Examples
    --------
    >>> from rnnfast import CharTokenizer
    >>> portable(CharTokenizer("ab"))["tokens"]
    ['<unk>', '\\n', 'a', 'b']
    """
    is_word = isinstance(tokenizer, WordTokenizer)
    is_char = isinstance(tokenizer, CharTokenizer)
    return {
        "kind": tokenizer.kind,
        "tokens": tokenizer.id_to_token,
        "unknown": tokenizer.unk_id,
        "line_end": tokenizer.eos_id,
        "lower": isinstance(tokenizer, WordTokenizer) and tokenizer.lower,
        "normalize": "NFC" if is_word else None,
        "replace": [] if is_char else _words() if is_word else [[r"\n", " <eos> "]],
        "split": r"[\s\S]" if is_char else _pattern() if is_word else r"\S+",
        "between": "" if is_char else " ",
    }


def _words() -> list[list[str]]:
    """Line ends after lines that are not blank, and straight quotes."""
    quotes = [[chr(curly), str(straight)] for curly, straight in STRAIGHT_QUOTES.items()]
    return [[r"^\s+", ""], [r"\s*\n\s*", " <eos> "], *quotes]


def _pattern() -> str:
    """The pattern of words on one line, without spaces and comments."""
    return "(?i)" + re.sub(r"\s|#[^\n]*", "", WORD.pattern)
