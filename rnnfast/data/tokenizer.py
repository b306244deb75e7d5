"""Word and character tokenizers: text to token ids and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.data.corpus import Corpus
from rnnfast.data.prepared import WhitespaceTokenizer
from rnnfast.data.vocabulary import Tokenizer, learn_tokens
from rnnfast.data.words import SplitWords, join_words


class WordTokenizer(Tokenizer):
    """Tokenizer of words, numbers and punctuation marks; `<eos>` ends each line that is not blank.

    Contractions and compounds stay whole (`don't`, `well-known`); see `split_words`. `fit` makes one from a
    text.

    Parameters
    ----------
    tokens
        The vocabulary in the order of ids, without `<unk>` and `<eos>`, which come first.
    lower
        Whether text is converted to lower case before it is split.

    Raises
    ------
    ValueError
        A token is empty, appears twice or is a special one.

    Examples
    --------
    >>> tokenizer = WordTokenizer.fit("you say goodbye and i say hello .")
    >>> tokenizer.encode("you say what")
    array([8, 2, 0])
    >>> tokenizer.decode([8, 2, 5, 3, 1])
    'you say goodbye.\\n'
    """

    kind = "word"
    special = ("<unk>", "<eos>")

    def __init__(self, tokens: Iterable[str], *, lower: bool = False) -> None:
        super().__init__(tokens)
        self.lower = bool(lower)

    @classmethod
    def fit(
        cls,
        texts: str | Corpus | Iterable[str],
        min_count: int = 1,
        max_vocab: int | None = None,
        *,
        lower: bool = False,
    ) -> WordTokenizer:
        """Learn the vocabulary of a text, reading it once as a stream.

        Parameters
        ----------
        texts
            A string, strings of whole lines (an open file, say), or a corpus.
        min_count
            Rarer words become `<unk>`. With 1, a model never sees `<unk>` in training.
        max_vocab
            Largest `vocab_size`, including special tokens; the most frequent words are kept.
        lower
            Whether to convert text to lower case first.

        Returns
        -------
        tokenizer
            Ids in order of decreasing frequency; equally frequent words in order of their code points.

        Raises
        ------
        CorpusError
            The text has no words, or none is frequent enough.

        Examples
        --------
        >>> WordTokenizer.fit(["I say yes", "You say no"], min_count=2, lower=True).id_to_token
        ['<unk>', '<eos>', 'say']
        """
        empty = cls((), lower=lower)
        return cls(learn_tokens(empty, texts, min_count, max_vocab), lower=lower)

    def _split(self, pieces: Iterator[str]) -> Iterator[list[str]]:
        words_of = SplitWords().of_line
        in_line = False  # a line may span several pieces
        for piece in pieces:
            first, *others = (piece.lower() if self.lower else piece).split("\n")
            tokens = words_of(first)
            in_line = in_line or bool(tokens)
            for line in others:
                if in_line:
                    tokens.append("<eos>")
                words = words_of(line)
                tokens += words
                in_line = bool(words)
            yield tokens

    def decode(self, ids: Iterable[int]) -> str:
        """Readable text of token ids, with the spaces of English and `<eos>` as line end; see `join_words`.

        Examples
        --------
        >>> tokenizer = WordTokenizer(["well", ",", "don't", "!"])
        >>> tokenizer.decode([2, 3, 4, 5])
        "well, don't!"
        """
        lines: list[list[str]] = [[]]
        for token in self._tokens_of(ids):
            if token == "<eos>":
                lines.append([])
            else:
                lines[-1].append(token)
        return "\n".join(map(join_words, lines))

    def to_dict(self) -> dict[str, Any]:
        """The tokenizer as JSON values.

        Examples
        --------
        >>> WordTokenizer(["say"], lower=True).to_dict()
        {'kind': 'word', 'tokens': ['say'], 'lower': True}
        """
        return {**super().to_dict(), "lower": self.lower}

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> WordTokenizer:
        """The tokenizer that `to_dict` was called on; `ValueError` if the values are not from one.

        Examples
        --------
        >>> WordTokenizer.from_dict({"kind": "word", "tokens": ["say"], "lower": False})
        <WordTokenizer with 3 tokens>
        """
        saved = _check.training.tokenizer_dict("WordTokenizer.from_dict", saved, (cls.kind,))
        return cls(saved["tokens"], lower=saved.get("lower", False))


class CharTokenizer(Tokenizer):
    """Tokenizer of characters, including white space and line ends; case is kept.

    There is no `<eos>`: `eos_id` is the id of `"\\n"`. Blank lines are kept. Decoding restores the exact
    text, with U+FFFD for unknown characters. `fit` makes one from a text.

    Parameters
    ----------
    tokens
        The characters in the order of ids, without `"\\n"`.

    Raises
    ------
    ValueError
        A token is not one character, appears twice or is a special one.

    Examples
    --------
    >>> tokenizer = CharTokenizer.fit("hello")
    >>> tokenizer.encode("hello\\n")
    array([4, 3, 2, 2, 5, 1])
    >>> tokenizer.decode([4, 3, 2, 2, 5, 1])
    'hello\\n'
    """

    kind = "char"
    special = ("<unk>", "\n")
    _longest_token = 1

    @classmethod
    def fit(
        cls, texts: str | Corpus | Iterable[str], min_count: int = 1, max_vocab: int | None = None
    ) -> CharTokenizer:
        """Learn the characters of a text, reading it once as a stream; see `WordTokenizer.fit`.

        Examples
        --------
        >>> CharTokenizer.fit("hello").id_to_token
        ['<unk>', '\\n', 'l', 'e', 'h', 'o']
        """
        return cls(learn_tokens(cls(()), texts, min_count, max_vocab))

    def _split(self, pieces: Iterator[str]) -> Iterator[str]:
        return pieces

    def _encoded(self, pieces: Iterator[str]) -> Iterator[np.ndarray]:
        """Ids from a table indexed by code points, which avoids a dictionary lookup per character."""
        codes = np.array(list(map(ord, self.id_to_token[1:])))
        table = np.full(codes.max() + 2, self.unk_id, dtype=np.int64)  # last entry: all larger codes
        table[codes] = np.arange(1, self.vocab_size)
        for piece in pieces:
            points = np.frombuffer(piece.encode("utf-32-le", "surrogatepass"), dtype="<u4")
            yield table[np.minimum(points, len(table) - 1)]

    def decode(self, ids: Iterable[int]) -> str:
        """The characters of token ids, U+FFFD for the unknown one.

        Examples
        --------
        >>> CharTokenizer("ab").decode([2, 3, 3])
        'abb'
        """
        return "".join("\ufffd" if token == "<unk>" else token for token in self._tokens_of(ids))

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> CharTokenizer:
        """The tokenizer that `to_dict` was called on; `ValueError` if the values are not from one.

        Examples
        --------
        >>> CharTokenizer.from_dict({"kind": "char", "tokens": ["a"]})
        <CharTokenizer with 3 tokens>
        """
        return cls(_check.training.tokenizer_dict("CharTokenizer.from_dict", saved, (cls.kind,))["tokens"])


def tokenizer_from_dict(saved: dict[str, Any]) -> WordTokenizer | WhitespaceTokenizer | CharTokenizer:
    """The tokenizer of any class whose `to_dict` returned these JSON values.

    Raises
    ------
    ValueError
        The values are not those of a tokenizer.

    Examples
    --------
    >>> tokenizer_from_dict({"kind": "char", "tokens": ["a"]})
    <CharTokenizer with 3 tokens>
    """
    saved = _check.training.tokenizer_dict("tokenizer_from_dict", saved, tuple(_KINDS))
    return _KINDS[saved["kind"]].from_dict(saved)


_KINDS: dict[str, type[WordTokenizer] | type[WhitespaceTokenizer] | type[CharTokenizer]] = {
    kind.kind: kind for kind in (WordTokenizer, WhitespaceTokenizer, CharTokenizer)
}
