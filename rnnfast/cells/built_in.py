"""The cells of `TimeRNN`, `TimeLSTM` and `TimeGRU`, by the names of the models' `cell=`."""

from __future__ import annotations

import numpy as np

from rnnfast.cells._cell import Cell
from rnnfast.kernels.cell import built_in as cells

rnn = Cell(cells.rnn_tanh, ("a",), ("h",), {}, name="rnn", title="RNN")

# Other recurrent weights were tried. Validation perplexity on the default corpus after 3 epochs of
# Adam(0.002) with V = 1429, D = H = 100: 92.0 with these, 94.2 orthogonal, 96.2 identity times 0.9. A relu is
# unbounded. If its units start near zero, the first updates raise all of Wh to produce the scores of frequent
# words, and the state explodes: `rnnfast train --cell relu` stopped within 10 steps for three seeds of four,
# and also from the identity times 1, 0.5 or 0.1 and from zero. With biases of 0.5 the output layer can learn
# these scores at once. Source: Le, Jaitly and Hinton, A simple way to initialize recurrent networks of
# rectified linear units, 2015.
rnn_relu = Cell(
    cells.rnn_relu,
    ("a",),
    ("h",),
    {},
    name="relu",
    title="RNN (relu)",
    start={
        "Wh": lambda shape, rng: 0.5 * np.eye(shape[0]),
        "b": 0.5,
        "words": lambda shape, rng: rng.standard_normal(shape) / 10,
    },
)
lstm = Cell(cells.lstm, ("f", "g", "i", "o"), ("h", "c"), {}, name="lstm", title="LSTM", forgets={"f": "low"})
gru = Cell(
    cells.gru_before,
    ("z", "r", "n"),
    ("h",),
    {},
    name="gru",
    again=("n",),
    title="GRU",
    forgets={"z": "high"},
)
gru_after = Cell(
    cells.gru_after,
    ("z", "r", "n"),
    ("h",),
    {},
    name="gru_after",
    apart=("n",),
    title="GRU (reset after)",
    forgets={"z": "high"},
)
