"""Checks of tokenizers and vocabularies, alone and against a model."""

from __future__ import annotations

from typing import Any

from rnnfast._check.errors import CorpusError


def tokens_of_vocabulary(owner: str, tokens: list, special: tuple[str, ...], longest: int | None) -> None:
    """Ordinary tokens: distinct strings, none special, none longer than `longest` characters."""
    seen = set(special)
    for token in tokens:
        if not isinstance(token, str) or not token:
            raise ValueError(f"{owner}: tokens must be non-empty strings, got {token!r}.")
        if token in seen:
            raise ValueError(
                f"{owner}: each token must appear once and none be special, got {token!r} again."
            )
        if longest is not None and len(token) > longest:
            raise ValueError(f"{owner}: tokens must have at most {longest} character, got {token!r}.")
        seen.add(token)


def tokenizer_dict(owner: str, value: Any, kinds: tuple[str, ...]) -> dict:
    """A tokenizer as JSON values: a dictionary with a known `kind` and a list `tokens`."""
    if not isinstance(value, dict):
        raise ValueError(f"{owner}: a saved tokenizer is a dictionary, got {type(value).__name__}.")
    if value.get("kind") not in kinds:
        known = " or ".join(repr(kind) for kind in kinds)
        raise ValueError(f"{owner}: kind must be {known}, got {value.get('kind')!r}.")
    if not isinstance(value.get("tokens"), list):
        raise ValueError(f"{owner}: tokens must be a list, got {value.get('tokens')!r:.40}.")
    return value


def same_vocabulary(owner: str, expected: list[str], received: list[str]) -> None:
    """Two vocabularies, as tokens in the order of their ids, must be equal."""
    if expected == received:
        return
    for token_id, pair in enumerate(zip(expected, received, strict=False)):
        if pair[0] != pair[1]:
            difference = f"id {token_id} is {pair[0]!r} in one and {pair[1]!r} in the other"
            break
    else:
        difference = "one has more tokens than the other"
    raise CorpusError(
        f"{owner}: the vocabulary must be the one the model was trained with, {len(expected)} tokens, "
        f"got one of {len(received)}; {difference}. Use the tokenizer saved in the checkpoint."
    )


def same_tokenizer(owner: str, expected: dict, received: dict) -> None:
    """Two tokenizers must split text in the same way (kind, lower case)."""
    if expected != received:
        raise CorpusError(
            f"{owner}: the tokenizer must be the one the model was trained with, {expected}, got {received}."
        )
