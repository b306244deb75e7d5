"""The GRU over a whole sequence: gates z, r and candidate h_hat; h_t = (1 - z) h_{t-1} + z h_hat.

The reset gate acts before the product, h_hat = tanh(x Wxh + (r h_{t-1}) Whh + bh), as in the book, or after
it, h_hat = tanh(x Wxh + bh + r (h_{t-1} Whh + bhh)), as in PyTorch and cuDNN.

The backward pass needs z, r, h_hat and, with the reset gate after, u = h_{t-1} Whh + bhh of every step. Where
that is too much memory, blocks of it are made again from the states, as in `lstm.py`.
"""

from __future__ import annotations

from ._jit import kernel, spliced
from .activations import sigmoid_row, tanh_row
from .gemm import ONE, ZERO, gemm, pack, packed_view
from .gru_cell import (
    GATES,
    HAT,
    R,
    U,
    gru_cell_backward,
    gru_cell_candidate,
    gru_cell_gates,
    gru_cell_output,
    gru_cell_reset,
    gru_cell_reset_backward,
)
from .sequence import (
    add_product,
    bias_gradient,
    clear_ends,
    clear_resets,
    gather_state,
    gather_states_before,
    gather_steps,
    input_product,
    masked_rows,
    scatter_last,
    scatter_state,
    scatter_steps,
    slot_of_block,
    state_rows_before,
    weight_gradient,
)
from .simd import fma
from .tile import ADD_TO, FROM_START, OVERWRITE, PANEL_BYTES
from .vectors import copy_row


@spliced
def _pack_weights(width, depth, wx, wh, packed_x, packed_gates, packed_hat):
    """Wx, the columns of Wh for z and r, and those for the candidate, each in panels."""
    cols = GATES * width
    flat = wh.reshape(-1)
    pack(depth, cols, (wx.reshape(-1), ZERO, cols, ONE), packed_x)
    pack(width, 2 * width, (flat, ZERO, cols, ONE), packed_gates)
    pack(width, width, (flat, HAT * width, cols, ONE), packed_hat)


@spliced
def _recurrent_product(width, after, count, first, a, bhh, packed_gates, packed_hat, gates):
    """Add h Wh to z and r, and with the reset gate after, u = bhh + h Whh; then z, r = sigmoid.

    a  operand  (count, H), read, the states before
    """
    gate_row = gates.shape[1]
    panel = PANEL_BYTES // gates.itemsize
    c = (gates.reshape(-1), first * gate_row, gate_row, panel)
    gemm(count, 2 * width, width, a, packed_view(packed_gates, width), c, c, FROM_START)
    if after:
        c = (gates.reshape(-1), first * gate_row + U * width, gate_row, panel)
        gemm(count, width, width, a, packed_view(packed_hat, width), (bhh, ZERO, ZERO, panel), c, FROM_START)
    gru_cell_gates(width, gates[first : first + count])


@spliced
def _candidate_product(width, count, first, packed_hat, gates, before, product):
    """Add (r h_before) Whh to the candidate's pre-activation, where the reset gate acts before it."""
    gate_row, row = gates.shape[1], product.shape[1]
    panel = PANEL_BYTES // gates.itemsize
    gru_cell_reset(width, gates[first : first + count], before, product)
    c = (gates.reshape(-1), first * gate_row + HAT * width, gate_row, panel)
    a = (product.reshape(-1), ZERO, row, ONE)
    gemm(count, width, width, a, packed_view(packed_hat, width), c, c, FROM_START)


@kernel
def gru_forward(
    xs, h0, wx, wh, b, bhh, after, offsets, order, blocks, resets, states, gates, hs, h_last,
    packed_x, packed_gates, packed_hat, x_block, kept, product,
):  # fmt: skip
    """z, r = sigmoid of x_t Wx + h_{t-1} Wh + b; h_hat as `after` says; h_t = (1 - z) h_{t-1} + z h_hat.

    xs            (N, T, D)                        read
    h0            (N, H)                           read
    wx            (D, 3H)                          read
    wh            (H, 3H)                          read
    b             (3H,)                            read
    bhh           (H,)                             read if after
    after         bool                             h_hat = tanh(x Wxh + bh + r (h Whh + bhh)), else
                                                   tanh(x Wxh + (r h) Whh + bh)
    offsets       (T+1,)                           read, int64, first row of each step
    order         (N,)                             read, int64, sequences by falling length
    blocks        (blocks+1,)                      read, int64, first step of each block of the grid, and T
    resets        (N, T) or (0, 0)                 read, bool, where the state is zero before the step
    states        (N + rows, row)                  overwritten, the first N with h0; rows = offsets[T]
    gates         (slots block rows, gate row)     overwritten, block k in slot k % slots
    hs            (N, T, H)                        overwritten, zero where a sequence has ended
    h_last        (N, H)                           overwritten, the state after the last step; may be h0
    packed_x      (packed_size(D, 3H),)            scratch
    packed_gates  (packed_size(H, 2H),)            scratch
    packed_hat    (packed_size(H, H),)             scratch
    x_block       (block rows, x row)              scratch
    kept          (N, row)                         scratch if there are resets
    product       (N, row)                         scratch
    """
    depth = xs.shape[2]
    batch, width = order.size, hs.shape[2]
    row, gate_row = states.shape[1], gates.shape[1]
    panel = PANEL_BYTES // xs.itemsize
    flat_states, flat_gates = states.reshape(-1), gates.reshape(-1)
    _pack_weights(width, depth, wx, wh, packed_x, packed_gates, packed_hat)
    gather_state(order, h0, states)
    for k in range(blocks.size - 1):
        t_first, t_last = blocks[k], blocks[k + 1]
        slot = slot_of_block(k, x_block, gates)
        gather_steps(t_first, t_last, offsets, order, xs, x_block)
        rows = offsets[t_last] - offsets[t_first]
        c = (flat_gates, slot * gate_row, gate_row, panel)
        input_product(rows, x_block, packed_x, b, c)
        for t in range(t_first, t_last):
            first, count = batch + offsets[t], offsets[t + 1] - offsets[t]
            here = slot + offsets[t] - offsets[t_first]
            place = state_rows_before(t, batch, offsets)
            before = states[place : place + count]
            a = (flat_states, place * row, row, ONE)
            if resets.size:
                masked_rows(t, order, resets, before, kept)
                before = kept
                a = (kept.reshape(-1), ZERO, row, ONE)
            _recurrent_product(width, after, count, here, a, bhh, packed_gates, packed_hat, gates)
            if not after:
                _candidate_product(width, count, here, packed_hat, gates, before, product)
            gru_cell_candidate(width, after, gates[here : here + count])
            gru_cell_output(t, order, gates[here : here + count], before, states[first : first + count], hs)
    clear_ends(offsets, order, hs)
    scatter_last(offsets, order, states, h_last)


@spliced
def _remake_block(
    rows, slot, width, after, packed_x, packed_gates, packed_hat, b, bhh, x_block, h_block, gates, product
):
    """The gates of one block again, in its slot; once h is known they are products over the whole block.

    x_block, h_block   (block rows, x row or row)   read, inputs and states before each step
    gates              overwritten in the slot
    product            (block rows, row)            scratch
    """
    gate_row, row = gates.shape[1], h_block.shape[1]
    panel = PANEL_BYTES // gates.itemsize
    c = (gates.reshape(-1), slot * gate_row, gate_row, panel)
    input_product(rows, x_block, packed_x, b, c)
    a = (h_block.reshape(-1), ZERO, row, ONE)
    _recurrent_product(width, after, rows, slot, a, bhh, packed_gates, packed_hat, gates)
    if not after:
        _candidate_product(width, rows, slot, packed_hat, gates, h_block, product)
    gru_cell_candidate(width, after, gates[slot : slot + rows])


@spliced
def _block_gradients(
    rows, width, after, dts, x_block, h_block, packed_x, packed_dt, dwx, dwh, db, dbhh, mode
):
    """What the rows of one block add to the gradients of the parameters; then x_block = dt Wx^T.

    dts, h_block, packed_x  read
    x_block                 (block rows, x row)   read, then overwritten
    packed_dt               scratch
    dwx, dwh, db, dbhh      overwritten, or accumulated if mode is ADD_TO
    """
    cols, depth = GATES * width, dwx.shape[0]
    gate_row, x_row, row = dts.shape[1], x_block.shape[1], h_block.shape[1]
    panel = PANEL_BYTES // dts.itemsize
    flat_dts, flat_x, flat_dwh = dts.reshape(-1), x_block.reshape(-1), dwh.reshape(-1)
    last = (rows - 1) * gate_row
    states, inputs = (h_block.reshape(-1), ZERO, row, ONE), (flat_x, ZERO, x_row, ONE)
    pack(rows, cols, (flat_dts, last, -gate_row, ONE), packed_dt)
    weight_gradient(rows, width, 2 * width, states, packed_dt, (flat_dwh, ZERO, cols, panel), mode)
    weight_gradient(rows, depth, cols, inputs, packed_dt, (dwx.reshape(-1), ZERO, cols, panel), mode)
    # The candidate's product: du with the states before, or dh_hat with r h_before, which lies beside it.
    pack(rows, width, (flat_dts, last + (U if after else HAT) * width, -gate_row, ONE), packed_dt)
    a = states if after else (flat_dts, U * width, gate_row, ONE)
    weight_gradient(rows, width, width, a, packed_dt, (flat_dwh, HAT * width, cols, panel), mode)
    bias_gradient(rows, 0, cols, dts, db, packed_dt, mode)  # packed_dt has been used
    if after:
        bias_gradient(rows, U * width, width, dts, dbhh, packed_dt, mode)
    c = (flat_x, ZERO, x_row, panel)
    gemm(rows, depth, cols, (flat_dts, ZERO, gate_row, ONE), packed_view(packed_x, cols), c, c, OVERWRITE)


@kernel
def gru_backward(
    xs, states, gates, intact, dhs, dh_next, wx, wh, b, bhh, after, offsets, order, blocks, resets,
    dxs, dh0, dwx, dwh, db, dbhh,
    packed_x, packed_gates, packed_hat, packed_wx, packed_wz, packed_wh, packed_dt,
    dts, dh, dproduct, x_block, h_block, product,
):  # fmt: skip
    """Backpropagation through time, with the gradients of `gru_cell_backward`: dx_t = [dz dr dh_hat] Wx^T;
    dh_{t-1} = dh_t (1 - z) + [dz dr] Wh_zr^T + r (dh_hat Whh^T), or + du Whh^T after.

    xs             (N, T, D)                        read
    states         (N + rows, row)                  read, as gru_forward left it
    gates          (slots block rows, gate row)     read; overwritten by blocks made again
    intact         int                              blocks from this one on are in their slots
    dhs            (N, T, H)                        read, the gradient of each output
    dh_next        (N, H)                           read, the gradient of the final state
    wx, wh, b      (D, 3H), (H, 3H), (3H,)          read
    bhh            (H,)                             read if after
    after, offsets, order, blocks, resets           read, as in gru_forward
    dxs            (N, T, D)                        overwritten, zero where a sequence has ended
    dh0            (N, H)                           overwritten, the gradient of the initial state
    dwx, dwh, db   (D, 3H), (H, 3H), (3H,)          overwritten
    dbhh           (H,)                             overwritten if after
    packed_x       (packed_size(3H, D),)            scratch
    packed_gates   (packed_size(2H, H),)            scratch
    packed_hat     (packed_size(H, H),)             scratch
    packed_wx      (packed_size(D, 3H),) or (0,)    scratch, needed if a block is made again
    packed_wz      (packed_size(H, 2H),) or (0,)    scratch, likewise
    packed_wh      (packed_size(H, H),) or (0,)     scratch, likewise
    packed_dt      (packed_size(block rows, 3H),)   scratch, block rows = block_steps(N) N
    dts            (block rows, gate row)           scratch
    dh, dproduct   (N, row)                         scratch
    x_block        (block rows, x row)              scratch
    h_block        (block rows, row)                scratch
    product        (block rows, row)                scratch, needed if a block is made again
    """
    steps, depth = xs.shape[1:]
    width = dhs.shape[2]
    cols = GATES * width
    row, gate_row = states.shape[1], dts.shape[1]
    panel = PANEL_BYTES // xs.itemsize
    flat_dts, flat_dh, flat_wh = dts.reshape(-1), dh.reshape(-1), wh.reshape(-1)
    pack(cols, depth, (wx.reshape(-1), ZERO, ONE, cols), packed_x)
    pack(2 * width, width, (flat_wh, ZERO, ONE, cols), packed_gates)
    pack(width, width, (flat_wh, HAT * width, ONE, cols), packed_hat)
    if intact > 0:
        _pack_weights(width, depth, wx, wh, packed_wx, packed_wz, packed_wh)
    gather_state(order, dh_next, dh)
    if not offsets[steps]:
        dwx[:] = 0
        dwh[:] = 0
        db[:] = 0
        dbhh[:] = 0
    mode = OVERWRITE
    for k in range(blocks.size - 2, -1, -1):
        t_first, t_last = blocks[k], blocks[k + 1]
        rows = offsets[t_last] - offsets[t_first]
        if not rows:
            continue
        slot = slot_of_block(k, x_block, gates)
        gather_steps(t_first, t_last, offsets, order, xs, x_block)
        gather_states_before(t_first, t_last, offsets, order, resets, states, h_block)
        if k < intact:
            _remake_block(
                rows,
                slot,
                width,
                after,
                packed_wx,
                packed_wz,
                packed_wh,
                b,
                bhh,
                x_block,
                h_block,
                gates,
                product,
            )
        for t in range(t_last - 1, t_first - 1, -1):
            here, count = offsets[t] - offsets[t_first], offsets[t + 1] - offsets[t]
            before, dt = h_block[here : here + count], dts[here : here + count]
            gates_here = gates[slot + here : slot + here + count]
            gru_cell_backward(t, order, after, gates_here, before, dhs, dh, dt)
            first, c = here * gate_row, (flat_dh, ZERO, row, panel)
            if after:
                a = (flat_dts, first + U * width, gate_row, ONE)
                gemm(count, width, width, a, packed_view(packed_hat, width), c, c, FROM_START)
            else:
                a, d = (
                    (flat_dts, first + HAT * width, gate_row, ONE),
                    (dproduct.reshape(-1), ZERO, row, panel),
                )
                gemm(count, width, width, a, packed_view(packed_hat, width), d, d, OVERWRITE)
                gru_cell_reset_backward(width, gates_here, before, dproduct, dh, dt)
            a = (flat_dts, first, gate_row, ONE)
            gemm(count, width, 2 * width, a, packed_view(packed_gates, 2 * width), c, c, FROM_START)
            clear_resets(t, count, order, resets, dh)
        _block_gradients(
            rows, width, after, dts, x_block, h_block, packed_x, packed_dt, dwx, dwh, db, dbhh, mode
        )
        scatter_steps(t_first, t_last, offsets, order, x_block, dxs)
        mode = ADD_TO
    clear_ends(offsets, order, dxs)
    scatter_state(order, dh, dh0)


@kernel
def gru_step(x, h, wx, wh, b, bhh, after, gates, product, h_next):
    """One step with the bits of gru_forward, its weights read where they lie.

    x        (N, D)     read
    h        (N, H)     read
    wx       (D, 3H)    read
    wh       (H, 3H)    read
    b        (3H,)      read
    bhh      (H,)       read if after
    after    bool       as in gru_forward
    gates    (3H,)      scratch
    product  (H,)       scratch
    h_next   (N, H)     overwritten; not h
    """
    width = h.shape[1]
    one = x.dtype.type(1)
    for n in range(x.shape[0]):
        copy_row(b, gates)
        add_product(x[n], wx, 0, gates)
        add_product(h[n], wh, 0, gates[: 2 * width])
        sigmoid_row(gates[: 2 * width])
        hat = gates[HAT * width :]
        if after:
            copy_row(bhh, product)
            add_product(h[n], wh, HAT * width, product)
            for j in range(width):
                hat[j] = fma(gates[R * width + j], product[j], hat[j])
        else:
            for j in range(width):
                product[j] = gates[R * width + j] * h[n, j]
            add_product(product, wh, HAT * width, hat)
        tanh_row(hat)
        for j in range(width):
            z = gates[j]
            h_next[n, j] = fma(z, hat[j], (one - z) * h[n, j])
