"""Checks of training and validation data: token ids, sequences with targets, and their windows."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from rnnfast._check.arrays import as_array, shape_text
from rnnfast._check.errors import CorpusError
from rnnfast._check.token_ids import ids


def text_or_pair(data: Any) -> Any:
    """A list of arrays as a tuple; a tuple is a pair of sequences and targets, anything else is a text."""
    is_list = isinstance(data, list) and data and all(isinstance(part, np.ndarray) for part in data)
    return tuple(data) if is_list else data


def parts_of_sequences(owner: str, data: Any) -> tuple[Any, Any, Any, Any]:
    """Inputs, targets, lengths and weights of a pair or of `Sequences`."""
    if len(data) not in (2, 4):
        raise ValueError(f"{owner}: sequences and targets must be a pair of arrays, got {len(data)}.")
    return (*data, None, None)[:4]


def list_of_arrays(owner: str, name: str, arrays: Any) -> list[np.ndarray]:
    """At least one array (T_i, ...), all with the same dtype and the same size behind the first axis."""
    if not len(arrays):
        raise ValueError(f"{owner}: {name} must have at least one sequence, got an empty list.")
    arrays = [as_array(owner, f"{name}[{index}]", array) for index, array in enumerate(arrays)]
    for index, array in enumerate(arrays):
        if array.ndim != arrays[0].ndim or not array.ndim or array.shape[1:] != arrays[0].shape[1:]:
            wanted = shape_text(("T", *arrays[0].shape[1:]))
            raise ValueError(f"{owner}: {name}[{index}] must be {wanted}, got {shape_text(array.shape)}.")
        if array.dtype != arrays[0].dtype:
            raise TypeError(
                f"{owner}: {name}[{index}] must be {arrays[0].dtype} like the first, got {array.dtype}."
            )
    return arrays


def equal_lengths(owner: str, name: str, found: np.ndarray, lengths: np.ndarray) -> None:
    """Targets or weights of each step have as many steps as their sequence."""
    wrong = np.flatnonzero(found != lengths) if found.shape == lengths.shape else np.arange(1)
    if wrong.size:
        at = wrong[0]
        raise ValueError(
            f"{owner}: {name}[{at}] must have {lengths[at]} steps like its sequence, got {found[at]}."
        )


def sequences_and_targets(owner: str, data: Any) -> tuple[Any, Any]:
    """A pair of arrays (S, T, D), and (S, T, O) or (S, O)."""
    shapes = []
    for name, array in zip(("xs", "ts"), data, strict=True):
        shapes.append(array.shape if hasattr(array, "lengths") else as_array(owner, name, array).shape)
    fits = len(shapes[0]) == 3 and len(shapes[1]) in (2, 3)
    if fits and 0 in shapes[0][:2]:
        raise ValueError(f"{owner}: at least one step is needed, got xs {shape_text(shapes[0])}.")
    if fits and shapes[1][:-1] == shapes[0][: len(shapes[1]) - 1]:
        return data
    raise ValueError(
        f"{owner}: sequences and targets must be (S, T, D) and (S, T, O), or (S, O) for the last step, "
        f"got {' and '.join(map(shape_text, shapes))}."
    )


def kind_of_data(owner: str, name: str, data: Any, model: Any, *, wants_pair: bool) -> None:
    """A text for a language model, sequences with targets for a regression."""
    if isinstance(data, tuple) != wants_pair:
        wanted = "a pair of arrays (sequences, targets)" if wants_pair else "token ids (tokens,)"
        got = f"a tuple of {len(data)}" if isinstance(data, tuple) else f"one {type(data).__name__}"
        raise TypeError(f"{owner}: {name} must be {wanted} for {type(model).__name__}, got {got}.")


def validation_kind(owner: str, is_pair: bool, trains_on_pair: bool) -> None:
    """Validation data are of the same kind as training data."""
    kinds = ("a text", "sequences with targets")
    if is_pair != trains_on_pair:
        raise TypeError(f"{owner}: valid must be {kinds[trains_on_pair]} like ids, got {kinds[is_pair]}.")


def axes_of_targets(owner: str, ts: Any, axes: int) -> None:
    """Targets of sequences (S, O), or of every step (S, T, O)."""
    if len(ts.shape) != axes:
        wanted = "(S, O), one for each sequence" if axes == 2 else "(S, T, O), one for each step"
        raise ValueError(f"{owner}: ts must be {wanted}, got {shape_text(ts.shape)}.")


def order(owner: str, value: Any, count: int) -> np.ndarray:
    """The numbers of `count` sequences, each exactly once."""
    array = ids(owner, "order", value, (count,), count)
    if np.bincount(array, minlength=count).max(initial=0) > 1:
        raise ValueError(f"{owner}: order must name each sequence once.")
    return array


def _windows_take(owner: str, bptt: Any, argument: str, meaning: str) -> None:
    """The `windows` method of a user's own BPTT takes this argument."""
    if argument not in inspect.signature(bptt.windows).parameters:
        raise TypeError(f"{owner}: {type(bptt).__name__}.windows must take {argument}=, {meaning}.")


def reads_in_any_order(owner: str, bptt: Any) -> None:
    """The BPTT can read sequences in a given order."""
    meaning = "the sequence numbers in reading order; or train with Trainer(shuffle=False)"
    _windows_take(owner, bptt, "order", meaning)


def can_go_on(owner: str, bptt: Any) -> None:
    """The BPTT can begin a pass over the data in the middle."""
    _windows_take(owner, bptt, "passed", "the number of windows of the pass already read")


def tokens_enough(owner: str, ids: np.ndarray, batch_size: int, time_size: int) -> None:
    """Each row of a batch must fill at least one window, and each input token needs a next token."""
    needed = batch_size * time_size + 1
    if len(ids) < needed:
        if batch_size == 1:
            fix = "give more text"
        else:
            fix = "give more text, or make the batch or the window smaller"
        raise CorpusError(
            f"{owner}: the text is too short for batch size {batch_size} and window {time_size}: "
            f"{needed} tokens are needed, got {len(ids)}; {fix}."
        )


def run_tokens(owner: str, name: str, tokens: int, batch_size: int, bptt: int) -> None:
    """A text of a run has enough tokens; a text that is only scored has `batch_size` and `bptt` 1."""
    needed = batch_size * bptt + 1
    if tokens < needed == 2:
        raise CorpusError(f"{owner}: {name} must have at least 2 tokens, got {tokens}; give more text.")
    if tokens < needed:
        raise CorpusError(
            f"{owner}: {name} is too short: batch_size {batch_size} and bptt {bptt} need {needed} tokens, "
            f"got {tokens}; lower one of them, or give more text."
        )


def data_not_finite(epoch: int, step: int, name: str, place: tuple[int, ...], value: Any) -> str:
    """The error for data with a NaN or an infinite number."""
    where = f"sequence {place[0]}" + (f" at step {place[1]}" if len(place) == 3 else "")
    return (
        f"training stopped in epoch {epoch} at step {step}: the {name} are not finite: {value:g} in {where}; "
        f"the parameters of the last good step are kept. Leave such sequences out, or fill the gaps."
    )
