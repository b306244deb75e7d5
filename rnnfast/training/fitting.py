"""Checks, before training begins, that data fits the model."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.data.batching import WindowBatches, epoch_order
from rnnfast.data.sequences import Batch, Sequences, checked
from rnnfast.models.model import total_loss
from rnnfast.training.processes import BatchBlocks


def prepared(
    owner: str, model: Any, bptt: Any, ids: Any, valid: Any, batch_size: int
) -> tuple[Any, Any, Any]:
    """Checked training and validation data, and the windows of the training data."""
    ids = checked_data(owner, "ids", ids, model)
    batches, of_sequences = bptt.batches(ids, batch_size), isinstance(ids, tuple)
    if not of_sequences:
        check_vocabulary(owner, "ids", ids, model)
    if valid is not None:
        valid = checked_data(owner, "valid", valid, model)
        check_validation(owner, valid, model, of_sequences)
    return ids, valid, batches


def largest_batch(data: Any, batch_size: int) -> int:
    """Rows of the largest batch of a text, or of sequences, which may be fewer than `batch_size`."""
    return min(int(batch_size), len(data[0])) if isinstance(data, tuple) else int(batch_size)


def checked_data(owner: str, name: str, data: Any, model: Any) -> Any:
    """A text (tokens,), or sequences with targets, that `model` can learn from.

    A list of two arrays becomes a pair. A pair stays a pair, for a user's own BPTT; with lists, lengths or
    weights it becomes `Sequences`. A user's own model may declare no checks; then any data passes. The ids of
    a text are not checked.
    """
    data = _check.training.text_or_pair(data)
    fits = getattr(model, "check_sequences", None)
    is_pair = isinstance(data, tuple)
    if fits is not None or hasattr(model, "vocab_size"):
        _check.training.kind_of_data(owner, name, data, model, wants_pair=fits is not None)
    place = owner if name == "ids" else f"{owner}: {name}"
    if not is_pair:
        return data
    found = (
        checked(place, data)
        if fits is None
        else fits(place, *_check.training.parts_of_sequences(place, data))
    )
    is_pair = found is None or all(part is None for part in found[2:])
    return data if is_pair else found


def check_validation(owner: str, data: Any, model: Any, trains_on_pair: bool) -> None:
    """Check that validation and training data are of one kind, and that the model can be validated."""
    is_pair = isinstance(data, tuple)
    _check.training.validation_kind(owner, is_pair, trains_on_pair)
    if is_pair:
        _check.objects.offers(f"{owner}: valid", "the model", model, ("evaluate",), "SequenceRegressor")
        return
    needs = ("get_state", "set_state", "reset_state", "losses")
    _check.objects.offers(f"{owner}: valid", "the model", model, needs, "RNNLM")
    ids = _check.arrays.ids_1d(owner, "valid", data)
    _check.training.tokens_enough(f"{owner}: valid", ids, 1, 1)
    check_vocabulary(owner, "valid", ids, model)


def check_vocabulary(owner: str, name: str, ids: Any, model: Any) -> None:
    """Check that every id of a text (tokens,) is in the model's vocabulary, if the model has a size of it."""
    words = getattr(model, "vocab_size", None)
    if words is not None:
        _check.arrays.ids_in_vocabulary(owner, name, ids, words)


def loss_of_first_window(
    model: Any, bptt: Any, data: Any, batch_size: int, blocks: BatchBlocks | None = None
) -> float:
    """The loss without dropout, so that no random numbers are drawn; the state is fresh before and after."""
    options: dict[str, Any] = {} if blocks is None else {"blocks": blocks}
    batches = bptt.batches(data, batch_size, **options)
    model.train_flg = False
    try:
        model.reset_state()
        if blocks is not None and isinstance(batches, WindowBatches):
            cut = blocks.cut(int(batch_size))
            window = Batch(*batches.of_rows(cut.among)[0], blocks=cut.blocks)
        else:
            window = Batch(*batches[0])
        return float(model.forward(window.xs, window.ts, **window.options()))
    finally:
        model.reset_state()
        model.train_flg = True


def validated(model: Any, valid: Any, batch_size: int) -> float:
    """The perplexity on a text, or the mean loss on sequences."""
    if not isinstance(valid, tuple):
        return perplexity(model, valid)
    xs, ts, *others = valid
    return model.evaluate(
        xs, ts, batch_size=batch_size, **dict(zip(("lengths", "weights"), others, strict=False))
    )


def reading_order(seed: int, epoch: int, data: Any, batch_size: int) -> np.ndarray:
    """The order of the sequences in an epoch; with lengths, similar ones come together."""
    lengths = data.lengths if isinstance(data, Sequences) else None
    return epoch_order(seed, epoch, len(data[0]), lengths, int(batch_size))


# The perplexity of a model on a text.


# More words at a time take memory and gain no speed.
_MOST_AT_A_TIME = 8192


def perplexity(model: Any, ids: np.ndarray, batch_size: int = 10, window: int = 35) -> float:
    """`exp` of the mean loss over a text; every word except the first is scored exactly once.

    The text is one stream from a fresh state: each word is predicted from all words before it. Cutting the
    text into rows would give every row its own fresh state, and dropping an incomplete batch would leave
    words out; either would make the value depend on settings that are not part of the model. Therefore
    `batch_size` and `window` only set how many words (their product) are computed at a time, and the value
    is the same for all of them, bit for bit. Reading one row costs little: the output layer takes most of
    the time, and it sees `batch_size * window` rows at once.

    Parameters
    ----------
    model : RNNLM or CBOWLM
        Its carried state is unchanged; dropout is off.
    ids : ndarray of int, (tokens,)
        The text, at least two words; a memory map is read piece by piece.
    batch_size, window : int
        Their product is the number of words computed at a time.

    Returns
    -------
    float
        1 for a model that predicts every word, the vocabulary's size for uniform predictions; inf if `exp`
        of the mean loss overflows, NaN if the mean loss is NaN.

    Raises
    ------
    CorpusError
        Fewer than two words.
    IndexError
        An id is not in the vocabulary.

    Examples
    --------
    >>> from rnnfast.models import RNNLM
    >>> model = RNNLM(7, 8, 8, rng=np.random.default_rng(0))
    >>> ids = np.arange(100) % 7
    >>> perplexity(model, ids) == perplexity(model, ids, batch_size=1, window=3)
    True
    """
    ids = _check.arrays.ids_1d("perplexity", "ids", ids)
    chunk = _check.values.size("perplexity", "batch_size", batch_size) * _check.values.size(
        "perplexity", "window", window
    )
    _check.training.tokens_enough("perplexity", ids, 1, 1)
    return exp_of_mean(total_loss(model, ids, min(chunk, _MOST_AT_A_TIME)), len(ids) - 1)


def exp_of_mean(total: float, count: int) -> float:
    """`exp(total / count)`; infinity on overflow."""
    try:
        return math.exp(total / count)
    except OverflowError:
        return math.inf
