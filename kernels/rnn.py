"""The Elman network over a whole sequence: h_t = act(x_t Wx + h_{t-1} Wh + b), act = tanh or relu."""

from __future__ import annotations

from ._jit import kernel, spliced
from .activations import tanh
from .denormals import flush_denormals, restore_mode
from .formula import formula, map_row
from .gemm import MANY, ONE, ZERO, pack, pack_for
from .inputs import gather_words, input_product, inputs_backward, word_products, words_backward
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
    state_rows_before,
)
from .shares import (
    own_part,
    recurrent_operand,
    recurrent_product,
    share,
)
from .simd import fma, select
from .team import BY_UNITS, MEMBERS, begin_call, end_call, meet
from .tile import ADD_TO, FROM_START, MAX_ROWS, OVERWRITE, PANEL_BYTES
from .vectors import copy_row


@formula
def tanh_unit(a):
    """h = tanh(a), as state and as output."""
    h = tanh(a)
    return h, h


@formula
def relu_unit(a):
    """h = max(a, 0), as state and as output; NaN stays NaN."""
    h = select(a <= 0, 0, a)
    return h, h


@formula
def tanh_unit_backward(h, above, later):
    """(above + later) (1 - h^2)"""
    return (above + later) * fma(-h, h, 1)


@formula
def relu_unit_backward(h, above, later):
    """above + later where h > 0"""
    total = above + later
    return select(h > 0, total, 0)


@spliced
def rnn_cell_forward(t, first, part, order, relu, states, hs):
    """states[first + i] = hs[order[i], t] = act(states[first + i]), which holds the pre-activation.

    part    sequences and units (i_first, i_last, j_first, j_last) to work on
    states  (N + rows, row)   rows of step t overwritten
    hs      (N, T, H)         step t overwritten
    """
    i_first, i_last, j_first, j_last = part
    row, units = states.shape[1], j_last - j_first
    for i in range(i_first, i_last):
        state = (states, (first + i) * row + j_first)
        out = (hs, (order[i] * hs.shape[1] + t) * hs.shape[2] + j_first)
        if relu:
            map_row(relu_unit, units, (state,), (state, out))
        else:
            map_row(tanh_unit, units, (state,), (state, out))


@spliced
def rnn_cell_backward(t, first, part, order, relu, states, dhs, dh, here, dts):
    """dt = (dhs[order[i], t] + dh[i]) * act'(a_t), with act' from h_t: 1 - h^2, or h > 0.

    part    sequences and units (i_first, i_last, j_first, j_last) to work on
    states  (N + rows, row)   read, step t from row `first` on
    dhs     (N, T, H)         read
    dh      (N, row)          read, the gradient that arrives from step t + 1
    dts     (.., row)         overwritten from row `here` on
    """
    i_first, i_last, j_first, j_last = part
    row, units = states.shape[1], j_last - j_first
    for i in range(i_first, i_last):
        h = (states, (first + i) * row + j_first)
        above = (dhs, (order[i] * dhs.shape[1] + t) * dhs.shape[2] + j_first)
        later, dt = (dh, i * row + j_first), (dts, (here + i) * row + j_first)
        if relu:
            map_row(relu_unit_backward, units, (h, above, later), (dt,))
        else:
            map_row(tanh_unit_backward, units, (h, above, later), (dt,))


@kernel
def rnn_forward(
    team, member, xs, ids, words, h0, wx, wh, b, relu, offsets, order, blocks, resets, states, hs, h_last,
    packed_x, packed_h, x_block, table, kept,
):  # fmt: skip
    """h_t = act(x_t Wx + h_{t-1} Wh + b) for t = 0..T-1.

    team, member                      the threads at work, and which this is: see team.py
    xs        (N, T, D)               read
    ids       (N, T) or None          read, int64: x_t = words[ids[:, t]]; xs is not read
    words     (V, D)                  read if there are ids
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
    table     (V, cols)               scratch if there are ids
    kept      (N, row)                scratch if there are resets
    """
    mode_before = flush_denormals()
    goal = begin_call(team, member)
    depth = wx.shape[0]
    batch, width = order.size, hs.shape[2]
    row = states.shape[1]
    panel = PANEL_BYTES // xs.itemsize
    flat_states, flat_kept = states.reshape(-1), kept.reshape(-1)
    uses = (offsets.size - 1) * ((batch + MAX_ROWS - 1) // MAX_ROWS)
    w = (wx.reshape(-1), ZERO, width, ONE)
    w_x = pack_for(uses, member, team[MEMBERS], depth, width, w, packed_x)
    w = (wh.reshape(-1), ZERO, width, ONE)
    w_h = recurrent_operand(uses, team, member, width, width, ONE, w, packed_h)
    if member == 0:
        gather_state(order, h0, states)
    goal = meet(team, goal)
    if ids is not None:
        goal = word_products(team, member, goal, words, w_x, b, table)
    for k in range(blocks.size - 1):
        t_first, t_last = blocks[k], blocks[k + 1]
        begin, end = share(offsets[t_last] - offsets[t_first], member, team)
        if ids is not None:
            gather_words(
                t_first, t_last, begin, end, offsets, order, ids, table, states, batch + offsets[t_first]
            )
        else:
            gather_steps(t_first, t_last, begin, end, offsets, order, xs, x_block)
            c = (flat_states, (batch + offsets[t_first]) * row, row, panel)
            input_product(begin, end, depth, x_block, w_x, b, c)
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
            recurrent_product(team, member, i_last - i_first, width, width, ONE, a, w_h, c, c, FROM_START)
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
    team, member, xs, ids, words, states, dhs, dh_next, wx, wh, relu, offsets, order, blocks, resets, adds,
    dxs, dwords, dh0, dwx, dwh, db, packed_x, packed_h, dts, dh, x_block, sums, h_block,
):  # fmt: skip
    """Backpropagation through time: dt = (dh_t + dhs_t) * act', dh_{t-1} = dt Wh^T, dx_t = dt Wx^T,
    dWx = sum x_t^T dt, dWh = sum h_{t-1}^T dt, db = sum dt.

    team, member                                   as in rnn_forward
    xs         (N, T, D)                           read
    ids        (N, T) or None                      read, int64: x_t = words[ids[:, t]]; xs is not read
    words      (V, D)                              read if there are ids
    states     (N + rows, row)                     read, as rnn_forward left it
    dhs        (N, T, H)                           read, the gradient of each output
    dh_next    (N, H)                              read, the gradient of the final state
    wx, wh     (D, H), (H, H)                      read
    relu       bool                                act is relu, else tanh
    offsets, order, blocks, resets                 read, as in rnn_forward
    adds       bool                                the gradients of the parameters are accumulated
    dxs        (N, T, D)                           overwritten, zero where a sequence has ended
    dwords     (V, D)                              overwritten if there are ids; accumulated if adds
    dh0        (N, H)                              overwritten, the gradient of the initial state
    dwx        (D, H)                              overwritten; accumulated if adds
    dwh        (H, H)                              likewise
    db         (H,)                                likewise
    packed_x   (packed_size(H, D),)                scratch
    packed_h   (recurrent_packed_size(H, H, 1, members),)  scratch
    dts        (block rows + 1, row)               scratch, block rows = block_steps(N) N
    dh         (N, row)                            scratch
    x_block    (block rows, x row)                 scratch
    sums       (V + 1, dt row)                     scratch if there are ids
    h_block    (block rows, row)                   scratch
    """
    mode_before = flush_denormals()
    goal = begin_call(team, member)
    steps, depth = offsets.size - 1, wx.shape[0]
    batch, width = order.size, dhs.shape[2]
    row = states.shape[1]
    panel = PANEL_BYTES // xs.itemsize
    flat_dts, flat_dh = dts.reshape(-1), dh.reshape(-1)
    pack(member, team[MEMBERS], width, depth, (wx.reshape(-1), ZERO, ONE, width), packed_x)
    w = (wh.reshape(-1), ZERO, ONE, width)
    w_h = recurrent_operand(MANY, team, member, width, width, ONE, w, packed_h)
    if member == 0:
        gather_state(order, dh_next, dh)
        if not offsets[steps] and not adds:
            clear_gradients(dwx, dwh, db)
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
            rnn_cell_backward(t, batch + offsets[t], part, order, relu, states, dhs, dh, here, dts)
            if team[BY_UNITS]:
                goal = meet(team, goal)
            a = (flat_dts, (here + i_first) * row, row, ONE)
            c = (flat_dh, i_first * row, row, panel)
            recurrent_product(team, member, i_last - i_first, width, width, ONE, a, w_h, c, c, OVERWRITE)
            clear_resets(t, i_first, i_last, order, resets, dh)
        begin, end = share(rows, member, team)
        gather_states_before(t_first, t_last, begin, end, offsets, order, resets, states, h_block)
        if ids is None:
            gather_steps(t_first, t_last, begin, end, offsets, order, xs, x_block)
        goal = meet(team, goal)
        recurrent_gradients(team, member, rows, width, width, dts, h_block, dwh, db, mode)
        block = (t_first, t_last, offsets, order)
        if ids is None:
            goal = inputs_backward(team, member, goal, block, width, x_block, dts, packed_x, dxs, dwx, mode)
        else:
            goal = words_backward(
                team, member, goal, block, width, ids, words, dts, sums, packed_x, dwx, dwords, mode
            )
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
    width = h.shape[1]
    for n in range(x.shape[0]):
        sums = out[n]
        copy_row(b, sums)
        add_product(x[n], wx, 0, sums)
        add_product(h[n], wh, 0, sums)
        own = n * width
        if relu:
            map_row(relu_unit, width, ((out, own),), ((out, own), (h, own)))
        else:
            map_row(tanh_unit, width, ((out, own),), ((out, own), (h, own)))
    restore_mode(mode_before)
