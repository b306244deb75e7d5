"""Checks, before training begins, that data fits the model."""

from __future__ import annotations

from typing import Any

from rnnfast import _check


def checked_data(owner: str, name: str, data: Any, model: Any) -> Any:
    """A text (tokens,), or a pair of sequences (S, T, D) and targets, that `model` can learn from.

    A list of two arrays becomes a pair. A user's own model may declare no checks; then any data passes. The
    ids of a text are not checked.
    """
    data = _check.text_or_pair(data)
    fits = getattr(model, "check_sequences", None)
    is_pair = isinstance(data, tuple)
    if fits is not None or hasattr(model, "vocab_size"):
        _check.kind_of_data(owner, name, data, model, wants_pair=fits is not None)
    place = owner if name == "ids" else f"{owner}: {name}"
    if is_pair and fits is not None and len(data) == 2:
        fits(place, *data)
    elif is_pair:
        _check.sequences_and_targets(place, data)
    return data


def check_validation(owner: str, data: Any, model: Any, trains_on_pair: bool) -> None:
    """Check that validation and training data are of one kind, and that the model can be validated."""
    is_pair = isinstance(data, tuple)
    _check.validation_kind(owner, is_pair, trains_on_pair)
    if is_pair:
        _check.offers(f"{owner}: valid", "the model", model, ("evaluate",), "SequenceRegressor")
        return
    needs = ("get_state", "set_state", "reset_state", "losses")
    _check.offers(f"{owner}: valid", "the model", model, needs, "RNNLM")
    ids = _check.ids_1d(owner, "valid", data)
    _check.tokens_enough(f"{owner}: valid", ids, 1, 1)
    check_vocabulary(owner, "valid", ids, model)


def check_vocabulary(owner: str, name: str, ids: Any, model: Any) -> None:
    """Check that every id of a text (tokens,) is in the model's vocabulary, if the model has a size of it."""
    words = getattr(model, "vocab_size", None)
    if words is not None:
        _check.ids_in_vocabulary(owner, name, ids, words)


def loss_of_first_window(model: Any, batches: Any) -> float:
    """The loss without dropout, so that no random numbers are drawn; the state is fresh before and after."""
    model.train_flg = False
    try:
        model.reset_state()
        return float(model.forward(*batches[0]))
    finally:
        model.reset_state()
        model.train_flg = True
