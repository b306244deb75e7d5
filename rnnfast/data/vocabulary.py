"""Base of all tokenizers: tokens and their ids, and learning a vocabulary from a text.

Id 0 is the unknown token, id 1 the end of a line. The tokens of the text follow, most frequent first.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import repeat
from typing import Any, ClassVar

import numpy as np

from rnnfast import _check
from rnnfast.data.corpus import Corpus, as_pieces

# Beyond this number of distinct tokens, counting drops the rarest ones to bound memory. Only texts of about
# half a gigabyte get there, and the dropped tokens are noise: numbers, addresses.
_MOST_COUNTED = 4_000_000


_BLOCK = 1 << 13  # characters processed at a time


class Tokenizer(ABC):
    """Base class of tokenizers: the vocabulary, its comparison and its JSON form.

    Attributes
    ----------
    id_to_token
        List of all tokens; the index is the id.
    token_to_id
        Dictionary, the inverse of `id_to_token`.
    unk_id, eos_id
        Ids of the unknown token (0) and of the end of a line (1).

    Examples
    --------
    >>> import rnnfast
    >>> tokenizer = rnnfast.WordTokenizer.fit("you say goodbye and i say hello .")
    >>> isinstance(tokenizer, rnnfast.data.Tokenizer), tokenizer.id_to_token[:3]
    (True, ['<unk>', '<eos>', 'say'])
    """

    kind: ClassVar[str]
    special: ClassVar[tuple[str, str]]
    unk_id: ClassVar[int] = 0
    eos_id: ClassVar[int] = 1
    _longest_token: ClassVar[int | None] = None

    def __init__(self, tokens: Iterable[str]) -> None:
        ordinary = list(tokens)
        _check.training.tokens_of_vocabulary(type(self).__name__, ordinary, self.special, self._longest_token)
        self.id_to_token: list[str] = [*self.special, *ordinary]
        self.token_to_id: dict[str, int] = {token: index for index, token in enumerate(self.id_to_token)}

    @property
    def vocab_size(self) -> int:
        """Number of tokens, including the two special ones."""
        return len(self.id_to_token)

    def encode(self, text: str) -> np.ndarray:
        """Token ids of a text, int64 of shape (tokens,). No line end is added: a prompt stays open."""
        _check.training.text(f"{type(self).__name__}.encode", "text", text)
        parts = list(self._encoded(iter((text,))))
        return parts[0] if parts else np.empty(0, dtype=np.int64)

    def encode_pieces(self, texts: str | Corpus | Iterable[str]) -> Iterator[np.ndarray]:
        """Token ids of a long text, int64 (tokens,) for some lines at a time; strings are whole lines."""
        return self._encoded(_blocks_of_lines(as_pieces(texts)))

    def _encoded(self, pieces: Iterator[str]) -> Iterator[np.ndarray]:
        find = self.token_to_id.get
        for tokens in self._split(pieces):
            yield np.array(list(map(find, tokens, repeat(self.unk_id))), dtype=np.int64)

    def _tokens_of(self, ids: Iterable[int]) -> list[str]:
        """Tokens of ids, all checked to be in the vocabulary (in Python, index -1 is the last token)."""
        found = []
        for index in ids:
            if not 0 <= index < self.vocab_size:
                raise _check.arrays.token_id(f"{type(self).__name__}.decode", int(index), self.vocab_size)
            found.append(self.id_to_token[index])
        return found

    @abstractmethod
    def _split(self, pieces: Iterator[str]) -> Iterator[Iterable[str]]:
        """Tokens of each piece of a text."""

    @abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """Text of token ids."""

    def to_dict(self) -> dict[str, Any]:
        """The tokenizer as JSON values, for `from_dict` of the class or `tokenizer_from_dict`."""
        return {"kind": self.kind, "tokens": self.id_to_token[len(self.special) :]}

    def fingerprint(self) -> str:
        """Hexadecimal SHA-256 of the JSON form; equal for equal tokenizers only."""
        text = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(text.encode("ascii")).hexdigest()

    def check_same(self, other: Tokenizer, owner: str = "tokenizer") -> None:
        """Raise `CorpusError`, which names the difference, unless `other` gives the same ids."""
        _check.training.same_vocabulary(owner, self.id_to_token, other.id_to_token)
        _check.training.same_tokenizer(owner, self._options(), other._options())

    def _options(self) -> dict[str, Any]:
        return {name: value for name, value in self.to_dict().items() if name != "tokens"}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tokenizer):
            return NotImplemented
        return self._options() == other._options() and self.id_to_token == other.id_to_token

    def __hash__(self) -> int:
        return hash((self.kind, tuple(self.id_to_token)))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} with {self.vocab_size} tokens>"


def learn_tokens(
    empty: Tokenizer, texts: str | Corpus | Iterable[str], min_count: int, max_vocab: int | None
) -> list[str]:
    """The tokens of the vocabulary in order of decreasing frequency, then of text."""
    owner = f"{type(empty).__name__}.fit"
    min_count = _check.values.size(owner, "min_count", min_count)
    if max_vocab is not None:
        max_vocab = _check.values.size(owner, "max_vocab", max_vocab, len(empty.special) + 1)
    counts = _count(empty._split(_blocks_of_lines(as_pieces(texts))))
    for token in empty.special:
        counts.pop(token, None)
    _check.training.some_tokens(owner, getattr(texts, "name", "the text"), len(counts))
    kept = [(-count, token) for token, count in counts.items() if count >= min_count]
    if not len(kept):
        raise _check.CorpusError(
            f"{owner}: no token occurs {min_count} times; lower min_count, or give more text."
        )
    kept.sort()
    return [token for _, token in kept[: None if max_vocab is None else max_vocab - len(empty.special)]]


def _blocks_of_lines(pieces: Iterator[str]) -> Iterator[str]:
    """Pieces of a text with short lines joined into blocks, since each piece has a fixed cost.

    A piece that ends within a line also ends its block, so that a word cut there stays cut.
    """
    block: list[str] = []
    length = 0
    for piece in pieces:
        block.append(piece)
        length += len(piece)
        if length >= _BLOCK or not piece.endswith("\n"):
            yield "".join(block)
            block, length = [], 0
    if block:
        yield "".join(block)


def _count(token_lists: Iterator[Iterable[str]]) -> Counter[str]:
    """The count of each token."""
    counts: Counter[str] = Counter()
    forget = 1
    for tokens in token_lists:
        counts.update(tokens)
        while len(counts) > _MOST_COUNTED:
            counts = Counter({token: count for token, count in counts.items() if count > forget})
            forget += 1
    return counts
