"""What one window of a recurrent layer is made of: its threads, its inputs, what its backward needs."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from rnnfast.layers.rows import Rows


@functools.cache
def nothing(dtype: np.dtype, axes: int) -> np.ndarray:
    """An array without elements, in place of one that a cell does not have."""
    return np.zeros((0,) * axes, dtype)


class Team(NamedTuple):
    """How many threads do a window, and whether they share out its units or its sequences."""

    members: int
    by_units: bool


class Lookup(NamedTuple):
    """Inputs that are rows of a table: ids (N, T), the table (V, D) and its gradient."""

    ids: np.ndarray
    words: np.ndarray
    dwords: np.ndarray


class Place(NamedTuple):
    """Which part of a sequence a window is: its first step, and the steps of the whole."""

    first: int
    steps: int


class Inputs(NamedTuple):
    """What a window reads: xs (N, T, D), or words (V, D) by ids (N, T); the other has no elements."""

    xs: np.ndarray
    ids: np.ndarray | None
    words: np.ndarray
    dwords: np.ndarray


class Run(NamedTuple):
    """What `backward` needs of the last `forward`: blocks of the time grid from `intact` on are on the
    tape."""

    inputs: Inputs
    given: np.ndarray | None
    rows: Rows
    saved: tuple[np.ndarray | None, ...]
    intact: int
