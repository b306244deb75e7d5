"""The LSTM over a whole sequence: gates f, g, i, o; c_t = f c_{t-1} + g i, h_t = o tanh(c_t).

The backward pass needs the gates and cells of every step, five times the memory of the outputs. They are kept
in slots of one block each: block k of the time grid is in slot k % slots. Where there are fewer slots than
blocks, the backward pass makes those that were overwritten again, from the states h, which are kept for all
steps, and the cell before the block: once h is known the gates are products over whole blocks, and only the
elementwise c_t is sequential. The bits are those of the first time.
"""

from __future__ import annotations

import numpy as np

from ._jit import kernel, spliced
from .denormals import flush_denormals, restore_mode
from .formula import map_row
from .gemm import MANY, ONE, ZERO, gemm, pack, pack_for, packed_view
from .inputs import gather_words, input_product, inputs_backward, word_products, words_backward
from .lstm_cell import (
    CANDIDATE,
    FORGET,
    GATES,
    INPUT,
    OUTPUT,
    lstm_cell_backward,
    lstm_cell_forward,
    lstm_cell_remake,
    lstm_gates,
    lstm_output,
)
from .row import add_product
from .sequence import (
    clear_ends,
    clear_gradients,
    clear_resets,
    gather_state,
    gather_states_before,
    gather_steps,
    masked_rows,
    recurrent_gradients,
    scatter_last,
    scatter_state,
    slot_of_block,
    state_rows_before,
)
from .shares import (
    copy_part,
    own_part,
    recurrent_operand,
    recurrent_product,
    share,
)
from .team import BY_UNITS, MEMBERS, begin_call, end_call, meet
from .tile import ADD_TO, FROM_START, MAX_ROWS, OVERWRITE, PANEL_BYTES
from .vectors import copy_row

ALL = np.int64(GATES)


@kernel
def lstm_forward(
    team, member, xs, ids, words, h0, c0, wx, wh, b, offsets, order, blocks, resets,
    states, gates, cells, starts, hs, h_last, c_last, packed_x, packed_h, x_block, table, kept, carry,
):  # fmt: skip
    """f, i, o = sigmoid, g = tanh of x_t Wx + h_{t-1} Wh + b; c_t = f c_{t-1} + g i, h_t = o tanh(c_t).

    team, member                                the threads at work, and which this is: see team.py
    xs        (N, T, D)                         read
    ids       (N, T) or None                    read, int64: x_t = words[ids[:, t]]; xs is not read
    words     (V, D)                            read if there are ids
    h0, c0    (N, H)                            read
    wx        (D, 4H)                           read
    wh        (H, 4H)                           read
    b         (4H,)                             read
    offsets   (T+1,)                            read, int64, first row of each step
    order     (N,)                              read, int64, sequences by falling length
    blocks    (blocks+1,)                       read, int64, first step of each block of the time grid, and T
    resets    (N, T) or (0, 0)                  read, bool, where the state is zero before the step
    states    (N + rows, row)                   overwritten, the first N with h0; rows = offsets[T]
    gates     (slots block rows, gate row)      overwritten, block k in slot k % slots
    cells     (slots block rows, row)           overwritten, likewise
    starts    (blocks, N, row)                  overwritten, the cell before each block, of its rows
    hs        (N, T, H)                         overwritten, zero where a sequence has ended
    h_last    (N, H)                            overwritten, the state after the last step; may be h0
    c_last    (N, H)                            overwritten, the cell after the last step; may be c0
    packed_x  (packed_size(D, 4H),)             scratch
    packed_h  (recurrent_packed_size(H, H, 4, members),)   scratch
    x_block   (block rows, x row)               scratch
    table     (V, cols)                         scratch if there are ids
    kept      (N, row)                          scratch if there are resets
    carry     (N, row)                          scratch
    """
    mode_before = flush_denormals()
    goal = begin_call(team, member)
    depth = wx.shape[0]
    batch, width = order.size, hs.shape[2]
    cols = GATES * width
    row, gate_row = states.shape[1], gates.shape[1]
    panel = PANEL_BYTES // xs.itemsize
    flat_states, flat_gates, flat_kept = states.reshape(-1), gates.reshape(-1), kept.reshape(-1)
    uses = (offsets.size - 1) * ((batch + MAX_ROWS - 1) // MAX_ROWS)
    w_x = pack_for(uses, member, team[MEMBERS], depth, cols, (wx.reshape(-1), ZERO, cols, ONE), packed_x)
    w = (wh.reshape(-1), ZERO, cols, ONE)
    w_h = recurrent_operand(uses, team, member, width, width, ALL, w, packed_h)
    if member == 0:
        gather_state(order, h0, states)
        gather_state(order, c0, carry)
    goal = meet(team, goal)
    if ids is not None:
        goal = word_products(team, member, goal, words, w_x, b, table)
    for k in range(blocks.size - 1):
        t_first, t_last = blocks[k], blocks[k + 1]
        slot = slot_of_block(k, x_block, gates)
        i_block, i_end, j_first, j_last = own_part(t_first, t_last, width, offsets, team, member)
        copy_part((i_block, i_end, j_first, j_last), carry, starts[k])
        begin, end = share(offsets[t_last] - offsets[t_first], member, team)
        if ids is not None:
            gather_words(t_first, t_last, begin, end, offsets, order, ids, table, gates, slot)
        else:
            gather_steps(t_first, t_last, begin, end, offsets, order, xs, x_block)
            c = (flat_gates, slot * gate_row, gate_row, panel)
            input_product(begin, end, depth, x_block, w_x, b, c)
        goal = meet(team, goal)
        for t in range(t_first, t_last):
            first, count = batch + offsets[t], offsets[t + 1] - offsets[t]
            i_first, i_last = min(i_block, count), min(i_end, count)
            part = (i_first, i_last, j_first, j_last)
            here = slot + offsets[t] - offsets[t_first]
            before = state_rows_before(t, batch, offsets)
            a = (flat_states, (before + i_first) * row, row, ONE)
            if resets.size:
                masked_rows(t, i_first, i_last, order, resets, states[before:], kept)
                a = (flat_kept, i_first * row, row, ONE)
                clear_resets(t, i_first, i_last, order, resets, carry)
            c = (flat_gates, (here + i_first) * gate_row, gate_row, panel)
            recurrent_product(team, member, i_last - i_first, width, width, ALL, a, w_h, c, c, FROM_START)
            lstm_cell_forward(t, part, width, order, here, gates, carry, cells, first, states, hs)
            if team[BY_UNITS]:
                goal = meet(team, goal)
        goal = meet(team, goal)
    if member == 0:
        clear_ends(offsets, order, hs)
        scatter_last(offsets, order, states, h_last)
        scatter_state(order, carry, c_last)
    end_call(team, member, goal)
    restore_mode(mode_before)


@spliced
def _remake_block(
    team, member, goal, t_first, t_last, slot, width, depth, packed_x, packed_h, b, offsets, order, resets,
    start, x_block, h_block, gates, cells, carry,
):  # fmt: skip
    """Gates and cells of one block again, in its slot; the goal after a meeting in between.

    packed_x, packed_h   read, Wx and Wh in panels
    start                (N, row)                 read, the cell before the block
    x_block, h_block     (block rows, x row or row)   read, the member's inputs and states before each step
    gates, cells         overwritten in the slot
    carry                (N, row)                 scratch
    """
    gate_row, row = gates.shape[1], h_block.shape[1]
    panel = PANEL_BYTES // gates.itemsize
    begin, end = share(offsets[t_last] - offsets[t_first], member, team)
    flat = gates.reshape(-1)
    c = (flat, slot * gate_row, gate_row, panel)
    input_product(begin, end, depth, x_block, packed_view(packed_x, depth), b, c)
    a = (h_block.reshape(-1), begin * row, row, ONE)
    c = (flat, (slot + begin) * gate_row, gate_row, panel)
    gemm(end - begin, GATES * width, width, a, packed_view(packed_h, width), c, c, FROM_START)
    goal = meet(team, goal)
    i_block, i_end, j_first, j_last = own_part(t_first, t_last, width, offsets, team, member)
    copy_part((i_block, i_end, j_first, j_last), start, carry)
    for t in range(t_first, t_last):
        count = offsets[t + 1] - offsets[t]
        i_first, i_last = min(i_block, count), min(i_end, count)
        here = slot + offsets[t] - offsets[t_first]
        clear_resets(t, i_first, i_last, order, resets, carry)
        lstm_cell_remake((i_first, i_last, j_first, j_last), width, here, gates, carry, cells)
    return goal


@kernel
def lstm_backward(
    team, member, xs, ids, words, states, gates, cells, starts, intact, dhs, dh_next, dc_next, wx, wh, b,
    offsets, order, blocks, resets, adds, dxs, dwords, dh0, dc0, dwx, dwh, db,
    packed_x, packed_h, packed_wx, packed_wh, dts, dh, dc, x_block, sums, h_block, kept, carry,
):  # fmt: skip
    """Backpropagation through time: with dt the gradient of a step's pre-activations, dh_{t-1} = dt Wh^T,
    dx_t = dt Wx^T, dWx = sum x_t^T dt, dWh = sum h_{t-1}^T dt, db = sum dt.

    team, member                                         as in lstm_forward
    xs                  (N, T, D)                        read
    ids                 (N, T) or None                   read, int64: x_t = words[ids[:, t]]; xs is not read
    words               (V, D)                           read if there are ids
    states              (N + rows, row)                  read, as lstm_forward left it
    gates, cells        (slots block rows, row)          read; overwritten by blocks made again
    starts              (blocks, N, row)                 read
    intact              int                              blocks from this one on are in their slots
    dhs                 (N, T, H)                        read, the gradient of each output
    dh_next, dc_next    (N, H)                           read, the gradient of the final state and cell
    wx, wh, b           (D, 4H), (H, 4H), (4H,)          read
    offsets, order, blocks, resets                       read, as in lstm_forward
    adds                bool                             the gradients of the parameters are accumulated
    dxs                 (N, T, D)                        overwritten, zero where a sequence has ended
    dwords              (V, D)                           overwritten if there are ids; accumulated if adds
    dh0, dc0            (N, H)                           overwritten, the gradient of h0 and c0
    dwx, dwh, db        (D, 4H), (H, 4H), (4H,)          overwritten; accumulated if adds
    packed_x            (packed_size(4H, D),)            scratch
    packed_h            (recurrent_packed_size(4H, H, 1, members),)   scratch
    packed_wx           (packed_size(D, 4H),) or (0,)    scratch, needed if a block is made again
    packed_wh           (packed_size(H, 4H),) or (0,)    scratch, likewise
    dts                 (block rows + 1, gate row)       scratch, block rows = block_steps(N) N
    dh, dc, kept, carry (N, row)                         scratch
    x_block             (block rows, x row)              scratch
    sums                (V + 1, dt row)                  scratch if there are ids
    h_block             (block rows, row)                scratch
    """
    mode_before = flush_denormals()
    goal = begin_call(team, member)
    steps, depth = offsets.size - 1, wx.shape[0]
    width = dhs.shape[2]
    cols, members = GATES * width, team[MEMBERS]
    row, gate_row = states.shape[1], dts.shape[1]
    panel = PANEL_BYTES // xs.itemsize
    flat_dts, flat_dh, flat_wh = dts.reshape(-1), dh.reshape(-1), wh.reshape(-1)
    pack(member, members, cols, depth, (wx.reshape(-1), ZERO, ONE, cols), packed_x)
    w_h = recurrent_operand(MANY, team, member, cols, width, ONE, (flat_wh, ZERO, ONE, cols), packed_h)
    if intact > 0:
        pack(member, members, depth, cols, (wx.reshape(-1), ZERO, cols, ONE), packed_wx)
        pack(member, members, width, cols, (flat_wh, ZERO, cols, ONE), packed_wh)
    if member == 0:
        gather_state(order, dh_next, dh)
        gather_state(order, dc_next, dc)
        if not offsets[steps] and not adds:
            clear_gradients(dwx, dwh, db)
    goal = meet(team, goal)
    mode = ADD_TO if adds else OVERWRITE
    for k in range(blocks.size - 2, -1, -1):
        t_first, t_last = blocks[k], blocks[k + 1]
        rows = offsets[t_last] - offsets[t_first]
        if not rows:
            continue
        slot, start = slot_of_block(k, x_block, gates), starts[k]
        begin, end = share(rows, member, team)
        if ids is None:
            gather_steps(t_first, t_last, begin, end, offsets, order, xs, x_block)
        elif k < intact:
            gather_words(t_first, t_last, begin, end, offsets, order, ids, words, x_block, ZERO)
        gather_states_before(t_first, t_last, begin, end, offsets, order, resets, states, h_block)
        if k < intact:
            goal = _remake_block(
                team, member, goal, t_first, t_last, slot, width, depth, packed_wx, packed_wh, b, offsets,
                order, resets, start, x_block, h_block, gates, cells, carry,
            )  # fmt: skip
        i_block, i_end, j_first, j_last = own_part(t_first, t_last, width, offsets, team, member)
        for t in range(t_last - 1, t_first - 1, -1):
            here, count = offsets[t] - offsets[t_first], offsets[t + 1] - offsets[t]
            i_first, i_last = min(i_block, count), min(i_end, count)
            part = (i_first, i_last, j_first, j_last)
            before, earlier = start, ZERO
            if t > t_first:
                before, earlier = cells, slot + offsets[t - 1] - offsets[t_first]
            if resets.size:
                masked_rows(t, i_first, i_last, order, resets, before[earlier:], kept)
                before, earlier = kept, ZERO
            lstm_cell_backward(
                t, part, width, order, slot + here, gates, earlier, before, cells, dhs, dh, dc, here, dts
            )
            if team[BY_UNITS]:
                goal = meet(team, goal)
            a = (flat_dts, (here + i_first) * gate_row, gate_row, ONE)
            c = (flat_dh, i_first * row, row, panel)
            recurrent_product(team, member, i_last - i_first, cols, width, ONE, a, w_h, c, c, OVERWRITE)
            clear_resets(t, i_first, i_last, order, resets, dh)
            clear_resets(t, i_first, i_last, order, resets, dc)
        goal = meet(team, goal)
        recurrent_gradients(team, member, rows, width, cols, dts, h_block, dwh, db, mode)
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
        scatter_state(order, dc, dc0)
    end_call(team, member, goal)
    restore_mode(mode_before)


@kernel
def lstm_step(x, h, c, wx, wh, b, gates, out):
    """One step with the bits of lstm_forward, its weights read where they lie; out = h.

    x       (N, D)     read
    h, c    (N, H)     overwritten; the state and the cell before
    wx      (D, 4H)    read
    wh      (H, 4H)    read
    b       (4H,)      read
    gates   (4H,)      scratch
    out     (N, H)     overwritten
    """
    mode_before = flush_denormals()
    width = h.shape[1]
    f, g, i, o = FORGET * width, CANDIDATE * width, INPUT * width, OUTPUT * width
    for n in range(x.shape[0]):
        copy_row(b, gates)
        add_product(x[n], wx, 0, gates)
        add_product(h[n], wh, 0, gates)
        own = n * width
        reads = ((gates, f), (gates, g), (gates, i), (gates, o), (c, own))
        writes = ((gates, f), (gates, g), (gates, i), (gates, o), (c, own), (c, own))
        map_row(lstm_gates, width, reads, writes)
        map_row(lstm_output, width, ((gates, o), (c, own)), ((h, own), (out, own)))
    restore_mode(mode_before)
