"""Text as a stream that can be read many times and never has to fit in memory."""

from __future__ import annotations

import codecs
import io
import os
from collections.abc import Callable, Iterable, Iterator

from rnnfast import _check

_READ_BYTES = 1 << 16
# Lines longer than this come in pieces, so that a file without line ends needs no more memory than others.
_LONGEST_PIECE = 4096
# Held-out text comes in at least about this many blocks, spread evenly, and in blocks of at most this length.
_BLOCKS = 32
# The longer marks first: that of UTF-32 begins like that of UTF-16.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_LONGEST_BLOCK = 8192


class Corpus:
    """Text that can be read any number of times, piece by piece.

    Iterating gives strings whose concatenation is the text. A piece is a line with its line end, or,
    for lines beyond 4096 characters, a part of a line that ends behind a space where there is one.

    Parameters
    ----------
    name
        What error messages call this text.
    size
        About how long the text is, in characters or bytes; used for the lengths of held-out blocks.
    open_pieces
        Function without arguments; each call returns a new iterator over the pieces from the start.
    held_out
        Whether this is the validation part of another text, which is empty where that is too short.

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
        """A corpus held in memory; a line end is supplied where a line has none.

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
        """Training and validation parts: every so often, a block of whole paragraphs is held out.

        The held-out blocks are spread over the whole text, so both parts are of the same kind even where
        the text changes its subject. The same text gives the same parts, whatever machine or run. Blocks
        end at a blank line, or at a line end where paragraphs are very long. Both parts are streams like
        the whole.

        Parameters
        ----------
        fraction
            Share of the text to hold out, between 0 and 1 (both excluded).

        Returns
        -------
        train, valid
            Two corpora that share no piece and together have every piece.

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
        fraction = _check.fraction("Corpus.split", "fraction", fraction)
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

    Strings stand for whole lines: a line end is supplied where the last line of a string has none. A
    corpus already has its line ends.

    Examples
    --------
    >>> list(as_pieces(["i say hello", "you say goodbye"]))
    ['i say hello\\n', 'you say goodbye\\n']
    """
    if isinstance(texts, Corpus):
        yield from texts
        return
    for text in (texts,) if isinstance(texts, str) else _check.texts("texts", texts):
        _check.text("texts", "each text", text)
        if text:
            yield text if text.endswith("\n") else text + "\n"


def read_files(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    encoding: str = "utf-8",
    titles: Iterable[str] | None = None,
) -> Corpus:
    """One or more text files, one after the other, as a corpus that streams.

    Line ends of all systems become `"\\n"`, one is supplied at the end of a file that lacks it, and a
    byte order mark is skipped. Files are opened anew for each pass, 64 KiB at a time.

    Parameters
    ----------
    paths
        A path or several.
    encoding
        How all of them write characters.
    titles
        What errors call the files; their paths by default.

    Returns
    -------
    corpus
        The text of all files in the order given.

    Raises
    ------
    CorpusError
        Now: no path at all, a file that is missing, not a regular file or not readable, or nothing in any
        of them, or a byte order mark of another encoding. While reading: bytes that are no text, with the
        file and the place.
    ValueError
        There is no such encoding.

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
    encoding = _check.encoding("read_files", encoding)
    size = _check.corpus_files("read_files", names, called)
    if encoding == "utf-8":
        for name, title in zip(names, called, strict=True):
            _refuse_marks(name, title)
    title = called[0] if len(names) == 1 else f"{called[0]} and {len(names) - 1} more"

    places = [os.path.abspath(name) for name in names]  # the working directory may be another at a later pass

    def pieces() -> Iterator[str]:
        for place, title in zip(places, called, strict=True):
            yield from _file_pieces(place, title, encoding)

    return Corpus(title, size, pieces)


def _refuse_marks(path: str, title: str) -> None:
    """A file that begins with the byte order mark of another encoding than UTF-8 is not read as such."""
    with open(path, "rb") as file:
        start = file.read(4)
    for mark, encoding in _MARKS.items():
        if start.startswith(mark):
            raise _check.other_encoding("read_files", title, encoding, mark)


def _file_pieces(path: str, title: str, encoding: str) -> Iterator[str]:
    """The lines of one file, long ones cut."""
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
    """Lines with their ends, then what follows the last line end (`str.splitlines` also splits elsewhere)."""
    *lines, rest = text.split("\n")
    return [line + "\n" for line in lines] + [rest]


def _cut(line: str) -> list[str]:
    """Parts of at most 4096 characters, cut behind a space where there is one; the last may be empty.

    A cut depends only on the characters before it, so an unfinished line is cut as the finished one will be.
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
                raise _check.not_text("read_files", title, encoding, at, error.object[error.start]) from None
            except UnicodeError as error:  # UTF-16 and UTF-32 without a byte order mark
                raise _check.unmarked("read_files", title, encoding, str(error)) from None
            if started == 0:
                text = text.removeprefix("\ufeff")
            position += len(chunk)
            yield newlines.decode(text, final=not chunk)
            if not chunk:
                return


def _part(pieces: Iterator[str], fraction: float, block_size: int, held_out: bool) -> Iterator[str]:
    """The held-out blocks, or the others. A block is held out whenever less than that share has been."""
    total = held = 0
    for block in _blocks(pieces, block_size):
        length = sum(map(len, block))
        chosen = held < fraction * total
        total += length
        held += length if chosen else 0
        if chosen == held_out:
            yield from block


def _blocks(pieces: Iterator[str], size: int) -> Iterator[list[str]]:
    """Runs of pieces that end at the first blank line past `size` characters, or past four times that."""
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
