"""What one window of a recurrent layer is made of: its threads, its inputs, what its backward needs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rnnfast.layers.rows import Rows


class Team(NamedTuple):
    """How many threads do a window, and whether they share out its units or its sequences."""

    members: int
    by_units: bool


class Lookup(NamedTuple):
    """Inputs that are rows of a table: ids (N, T), the table (V, D) and its gradient."""

    ids: np.ndarray
    words: np.ndarray
    dwords: np.ndarray


class Inputs(NamedTuple):
    """What a window reads: xs (N, T, D), or words (V, D) by ids (N, T); the other has no elements."""

    xs: np.ndarray
    ids: np.ndarray | None
    words: np.ndarray
    dwords: np.ndarray


class Run(NamedTuple):
    """What `backward` needs of the last `forward`."""

    inputs: Inputs
    rows: Rows
    saved: tuple[np.ndarray, ...]
