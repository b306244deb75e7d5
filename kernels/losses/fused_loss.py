"""Softmax with cross-entropy loss, fused with the affine layer that computes the scores.

The kernel stores the scores of at most MOST_ROWS rows. Rows are processed in blocks on a time grid, last
block first, and words in slabs of SLAB_WORDS. Scores have the layout (word, row), so that every step from
scores to gradients is the same arithmetic on many rows at once, and W is read in place. Each row's sum runs
over the words in order, slab by slab, on every target. Threads divide the rows of a block in whole panels;
for dW, which sums over rows, they divide the words of a slab.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._jit import inline, kernel_of
from ..codegen.activations import exp
from ..codegen.denormals import flush_denormals, restore_mode
from ..codegen.vectors import VECTOR_BYTES, copy_span, transpose_block
from ..product.gemm import ONE, ZERO, packing
from ..product.tile import ADD_TO, OVERWRITE, PANEL_BYTES, READABLE_BYTES
from ..recurrence.sequence import block_steps
from ..recurrence.shares import share
from ..team.team import MEMBERS, begin_call, end_call, meet
from .slab_products import SLAB_WORDS, slab_products
from .softmax import count_labels

# The lowest finite scores: a maximum initialized with these avoids -inf - -inf.
LOWEST_SINGLE, LOWEST_DOUBLE = float(np.finfo(np.float32).min), float(np.finfo(np.float64).min)

# Rows in one block of the fused loss: as many as BLOCK_SCORES scores allow, between the two bounds. At V =
# 10,000 and 700 rows a step took 51.2 ms in blocks of 80 rows, 50.3 of 128, 48.4 of 256, 49.9 of 720: small
# blocks read and write dW more often, large ones push the scores out of the cache.
BLOCK_SCORES = 2_560_000
FEWEST_ROWS, MOST_ROWS = 32, 256


@inline
def _most_rows(size):
    return min(MOST_ROWS, max(FEWEST_ROWS, BLOCK_SCORES // size))


def loss_period(batch: int, size: int) -> int:
    """Steps after which the time grid of the fused loss restarts, in whole blocks of the recurrent layers.

    The last block before a restart may be short; at most one block in eight is.
    """
    steps = block_steps(batch)
    block = max(1, min(MOST_ROWS, max(FEWEST_ROWS, BLOCK_SCORES // size)) // max(1, batch))
    return steps if steps % block == 0 else -(-8 * block // steps) * steps


def even_period(batch: int, steps: int, size: int) -> int:
    """The period that cuts a window into blocks of about equal size, as few as possible.

    A window of 8 x 35 rows is then two blocks of 18 and 17 steps, not of 32 and 3: each block reads all of W.
    """
    most = min(MOST_ROWS, max(FEWEST_ROWS, BLOCK_SCORES // size))
    blocks = -(-steps // max(1, most // max(1, batch)))
    return max(1, -(-steps // max(1, blocks)))


def loss_block_rows(batch: int, steps: int, size: int) -> int:
    """Rows in the largest block for this batch, window and vocabulary, which scratch arrays must hold."""
    most = min(MOST_ROWS, max(FEWEST_ROWS, BLOCK_SCORES // size))
    return most if batch > most else min(max(1, most // max(1, batch)), max(1, steps)) * batch


def row_stride(width: int, dtype: np.dtype) -> int:
    """`width` rounded up to the elements of a row that the tile may read."""
    lanes = READABLE_BYTES // dtype.itemsize
    return -(-width // lanes) * lanes


@inline
def _gather_rows(t_first, t_last, n_first, n_last, own, xs, ts, ignore, x_block, labels):
    """The rows of a block, last step first: x_block = inputs and a 1, so that db is a row of dW; labels.

    own      rows (r_first, r_last) to work on
    xs       (N, T, H)           read
    ts       (N, T)              read
    x_block  (block rows, row)   overwritten, row >= H+1
    labels   (row,)              overwritten; -1 where there is no label, and beyond the last row
    """
    depth, across = xs.shape[2], n_last - n_first
    r_first, r_last = own
    labels[r_first:r_last] = -1
    for r in range(r_first, min(r_last, (t_last - t_first) * across)):
        n, t = n_first + r % across, t_last - 1 - r // across
        target = x_block[r]
        copy_span(xs, (n * xs.shape[1] + t) * depth, target, 0, depth)
        target[depth] = 1
        if ts[n, t] != ignore:
            labels[r] = ts[n, t]


@inline
def _scatter_losses(t_last, n_first, across, own, labels, highest, total, targets, losses):
    """losses = log sum exp - target's score, 0 without a label.

    labels, highest, total, targets  (row,)   read
    losses                           (N, T)   overwritten at the rows `own` of the block
    """
    r_first, r_last = own
    for r in range(r_first, r_last):
        above = np.float64(highest[r]) - np.float64(targets[r])
        loss = math.log(np.float64(total[r])) + above if labels[r] >= 0 else 0.0
        losses[n_first + r % across, t_last - 1 - r // across] = loss


@inline
def _add_losses(losses, sums):
    """sums[n] += losses[n, t], t descending: the same order for any threads and chunks.

    losses  (N, T)   read
    sums    (N,)     accumulated
    """
    for n in range(sums.size):
        total = sums[n]
        for t in range(losses.shape[1] - 1, -1, -1):
            total += losses[n, t]
        sums[n] = total


@inline
def _scatter_gradient(t_last, n_first, across, own, width, dx_t, dxs):
    """dxs = dx_t transposed, in square blocks if a step has enough consecutive rows of the batch.

    dx_t  (H, width) in flat memory   read
    dxs   (N, T, H)                   overwritten at the rows `own` of the block
    """
    flat, target = dx_t.reshape(-1), dxs.reshape(-1)
    r, r_last = own
    steps, depth = dxs.shape[1:]
    lanes = VECTOR_BYTES // dxs.itemsize
    while r < r_last:
        n, t = r % across, t_last - 1 - r // across
        place, whole, count = ((n_first + n) * steps + t) * depth, 0, 1
        if n + lanes <= across and r + lanes <= r_last:
            whole, count = depth // lanes * lanes, lanes
            for j in range(0, whole, lanes):
                transpose_block(flat, j * width + r, width, target, place + j, steps * depth)
        for i in range(count):
            for j in range(whole, depth):
                target[place + i * steps * depth + j] = flat[j * width + r + i]
        r += count


@inline
def _score_slab(left, count, own, b, labels, slab, m, total, part, targets):
    """exp(scores - m) of `count` words from word `left` on; updates m and total.

    m is the largest score of each row so far. If a slab has a larger one, total is rescaled, so that one pass
    over the slab, while it is in cache, gives the exponentials.

    own       rows (r_first, r_last) to work on, from a panel's first on
    b         (V,)                read
    labels    (row,)              read
    slab      (SLAB_WORDS, row)   the products, overwritten
    m, total  (row,)              read and overwritten
    part      (row,)              scratch
    targets   (row,)              score of the label, overwritten if it is in the slab
    """
    r_first, r_last = own
    # Views from index 0: a loop from r_first is not vectorized, since its indices might be negative.
    highest, sums, scratch = m[r_first:r_last], total[r_first:r_last], part[r_first:r_last]
    for r in range(highest.size):
        scratch[r] = highest[r]
    for v in range(count):
        line, bias = slab[v, r_first:r_last], b[left + v]
        for r in range(highest.size):
            score = line[r] + bias
            line[r] = score
            highest[r] = score if score > highest[r] else highest[r]
    for r in range(r_first, r_last):
        if left <= labels[r] < left + count:
            targets[r] = slab[labels[r] - left, r]
    for r in range(highest.size):
        sums[r] *= exp(scratch[r] - highest[r])
        scratch[r] = 0
    for v in range(count):
        line = slab[v, r_first:r_last]
        for r in range(highest.size):
            e = exp(line[r] - highest[r])
            line[r] = e
            scratch[r] += e
    for r in range(highest.size):
        sums[r] += scratch[r]


@inline
def _slab_gradient(left, count, own, labels, scale, slab, factor):
    """(p - onehot) scale of `count` words from word `left` on, replacing their exponentials.

    own      rows (r_first, r_last) to work on
    labels   (row,)             read
    scale    float              one over the number of labels
    slab     (SLAB_WORDS, row)  as _score_slab left it; then (p - onehot) scale
    factor   (row,)             read, exponentials times factor are p scale
    """
    r_first, r_last = own
    own_factor = factor[r_first:r_last]
    for v in range(count):
        line = slab[v, r_first:r_last]
        for r in range(own_factor.size):
            line[r] *= own_factor[r]
    for r in range(r_first, r_last):
        if left <= labels[r] < left + count:
            slab[labels[r] - left, r] -= scale


def _affine_softmax_loss(rounds: bool) -> Any:
    """The kernel; `rounds` says that operands of products are rounded to bfloat16."""
    pack_weights = packing(rounds).weights
    read_rows, scores_of_slab, gradient_of_inputs, gradient_of_words = slab_products(rounds)

    @kernel_of("bfloat16" if rounds else "full")
    def affine_softmax_loss(
        team, member, xs, ts, w, w_row, w_col, b, ignore, scored, period, gradients, adds,
        losses, sums, dxs, dwb_t, x_block, packed_x, labels, words, slabs, maxima, total, part, targets, dx_t,
        pairs,
    ):  # fmt: skip
        """losses = -log softmax(xs W + b) at ts, and, if `gradients`, the gradients of their mean.

        Returns the number of labels that are not `ignore`.

        team, member                                the threads at work, and which this is: see team.py
        xs         (N, T, H)                        read
        ts         (N, T)                           read, int64
        w          memory of W (H, V)               read, element (i, v) at i w_row + v w_col
        b          (V,)                             read
        ignore     int                              the label to ignore
        scored     int                              number of labels in the mean; below 0: those of this call
        period     int                              loss_period(N, V), or even_period(N, T, V)
        gradients  bool                             whether to compute gradients
        adds       bool                             dwb_t is accumulated
        losses     (N, T)                           overwritten, float64; 0 if ignored
        sums       (N,)                             accumulated, float64, the losses of each row, last step
                                                    first
        dxs        (N, T, H)                        overwritten if gradients
        dwb_t      (V, row_stride(H+1))             overwritten if gradients, dW^T, and db in column H;
                                                    accumulated if adds
        x_block    (block rows, row_stride(H+1))    scratch; block rows = loss_block_rows(N, T, V)
        packed_x   (packed_size(H, row),)           scratch; row = row_stride(block rows)
        labels     (row,)                           scratch, int64
        words      (members, H SLAB_WORDS)          scratch; in int32 (members, (H + 1) / 2 SLAB_WORDS)
        slabs      (slabs, SLAB_WORDS, row)         scratch; without gradients one slab is enough
        maxima     (slabs, row)                     scratch
        total, part, targets (row,)                 scratch
        dx_t       (H, row)                         scratch
        pairs      tuple of int32 arrays or None    scratch if operands of products are rounded to bfloat16:
                                                    (block rows / 2 + 1, row_stride(H+1)),
                                                    (SLAB_WORDS / 2, row), (SLAB_WORDS, row / 2); packed_x
                                                    and words are then int32, too
        """
        mode_before = flush_denormals()
        batch, steps, depth = xs.shape
        size = b.size
        lanes = READABLE_BYTES // xs.itemsize
        weights = (w.reshape(-1), ZERO, w_row, w_col)
        zero = xs.dtype.type(0)
        count = count_labels(ts, ignore)
        scale = xs.dtype.type(1 / max(1, count if scored < 0 else scored))
        lowest = LOWEST_SINGLE if xs.itemsize == 4 else LOWEST_DOUBLE
        last = (size - 1) // SLAB_WORDS
        if gradients and not adds and batch * steps == 0:
            dwb_t[:] = 0
        panel = PANEL_BYTES // xs.itemsize
        most = _most_rows(size)
        block, across = max(1, most // max(1, batch)), min(most, max(1, batch))
        mode, goal = ADD_TO if adds else OVERWRITE, begin_call(team, member)
        t_last = steps if batch else 0
        while t_last > 0:
            t_first = t_last - 1 - (t_last - 1) % period % block
            for n_first in range(0, batch, across):
                n_last = min(n_first + across, batch)
                wide, row = n_last - n_first, x_block.shape[1]
                rows = (t_last - t_first) * wide
                width = (rows + lanes - 1) // lanes * lanes
                begin, end = share((rows + panel - 1) // panel, member, team)
                own = (begin * panel, min(end * panel, width))
                own_rows = (begin * panel, min(end * panel, rows))
                _gather_rows(t_first, t_last, n_first, n_last, own, xs, ts, ignore, x_block, labels)
                columns = (x_block.reshape(-1), ZERO, ONE, row)
                pack_weights(member, team[MEMBERS], depth, rows, columns, packed_x)
                read_rows(own_rows, depth, x_block, pairs)
                m, totals, scratch = maxima.reshape(-1), total[:width], part[:width]
                for r in range(own[0], own[1]):
                    m[r] = lowest
                    totals[r] = 0
                for index in range(last + 1):
                    left = index * SLAB_WORDS
                    here = m[index * width : (index + 1) * width]
                    if index:
                        for r in range(own[0], own[1]):
                            here[r] = m[(index - 1) * width + r]
                    place = left * width if gradients else 0
                    slab = slabs.reshape(-1)[place : place + SLAB_WORDS * width].reshape(SLAB_WORDS, width)
                    count_here = min(SLAB_WORDS, size - left)
                    scores_of_slab(left, count_here, own, depth, weights, packed_x, words[member], slab)
                    _score_slab(left, count_here, own, b, labels, slab, here, totals, scratch, targets)
                final = m[last * width : (last + 1) * width]
                _scatter_losses(t_last, n_first, wide, own_rows, labels, final, totals, targets, losses)
                if gradients:
                    for index in range(last + 1):
                        left = index * SLAB_WORDS
                        for r in range(own[0], own[1]):
                            factor = exp(m[index * width + r] - final[r]) * (scale / totals[r])
                            scratch[r] = factor if labels[r] >= 0 else zero
                        place, words_here = left * width, min(SLAB_WORDS, size - left)
                        slab = slabs.reshape(-1)[place : place + SLAB_WORDS * width].reshape(
                            SLAB_WORDS, width
                        )
                        _slab_gradient(left, words_here, own, labels, scale, slab, scratch)
                        gradient_of_inputs(
                            left, words_here, own, depth, weights, words[member], slab, dx_t, pairs
                        )
                        goal = meet(team, goal)
                        gradient_of_words(
                            team, member, left, words_here, rows, depth, x_block, slab, dwb_t, mode, pairs
                        )
                    _scatter_gradient(t_last, n_first, wide, own_rows, width, dx_t, dxs)
                goal = meet(team, goal)
                mode = ADD_TO
            t_last = t_first
        if member == 0:
            _add_losses(losses, sums)
        end_call(team, member, goal)
        restore_mode(mode_before)
        return count

    return affine_softmax_loss


affine_softmax_loss, rounded_affine_softmax_loss = (_affine_softmax_loss(rounds) for rounds in (False, True))
