"""Text that is already split into words, such as the Penn Treebank and WikiText."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from rnnfast import _check
from rnnfast.data.corpus import Corpus
from rnnfast.data.vocabulary import Tokenizer, learn_tokens


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
