"""The time loop: any cell over a whole sequence, block by block of the time grid.

`time_loop(cell)` makes the three functions of a cell; `backpropagation.py` has the backward function.
Differences between cells are known at compile time, so branches on them cost nothing; parts that a cell lacks
are None. The work on units is in the passes of its `Schedule`: the loop itself contains no arithmetic.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .._jit import inline, kernel_of
from ..cell.definition import Cell
from ..cell.passes import row_pass
from ..cell.schedule import Schedule
from ..codegen.denormals import flush_denormals, restore_mode
from ..codegen.vectors import copy_span
from ..product.gemm import ZERO, packing
from ..product.row import add_product, add_rounded_product
from ..product.tile import FROM_START, MAX_ROWS, PANEL_BYTES
from ..team.team import BY_UNITS, MEMBERS, begin_call, end_call, meet
from .backpropagation import backward_of, content_of
from .inputs import gather_words, inputs_of
from .sequence import (
    clear_ends,
    clear_resets,
    end_of_part,
    gather_state,
    masked_rows,
    scatter_last,
    scatter_state,
    slot_of_block,
    state_rows_before,
    strides_of,
)
from .shares import copy_part, own_part, record, recurrent_operands, recurrent_product, share, uses_of
from .strided import forward_of


class TimeLoop(NamedTuple):
    """The compiled functions of a cell, and its schedule."""

    schedule: Schedule
    forward: Any
    backward: Any
    step: Any


_LOOPS: dict[str, TimeLoop] = {}  # by content: equal cells share their code


def time_loop(cell: Cell, rounds: bool = False) -> TimeLoop:
    """The functions of a cell; compiled at their first call, or loaded from disk by the fingerprint.

    `rounds` says that operands of products are rounded to bfloat16.
    """
    content = content_of(cell, rounds)
    if content not in _LOOPS:
        schedule = Schedule(cell)
        forward, step = _forward(schedule, rounds), _step(schedule, rounds)
        _LOOPS[content] = TimeLoop(schedule, forward, backward_of(schedule, rounds), step)
    return _LOOPS[content]


def _forward(schedule: Schedule, rounds: bool) -> Any:
    cell = schedule.cell
    GATES, PLAIN, LATE = np.int64(len(cell.gates)), np.int64(cell.plain), np.int64(cell.late)
    IS_APART, IS_AGAIN, HAS_PRODUCT = bool(cell.apart), bool(cell.again), cell.product
    OTHERS, HAS_TAPE = len(cell.states) - 1, not schedule.in_place
    pack_for, (recurrent_operand, rows_of_operand) = packing(rounds).weights_for, recurrent_operands(rounds)
    word_products, inputs_forward = inputs_of(rounds).word_products, forward_of(rounds)
    HAS_UNITS, HAS_GIVEN = bool(cell.units), bool(cell.given)
    first_pass, second_pass = row_pass(schedule.forward[0]), row_pass(schedule.forward[1])

    @inline
    def weights_of(team, member, uses, wh, transposed, packed_h, packed_late, b, bhh):
        """The operands of the two products with Wh."""
        width = b.size // GATES
        down, across = strides_of(transposed, width, b.size)
        empty = (b, ZERO, ZERO, ZERO)
        w_h, w_late, late_bias = empty, empty, b
        if PLAIN:
            w = (wh.reshape(-1), ZERO, down, across)
            w_h = recurrent_operand(uses, team, member, width, width, PLAIN, w, packed_h)
        if LATE:
            w = (wh.reshape(-1), PLAIN * width * across, down, across)
            w_late = recurrent_operand(uses, team, member, width, width, LATE, w, packed_late)
        if IS_APART:
            late_bias = bhh
        return w_h, w_late, late_bias

    @inline
    def forward_step(
        team, member, goal, t, rows, part, weights, sums, here, h, places, sequence_rows, step_rows,
        given_row, columns,
    ):  # fmt: skip
        """The products and passes of one step. Returns the goal after its meetings.

        rows     first row of the states after the step
        part     sequences and units (i_first, i_last, j_first, j_last)
        weights  from weights_of
        sums     (array, row, width)   pre-activations of the step in rows `here` and after
        h        (array, first, row)   the states before
        places   flat arrays: states, carry and its row, units, given, outputs, operand
        columns  scratch for h in pairs, or None
        """
        i_first, i_last, j_first, j_last = part
        w_h, w_late, bias = weights
        array, sums_row, width = sums
        h_array, h_first, row = h
        states, carry, carry_row, units, given, hs, operand = places
        panel, place = PANEL_BYTES // hs.itemsize, (here + i_first) * sums_row
        if PLAIN or IS_APART:
            a, deep, goal = rows_of_operand(
                team, member, goal, columns, i_first, i_last, width, h, ZERO, ZERO
            )
        if PLAIN:
            c = (array, place, sums_row, panel)
            recurrent_product(team, member, i_last - i_first, deep, width, PLAIN, a, w_h, c, c, FROM_START)
        if IS_APART:
            c, start = (array, place + GATES * width, sums_row, panel), (bias, ZERO, ZERO, panel)
            recurrent_product(
                team, member, i_last - i_first, deep, width, LATE, a, w_late, start, c, FROM_START
            )
        for part_of_step in range(2 if IS_AGAIN else 1):
            if IS_AGAIN and part_of_step:
                if team[BY_UNITS]:
                    goal = meet(team, goal)
                o, deep, goal = rows_of_operand(
                    team, member, goal, columns, i_first, i_last, width, (operand, ZERO, row), ZERO, ZERO
                )
                c = (array, place + PLAIN * width, sums_row, panel)
                recurrent_product(
                    team, member, i_last - i_first, deep, width, LATE, o, w_late, c, c, FROM_START
                )
            for i in range(i_first, i_last):
                step = sequence_rows[i] + step_rows[t]
                of_row = (
                    (array, (here + i) * sums_row + j_first, width),
                    (h_array, h_first + i * row + j_first, width),
                    (carry, i * carry_row + j_first, width),
                    (units, j_first, width),
                    (given, step * given_row + j_first, width),
                    (states, (rows + i) * row + j_first, width),
                    (hs, step * width + j_first, width),
                    (operand, i * row + j_first, width),
                )
                if IS_AGAIN and part_of_step:
                    second_pass(j_last - j_first, of_row)
                else:
                    first_pass(j_last - j_first, of_row)
        if HAS_PRODUCT and team[BY_UNITS]:
            goal = meet(team, goal)
        return goal

    @inline
    def state_before(t, part, batch, width, offsets, order, resets, states, kept, carry):
        """h before a step, as (array, first, row); where sequences are reset, all states become zero."""
        row = states.shape[1]
        h = (states.reshape(-1), state_rows_before(t, batch, offsets) * row, row)
        if resets.size:
            masked_rows(t, part[0], part[1], order, resets, (h[0], h[1], row, width), kept)
            h = (kept.reshape(-1), ZERO, row)
            if OTHERS:
                clear_resets(t, part[0], part[1], order, resets, carry)
        return h

    @kernel_of(content_of(cell, rounds))
    def cell_forward(
        team, member, xs, ids, words, given, before, wx, wh, b, bhh, units, transposed, made, offsets, order,
        blocks, resets, sequence_rows, step_rows, states, tape, starts, hs, after, packed_x, packed_h,
        packed_late, x_block, table, kept, carry, operand, x_columns, h_columns,
    ):  # fmt: skip
        """a_t = x_t Wx + h_{t-1} Wh + b; states_t = formula(a_t, states_{t-1}) for t = 0..T-1.

        team, member                      the threads at work, and which this is: see team.py
        xs           (.., .., D)          read, rows given by `sequence_rows` and `step_rows`
        ids          (N, T) or None       read, int64: x_t = words[ids[:, t]]; xs is not read
        words        (V, D)               read if there are ids
        given        (.., .., K H)        read, the given arrays side by side, rows as of xs
        before       (S, N, H)            read, the states before the first step
        wx           (D, G H)             read
        wh           (H, G H)             read if the cell has a product
        b            (G H,)               read
        bhh          (A H,)               read, the second bias of gates that are apart
        units        (U, H)               read, the arguments of the formula for each unit
        transposed   bool                 wx and wh are stored as (G H, D) and (G H, H), as in PyTorch
        made         (2,) or (0,)         overwritten, int64, what the packed operands hold: see `uses_of`
        offsets      (T+1,)               read, int64, first row of each step
        order        (N,)                 read, int64, sequences by falling length
        blocks       (blocks+1,)          read, int64, first step of each block of the time grid, and T
        resets       (N, T) or (0, 0)     read, bool, where the states are zero before the step
        sequence_rows, step_rows  (N,), (T,)   read, int64, rows of xs, given and hs: see sequence.py
        states       (N + rows, row)      overwritten with h, the first N with h before; rows = offsets[T]
        tape         (slots block rows, tape row)   overwritten, block k in slot k % slots
        starts       (blocks, N, others row)        overwritten, the other states before each block, for its
        rows
        hs           (.., .., H)          overwritten, rows as of xs; zero after the end of a sequence
        after        (S, N, H)            overwritten, the states after the last step; may be `before`
        packed_x     (packed_size(D, G H),)                        overwritten unless `made` holds it
        packed_h     (recurrent_packed_size(H, H, plain, members),) likewise
        packed_late  (recurrent_packed_size(H, H, late, members),) likewise
        x_block      (block rows + 1, x row)  scratch
        table        (V, cols)            scratch if there are ids
        kept         (N, row)             scratch if there are resets
        carry        (N, others row)      scratch
        operand      (N, row)             scratch if the cell has a second product
        x_columns    (block rows, D/2..) or None   int32, scratch if operands of products are rounded to
                                          bfloat16; packed arrays are then int32, too: see bfloat16.py
        h_columns    (N, H/2..) or None   int32, scratch, likewise
        """
        mode_before = flush_denormals()
        goal = begin_call(team, member)
        depth, batch, width, steps = wx.size // b.size, order.size, hs.shape[2], offsets.size - 1
        row, panel = states.shape[1], PANEL_BYTES // hs.itemsize
        flat_states, flat_hs = states.reshape(-1), hs.reshape(-1)
        # Arrays that the cell lacks are None; they are replaced by others, which are not read.
        where, sums, sums_row = states, flat_states, row
        flat_carry, carry_row, flat_units, flat_operand = flat_hs, ZERO, flat_hs, flat_hs
        flat_given, given_row = flat_hs, ZERO
        if HAS_TAPE:
            where, sums, sums_row = tape, tape.reshape(-1), tape.shape[1]
        if OTHERS:
            flat_carry, carry_row = carry.reshape(-1), carry.shape[1]
        if HAS_UNITS:
            flat_units = units.reshape(-1)
        if HAS_GIVEN:
            flat_given, given_row = given.reshape(-1), given.shape[2]
        if IS_AGAIN:
            flat_operand = operand.reshape(-1)
        places = (flat_states, flat_carry, carry_row, flat_units, flat_given, flat_hs, flat_operand)
        uses_x, uses_h = uses_of(team, steps * ((batch + MAX_ROWS - 1) // MAX_ROWS), made)
        down, across = strides_of(transposed, depth, b.size)
        w = (wx.reshape(-1), ZERO, down, across)
        w_x = pack_for(uses_x, member, team[MEMBERS], depth, b.size, w, packed_x)
        weights = weights_of(team, member, uses_h, wh, transposed, packed_h, packed_late, b, bhh)
        if member == 0:
            gather_state(order, before, 0, width, states, ZERO)
            if OTHERS:
                for s in range(OTHERS):
                    gather_state(order, before, s + 1, width, carry, s * width)
        goal = meet(team, goal)
        record(team, member, made)
        if ids is not None:
            goal = word_products(team, member, goal, words, w_x, b, table, x_columns)
        for k in range(blocks.size - 1):
            t_first, t_last = blocks[k], blocks[k + 1]
            slot = batch + offsets[t_first]
            if HAS_TAPE:
                slot = slot_of_block(k, x_block, tape)
            i_block, i_end, j_first, j_last = own_part(t_first, t_last, width, offsets, team, member)
            if OTHERS:
                for s in range(OTHERS):
                    own = (i_block, i_end, s * width + j_first, s * width + j_last)
                    copy_part(own, carry, 0, starts, k * batch * carry_row, carry_row)
            t_begin = t_first
            while t_begin < t_last:
                t_end = end_of_part(t_begin, t_last, offsets, sums_row * hs.itemsize)
                rows_of_part, first = (t_begin, t_end, offsets, sequence_rows, step_rows), offsets[t_begin]
                first += slot - offsets[t_first]
                if ids is not None:
                    begin, end = share(offsets[t_end] - offsets[t_begin], member, team)
                    gather_words(t_begin, t_end, begin, end, offsets, order, ids, table, where, first)
                else:
                    c = (sums, first * sums_row, sums_row, panel)
                    inputs_forward(team, member, rows_of_part, depth, xs, x_block, w_x, b, c, x_columns)
                goal = meet(team, goal)
                for t in range(t_begin, t_end):
                    rows, count = batch + offsets[t], offsets[t + 1] - offsets[t]
                    part = (min(i_block, count), min(i_end, count), j_first, j_last)
                    h = state_before(t, part, batch, width, offsets, order, resets, states, kept, carry)
                    goal = forward_step(
                        team, member, goal, t, rows, part, weights, (sums, sums_row, width),
                        slot + offsets[t] - offsets[t_first], h, places, sequence_rows, step_rows, given_row,
                        h_columns,
                    )  # fmt: skip
                t_begin = t_end
            goal = meet(team, goal)
        if member == 0:
            clear_ends(offsets, sequence_rows, step_rows, hs)
            scatter_last(offsets, order, states, after, width)
            if OTHERS:
                for s in range(OTHERS):
                    scatter_state(order, carry, s * width, after, s + 1, width)
        end_call(team, member, goal)
        restore_mode(mode_before)

    return cell_forward


def _step(schedule: Schedule, rounds: bool) -> Any:
    cell, add = schedule.cell, add_rounded_product if rounds else add_product
    GATES, PLAIN, LATE = np.int64(len(cell.gates)), np.int64(cell.plain), np.int64(cell.late)
    IS_APART, IS_AGAIN = bool(cell.apart), bool(cell.again)
    IN_PLACE, HAS_TAPE = schedule.in_place, not schedule.in_place
    first_pass, second_pass = row_pass(schedule.forward[0]), row_pass(schedule.forward[1])
    COLUMNS = np.int64(schedule.columns)
    HAS_UNITS, HAS_GIVEN = bool(cell.units), bool(cell.given)

    @kernel_of(content_of(cell, rounds))
    def cell_step(x, states, wx, wh, b, more, scratch, out):
        """One step with the bits of cell_forward and unpacked weights; out = h.

        x        (N, D)       read
        states   (S, N, H)    overwritten; the states before
        wx       (D, G H)     read
        wh       (H, G H)     read if the cell has a product
        b        (G H,)       read
        more     tuple or None   read, (given, bhh, units) of a cell that has any: (N, K H), (A H,), (U, H)
        scratch  ((tape columns + 1) H,)   scratch
        out      (N, H)       overwritten
        """
        mode_before = flush_denormals()
        batch, width = out.shape
        cols = GATES * width
        flat_states, flat_out = states.reshape(-1), out.reshape(-1)
        flat_units, flat_given, given_row = flat_out, flat_out, ZERO
        if HAS_UNITS:
            flat_units = more[2].reshape(-1)
        if HAS_GIVEN:
            flat_given, given_row = more[0].reshape(-1), more[0].shape[1]
        tape, operand = flat_out, flat_out
        if HAS_TAPE:
            tape, operand = scratch, scratch[COLUMNS * width :]
        for n in range(batch):
            sums, first = tape, ZERO
            if IN_PLACE:
                sums, first = out[n], n * width
            copy_span(b, 0, sums, 0, cols)
            add(x[n], wx, 0, sums[:cols])
            if PLAIN:
                add(states[0, n], wh, 0, sums[: PLAIN * width])
            if IS_APART:
                copy_span(more[1], 0, sums, cols, LATE * width)
                add(states[0, n], wh, PLAIN * width, sums[cols : cols + LATE * width])
            places = (
                (tape, first, width),
                (flat_states, n * width, width),
                (flat_states, (batch + n) * width, batch * width),
                (flat_units, ZERO, width),
                (flat_given, n * given_row, width),
                (flat_states, n * width, width),
                (flat_out, n * width, width),
                (operand, ZERO, width),
            )
            first_pass(width, places)
            if IS_AGAIN:
                add(operand[:width], wh, PLAIN * width, sums[PLAIN * width : cols])
                second_pass(width, places)
        restore_mode(mode_before)

    return cell_step
