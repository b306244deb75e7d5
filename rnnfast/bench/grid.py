"""The problems of the benchmark: cells, shapes, passes and language models; operations of a layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from rnnfast import _check
from rnnfast.cells import Cell, gru_after, lstm, rnn
from rnnfast.models.cells import named_cell

# The default cells: those of the other libraries, in their variants.
CELLS = (rnn.name, lstm.name, gru_after.name)
PASSES = ("forward", "both")
PASS_TITLES = {"forward": "forward", "both": "fwd + bwd"}
MODEL_PASS_TITLES = {"gradients": "loss + bwd", "step": "whole step"}


class Shape(NamedTuple):
    """Sizes of a layer: batch, steps, inputs, hidden units."""

    N: int
    T: int
    D: int
    H: int

    def __str__(self) -> str:
        return f"({self.N}, {self.T}, {self.D}, {self.H})"


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


# Random shapes: the least and the largest of each size, and limits on the multiply-adds of a gate and on the
# elements of the input, which bound the time of a pass (2e10 operations for an LSTM) and the memory.
RANDOM_SIZES = Shape(512, 400, 2_000, 512)
MOST_PRODUCTS, MOST_INPUTS = 800_000_000, 16_000_000


def random_shapes(count: int, seed: int) -> list[Shape]:
    """Distinct shapes whose sizes are log-uniform from 1 to `RANDOM_SIZES`, the same ones for a seed.

    Shapes beyond `MOST_PRODUCTS` or `MOST_INPUTS` are drawn again.

    Examples
    --------
    >>> random_shapes(3, seed=0) == random_shapes(100, seed=0)[:3]
    True
    """
    rng = np.random.default_rng(seed)
    most = np.log(np.add(RANDOM_SIZES, 1))
    found: dict[Shape, None] = {}
    while len(found) < count:
        shape = Shape(*(int(size) for size in np.exp(rng.uniform(0, most))))
        N, T, D, H = shape
        if N * T * H * (D + H) <= MOST_PRODUCTS and N * T * D <= MOST_INPUTS:
            found[shape] = None
    return list(found)


class ModelSize(NamedTuple):
    """Sizes of a language model and its windows; the embedding is as wide as the layers."""

    cell: str
    layers: int
    V: int
    H: int
    N: int
    T: int

    def __str__(self) -> str:
        return f"{self.layers} x {self.cell}, V={self.V} D=H={self.H} N={self.N} T={self.T}"


MODELS = (
    ModelSize("rnn", 1, 10_000, 100, 20, 35),
    ModelSize("lstm", 1, 10_000, 100, 20, 35),
    ModelSize("lstm", 2, 10_000, 650, 20, 35),
    ModelSize("lstm", 2, 65, 128, 50, 50),
)


@dataclass(frozen=True)
class LayerProblem:
    """A layer with its weights and data, in rnnfast's layout.

    The weights are uniform within 1 / sqrt(H), as in PyTorch; the cell's own parameters have its initial
    values.

    Parameters
    ----------
    cell : Cell
    shape : Shape
    params : list of ndarray
        In the order of `cell.shapes`: ``Wx (D, G H)``, ``Wh (H, G H)``, ``b (G H,)``.
    xs, dhs : ndarray (N, T, D), (N, T, H)
    threads : int
        Number of threads a contender may use.
    """

    cell: Cell
    shape: Shape
    params: list[np.ndarray]
    xs: np.ndarray
    dhs: np.ndarray
    threads: int


def layer_problem(name: str, shape: Shape, threads: int = 1) -> LayerProblem:
    """A problem for the cell of this name, with reproducible values in float32."""
    rng = np.random.default_rng(0)
    cell = named_cell("bench", name)
    N, T, D, H = shape
    params = _weights(cell, D, H, rng)
    xs, dhs = (rng.standard_normal((N, T, size), dtype=np.float32) for size in (D, H))
    return LayerProblem(cell, shape, params, xs, dhs, threads)


def _weights(cell: Cell, depth: int, width: int, rng: np.random.Generator) -> list[np.ndarray]:
    """The parameters of a layer."""
    bound = 1 / np.sqrt(width)
    values = [
        cell.initial(name, size, rng) if name in cell.roles else rng.uniform(-bound, bound, size)
        for name, size in cell.shapes(depth, width).items()
    ]
    return [value.astype(np.float32) for value in values]


@dataclass(frozen=True)
class ModelProblem:
    """A language model with its initial weights, and a window of ids.

    Parameters
    ----------
    size : ModelSize
    params : list of ndarray
        The embedding ``(V, H)``; the parameters of each layer, in the order of the cell; ``W (H, V)`` and
        ``b (V,)`` of the output.
    xs, ts : ndarray (N, T)
        Input and target ids, with the frequencies of words.
    """

    size: ModelSize
    params: list[np.ndarray]
    xs: np.ndarray
    ts: np.ndarray


def model_problem(size: ModelSize) -> ModelProblem:
    """A problem with reproducible values in float32."""
    rng = np.random.default_rng(0)
    V, H = size.V, size.H
    cell, bound = named_cell("bench", size.cell), 1 / np.sqrt(H)

    def drawn(*shape: int) -> np.ndarray:
        return rng.uniform(-bound, bound, shape).astype(np.float32)

    params = [drawn(V, H)]
    for _ in range(size.layers):
        params += _weights(cell, H, H, rng)
    params += [drawn(H, V), drawn(V)]
    frequency = 1 / np.arange(1, V + 1)
    xs, ts = (rng.choice(V, (size.N, size.T), p=frequency / frequency.sum()) for _ in range(2))
    return ModelProblem(size, params, xs, ts)


def operations(name: str, shape: Shape, which: str) -> int:
    """Floating-point operations of the matrix products of a pass; a multiply-add counts as two.

    Examples
    --------
    >>> operations("lstm", Shape(1, 1, 2, 3), "forward"), operations("lstm", Shape(1, 1, 2, 3), "both")
    (120, 360)
    """
    N, T, D, H = shape
    matrices = [size for size in named_cell("bench", name).shapes(D, H).values() if len(size) == 2]
    return {"forward": 2, "both": 6}[which] * N * T * sum(rows * cols for rows, cols in matrices)


def words(text: str) -> list[str]:
    """The distinct parts of a typed list, separated by commas or spaces.

    Examples
    --------
    >>> words("rnn, lstm"), words("1 2 2")
    (['rnn', 'lstm'], ['1', '2'])
    """
    return list(dict.fromkeys(text.replace(",", " ").split()))


def choices(name: str, text: str, known: tuple[str, ...]) -> list[str]:
    """Some of the `known` words, or an error that lists them."""
    found = [_check.choice("bench", name, word, known) for word in words(text)]
    if not found:
        raise ValueError(f"bench: {name} must name at least one of {', '.join(known)}.")
    return found


def cells(text: str, read: Callable[[str], str]) -> list[str]:
    """Names of cells from a typed list; `read` converts each to its canonical form."""
    found = [read(word) for word in words(text)]
    if not found:
        raise ValueError(f"bench: cells must name at least one cell, as {CELLS[0]}, or none.")
    return found


def shapes(text: str) -> list[Shape]:
    """Shapes from a typed list.

    Examples
    --------
    >>> [str(shape) for shape in shapes("20x35x100x100 1x8x3x4")]
    ['(20, 35, 100, 100)', '(1, 8, 3, 4)']
    """
    found = []
    for word in words(text):
        sizes = word.lower().split("x")
        if len(sizes) != 4 or not all(size.isdecimal() and int(size) > 0 for size in sizes):
            raise ValueError(
                f"bench: shapes must be NxTxDxH, four whole numbers from 1, as 20x35x100x100, got {word!r}."
            )
        found.append(Shape(*map(int, sizes)))
    if not found:
        raise ValueError("bench: shapes must name at least one shape, as in 20x35x100x100.")
    return found


def thread_counts(text: str, cores: int) -> list[int]:
    """Numbers of threads from a typed list, none above the number of cores this process may use."""
    found = []
    for word in words(text):
        if not word.isdecimal() or int(word) < 1:
            raise ValueError(f"bench: threads must be whole numbers of at least 1, got {word!r}.")
        if int(word) > cores:
            raise ValueError(
                f"bench: threads must be at most {cores}, the cores this process may use, got {word}; more "
                f"threads than cores would only wait for each other."
            )
        found.append(int(word))
    if not found:
        raise ValueError("bench: threads must name at least one number.")
    return found
