"""The GRU over a whole sequence: gates z, r and candidate h_hat; h_t = (1 - z) h_{t-1} + z h_hat.

The reset gate acts before the product, h_hat = tanh(x Wxh + (r h_{t-1}) Whh + bh), as in the book, or after
it, h_hat = tanh(x Wxh + bh + r (h_{t-1} Whh + bhh)), as in PyTorch and cuDNN.

The backward pass needs z, r, h_hat and, with the reset gate after, u = h_{t-1} Whh + bhh of every step. Where
that is too much memory, blocks of it are made again from the states, as in `lstm.py`.
"""

from __future__ import annotations

import numpy as np

from ._jit import kernel, spliced
from .denormals import flush_denormals, restore_mode
from .formula import map_row
from .gemm import MANY, ONE, ZERO, gemm, pack, pack_for, packed_view
from .gru_cell import (
    GATES,
    HAT,
    R,
    U,
    Z,
    gru_cell_backward,
    gru_cell_forward,
    gru_cell_remake,
    gru_cell_reset,
    gru_cell_reset_backward,
    gru_gates,
    gru_gates_and_reset,
    output_after,
    output_before,
)
from .inputs import gather_words, input_product, inputs_backward, word_products, words_backward
from .row import add_product
from .sequence import (
    bias_gradient,
    clear_ends,
    clear_gradients,
    clear_resets,
    gather_state,
    gather_states_before,
    gather_steps,
    last_first,
    masked_rows,
    scatter_last,
    scatter_state,
    slot_of_block,
    state_rows_before,
    weight_gradient,
)
from .shares import (
    own_part,
    recurrent_operand,
    recurrent_product,
    share,
)
from .team import BY_UNITS, MEMBERS, begin_call, end_call, meet
from .tile import ADD_TO, FROM_START, MAX_ROWS, OVERWRITE, PANEL_BYTES
from .vectors import clear_row, copy_row

TWO = np.int64(2)  # z and r, which come first


@kernel
def gru_forward(
    team, member, xs, ids, words, h0, wx, wh, b, bhh, after, offsets, order, blocks, resets,
    states, gates, hs, h_last, packed_x, packed_gates, packed_hat, x_block, table, kept, product,
):  # fmt: skip
    """z, r = sigmoid of x_t Wx + h_{t-1} Wh + b; h_hat as `after` says; h_t = (1 - z) h_{t-1} + z h_hat.

    team, member                                   the threads at work, and which this is: see team.py
    xs            (N, T, D)                        read
    ids           (N, T) or None                   read, int64: x_t = words[ids[:, t]]; xs is not read
    words         (V, D)                           read if there are ids
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
    table         (V, cols)                        scratch if there are ids
    kept          (N, row)                         scratch if there are resets
    product       (N, row)                         scratch
    """
    mode_before = flush_denormals()
    goal = begin_call(team, member)
    depth = wx.shape[0]
    batch, width = order.size, hs.shape[2]
    cols = GATES * width
    row, gate_row = states.shape[1], gates.shape[1]
    panel = PANEL_BYTES // xs.itemsize
    flat_states, flat_gates, flat_wh = states.reshape(-1), gates.reshape(-1), wh.reshape(-1)
    uses = (offsets.size - 1) * ((batch + MAX_ROWS - 1) // MAX_ROWS)
    w = (wx.reshape(-1), ZERO, cols, ONE)
    w_x = pack_for(uses, member, team[MEMBERS], depth, cols, w, packed_x)
    w = (flat_wh, ZERO, cols, ONE)
    w_gates = recurrent_operand(uses, team, member, width, width, TWO, w, packed_gates)
    w = (flat_wh, HAT * width, cols, ONE)
    w_hat = recurrent_operand(uses, team, member, width, width, ONE, w, packed_hat)
    if member == 0:
        gather_state(order, h0, states)
    goal = meet(team, goal)
    if ids is not None:
        goal = word_products(team, member, goal, words, w_x, b, table)
    for k in range(blocks.size - 1):
        t_first, t_last = blocks[k], blocks[k + 1]
        slot = slot_of_block(k, x_block, gates)
        begin, end = share(offsets[t_last] - offsets[t_first], member, team)
        if ids is not None:
            gather_words(t_first, t_last, begin, end, offsets, order, ids, table, gates, slot)
        else:
            gather_steps(t_first, t_last, begin, end, offsets, order, xs, x_block)
            c = (flat_gates, slot * gate_row, gate_row, panel)
            input_product(begin, end, depth, x_block, w_x, b, c)
        goal = meet(team, goal)
        i_block, i_end, j_first, j_last = own_part(t_first, t_last, width, offsets, team, member)
        for t in range(t_first, t_last):
            first, count = batch + offsets[t], offsets[t + 1] - offsets[t]
            i_first, i_last = min(i_block, count), min(i_end, count)
            part, rows = (i_first, i_last, j_first, j_last), i_last - i_first
            here = slot + offsets[t] - offsets[t_first]
            place = state_rows_before(t, batch, offsets)
            before, earlier = states, place
            a = (flat_states, (place + i_first) * row, row, ONE)
            if resets.size:
                masked_rows(t, i_first, i_last, order, resets, states[place:], kept)
                before, earlier = kept, ZERO
                a = (kept.reshape(-1), i_first * row, row, ONE)
            c = (flat_gates, (here + i_first) * gate_row, gate_row, panel)
            recurrent_product(team, member, rows, width, width, TWO, a, w_gates, c, c, FROM_START)
            c, start = (
                (flat_gates, (here + i_first) * gate_row + U * width, gate_row, panel),
                (bhh, ZERO, ZERO, panel),
            )
            if not after:
                gru_cell_reset(part, width, here, gates, earlier, before, ZERO, product)
                if team[BY_UNITS]:
                    goal = meet(team, goal)
                a = (product.reshape(-1), i_first * row, row, ONE)
                c = (flat_gates, (here + i_first) * gate_row + HAT * width, gate_row, panel)
                start = c
            recurrent_product(team, member, rows, width, width, ONE, a, w_hat, start, c, FROM_START)
            gru_cell_forward(t, part, width, order, after, here, gates, earlier, before, first, states, hs)
            if team[BY_UNITS]:
                goal = meet(team, goal)
        goal = meet(team, goal)
    if member == 0:
        clear_ends(offsets, order, hs)
        scatter_last(offsets, order, states, h_last)
    end_call(team, member, goal)
    restore_mode(mode_before)


@spliced
def _pack_again(team, member, wx, wh, packed_wx, packed_wz, packed_wh):
    """The weights in panels as `_remake_block` wants them; each member packs its part."""
    members, width, cols = team[MEMBERS], wh.shape[0], wh.shape[1]
    flat = wh.reshape(-1)
    pack(member, members, wx.shape[0], cols, (wx.reshape(-1), ZERO, cols, ONE), packed_wx)
    pack(member, members, width, 2 * width, (flat, ZERO, cols, ONE), packed_wz)
    pack(member, members, width, width, (flat, HAT * width, cols, ONE), packed_wh)


@spliced
def _remake_block(
    begin, end, slot, width, depth, after, packed_x, packed_gates, packed_hat, b, bhh, x_block, h_block,
    gates, product,
):  # fmt: skip
    """The gates of rows begin .. end of a block again, in its slot; once h is known they are whole products.

    x_block, h_block   (block rows, x row or row)   read, inputs and states before each step
    gates              overwritten in the slot
    product            (block rows, row)            scratch
    """
    gate_row, row = gates.shape[1], h_block.shape[1]
    panel = PANEL_BYTES // gates.itemsize
    flat, rows = gates.reshape(-1), end - begin
    part = (begin, end, ZERO, width)
    c = (flat, slot * gate_row, gate_row, panel)
    input_product(begin, end, depth, x_block, packed_view(packed_x, depth), b, c)
    a, place = (h_block.reshape(-1), begin * row, row, ONE), (slot + begin) * gate_row
    c = (flat, place, gate_row, panel)
    gemm(rows, 2 * width, width, a, packed_view(packed_gates, width), c, c, FROM_START)
    c, start = (flat, place + U * width, gate_row, panel), (bhh, ZERO, ZERO, panel)
    if not after:
        gru_cell_reset(part, width, slot, gates, ZERO, h_block, ZERO, product)
        a, c = (product.reshape(-1), begin * row, row, ONE), (flat, place + HAT * width, gate_row, panel)
        start = c
    gemm(rows, width, width, a, packed_view(packed_hat, width), start, c, FROM_START)
    gru_cell_remake(part, width, slot, after, gates)


@spliced
def _recurrent_gradients(team, member, rows, width, after, dts, h_block, dwh, db, dbhh, mode):
    """What the rows of one block add to dWh, db and dbhh.

    dts, h_block   read
    dwh, db, dbhh  overwritten, or accumulated if mode is ADD_TO
    """
    cols, panel = GATES * width, PANEL_BYTES // dts.itemsize
    gate_row, row = dts.shape[1], h_block.shape[1]
    flat_dts, flat_dwh = dts.reshape(-1), dwh.reshape(-1)
    flat_dts[flat_dts.size - 1] = 1
    states, d = (h_block.reshape(-1), ZERO, row, ONE), last_first(dts, rows, ZERO)
    weight_gradient(team, member, rows, width, 2 * width, states, d, (flat_dwh, ZERO, cols, panel), mode)
    bias_gradient(team, member, rows, cols, d, db, mode)
    # The candidate's product: du with the states before, or dh_hat with r h_before, which lies beside it.
    a = states if after else (flat_dts, U * width, gate_row, ONE)
    d, c = last_first(dts, rows, (U if after else HAT) * width), (flat_dwh, HAT * width, cols, panel)
    weight_gradient(team, member, rows, width, width, a, d, c, mode)
    if after:
        bias_gradient(team, member, rows, width, d, dbhh, mode)


@kernel
def gru_backward(
    team, member, xs, ids, words, states, gates, intact, dhs, dh_next, wx, wh, b, bhh, after,
    offsets, order, blocks, resets, adds, dxs, dwords, dh0, dwx, dwh, db, dbhh,
    packed_x, packed_gates, packed_hat, packed_wx, packed_wz, packed_wh,
    dts, dh, dproduct, x_block, sums, h_block, product,
):  # fmt: skip
    """Backpropagation through time, with the gradients of `gru_cell_backward`: dx_t = [dz dr dh_hat] Wx^T;
    dh_{t-1} = dh_t (1 - z) + [dz dr] Wh_zr^T + r (dh_hat Whh^T), or + du Whh^T after.

    team, member                                    as in gru_forward
    xs             (N, T, D)                        read
    ids            (N, T) or None                   read, int64: x_t = words[ids[:, t]]; xs is not read
    words          (V, D)                           read if there are ids
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
    dwords         (V, D)                           overwritten if there are ids; accumulated if adds
    dh0            (N, H)                           overwritten, the gradient of the initial state
    dwx, dwh, db   (D, 3H), (H, 3H), (3H,)          overwritten; accumulated if adds
    dbhh           (H,)                             likewise, if after
    packed_x       (packed_size(3H, D),)            scratch
    packed_gates   (recurrent_packed_size(2H, H, 1, members),)   scratch
    packed_hat     (recurrent_packed_size(H, H, 1, members),)    scratch
    packed_wx      (packed_size(D, 3H),) or (0,)    scratch, needed if a block is made again
    packed_wz      (packed_size(H, 2H),) or (0,)    scratch, likewise
    packed_wh      (packed_size(H, H),) or (0,)     scratch, likewise
    dts            (block rows + 1, gate row)       scratch, block rows = block_steps(N) N
    dh, dproduct   (N, row)                         scratch
    x_block        (block rows, x row)              scratch
    sums           (V + 1, dt row)                  scratch if there are ids
    h_block        (block rows, row)                scratch
    product        (block rows, row)                scratch, needed if a block is made again
    """
    mode_before = flush_denormals()
    goal = begin_call(team, member)
    steps, depth = offsets.size - 1, wx.shape[0]
    width, cols = dhs.shape[2], wh.shape[1]
    row, gate_row, panel = states.shape[1], dts.shape[1], PANEL_BYTES // xs.itemsize
    flat_dts, flat_dh, flat_wh = dts.reshape(-1), dh.reshape(-1), wh.reshape(-1)
    pack(member, team[MEMBERS], cols, depth, (wx.reshape(-1), ZERO, ONE, cols), packed_x)
    w = (flat_wh, ZERO, ONE, cols)
    w_gates = recurrent_operand(MANY, team, member, 2 * width, width, ONE, w, packed_gates)
    w = (flat_wh, HAT * width, ONE, cols)
    w_hat = recurrent_operand(MANY, team, member, width, width, ONE, w, packed_hat)
    if intact > 0:
        _pack_again(team, member, wx, wh, packed_wx, packed_wz, packed_wh)
    if member == 0:
        gather_state(order, dh_next, dh)
        if not offsets[steps] and not adds:
            clear_gradients(dwx, dwh, db)
            clear_row(dbhh)
    mode, goal = ADD_TO if adds else OVERWRITE, meet(team, goal)
    for k in range(blocks.size - 2, -1, -1):
        t_first, t_last = blocks[k], blocks[k + 1]
        rows = offsets[t_last] - offsets[t_first]
        if not rows:
            continue
        slot = slot_of_block(k, x_block, gates)
        begin, end = share(rows, member, team)
        if ids is None:
            gather_steps(t_first, t_last, begin, end, offsets, order, xs, x_block)
        elif k < intact:
            gather_words(t_first, t_last, begin, end, offsets, order, ids, words, x_block, ZERO)
        gather_states_before(t_first, t_last, begin, end, offsets, order, resets, states, h_block)
        if k < intact:
            _remake_block(
                begin, end, slot, width, depth, after, packed_wx, packed_wz, packed_wh, b, bhh, x_block,
                h_block, gates, product,
            )  # fmt: skip
        goal = meet(team, goal)
        i_block, i_end, j_first, j_last = own_part(t_first, t_last, width, offsets, team, member)
        for t in range(t_last - 1, t_first - 1, -1):
            here, count = offsets[t] - offsets[t_first], offsets[t + 1] - offsets[t]
            i_first, i_last = min(i_block, count), min(i_end, count)
            part, own = (i_first, i_last, j_first, j_last), i_last - i_first
            gru_cell_backward(t, part, width, order, after, slot, here, gates, h_block, dhs, dh, dts)
            if team[BY_UNITS]:
                goal = meet(team, goal)
            place, c = (here + i_first) * gate_row, (flat_dh, i_first * row, row, panel)
            a = (flat_dts, place + (U if after else HAT) * width, gate_row, ONE)
            if after:
                recurrent_product(team, member, own, width, width, ONE, a, w_hat, c, c, FROM_START)
            else:
                d = (dproduct.reshape(-1), i_first * row, row, panel)
                recurrent_product(team, member, own, width, width, ONE, a, w_hat, d, d, OVERWRITE)
                gru_cell_reset_backward(part, width, slot, here, gates, h_block, dproduct, dh, dts)
                if team[BY_UNITS]:
                    goal = meet(team, goal)
            a = (flat_dts, place, gate_row, ONE)
            recurrent_product(team, member, own, 2 * width, width, ONE, a, w_gates, c, c, FROM_START)
            clear_resets(t, i_first, i_last, order, resets, dh)
        goal = meet(team, goal)
        _recurrent_gradients(team, member, rows, width, after, dts, h_block, dwh, db, dbhh, mode)
        block = (t_first, t_last, offsets, order)
        if ids is None:
            goal = inputs_backward(team, member, goal, block, cols, x_block, dts, packed_x, dxs, dwx, mode)
        else:
            goal = words_backward(
                team, member, goal, block, cols, ids, words, dts, sums, packed_x, dwx, dwords, mode
            )
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
    z, r, hat, u = (gates, Z * width), (gates, R * width), (gates, HAT * width), (gates, U * width)
    product = gates[U * width :][:width]
    for n in range(x.shape[0]):
        before, result = (h, n * width), (out, n * width)
        copy_row(b, gates[: GATES * width])
        add_product(x[n], wx, 0, gates[: GATES * width])
        add_product(h[n], wh, 0, gates[: HAT * width])
        if after:
            copy_row(bhh, product)
            add_product(h[n], wh, HAT * width, product)
            map_row(gru_gates, width, (z, r), (z, r))
            map_row(output_after, width, (z, r, hat, u, before), (hat, before, result))
        else:
            map_row(gru_gates_and_reset, width, (z, r, before), (z, r, u))
            add_product(product, wh, HAT * width, gates[HAT * width :][:width])
            map_row(output_before, width, (z, hat, before), (hat, before, result))
    restore_mode(mode_before)
