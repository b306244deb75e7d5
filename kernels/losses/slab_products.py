"""The three products of the fused loss for a slab of words: scores, gradients of inputs and of words.

W is read in place, or its slab is copied or rounded in pairs into scratch. `rounds` as in `packing`.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from .._jit import inline
from ..codegen.vectors import copy_panel_row
from ..product.bfloat16 import NO_TERM, columns_in_pairs, pair_last_row, pair_rows, pairs_of
from ..product.gemm import ONE, ZERO, gemm, packing
from ..product.tile import FROM_START, OVERWRITE, PANEL_BYTES
from ..recurrence.shares import share

# Words processed at a time: the scores of 256 rows fit the L2 cache. 128 words took 1 to 2 % longer.
SLAB_WORDS = 256
HALF = SLAB_WORDS // 2


class SlabProducts(NamedTuple):
    """The functions of `slab_products`."""

    read: Any
    scores: Any
    inputs: Any
    words: Any


@inline
def _pairs_down(rows, cols, flat, first, row, target, place, target_row):
    """target[k] = pairs of rows 2 k and 2 k + 1, an operand B or a transposed A; -0 after the last row."""
    for k in range(rows // 2):
        here = first + 2 * k * row
        pair_rows(flat, here, here + row, target, place + k * target_row, cols)
    if rows % 2:
        last = rows // 2
        pair_last_row(flat, first + 2 * last * row, NO_TERM, target, place + last * target_row, cols)


@functools.cache
def slab_products(rounds: bool) -> SlabProducts:
    """The products; `rounds` says that operands are rounded to bfloat16."""
    ROUNDS, elements = bool(rounds), packing(rounds).elements

    @inline
    def read_rows(own, depth, x_block, pairs):
        """Round the inputs of a block for `words`.

        own      rows (r_first, r_last) to work on; the first is even
        x_block  (block rows, row)   read
        pairs    (inputs (block rows / 2 + 1, row), ..) or None   these rows overwritten
        """
        if ROUNDS:
            row = x_block.shape[1]
            flat, first, count = x_block.reshape(-1), own[0] * row, max(own[1] - own[0], 0)
            _pairs_down(count, depth + 1, flat, first, row, pairs[0].reshape(-1), own[0] // 2 * row, row)

    @inline
    def scores_of_slab(left, count, own, depth, w, packed_x, words, slab):
        """slab = W^T X for `count` words from word `left` on.

        own       rows (r_first, r_last) to work on, from a panel's first on
        w         (flat, first, row stride, column stride)   (H, V), read
        packed_x  (packed_size(H, rows),)                    read, the rows as columns, in panels
        words     (H SLAB_WORDS,)                            scratch
        slab      (SLAB_WORDS, row)                          overwritten in the own rows
        """
        flat, first, w_row, w_col = w
        r_first, r_last = own
        width, panel = slab.shape[1], PANEL_BYTES // slab.itemsize
        a = (flat, first + left * w_col, w_col, w_row)
        if ROUNDS:
            deep = pairs_of(depth)
            if w_col == 1:
                _pairs_down(depth, count, flat, first + left, w_row, words, ZERO, SLAB_WORDS)
                a = (words, ZERO, ONE, SLAB_WORDS)
            else:
                columns_in_pairs(0, count, depth, a[:3], words.reshape(SLAB_WORDS, deep), ZERO)
                a = (words, ZERO, deep, ONE)
        elif w_col == 1 and count % panel == 0:
            # The rows of a W of 100 x 10,000 are 40 KB apart: copying their piece makes the product 8 %
            # faster.
            for j in range(depth):
                for v in range(0, count, panel):
                    copy_panel_row(flat, first + left + j * w_row + v, words, j * SLAB_WORDS + v)
            a = (words, ZERO, ONE, SLAB_WORDS)
        deep, c = elements(depth), (slab.reshape(-1), r_first, width, panel)
        x = (packed_x, r_first * deep, panel, panel * deep)
        gemm(count, r_last - r_first, deep, a, x, c, c, OVERWRITE)

    @inline
    def gradient_of_inputs(left, count, own, depth, w, words, slab, dx_t, pairs):
        """dx_t = W slab, or dx_t + W slab after the first slab, for `count` words from word `left` on.

        own    rows (r_first, r_last) to work on
        slab   (SLAB_WORDS, row)   read
        dx_t   (H, row)            overwritten or accumulated in the own rows
        pairs  (.., slab (SLAB_WORDS / 2, row), ..) or None   scratch
        """
        flat, first, w_row, w_col = w
        r_first, r_last = own
        width, panel = slab.shape[1], PANEL_BYTES // slab.itemsize
        c = (dx_t.reshape(-1), r_first, width, panel)
        a = (flat, first + left * w_col, w_row, w_col)
        b = (slab.reshape(-1), r_first, width, panel)
        if ROUNDS:
            if w_col == 1:
                target = words[: depth * HALF].reshape(depth, HALF)
                columns_in_pairs(0, depth, count, a[:3], target, ZERO)
                a = (words, ZERO, HALF, ONE)
            else:
                _pairs_down(count, depth, flat, first + left * w_col, w_col, words, ZERO, depth)
                a = (words, ZERO, ONE, depth)
            flat_pairs = pairs[1].reshape(-1)
            _pairs_down(count, r_last - r_first, slab.reshape(-1), r_first, width, flat_pairs, r_first, width)
            b = (flat_pairs, r_first, width, panel)
        gemm(depth, r_last - r_first, elements(count), a, b, c, c, FROM_START if left else OVERWRITE)

    @inline
    def gradient_of_words(team, member, left, count, rows, depth, x_block, slab, dwb_t, mode, pairs):
        """dW^T and db of `count` words from word `left` on; each member computes its words.

        x_block  (block rows, row >= H+1)  read
        slab     (SLAB_WORDS, row)         read, the gradients of scores
        dwb_t    (V, row >= H+1)           rows of these words overwritten, or accumulated if ADD_TO
        pairs    (inputs by read_rows, .., slab (SLAB_WORDS, row / 2)) or None   the second is scratch
        """
        begin, end = share(count, member, team)
        width, row = slab.shape[1], dwb_t.shape[1]
        panel = PANEL_BYTES // slab.itemsize
        c = (dwb_t.reshape(-1), (left + begin) * row, row, panel)
        b = (x_block.reshape(-1), ZERO, x_block.shape[1], panel)
        a = (slab.reshape(-1), begin * width, width, ONE)
        if ROUNDS:
            columns = pairs[2]
            columns_in_pairs(begin, end, rows, (slab.reshape(-1), ZERO, width), columns, ZERO)
            a = (columns.reshape(-1), begin * columns.shape[1], columns.shape[1], ONE)
            b = (pairs[0].reshape(-1), ZERO, x_block.shape[1], panel)
        gemm(end - begin, depth + 1, elements(rows), a, b, c, c, mode)

    return SlabProducts(read_rows, scores_of_slab, gradient_of_inputs, gradient_of_words)
