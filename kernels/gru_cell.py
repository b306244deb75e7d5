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
def gru_cell_gates(width, gates):
    """z, r = sigmoid of the pre-activations.

    gates  (count, gate row)   z and r overwritten, their pre-activations before
    """
    for n in range(gates.shape[0]):
        sigmoid_row(gates[n, Z * width : (R + 1) * width])


@spliced
def gru_cell_reset(width, gates, before, product):
    """product = r h_before: what goes into the product where the reset gate acts before it.

    gates    (count, gate row)   read, r
    before   (count.., row)      read
    product  (count.., row)      overwritten
    """
    for n in range(gates.shape[0]):
        r, h, out = gates[n, R * width : (R + 1) * width], before[n, :width], product[n, :width]
        for j in range(width):
            out[j] = r[j] * h[j]


@spliced
def gru_cell_candidate(width, after, gates):
    """h_hat = tanh of its pre-activation, to which r u is added first where the reset gate acts after.

    gates  (count, gate row)   h_hat overwritten, its pre-activation before; r, u read
    """
    for n in range(gates.shape[0]):
        hat = gates[n, HAT * width : (HAT + 1) * width]
        if after:
            r, u = gates[n, R * width : (R + 1) * width], gates[n, U * width : (U + 1) * width]
            for j in range(width):
                hat[j] = fma(r[j], u[j], hat[j])
        tanh_row(hat)


@spliced
def gru_cell_output(t, order, gates, before, states, hs):
    """states = hs[order[n], t] = (1 - z) h_before + z h_hat.

    gates   (count, gate row)   read
    before  (count.., row)      read
    states  (count, row)        overwritten
    hs      (N, T, H)           step t overwritten
    """
    width = hs.shape[2]
    one = hs.dtype.type(1)
    for n in range(gates.shape[0]):
        z, hat = gates[n, Z * width : (Z + 1) * width], gates[n, HAT * width : (HAT + 1) * width]
        previous, state, out = before[n, :width], states[n, :width], hs[order[n], t]
        for j in range(width):
            h = fma(z[j], hat[j], (one - z[j]) * previous[j])
            state[j] = h
            out[j] = h


@spliced
def gru_cell_backward(t, order, after, gates, before, dhs, dh, dts):
    """dz and dh_hat, those of the pre-activations, and the part of dh_before that passes by: dh_t (1 - z).

    With dh_t = dhs[:, t] + dh: dz = dh_t (h_hat - h_before) z (1 - z), dh_hat = dh_t z (1 - h_hat^2); where
    the reset gate acts after the product also dr = dh_hat u r (1 - r) and du = dh_hat r.

    gates   (count, gate row)   read
    before  (count.., row)      read, h_before
    dhs     (N, T, H)           read
    dh      (N, row)            first `count` rows overwritten; the gradient from step t + 1 before
    dts     (count, gate row)   dz, dh_hat (and dr, du) overwritten
    """
    width = dhs.shape[2]
    one = gates.dtype.type(1)
    for n in range(gates.shape[0]):
        z, hat = gates[n, Z * width : (Z + 1) * width], gates[n, HAT * width : (HAT + 1) * width]
        dz, dhat = dts[n, Z * width : (Z + 1) * width], dts[n, HAT * width : (HAT + 1) * width]
        above, running, previous = dhs[order[n], t], dh[n, :width], before[n, :width]
        for j in range(width):
            running[j] += above[j]
        for j in range(width):
            dz[j] = running[j] * (hat[j] - previous[j]) * (z[j] * (one - z[j]))
            dhat[j] = running[j] * z[j] * fma(-hat[j], hat[j], one)
        for j in range(width):
            running[j] *= one - z[j]
        if after:
            r, u = gates[n, R * width : (R + 1) * width], gates[n, U * width : (U + 1) * width]
            dr, du = dts[n, R * width : (R + 1) * width], dts[n, U * width : (U + 1) * width]
            for j in range(width):
                dr[j] = dhat[j] * u[j] * (r[j] * (one - r[j]))
                du[j] = dhat[j] * r[j]


@spliced
def gru_cell_reset_backward(width, gates, before, dproduct, dh, dts):
    """Back through r h_before: dr = d h_before r (1 - r), dh += d r; r h_before itself goes where u would be.

    gates     (count, gate row)   read, r
    before    (count.., row)      read
    dproduct  (N, row)            read, d
    dh        (N, row)            first `count` rows accumulated
    dts       (count, gate row)   dr and r h_before overwritten
    """
    one = gates.dtype.type(1)
    for n in range(gates.shape[0]):
        r, previous = gates[n, R * width : (R + 1) * width], before[n, :width]
        dr, product = dts[n, R * width : (R + 1) * width], dts[n, U * width : (U + 1) * width]
        d, running = dproduct[n, :width], dh[n, :width]
        for j in range(width):
            product[j] = r[j] * previous[j]
            dr[j] = d[j] * previous[j] * (r[j] * (one - r[j]))
        for j in range(width):
            running[j] = fma(d[j], r[j], running[j])
