"""The affine layer over all positions: y = x W + b, and its gradients."""

from __future__ import annotations

from .._jit import inline, kernel
from ..codegen.denormals import flush_denormals, restore_mode
from ..codegen.vectors import VECTOR_BYTES, copy_span, transpose_block
from ..product.gemm import ONE, ZERO, gemm, pack, packed_view
from ..product.row import add_product
from ..product.tile import ADD_TO, FROM_START, OVERWRITE, PANEL_BYTES
from ..recurrence.shares import share
from ..team.team import begin_call, end_call, meet

# Rows in one block of the sums for dW and db: long sums stay accurate, and the block stays in L2.
BLOCK_ROWS = 256
# Up to ROWS_IN_PLACE rows read W in place, if its rows are contiguous. Up to ROWS_IN_BLOCKS rows read a
# transposed view packed in blocks that stay in the cache. One row, D = 100, O = 10,000, float32, one core of
# an AMD EPYC (Zen 4): 67 us in place, 159 with all of W packed; 218 us in blocks, 446 with all of W^T packed.
ROWS_IN_PLACE, ROWS_IN_BLOCKS, BLOCK_BYTES = 2, 8, 128 * 1024


@kernel
def affine_forward(x, w, w_row, w_col, b, made, y, packed):
    """y = x W + b.

    x       (R, D)                   read
    w       memory of W (D, O)       read, element (i, j) at i w_row + j w_col
    b       (O,)                     read
    made    (2,) or (0,)             overwritten, int64; made[0] says whether `packed` holds W from the last
    call; (0,) if W may change before the next one
    y       (R, O)                   overwritten
    packed  (packed_size(D, O),)     scratch; read if `made` says so
    """
    mode_before = flush_denormals()
    rows, depth = x.shape
    cols = b.size
    width = PANEL_BYTES // x.itemsize
    if rows <= ROWS_IN_PLACE and w_col == 1 and not made.size:
        for n in range(rows):
            copy_span(b, 0, y, n * b.size, b.size)
            add_product(x[n], w, 0, y[n])
    else:
        a = (x.reshape(-1), ZERO, depth, ONE)
        flat_w, flat_y = w.reshape(-1), y.reshape(-1)
        block = cols
        if rows <= ROWS_IN_BLOCKS and w_col != 1 and not made.size:
            block = max(1, BLOCK_BYTES // (depth * PANEL_BYTES)) * width
        for left in range(0, cols, block):
            count = min(block, cols - left)
            if not (made.size and made[0]):
                pack(ZERO, ONE, depth, count, (flat_w, left * w_col, w_row, w_col), packed)
            c = (flat_y, left, cols, width)
            gemm(rows, count, depth, a, packed_view(packed, depth), (b, left, ZERO, width), c, FROM_START)
        if made.size:
            made[0] = ONE
    restore_mode(mode_before)


@kernel
def affine_backward(x, dy, w, w_row, w_col, dx, dw, db, packed_w, packed_dy, block_sum):
    """dx = dy W^T, dW = x^T dy, db = sum dy; sums run over blocks of rows, last row first.

    x          (R, D)                            read
    dy         (R, O)                            read
    w          memory of W (D, O)                read, element (i, j) at i w_row + j w_col
    dx         (R, D)                            overwritten
    dw         (D, O)                            overwritten
    db         (O,)                              overwritten
    packed_w   (packed_size(O, D),)              scratch
    packed_dy  (packed_size(BLOCK_ROWS, O),)     scratch
    block_sum  (O,)                              scratch
    """
    mode_before = flush_denormals()
    rows, depth = x.shape
    cols = dy.shape[1]
    width = PANEL_BYTES // x.itemsize
    flat_x, flat_dy = x.reshape(-1), dy.reshape(-1)
    pack(ZERO, ONE, cols, depth, (w.reshape(-1), ZERO, w_col, w_row), packed_w)
    c = (dx.reshape(-1), ZERO, depth, width)
    gemm(rows, depth, cols, (flat_dy, ZERO, cols, ONE), packed_view(packed_w, cols), c, c, OVERWRITE)
    db[:] = 0
    if rows == 0:
        dw[:] = 0
    c = (dw.reshape(-1), ZERO, cols, width)
    mode = OVERWRITE
    for first in range((rows - 1) // BLOCK_ROWS * BLOCK_ROWS, -1, -BLOCK_ROWS):
        last = min(first + BLOCK_ROWS, rows) - 1
        count = last + 1 - first
        pack(ZERO, ONE, count, cols, (flat_dy, last * cols, -cols, ONE), packed_dy)
        a = (flat_x, last * depth, ONE, -depth)
        gemm(depth, cols, count, a, packed_view(packed_dy, count), c, c, mode)
        block_sum[:] = 0
        for r in range(last, first - 1, -1):
            source = dy[r]
            for j in range(cols):
                block_sum[j] += source[j]
        for j in range(cols):
            db[j] += block_sum[j]
        mode = ADD_TO
    restore_mode(mode_before)


# The last step of the fused loss: the gradients of weights and bias, in the layout of the weights.


@inline
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
