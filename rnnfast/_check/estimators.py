"""Checks of what estimators are given."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnfast._check.arrays import first_place, shape_text
from rnnfast._check.observed import floats_of_objects, unmasked


def sequence(owner: str, index: int | None, value: Any) -> np.ndarray:
    """A sequence (T,) or (T, D) of a list, or without an index an array, in float32 or float64."""
    name = "X" if index is None else f"X[{index}]"
    try:
        array = np.asarray(unmasked(value))
    except ValueError:  # rows of unequal lengths
        array = np.zeros((0, 0, 0))
    if index is not None and array.ndim not in (1, 2):
        raise ValueError(f"{owner}: {name} must be numbers (T, D) or (T,), got {type(value).__name__}.")
    if array.dtype == np.float32:
        return array
    if array.dtype.kind not in "cmMV":
        try:
            return (
                floats_of_objects(array) if array.dtype.kind == "O" else array.astype(np.float64, copy=False)
            )
        except (TypeError, ValueError):
            pass
    raise not_a_number(owner, name, array) or ValueError(f"{owner}: {name} must hold numbers.")


def not_a_number(owner: str, name: str, values: Any) -> ValueError | None:
    """The error for the first text, date or the like among numbers, of an array or a frame; or None."""
    kind = getattr(values, "dtype", None)
    if getattr(kind, "kind", None) in ("m", "M"):
        return ValueError(f"{owner}: {name} must hold numbers, got {kind}; encode dates as numbers.")
    array = np.asarray(values, object)
    for place in np.ndindex(array.shape):
        try:
            float(np.nan if array[place] is None else array[place])
        except (TypeError, ValueError):
            one, at = array[place], [str(axis) for axis in place]
            if hasattr(one, "__len__") and not isinstance(one, str):  # an array in an array
                return None
            if len(place) == 2 and hasattr(values, "columns"):
                at[1] = repr(values.columns[place[1]])
            axes = ("row", "column") if len(at) < 3 else ("sequence", "step", "channel")
            if name.endswith("]"):  # one sequence of a list
                axes = ("step", "channel")
            where = ", ".join(map(" ".join, zip(axes, at, strict=False)))
            way = "" if name == "y" else ", and a missing value as NaN"
            return ValueError(
                f"{owner}: {name} must hold numbers, got {one!r:.40} at {where}; encode texts and dates as "
                f"numbers{way}."
            )
    return None


def sequence_shape(owner: str, index: int, shape: tuple[int, ...], channels: int) -> None:
    """A sequence of at least one step with as many channels as the first."""
    if len(shape) != 2 or shape[1] != channels or not channels:
        wanted = channels or "D"
        raise ValueError(f"{owner}: X[{index}] must be (T, {wanted}) like X[0], got {shape_text(shape)}.")
    if not shape[0]:
        raise ValueError(f"{owner}: X[{index}] has no steps; leave empty sequences out.")


def infinite_value(owner: str, got: str, row: int, step: int) -> ValueError:
    """The error for an input that is infinite or too large."""
    return ValueError(
        f"{owner}: X holds {got} in sequence {row} at step {step}; NaN stands for values not observed."
    )


def sample_weights(owner: str, weights: np.ndarray, count: int) -> np.ndarray:
    """Weights (N,) of the sequences, at least 0, and one above 0."""
    if weights.shape != (count,):
        raise ValueError(f"{owner}: sample_weight must be ({count},), got {shape_text(weights.shape)}.")
    wrong = ~(np.isfinite(weights) & (weights >= 0))
    if wrong.any():
        place = first_place(wrong)
        raise ValueError(
            f"{owner}: sample_weight must be finite and at least 0, got {weights[place]} at {place[0]}."
        )
    return weights


def some_weight(owner: str, weights: np.ndarray) -> None:
    """A weight above 0."""
    if not weights.any():
        raise ValueError(f"{owner}: all sample weights are zero; at least one must be above zero.")


def known_classes(owner: str, is_known: np.ndarray, labels: np.ndarray, classes: np.ndarray) -> None:
    """Labels that are among the classes."""
    if not is_known.all():
        label = labels[~is_known][0].item() if labels.dtype != object else labels[~is_known][0]
        raise ValueError(f"{owner}: y holds {label!r}, a class that is not in classes {list(classes)!r:.80}.")


def steps_of_labels(owner: str, lengths: np.ndarray, found: np.ndarray | None) -> np.ndarray:
    """The steps (N,) of labels of each sequence; None if they are no sequences."""
    if found is None or found.shape != lengths.shape:
        got = "single labels" if found is None else f"{len(found)} sequences"
        raise ValueError(f"{owner}: y must be {len(lengths)} sequences of labels (T_i,), got {got}.")
    return found
