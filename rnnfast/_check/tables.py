"""Checks of files with series: their lines, fields and columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rnnfast._check.errors import CorpusError


def bad_line(owner: str, path: Any, line: int, problem: str) -> CorpusError:
    """The error for a line of a file that cannot be used."""
    return CorpusError(f"{owner}: {path}, line {line}: {problem}.")


def bad_file(owner: str, path: Any, problem: str) -> CorpusError:
    """The error for a file that cannot be used as a whole."""
    return CorpusError(f"{owner}: {path}: {problem}.")


def file_column(owner: str, path: Any, column: str, option: str, columns: Sequence[str]) -> CorpusError:
    """The error for a file without a column; an option names another one."""
    shown = ", ".join(columns[:8])
    return CorpusError(f"{owner}: {path} has no column {column}, but {shown}; name it with {option}.")
