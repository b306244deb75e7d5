"""The elementwise part of the GRU's steps; `gru.py` has the equations and the products."""

from __future__ import annotations

from ._jit import spliced
from .activations import sigmoid, tanh
from .formula import formula, map_row
from .simd import fma

# Where each gate begins in the columns of Wx, Wh and b, in multiples of H: the book's order. A row of kept
# gates has room for one more: u.
Z, R, HAT, U = 0, 1, 2, 3
GATES = 3


@formula
def gru_gates(z, r):
    """z, r = sigmoid of the pre-activations."""
    return sigmoid(z), sigmoid(r)


@formula
def gru_gates_and_reset(z, r, before):
    """The same, and r h_before, which goes into the product."""
    r = sigmoid(r)
    return sigmoid(z), r, r * before


@formula
def candidate_before(hat):
    """h_hat = tanh of its pre-activation, where the reset gate acts before the product."""
    return tanh(hat)


@formula
def candidate_after(r, hat, u):
    """h_hat = tanh of its pre-activation, to which r u is added first where the reset gate acts after."""
    return tanh(fma(r, u, hat))


@formula
def output_before(z, hat, before):
    """h_hat, and h = (1 - z) h_before + z h_hat, as state and as output."""
    hat = candidate_before(hat)
    h = fma(z, hat, (1 - z) * before)
    return hat, h, h


@formula
def output_after(z, r, hat, u, before):
    """The same where the reset gate acts after."""
    hat = candidate_after(r, hat, u)
    h = fma(z, hat, (1 - z) * before)
    return hat, h, h


@formula
def gradient_before(z, hat, before, above, dh):
    """dz and dh_hat, those of the pre-activations, and the part of dh_before that passes by: dh_t (1 - z).

    With dh_t = above + dh: dz = dh_t (h_hat - h_before) z (1 - z), dh_hat = dh_t z (1 - h_hat^2).
    """
    dh, keeps = dh + above, 1 - z
    dz = dh * (hat - before) * (z * keeps)
    return dz, dh * z * fma(-hat, hat, 1), dh * keeps


@formula
def gradient_after(z, r, hat, u, before, above, dh):
    """`gradient_before`, and dr = dh_hat u r (1 - r), du = dh_hat r."""
    dz, dhat, dh = gradient_before(z, hat, before, above, dh)
    return dz, dhat * u * (r * (1 - r)), dhat, dhat * r, dh


@formula
def gradient_of_reset(r, before, d, dh):
    """Back through r h_before, with d its gradient: dr = d h_before r (1 - r), r h_before, dh + d r."""
    return d * before * (r * (1 - r)), r * before, fma(d, r, dh)


@spliced
def gru_cell_reset(part, width, here, gates, earlier, before, place, product):
    """z, r and product = r h_before, where the reset gate acts before the product.

    part     sequences and units (i_first, i_last, j_first, j_last) to work on, as in all of these functions
    gates    (.., gate row)   z, r overwritten from row `here` on, their pre-activations before
    before   (.., row)        read from row `earlier` on, h_before
    product  (.., row)        overwritten from row `place` on
    """
    i_first, i_last, j_first, j_last = part
    gate_row, row = gates.shape[1], before.shape[1]
    for n in range(i_first, i_last):
        z, own = (here + n) * gate_row + Z * width + j_first, n * row + j_first
        r = z + (R - Z) * width
        map_row(
            gru_gates_and_reset,
            j_last - j_first,
            ((gates, z), (gates, r), (before, earlier * row + own)),
            ((gates, z), (gates, r), (product, place * row + own)),
        )


@spliced
def gru_cell_remake(part, width, here, after, gates):
    """What is left of the gates once their products are there: h_hat, and z and r where the reset gate acts
    after the product.

    gates  (.., gate row)   overwritten from row `here` on; pre-activations before
    """
    i_first, i_last, j_first, j_last = part
    for n in range(i_first, i_last):
        z = (here + n) * gates.shape[1] + Z * width + j_first
        r, hat, u = z + R * width, z + HAT * width, z + U * width
        if after:
            map_row(gru_gates, j_last - j_first, ((gates, z), (gates, r)), ((gates, z), (gates, r)))
            reads = ((gates, r), (gates, hat), (gates, u))
            map_row(candidate_after, j_last - j_first, reads, ((gates, hat),))
        else:
            map_row(candidate_before, j_last - j_first, ((gates, hat),), ((gates, hat),))


@spliced
def gru_cell_forward(t, part, width, order, after, here, gates, earlier, before, first, states, hs):
    """`gru_cell_remake`, and states = hs[order[n], t] = (1 - z) h_before + z h_hat.

    gates   (.., gate row)   overwritten from row `here` on; pre-activations before, u read
    before  (.., row)        read from row `earlier` on
    states  (.., row)        overwritten from row `first` on
    hs      (N, T, H)        step t overwritten
    """
    i_first, i_last, j_first, j_last = part
    gate_row, row = gates.shape[1], states.shape[1]
    for n in range(i_first, i_last):
        z, own = (here + n) * gate_row + Z * width + j_first, n * row + j_first
        r, hat, u = z + R * width, z + HAT * width, z + U * width
        previous, state = (before, earlier * row + own), (states, first * row + own)
        out = (hs, (order[n] * hs.shape[1] + t) * width + j_first)
        if after:
            map_row(gru_gates, j_last - j_first, ((gates, z), (gates, r)), ((gates, z), (gates, r)))
            reads = ((gates, z), (gates, r), (gates, hat), (gates, u), previous)
            map_row(output_after, j_last - j_first, reads, ((gates, hat), state, out))
        else:
            kept = ((gates, z), (gates, hat), previous)
            map_row(output_before, j_last - j_first, kept, ((gates, hat), state, out))


@spliced
def gru_cell_backward(t, part, width, order, after, slot, here, gates, before, dhs, dh, dts):
    """The gradients of z and h_hat (and r and u) and the part of dh_before that passes by: `gradient_before`.

    gates   (.., gate row)   read from row `slot + here` on
    before  (.., row)        read from row `here` on, h_before
    dhs     (N, T, H)        read
    dh      (N, row)         overwritten; the gradient from step t + 1 before
    dts     (.., gate row)   dz, dh_hat (and dr, du) overwritten from row `here` on
    """
    i_first, i_last, j_first, j_last = part
    row = before.shape[1]
    for n in range(i_first, i_last):
        dz, own = (here + n) * dts.shape[1] + Z * width + j_first, n * row + j_first
        dr, dhat, du = dz + R * width, dz + HAT * width, dz + U * width
        z = (slot + here + n) * gates.shape[1] + Z * width + j_first
        r, hat, u = z + R * width, z + HAT * width, z + U * width
        previous = (before, here * row + own)
        above = (dhs, (order[n] * dhs.shape[1] + t) * width + j_first)
        if after:
            reads = ((gates, z), (gates, r), (gates, hat), (gates, u), previous, above, (dh, own))
            writes = ((dts, dz), (dts, dr), (dts, dhat), (dts, du), (dh, own))
            map_row(gradient_after, j_last - j_first, reads, writes)
        else:
            kept = ((gates, z), (gates, hat), previous, above, (dh, own))
            map_row(gradient_before, j_last - j_first, kept, ((dts, dz), (dts, dhat), (dh, own)))


@spliced
def gru_cell_reset_backward(part, width, slot, here, gates, before, dproduct, dh, dts):
    """Back through r h_before: dr, and dh += d r; r h_before itself goes where u would be.

    gates     (.., gate row)   read from row `slot + here` on, r
    before    (.., row)        read from row `here` on
    dproduct  (N, row)         read, d
    dh        (N, row)         accumulated
    dts       (.., gate row)   dr and r h_before overwritten from row `here` on
    """
    i_first, i_last, j_first, j_last = part
    row = before.shape[1]
    for n in range(i_first, i_last):
        r, own = (slot + here + n) * gates.shape[1] + R * width + j_first, n * row + j_first
        dr = (here + n) * dts.shape[1] + R * width + j_first
        map_row(
            gradient_of_reset,
            j_last - j_first,
            ((gates, r), (before, here * row + own), (dproduct, own), (dh, own)),
            ((dts, dr), (dts, dr + (U - R) * width), (dh, own)),
        )
