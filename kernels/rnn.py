"""The Elman network over a whole sequence: h_t = act(x_t Wx + h_{t-1} Wh + b), act = tanh or relu.

Only h_{t-1} Wh is sequential. The input product of a block of steps is done before its time loop, the
products for dx, dWx, dWh after it, so that the loop keeps one product and one elementwise pass a step. States
live time-major in (T+1, N, row) with slot 0 the initial state; rows are padded so that twelve of them do not
fall into the same cache sets.

Weight gradients are summed over blocks of `block_steps(N)` steps on a grid that starts at t = 0: descending
in time inside a block, then block after block, the last one first.
"""

from __future__ import annotations

import numpy as np

from ._jit import kernel, spliced
from .activations import tanh
from .gemm import gemm, pack, packed_view, view
from .simd import fma
from .tile import ADD_TO, FROM_START, OVERWRITE, PANEL_BYTES

# Rows (steps times batch) in one block of the time grid: long sums stay accurate, tiles are filled when N is
# small, and dW, read and written once a block, costs little. 256 measured the same within the noise.
BLOCK_ROWS = 512


def padded_row(width: int, dtype: np.dtype) -> int:
    """Elements from one state row to the next: whole cache lines, and never a multiple of 1 KiB.

    Rows at such a distance would share cache sets.
    """
    line = 64 // dtype.itemsize
    row = -(-width // line) * line
    return row + line if row * dtype.itemsize % 1024 == 0 else row


@spliced
def _block_steps(batch):
    return max(1, BLOCK_ROWS // max(1, batch))


def block_steps(batch: int) -> int:
    """Steps in one block of the time grid."""
    return max(1, BLOCK_ROWS // max(1, batch))


@spliced
def copy_rows(source, target):
    """target[n, j] = source[n, j] over the columns that both have.

    Numba compiles this loop in a tenth of the seconds that it needs for an assignment between slices, whose
    shape check builds a message from strings.

    source  (N, columns)   read
    target  (N, columns)   overwritten
    """
    width = min(source.shape[1], target.shape[1])
    for n in range(source.shape[0]):
        row, out = source[n], target[n]
        for j in range(width):
            out[j] = row[j]


@spliced
def input_product(t_first, t_last, xs, packed, b, pre, slot):
    """pre[t + slot, n] = b + xs[n, t] W for t_first <= t < t_last.

    xs      (N, T, D)                      read
    packed  (packed_size(D, cols),)        read, W in panels
    b       (cols,)                        read
    pre     (slots, N, row), row >= cols   overwritten
    """
    batch, steps, depth = xs.shape
    row = pre.shape[2]
    flat_xs, flat_pre = xs.reshape(-1), pre.reshape(-1)
    cols = b.size
    width = PANEL_BYTES // xs.itemsize
    panels = packed_view(packed, depth)
    bias = view(b, 0, 0, width)
    count = t_last - t_first
    # Rows of one tile run along the longer of the two axes.
    if count >= batch:
        for n in range(batch):
            a = view(flat_xs, (n * steps + t_first) * depth, depth, 1)
            c = view(flat_pre, ((t_first + slot) * batch + n) * row, batch * row, width)
            gemm(count, cols, depth, a, panels, bias, c, FROM_START)
    else:
        for t in range(t_first, t_last):
            a = view(flat_xs, t * depth, steps * depth, 1)
            c = view(flat_pre, (t + slot) * batch * row, row, width)
            gemm(batch, cols, depth, a, panels, bias, c, FROM_START)


@spliced
def input_gradient(t_first, t_last, dts, packed, dxs):
    """dxs[n, t] = dts[t - t_first, n] W^T for t_first <= t < t_last.

    dts     (block steps, N, row)      read
    packed  (packed_size(cols, D),)    read, W^T in panels
    dxs     (N, T, D)                  overwritten on those steps
    """
    batch, steps, cols = dxs.shape
    row = dts.shape[2]
    width = PANEL_BYTES // dxs.itemsize
    depth = packed.size // (-(-cols // width) * width)
    flat_dts, flat_dxs = dts.reshape(-1), dxs.reshape(-1)
    panels = packed_view(packed, depth)
    count = t_last - t_first
    if count >= batch:
        for n in range(batch):
            a = view(flat_dts, n * row, batch * row, 1)
            c = view(flat_dxs, (n * steps + t_first) * cols, cols, width)
            gemm(count, cols, depth, a, panels, c, c, OVERWRITE)
    else:
        for t in range(t_first, t_last):
            a = view(flat_dts, (t - t_first) * batch * row, row, 1)
            c = view(flat_dxs, t * cols, steps * cols, width)
            gemm(batch, cols, depth, a, panels, c, c, OVERWRITE)


@spliced
def gather_block(t_first, t_last, xs, block):
    """block[t - t_first, n] = xs[n, t]: the inputs of a block, time-major and contiguous.

    xs     (N, T, D)               read
    block  (block steps, N, D)     overwritten
    """
    batch, _, depth = xs.shape
    for t in range(t_first, t_last):
        for n in range(batch):
            source = xs[n, t]
            target = block[t - t_first, n]
            for d in range(depth):
                target[d] = source[d]


@spliced
def weight_gradient(rows, depth, cols, a, packed, dw, mode):
    """dW = A^T D (or dW + A^T D) over the rows of a block, last row first.

    a       (array, first, row, 1)           (rows, depth), read
    packed  (packed_size(rows, cols),)       read, the rows of D in panels, last row first
    dw      (depth, cols)                    overwritten, or accumulated if mode is ADD_TO
    """
    array, first, row, _ = a
    width = PANEL_BYTES // dw.itemsize
    c = view(dw.reshape(-1), 0, cols, width)
    gemm(
        depth,
        cols,
        rows,
        view(array, first + (rows - 1) * row, 1, -row),
        packed_view(packed, rows),
        c,
        c,
        mode,
    )


@spliced
def bias_gradient(rows, cols, dts, db, block_sum, mode):
    """db = sum over the rows of D (or db + that sum), last row first.

    dts        (block steps, N, row)     read
    db         (cols,)                   overwritten, or accumulated if mode is ADD_TO
    block_sum  (cols,)                   scratch
    """
    row = dts.shape[2]
    flat = dts.reshape(-1)
    total = block_sum[:cols]
    total[:] = 0
    for r in range(rows - 1, -1, -1):
        source = flat[r * row : r * row + cols]
        for j in range(cols):
            total[j] += source[j]
    if mode == ADD_TO:
        for j in range(cols):
            db[j] += total[j]
    else:
        for j in range(cols):
            db[j] = total[j]


@spliced
def rnn_cell_forward(t, relu, states, hs):
    """states[t + 1] = hs[:, t] = act(states[t + 1]), which holds the pre-activation.

    states  (T+1, N, row)   slot t + 1 overwritten
    hs      (N, T, H)       step t overwritten
    """
    batch, _, width = hs.shape
    zero = hs.dtype.type(0)
    for n in range(batch):
        state = states[t + 1, n, :width]
        out = hs[n, t]
        if relu:
            for j in range(width):
                h = zero if state[j] <= zero else state[j]  # NaN stays NaN
                state[j] = h
                out[j] = h
        else:
            for j in range(width):
                h = tanh(state[j])
                state[j] = h
                out[j] = h


@spliced
def rnn_cell_backward(t, relu, states, dhs, dh, dt):
    """dt = (dhs[:, t] + dh) * act'(a_t), with act' from h_t: 1 - h^2, or h > 0.

    states  (T+1, N, row)   read
    dhs     (N, T, H)       read
    dh      (N, row)        read, the gradient that arrives from step t + 1
    dt      (N, row)        overwritten
    """
    batch, _, width = dhs.shape
    one = states.dtype.type(1)
    zero = states.dtype.type(0)
    for n in range(batch):
        h = states[t + 1, n, :width]
        above = dhs[n, t]
        later = dh[n, :width]
        out = dt[n, :width]
        if relu:
            for j in range(width):
                out[j] = above[j] + later[j] if h[j] > zero else zero
        else:
            for j in range(width):
                out[j] = (above[j] + later[j]) * fma(-h[j], h[j], one)


@kernel
def rnn_forward(xs, h0, wx, wh, b, relu, states, hs, packed_x, packed_h):
    """h_t = act(x_t Wx + h_{t-1} Wh + b) for t = 0..T-1.

    xs        (N, T, D)               read
    h0        (N, H)                  read
    wx        (D, H)                  read
    wh        (H, H)                  read
    b         (H,)                    read
    relu      bool                    act is relu, else tanh
    states    (T+1, N, row)           overwritten, slot 0 with h0
    hs        (N, T, H)               overwritten
    packed_x  (packed_size(D, H),)    scratch
    packed_h  (packed_size(H, H),)    scratch
    """
    batch, steps, depth = xs.shape
    width = hs.shape[2]
    row = states.shape[2]
    panel = PANEL_BYTES // xs.itemsize
    flat_states = states.reshape(-1)
    pack(depth, width, view(wx.reshape(-1), 0, width, 1), packed_x)
    pack(width, width, view(wh.reshape(-1), 0, width, 1), packed_h)
    copy_rows(h0, states[0])
    block = _block_steps(batch)
    for t_first in range(0, steps, block):
        t_last = min(t_first + block, steps)
        input_product(t_first, t_last, xs, packed_x, b, states, 1)
        for t in range(t_first, t_last):
            c = view(flat_states, (t + 1) * batch * row, row, panel)
            a = view(flat_states, t * batch * row, row, 1)
            gemm(batch, width, width, a, packed_view(packed_h, width), c, c, FROM_START)
            rnn_cell_forward(t, relu, states, hs)


@kernel
def rnn_backward(
    xs,
    states,
    dhs,
    dh_next,
    wx,
    wh,
    relu,
    dxs,
    dh0,
    dwx,
    dwh,
    db,
    packed_x,
    packed_h,
    packed_dt,
    dts,
    dh,
    x_block,
):
    """Backpropagation through time: dt = (dh_t + dhs_t) * act', dh_{t-1} = dt Wh^T, dx_t = dt Wx^T,
    dWx = sum x_t^T dt, dWh = sum h_{t-1}^T dt, db = sum dt.

    xs         (N, T, D)                  read
    states     (T+1, N, row)              read, as rnn_forward left it
    dhs        (N, T, H)                  read, the gradient of each output
    dh_next    (N, H)                     read, the gradient of the final state
    wx, wh     (D, H), (H, H)             read
    relu       bool                       act is relu, else tanh
    dxs        (N, T, D)                  overwritten
    dh0        (N, H)                     overwritten, the gradient of the initial state
    dwx        (D, H)                     overwritten
    dwh        (H, H)                     overwritten
    db         (H,)                       overwritten
    packed_x   (packed_size(H, D),)       scratch
    packed_h   (packed_size(H, H),)       scratch
    packed_dt  (packed_size(rows, H),)    scratch, rows = block_steps(N) N
    dts        (block_steps(N), N, row)   scratch
    dh         (N, row)                   scratch
    x_block    (block_steps(N), N, D)     scratch
    """
    batch, steps, depth = xs.shape
    width = dhs.shape[2]
    row = states.shape[2]
    panel = PANEL_BYTES // xs.itemsize
    flat_states, flat_dts, flat_dh, flat_x = (
        states.reshape(-1),
        dts.reshape(-1),
        dh.reshape(-1),
        x_block.reshape(-1),
    )
    pack(width, depth, view(wx.reshape(-1), 0, 1, width), packed_x)
    pack(width, width, view(wh.reshape(-1), 0, 1, width), packed_h)
    copy_rows(dh_next, dh)
    if batch * steps == 0:
        dwx[:] = 0
        dwh[:] = 0
        db[:] = 0
    block = _block_steps(batch)
    mode = OVERWRITE
    for t_first in range((steps - 1) // block * block if batch else -1, -1, -block):
        t_last = min(t_first + block, steps)
        for t in range(t_last - 1, t_first - 1, -1):
            rnn_cell_backward(t, relu, states, dhs, dh, dts[t - t_first])
            a = view(flat_dts, (t - t_first) * batch * row, row, 1)
            c = view(flat_dh, 0, row, panel)
            gemm(batch, width, width, a, packed_view(packed_h, width), c, c, OVERWRITE)
        input_gradient(t_first, t_last, dts, packed_x, dxs)
        gather_block(t_first, t_last, xs, x_block)
        rows = (t_last - t_first) * batch
        pack(rows, width, view(flat_dts, (rows - 1) * row, -row, 1), packed_dt)
        weight_gradient(rows, depth, width, view(flat_x, 0, depth, 1), packed_dt, dwx, mode)
        weight_gradient(
            rows, width, width, view(flat_states, t_first * batch * row, row, 1), packed_dt, dwh, mode
        )
        bias_gradient(rows, width, dts, db, dh0.reshape(-1), mode)  # dh0 is free until the end
        mode = ADD_TO
    copy_rows(dh, dh0)


@kernel
def rnn_step(x, h, wx, wh, b, relu, out):
    """out = act(x Wx + h Wh + b): one step with the bits of rnn_forward, its weights read where they lie.

    x     (N, D)    read
    h     (N, H)    read
    wx    (D, H)    read
    wh    (H, H)    read
    b     (H,)      read
    relu  bool      act is relu, else tanh
    out   (N, H)    overwritten; not h
    """
    width = wh.shape[0]
    zero = x.dtype.type(0)
    for n in range(x.shape[0]):
        sums = out[n]
        for j in range(width):
            sums[j] = b[j]
        for source, weights in ((x[n], wx), (h[n], wh)):
            for k in range(source.size):
                value = source[k]
                line = weights[k]
                for j in range(width):
                    sums[j] = fma(value, line[j], sums[j])
        for j in range(width):
            a = sums[j]
            if relu:
                sums[j] = zero if a <= zero else a
            else:
                sums[j] = tanh(a)
