"""The elementwise part of the GRU's steps; `gru.py` has the equations and the products."""

from __future__ import annotations

from ._jit import spliced
from .activations import sigmoid_row, tanh_row
from .simd import fma

# Where each gate begins in the columns of Wx, Wh and b, in multiples of H: the book's order. A row of kept
# gates has room for one more: u.
Z, R, HAT, U = 0, 1, 2, 3
GATES = 3


@spliced
def gru_cell_gates(part, width, gates):
    """z, r = sigmoid of the pre-activations.

    part   sequences and units (i_first, i_last, j_first, j_last) to work on, as in all of these functions
    gates  (count.., gate row)   z and r overwritten, their pre-activations before
    """
    i_first, i_last, j_first, j_last = part
    units = j_last - j_first
    for n in range(i_first, i_last):
        if units == width:
            sigmoid_row(gates[n, Z * width : (R + 1) * width])
        else:
            sigmoid_row(gates[n, Z * width + j_first :][:units])
            sigmoid_row(gates[n, R * width + j_first :][:units])


@spliced
def gru_cell_reset(part, width, gates, before, product):
    """product = r h_before: what goes into the product where the reset gate acts before it.

    gates    (count.., gate row)   read, r
    before   (count.., row)        read
    product  (count.., row)        overwritten
    """
    i_first, i_last, j_first, j_last = part
    for n in range(i_first, i_last):
        r = gates[n, R * width + j_first :]
        h, out = before[n, j_first:j_last], product[n, j_first:j_last]
        for j in range(out.size):
            out[j] = r[j] * h[j]


@spliced
def gru_cell_candidate(part, width, after, gates):
    """h_hat = tanh of its pre-activation, to which r u is added first where the reset gate acts after.

    gates  (count.., gate row)   h_hat overwritten, its pre-activation before; r, u read
    """
    i_first, i_last, j_first, j_last = part
    units = j_last - j_first
    for n in range(i_first, i_last):
        hat = gates[n, HAT * width + j_first :][:units]
        if after:
            r, u = gates[n, R * width + j_first :], gates[n, U * width + j_first :]
            for j in range(units):
                hat[j] = fma(r[j], u[j], hat[j])
        tanh_row(hat)


@spliced
def gru_cell_output(t, part, width, order, gates, before, states, hs):
    """states = hs[order[n], t] = (1 - z) h_before + z h_hat.

    gates   (count.., gate row)   read
    before  (count.., row)        read
    states  (count.., row)        overwritten
    hs      (N, T, H)             step t overwritten
    """
    i_first, i_last, j_first, j_last = part
    one = hs.dtype.type(1)
    for n in range(i_first, i_last):
        z, hat = gates[n, Z * width + j_first :], gates[n, HAT * width + j_first :]
        previous, state = before[n, j_first:j_last], states[n, j_first:j_last]
        out = hs[order[n], t, j_first:j_last]
        for j in range(out.size):
            h = fma(z[j], hat[j], (one - z[j]) * previous[j])
            state[j] = h
            out[j] = h


@spliced
def gru_cell_backward(t, part, width, order, after, gates, before, dhs, dh, dts):
    """dz and dh_hat, those of the pre-activations, and the part of dh_before that passes by: dh_t (1 - z).

    With dh_t = dhs[:, t] + dh: dz = dh_t (h_hat - h_before) z (1 - z), dh_hat = dh_t z (1 - h_hat^2); where
    the reset gate acts after the product also dr = dh_hat u r (1 - r) and du = dh_hat r.

    gates   (count.., gate row)   read
    before  (count.., row)        read, h_before
    dhs     (N, T, H)             read
    dh      (N, row)              overwritten; the gradient from step t + 1 before
    dts     (count.., gate row)   dz, dh_hat (and dr, du) overwritten
    """
    i_first, i_last, j_first, j_last = part
    units = j_last - j_first
    one = gates.dtype.type(1)
    for n in range(i_first, i_last):
        z, hat = gates[n, Z * width + j_first :], gates[n, HAT * width + j_first :]
        dz, dhat = dts[n, Z * width + j_first :], dts[n, HAT * width + j_first :]
        above, running = dhs[order[n], t, j_first:j_last], dh[n, j_first:j_last]
        previous = before[n, j_first:j_last]
        for j in range(units):
            running[j] += above[j]
        for j in range(units):
            dz[j] = running[j] * (hat[j] - previous[j]) * (z[j] * (one - z[j]))
            dhat[j] = running[j] * z[j] * fma(-hat[j], hat[j], one)
        for j in range(units):
            running[j] *= one - z[j]
        if after:
            r, u = gates[n, R * width + j_first :], gates[n, U * width + j_first :]
            dr, du = dts[n, R * width + j_first :], dts[n, U * width + j_first :]
            for j in range(units):
                dr[j] = dhat[j] * u[j] * (r[j] * (one - r[j]))
                du[j] = dhat[j] * r[j]


@spliced
def gru_cell_reset_backward(part, width, gates, before, dproduct, dh, dts):
    """Back through r h_before: dr = d h_before r (1 - r), dh += d r; r h_before itself goes where u would be.

    gates     (count.., gate row)   read, r
    before    (count.., row)        read
    dproduct  (N, row)              read, d
    dh        (N, row)              accumulated
    dts       (count.., gate row)   dr and r h_before overwritten
    """
    i_first, i_last, j_first, j_last = part
    units = j_last - j_first
    one = gates.dtype.type(1)
    for n in range(i_first, i_last):
        r, previous = gates[n, R * width + j_first :], before[n, j_first:j_last]
        dr, product = dts[n, R * width + j_first :], dts[n, U * width + j_first :]
        d, running = dproduct[n, j_first:j_last], dh[n, j_first:j_last]
        for j in range(units):
            product[j] = r[j] * previous[j]
            dr[j] = d[j] * previous[j] * (r[j] * (one - r[j]))
        for j in range(units):
            running[j] = fma(d[j], r[j], running[j])
