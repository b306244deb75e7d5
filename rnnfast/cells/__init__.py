"""Built-in cells as equations, and the functions and roles for writing cells.

Each cell is a `Cell`: ``leaky.layer(input_size, hidden_size)`` makes a layer, ``cell="leaky"`` a model of it.
"""

from __future__ import annotations

from rnnfast.cells._cell import Cell, defined
from rnnfast.cells._decorator import CellError, cell
from rnnfast.cells._functions import (
    exp,
    log,
    maximum,
    minimum,
    relu,
    sigmoid,
    softplus,
    sqrt,
    step,
    stop_gradient,
    tanh,
    where,
)
from rnnfast.cells._ready import (
    coupled_lstm,
    ind_rnn,
    leaky,
    li_gru,
    lif,
    min_gru,
    min_lstm,
    peephole_lstm,
    slstm,
    zoneout,
)
from rnnfast.cells._roles import Role, bernoulli, constant, given, normal, scalar, unit
from rnnfast.cells.built_in import gru, gru_after, lstm, rnn, rnn_relu

# Every built-in cell; the only list of them.
READY: tuple[Cell, ...] = (
    rnn, rnn_relu, lstm, gru, gru_after, leaky, lif, peephole_lstm, coupled_lstm, li_gru, min_gru, min_lstm,
    ind_rnn, slstm,
)  # fmt: skip

__all__ = [
    "READY", "Cell", "CellError", "Role", "bernoulli", "cell", "constant", "coupled_lstm", "defined", "exp",
    "given", "gru", "gru_after", "ind_rnn", "leaky", "li_gru", "lif", "log", "lstm", "maximum", "min_gru",
    "min_lstm", "minimum", "normal", "peephole_lstm", "relu", "rnn", "rnn_relu", "scalar", "sigmoid", "slstm",
    "softplus", "sqrt", "step", "stop_gradient", "tanh", "unit", "where", "zoneout",
]  # fmt: skip
