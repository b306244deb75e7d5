"""The products with inputs over a block of steps, where rows lie or by columns if that is faster.

Rows of inputs lie at one distance from step to step and at another from sequence to sequence. Without
lengths they need not be gathered in the order of time: there is one product for each step over the
sequences, or for each sequence over the steps. The chains of multiply-adds are those of gathered rows.
"""

from __future__ import annotations

from typing import Any

from .._jit import inline, inner
from ..codegen.vectors import VECTOR_BYTES, transpose_block
from ..product.gemm import ONE, ZERO, gemm, packed_view
from ..product.tile import ADD_TO, FROM_START, MAX_ROWS, OVERWRITE, PANEL_BYTES
from ..team.team import MEMBERS
from .inputs import inputs_of, weights_of_inputs
from .sequence import gather_steps
from .shares import share

input_product, rounded_product = inputs_of(False).product, inputs_of(True).product
exact_backward = inputs_of(False).backward

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
def _exact_products(team, member, block, depth, xs, x_block, w, b, c, columns):
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
    members, flat = team[MEMBERS], xs.reshape(-1)
    products, in_x, in_c, is_regular, is_fast = spacing(block, depth, b.size, xs, members)
    times, count = products
    begin, end = share(count, member, team)
    array, first, row, panel = c
    x = (flat, in_x[0] + begin * in_x[1], in_x[1], in_x[2])
    own = (array, first + begin * in_c[0] * row, in_c[0] * row, in_c[1] * row)
    room = x_block.size // members
    if is_regular and _turns(count, depth, b, members, room):
        _turned_product(times, end - begin, depth, x, w, b, own, (x_block.reshape(-1), member * room))
    elif is_regular and is_fast:
        for index in range(times):
            a, part = (flat, x[1] + index * x[3], x[2], ONE), (array, own[1] + index * own[3], own[2], panel)
            gemm(end - begin, b.size, depth, a, w, (b, ZERO, ZERO, panel), part, FROM_START)
    else:
        begin, end = share(offsets[t_last] - offsets[t_first], member, team)
        gather_steps(t_first, t_last, begin, end, offsets, sequence_rows, step_rows, xs, x_block)
        input_product(begin, end, depth, x_block, w, b, c, None)


@inner
def gradients_in_place(team, member, block, cols, gradients, packed_x, dxs):
    """dx_t = dt Wx^T for the steps of a block, written where they belong, unless gathered rows are faster.
    Returns whether it is done.

    block      (t_first, t_last, offsets, sequence_rows, step_rows)
    gradients  (dts, first)               dt in the rows of dts from `first` on, read
    packed_x   (packed_size(cols, D),)    read, Wx^T in panels
    dxs        (.., .., D)                the member's rows overwritten
    """
    dts, first = gradients
    depth, dt_row, flat, panel = dxs.shape[2], dts.shape[1], dts.reshape(-1), PANEL_BYTES // dts.itemsize
    products, in_x, in_dts, is_regular, is_fast = spacing(block, depth, cols, dxs, team[MEMBERS])
    is_done = is_regular and is_fast and dxs.size > 0
    if is_done:
        times, count = products
        begin, end = share(count, member, team)
        for index in range(times):
            row = first + begin * in_dts[0] + index * in_dts[1]
            a = (flat, row * dt_row, in_dts[0] * dt_row, ONE)
            c = (dxs.reshape(-1), in_x[0] + begin * in_x[1] + index * in_x[2], in_x[1], panel)
            gemm(end - begin, depth, cols, a, packed_view(packed_x, cols), c, c, OVERWRITE)
    return is_done


@inline
def _exact_gradients(team, member, goal, block, cols, x_block, gradients, packed_x, dxs, columns, ready):
    """`Inputs.backward` in float32 or float64, in place where that is faster."""
    is_done = gradients_in_place(team, member, block, cols, gradients, packed_x, dxs)
    if not is_done:
        goal = exact_backward(
            team, member, goal, block, cols, x_block, gradients, packed_x, dxs, columns, ready
        )
    return goal


def input_gradients_of(rounds: bool) -> Any:
    """The gradients of the inputs of a block; `rounds` as in `forward_of`."""
    return inputs_of(True).backward if rounds else _exact_gradients


@inline
def weights_by_columns(team, member, transposed, rows, cols, x, d, dwx, mode):
    """`weights_of_inputs`, as its transpose if there are few columns.

    x    by `operands_of`   (rows, D), read; in place with few columns, where one more row is scratch
    d    by `operands_of`   (rows, cols), read
    dwx  (D, cols)          overwritten, or accumulated if mode is ADD_TO; (cols, D) if `transposed`
    """
    depth, panel = dwx.size // cols, PANEL_BYTES // dwx.itemsize
    if not transposed and 2 * cols <= panel and depth >= team[MEMBERS] * cols * panel:
        array, _, row, _ = x
        scratch = (array, array.size + row, -row)
        _turned_gradient(team, member, rows, depth, cols, x, d, dwx.reshape(-1), mode, scratch)
    else:
        weights_of_inputs(team, member, transposed, rows, cols, x, d, dwx, mode)


@inline
def spacing(block, depth, cols, x, members):
    """The rows of a block of steps as `times` products over `count` rows, and whether that is faster than
    gathering them.

    block  (t_first, t_last, offsets, sequence_rows, step_rows)
    x      (.., .., D), its type is read

    Returns (times, count), (first, near, far) in elements of X, (near, far) in rows of the block, and whether
    rows are at regular distances and whether products with weights (depth, cols) read them fast.
    """
    t_first, t_last, offsets, sequence_rows, step_rows = block
    rows, steps, batch = offsets[t_last] - offsets[t_first], t_last - t_first, sequence_rows.size
    across, down = _distance(sequence_rows, 0, batch), _distance(step_rows, t_first, t_last)
    is_regular = rows > 0 and rows == steps * batch and across != 0 and down != 0
    first = ZERO
    if is_regular:
        first = (sequence_rows[0] + step_rows[t_first]) * depth
    times, count, near, far, in_block, blocks = ONE, rows, across, ZERO, ONE, ZERO
    if batch == 1:
        near = down
    elif steps > 1 and down != across * batch:
        times, count, near, far, in_block, blocks = steps, batch, across, down, ONE, batch
        if batch < steps:
            times, count, near, far, in_block, blocks = batch, steps, down, across, batch, ONE
    is_enough = count >= members * MAX_ROWS and depth * cols * x.itemsize <= SHARED_BYTES
    is_fast = (times == 1 or is_enough) and near * depth * x.itemsize % SET_BYTES != 0
    return (times, count), (first, near * depth, far * depth), (in_block, blocks), is_regular, is_fast


@inline
def _rounded_products(team, member, block, depth, xs, x_block, w, b, c, columns):
    """`_exact_products` for operands in pairs, whose rows are gathered and then rounded into `columns`."""
    t_first, t_last, offsets, sequence_rows, step_rows = block
    begin, end = share(offsets[t_last] - offsets[t_first], member, team)
    gather_steps(t_first, t_last, begin, end, offsets, sequence_rows, step_rows, xs, x_block)
    rounded_product(begin, end, depth, x_block, w, b, c, columns)


def forward_of(rounds: bool) -> Any:
    """The products with the inputs of a block; `rounds` says that operands are rounded to bfloat16."""
    return _rounded_products if rounds else _exact_products


@inline
def _distance(places, begin, end):
    """The distance between neighbors in places[begin : end]: 1 for a single place, 0 if distances differ."""
    distance = ONE
    if end - begin > 1:
        distance = places[begin + 1] - places[begin]
    for i in range(begin + 1, end):
        if places[i] - places[i - 1] != distance:
            distance = ZERO
    return distance


@inline
def _turns(count, depth, b, members, room):
    """Whether `_turned_product` serves each member's part of `count` rows with `room` elements of scratch."""
    lanes = VECTOR_BYTES // b.itemsize
    is_narrow = b.size <= NARROW and depth >= LEAST_DEPTH and count >= members * lanes
    return is_narrow and room >= (TURNED_DEPTH + 2 * NARROW) * 2 * lanes


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
    blocks = (depth + TURNED_DEPTH - 1) // TURNED_DEPTH
    own = (room, place + TURNED_DEPTH * width, width, width)
    bias = (room, place + (TURNED_DEPTH + NARROW) * width, width, width)
    for j in range(cols):
        room[bias[1] + j * width : bias[1] + (j + 1) * width] = b[j]
    for index in range(times):
        left = 0
        while left < rows:
            together = width if rows >= width and rows - left > lanes else lanes
            top = min(left, rows - together)  # the last rows overlap others, with the same results
            left, start = top + together, bias
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


@inner
def _turned_gradient(team, member, rows, depth, cols, x, d, dw, mode, scratch):
    """dW = X^T D (or dW + X^T D if mode is ADD_TO) with few columns, computed as dW^T = D^T X; each member
    computes its rows of dW.

    x, d     by last_first                (rows, depth) and (rows, cols), read
    dw       flat, (depth, cols)          overwritten, or accumulated if mode is ADD_TO
    scratch  (flat array, first, count)   overwritten by all members together
    """
    array, first, row, panel = x
    d_array, d_first, d_row, _ = d
    room, place, size = scratch
    own_room = size // team[MEMBERS]
    place += member * own_room
    begin, end = share(depth, member, team)
    width = own_room // cols // panel * panel
    for left in range(begin, end, width):
        count = min(width, end - left)
        a, b, c = (
            (d_array, d_first, ONE, d_row),
            (array, first + left, row, panel),
            (room, place, width, panel),
        )
        gemm(cols, count, rows, a, b, c, c, OVERWRITE)
        for k in range(count):
            target = (left + k) * cols
            for j in range(cols):
                value = room[place + j * width + k]
                dw[target + j] = dw[target + j] + value if mode == ADD_TO else value
