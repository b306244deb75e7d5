"""A run folder as an ONNX file with its tokenizer beside it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from rnnfast.data import Tokenizer
from rnnfast.files.atomic import write_atomically
from rnnfast.interop.onnx_export import Exported, to_onnx
from rnnfast.interop.portable_tokenizer import portable
from rnnfast.training import load_checkpoint


def export_run(
    folder: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    last: bool = False,
    verbose: bool = True,
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
    verbose : bool
        Print the largest difference.

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
    return export_with_tokenizer(model, tokenizer, path, verbose)


def export_with_tokenizer(
    model: Any, tokenizer: Tokenizer | None, path: str | os.PathLike[str], verbose: bool = True
) -> Exported:
    """`to_onnx`, and the tokenizer, if there is one, as JSON at `tokenizer_path`."""
    exported = to_onnx(model, path, verbose=verbose)
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
