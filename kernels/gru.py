"""The GRU over a whole sequence: gates z, r and candidate h_hat; h_t = (1 - z) h_{t-1} + z h_hat.

The reset gate acts before the product, h_hat = tanh(x Wxh + (r h_{t-1}) Whh + bh), as in the book, or after
it, h_hat = tanh(x Wxh + bh + r (h_{t-1} Whh + bhh)), as in PyTorch and cuDNN.

The backward pass needs z, r, h_hat and, with the reset gate after, u = h_{t-1} Whh + bhh of every step. Where
that is too much memory, blocks of it are made again from the states, as in `lstm.py`.
"""

from __future__ import annotations

import numpy as np

from ._jit import kernel, spliced
from .activations import sigmoid_row, tanh_row
from .denormals import flush_denormals, restore_mode
from .gemm import ONE, ZERO, gemm, pack, packed_view
from .gru_cell import (
    GATES,
    HAT,
    R,
    U,
    Z,
    gru_cell_backward,
    gru_cell_candidate,
    gru_cell_gates,
    gru_cell_output,
    gru_cell_reset,
    gru_cell_reset_backward,
)
from .row import add_product
from .sequence import (
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
from .shares import (
    own_part,
    pack_recurrent,
    recurrent_product,
    share,
)
from .simd import fma
from .team import BY_UNITS, MEMBERS, begin_call, end_call, meet
from .tile import ADD_TO, FROM_START, OVERWRITE, PANEL_BYTES
from .vectors import copy_row

TWO = np.int64(2)  # z and r, which come first


@kernel
def gru_forward(
    team, member, xs, h0, wx, wh, b, bhh, after, offsets, order, blocks, resets, states, gates, hs, h_last,
    packed_x, packed_gates, packed_hat, x_block, kept, product,
):  # fmt: skip
    """z, r = sigmoid of x_t Wx + h_{t-1} Wh + b; h_hat as `after` says; h_t = (1 - z) h_{t-1} + z h_hat.

    team, member                                   the threads at work, and which this is: see team.py
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
    packed_gates  (recurrent_packed_size(H, H, 2, members),)   scratch
    packed_hat    (recurrent_packed_size(H, H, 1, members),)   scratch
    x_block       (block rows, x row)              scratch
    kept          (N, row)                         scratch if there are resets
    product       (N, row)                         scratch
    """
    mode_before = flush_denormals()
    goal = begin_call(team, member)
    depth = xs.shape[2]
    batch, width = order.size, hs.shape[2]
    cols = GATES * width
    row, gate_row = states.shape[1], gates.shape[1]
    panel = PANEL_BYTES // xs.itemsize
    flat_states, flat_gates, flat_wh = states.reshape(-1), gates.reshape(-1), wh.reshape(-1)
    pack(member, team[MEMBERS], depth, cols, (wx.reshape(-1), ZERO, cols, ONE), packed_x)
    pack_recurrent(team, member, width, width, TWO, (flat_wh, ZERO, cols, ONE), packed_gates)
    pack_recurrent(team, member, width, width, ONE, (flat_wh, HAT * width, cols, ONE), packed_hat)
    if member == 0:
        gather_state(order, h0, states)
    goal = meet(team, goal)
    for k in range(blocks.size - 1):
        t_first, t_last = blocks[k], blocks[k + 1]
        slot = slot_of_block(k, x_block, gates)
        begin, end = share(offsets[t_last] - offsets[t_first], member, team)
        gather_steps(t_first, t_last, begin, end, offsets, order, xs, x_block)
        c = (flat_gates, slot * gate_row, gate_row, panel)
        input_product(begin, end, x_block, packed_x, b, c)
        goal = meet(team, goal)
        i_block, i_end, j_first, j_last = own_part(t_first, t_last, width, offsets, team, member)
        for t in range(t_first, t_last):
            first, count = batch + offsets[t], offsets[t + 1] - offsets[t]
            i_first, i_last = min(i_block, count), min(i_end, count)
            part, rows = (i_first, i_last, j_first, j_last), i_last - i_first
            here = slot + offsets[t] - offsets[t_first]
            place = state_rows_before(t, batch, offsets)
            before = states[place:]
            a = (flat_states, (place + i_first) * row, row, ONE)
            if resets.size:
                masked_rows(t, i_first, i_last, order, resets, before, kept)
                before = kept
                a = (kept.reshape(-1), i_first * row, row, ONE)
            c = (flat_gates, (here + i_first) * gate_row, gate_row, panel)
            recurrent_product(team, member, rows, width, width, TWO, a, packed_gates, c, c, FROM_START)
            c, start = (
                (flat_gates, (here + i_first) * gate_row + U * width, gate_row, panel),
                (bhh, ZERO, ZERO, panel),
            )
            gru_cell_gates(part, width, gates[here:])
            if not after:
                gru_cell_reset(part, width, gates[here:], before, product)
                if team[BY_UNITS]:
                    goal = meet(team, goal)
                a = (product.reshape(-1), i_first * row, row, ONE)
                c = (flat_gates, (here + i_first) * gate_row + HAT * width, gate_row, panel)
                start = c
            recurrent_product(team, member, rows, width, width, ONE, a, packed_hat, start, c, FROM_START)
            gru_cell_candidate(part, width, after, gates[here:])
            gru_cell_output(t, part, width, order, gates[here:], before, states[first:], hs)
            if team[BY_UNITS]:
                goal = meet(team, goal)
        goal = meet(team, goal)
    if member == 0:
        clear_ends(offsets, order, hs)
        scatter_last(offsets, order, states, h_last)
    end_call(team, member, goal)
    restore_mode(mode_before)


@spliced
def _remake_block(
    begin,
    end,
    slot,
    width,
    after,
    packed_x,
    packed_gates,
    packed_hat,
    b,
    bhh,
    x_block,
    h_block,
    gates,
    product,
):
    """The gates of rows begin .. end of a block again, in its slot; once h is known they are whole products.

    x_block, h_block   (block rows, x row or row)   read, inputs and states before each step
    gates              overwritten in the slot
    product            (block rows, row)            scratch
    """
    gate_row, row = gates.shape[1], h_block.shape[1]
    panel = PANEL_BYTES // gates.itemsize
    flat, rows = gates.reshape(-1), end - begin
    part = (begin, end, ZERO, width)
    input_product(begin, end, x_block, packed_x, b, (flat, slot * gate_row, gate_row, panel))
    a, place = (h_block.reshape(-1), begin * row, row, ONE), (slot + begin) * gate_row
    c = (flat, place, gate_row, panel)
    gemm(rows, 2 * width, width, a, packed_view(packed_gates, width), c, c, FROM_START)
    gru_cell_gates(part, width, gates[slot:])
    c, start = (flat, place + U * width, gate_row, panel), (bhh, ZERO, ZERO, panel)
    if not after:
        gru_cell_reset(part, width, gates[slot:], h_block, product)
        a, c = (product.reshape(-1), begin * row, row, ONE), (flat, place + HAT * width, gate_row, panel)
        start = c
    gemm(rows, width, width, a, packed_view(packed_hat, width), start, c, FROM_START)
    gru_cell_candidate(part, width, after, gates[slot:])


@spliced
def _block_gradients(
    team, member, goal, rows, width, after, dts, x_block, h_block, packed_x, packed_dt, packed_hat_dt,
    dwx, dwh, db, dbhh, mode,
):  # fmt: skip
    """What the rows of one block add to the gradients of the parameters; then the member's rows of
    x_block = dt Wx^T. Returns the goal after its meetings.

    dts, h_block, packed_x    read
    x_block                   (block rows, x row)   read, then overwritten
    packed_dt, packed_hat_dt  scratch
    dwx, dwh, db, dbhh        overwritten, or accumulated if mode is ADD_TO
    """
    cols, depth = GATES * width, dwx.shape[0]
    gate_row, x_row, row = dts.shape[1], x_block.shape[1], h_block.shape[1]
    panel = PANEL_BYTES // dts.itemsize
    members = team[MEMBERS]
    flat_dts, flat_x, flat_dwh = dts.reshape(-1), x_block.reshape(-1), dwh.reshape(-1)
    last = (rows - 1) * gate_row
    states, inputs = (h_block.reshape(-1), ZERO, row, ONE), (flat_x, ZERO, x_row, ONE)
    packed_dt[packed_dt.size - 1] = 1
    packed_hat_dt[packed_hat_dt.size - 1] = 1
    pack(member, members, rows, cols, (flat_dts, last, -gate_row, ONE), packed_dt)
    # The candidate's product: du with the states before, or dh_hat with r h_before, which lies beside it.
    source = (flat_dts, last + (U if after else HAT) * width, -gate_row, ONE)
    pack(member, members, rows, width, source, packed_hat_dt)
    goal = meet(team, goal)
    c = (flat_dwh, ZERO, cols, panel)
    weight_gradient(team, member, rows, width, 2 * width, states, packed_dt, c, mode)
    c = (dwx.reshape(-1), ZERO, cols, panel)
    weight_gradient(team, member, rows, depth, cols, inputs, packed_dt, c, mode)
    a = states if after else (flat_dts, U * width, gate_row, ONE)
    c = (flat_dwh, HAT * width, cols, panel)
    weight_gradient(team, member, rows, width, width, a, packed_hat_dt, c, mode)
    bias_gradient(team, member, rows, cols, packed_dt, db, mode)
    if after:
        bias_gradient(team, member, rows, width, packed_hat_dt, dbhh, mode)
    goal = meet(team, goal)
    begin, end = share(rows, member, team)
    a, c = (flat_dts, begin * gate_row, gate_row, ONE), (flat_x, begin * x_row, x_row, panel)
    gemm(end - begin, depth, cols, a, packed_view(packed_x, cols), c, c, OVERWRITE)
    return goal


@kernel
def gru_backward(
    team, member, xs, states, gates, intact, dhs, dh_next, wx, wh, b, bhh, after,
    offsets, order, blocks, resets, adds, dxs, dh0, dwx, dwh, db, dbhh,
    packed_x, packed_gates, packed_hat, packed_wx, packed_wz, packed_wh, packed_dt, packed_hat_dt,
    dts, dh, dproduct, x_block, h_block, product,
):  # fmt: skip
    """Backpropagation through time, with the gradients of `gru_cell_backward`: dx_t = [dz dr dh_hat] Wx^T;
    dh_{t-1} = dh_t (1 - z) + [dz dr] Wh_zr^T + r (dh_hat Whh^T), or + du Whh^T after.

    team, member                                    as in gru_forward
    xs             (N, T, D)                        read
    states         (N + rows, row)                  read, as gru_forward left it
    gates          (slots block rows, gate row)     read; overwritten by blocks made again
    intact         int                              blocks from this one on are in their slots
    dhs            (N, T, H)                        read, the gradient of each output
    dh_next        (N, H)                           read, the gradient of the final state
    wx, wh, b      (D, 3H), (H, 3H), (3H,)          read
    bhh            (H,)                             read if after
    after, offsets, order, blocks, resets           read, as in gru_forward
    adds           bool                             the gradients of the parameters are accumulated
    dxs            (N, T, D)                        overwritten, zero where a sequence has ended
    dh0            (N, H)                           overwritten, the gradient of the initial state
    dwx, dwh, db   (D, 3H), (H, 3H), (3H,)          overwritten; accumulated if adds
    dbhh           (H,)                             likewise, if after
    packed_x       (packed_size(3H, D),)            scratch
    packed_gates   (recurrent_packed_size(2H, H, 1, members),)   scratch
    packed_hat     (recurrent_packed_size(H, H, 1, members),)    scratch
    packed_wx      (packed_size(D, 3H),) or (0,)    scratch, needed if a block is made again
    packed_wz      (packed_size(H, 2H),) or (0,)    scratch, likewise
    packed_wh      (packed_size(H, H),) or (0,)     scratch, likewise
    packed_dt      (packed_size(block rows, 3H) + 1,)   scratch, block rows = block_steps(N) N
    packed_hat_dt  (packed_size(block rows, H) + 1,)    scratch
    dts            (block rows, gate row)           scratch
    dh, dproduct   (N, row)                         scratch
    x_block        (block rows, x row)              scratch
    h_block        (block rows, row)                scratch
    product        (block rows, row)                scratch, needed if a block is made again
    """
    mode_before = flush_denormals()
    goal = begin_call(team, member)
    steps, depth = xs.shape[1:]
    width, members = dhs.shape[2], team[MEMBERS]
    cols = GATES * width
    row, gate_row, panel = states.shape[1], dts.shape[1], PANEL_BYTES // xs.itemsize
    flat_dts, flat_dh, flat_wh = dts.reshape(-1), dh.reshape(-1), wh.reshape(-1)
    pack(member, members, cols, depth, (wx.reshape(-1), ZERO, ONE, cols), packed_x)
    pack_recurrent(team, member, 2 * width, width, ONE, (flat_wh, ZERO, ONE, cols), packed_gates)
    pack_recurrent(team, member, width, width, ONE, (flat_wh, HAT * width, ONE, cols), packed_hat)
    if intact > 0:
        pack(member, members, depth, cols, (wx.reshape(-1), ZERO, cols, ONE), packed_wx)
        pack(member, members, width, 2 * width, (flat_wh, ZERO, cols, ONE), packed_wz)
        pack(member, members, width, width, (flat_wh, HAT * width, cols, ONE), packed_wh)
    if member == 0:
        gather_state(order, dh_next, dh)
        if not offsets[steps] and not adds:
            dwx[:] = 0
            dwh[:] = 0
            db[:] = 0
            dbhh[:] = 0
    goal = meet(team, goal)
    mode = ADD_TO if adds else OVERWRITE
    for k in range(blocks.size - 2, -1, -1):
        t_first, t_last = blocks[k], blocks[k + 1]
        rows = offsets[t_last] - offsets[t_first]
        if not rows:
            continue
        slot = slot_of_block(k, x_block, gates)
        begin, end = share(rows, member, team)
        gather_steps(t_first, t_last, begin, end, offsets, order, xs, x_block)
        gather_states_before(t_first, t_last, begin, end, offsets, order, resets, states, h_block)
        if k < intact:
            _remake_block(
                begin, end, slot, width, after, packed_wx, packed_wz, packed_wh, b, bhh, x_block, h_block,
                gates, product,
            )  # fmt: skip
        goal = meet(team, goal)
        i_block, i_end, j_first, j_last = own_part(t_first, t_last, width, offsets, team, member)
        for t in range(t_last - 1, t_first - 1, -1):
            here, count = offsets[t] - offsets[t_first], offsets[t + 1] - offsets[t]
            i_first, i_last = min(i_block, count), min(i_end, count)
            part, own = (i_first, i_last, j_first, j_last), i_last - i_first
            before, dt, gates_here = h_block[here:], dts[here:], gates[slot + here :]
            gru_cell_backward(t, part, width, order, after, gates_here, before, dhs, dh, dt)
            if team[BY_UNITS]:
                goal = meet(team, goal)
            place, c = (here + i_first) * gate_row, (flat_dh, i_first * row, row, panel)
            if after:
                a = (flat_dts, place + U * width, gate_row, ONE)
                recurrent_product(team, member, own, width, width, ONE, a, packed_hat, c, c, FROM_START)
            else:
                a = (flat_dts, place + HAT * width, gate_row, ONE)
                d = (dproduct.reshape(-1), i_first * row, row, panel)
                recurrent_product(team, member, own, width, width, ONE, a, packed_hat, d, d, OVERWRITE)
                gru_cell_reset_backward(part, width, gates_here, before, dproduct, dh, dt)
                if team[BY_UNITS]:
                    goal = meet(team, goal)
            a = (flat_dts, place, gate_row, ONE)
            recurrent_product(team, member, own, 2 * width, width, ONE, a, packed_gates, c, c, FROM_START)
            clear_resets(t, i_first, i_last, order, resets, dh)
        goal = meet(team, goal)
        goal = _block_gradients(
            team, member, goal, rows, width, after, dts, x_block, h_block, packed_x, packed_dt, packed_hat_dt,
            dwx, dwh, db, dbhh, mode,
        )  # fmt: skip
        scatter_steps(t_first, t_last, begin, end, offsets, order, x_block, dxs)
        goal = meet(team, goal)
        mode = ADD_TO
    if member == 0:
        clear_ends(offsets, order, dxs)
        scatter_state(order, dh, dh0)
    end_call(team, member, goal)
    restore_mode(mode_before)


@kernel
def gru_step(x, h, wx, wh, b, bhh, after, gates, out):
    """One step with the bits of gru_forward, its weights read where they lie; out = h.

    x        (N, D)     read
    h        (N, H)     overwritten; the state before
    wx       (D, 3H)    read
    wh       (H, 3H)    read
    b        (3H,)      read
    bhh      (H,)       read if after
    after    bool       as in gru_forward
    gates    (4H,)      scratch
    out      (N, H)     overwritten
    """
    mode_before = flush_denormals()
    width = h.shape[1]
    one = x.dtype.type(1)
    z, r = gates[Z * width :][:width], gates[R * width :][:width]
    hat, product = gates[HAT * width :][:width], gates[U * width :][:width]
    for n in range(x.shape[0]):
        before, result = h[n], out[n]
        copy_row(b, gates[: GATES * width])
        add_product(x[n], wx, 0, gates[: GATES * width])
        add_product(before, wh, 0, gates[: HAT * width])
        sigmoid_row(gates[: HAT * width])
        if after:
            copy_row(bhh, product)
            add_product(before, wh, HAT * width, product)
            for j in range(width):
                hat[j] = fma(r[j], product[j], hat[j])
        else:
            for j in range(width):
                product[j] = r[j] * before[j]
            add_product(product, wh, HAT * width, hat)
        tanh_row(hat)
        for j in range(width):
            result[j] = fma(z[j], hat[j], (one - z[j]) * before[j])
        copy_row(result, before)
    restore_mode(mode_before)
