"""The losses of a head, fused with the affine layer that computes its parameters.

Positions are processed in the blocks of the recurrent layers' time grid, last block first. Only scored
positions are processed: a window with a target at the last step alone costs one row. A position is scored if
it lies in the span of its sequence and has a weight other than 0.

Losses are computed in float64, from a head's equations or as a softmax: gradients of likelihoods are
differences of large terms.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from .._jit import inline, kernel_of
from ..cell.head import Head, Softmax
from ..cell.passes import row_pass
from ..codegen.denormals import flush_denormals, restore_mode
from ..codegen.vectors import clear_span, copy_span
from ..product.gemm import ONE, ZERO, gemm, pack, packed_view
from ..product.tile import ADD_TO, FROM_START, OVERWRITE, PANEL_BYTES
from .softmax import softmax_loss


@inline
def _weight(n, t, begins, ends, weights):
    """The weight of a position: 0 outside the span, 1 without weights."""
    if not begins[n] <= t < ends[n]:
        return weights.dtype.type(0)
    if weights.size == 0:
        return weights.dtype.type(1)
    return weights[n, min(t, weights.shape[1] - 1)]


@inline
def _gather_scored(t_first, t_last, n_first, n_last, begins, ends, weights, xs, x_block):
    """The scored rows of steps t_first .. t_last of sequences n_first .. n_last in the order of time. Returns
    their number.

    weights  (N, T), (N, 1) or (0, 0)   read
    xs       (N, T, H)                  read
    x_block  (block rows, H)            overwritten
    """
    rows, steps, width = 0, xs.shape[1], xs.shape[2]
    for t in range(t_first, t_last):
        for n in range(n_first, n_last):
            if _weight(n, t, begins, ends, weights) != 0:
                copy_span(xs, (n * steps + t) * width, x_block, rows * width, width)
                rows += 1
    return rows


@inline
def _scatter_scored(t_first, t_last, n_first, n_last, begins, ends, weights, x_block, dxs):
    """The inverse of `_gather_scored`; zero at unscored steps.

    weights  (N, T), (N, 1) or (0, 0)   read
    x_block  (block rows, H)            read
    dxs      (N, T, H)                  steps t_first .. t_last overwritten
    """
    r, steps, width = 0, dxs.shape[1], dxs.shape[2]
    for t in range(t_first, t_last):
        for n in range(n_first, n_last):
            place = (n * steps + t) * width
            if _weight(n, t, begins, ends, weights) != 0:
                copy_span(x_block, r * width, dxs, place, width)
                r += 1
            else:
                clear_span(dxs, place, width)


@inline
def _targets_of(level, size, cols, dw, db, partial):
    """The flat memory for the gradients of W and b at a level of the tree's stack, as in `groups.py`."""
    to_w, to_b = dw.reshape(-1), db
    if level > 0:
        last = level * size
        to_w, to_b = partial[last - size : last - cols], partial[last - cols : last]
    return to_w, to_b


@inline
def _add_level(level, size, cols, dw, db, partial):
    """The level below += this level."""
    total_w, total_b = _targets_of(level - 1, size, cols, dw, db, partial)
    term_w, term_b = _targets_of(level, size, cols, dw, db, partial)
    for i in range(total_w.size):
        total_w[i] += term_w[i]
    for j in range(cols):
        total_b[j] += term_b[j]


@inline
def _add_block(rows, scale, depth, flat_x, y_block, packed_dy, block_sum, to_w, to_b, mode):
    """A block's gradients of W and b, overwritten or accumulated; y_block is scaled.

    flat_x   memory of x_block (block rows, H)   read
    y_block  (block rows, P*O)                   read and overwritten
    """
    cols = block_sum.size
    flat_y, panel = y_block.reshape(-1), PANEL_BYTES // y_block.itemsize
    block_sum[:] = 0
    for r in range(rows - 1, -1, -1):
        line = y_block[r]
        for j in range(cols):
            line[j] *= scale
            block_sum[j] += line[j]
    pack(ZERO, ONE, rows, cols, (flat_y, (rows - 1) * cols, -cols, ONE), packed_dy)
    a, c = (flat_x, (rows - 1) * depth, ONE, -depth), (to_w, ZERO, cols, panel)
    gemm(depth, cols, rows, a, packed_view(packed_dy, rows), c, c, mode)
    for j in range(cols):
        to_b[j] = block_sum[j] if mode == OVERWRITE else to_b[j] + block_sum[j]


def _losses_of_formula(head: Head) -> Any:
    """The losses of equations."""
    run, COUNT = row_pass((head.program,)), np.int64(len(head.parameters))

    @inline
    def losses_of(
        t_first, t_last, n_first, n_last, begins, ends, rows, ts, weights, y_block, values, losses, sums
    ):
        """Losses of the scored rows, 0 at unscored steps, and their gradients in place of the parameters.

        ts       (N, T, O) or (N, 1, O)       read
        weights  (N, T), (N, 1) or (0, 0)     read
        y_block  (block rows, P*O)            parameters, overwritten
        values   ((P+2) * block rows * O,)    scratch, float64: parameters, targets and losses of all rows
        losses   (N, T)                       steps t_first .. t_last overwritten
        sums     (N,)                         accumulated, last step first
        """
        last_target, outputs = ts.shape[1] - 1, ts.shape[2]
        count = rows * outputs
        targets, found = COUNT * count, (COUNT + 1) * count
        r = 0
        for t in range(t_first, t_last):
            for n in range(n_first, n_last):
                if _weight(n, t, begins, ends, weights) != 0:
                    y, target = y_block[r], ts[n, min(t, last_target)]
                    for p in range(COUNT):
                        line = values[p * count + r * outputs :]
                        for j in range(outputs):
                            line[j] = y[p * outputs + j]
                    line = values[targets + r * outputs :]
                    for j in range(outputs):
                        line[j] = target[j]
                    r += 1
        run(count, ((values, ZERO, count), (values, targets, ZERO), (values, found, ZERO)))
        for t in range(t_last - 1, t_first - 1, -1):
            for n in range(n_last - 1, n_first - 1, -1):
                total, weight = 0.0, _weight(n, t, begins, ends, weights)
                if weight != 0:
                    r -= 1
                    y = y_block[r]
                    line = values[found + r * outputs :]
                    for j in range(outputs):
                        total += line[j]
                    total *= weight
                    for p in range(COUNT):
                        line = values[p * count + r * outputs :]
                        for j in range(outputs):
                            y[p * outputs + j] = weight * line[j]
                losses[n, t] = total
                sums[n] += total

    return losses_of


@inline
def _losses_of_softmax(
    t_first, t_last, n_first, n_last, begins, ends, rows, ts, weights, y_block, values, losses, sums
):
    """As the losses of equations; the parameters of an output are the scores of its classes."""
    last_target, outputs = ts.shape[1] - 1, ts.shape[2]
    line = values[: y_block.shape[1] // outputs]
    r = rows
    for t in range(t_last - 1, t_first - 1, -1):
        for n in range(n_last - 1, n_first - 1, -1):
            total, weight = 0.0, _weight(n, t, begins, ends, weights)
            if weight != 0:
                r -= 1
                target = ts[n, min(t, last_target)]
                for j in range(outputs):
                    total += softmax_loss(y_block[r], j, outputs, int(target[j]), weight, line)
                total *= weight
            losses[n, t] = total
            sums[n] += total


@functools.cache
def affine_loss_of(head: Head | Softmax) -> Any:
    """The compiled loss of a head; equal heads share it, and so do all numbers of classes."""
    losses_of = _losses_of_formula(head) if isinstance(head, Head) else _losses_of_softmax

    @kernel_of(head.content)
    def affine_loss(
        xs, ts, weights, w, b, begins, ends, bounds, grids, counts, scale, gradients, adds,
        losses, sums, dxs, dw, db, x_block, y_block, values, packed_w, packed_wt, packed_dy, block_sum,
        partial,
    ):  # fmt: skip
        """losses = weight times the sum over outputs of the head's loss at the scored steps, and, if
        `gradients`, the gradients of scale times the sum of all losses. xs W + b are the head's parameters.
        dw and db are added over groups of sequences by a tree, as in `groups.py`.

        Returns the number of blocks with scored steps.

        xs         (N, T, H)                         read
        ts         (N, T, O) or (N, 1, O)            read; a single target is used for all scored steps
        weights    (N, T), (N, 1) or (0, 0)          read; one weight holds for all steps, none is 1
        w          (H, P*O)                          read; a block of O columns for each of the P parameters
        b          (P*O,)                            read
        begins     (N,)                              read, int64, the first scored step of each sequence
        ends       (N,)                              read, int64, the step after its last scored one
        bounds     (groups + 1,)                     read, int64, the first sequence of each group, and N
        grids      (groups, most + 1)                read, int64, first step of each block of the grid, and T
        counts     (groups,)                         read, int64, the blocks of each time grid
        scale      float                             one divided by the sum of the weights of all predictions
        gradients  bool                              whether to compute gradients
        adds       bool                              dw and db are accumulated, by a single group
        losses     (N, T)                            overwritten, float64; 0 at unscored steps
        sums       (N,)                              accumulated, float64, losses of each row, last step first
        dxs        (N, T, H)                         overwritten if gradients
        dw, db     (H, P*O), (P*O,)                  overwritten if gradients; accumulated if adds
        x_block    (block rows, H)                   scratch; block rows = most of a block of a grid
        y_block    (block rows, P*O)                 scratch
        values     ((P+2) * block rows * O,)         scratch, float64
        packed_w   (packed_size(H, P*O),)            scratch
        packed_wt  (packed_size(P*O, H),)            scratch
        packed_dy  (packed_size(block rows, P*O),)   scratch
        block_sum  (P*O,)                            scratch
        partial    (levels (H + 1) P*O,)             scratch, a level for each doubling of the groups
        """
        mode_before = flush_denormals()
        depth, cols = w.shape
        panel, size = PANEL_BYTES // xs.itemsize, (depth + 1) * cols
        flat_x, flat_y, flat_w = x_block.reshape(-1), y_block.reshape(-1), w.reshape(-1)
        pack(ZERO, ONE, depth, cols, (flat_w, ZERO, cols, ONE), packed_w)
        pack(ZERO, ONE, cols, depth, (flat_w, ZERO, ONE, cols), packed_wt)
        scored_blocks, top = 0, 0
        for group in range(counts.size):
            n_first, n_last = bounds[group], bounds[group + 1]
            joins = group % 2 == 1 and counts[group] == 1
            level = top - 1 if joins else top
            to_w, to_b = _targets_of(level, size, cols, dw, db, partial)
            mode = ADD_TO if adds or joins else OVERWRITE
            if gradients and mode == OVERWRITE:
                to_w[:] = 0
                to_b[:] = 0
            for k in range(counts[group] - 1, -1, -1):
                t_first, t_last = grids[group, k], grids[group, k + 1]
                rows = _gather_scored(t_first, t_last, n_first, n_last, begins, ends, weights, xs, x_block)
                a, y = (flat_x, ZERO, depth, ONE), (flat_y, ZERO, cols, panel)
                gemm(
                    rows, cols, depth, a, packed_view(packed_w, depth), (b, ZERO, ZERO, panel), y, FROM_START
                )
                losses_of(
                    t_first, t_last, n_first, n_last, begins, ends, rows, ts, weights, y_block, values,
                    losses, sums,
                )  # fmt: skip
                if not gradients:
                    continue
                if rows:
                    scored_blocks += 1
                    _add_block(rows, scale, depth, flat_x, y_block, packed_dy, block_sum, to_w, to_b, mode)
                    a, c = (flat_y, ZERO, cols, ONE), (flat_x, ZERO, depth, panel)
                    gemm(rows, depth, cols, a, packed_view(packed_wt, cols), c, c, OVERWRITE)
                    mode = ADD_TO
                _scatter_scored(t_first, t_last, n_first, n_last, begins, ends, weights, x_block, dxs)
            top, pairs = level + 1, (group + 1) // 2 if joins else group + 1
            while pairs % 2 == 0:
                top, pairs = top - 1, pairs // 2
                if gradients:
                    _add_level(top, size, cols, dw, db, partial)
        restore_mode(mode_before)
        return scored_blocks

    return affine_loss
