"""The elementwise part of the LSTM's steps; `lstm.py` has the equations and the products."""

from __future__ import annotations

from ._jit import spliced
from .activations import sigmoid, tanh
from .formula import formula, map_row
from .simd import fma

# Where each gate begins in the columns of Wx, Wh and b, in multiples of H: the book's order.
FORGET, CANDIDATE, INPUT, OUTPUT = 0, 1, 2, 3
GATES = 4


@formula
def lstm_gates(f, g, i, o, c_before):
    """f, i, o = sigmoid, g = tanh of the pre-activations; c = f c_before + g i, carried and kept."""
    f, g, i, o = sigmoid(f), tanh(g), sigmoid(i), sigmoid(o)
    c = fma(f, c_before, g * i)
    return f, g, i, o, c, c


@formula
def lstm_output(o, c):
    """h = o tanh(c), as state and as output."""
    h = o * tanh(c)
    return h, h


@formula
def lstm_gradient(f, g, i, o, c_before, c, above, later, dc):
    """The gradient of the pre-activations of f, g, i, o, and that of c, taken back over the forget gate.

    With dh_t = above + later and dc_t = dc + dh_t o (1 - tanh(c)^2):
    do = dh_t tanh(c) o (1 - o), df = dc_t c_before f (1 - f), dg = dc_t i (1 - g^2), di = dc_t g i (1 - i),
    dc = dc_t f.
    """
    squashed, dh = tanh(c), above + later
    do = dh * squashed * (o * (1 - o))
    dc = fma(dh * o, fma(-squashed, squashed, 1), dc)
    df = dc * c_before * (f * (1 - f))
    dg = dc * i * fma(-g, g, 1)
    di = dc * g * (i * (1 - i))
    return df, dg, di, do, dc * f


@spliced
def lstm_cell_remake(part, width, here, gates, carry, cells):
    """Gates and cells of the step in rows `here` and after: see `lstm_gates`.

    part   sequences and units (i_first, i_last, j_first, j_last) to work on
    gates  (.., gate row)   overwritten; pre-activations before
    carry  (N, row)         overwritten with c; c_before before
    cells  (.., row)        overwritten with c
    """
    i_first, i_last, j_first, j_last = part
    gate_row, row = gates.shape[1], cells.shape[1]
    for n in range(i_first, i_last):
        f, own = (here + n) * gate_row + j_first, n * row + j_first
        g, i, o = f + CANDIDATE * width, f + INPUT * width, f + OUTPUT * width
        map_row(
            lstm_gates,
            j_last - j_first,
            ((gates, f), (gates, g), (gates, i), (gates, o), (carry, own)),
            ((gates, f), (gates, g), (gates, i), (gates, o), (carry, own), (cells, here * row + own)),
        )


@spliced
def lstm_cell_forward(t, part, width, order, here, gates, carry, cells, first, states, hs):
    """One step: gates and cells in rows `here` and after, states from row `first`.

    A row goes through two formulas: in one, the chain from a pre-activation to h is so long that the
    processor cannot look far enough ahead to fill its units (19 ns for a vector of float32 on Zen 5, 13 in
    two).

    part    sequences and units (i_first, i_last, j_first, j_last) to work on
    gates   (.., gate row)   overwritten; pre-activations before
    carry   (N, row)         overwritten with c; c_before before
    cells   (.., row)        overwritten with c
    states  (.., row)        overwritten
    hs      (N, T, H)        step t overwritten
    """
    i_first, i_last, j_first, j_last = part
    gate_row, row = gates.shape[1], cells.shape[1]
    for n in range(i_first, i_last):
        f, own = (here + n) * gate_row + j_first, n * row + j_first
        g, i, o = f + CANDIDATE * width, f + INPUT * width, f + OUTPUT * width
        out = (order[n] * hs.shape[1] + t) * width + j_first
        cell = (cells, here * row + own)
        map_row(
            lstm_gates,
            j_last - j_first,
            ((gates, f), (gates, g), (gates, i), (gates, o), (carry, own)),
            ((gates, f), (gates, g), (gates, i), (gates, o), (carry, own), cell),
        )
        outputs = ((states, first * row + own), (hs, out))
        map_row(lstm_output, j_last - j_first, ((gates, o), cell), outputs)


@spliced
def lstm_cell_backward(t, part, width, order, here, gates, earlier, before, cells, dhs, dh, dc, place, dts):
    """The gradient of the pre-activations and dc, that of c: see `lstm_gradient`.

    part    sequences and units (i_first, i_last, j_first, j_last) to work on
    gates   (.., gate row)   read, the step in rows `here` and after
    before  (.., row)        read, c_before in rows `earlier` and after
    cells   (.., row)        read, the step in rows `here` and after
    dhs     (N, T, H)        read
    dh      (N, row)         read, the gradient of h that arrives from step t + 1
    dc      (N, row)         overwritten; the gradient of c from step t + 1 before
    dts     (.., gate row)   overwritten from row `place` on
    """
    i_first, i_last, j_first, j_last = part
    gate_row, row = gates.shape[1], cells.shape[1]
    for n in range(i_first, i_last):
        f, own = (here + n) * gate_row + j_first, n * row + j_first
        g, i, o = f + CANDIDATE * width, f + INPUT * width, f + OUTPUT * width
        df = (place + n) * dts.shape[1] + j_first
        above = (order[n] * dhs.shape[1] + t) * width + j_first
        map_row(
            lstm_gradient,
            j_last - j_first,
            (
                (gates, f), (gates, g), (gates, i), (gates, o), (before, earlier * row + own),
                (cells, here * row + own), (dhs, above), (dh, own), (dc, own),
            ),
            (
                (dts, df), (dts, df + CANDIDATE * width), (dts, df + INPUT * width),
                (dts, df + OUTPUT * width), (dc, own),
            ),
        )  # fmt: skip
