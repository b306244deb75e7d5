"""Checks of forecasts and of the values they are compared with."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnfast._check.arrays import shape_text
from rnnfast._check.observed import nothing_masked


def steps_of_forecasts(owner: str, actual: np.ndarray, forecast: np.ndarray, axes: int) -> None:
    """Actual values (..., h) of at least one step, and forecasts of this shape behind `axes` more axes."""
    if not actual.ndim or not actual.shape[-1]:
        raise ValueError(f"{owner}: actual must have at least one step, got {shape_text(actual.shape)}.")
    if forecast.ndim != actual.ndim + axes or forecast.shape[axes:] != actual.shape:
        wanted = shape_text((*(["k"] * axes), *actual.shape))
        raise ValueError(f"{owner}: forecasts must be {wanted}, got {shape_text(forecast.shape)}.")
    if not forecast.size:
        raise ValueError(f"{owner}: at least one forecast is needed, got none.")


def probabilities(owner: str, name: str, value: Any, expected: tuple[int, ...]) -> np.ndarray:
    """Numbers between 0 and 1, both excluded, which broadcast with the shape `expected`."""
    array = np.asarray(nothing_masked(owner, name, value), np.float64)
    wrong = array[~((array > 0) & (array < 1))]
    if wrong.size:
        raise ValueError(f"{owner}: {name} must lie between 0 and 1, both excluded, got {wrong[0]}.")
    try:
        np.broadcast_shapes(array.shape, expected)
    except ValueError:
        wanted, found = shape_text(expected), shape_text(array.shape)
        raise ValueError(f"{owner}: {name} must broadcast with {wanted}, got {found}.") from None
    return array


def levels(owner: str, value: Any, count: int) -> np.ndarray:
    """`count` levels of quantiles between 0 and 1."""
    array = np.asarray(nothing_masked(owner, "levels", value), np.float64)
    if array.shape != (count,) or not ((array > 0) & (array < 1)).all():
        raise ValueError(f"{owner}: levels must be {count} numbers between 0 and 1, got {value!r:.60}.")
    return array
