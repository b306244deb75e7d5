"""Ready cells as equations, and what equations of a cell may say.

Each cell is a `Cell`: ``leaky.layer(input_size, hidden_size)`` makes a layer, ``cell="leaky"`` a model of it.
"""

from __future__ import annotations

from rnnfast.cells._cell import Cell, CellError, cell, defined
from rnnfast.cells._roles import Role, bernoulli, constant, given, normal, scalar, unit
from rnnfast.cells.built_in import gru, gru_after, lstm, rnn, rnn_relu
from rnnfast.kernels.expression import relu, sigmoid, tanh

# Every ready cell; nothing else knows which there are.
READY: tuple[Cell, ...] = (rnn, rnn_relu, lstm, gru, gru_after)

__all__ = [
    "READY", "Cell", "CellError", "Role", "bernoulli", "cell", "constant", "defined", "given", "gru", "gru_after", "lstm",
    "normal", "relu", "rnn", "rnn_relu", "scalar", "sigmoid", "tanh", "unit",
]  # fmt: skip
