"""Token ids in a memory-mapped file, for corpora larger than memory.

The file is an ordinary `.npy` file of two or four bytes per token: `np.load(path, mmap_mode="r")` reads it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

import numpy as np

from rnnfast import _check
from rnnfast.data.corpus import Corpus
from rnnfast.data.vocabulary import Tokenizer
from rnnfast.files.atomic import write_atomically

_WRITE_TOKENS = 1 << 14
_HEADER_BYTES = 128


def encode_to_memmap(
    tokenizer: Tokenizer, texts: str | Corpus | Iterable[str], path: str | os.PathLike[str]
) -> np.memmap:
    """Write the token ids of a text to a file, piece by piece, and map it into memory.

    The file appears under its name only when it is complete; an older file is then replaced.

    Parameters
    ----------
    tokenizer
        Encodes the text. A vocabulary of up to 65,536 tokens is stored in two bytes per id, a larger one in
        four.
    texts
        A string, strings of whole lines, or a corpus.
    path
        File to write; ends in `.npy` by convention.

    Returns
    -------
    ids
        Read-only memory map of shape (tokens,), uint16 or uint32.

    Raises
    ------
    CorpusError
        The text has no token, or one of its files is not UTF-8.
    OSError
        The file cannot be written.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from rnnfast.data import CharTokenizer
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     ids = encode_to_memmap(CharTokenizer("ab"), "abba", pathlib.Path(folder) / "ids.npy")
    ...     ids.tolist(), ids.dtype
    ([2, 3, 3, 2, 1], dtype('uint16'))
    """
    dtype = np.dtype("<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4")
    count = 0
    with write_atomically(path) as file:
        file.write(_header(dtype, 0))
        waiting: list[np.ndarray] = []
        waiting_tokens = 0
        for ids in tokenizer.encode_pieces(texts):
            waiting.append(ids)
            waiting_tokens += len(ids)
            if waiting_tokens >= _WRITE_TOKENS:
                file.write(np.concatenate(waiting, dtype=dtype, casting="unsafe").tobytes())
                count += waiting_tokens
                waiting, waiting_tokens = [], 0
        if waiting:
            file.write(np.concatenate(waiting, dtype=dtype, casting="unsafe").tobytes())
            count += waiting_tokens
        name, held_out = getattr(texts, "name", "the text"), getattr(texts, "held_out", False)
        _check.training.some_tokens("encode_to_memmap", name, count, held_out=held_out)
        file.seek(0)
        file.write(_header(dtype, count))
    return open_ids(path)


def open_ids(path: str | os.PathLike[str]) -> np.memmap:
    """Map a file of token ids into memory without reading them.

    Parameters
    ----------
    path
        File written by `encode_to_memmap`.

    Returns
    -------
    ids
        Read-only memory map of shape (tokens,), uint16 or uint32.

    Raises
    ------
    CorpusError
        The file is missing, cut short, or not a file of token ids.

    Examples
    --------
    >>> open_ids("missing.npy")
    Traceback (most recent call last):
    rnnfast._check.errors.CorpusError: open_ids: missing.npy does not exist.
    """
    return map_ids("open_ids", path, "encode the text again")


def map_ids(owner: str, path: str | os.PathLike[str], fix: str) -> np.memmap:
    """`open_ids` with the owner and the fix that its errors name."""
    name = os.fspath(path)
    _check.training.corpus_files(owner, [name])
    try:
        ids = np.lib.format.open_memmap(name, mode="r")  # np.load would speak of pickles
    except (ValueError, OSError, EOFError) as error:
        problem = re.split(r"[;\n]", str(error))[0].rstrip(".")  # the rest is advice for other files
        raise _check.training.ids_file(owner, name, problem, fix) from None
    if ids.ndim != 1 or ids.dtype.str not in ("<u2", "<u4"):
        raise _check.training.ids_file(owner, name, "not one row of uint16 or uint32", fix)
    return ids


def _header(dtype: np.dtype, count: int) -> bytes:
    """Header of the `.npy` format 1.0. Its length is fixed, since the count is known only at the end."""
    text = f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': ({count},), }}"
    start = b"\x93NUMPY\x01\x00" + (_HEADER_BYTES - 10).to_bytes(2, "little")
    return start + text.encode("ascii").ljust(_HEADER_BYTES - 11) + b"\n"
