"""Input of the commands: text from files or standard input, and prompts."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rnnfast import _check
from rnnfast.data import Corpus, read_files

STANDARD_INPUT = "-"
TITLE = "standard input"


@contextmanager
def texts(*groups: Sequence[str | Path] | None, encoding: str = "utf-8") -> Iterator[list[Corpus | None]]:
    """A corpus for each group of files, None for an empty group; `-` is standard input.

    A corpus is read several times, so inside the block a temporary file holds standard input.
    """
    _check.training.encoding("read_files", encoding)
    named = [[str(path) for path in group or ()] for group in groups]
    _check.training.read_once(sum(group.count(STANDARD_INPUT) for group in named))
    with tempfile.TemporaryDirectory(prefix="rnnfast-") as folder:
        kept = Path(folder) / "input.txt"
        if any(STANDARD_INPUT in group for group in named):
            with open(kept, "wb") as file:
                shutil.copyfileobj(_stdin(), file)

        def corpus(group: list[str]) -> Corpus | None:
            if not group:
                return None
            paths = [str(kept) if name == STANDARD_INPUT else name for name in group]
            titles = [TITLE if name == STANDARD_INPUT else name for name in group]
            return read_files(paths, encoding, titles)

        yield [corpus(group) for group in named]


def content(path: str) -> bytes:
    """The bytes of a file; `-` is standard input."""
    return _stdin().read() if path == STANDARD_INPUT else Path(path).read_bytes()


def prompt_text(prompt: str) -> str:
    """A prompt; `-` reads it from standard input, without the final line end."""
    if prompt != STANDARD_INPUT:
        return prompt
    content = _stdin().read()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _check.training.not_text("prompt", TITLE, "utf-8", error.start, content[error.start]) from None
    text = text.replace("\r\n", "\n")
    return text.removesuffix("\n")


def _stdin() -> Any:
    """The bytes of standard input."""
    return sys.stdin.buffer
