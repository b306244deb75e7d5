"""The problems of the benchmark: cells, shapes and passes; their values, and their operations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from rnnfast.cells import Cell, gru_after, lstm, rnn
from rnnfast.models.cells import named_cell

# The default cells: those of the other libraries, in their variants.
CELLS = (rnn.name, lstm.name, gru_after.name)
# Inference; and forward with backward, including the gradient of the input.
PASSES = ("forward", "both")


class Shape(NamedTuple):
    """Sizes of a layer: batch, steps, inputs, hidden units."""

    N: int
    T: int
    D: int
    H: int

    def __str__(self) -> str:
        return "x".join(map(str, self))


SHAPES = (
    Shape(1, 1000, 32, 32),
    Shape(10, 5, 100, 100),
    Shape(20, 35, 100, 100),
    Shape(20, 35, 650, 650),
    Shape(32, 128, 64, 128),
    Shape(64, 100, 128, 256),
    Shape(32, 256, 256, 512),
    Shape(1, 4096, 64, 256),
    Shape(64, 50, 1024, 1024),
)
QUICK_SHAPES = (Shape(10, 5, 100, 100), Shape(20, 35, 100, 100), Shape(32, 128, 64, 128))


@dataclass(frozen=True)
class Problem:
    """A layer with its weights and data in float32, in rnnfast's layout.

    Parameters
    ----------
    cell : Cell
    shape : Shape
    threads : int
        Number of threads a contender may use.
    params : list of ndarray
        In the order of `cell.shapes`: ``Wx (D, G H)``, ``Wh (H, G H)``, ``b (G H,)``.
    xs, dhs : ndarray (N, T, D), (N, T, H)
    """

    cell: Cell
    shape: Shape
    threads: int
    params: list[np.ndarray]
    xs: np.ndarray
    dhs: np.ndarray


def problem(name: str, shape: Shape, threads: int = 1) -> Problem:
    """A problem for the cell of this name, with the same values each time.

    Weights are uniform within 1 / sqrt(H), as in PyTorch; a cell's own parameters have its initial values.
    """
    rng = np.random.default_rng(0)
    cell = named_cell("bench", name)
    N, T, D, H = shape
    bound = 1 / np.sqrt(H)
    params = [
        cell.initial(name, size, rng) if name in cell.roles else rng.uniform(-bound, bound, size)
        for name, size in cell.shapes(D, H).items()
    ]
    xs, dhs = (rng.standard_normal((N, T, size), dtype=np.float32) for size in (D, H))
    return Problem(cell, shape, threads, [param.astype(np.float32) for param in params], xs, dhs)


def operations(cell: Cell, shape: Shape, which: str) -> int:
    """Floating-point operations of the matrix products of a pass; a multiply-add counts as two.

    Examples
    --------
    >>> operations(lstm, Shape(1, 1, 2, 3), "forward"), operations(lstm, Shape(1, 1, 2, 3), "both")
    (120, 360)
    """
    N, T, D, H = shape
    weights = sum(size[0] * size[1] for size in cell.shapes(D, H).values() if len(size) == 2)
    return {"forward": 2, "both": 6}[which] * N * T * weights
