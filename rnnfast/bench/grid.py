"""What is measured: cells, shapes, passes and language models, and the operations of a layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from rnnfast import _check

GATES = {"rnn": 1, "lstm": 4, "gru": 3}
CELLS = tuple(GATES)
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


class ModelSize(NamedTuple):
    """Sizes of a language model, with an embedding as wide as its layers, and of the windows it reads."""

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
    """A layer with its weights and data, in rnnfast's layout: gates f, g, i, o, or z, r, h with z for new.

    The weights are uniform within 1 / sqrt(H), as PyTorch draws them; the reset gate of the GRU acts after
    the recurrent product, for which it has the bias `bhh` (H,) as well.

    Parameters
    ----------
    cell : str
    shape : Shape
    params : list of ndarray
        ``Wx (D, G H)``, ``Wh (H, G H)``, ``b (G H,)``, and ``bhh (H,)`` for the GRU.
    xs, dhs : ndarray (N, T, D), (N, T, H)
    threads : int
        How many a contender may use.
    """

    cell: str
    shape: Shape
    params: list[np.ndarray]
    xs: np.ndarray
    dhs: np.ndarray
    threads: int


def layer_problem(cell: str, shape: Shape, threads: int = 1) -> LayerProblem:
    """A problem with the same values every time, in float32."""
    rng = np.random.default_rng(0)
    N, T, D, H = shape
    width = GATES[cell] * H
    sizes: list[tuple[int, ...]] = [(D, width), (H, width), (width,)]
    if cell == "gru":
        sizes.append((H,))
    bound = 1 / np.sqrt(H)
    params = [rng.uniform(-bound, bound, size).astype(np.float32) for size in sizes]
    xs, dhs = (rng.standard_normal((N, T, size), dtype=np.float32) for size in (D, H))
    return LayerProblem(cell, shape, params, xs, dhs, threads)


@dataclass(frozen=True)
class ModelProblem:
    """A language model with its first weights, and a window of ids.

    Parameters
    ----------
    size : ModelSize
    params : list of ndarray
        The embedding ``(V, H)``; ``Wx``, ``Wh`` and ``b`` of each layer; ``W (H, V)`` and ``b (V,)`` of the
        output.
    xs, ts : ndarray (N, T)
        Ids to read and ids to predict, as frequent as words are.
    """

    size: ModelSize
    params: list[np.ndarray]
    xs: np.ndarray
    ts: np.ndarray


def model_problem(size: ModelSize) -> ModelProblem:
    """A problem with the same values every time, in float32."""
    rng = np.random.default_rng(0)
    V, H = size.V, size.H
    width = GATES[size.cell] * H
    layer: list[tuple[int, ...]] = [(H, width), (H, width), (width,)]
    sizes = [(V, H), *(layer * size.layers), (H, V), (V,)]
    bound = 1 / np.sqrt(H)
    params = [rng.uniform(-bound, bound, size).astype(np.float32) for size in sizes]
    frequency = 1 / np.arange(1, V + 1)
    xs, ts = (rng.choice(V, (size.N, size.T), p=frequency / frequency.sum()) for _ in range(2))
    return ModelProblem(size, params, xs, ts)


def operations(cell: str, shape: Shape, which: str) -> int:
    """Floating-point operations of the products of a pass, a multiply-add counting as two.

    Examples
    --------
    >>> operations("lstm", Shape(1, 1, 2, 3), "forward"), operations("lstm", Shape(1, 1, 2, 3), "both")
    (120, 360)
    """
    N, T, D, H = shape
    return {"forward": 2, "both": 6}[which] * N * T * GATES[cell] * H * (D + H)


def words(text: str) -> list[str]:
    """The parts of a list as one types it, between commas or spaces; each once.

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


def shapes(text: str) -> list[Shape]:
    """Shapes as one types them.

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
                f"bench: shapes must be NxTxDxH, four whole numbers from 1 as 20x35x100x100, got {word!r}."
            )
        found.append(Shape(*map(int, sizes)))
    if not found:
        raise ValueError("bench: shapes must name at least one, as in 20x35x100x100.")
    return found


def thread_counts(text: str, cores: int) -> list[int]:
    """Numbers of threads as one types them, at most one for each core this process may use."""
    found = []
    for word in words(text):
        if not word.isdecimal() or int(word) < 1:
            raise ValueError(f"bench: threads must be whole numbers of at least 1, got {word!r}.")
        if int(word) > cores:
            raise ValueError(
                f"bench: threads must be at most {cores}, the cores this process may use, got {word}; more "
                f"threads than cores measure nothing but their waiting."
            )
        found.append(int(word))
    if not found:
        raise ValueError("bench: threads must name at least one number.")
    return found
