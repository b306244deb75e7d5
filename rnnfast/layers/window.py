"""The parts of one window of a recurrent layer: threads, inputs, and the cache for backward."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from rnnfast.layers.blocks import Blocks, Groups
from rnnfast.layers.rows import Rows, Sorted, falling_order


@functools.cache
def nothing(dtype: np.dtype, axes: int) -> np.ndarray:
    """An empty array, in place of an array that a cell does not have."""
    return np.zeros((0,) * axes, dtype)


class Team(NamedTuple):
    """The number of threads for a window, and whether they split its units or its sequences."""

    members: int
    by_units: bool


class Lookup(NamedTuple):
    """Inputs that are rows of a table: ids (N, T), the table (V, D) and its gradient."""

    ids: np.ndarray
    words: np.ndarray
    dwords: np.ndarray


class Place(NamedTuple):
    """A window's part of a batch of sequences: its first step, the steps of the whole sequences, and the
    number of its first row."""

    first: int
    steps: int
    row: int = 0


class Part(NamedTuple):
    """Steps first .. last of a sequence of `steps`, and the options of the whole sequence."""

    first: int
    last: int
    steps: int
    lengths: np.ndarray | None = None
    order: np.ndarray | None = None
    reset: np.ndarray | None = None
    weights: np.ndarray | None = None  # (N, T) or (N, 1), of targets
    blocks: Blocks | None = None

    @property
    def place(self) -> Place:
        """The place of the part in the batch."""
        return Place(self.first, self.steps, 0 if self.blocks is None else self.blocks.first)

    def of(self, array: Any) -> Any:
        """These steps of an array (N, T, ...)."""
        return array[:, self.first : self.last]

    def ends(self, batch: int) -> np.ndarray:
        """The steps (N,) of each whole sequence."""
        return np.full(batch, self.steps) if self.lengths is None else self.lengths

    def options(self) -> dict[str, Any]:
        """The arguments `lengths`, `reset` and `blocks` of the layers for this part."""
        given: dict[str, Any] = {} if self.blocks is None else {"blocks": self.blocks}
        if self.lengths is not None:
            order = falling_order(self.lengths) if self.order is None else self.order
            inside = np.clip(self.lengths - self.first, 0, self.last - self.first)
            given["lengths"] = Sorted(inside, order)
        if self.reset is not None:
            given["reset"] = np.array(self.of(self.reset))
        return given


class Inputs(NamedTuple):
    """The inputs of a window: xs (N, T, D), or words (V, D) by ids (N, T); the unused arrays are empty."""

    xs: np.ndarray
    ids: np.ndarray | None
    words: np.ndarray
    dwords: np.ndarray


class Run(NamedTuple):
    """The cache of the last `forward` for `backward`; the tape holds the blocks of the time grid from
    `intact` on."""

    inputs: Inputs
    given: np.ndarray | None
    rows: Rows
    saved: tuple[np.ndarray | None, ...]
    intact: int
    groups: Groups | None = None
