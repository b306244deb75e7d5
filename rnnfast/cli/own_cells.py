"""Cells as one names them on the command line: a ready one, or `module:name` for one of your own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rnnfast.models.cells import named_cell


def cell_name(owner: str, option: str, text: str) -> str:
    """The name of a ready cell, or `module:name`, whose module is imported, from this folder too."""
    with _this_folder():
        cell = named_cell(owner, text, option)
    return text if ":" in text else cell.name


@contextmanager
def _this_folder() -> Iterator[None]:
    """Find modules of the current folder first, as `python -m rnnfast` does anyway."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
