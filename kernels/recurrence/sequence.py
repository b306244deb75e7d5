"""Common parts of all time loops: rows in the order of time, blocks of steps, products over blocks.

Time-major arrays are packed: an ended sequence has no more rows, so that work is proportional to the sum of
the lengths. Sequences are ordered by falling length; `order[i]` is the place of the i-th in the batch. Step t
has the rows offsets[t] .. offsets[t + 1]; its first rows continue in step t + 1. States have `N` more rows in
front, the initial state, so that row N + offsets[t] + i is the state after step t.

The caller's arrays of inputs, outputs and their gradients keep their layout: sequence i at step t is in row
sequence_rows[i] + step_rows[t]. So one kernel serves (N, T, D), (T, N, D) and packed rows.

Only h_{t-1} Wh is sequential. All other products are computed over blocks of steps on a `time_grid` that
starts at t = 0: products with inputs before the time loop, products for gradients after it. Weight gradients
are summed descending in time inside a block, then block by block, last block first.
"""

from __future__ import annotations

import numpy as np

from .._jit import inline
from ..codegen.vectors import clear_span, copy_span
from ..product.gemm import ONE, ZERO, gemm
from ..product.tile import PANEL_BYTES
from .shares import share

# Rows (steps times batch) in one block of the time loop: long sums stay accurate, tiles are filled for small
# N, and a block's inputs and gradients fit the L2 cache for H up to about 500.
BLOCK_ROWS = 512

# In the forward pass, products with inputs are computed for parts of a block: their sums are still in the L2
# cache when the time loop reads them. LSTM forward relative to whole blocks on Zen 4: 0.96 at
# (32, 128, 64, 128), 0.98 at (64, 100, 128, 256). Blocks of long rows are not divided, since each part reads
# all of Wx: with parts of 60 rows, (20, 35, 650, 650) took 1.02 times as long.
PART_BYTES, LEAST_PART_ROWS = 256 * 1024, 32


def padded_row(width: int, dtype: np.dtype) -> int:
    """Elements from one time-major row to the next: whole cache lines, and never a multiple of 1 KiB, whose
    rows would share cache sets."""
    line = 64 // dtype.itemsize
    row = -(-width // line) * line
    return row + line if row * dtype.itemsize % 1024 == 0 else row


def block_steps(batch: int) -> int:
    """Steps in one block of the time grid while no sequence has ended."""
    return max(1, BLOCK_ROWS // max(1, batch))


def time_grid(offsets: np.ndarray, batch: int) -> np.ndarray:
    """The first step of each block, and T; each block has the rows of `block_steps(batch)` full steps.

    Without lengths a block begins every `block_steps(batch)` steps from t = 0. When sequences have ended,
    blocks span more steps, so that products keep enough rows.
    """
    steps, most = offsets.size - 1, block_steps(batch) * batch
    if offsets[-1] == steps * batch:
        return np.append(np.arange(0, steps, block_steps(batch)), steps)
    grid = [0]
    while grid[-1] < steps:
        grid.append(int(np.searchsorted(offsets, offsets[grid[-1]] + most, side="right")) - 1)
    return np.array(grid)


@inline
def end_of_part(t_begin, t_last, offsets, row_bytes):
    """The end of the part of a block that begins at t_begin; the block ends at t_last, and each row of sums
    has row_bytes bytes."""
    rows, t = PART_BYTES // row_bytes, t_begin + 1
    while t < t_last and (rows < LEAST_PART_ROWS or offsets[t + 1] - offsets[t_begin] <= rows):
        t += 1
    return t


@inline
def gather_state(order, given, s, width, states, first):
    """states[i] = given[s, order[i]]: rows of a state, longest sequence first, in columns from `first` on.

    given   (S, N, H)      read
    states  (N.., row)     first N rows overwritten there
    """
    for i in range(order.size):
        place = (s * order.size + order[i]) * width
        copy_span(given, place, states, i * states.shape[1] + first, width)


@inline
def scatter_state(order, states, first, result, s, width):
    """result[s, order[i]] = states[i]: the inverse of `gather_state`.

    states  (N.., row)     read from column `first` on
    result  (S, N, H)      overwritten at s
    """
    for i in range(order.size):
        place = (s * order.size + order[i]) * width
        copy_span(states, i * states.shape[1] + first, result, place, width)


@inline
def scatter_last(offsets, order, states, after, width):
    """after[0, order[i]] = h after the last step of sequence i; the initial one if it has no steps.

    states  (N + rows, row)   read
    after   (S, N, H)         overwritten at 0
    """
    batch = order.size
    steps = offsets.size - 1
    for i in range(batch):
        while steps > 0 and offsets[steps] - offsets[steps - 1] <= i:
            steps -= 1
        row = batch + offsets[steps - 1] + i if steps else i
        copy_span(states, row * states.shape[1], after, order[i] * width, width)


@inline
def clear_ends(offsets, sequence_rows, step_rows, hs):
    """hs = 0 after the end of each sequence; packed rows end with their sequences.

    hs  (.., .., H)   overwritten there, otherwise unchanged
    """
    steps, width = offsets.size - 1, hs.shape[2]
    if hs.size > offsets[steps] * width:
        for t in range(steps):
            for i in range(offsets[t + 1] - offsets[t], sequence_rows.size):
                clear_span(hs, (sequence_rows[i] + step_rows[t]) * width, width)


@inline
def gather_steps(t_first, t_last, begin, end, offsets, sequence_rows, step_rows, xs, block):
    """block[begin : end] = rows begin .. end of steps t_first .. t_last of xs, in the order of time.

    xs     (.., .., D)         read
    block  (block rows, row)   rows overwritten
    """
    depth = xs.shape[2]
    for t in range(t_first, t_last):
        first = offsets[t] - offsets[t_first]
        for r in range(max(begin, first), min(end, offsets[t + 1] - offsets[t_first])):
            place = (sequence_rows[r - first] + step_rows[t]) * depth
            copy_span(xs, place, block, r * block.shape[1], depth)


@inline
def scatter_steps(t_first, t_last, begin, end, offsets, sequence_rows, step_rows, block, dxs):
    """dxs of steps t_first .. t_last = their rows begin .. end in block: the inverse of `gather_steps`.

    block  (block rows, row)   read
    dxs    (.., .., D)         overwritten on those steps
    """
    depth = dxs.shape[2]
    for t in range(t_first, t_last):
        first = offsets[t] - offsets[t_first]
        for r in range(max(begin, first), min(end, offsets[t + 1] - offsets[t_first])):
            place = (sequence_rows[r - first] + step_rows[t]) * depth
            copy_span(block, r * block.shape[1], dxs, place, depth)


@inline
def state_rows_before(t, batch, offsets):
    """First row of the states from which step t starts."""
    return batch + offsets[t - 1] if t else np.int64(0)


@inline
def masked_rows(t, begin, end, order, resets, states, kept):
    """kept[i] = row i of the states, or zero if sequence i is reset at step t, for i in begin .. end.

    resets  (N, T)                                      read, bool
    states  (array, first, distance of rows, columns)   read
    kept    (N.., row)                                  these columns of the rows overwritten
    """
    array, first, distance, columns = states
    for i in range(begin, end):
        if resets[order[i], t]:
            clear_span(kept, i * kept.shape[1], columns)
        else:
            copy_span(array, first + i * distance, kept, i * kept.shape[1], columns)


@inline
def clear_resets(t, begin, end, order, resets, dh):
    """dh[i] = 0 if sequence i in begin .. end was reset at step t: no gradient flows further back.

    resets  (N, T)    read, bool; without elements if there are none
    dh      (N, row)  overwritten there, otherwise unchanged
    """
    if resets.size:
        for i in range(begin, end):
            if resets[order[i], t]:
                clear_span(dh, i * dh.shape[1], dh.shape[1])


@inline
def states_before(t_first, t_last, begin, end, offsets, order, resets, states, block):
    """The initial h of each row of steps t_first .. t_last, zero after a reset: the states themselves where
    their rows adjoin, or the block, whose rows begin .. end are filled.

    resets  (N, T)              read, bool; without elements if there are none
    states  (N + rows, row)     read
    block   (block rows, row)   scratch
    """
    batch, row, found = order.size, block.shape[1], block
    if not resets.size and offsets[t_last] == t_last * batch:
        found = states[offsets[t_first] :]
    else:
        for t in range(t_first, t_last):
            first = offsets[t] - offsets[t_first]
            before = state_rows_before(t, batch, offsets) - first
            for r in range(max(begin, first), min(end, offsets[t + 1] - offsets[t_first])):
                if resets.size and resets[order[r - first], t]:
                    clear_span(block, r * row, row)
                else:
                    copy_span(states, (before + r) * row, block, r * row, row)
    return found


@inline
def strides_of(transposed, depth, cols):
    """Row stride and column stride of a weight matrix (depth, cols); `transposed` if it is stored as
    (cols, depth), as in PyTorch."""
    down, across = cols, ONE
    if transposed:
        down, across = ONE, depth
    return down, across


@inline
def slot_of_block(k, x_block, kept):
    """First row of the slot of block k, slot k % slots.

    x_block  (block rows + 1, x row)    its shape is read
    kept     (slots block rows, row)    likewise
    """
    rows = x_block.shape[0] - 1
    return k % max(1, kept.shape[0] // max(1, rows)) * rows


@inline
def last_first(block, rows, first):
    """The operand for rows of a block, last row first, in columns from `first` on.

    They are read in place: packing them took 3 % of an LSTM's forward and backward.

    block  (block rows + 1, row)   reads beyond the last column stay in the next row
    """
    row = block.shape[1]
    return (block.reshape(-1), (rows - 1) * row + first, -row, np.int64(PANEL_BYTES // block.itemsize))


@inline
def pairs_first(pairs, first):
    """The operand for pairs of rows of a block, by `rows_in_pairs`, in columns from `first` on.

    pairs  (pairs.. + 1, row)   reads beyond the last column stay in the next row
    """
    return (pairs.reshape(-1), first, pairs.shape[1], np.int64(PANEL_BYTES // pairs.itemsize))


@inline
def weight_gradient(team, member, transposed, rows, depth, cols, x, d, dw, mode):
    """dW = X^T D (or dW + X^T D) over the rows of a block; each member computes its rows of dW.

    If `transposed`, dW is (cols, depth): D^T X, whose sums have the same terms in the same order.

    x, d  by `operands_of`             (rows, depth) and (rows, cols), read; `rows` counts the pairs of
                                       rounded operands
    dw    (array, first, row, panel)   overwritten, or accumulated if mode is ADD_TO
    """
    if transposed:
        transposed_product(team, member, rows, cols, depth, d, x, dw, mode)
    else:
        transposed_product(team, member, rows, depth, cols, x, d, dw, mode)


@inline
def transposed_product(team, member, rows, depth, cols, a, b, c, mode):
    """C = A^T B, or C + A^T B if mode is ADD_TO, over `rows` rows; each member computes its rows of C.

    a  (array, first, row, ..)      (rows, depth), read
    b  (array, first, row, panel)   (rows, cols), read: see `tile`
    c  (array, first, row, panel)   (depth, cols), overwritten or accumulated
    """
    a_array, a_first, a_row, _ = a
    c_array, c_first, c_row, panel = c
    begin, end = share(depth, member, team)
    a = (a_array, a_first + begin, ONE, a_row)
    c = (c_array, c_first + begin * c_row, c_row, panel)
    gemm(end - begin, cols, rows, a, b, c, c, mode)


@inline
def bias_gradient(team, member, rows, cols, d, db, mode):
    """db = sum over the rows of D (or db + that sum), last row first; each member sums its columns.

    d   by last_first, of dts whose last element is 1   (rows, cols), read
    db  (cols,)                                         overwritten, or accumulated if mode is ADD_TO
    """
    array, first, row, panel = d
    begin, end = share((cols + panel - 1) // panel, member, team)
    one = (array, np.int64(array.size - 1), ZERO, ZERO)
    c, own = (db, begin * panel, ZERO, panel), (array, first + begin * panel, row, panel)
    gemm(ONE, min(end * panel, cols) - begin * panel, rows, one, own, c, c, mode)
