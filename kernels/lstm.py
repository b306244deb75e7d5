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
from .activations import sigmoid_row, tanh, tanh_row
from .denormals import flush_denormals, restore_mode
from .gemm import ONE, ZERO, gemm, pack, packed_view
from .row import add_product
from .sequence import (
    block_gradients,
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
)
from .shares import (
    copy_part,
    own_part,
    pack_recurrent,
    recurrent_product,
    share,
)
from .simd import fma
from .team import BY_UNITS, MEMBERS, begin_call, end_call, meet
from .tile import ADD_TO, FROM_START, OVERWRITE, PANEL_BYTES
from .vectors import copy_row

# Where each gate begins in the columns of Wx, Wh and b, in multiples of H: the book's order.
FORGET, CANDIDATE, INPUT, OUTPUT = 0, 1, 2, 3
GATES = 4
ALL = np.int64(GATES)


@spliced
def lstm_cell_gates(part, width, gates, carry, cells):
    """f, i, o = sigmoid, g = tanh of the pre-activations; c = f c_before + g i.

    part   sequences and units (i_first, i_last, j_first, j_last) to work on
    gates  (count.., gate row)   the gates, overwritten; pre-activations before
    carry  (N, row)              overwritten with c; c_before before
    cells  (count.., row)        overwritten with c
    """
    i_first, i_last, j_first, j_last = part
    units = j_last - j_first
    for n in range(i_first, i_last):
        # One loop an activation: six arrays in one loop are more than the vectoriser checks for overlap.
        f = gates[n, FORGET * width + j_first :][:units]
        g = gates[n, CANDIDATE * width + j_first :][:units]
        i = gates[n, INPUT * width + j_first :][:units]
        sigmoid_row(f)
        tanh_row(g)
        if units == width:
            sigmoid_row(gates[n, INPUT * width : (OUTPUT + 1) * width])
        else:
            sigmoid_row(i)
            sigmoid_row(gates[n, OUTPUT * width + j_first :][:units])
        running, kept = carry[n, j_first:j_last], cells[n, j_first:j_last]
        for j in range(units):
            c = fma(f[j], running[j], g[j] * i[j])
            running[j] = c
            kept[j] = c


@spliced
def lstm_cell_output(t, part, width, order, gates, cells, states, hs):
    """states = hs[order[n], t] = o tanh(c).

    part    sequences and units (i_first, i_last, j_first, j_last) to work on
    gates   (count.., gate row)   read
    cells   (count.., row)        read
    states  (count.., row)        overwritten
    hs      (N, T, H)             step t overwritten
    """
    i_first, i_last, j_first, j_last = part
    for n in range(i_first, i_last):
        o, c = gates[n, OUTPUT * width + j_first :], cells[n, j_first:j_last]
        state, out = states[n, j_first:j_last], hs[order[n], t, j_first:j_last]
        for j in range(out.size):
            h = o[j] * tanh(c[j])
            state[j] = h
            out[j] = h


@spliced
def lstm_cell_backward(t, part, width, order, gates, before, cells, dhs, dh, dc, dts):
    """The gradient of the pre-activations, and dc, that of c, taken back over the forget gate.

    With dh_t = dhs[:, t] + dh and dc_t = dc + dh_t o (1 - tanh(c)^2):
    do = dh_t tanh(c) o (1 - o), df = dc_t c_before f (1 - f), dg = dc_t i (1 - g^2), di = dc_t g i (1 - i),
    dc = dc_t f.

    part    sequences and units (i_first, i_last, j_first, j_last) to work on
    gates   (count.., gate row)   read
    before  (count.., row)        read, c_before
    cells   (count.., row)        read
    dhs     (N, T, H)             read
    dh      (N, row)              read, the gradient of h that arrives from step t + 1
    dc      (N, row)              overwritten; the gradient of c from step t + 1 before
    dts     (count.., gate row)   overwritten
    """
    i_first, i_last, j_first, j_last = part
    units = j_last - j_first
    one = gates.dtype.type(1)
    for n in range(i_first, i_last):
        f, g = gates[n, FORGET * width + j_first :], gates[n, CANDIDATE * width + j_first :]
        i, o = gates[n, INPUT * width + j_first :], gates[n, OUTPUT * width + j_first :]
        df, dg = dts[n, FORGET * width + j_first :], dts[n, CANDIDATE * width + j_first :]
        di, do = dts[n, INPUT * width + j_first :], dts[n, OUTPUT * width + j_first :]
        above, later = dhs[order[n], t, j_first:j_last], dh[n, j_first:j_last]
        running = dc[n, j_first:j_last]
        c, previous = cells[n, j_first:j_last], before[n, j_first:j_last]
        for j in range(units):
            squashed = tanh(c[j])
            total = above[j] + later[j]
            do[j] = total * squashed * (o[j] * (one - o[j]))
            running[j] = fma(total * o[j], fma(-squashed, squashed, one), running[j])
        for j in range(units):
            df[j] = running[j] * previous[j] * (f[j] * (one - f[j]))
            dg[j] = running[j] * i[j] * fma(-g[j], g[j], one)
            di[j] = running[j] * g[j] * (i[j] * (one - i[j]))
        for j in range(units):
            running[j] *= f[j]


@kernel
def lstm_forward(
    team, member, xs, h0, c0, wx, wh, b, offsets, order, blocks, resets,
    states, gates, cells, starts, hs, h_last, c_last, packed_x, packed_h, x_block, kept, carry,
):  # fmt: skip
    """f, i, o = sigmoid, g = tanh of x_t Wx + h_{t-1} Wh + b; c_t = f c_{t-1} + g i, h_t = o tanh(c_t).

    team, member                                the threads at work, and which this is: see team.py
    xs        (N, T, D)                         read
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
    kept      (N, row)                          scratch if there are resets
    carry     (N, row)                          scratch
    """
    mode_before = flush_denormals()
    goal = begin_call(team, member)
    depth = xs.shape[2]
    batch, width = order.size, hs.shape[2]
    cols = GATES * width
    row, gate_row = states.shape[1], gates.shape[1]
    panel = PANEL_BYTES // xs.itemsize
    flat_states, flat_gates, flat_kept = states.reshape(-1), gates.reshape(-1), kept.reshape(-1)
    pack(member, team[MEMBERS], depth, cols, (wx.reshape(-1), ZERO, cols, ONE), packed_x)
    pack_recurrent(team, member, width, width, ALL, (wh.reshape(-1), ZERO, cols, ONE), packed_h)
    if member == 0:
        gather_state(order, h0, states)
        gather_state(order, c0, carry)
    goal = meet(team, goal)
    for k in range(blocks.size - 1):
        t_first, t_last = blocks[k], blocks[k + 1]
        slot = slot_of_block(k, x_block, gates)
        i_block, i_end, j_first, j_last = own_part(t_first, t_last, width, offsets, team, member)
        copy_part((i_block, i_end, j_first, j_last), carry, starts[k])
        begin, end = share(offsets[t_last] - offsets[t_first], member, team)
        gather_steps(t_first, t_last, begin, end, offsets, order, xs, x_block)
        c = (flat_gates, slot * gate_row, gate_row, panel)
        input_product(begin, end, x_block, packed_x, b, c)
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
            recurrent_product(
                team, member, i_last - i_first, width, width, ALL, a, packed_h, c, c, FROM_START
            )
            lstm_cell_gates(part, width, gates[here:], carry, cells[here:])
            lstm_cell_output(t, part, width, order, gates[here:], cells[here:], states[first:], hs)
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
    team, member, goal, t_first, t_last, slot, width, packed_x, packed_h, b, offsets, order, resets, start,
    x_block, h_block, gates, cells, carry,
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
    input_product(begin, end, x_block, packed_x, b, (flat, slot * gate_row, gate_row, panel))
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
        lstm_cell_gates((i_first, i_last, j_first, j_last), width, gates[here:], carry, cells[here:])
    return goal


@kernel
def lstm_backward(
    team, member, xs, states, gates, cells, starts, intact, dhs, dh_next, dc_next, wx, wh, b,
    offsets, order, blocks, resets, adds, dxs, dh0, dc0, dwx, dwh, db,
    packed_x, packed_h, packed_wx, packed_wh, packed_dt, dts, dh, dc, x_block, h_block, kept, carry,
):  # fmt: skip
    """Backpropagation through time: with dt the gradient of a step's pre-activations, dh_{t-1} = dt Wh^T,
    dx_t = dt Wx^T, dWx = sum x_t^T dt, dWh = sum h_{t-1}^T dt, db = sum dt.

    team, member                                         as in lstm_forward
    xs                  (N, T, D)                        read
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
    dh0, dc0            (N, H)                           overwritten, the gradient of h0 and c0
    dwx, dwh, db        (D, 4H), (H, 4H), (4H,)          overwritten; accumulated if adds
    packed_x            (packed_size(4H, D),)            scratch
    packed_h            (recurrent_packed_size(4H, H, 1, members),)   scratch
    packed_wx           (packed_size(D, 4H),) or (0,)    scratch, needed if a block is made again
    packed_wh           (packed_size(H, 4H),) or (0,)    scratch, likewise
    packed_dt           (packed_size(block rows, 4H) + 1,)   scratch, block rows = block_steps(N) N
    dts                 (block rows, gate row)           scratch
    dh, dc, kept, carry (N, row)                         scratch
    x_block             (block rows, x row)              scratch
    h_block             (block rows, row)                scratch
    """
    mode_before = flush_denormals()
    goal = begin_call(team, member)
    steps, depth = xs.shape[1:]
    width = dhs.shape[2]
    cols = GATES * width
    row, gate_row = states.shape[1], dts.shape[1]
    panel = PANEL_BYTES // xs.itemsize
    members = team[MEMBERS]
    flat_dts, flat_dh, flat_wh = dts.reshape(-1), dh.reshape(-1), wh.reshape(-1)
    pack(member, members, cols, depth, (wx.reshape(-1), ZERO, ONE, cols), packed_x)
    pack_recurrent(team, member, cols, width, ONE, (flat_wh, ZERO, ONE, cols), packed_h)
    if intact > 0:
        pack(member, members, depth, cols, (wx.reshape(-1), ZERO, cols, ONE), packed_wx)
        pack(member, members, width, cols, (flat_wh, ZERO, cols, ONE), packed_wh)
    if member == 0:
        gather_state(order, dh_next, dh)
        gather_state(order, dc_next, dc)
        if not offsets[steps] and not adds:
            dwx[:] = 0
            dwh[:] = 0
            db[:] = 0
    goal = meet(team, goal)
    mode = ADD_TO if adds else OVERWRITE
    for k in range(blocks.size - 2, -1, -1):
        t_first, t_last = blocks[k], blocks[k + 1]
        rows = offsets[t_last] - offsets[t_first]
        if not rows:
            continue
        slot = slot_of_block(k, x_block, gates)
        start = starts[k]
        begin, end = share(rows, member, team)
        gather_steps(t_first, t_last, begin, end, offsets, order, xs, x_block)
        gather_states_before(t_first, t_last, begin, end, offsets, order, resets, states, h_block)
        if k < intact:
            goal = _remake_block(
                team, member, goal, t_first, t_last, slot, width, packed_wx, packed_wh, b, offsets, order,
                resets, start, x_block, h_block, gates, cells, carry,
            )  # fmt: skip
        i_block, i_end, j_first, j_last = own_part(t_first, t_last, width, offsets, team, member)
        for t in range(t_last - 1, t_first - 1, -1):
            here, count = offsets[t] - offsets[t_first], offsets[t + 1] - offsets[t]
            i_first, i_last = min(i_block, count), min(i_end, count)
            part = (i_first, i_last, j_first, j_last)
            before = cells[slot + offsets[t - 1] - offsets[t_first] :] if t > t_first else start
            if resets.size:
                masked_rows(t, i_first, i_last, order, resets, before, kept)
                before = kept
            lstm_cell_backward(
                t, part, width, order, gates[slot + here :], before, cells[slot + here :], dhs, dh, dc,
                dts[here:],
            )  # fmt: skip
            if team[BY_UNITS]:
                goal = meet(team, goal)
            a = (flat_dts, (here + i_first) * gate_row, gate_row, ONE)
            c = (flat_dh, i_first * row, row, panel)
            recurrent_product(team, member, i_last - i_first, cols, width, ONE, a, packed_h, c, c, OVERWRITE)
            clear_resets(t, i_first, i_last, order, resets, dh)
            clear_resets(t, i_first, i_last, order, resets, dc)
        goal = meet(team, goal)
        goal = block_gradients(
            team, member, goal, rows, width, cols, dts, x_block, h_block, packed_x, packed_dt,
            dwx, dwh, db, mode,
        )  # fmt: skip
        scatter_steps(t_first, t_last, begin, end, offsets, order, x_block, dxs)
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
    f, g = gates[FORGET * width :][:width], gates[CANDIDATE * width :][:width]
    i, o = gates[INPUT * width :][:width], gates[OUTPUT * width :][:width]
    for n in range(x.shape[0]):
        copy_row(b, gates)
        add_product(x[n], wx, 0, gates)
        add_product(h[n], wh, 0, gates)
        sigmoid_row(f)
        tanh_row(g)
        sigmoid_row(gates[INPUT * width :])
        cell, result = c[n], out[n]
        for j in range(width):
            cell[j] = fma(f[j], cell[j], g[j] * i[j])
        for j in range(width):
            result[j] = o[j] * tanh(cell[j])
        copy_row(result, h[n])
    restore_mode(mode_before)
