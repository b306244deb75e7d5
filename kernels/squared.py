"""Squared error, fused with the affine layer that computes the predictions.

Positions are processed in the blocks of the recurrent layers' time grid, last block first. Only scored
positions are processed: a window with a target at the last step alone costs one row.
"""

from __future__ import annotations

import numpy as np

from ._jit import kernel, spliced
from .denormals import flush_denormals, restore_mode
from .gemm import ONE, ZERO, gemm, pack, packed_view
from .tile import ADD_TO, FROM_START, OVERWRITE, PANEL_BYTES
from .vectors import clear_span, copy_span


@spliced
def _gather_scored(t_first, t_last, begins, ends, xs, x_block):
    """The scored rows of steps t_first .. t_last in the order of time. Returns their number.

    xs       (N, T, H)           read
    x_block  (block rows, H)     overwritten
    """
    rows, steps, width = 0, xs.shape[1], xs.shape[2]
    for t in range(t_first, t_last):
        for n in range(begins.size):
            if begins[n] <= t < ends[n]:
                copy_span(xs, (n * steps + t) * width, x_block, rows * width, width)
                rows += 1
    return rows


@spliced
def _residuals(t_first, t_last, begins, ends, rows, ts, y_block, losses, sums):
    """y_block = y_block - ts; losses = the sum of its squares, 0 at unscored steps.

    ts       (N, T, O) or (N, 1, O)   read
    y_block  (block rows, O)          predictions, overwritten
    losses   (N, T)                   steps t_first .. t_last overwritten
    sums     (N,)                     accumulated, last step first
    """
    last_target = ts.shape[1] - 1
    r = rows
    for t in range(t_last - 1, t_first - 1, -1):
        for n in range(begins.size - 1, -1, -1):
            total = 0.0
            if begins[n] <= t < ends[n]:
                r -= 1
                y, target = y_block[r], ts[n, min(t, last_target)]
                for j in range(y.size):
                    difference = y[j] - target[j]
                    y[j] = difference
                    total += np.float64(difference) * np.float64(difference)
            losses[n, t] = total
            sums[n] += total


@spliced
def _scatter_scored(t_first, t_last, begins, ends, x_block, dxs):
    """The inverse of `_gather_scored`; zero at unscored steps.

    x_block  (block rows, H)   read
    dxs      (N, T, H)         steps t_first .. t_last overwritten
    """
    r, steps, width = 0, dxs.shape[1], dxs.shape[2]
    for t in range(t_first, t_last):
        for n in range(begins.size):
            place = (n * steps + t) * width
            if begins[n] <= t < ends[n]:
                copy_span(x_block, r * width, dxs, place, width)
                r += 1
            else:
                clear_span(dxs, place, width)


@kernel
def affine_squared_loss(
    xs, ts, w, b, begins, ends, blocks, scale, gradients, adds,
    losses, sums, dxs, dw, db, x_block, y_block, packed_w, packed_wt, packed_dy, block_sum,
):  # fmt: skip
    """losses = the sum over outputs of (xs W + b - ts)^2 at the scored steps, and, if `gradients`, the
    gradients of scale / 2 times the sum of all losses.

    Returns the number of blocks with scored steps.

    xs         (N, T, H)                         read
    ts         (N, T, O) or (N, 1, O)            read; a single target is used for all scored steps
    w          (H, O)                            read
    b          (O,)                              read
    begins     (N,)                              read, int64, the first scored step of each sequence
    ends       (N,)                              read, int64, the step after its last scored one
    blocks     (blocks+1,)                       read, int64, first step of each block of the time grid, and T
    scale      float                             two divided by the number of scored predictions
    gradients  bool                              whether to compute gradients
    adds       bool                              dw and db are accumulated
    losses     (N, T)                            overwritten, float64; 0 at unscored steps
    sums       (N,)                              accumulated, float64, the losses of each row, last step first
    dxs        (N, T, H)                         overwritten if gradients
    dw, db     (H, O), (O,)                      overwritten if gradients; accumulated if adds
    x_block    (block rows, H)                   scratch; block rows = block_steps(N) N
    y_block    (block rows, O)                   scratch
    packed_w   (packed_size(H, O),)              scratch
    packed_wt  (packed_size(O, H),)              scratch
    packed_dy  (packed_size(block rows, O),)     scratch
    block_sum  (O,)                              scratch
    """
    mode_before = flush_denormals()
    depth, cols = w.shape
    panel = PANEL_BYTES // xs.itemsize
    flat_x, flat_y, flat_w = x_block.reshape(-1), y_block.reshape(-1), w.reshape(-1)
    pack(ZERO, ONE, depth, cols, (flat_w, ZERO, cols, ONE), packed_w)
    pack(ZERO, ONE, cols, depth, (flat_w, ZERO, ONE, cols), packed_wt)
    if gradients and not adds:
        dw[:] = 0
        db[:] = 0
    mode = ADD_TO if adds else OVERWRITE
    scored_blocks = 0
    for k in range(blocks.size - 2, -1, -1):
        t_first, t_last = blocks[k], blocks[k + 1]
        rows = _gather_scored(t_first, t_last, begins, ends, xs, x_block)
        a, y = (flat_x, ZERO, depth, ONE), (flat_y, ZERO, cols, panel)
        gemm(rows, cols, depth, a, packed_view(packed_w, depth), (b, ZERO, ZERO, panel), y, FROM_START)
        _residuals(t_first, t_last, begins, ends, rows, ts, y_block, losses, sums)
        if not gradients:
            continue
        if rows:
            scored_blocks += 1
            block_sum[:] = 0
            for r in range(rows - 1, -1, -1):
                line = y_block[r]
                for j in range(cols):
                    line[j] *= scale
                    block_sum[j] += line[j]
            pack(ZERO, ONE, rows, cols, (flat_y, (rows - 1) * cols, -cols, ONE), packed_dy)
            a, c = (flat_x, (rows - 1) * depth, ONE, -depth), (dw.reshape(-1), ZERO, cols, panel)
            gemm(depth, cols, rows, a, packed_view(packed_dy, rows), c, c, mode)
            for j in range(cols):
                db[j] = block_sum[j] if mode == OVERWRITE else db[j] + block_sum[j]
            a, c = (flat_y, ZERO, cols, ONE), (flat_x, ZERO, depth, panel)
            gemm(rows, depth, cols, a, packed_view(packed_wt, cols), c, c, OVERWRITE)
            mode = ADD_TO
        _scatter_scored(t_first, t_last, begins, ends, x_block, dxs)
    restore_mode(mode_before)
    return scored_blocks
