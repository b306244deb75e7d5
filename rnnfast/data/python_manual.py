"""The default corpus: the language reference that comes with Python, as plain English sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rnnfast import _check
from rnnfast.data.corpus import Corpus

_BULLET = re.compile(r"^(?:\* |\d+\. |\[\d+\] )\s*")
_EMPHASIS = re.compile(r"(?<![\w*])(\*\*?)(?! )([^*]+?)(?<! )\1(?![\w*])")
_TERM = re.compile(r"^( *)(?!\* |\d+\. |\[)\S.*\n(?=\1 +\S)")
_SPLIT_COMPOUND = re.compile(r"(?<=[a-z]-)\s*\n\s*(?=[a-z])")
_REFERENCE_MARK = re.compile(r"\s\[[\w.]+\](?:_)?(?=[\s.,;:)]|$)")
# End of a sentence: a full stop, an optional bracket or quote, then a capital; not after "e.g." and the like.
_SENTENCE_END = re.compile(r"(?<![ (][a-z]\.[a-z])(?<! vs)(?<!etc)([.!?][)\"']?) +(?=[A-Z(\"_])")
_PROSE_WORD = re.compile(r"\(?[A-Za-z][a-z]*(?:['\u2019-][a-z]+)*[.,;:!?)]*")


def default_corpus() -> Corpus:
    """The Python language reference from the standard library's `pydoc_data.topics`, some 40,000 words.

    Only English prose is kept: grammar, code, tables, headings, markup and line breaks are removed. Text that
    occurs in several topics is taken once, so that no paragraph is in both the training and the validation
    part. Each sentence is one line; a blank line ends each paragraph. The text differs slightly between
    versions of Python.

    Returns
    -------
    corpus
        Held in memory, about 250,000 characters.

    Raises
    ------
    CorpusError
        This Python comes without the topics.

    Examples
    --------
    >>> train, valid = default_corpus().split()
    >>> train.size > 5 * valid.size
    True
    """
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise _check.CorpusError(
            "default_corpus: this Python comes without pydoc_data.topics, the default text; name "
            "text files instead."
        ) from None
    lines: list[str] = []
    seen: set[str] = set()
    for topic in sorted(topics):
        for paragraph in prose_paragraphs(topics[topic]):
            if paragraph not in seen:
                seen.add(paragraph)
                lines += [*_SENTENCE_END.sub(r"\1\n", paragraph).split("\n"), "\n"]
    return Corpus.from_lines(lines, "the Python language reference")


def prose_paragraphs(document: str) -> Iterator[str]:
    """The paragraphs of a documentation page that are English prose, each as one line without markup.

    Parameters
    ----------
    document
        Text in reStructuredText, or its plain-text form from Sphinx.

    Yields
    ------
    paragraph
        At least five words, most of them lower-case English, up to a closing punctuation mark.

    Examples
    --------
    >>> list(prose_paragraphs('Title\\n*****\\n\\nThe *only* one is "pass", a\\nnull operation.\\n\\n  f()'))
    ['The only one is pass, a null operation.']
    """
    for block in re.split(r"\n[ \t]*\n", document):
        # List items often have no blank lines between them.
        for part in re.split(r"\n(?=\s*(?:\* |\d+\. |\[\d+\] ))", block):
            paragraph = _plain(part)
            if _is_prose(paragraph):
                yield paragraph


def _plain(block: str) -> str:
    """One line, without the term it defines and the marks of lists, emphasis, code and footnotes."""
    text = _SPLIT_COMPOUND.sub("", _TERM.sub("", block))
    text = _BULLET.sub("", " ".join(text.split()))
    text = _EMPHASIS.sub(r"\2", text)
    text = _REFERENCE_MARK.sub("", text)
    # Straight quotes and backticks mark code here; the English quotes of this text are curly.
    text = text.replace('"', "").replace("`", "")
    return re.sub(r"(?<=\w)\(\)", "", text)


def _is_prose(text: str) -> bool:
    """Whether a paragraph is English prose: it ends like a sentence, and most of its words are words."""
    words = text.split()
    if len(words) < 5 or not text.rstrip(")'").endswith((".", ":", "!", "?")):
        return False
    if any(mark in text for mark in ("::", ">>>", "+--", "| ", "***", "===", "-[")):
        return False
    return sum(_PROSE_WORD.fullmatch(word) is not None for word in words) >= 0.75 * len(words)
