"""PyTorch's recurrent layers as cells, their gates in its order."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from rnnfast import cells
from rnnfast.cells import Cell, cell, sigmoid, tanh
from rnnfast.kernels.recurrence.recurrence import TimeLoop, time_loop


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
