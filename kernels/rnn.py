"""The Elman network over a whole sequence: h_t = act(x_t Wx + h_{t-1} Wh + b), act = tanh or relu."""

from __future__ import annotations

from ._jit import kernel, spliced
from .activations import tanh, tanh_row
from .denormals import flush_denormals, restore_mode
from .gemm import ONE, ZERO, pack
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
    state_rows_before,
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


@spliced
def rnn_cell_forward(t, first, part, order, relu, states, hs):
    """states[first + i] = hs[order[i], t] = act(states[first + i]), which holds the pre-activation.

    part    sequences and units (i_first, i_last, j_first, j_last) to work on
    states  (N + rows, row)   rows of step t overwritten
    hs      (N, T, H)         step t overwritten
    """
    i_first, i_last, j_first, j_last = part
    zero = hs.dtype.type(0)
    for i in range(i_first, i_last):
        state = states[first + i, j_first:j_last]
        out = hs[order[i], t, j_first:j_last]
        if relu:
            for j in range(out.size):
                h = zero if state[j] <= zero else state[j]  # NaN stays NaN
                state[j] = h
                out[j] = h
        else:
            for j in range(out.size):
                h = tanh(state[j])
                state[j] = h
                out[j] = h


@spliced
def rnn_cell_backward(t, first, part, order, relu, states, dhs, dh, dts):
    """dt = (dhs[order[i], t] + dh[i]) * act'(a_t), with act' from h_t: 1 - h^2, or h > 0.

    part    sequences and units (i_first, i_last, j_first, j_last) to work on
    states  (N + rows, row)   read, step t from row `first` on
    dhs     (N, T, H)         read
    dh      (N, row)          read, the gradient that arrives from step t + 1
    dts     (count.., row)    overwritten
    """
    i_first, i_last, j_first, j_last = part
    one = states.dtype.type(1)
    zero = states.dtype.type(0)
    for i in range(i_first, i_last):
        h = states[first + i, j_first:j_last]
        above = dhs[order[i], t, j_first:j_last]
        later = dh[i, j_first:j_last]
        out = dts[i, j_first:j_last]
        if relu:
            for j in range(out.size):
                out[j] = above[j] + later[j] if h[j] > zero else zero
        else:
            for j in range(out.size):
                out[j] = (above[j] + later[j]) * fma(-h[j], h[j], one)


@kernel
def rnn_forward(
    team, member, xs, h0, wx, wh, b, relu, offsets, order, blocks, resets, states, hs, h_last,
    packed_x, packed_h, x_block, kept,
):  # fmt: skip
    """h_t = act(x_t Wx + h_{t-1} Wh + b) for t = 0..T-1.

    team, member                      the threads at work, and which this is: see team.py
    xs        (N, T, D)               read
    h0        (N, H)                  read
    wx        (D, H)                  read
    wh        (H, H)                  read
    b         (H,)                    read
    relu      bool                    act is relu, else tanh
    offsets   (T+1,)                  read, int64, first row of each step
    order     (N,)                    read, int64, sequences by falling length
    blocks    (blocks+1,)             read, int64, first step of each block of the time grid, and T
    resets    (N, T) or (0, 0)        read, bool, where the state is zero before the step
    states    (N + rows, row)         overwritten, the first N with h0; rows = offsets[T]
    hs        (N, T, H)               overwritten, zero where a sequence has ended
    h_last    (N, H)                  overwritten, the state after the last step; may be h0
    packed_x  (packed_size(D, H),)    scratch
    packed_h  (recurrent_packed_size(H, H, 1, members),)   scratch
    x_block   (block_rows, x row)     scratch
    kept      (N, row)                scratch if there are resets
    """
    mode_before = flush_denormals()
    goal = begin_call(team, member)
    depth = xs.shape[2]
    batch, width = order.size, hs.shape[2]
    row = states.shape[1]
    panel = PANEL_BYTES // xs.itemsize
    flat_states, flat_kept = states.reshape(-1), kept.reshape(-1)
    pack(member, team[MEMBERS], depth, width, (wx.reshape(-1), ZERO, width, ONE), packed_x)
    pack_recurrent(team, member, width, width, ONE, (wh.reshape(-1), ZERO, width, ONE), packed_h)
    if member == 0:
        gather_state(order, h0, states)
    goal = meet(team, goal)
    for k in range(blocks.size - 1):
        t_first, t_last = blocks[k], blocks[k + 1]
        begin, end = share(offsets[t_last] - offsets[t_first], member, team)
        gather_steps(t_first, t_last, begin, end, offsets, order, xs, x_block)
        c = (flat_states, (batch + offsets[t_first]) * row, row, panel)
        input_product(begin, end, x_block, packed_x, b, c)
        goal = meet(team, goal)
        i_block, i_end, j_first, j_last = own_part(t_first, t_last, width, offsets, team, member)
        for t in range(t_first, t_last):
            first, count = batch + offsets[t], offsets[t + 1] - offsets[t]
            i_first, i_last = min(i_block, count), min(i_end, count)
            before = state_rows_before(t, batch, offsets)
            a = (flat_states, (before + i_first) * row, row, ONE)
            if resets.size:
                masked_rows(t, i_first, i_last, order, resets, states[before:], kept)
                a = (flat_kept, i_first * row, row, ONE)
            c = (flat_states, (first + i_first) * row, row, panel)
            recurrent_product(
                team, member, i_last - i_first, width, width, ONE, a, packed_h, c, c, FROM_START
            )
            rnn_cell_forward(t, first, (i_first, i_last, j_first, j_last), order, relu, states, hs)
            if team[BY_UNITS]:
                goal = meet(team, goal)
        goal = meet(team, goal)
    if member == 0:
        clear_ends(offsets, order, hs)
        scatter_last(offsets, order, states, h_last)
    end_call(team, member, goal)
    restore_mode(mode_before)


@kernel
def rnn_backward(
    team, member, xs, states, dhs, dh_next, wx, wh, relu, offsets, order, blocks, resets, adds,
    dxs, dh0, dwx, dwh, db, packed_x, packed_h, packed_dt, dts, dh, x_block, h_block,
):  # fmt: skip
    """Backpropagation through time: dt = (dh_t + dhs_t) * act', dh_{t-1} = dt Wh^T, dx_t = dt Wx^T,
    dWx = sum x_t^T dt, dWh = sum h_{t-1}^T dt, db = sum dt.

    team, member                                   as in rnn_forward
    xs         (N, T, D)                           read
    states     (N + rows, row)                     read, as rnn_forward left it
    dhs        (N, T, H)                           read, the gradient of each output
    dh_next    (N, H)                              read, the gradient of the final state
    wx, wh     (D, H), (H, H)                      read
    relu       bool                                act is relu, else tanh
    offsets, order, blocks, resets                 read, as in rnn_forward
    adds       bool                                the gradients of the parameters are accumulated
    dxs        (N, T, D)                           overwritten, zero where a sequence has ended
    dh0        (N, H)                              overwritten, the gradient of the initial state
    dwx        (D, H)                              overwritten; accumulated if adds
    dwh        (H, H)                              likewise
    db         (H,)                                likewise
    packed_x   (packed_size(H, D),)                scratch
    packed_h   (recurrent_packed_size(H, H, 1, members),)  scratch
    packed_dt  (packed_size(block rows, H) + 1,)   scratch, block rows = block_steps(N) N
    dts        (block rows, row)                   scratch
    dh         (N, row)                            scratch
    x_block    (block rows, x row)                 scratch
    h_block    (block rows, row)                   scratch
    """
    mode_before = flush_denormals()
    goal = begin_call(team, member)
    steps, depth = xs.shape[1:]
    batch, width = order.size, dhs.shape[2]
    row = states.shape[1]
    panel = PANEL_BYTES // xs.itemsize
    flat_dts, flat_dh = dts.reshape(-1), dh.reshape(-1)
    pack(member, team[MEMBERS], width, depth, (wx.reshape(-1), ZERO, ONE, width), packed_x)
    pack_recurrent(team, member, width, width, ONE, (wh.reshape(-1), ZERO, ONE, width), packed_h)
    if member == 0:
        gather_state(order, dh_next, dh)
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
        i_block, i_end, j_first, j_last = own_part(t_first, t_last, width, offsets, team, member)
        for t in range(t_last - 1, t_first - 1, -1):
            here, count = offsets[t] - offsets[t_first], offsets[t + 1] - offsets[t]
            i_first, i_last = min(i_block, count), min(i_end, count)
            part = (i_first, i_last, j_first, j_last)
            rnn_cell_backward(t, batch + offsets[t], part, order, relu, states, dhs, dh, dts[here:])
            if team[BY_UNITS]:
                goal = meet(team, goal)
            a = (flat_dts, (here + i_first) * row, row, ONE)
            c = (flat_dh, i_first * row, row, panel)
            recurrent_product(team, member, i_last - i_first, width, width, ONE, a, packed_h, c, c, OVERWRITE)
            clear_resets(t, i_first, i_last, order, resets, dh)
        begin, end = share(rows, member, team)
        gather_states_before(t_first, t_last, begin, end, offsets, order, resets, states, h_block)
        gather_steps(t_first, t_last, begin, end, offsets, order, xs, x_block)
        goal = meet(team, goal)
        goal = block_gradients(
            team, member, goal, rows, width, width, dts, x_block, h_block, packed_x, packed_dt,
            dwx, dwh, db, mode,
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
def rnn_step(x, h, wx, wh, b, relu, out):
    """out = h = act(x Wx + h Wh + b): one step with the bits of rnn_forward, its weights read where they lie.

    x     (N, D)    read
    h     (N, H)    overwritten; the state before
    wx    (D, H)    read
    wh    (H, H)    read
    b     (H,)      read
    relu  bool      act is relu, else tanh
    out   (N, H)    overwritten
    """
    mode_before = flush_denormals()
    zero = x.dtype.type(0)
    for n in range(x.shape[0]):
        sums = out[n]
        copy_row(b, sums)
        add_product(x[n], wx, 0, sums)
        add_product(h[n], wh, 0, sums)
        if relu:
            for j in range(sums.size):
                sums[j] = zero if sums[j] <= zero else sums[j]  # NaN stays NaN
        else:
            tanh_row(sums)
        copy_row(sums, h[n])
    restore_mode(mode_before)
