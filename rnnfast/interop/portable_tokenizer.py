"""A tokenizer as JSON that a program without rnnfast can follow."""

from __future__ import annotations

import re
from typing import Any

from rnnfast.data import CharTokenizer, Tokenizer, WordTokenizer
from rnnfast.data.words import STRAIGHT_QUOTES, WORD


def portable(tokenizer: Tokenizer) -> dict[str, Any]:
    """All that is needed to turn text into ids, as JSON values.

    Returns
    -------
    dict
        "kind" is "word", "whitespace" or "char". "tokens" are all tokens in the order of ids; "unknown" and
        "line_end" are the ids of the unknown token and of a line end. A text becomes tokens in four steps: it
        is turned to lower case if "lower" is true; it is brought to the Unicode form "normalize" unless that
        is null; matches of regular expressions become other text, for each pair in "replace"; the matches of
        the regular expression "split" are the tokens. "between" stands between tokens in readable text.

    Examples
    --------
    >>> from rnnfast import CharTokenizer
    >>> portable(CharTokenizer("ab"))["tokens"]
    ['<unk>', '\\n', 'a', 'b']
    """
    is_word = isinstance(tokenizer, WordTokenizer)
    is_char = isinstance(tokenizer, CharTokenizer)
    return {
        "kind": tokenizer.kind,
        "tokens": tokenizer.id_to_token,
        "unknown": tokenizer.unk_id,
        "line_end": tokenizer.eos_id,
        "lower": isinstance(tokenizer, WordTokenizer) and tokenizer.lower,
        "normalize": "NFC" if is_word else None,
        "replace": [] if is_char else _words() if is_word else [[r"\n", " <eos> "]],
        "split": r"[\s\S]" if is_char else _pattern() if is_word else r"\S+",
        "between": "" if is_char else " ",
    }


def _words() -> list[list[str]]:
    """Line ends after lines that are not blank, and straight quotes."""
    quotes = [[chr(curly), str(straight)] for curly, straight in STRAIGHT_QUOTES.items()]
    return [[r"^\s+", ""], [r"\s*\n\s*", " <eos> "], *quotes]


def _pattern() -> str:
    """The pattern of words on one line, without spaces and comments."""
    return "(?i)" + re.sub(r"\s|#[^\n]*", "", WORD.pattern)
