"""The products with the inputs, over whole blocks of steps, or once for each word of a small vocabulary.

If the inputs are rows of a table, x_t = words[ids[n, t]], and the table is smaller than a block, the products
are computed for the rows of the table: b + words Wx forward; backward, the gradients of pre-activations are
summed by word, dWx = words^T sums and dwords = sums Wx^T. At 65 words and two layers of 128 units this saves
22 % of all operations. The bits of pre-activations do not change.

`ids` is None if inputs are vectors; each kernel is compiled for one of the two cases.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from .._jit import inline
from ..codegen.formula import formula, map_row
from ..codegen.vectors import clear_span, copy_span
from ..product.bfloat16 import NO_FACTOR, NO_TERM, columns_in_pairs, pairs_of, rows_in_pairs
from ..product.gemm import ONE, ZERO, gemm, packed_view, packing
from ..product.tile import FROM_START, OVERWRITE, PANEL_BYTES
from ..team.team import meet
from .sequence import last_first, pairs_first, scatter_steps, transposed_product, weight_gradient
from .shares import share


@formula
def plus(total, term):
    """total + term"""
    return total + term


@inline
def gather_words(t_first, t_last, begin, end, offsets, order, ids, table, target, place):
    """target[place + r] = the row of the table for word r of a block, for rows begin .. end.

    ids     (N, T)         read, int64
    table   (V, width)     read
    target  (.., row)      these rows overwritten in the first `width` columns
    """
    for t in range(t_first, t_last):
        here = offsets[t] - offsets[t_first]
        for r in range(max(begin, here), min(end, offsets[t + 1] - offsets[t_first])):
            word = ids[order[r - here], t]
            copy_span(table, word * table.shape[1], target, (place + r) * target.shape[1], table.shape[1])


@inline
def _sum_by_word(team, member, t_first, t_last, cols, offsets, order, ids, dts, sums):
    """sums[v] = the sum of the rows of D whose word is v, last row first; each member sums its columns.

    dts   (block rows + 1, dt row)   read
    sums  (V + 1, dt row)            first V rows overwritten
    """
    row, line = dts.shape[1], PANEL_BYTES // dts.itemsize
    begin, end = share((cols + line - 1) // line, member, team)
    begin, end = begin * line, min(end * line, cols)
    for v in range(sums.shape[0] - 1):
        clear_span(sums, v * row + begin, end - begin)
    for t in range(t_last - 1, t_first - 1, -1):
        here = offsets[t] - offsets[t_first]
        for i in range(offsets[t + 1] - offsets[t] - 1, -1, -1):
            total = (sums, ids[order[i], t] * row + begin)
            map_row(plus, end - begin, (total, (dts, (here + i) * row + begin)), (total,))


@inline
def weights_of_inputs(team, member, transposed, rows, cols, x, d, dwx, mode):
    """A block's terms of dWx = sum x^T dt.

    x    by `operands_of`               (rows, D), read
    d    likewise                       (rows, cols), read
    dwx  (D, cols)                      overwritten, or accumulated if mode is ADD_TO; (cols, D) if
    `transposed`
    """
    depth, panel = dwx.size // cols, PANEL_BYTES // dwx.itemsize
    c = (dwx.reshape(-1), ZERO, depth if transposed else cols, panel)
    weight_gradient(team, member, transposed, rows, depth, cols, x, d, c, mode)


class Inputs(NamedTuple):
    """The products with the inputs."""

    product: Any
    word_products: Any
    backward: Any
    words_backward: Any


@functools.cache
def inputs_of(rounds: bool) -> Inputs:
    """The products with the inputs; `rounds` as in `packing`."""
    ROUNDS, elements = bool(rounds), packing(rounds).elements

    @inline
    def input_product(begin, end, depth, x, w, b, c, columns):
        """C = b + X W for rows begin .. end.

        x        (rows, x row)                      read
        w        (array, first, row, panel stride)  (depth, cols), read
        b        (cols,)                            read
        c        (array, first, row, panel)         (rows, cols), rows begin .. end overwritten
        columns  (rows, ..) or None                 scratch for x in pairs
        """
        array, first, row, panel = c
        x_row = x.shape[1]
        a = (x.reshape(-1), begin * x_row, x_row, ONE)
        if ROUNDS:
            columns_in_pairs(begin, end, depth, (x.reshape(-1), ZERO, x_row), columns, ZERO)
            a = (columns.reshape(-1), begin * columns.shape[1], columns.shape[1], ONE)
        place = (array, first + begin * row, row, panel)
        gemm(end - begin, b.size, elements(depth), a, w, (b, ZERO, ZERO, panel), place, FROM_START)

    @inline
    def word_products(team, member, goal, words, w, b, table, columns):
        """table = b + words W; each member computes its rows. Returns the goal of `meet` after its meeting.

        words    (V, D)                              read
        w        (array, first, row, panel stride)   (D, cols), read
        b        (cols,)                             read
        table    (V, cols)                           overwritten
        columns  (V.., ..) or None                   scratch for words in pairs
        """
        depth, cols = words.shape[1], b.size
        begin, end = share(words.shape[0], member, team)
        c = (table.reshape(-1), ZERO, cols, PANEL_BYTES // words.itemsize)
        input_product(begin, end, depth, words, w, b, c, columns)
        return meet(team, goal)

    @inline
    def inputs_backward(team, member, goal, block, cols, x_block, gradients, packed_x, dxs, columns, ready):
        """dx_t = dt Wx^T for the steps of a block. Returns the goal after its meeting.

        block      (t_first, t_last, offsets, sequence_rows, step_rows)
        x_block    (block rows + 1, x row)    overwritten
        gradients  (dts, first)               dt in the rows of dts from `first` on, read
        packed_x   (packed_size(cols, D),)    read, Wx^T in panels
        dxs        (.., .., D)                the block's steps overwritten, unless it has no elements
        columns    (block rows, ..) or None   dt in pairs; overwritten unless `ready`
        """
        if not dxs.size:
            return goal
        t_first, t_last, offsets, sequence_rows, step_rows = block
        dts, first = gradients
        depth, dt_row, x_row = dxs.shape[2], dts.shape[1], x_block.shape[1]
        panel, flat_x = PANEL_BYTES // dts.itemsize, x_block.reshape(-1)
        goal = meet(team, goal)
        begin, end = share(offsets[t_last] - offsets[t_first], member, team)
        a = (dts.reshape(-1), (first + begin) * dt_row, dt_row, ONE)
        if ROUNDS:
            if not ready:
                columns_in_pairs(begin, end, cols, (dts.reshape(-1), first * dt_row, dt_row), columns, ZERO)
            a = (columns.reshape(-1), begin * columns.shape[1], columns.shape[1], ONE)
        c, deep = (flat_x, begin * x_row, x_row, panel), elements(cols)
        gemm(end - begin, depth, deep, a, packed_view(packed_x, deep), c, c, OVERWRITE)
        scatter_steps(t_first, t_last, begin, end, offsets, sequence_rows, step_rows, x_block, dxs)
        return goal

    @inline
    def words_backward(
        team, member, goal, block, cols, ids, words, dts, sums, packed_x, dwx, dwords, mode, x_pairs, d_pairs,
        columns,
    ):  # fmt: skip
        """For words as inputs, a block's terms of dWx and of the gradient of the words.

        block     (t_first, t_last, offsets, order)
        ids       (N, T)                     read, int64
        words     (V, D)                     read
        dts       (block rows + 1, dt row)   read
        sums      (V + 1, dt row)            scratch
        packed_x  (packed_size(cols, D),)    read, Wx^T in panels
        dwx       (D, cols)                  overwritten, or accumulated if mode is ADD_TO
        dwords    (V, D)                     likewise
        x_pairs, d_pairs  (V/2.., ..) or None   scratch for words and sums in pairs
        columns           (V.., ..) or None     likewise for sums
        """
        t_first, t_last, offsets, order = block
        size, depth = words.shape
        dt_row, panel = dts.shape[1], PANEL_BYTES // dts.itemsize
        _sum_by_word(team, member, t_first, t_last, cols, offsets, order, ids, dts, sums)
        goal = meet(team, goal)
        x, d = last_first(words, size, ZERO), last_first(sums, size, ZERO)
        begin, end = share(size, member, team)
        a = (sums.reshape(-1), begin * dt_row, dt_row, ONE)
        if ROUNDS:
            first, last = share(pairs_of(size), member, team)
            rows_in_pairs(first, last, size, depth, NO_FACTOR, words, x_pairs, ZERO)
            rows_in_pairs(first, last, size, cols, NO_TERM, sums, d_pairs, ZERO)
            columns_in_pairs(begin, end, cols, (sums.reshape(-1), ZERO, dt_row), columns, ZERO)
            x, d = pairs_first(x_pairs, ZERO), pairs_first(d_pairs, ZERO)
            a = (columns.reshape(-1), begin * columns.shape[1], columns.shape[1], ONE)
            goal = meet(team, goal)
        c = (dwx.reshape(-1), ZERO, cols, panel)
        transposed_product(team, member, elements(size), depth, cols, x, d, c, mode)
        c, deep = (dwords.reshape(-1), begin * depth, depth, panel), elements(cols)
        gemm(end - begin, depth, deep, a, packed_view(packed_x, deep), c, c, mode)
        return goal

    return Inputs(input_product, word_products, inputs_backward, words_backward)
