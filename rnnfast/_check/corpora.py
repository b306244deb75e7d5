"""Checks of text and text files: they can be read, have a known encoding, and are not empty."""

from __future__ import annotations

import codecs
import os
from typing import Any

from rnnfast._check.errors import CorpusError


def text(owner: str, name: str, value: Any) -> str:
    """A string."""
    if not isinstance(value, str):
        raise TypeError(f"{owner}: {name} must be str, got {type(value).__name__}.")
    return value


def texts(owner: str, value: Any) -> Any:
    """A string or an iterable of strings; paths are a likely mistake."""
    if isinstance(value, bytes | bytearray) or not hasattr(value, "__iter__"):
        raise TypeError(
            f"{owner}: texts must be a string, strings or a corpus, got {type(value).__name__}; "
            f"read files with read_files(paths)."
        )
    return value


def encoding(owner: str, value: Any) -> str:
    """The name of an encoding of text, in Python's spelling."""
    try:
        codecs.getincrementaldecoder(value)
        "a".encode(value)  # a LookupError for encodings that are not of text, such as hex or zlib
        return codecs.lookup(value).name
    except (LookupError, TypeError, ValueError):
        pass
    raise ValueError(
        f"{owner}: encoding must be a text encoding, such as utf-8, utf-16 or cp1252, got {value!r}."
    )


def corpus_files(owner: str, names: list[str], titles: list[str] | None = None) -> int:
    """Total size of the files in bytes; each must be a regular, readable file."""
    if not names:
        raise CorpusError(f"{owner}: at least one file is needed, got none.")
    total, titles = 0, titles or names
    for name, title in zip(names, titles, strict=True):
        if os.path.isdir(name):
            raise CorpusError(f"{owner}: {title} is a folder; name the text files in it.")
        if not os.path.exists(name):
            raise CorpusError(f"{owner}: {title} does not exist.")
        if not os.path.isfile(name):
            raise CorpusError(
                f"{owner}: {title} must be a regular file, as it is read several times; save its text first."
            )
        try:
            with open(name, "rb"):
                total += os.path.getsize(name)
        except OSError as error:
            raise CorpusError(f"{owner}: {title} cannot be read ({error.strerror}).") from None
    if not total:
        raise CorpusError(f"{owner}: {', '.join(titles)}: no text (0 bytes).")
    return total


def not_text(owner: str, name: str, encoding: str, offset: int, byte: int) -> CorpusError:
    """The error for bytes that an encoding cannot decode."""
    return CorpusError(
        f"{owner}: {name} must be {encoding.upper()} text, but byte {offset} (0x{byte:02X}) is not part of "
        f'any character; name its encoding, for example encoding="cp1252" for a file from Windows.'
    )


def read_once(count: int) -> None:
    """Standard input is named at most once."""
    if count > 1:
        raise CorpusError(f"standard input (-) can be read only once, but is named {count} times.")


def some_tokens(owner: str, name: str, count: int, *, held_out: bool = False) -> None:
    """A text must have at least one token; the held-out part of a short text has none."""
    if not count and held_out:
        raise CorpusError(
            f"{owner}: {name} is empty: the text is too short to hold out a part of it; "
            f"give more text, or a separate validation text."
        )
    if not count:
        raise CorpusError(f"{owner}: {name.removeprefix('the training part of ')} has no words.")


def ids_file(owner: str, name: str, problem: object, fix: str) -> CorpusError:
    """The error for a file that is damaged or does not contain token ids."""
    return CorpusError(f"{owner}: {name} is not a whole file of token ids ({problem}); {fix}.")
