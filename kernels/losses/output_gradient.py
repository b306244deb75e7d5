"""The last step of the fused loss: the gradients of weights and bias, in the layout of the weights."""

from __future__ import annotations

from .._jit import kernel, spliced
from ..codegen.denormals import flush_denormals, restore_mode
from ..codegen.vectors import VECTOR_BYTES, transpose_block
from ..recurrence.shares import share
from ..team.team import begin_call, end_call, meet


@spliced
def _add_scaled(begin, end, depth, flat, row, scale, flat_dw, dw_row, dw_col):
    """dW += scale dW^T transposed, for words begin .. end.

    flat     memory of dW^T (V, row)  read
    flat_dw  memory of dW (H, V)      accumulated, element (i, v) at i dw_row + v dw_col
    """
    for v in range(begin, end):
        source = flat[v * row : v * row + depth]
        if dw_row == 1:
            target = flat_dw[v * dw_col :][:depth]
            for j in range(depth):
                target[j] += source[j] * scale
        else:
            for j in range(depth):
                flat_dw[j * dw_row + v * dw_col] += source[j] * scale


@kernel
def scaled_gradient(team, member, dwb_t, scale, adds, dw, dw_row, dw_col, db):
    """dW = scale dW^T transposed, db = scale db, from the gradients of affine_softmax_loss.

    team, member                the threads at work, and which this is: see team.py
    dwb_t  (V, row >= H+1)      read
    scale  float                the incoming gradient
    adds   bool                 dW is accumulated
    dw     memory of dW (H, V)  overwritten or accumulated, element (i, v) at i dw_row + v dw_col
    db     (V,)                 overwritten
    """
    mode_before = flush_denormals()
    goal = begin_call(team, member)
    size = db.size
    depth = dw.size // max(1, size)
    flat_dw, flat = dw.reshape(-1), dwb_t.reshape(-1)
    row = dwb_t.shape[1]
    lanes = VECTOR_BYTES // dw.itemsize
    begin, end = share((size + lanes - 1) // lanes, member, team)
    begin, end = begin * lanes, min(end * lanes, size)
    for v in range(begin, end):
        db[v] = flat[v * row + depth] * scale
    if adds:
        _add_scaled(begin, end, depth, flat, row, scale, flat_dw, dw_row, dw_col)
    else:
        whole_words, whole_units = 0, 0
        if dw_col == 1:
            whole_words, whole_units = size // lanes * lanes, depth // lanes * lanes
            for v in range(begin, min(end, whole_words), lanes):
                for j in range(0, whole_units, lanes):
                    transpose_block(flat, v * row + j, row, flat_dw, j * dw_row + v, dw_row)
        for v in range(begin, end):
            for j in range(whole_units if v < whole_words else 0, depth):
                flat_dw[j * dw_row + v * dw_col] = flat[v * row + j]
    goal = meet(team, goal)
    if scale != 1 and not adds:
        begin, end = share(flat_dw.size, member, team)
        own = flat_dw[begin:end]
        for i in range(own.size):
            own[i] *= scale
    end_call(team, member, goal)
    restore_mode(mode_before)
