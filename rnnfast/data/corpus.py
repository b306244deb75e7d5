"""Text as a stream that can be read many times and never has to fit in memory."""

from __future__ import annotations

import codecs
import io
import os
from collections.abc import Callable, Iterable, Iterator

from rnnfast import _check

_READ_BYTES = 1 << 16
# Longer lines are read in pieces, so that a file without line ends needs no extra memory.
_LONGEST_PIECE = 4096
# The least number of evenly spread held-out blocks (about), and the greatest length of a block.
_BLOCKS = 32
# Longer marks first: the mark of UTF-32 begins with the mark of UTF-16.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_LONGEST_BLOCK = 8192


class Corpus:
    """Text that can be read any number of times, piece by piece.

    Iteration gives strings whose concatenation is the text. A piece is a line with its line end. A line of
    more than 4096 characters is cut into parts, after a space if there is one.

    Parameters
    ----------
    name
        Name of this text in error messages.
    size
        Approximate length of the text in characters or bytes; it determines the lengths of held-out blocks.
    open_pieces
        Function without arguments; each call returns a new iterator over the pieces from the start.
    held_out
        Whether this is the validation part of another text; it is empty if that text is too short.

    Examples
    --------
    >>> corpus = Corpus.from_lines(["you say goodbye", "i say hello"])
    >>> list(corpus)
    ['you say goodbye\\n', 'i say hello\\n']
    """

    def __init__(
        self, name: str, size: int, open_pieces: Callable[[], Iterator[str]], *, held_out: bool = False
    ) -> None:
        self.name = name
        self.size = size
        self.held_out = held_out
        self._open_pieces = open_pieces

    @classmethod
    def from_lines(cls, lines: Iterable[str], name: str = "the text") -> Corpus:
        """A corpus held in memory; lines without a line end get one.

        Examples
        --------
        >>> Corpus.from_lines(["i say hello"]).size
        12
        """
        kept = list(as_pieces(lines))
        return cls(name, sum(map(len, kept)), lambda: iter(kept))

    def __iter__(self) -> Iterator[str]:
        return self._open_pieces()

    def __repr__(self) -> str:
        return f"Corpus({self.name!r}, about {self.size} characters)"

    def split(self, fraction: float = 0.1) -> tuple[Corpus, Corpus]:
        """Training and validation parts: blocks of whole paragraphs are held out at regular intervals.

        The held-out blocks are spread over the whole text, so both parts are alike even if the text changes
        its subject. The same text gives the same parts on every machine and in every run. Blocks end at a
        blank line, or at a line end if paragraphs are very long. Both parts are streams like the whole.

        Parameters
        ----------
        fraction
            Share of the text to hold out, between 0 and 1 (both excluded).

        Returns
        -------
        train, valid
            Two disjoint corpora that together contain every piece.

        Raises
        ------
        ValueError
            `fraction` is not between 0 and 1.

        Examples
        --------
        >>> train, valid = Corpus.from_lines(["one", "two", "three"]).split(0.3)
        >>> list(train), list(valid)
        (['one\\n', 'three\\n'], ['two\\n'])
        """
        fraction = _check.values.fraction("Corpus.split", "fraction", fraction)
        block_size = min(int(self.size * fraction) // _BLOCKS, _LONGEST_BLOCK)
        held_size = int(self.size * fraction)

        def part(held_out: bool) -> Callable[[], Iterator[str]]:
            return lambda: _part(iter(self), fraction, block_size, held_out)

        return (
            Corpus(f"the training part of {self.name}", self.size - held_size, part(False)),
            Corpus(f"the validation part of {self.name}", held_size, part(True), held_out=True),
        )


def as_pieces(texts: str | Corpus | Iterable[str]) -> Iterator[str]:
    """The pieces of a corpus, a string, or an iterable of strings.

    Strings are whole lines: if the last line of a string has no line end, it gets one. A corpus already has
    its line ends.

    Examples
    --------
    >>> list(as_pieces(["i say hello", "you say goodbye"]))
    ['i say hello\\n', 'you say goodbye\\n']
    """
    if isinstance(texts, Corpus):
        yield from texts
        return
    for text in (texts,) if isinstance(texts, str) else _check.training.texts("texts", texts):
        _check.training.text("texts", "each text", text)
        if text:
            yield text if text.endswith("\n") else text + "\n"


def read_files(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    encoding: str = "utf-8",
    titles: Iterable[str] | None = None,
) -> Corpus:
    """One or more text files, one after the other, as a streaming corpus.

    Line ends of all systems become `"\\n"`, a missing one at the end of a file is added, and a byte order
    mark is skipped. Each pass opens the files again and reads 64 KiB at a time.

    Parameters
    ----------
    paths
        One or several paths.
    encoding
        Encoding of all files.
    titles
        Names of the files in errors; their paths by default.

    Returns
    -------
    corpus
        The text of all files in the order given.

    Raises
    ------
    CorpusError
        At once: no path, a file that is missing, unreadable or not a regular file, only empty files, or a
        byte order mark of another encoding. While reading: bytes that cannot be decoded; the message has the
        file and the place.
    ValueError
        The encoding is unknown.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "song.txt"
    ...     _ = path.write_bytes(b"you say goodbye\\r\\ni say hello")
    ...     list(read_files(path))
    ['you say goodbye\\n', 'i say hello\\n']
    """
    listed = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    names = [os.fspath(path) for path in listed]
    called = names if titles is None else list(titles)
    encoding = _check.training.encoding("read_files", encoding)
    size = _check.training.corpus_files("read_files", names, called)
    if encoding == "utf-8":
        for name, title in zip(names, called, strict=True):
            _refuse_marks(name, title)
    title = called[0] if len(names) == 1 else f"{called[0]} and {len(names) - 1} more"

    places = [os.path.abspath(name) for name in names]  # the working directory may change before a later pass

    def pieces() -> Iterator[str]:
        for place, title in zip(places, called, strict=True):
            yield from _file_pieces(place, title, encoding)

    return Corpus(title, size, pieces)


def _refuse_marks(path: str, title: str) -> None:
    """CorpusError for a UTF-8 file that begins with the byte order mark of another encoding."""
    with open(path, "rb") as file:
        start = file.read(4)
    for mark, encoding in _MARKS.items():
        if start.startswith(mark):
            raise _check.CorpusError(
                f"read_files: {title} is {encoding.upper()} text, as its byte order mark "
                f'({mark.hex(" ").upper()}) says; give encoding="{encoding}".'
            )


def _file_pieces(path: str, title: str, encoding: str) -> Iterator[str]:
    """The lines of one file; long lines are cut."""
    waiting = ""
    for text in _decoded(path, title, encoding):
        lines = _lines(waiting + text)
        waiting = lines.pop()
        for line in lines:
            yield from _cut(line)
        *complete, waiting = _cut(waiting)
        yield from complete
    if waiting:
        yield waiting + "\n"


def _lines(text: str) -> list[str]:
    """Lines with their ends, then the text after the last one (`str.splitlines` also splits elsewhere)."""
    *lines, rest = text.split("\n")
    return [line + "\n" for line in lines] + [rest]


def _cut(line: str) -> list[str]:
    """Parts of at most 4096 characters, cut after a space if there is one; the last part may be empty.

    A cut depends only on the characters before it, so an unfinished line has the cuts of the finished one.
    """
    parts = []
    while len(line) > _LONGEST_PIECE:
        end = line.rfind(" ", 0, _LONGEST_PIECE) + 1 or _LONGEST_PIECE
        parts.append(line[:end])
        line = line[end:]
    return [*parts, line]


def _decoded(path: str, title: str, encoding: str) -> Iterator[str]:
    """The text of a file in chunks, strictly decoded, with `"\\n"` for every line end."""
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    position = 0
    with open(path, "rb") as file:
        while True:
            chunk = file.read(_READ_BYTES)
            started = position - len(decoder.getstate()[0])
            try:
                text = decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                at = started + error.start
                raise _check.training.not_text(
                    "read_files", title, encoding, at, error.object[error.start]
                ) from None
            except UnicodeError as error:  # UTF-16 and UTF-32 without a byte order mark
                raise _check.CorpusError(
                    f"read_files: {title} is not {encoding.upper()} text ({error!s}); "
                    f'encoding="{encoding}-le" needs no mark.'
                ) from None
            if started == 0:
                text = text.removeprefix("\ufeff")
            position += len(chunk)
            yield newlines.decode(text, final=not chunk)
            if not chunk:
                return


def _part(pieces: Iterator[str], fraction: float, block_size: int, held_out: bool) -> Iterator[str]:
    """The held-out blocks, or the rest. A block is held out if the share so far is below `fraction`."""
    total = held = 0
    for block in _blocks(pieces, block_size):
        length = sum(map(len, block))
        chosen = held < fraction * total
        total += length
        held += length if chosen else 0
        if chosen == held_out:
            yield from block


def _blocks(pieces: Iterator[str], size: int) -> Iterator[list[str]]:
    """Blocks of pieces; each ends at the first blank line after `size` characters, or after 4 `size`."""
    block: list[str] = []
    length = 0
    for piece in pieces:
        block.append(piece)
        length += len(piece)
        if length >= 4 * size or (length >= size and piece.isspace()):
            yield block
            block, length = [], 0
    if block:
        yield block
