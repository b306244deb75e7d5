"""Splitting text into words, and joining words into readable text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from itertools import chain

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
