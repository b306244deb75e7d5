"""Softmax with cross-entropy loss: on given scores, and fused with the affine layer that makes them.

With p = softmax(a), loss = log(sum exp(a_v - m)) + m - a_target, m = max a; the gradient by a is p - onehot.

The fused kernels never hold the (N T, V) scores. Rows are taken in blocks on a time grid, the last block first; a
block's scores stay in cache as panels (panel, row, panel_width) between the products that make and use them. Sums over
V run in `LANES` fixed lanes, lane v % LANES over v ascending, so that the result is the same on every target.
"""

from __future__ import annotations

import math

import numpy as np

from ._jit import kernel, spliced
from .activations import exp
from .gemm import gemm, pack, pack_transposed, view
from .rnn import copy_rows
from .tile import ADD_TO, FROM_START, OVERWRITE, PANEL_BYTES, panel_width
from .vectors import maximum

LANES = 128

# Below every score but -inf; a maximum that starts here never makes -inf - -inf.
LOWEST = np.float32(-3e38)

# Rows in one block of the fused loss: as many as BLOCK_SCORES scores allow, between the two bounds. At V = 10,000 and
# 700 rows a step took 51.2 ms in blocks of 80 rows, 50.3 of 128, 48.4 of 256, 49.9 of 720: small blocks read and
# write dW more often, large ones push the scores out of the cache.
BLOCK_SCORES = 2_560_000
FEWEST_ROWS, MOST_ROWS = 32, 256


@spliced
def _loss_block_steps(batch, size):
    rows = min(MOST_ROWS, max(FEWEST_ROWS, BLOCK_SCORES // size))
    return max(1, rows // max(1, batch))


def loss_block_rows(batch: int, steps: int, size: int) -> int:
    """Rows in the largest block for this batch, window and vocabulary: what the scratch arrays must hold."""
    rows = min(MOST_ROWS, max(FEWEST_ROWS, BLOCK_SCORES // size))
    return min(max(1, rows // max(1, batch)), max(1, steps)) * batch


@spliced
def _fold_lanes(lanes):
    """The sum of the lanes, in order, in float64."""
    total = 0.0
    for value in lanes:
        total += value
    return total


@spliced
def _count_labels(ts, ignore):
    count = 0
    for label in ts.reshape(-1):
        count += label != ignore
    return count


@kernel
def softmax_loss_forward(scores, ts, ignore, lanes, probabilities, losses):
    """probabilities = softmax(scores); losses = -log probabilities at the target, 0 where the target is `ignore`.

    Returns the number of labels that are not `ignore`.

    scores         (R, V)    read
    ts             (R,)      read, int64
    ignore         int       the label that counts for nothing
    lanes          (LANES,)  scratch
    probabilities  (R, V)    overwritten; may be scores
    losses         (R,)      overwritten, float64
    """
    rows, size = scores.shape
    full = size // LANES * LANES
    for r in range(rows):
        a, p = scores[r], probabilities[r]
        lanes[:] = -np.inf
        for left in range(0, size, LANES):
            group = a[left : left + LANES]
            for j in range(group.size):
                lanes[j] = group[j] if group[j] > lanes[j] else lanes[j]
        m = lanes[0]
        for value in lanes:
            m = value if value > m else m
        target = a[ts[r]] if ts[r] != ignore else m
        lanes[:] = 0
        for left in range(0, full, LANES):
            source, out = a[left : left + LANES], p[left : left + LANES]
            for j in range(LANES):
                e = exp(source[j] - m)
                out[j] = e
                lanes[j] += e
        for v in range(full, size):
            p[v] = exp(a[v] - m)
            lanes[v - full] += p[v]
        total = _fold_lanes(lanes)
        inverse = scores.dtype.type(1 / total)
        for v in range(size):
            p[v] *= inverse
        losses[r] = math.log(total) + (np.float64(m) - np.float64(target)) if ts[r] != ignore else 0.0
    return _count_labels(ts, ignore)


@kernel
def softmax_loss_backward(probabilities, ts, ignore, scale, dscores):
    """dscores = (probabilities - onehot(ts)) scale; zero where the target is `ignore`.

    probabilities  (R, V)   read, as softmax_loss_forward left it
    ts             (R,)     read, int64
    ignore, scale           the label that counts for nothing; the incoming gradient over the count of the others
    dscores        (R, V)   overwritten; not probabilities
    """
    rows, size = probabilities.shape
    for r in range(rows):
        p, d = probabilities[r], dscores[r]
        if ts[r] == ignore:
            d[:] = 0
        else:
            for v in range(size):
                d[v] = p[v] * scale
            d[ts[r]] -= scale


def slab_width(size: int, dtype: np.dtype) -> int:
    """Columns in one slab of scores: all of a small vocabulary, rounded up to whole panels, else LANES."""
    width = panel_width(dtype)
    return min(LANES, -(-size // width) * width)


@spliced
def _score_slabs(rows, depth, x_block, packed, b, labels, slab, slabs, maxima, lanes, targets):
    """exp(scores - m) of a block in slabs, their sums by lane, and the scores of the labels.

    m is the largest score of the row up to the slab: the sums are rescaled where a slab holds a larger one than those
    before it, which ends the pass over the slab while it is in cache.

    x_block  (block rows, H+1)               read, `rows` of them
    packed   (packed_size(H, V),)            read, W in panels
    b        (V,)                            read
    labels   (block rows,)                   read, int64; -1 where there is none
    slab     int                             columns in a slab
    slabs    (slabs x block rows x slab,)    overwritten; 0 in columns beyond V
    maxima   (slabs, block rows)             overwritten: the m of each slab and row
    lanes    (block rows, slab)              overwritten
    targets  (block rows,)                   overwritten, the scores at the labels
    """
    size = b.size
    width = PANEL_BYTES // b.itemsize
    step = rows * slab
    flat_x = x_block.reshape(-1)
    lanes[:] = 0
    for left in range(0, size, slab):
        index = left // slab
        first = index * step
        count = min(slab, size - left)
        if count < slab:
            slabs[first : first + step] = -np.inf
        weights = view(packed, left * depth, width, depth * width)
        gemm(rows, count, depth, view(flat_x, 0, depth + 1, 1), weights, view(b, left, 0, width),
             view(slabs, first, slab, width), FROM_START)  # fmt: skip
        for r in range(rows):
            line = slabs[first + r * slab : first + (r + 1) * slab]
            sums = lanes[r]
            if left <= labels[r] < left + slab:
                targets[r] = line[labels[r] - left]
            before = maxima[index - 1, r] if index else LOWEST
            m = maximum(slabs, first + r * slab, slab)
            if m > before:
                rescale = exp(before - m)
                for j in range(slab):
                    sums[j] *= rescale
            else:
                m = before
            maxima[index, r] = m
            for j in range(slab):
                e = exp(line[j] - m)
                line[j] = e
                sums[j] += e


@spliced
def _block_gradient(rows, depth, x_block, labels, scale, slab, slabs, maxima, totals, packed_t, dx_block, dwb, mode):
    """dx, dW and db of one block: its scores become (softmax - onehot) scale slab by slab, each used while in cache.

    x_block   (block rows, H+1)              read; its last column holds ones
    labels    (block rows,)                  read, int64; -1 where there is none
    scale     float                          one over the number of labels
    slab      int                            columns in a slab
    slabs     (slabs x block rows x slab,)   as _score_slabs left it; overwritten
    maxima    (slabs, block rows)            read
    totals    (block rows,)                  read, the sum of the exponentials under the last maximum
    packed_t  (packed_size(V, H),)           read, W^T in panels
    dx_block  (block rows, H)                overwritten
    dwb       (H+1, V)                       overwritten, or accumulated if mode is ADD_TO: dW, and db as its last row
    """
    size = dwb.shape[1]
    width = PANEL_BYTES // slabs.itemsize
    step = rows * slab
    last = (size - 1) // slab
    zero = slabs.dtype.type(0)
    a = view(x_block.reshape(-1), 0, 1, depth + 1)
    dx = view(dx_block.reshape(-1), 0, depth, width)
    flat_dwb = dwb.reshape(-1)
    for left in range(0, size, slab):
        index = left // slab
        first = index * step
        count = min(slab, size - left)
        for r in range(rows):
            line = slabs[first + r * slab : first + (r + 1) * slab]
            factor = exp(maxima[index, r] - maxima[last, r]) * (scale / totals[r]) if labels[r] >= 0 else zero
            for j in range(slab):
                line[j] *= factor
            if left <= labels[r] < left + slab:
                line[labels[r] - left] -= scale
        weights = view(packed_t, left * width, width, size * width)
        gemm(rows, depth, count, view(slabs, first, slab, 1), weights, dx, dx, FROM_START if left else OVERWRITE)
        c = view(flat_dwb, left, size, width)
        gemm(depth + 1, count, rows, a, view(slabs, first, slab, width), c, c, mode)


@kernel
def affine_softmax_loss(
    xs, ts, w, w_row, w_col, b, ignore, gradients,
    losses, dxs, dwb, packed, packed_t, x_block, dx_block, labels, targets, totals, slab, slabs, maxima, lanes,
):  # fmt: skip
    """losses = -log softmax(xs W + b) at ts, and, if `gradients`, the gradients of their mean.

    Returns the number of labels that are not `ignore`, over which the mean is taken.

    xs             (N, T, H)                       read
    ts             (N, T)                          read, int64
    w              memory of W (H, V)              read, element (i, v) at i w_row + v w_col
    b              (V,)                            read
    ignore         int                             the label that counts for nothing
    losses         (N, T)                          overwritten, float64; 0 where ignored
    dxs            (N, T, H)                       overwritten if gradients
    dwb            (H+1, V)                        overwritten if gradients: dW, and db as its last row
    packed         (packed_size(H, V),)            scratch
    packed_t       (packed_size(V, H),)            scratch, used if gradients
    x_block        (block rows, H+1)               scratch; block rows = loss_block_rows(N, T, V)
    dx_block       (block rows, H)                 scratch
    labels         (block rows,)                   scratch, int64
    targets        (block rows,)                   scratch
    totals         (block rows,)                   scratch
    slab           int                             slab_width(V)
    slabs          (slabs x block rows x slab,)    scratch
    maxima         (slabs, block rows)             scratch
    lanes          (block rows, slab)              scratch
    """
    batch, steps, depth = xs.shape
    size = b.size
    one = xs.dtype.type(1)
    count = _count_labels(ts, ignore)
    scale = xs.dtype.type(1 / max(1, count))
    pack(depth, size, view(w.reshape(-1), 0, w_row, w_col), packed)
    if gradients:
        pack_transposed(depth, size, packed, packed_t)
        if batch * steps == 0:
            dwb[:] = 0
    block = _loss_block_steps(batch, size)
    mode = OVERWRITE
    for t_first in range((steps - 1) // block * block if batch else -1, -1, -block):
        t_last = min(t_first + block, steps)
        rows = (t_last - t_first) * batch
        for r in range(rows):  # row 0 is the last step's: sums run over time descending
            n, t = r % batch, t_last - 1 - r // batch
            labels[r] = ts[n, t] if ts[n, t] != ignore else -1
            for j in range(depth):
                x_block[r, j] = xs[n, t, j]
            x_block[r, depth] = one
        _score_slabs(rows, depth, x_block, packed, b, labels, slab, slabs, maxima, lanes, targets)
        for r in range(rows):
            total = _fold_lanes(lanes[r])
            totals[r] = total
            m, target = np.float64(maxima[(size - 1) // slab, r]), np.float64(targets[r])
            losses[r % batch, t_last - 1 - r // batch] = math.log(total) + (m - target) if labels[r] >= 0 else 0.0
        if gradients:
            _block_gradient(
                rows, depth, x_block, labels, scale, slab, slabs, maxima, totals, packed_t, dx_block, dwb, mode
            )
            for t in range(t_first, t_last):
                copy_rows(dx_block[(t_last - 1 - t) * batch : (t_last - t) * batch], dxs[:, t])
        mode = ADD_TO
    return count
