"""Word and character tokenizers: text to token ids and back."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.data.corpus import Corpus
from rnnfast.data.vocabulary import Tokenizer, learn_tokens

# Splitting text into words, and joining words into readable text.


# Alternatives are tried in this order. A full stop, hyphen or apostrophe between two word characters belongs
# to the word: if "well-known", "don't" or "example.com" were split, the missing spaces could not be inferred.
WORD = re.compile(
    r"""
      <unk> | <eos>                         # in corpora prepared by others
    | (?: [^\W\d_] \. ){2,} (?!\w)          # U.S.  e.g.
    | \d+ (?: [.,:] \d+ )+                  # 1,000  3.14  10:30
    | \w+ (?: [.'-] \w+ )*                  # words, contractions, compounds
    | ' (?: s|re|ve|ll|d|m|t ) \b (?! ')    # contractions split off beforehand: "john 's"
    | \.{2,} | -{2,} | \*{2,} | ={2,}       # runs that mean one thing
    | \S                                    # any other mark by itself
    """,
    re.VERBOSE | re.IGNORECASE,
)

# Typed prompts have straight quotes and books curly ones; both must give the same word.
STRAIGHT_QUOTES = str.maketrans({"\u2018": "'", "\u2019": "'", "\u02bc": "'", "\u201c": '"', "\u201d": '"'})

_NO_SPACE_BEFORE = frozenset([*".,;:!?)]}%\u2026", "...", "n't"])
_NO_SPACE_AFTER = frozenset("([{$\u00a3\u20ac#")
_NO_SPACE_AROUND = frozenset("/@\u2014")
_QUOTES = frozenset("\"'")


def split_words(line: str) -> list[str]:
    """Words, numbers and punctuation marks of one line, in order.

    Contractions and compounds stay whole, curly quotes become straight ones, and accents are composed
    (NFC), so that one word has one spelling.

    Parameters
    ----------
    line
        Text; white space of any kind separates words.

    Returns
    -------
    words
        List of non-empty strings without white space.

    Examples
    --------
    >>> split_words('"Don\u2019t pay $1,000.50," she said.')
    ['"', "Don't", 'pay', '$', '1,000.50', ',', '"', 'she', 'said', '.']
    """
    if not line.isascii():
        line = unicodedata.normalize("NFC", line).translate(STRAIGHT_QUOTES)
    return WORD.findall(line)


class SplitWords(dict[str, list[str]]):
    """A cache of `split_words` for runs of characters without white space, since most runs recur.

    No word contains white space, so the words of a line are those of its runs.

    Examples
    --------
    >>> SplitWords().of_line("(yes, yes)")
    ['(', 'yes', ',', 'yes', ')']
    """

    _MOST = 50_000  # cached runs, some megabytes

    def __missing__(self, run: str) -> list[str]:
        if len(self) >= self._MOST:
            self.clear()
        words = self[run] = split_words(run)
        return words

    def of_line(self, line: str) -> list[str]:
        """The words of a line."""
        return list(chain.from_iterable(map(self.__getitem__, line.split())))


def join_words(words: Iterable[str]) -> str:
    """One readable line from words: spaces as in English, quotes alternately opening and closing.

    Splitting discards the spaces, so this is a good guess and not an exact inverse.

    Parameters
    ----------
    words
        Words and marks as returned by `split_words`.

    Returns
    -------
    line
        Text without a line end.

    Examples
    --------
    >>> join_words(["He", "said", ":", '"', "It", "'s", "50", "%", "(", "or", "so", ")", ".", '"'])
    'He said: "It\\'s 50% (or so)."'
    """
    parts: list[str] = []
    open_quotes: set[str] = set()
    glued = True
    for word in words:
        closing = word in open_quotes
        suffix = word in _NO_SPACE_BEFORE or (word[0] == "'" and len(word) > 1)
        if not (glued or closing or suffix or word in _NO_SPACE_AROUND):
            parts.append(" ")
        parts.append(word)
        glued = word in _NO_SPACE_AFTER or word in _NO_SPACE_AROUND
        if word in _QUOTES:
            glued = not closing
            open_quotes ^= {word}
    return "".join(parts)


# Text that is already split into words, such as the Penn Treebank and WikiText.


class WhitespaceTokenizer(Tokenizer):
    """What white space separates are the tokens, and each line end is `<eos>`, also that of a blank line.

    For prepared corpora: nothing is split again or turned to lower case, and `<unk>` in the text is the
    unknown token itself, so that perplexities can be compared with published ones. Usually made by `fit`.

    Parameters
    ----------
    tokens
        The vocabulary in the order of ids, without `<unk>` and `<eos>`, which come first.

    Raises
    ------
    ValueError
        A token is empty, appears twice or is a special one.

    Notes
    -----
    Source: the preparation of the Penn Treebank by Mikolov; PyTorch's `word_language_model`;
    *Deep Learning from Scratch 2*, section 2.4.4.

    Examples
    --------
    >>> tokenizer = WhitespaceTokenizer.fit("mr. <unk> is chairman of n.v. N years old\\n")
    >>> tokenizer.encode("mr. <unk> is old\\n")
    array([5, 0, 4, 8, 1])
    >>> tokenizer.decode([5, 0, 4, 8, 1])
    'mr. <unk> is old\\n'
    """

    kind = "whitespace"
    special = ("<unk>", "<eos>")

    @classmethod
    def fit(
        cls, texts: str | Corpus | Iterable[str], min_count: int = 1, max_vocab: int | None = None
    ) -> WhitespaceTokenizer:
        """Learn the vocabulary of a text, reading it once as a stream; see `WordTokenizer.fit`.

        Examples
        --------
        >>> WhitespaceTokenizer.fit("a N a\\n").id_to_token
        ['<unk>', '<eos>', 'a', 'N']
        """
        return cls(learn_tokens(cls(()), texts, min_count, max_vocab))

    def _split(self, pieces: Iterator[str]) -> Iterator[list[str]]:
        for piece in pieces:
            yield piece.replace("\n", " <eos> ").split()

    def decode(self, ids: Iterable[int]) -> str:
        """Text of token ids: a space between tokens, `<eos>` as a line end.

        Examples
        --------
        >>> WhitespaceTokenizer(["a", "N"]).decode([2, 3, 1, 2])
        'a N\\na'
        """
        lines: list[list[str]] = [[]]
        for token in self._tokens_of(ids):
            if token == "<eos>":
                lines.append([])
            else:
                lines[-1].append(token)
        return "\n".join(map(" ".join, lines))

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> WhitespaceTokenizer:
        """The tokenizer that `to_dict` was called on; `ValueError` if the values are not from one.

        Examples
        --------
        >>> WhitespaceTokenizer.from_dict({"kind": "whitespace", "tokens": ["a"]})
        <WhitespaceTokenizer with 3 tokens>
        """
        return cls(
            _check.training.tokenizer_dict("WhitespaceTokenizer.from_dict", saved, (cls.kind,))["tokens"]
        )


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
