"""PyTorch's recurrent layers as cells, which tensors are plain arrays, and how the rows of a tensor lie."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from rnnfast import cells
from rnnfast.cells import Cell, cell, sigmoid, tanh
from rnnfast.kernels.recurrence.recurrence import TimeLoop, time_loop
from rnnfast.kernels.recurrence.sequence import time_grid
from rnnfast.layers.window import NO_RESETS, Rows, falling_order


@cell(states=("h", "c"))
def lstm(i, f, g, o, h, c):
    """The gates of `torch.nn.LSTM`."""
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    return sigmoid(o) * tanh(c), c


@cell(states=("h",), apart=("n",))
def gru(r, z, n, h):
    """The gates of `torch.nn.GRU`: it resets what comes out of the product."""
    n = tanh(n.x + sigmoid(r) * n.h)
    z = sigmoid(z)
    return n + z * (h - n)


class Kind(NamedTuple):
    """One of PyTorch's recurrent operators."""

    name: str
    cell: Cell
    precision: str | None = None  # "bfloat16" rounds the operands of products

    @property
    def loop(self) -> TimeLoop:
        """The compiled time loop."""
        return time_loop(self.cell.equations, self.precision is not None)

    @property
    def states(self) -> int:
        """How many states the operator carries."""
        return len(self.cell.states)

    def biases(self, b_ih: torch.Tensor | None, b_hh: torch.Tensor | None, like: torch.Tensor) -> tuple:
        """The kernel's b (G*H,) and bhh (H,) or None, from PyTorch's two biases (G*H,) or from none."""
        width = like.shape[0] // len(self.cell.gates)
        if b_ih is None or b_hh is None:
            none = np.zeros(like.shape[0], like.detach().numpy().dtype)
            return none, none[-width:] if self.cell.apart else None
        first, second = b_ih.detach().numpy(), b_hh.detach().numpy()
        b = first + second
        if not self.cell.apart:
            return b, None
        b[-width:] = first[-width:]
        return b, np.ascontiguousarray(second[-width:])


KINDS = {
    one.name: one
    for one in (
        Kind("lstm", lstm),
        Kind("gru", gru),
        Kind("rnn_tanh", cells.rnn),
        Kind("rnn_relu", cells.rnn_relu),
    )
}


# How the rows of a tensor layout, and which of them each step of each sequence is in.


class RowLayout(NamedTuple):
    """Rows of one direction; `turn` (rows,) puts the rows of a tensor into the order in which they are read,
    and back, where the kernels cannot do so themselves."""

    rows: Rows
    turn: torch.Tensor | None = None

    def transposed(self, x: torch.Tensor) -> torch.Tensor:
        """The rows of x in the order in which they are read, or back in their own."""
        if self.turn is None:
            return x
        return x.reshape(-1, x.shape[-1]).index_select(0, self.turn).reshape(x.shape)


@functools.lru_cache(maxsize=64)
def whole(batch: int, steps: int, batch_first: bool, backwards: bool) -> RowLayout:
    """Sequences of one length, (N, T, ...) or (T, N, ...)."""
    offsets, order = np.arange(steps + 1) * batch, np.arange(batch)
    of_sequence, of_step = (steps, 1) if batch_first else (1, batch)
    at = np.arange(steps)[:: -1 if backwards else 1] * of_step
    return RowLayout(
        Rows(
            offsets,
            order,
            time_grid(offsets, batch),
            NO_RESETS,
            order * of_sequence,
            np.ascontiguousarray(at),
        )
    )


def packed(batch_sizes: np.ndarray, backwards: bool) -> RowLayout:
    """The data of a `PackedSequence`, from its batch sizes (T,)."""
    offsets = np.concatenate(([0], np.cumsum(batch_sizes)))
    order = np.arange(int(batch_sizes[0]))
    rows = Rows(offsets, order, time_grid(offsets, order.size), NO_RESETS, order, offsets[:-1].copy())
    if not backwards or offsets[-1] == order.size * batch_sizes.size:
        at = offsets[-2::-1].copy() if backwards else rows.step_rows
        return RowLayout(rows._replace(step_rows=at))
    step = np.repeat(np.arange(batch_sizes.size), batch_sizes)
    sequence = np.arange(offsets[-1]) - offsets[step]
    lengths = np.searchsorted(-batch_sizes, -order, side="left")
    return RowLayout(rows, torch.from_numpy(offsets[lengths[sequence] - 1 - step] + sequence))


def padded(
    batch: int,
    steps: int,
    batch_first: bool,
    backwards: bool,
    lengths: np.ndarray | None,
    resets: np.ndarray | None,
) -> RowLayout:
    """Sequences of several lengths (N,), or with resets (N, T), padded to (N, T, ...) or (T, N, ...)."""
    base = whole(batch, steps, batch_first, False).rows
    lengths = np.full(batch, steps) if lengths is None else lengths
    order = falling_order(lengths)
    active = batch - np.searchsorted(lengths[order[::-1]], np.arange(steps), side="right")
    offsets = np.concatenate(([0], np.cumsum(active))).astype(np.int64, copy=False)
    turn = None
    t = np.arange(steps)
    if backwards:
        inside = t < lengths[:, np.newaxis]
        at = np.where(inside, lengths[:, np.newaxis] - 1 - t, t)  # (N, T)
        places = base.sequence_rows[:, np.newaxis] + base.step_rows[at]
        turn = torch.from_numpy(np.ascontiguousarray(places if batch_first else places.T).reshape(-1))
        if resets is not None:
            before = np.zeros_like(resets)
            before[:, :-1] = resets[:, 1:]
            before[t >= lengths[:, np.newaxis] - 1] = False
            resets = np.take_along_axis(before, at, axis=1)
    masked = NO_RESETS if resets is None else np.ascontiguousarray(resets)
    rows = Rows(offsets, order, time_grid(offsets, batch), masked, base.sequence_rows[order], base.step_rows)
    return RowLayout(rows, turn)


# Which tensors are plain arrays in the memory of the CPU, and the arrays.


DTYPES = (torch.float32, torch.float64)  # those of the kernels
SERVED = (*DTYPES, torch.bfloat16)  # computed in float32, with operands of products in bfloat16

_CLASSES = (torch.Tensor, torch.nn.Parameter)
_keys_of = torch._C._dispatch_keys

# Their dispatch keys: no other device or layout, no subclass, no transform, no lazy sign.
with torch.inference_mode():
    _WITHOUT_TAPE = _keys_of(torch.empty(0, device="cpu"))
_WITH_TAPE = _keys_of(torch.empty(0, device="cpu"))


def is_plain(tensor: torch.Tensor) -> bool:
    """Whether a tensor is a strided array on the CPU and nothing else."""
    return type(tensor) in _CLASSES and _keys_of(tensor) in (_WITH_TAPE, _WITHOUT_TAPE)


def array_of(tensor: torch.Tensor) -> np.ndarray:
    """A plain tensor's own memory, which is copied only where it is not contiguous."""
    return tensor.detach().contiguous().numpy()


# Functions that `torch.compile` runs as they are instead of tracing into them.


def untraced(function: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a function, and all that it calls, as one that is not to be traced.

    `torch.compiler.disable` does so as well, but imports the compiler, which takes a second.
    """
    frames: Any = getattr(getattr(torch._C, "_dynamo", None), "eval_frame", None)
    if not hasattr(frames, "set_code_exec_strategy"):
        return torch.compiler.disable(function)
    skip = frames._FrameAction.SKIP
    frames.set_code_exec_strategy(function.__code__, frames._FrameExecStrategy(skip, skip))
    return function
