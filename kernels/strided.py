"""The products with inputs over a block of steps, read where they lie if that is faster.

Rows of inputs lie at one distance from step to step and at another from sequence to sequence. Without
lengths they need not be gathered in the order of time: there is one product for each step over the
sequences, or for each sequence over the steps. The chains of multiply-adds are those of gathered rows.
"""

from __future__ import annotations

from typing import Any

from ._jit import inner, spliced
from .gemm import ONE, ZERO, gemm
from .inputs import inputs_of
from .sequence import gather_steps
from .shares import share
from .team import MEMBERS
from .tile import FROM_START, MAX_ROWS, PANEL_BYTES
from .vectors import VECTOR_BYTES, transpose_block

input_product, rounded_product = inputs_of(False).product, inputs_of(True).product

# Each product reads all weights, so larger ones than this are used for the gathered rows of a block.
# Relative to gathering, LSTM forward on Zen 4: 0.88 at (30, 60, 1000, 30), 0.91 at (29, 271, 100, 64).
SHARED_BYTES = 512 * 1024

# Rows at multiples of this distance share cache sets, and a tile of 12 does not fit 8 ways.
SET_BYTES = 4096

# C with up to this many columns is computed as its transpose, so that vectors hold rows of X; X is transposed
# in blocks of up to TURNED_DEPTH columns. An RNN forward relative to the plain product, Zen 4: 0.69 at
# (361, 2, 715, 1), 0.74 at (31, 35, 631, 2), 0.92 at (100, 20, 300, 3); with 4 to 8 columns 1.1 to 1.4.
NARROW, LEAST_DEPTH, TURNED_DEPTH = 3, 32, 128


@inner
def _inputs_forward(team, member, block, depth, xs, x_block, w, b, c, columns):
    """C = b + X W for the rows of a block of steps; each member computes some of them.

    block    (t_first, t_last, offsets, sequence_rows, step_rows)
    xs       (.., .., D)                          read
    x_block  (block rows + 1, x row)              scratch
    w        (array, first, row, panel stride)    (depth, cols), read
    b        (cols,)                              read
    c        (array, first, row, panel)           (rows, cols), the member's rows overwritten
    columns  None
    """
    t_first, t_last, offsets, sequence_rows, step_rows = block
    rows, steps, batch = offsets[t_last] - offsets[t_first], t_last - t_first, sequence_rows.size
    if not rows:
        return
    across, down = _distance(sequence_rows, 0, batch), _distance(step_rows, t_first, t_last)
    is_regular = rows == steps * batch and across != 0 and down != 0
    # `times` products over `count` rows at distance `near`; `far` from one to the next; likewise in C.
    times, count, near, far, c_near, c_far = ONE, rows, across, ZERO, ONE, ZERO
    if batch == 1:
        near = down
    elif steps > 1 and down != across * batch:
        times, count, near, far, c_near, c_far = steps, batch, across, down, ONE, batch
        if batch < steps:
            times, count, near, far, c_near, c_far = batch, steps, down, across, batch, ONE
    members, lanes = team[MEMBERS], VECTOR_BYTES // b.itemsize
    begin, end = share(count, member, team)
    array, first, row, panel = c
    first_x = (sequence_rows[0] + step_rows[t_first] + begin * near) * depth
    x = (xs.reshape(-1), first_x, near * depth, far * depth)
    own = (array, first + begin * c_near * row, c_near * row, c_far * row)
    is_enough = count >= members * MAX_ROWS and depth * b.size * b.itemsize <= SHARED_BYTES
    room = x_block.size // members
    is_narrow = b.size <= NARROW and depth >= LEAST_DEPTH and count >= members * lanes
    if is_regular and is_narrow and room >= (TURNED_DEPTH + 2 * NARROW) * 2 * lanes:
        scratch = (x_block.reshape(-1), member * room)
        _turned_product(times, end - begin, depth, x, w, b, own, scratch)
    elif is_regular and (times == 1 or is_enough) and near * depth * b.itemsize % SET_BYTES:
        start = (b, ZERO, ZERO, panel)
        for index in range(times):
            a, part = (x[0], x[1] + index * x[3], x[2], ONE), (array, own[1] + index * own[3], own[2], panel)
            gemm(end - begin, b.size, depth, a, w, start, part, FROM_START)
    else:
        begin, end = share(rows, member, team)
        gather_steps(t_first, t_last, begin, end, offsets, sequence_rows, step_rows, xs, x_block)
        input_product(begin, end, depth, x_block, w, b, c, None)


@spliced
def _rounded_forward(team, member, block, depth, xs, x_block, w, b, c, columns):
    """`_inputs_forward` for operands in pairs, whose rows are gathered and then rounded into `columns`."""
    t_first, t_last, offsets, sequence_rows, step_rows = block
    begin, end = share(offsets[t_last] - offsets[t_first], member, team)
    gather_steps(t_first, t_last, begin, end, offsets, sequence_rows, step_rows, xs, x_block)
    rounded_product(begin, end, depth, x_block, w, b, c, columns)


def forward_of(rounds: bool) -> Any:
    """The products with the inputs of a block; `rounds` says that operands are rounded to bfloat16."""
    return _rounded_forward if rounds else _inputs_forward


@spliced
def _distance(places, begin, end):
    """The distance between neighbors in places[begin : end]: 1 for a single place, 0 if distances differ."""
    distance = ONE
    if end - begin > 1:
        distance = places[begin + 1] - places[begin]
    for i in range(begin + 1, end):
        if places[i] - places[i - 1] != distance:
            distance = ZERO
    return distance


@inner
def _turned_product(times, rows, depth, x, w, b, c, scratch):
    """C = b + X W with few columns, computed as C^T = b^T + W^T X^T.

    x        (array, first, distance of rows, of products)   (times, rows, depth), read
    w        (array, first, row, ..)                         (depth, cols), read
    b        (cols,)                                         read
    c        (array, first, distance of rows, of products)   (times, rows, cols), overwritten
    scratch  (flat array, first)   TURNED_DEPTH + 2 NARROW rows of a panel, overwritten
    """
    x_array, x_first, x_row, x_far = x
    w_array, w_first, w_row, _ = w
    c_array, c_first, c_row, c_far = c
    room, place = scratch
    cols, width, lanes = b.size, PANEL_BYTES // b.itemsize, VECTOR_BYTES // b.itemsize
    together = width if rows >= width else lanes
    blocks = (depth + TURNED_DEPTH - 1) // TURNED_DEPTH
    own = (room, place + TURNED_DEPTH * width, width, width)
    bias = (room, place + (TURNED_DEPTH + NARROW) * width, width, width)
    for j in range(cols):
        room[bias[1] + j * width : bias[1] + (j + 1) * width] = b[j]
    for index in range(times):
        for left in range(0, rows, together):
            top = min(left, rows - together)  # the last rows overlap others, with the same results
            start = bias
            for block in range(blocks):
                k, end = depth * block // blocks, depth * (block + 1) // blocks
                for j in range(0, together, lanes):
                    source = x_first + index * x_far + (top + j) * x_row
                    for following in range(k, end, lanes):
                        at = min(following, end - lanes)
                        target = place + (at - k) * width + j
                        transpose_block(x_array, source + at, x_row, room, target, width)
                a, panel = (w_array, w_first + k * w_row, ONE, w_row), (room, place, width, width)
                gemm(cols, together, end - k, a, panel, start, own, FROM_START)
                start = own
            for i in range(together):
                target = c_first + index * c_far + (top + i) * c_row
                for j in range(cols):
                    c_array[target + j] = room[own[1] + j * width + i]
