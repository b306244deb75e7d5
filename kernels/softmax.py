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

LANES = 128

# Rows in one block of the fused loss: 128 measured best at V = 10,000 (64 reads and writes dW twice as often, 256
# pushes the scores out of the L2 and half of the L3 cache).
BLOCK_ROWS = 128


@spliced
def _loss_block_steps(batch):
    return max(1, BLOCK_ROWS // max(1, batch))


def loss_block_rows(batch: int, steps: int) -> int:
    """Rows in the largest block for this batch and window: what the scratch arrays must hold."""
    return min(max(1, BLOCK_ROWS // max(1, batch)), max(1, steps)) * batch


@spliced
def _fold_lanes(lanes):
    """The sum of the lanes, in order, in float64."""
    total = 0.0
    for value in lanes:
        total += value
    return total


@kernel
def softmax_loss_forward(scores, ts, ignore, lanes, probabilities, losses):
    """probabilities = softmax(scores); losses = -log probabilities at the target, 0 where the target is `ignore`.

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
def _score_slabs(x_block, rows, packed, b, slab, slabs, row_max):
    """Scores of a block in slabs, and the running maximum of each lane of each row.

    x_block  (block rows, H)              read, `rows` of them
    packed   (packed_size(H, V),)         read, W in panels
    b        (V,)                         read
    slab     int                          columns in a slab
    slabs    (slabs x block rows x slab,) overwritten; columns beyond V hold -inf
    row_max  (block rows x slab,)         overwritten, (row, lane)
    """
    depth = x_block.shape[1]
    size = b.size
    width = PANEL_BYTES // b.itemsize
    step = rows * slab
    highest = row_max[:step]
    highest[:] = -np.inf
    for left in range(0, size, slab):
        first = left // slab * step
        scores = slabs[first : first + step]
        count = min(slab, size - left)
        if count < slab:
            scores[:] = -np.inf
        gemm(
            rows,
            count,
            depth,
            view(x_block.reshape(-1), 0, depth, 1),
            view(packed, left * depth, width, depth * width),
            view(b, left, 0, width),
            view(slabs, first, slab, width),
            FROM_START,
        )
        for i in range(step):
            highest[i] = scores[i] if scores[i] > highest[i] else highest[i]


@spliced
def _exponentials(rows, size, slab, slabs, row_max, lanes):
    """slabs = exp(slabs - max of the row); lanes = their sums.

    slabs    (slabs x block rows x slab,)   overwritten in place
    row_max  (block rows x slab,)           overwritten: every lane of a row holds the row's maximum
    lanes    (block rows x slab,)           overwritten, (row, lane)
    """
    step = rows * slab
    shift, sums = row_max[:step], lanes[:step]
    for r in range(rows):
        line = shift[r * slab : (r + 1) * slab]
        m = line[0]
        for value in line:
            m = value if value > m else m
        line[:] = m
    sums[:] = 0
    for first in range(0, (size + slab - 1) // slab * step, step):
        scores = slabs[first : first + step]
        for i in range(step):
            e = exp(scores[i] - shift[i])
            scores[i] = e
            sums[i] += e


@spliced
def _block_gradient(rows, x_block, slab, slabs, packed_t, inverse, dx_block, dw, db_block, mode):
    """dx, dW and db of one block from its score gradients, slab by slab while each is in cache.

    rows      int                            rows of the block
    x_block   (block rows, H)                overwritten: row r scaled by inverse[r]
    slabs     (slabs x block rows x slab,)   read: score gradients, row r divided by inverse[r]
    packed_t  (packed_size(V, H),)           read, W^T in panels
    inverse   (block rows,)                  read
    dx_block  (block rows, H)                overwritten
    dw        (H, V)                         overwritten, or accumulated if mode is ADD_TO
    db_block  (V,)                           overwritten
    """
    depth, size = dw.shape
    width = PANEL_BYTES // slabs.itemsize
    step = rows * slab
    for r in range(rows):
        for j in range(depth):
            x_block[r, j] *= inverse[r]
    db_block[:] = 0
    dx = view(dx_block.reshape(-1), 0, depth, width)
    for left in range(0, size, slab):
        first = left // slab * step
        count = min(slab, size - left)
        weights = view(packed_t, left * width, width, size * width)
        gemm(rows, depth, count, view(slabs, first, slab, 1), weights, dx, dx, FROM_START if left else OVERWRITE)
        c = view(dw.reshape(-1), left, size, width)
        gemm(depth, count, rows, view(x_block.reshape(-1), 0, 1, depth), view(slabs, first, slab, width), c, c, mode)
        total = db_block[left : left + count]
        for r in range(rows):
            source = slabs[first + r * slab : first + r * slab + count]
            scale = inverse[r]
            for j in range(count):
                total[j] += source[j] * scale
    for r in range(rows):
        for j in range(depth):
            dx_block[r, j] *= inverse[r]


@kernel
def affine_softmax_loss(
    xs, ts, w, w_row, w_col, b, ignore, count, gradients,
    losses, dxs, dw, db, packed, packed_t, x_block, dx_block, slab, slabs, row_max, lanes, inverse, db_block,
):  # fmt: skip
    """losses = -log softmax(xs W + b) at ts, and, if `gradients`, the gradients of their mean over `count` labels.

    xs             (N, T, H)                       read
    ts             (N, T)                          read, int64
    w              memory of W (H, V)              read, element (i, v) at i w_row + v w_col
    b              (V,)                            read
    ignore, count  int                             the label that counts for nothing; how many others there are
    losses         (N, T)                          overwritten, float64; 0 where ignored
    dxs            (N, T, H)                       overwritten if gradients
    dw, db         (H, V), (V,)                    overwritten if gradients
    packed         (packed_size(H, V),)            scratch
    packed_t       (packed_size(V, H),)            scratch, used if gradients
    x_block        (block rows, H)                 scratch; block rows = loss_block_rows(N, T)
    dx_block       (block rows, H)                 scratch
    slab           int                             slab_width(V)
    slabs          (slabs x block rows x slab,)    scratch
    row_max, lanes (block rows x slab,)            scratch
    inverse        (block rows,)                   scratch
    db_block       (V,)                            scratch
    """
    batch, steps, depth = xs.shape
    size = b.size
    pack(depth, size, view(w.reshape(-1), 0, w_row, w_col), packed)
    if gradients:
        pack_transposed(depth, size, packed, packed_t)
        db[:] = 0
        if batch * steps == 0:
            dw[:] = 0
    block = _loss_block_steps(batch)
    mode = OVERWRITE
    for t_first in range((steps - 1) // block * block if batch else -1, -1, -block):
        t_last = min(t_first + block, steps)
        rows = (t_last - t_first) * batch
        for t in range(t_first, t_last):  # row 0 is the last step's: sums run over time descending
            copy_rows(xs[:, t], x_block[(t_last - 1 - t) * batch : (t_last - t) * batch])
        _score_slabs(x_block, rows, packed, b, slab, slabs, row_max)
        for r in range(rows):  # the target's score, before the exponentials take its place
            n, t = r % batch, t_last - 1 - r // batch
            target = ts[n, t] if ts[n, t] != ignore else 0
            losses[n, t] = -np.float64(slabs[target // slab * rows * slab + r * slab + target % slab])
        _exponentials(rows, size, slab, slabs, row_max, lanes)
        for r in range(rows):
            n, t = r % batch, t_last - 1 - r // batch
            target = ts[n, t]
            if target == ignore:
                losses[n, t] = 0.0
                inverse[r] = 0
            else:
                total = _fold_lanes(lanes[r * slab : (r + 1) * slab])
                losses[n, t] += math.log(total) + np.float64(row_max[r * slab])
                inverse[r] = 1 / (total * count)
                # (p - onehot) / count = (e - total onehot) inverse: each row is scaled once, in x and in dx.
                slabs[target // slab * rows * slab + r * slab + target % slab] -= xs.dtype.type(total)
        if gradients:
            _block_gradient(rows, x_block, slab, slabs, packed_t, inverse, dx_block, dw, db_block, mode)
            for v in range(size):
                db[v] += db_block[v]
            for t in range(t_first, t_last):
                copy_rows(dx_block[(t_last - 1 - t) * batch : (t_last - t) * batch], dxs[:, t])
        mode = ADD_TO
