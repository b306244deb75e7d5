"""Names of cells on the command line: a built-in cell, or `module:name` of a user's own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rnnfast.models.cells import named_cell


def cell_name(owner: str, option: str, text: str) -> str:
    """The name of a built-in cell, or `module:name`; its module is imported, also from this folder."""
    with _this_folder():
        cell = named_cell(owner, text, option)
    return text if ":" in text else cell.name


@contextmanager
def _this_folder() -> Iterator[None]:
    """Search the current folder first for modules, as `python -m rnnfast` already does."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
