"""The time loop: any cell over a whole sequence, forward and backward, one block of the time grid after the other.

`time_loop(cell)` makes the three functions of a cell. What differs between cells is known while they are
compiled, so branches on it cost nothing; what a unit does is in the passes of its `Schedule`. The loop itself
contains no arithmetic.

The backward pass needs a row of the tape for every step. Rows are kept in slots of one block each: block k of
the time grid is in slot k % slots. Where there are fewer slots than blocks, the backward pass makes those that
were overwritten again, from h, which is kept for all steps, and the other states before the block. Once h is
known, pre-activations are products over whole blocks, and only the elementwise passes go step by step. The
bits are those of the first time.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ._jit import kernel_of, spliced
from .cell import Cell
from .denormals import flush_denormals, restore_mode
from .gemm import MANY, ONE, ZERO, gemm, pack, pack_for, packed_view
from .inputs import gather_words, input_product, inputs_backward, word_products, words_backward
from .passes import row_pass
from .row import add_product
from .schedule import Schedule
from .sequence import (
    bias_gradient,
    clear_ends,
    clear_resets,
    gather_state,
    gather_states_before,
    gather_steps,
    last_first,
    masked_rows,
    scatter_last,
    scatter_state,
    slot_of_block,
    state_rows_before,
    weight_gradient,
)
from .shares import copy_part, own_part, recurrent_operand, recurrent_product, share
from .team import BY_UNITS, MEMBERS, begin_call, end_call, meet
from .tile import ADD_TO, FROM_START, MAX_ROWS, OVERWRITE, PANEL_BYTES
from .vectors import clear_row, copy_row


class TimeLoop(NamedTuple):
    """The compiled functions of a cell, and its schedule."""

    schedule: Schedule
    forward: Any
    backward: Any
    step: Any


_LOOPS: dict[str, TimeLoop] = {}  # by fingerprint: cells that say the same share their code


def time_loop(cell: Cell) -> TimeLoop:
    """The functions of a cell; compiled at their first call, or found on disk by the fingerprint."""
    if cell.fingerprint not in _LOOPS:
        schedule = Schedule(cell)
        _LOOPS[cell.fingerprint] = TimeLoop(schedule, _forward(schedule), _backward(schedule), _step(schedule))
    return _LOOPS[cell.fingerprint]


def _forward(schedule: Schedule) -> Any:
    cell = schedule.cell
    GATES, PLAIN, LATE = np.int64(len(cell.gates)), np.int64(cell.plain), np.int64(cell.late)
    IS_APART, IS_AGAIN, HAS_PRODUCT = bool(cell.apart), bool(cell.again), cell.product
    OTHERS, IN_PLACE, HAS_TAPE = len(cell.states) - 1, schedule.in_place, not schedule.in_place
    HAS_UNITS, HAS_GIVEN = bool(cell.units), bool(cell.given)
    first_pass, second_pass = row_pass(schedule.forward[0]), row_pass(schedule.forward[1])

    @kernel_of(cell.fingerprint)
    def forward(
        team, member, xs, ids, words, given, before, wx, wh, b, bhh, units, offsets, order, blocks, resets,
        states, tape, starts, hs, after, packed_x, packed_h, packed_late, x_block, table, kept, carry, operand,
    ):  # fmt: skip
        """a_t = x_t Wx + h_{t-1} Wh + b; states_t = formula(a_t, states_{t-1}) for t = 0..T-1.

        team, member                      the threads at work, and which this is: see team.py
        xs           (N, T, D)            read
        ids          (N, T) or None       read, int64: x_t = words[ids[:, t]]; xs is not read
        words        (V, D)               read if there are ids
        given        (N, T, K H)          read, the given arrays side by side
        before       (S, N, H)            read, the states before the first step
        wx           (D, G H)             read
        wh           (H, G H)             read if the cell has a product
        b            (G H,)               read
        bhh          (A H,)               read, the second bias of gates that are apart
        units        (U, H)               read, what the formula knows of each unit
        offsets      (T+1,)               read, int64, first row of each step
        order        (N,)                 read, int64, sequences by falling length
        blocks       (blocks+1,)          read, int64, first step of each block of the time grid, and T
        resets       (N, T) or (0, 0)     read, bool, where the states are zero before the step
        states       (N + rows, row)      overwritten with h, the first N with h before; rows = offsets[T]
        tape         (slots block rows, tape row)   overwritten, block k in slot k % slots
        starts       (blocks, N, others row)        overwritten, the other states before each block, of its rows
        hs           (N, T, H)            overwritten, zero where a sequence has ended
        after        (S, N, H)            overwritten, the states after the last step; may be `before`
        packed_x     (packed_size(D, G H),)                        scratch
        packed_h     (recurrent_packed_size(H, H, plain, members),) scratch
        packed_late  (recurrent_packed_size(H, H, late, members),) scratch
        x_block      (block rows, x row)  scratch
        table        (V, cols)            scratch if there are ids
        kept         (N, row)             scratch if there are resets
        carry        (N, others row)      scratch
        operand      (N, row)             scratch if the cell has a second product
        """
        mode_before = flush_denormals()
        goal = begin_call(team, member)
        depth, batch, width = wx.shape[0], order.size, hs.shape[2]
        steps, cols = offsets.size - 1, GATES * width
        row, panel = states.shape[1], PANEL_BYTES // hs.itemsize
        flat_states, flat_kept, flat_hs = states.reshape(-1), kept.reshape(-1), hs.reshape(-1)
        # What the cell has not is None, and its place is never looked at.
        where, sums, sums_row = states, flat_states, row
        flat_carry, others_row, flat_units, flat_operand = flat_hs, ZERO, flat_hs, flat_hs
        flat_given, given_row = flat_hs, ZERO
        if HAS_TAPE:
            where, sums, sums_row = tape, tape.reshape(-1), tape.shape[1]
        if OTHERS:
            flat_carry, others_row = carry.reshape(-1), carry.shape[1]
        if HAS_UNITS:
            flat_units = units.reshape(-1)
        if HAS_GIVEN:
            flat_given, given_row = given.reshape(-1), given.shape[2]
        if IS_AGAIN:
            flat_operand = operand.reshape(-1)
        uses = steps * ((batch + MAX_ROWS - 1) // MAX_ROWS)
        w_x = pack_for(uses, member, team[MEMBERS], depth, cols, (wx.reshape(-1), ZERO, cols, ONE), packed_x)
        if PLAIN:
            w = (wh.reshape(-1), ZERO, cols, ONE)
            w_h = recurrent_operand(uses, team, member, width, width, PLAIN, w, packed_h)
        if LATE:
            w = (wh.reshape(-1), PLAIN * width, cols, ONE)
            w_late = recurrent_operand(uses, team, member, width, width, LATE, w, packed_late)
        if member == 0:
            gather_state(order, before[0], states, ZERO)
            if OTHERS:
                for s in range(OTHERS):
                    gather_state(order, before[s + 1], carry, s * width)
        goal = meet(team, goal)
        if ids is not None:
            goal = word_products(team, member, goal, words, w_x, b, table)
        for k in range(blocks.size - 1):
            t_first, t_last = blocks[k], blocks[k + 1]
            slot = batch + offsets[t_first]
            if HAS_TAPE:
                slot = slot_of_block(k, x_block, tape)
            i_block, i_end, j_first, j_last = own_part(t_first, t_last, width, offsets, team, member)
            if OTHERS:
                for s in range(OTHERS):
                    copy_part((i_block, i_end, s * width + j_first, s * width + j_last), carry, starts[k])
            begin, end = share(offsets[t_last] - offsets[t_first], member, team)
            if ids is not None:
                gather_words(t_first, t_last, begin, end, offsets, order, ids, table, where, slot)
            else:
                gather_steps(t_first, t_last, begin, end, offsets, order, xs, x_block)
                input_product(begin, end, depth, x_block, w_x, b, (sums, slot * sums_row, sums_row, panel))
            goal = meet(team, goal)
            for t in range(t_first, t_last):
                rows_after, count = batch + offsets[t], offsets[t + 1] - offsets[t]
                i_first, i_last = min(i_block, count), min(i_end, count)
                here = slot + offsets[t] - offsets[t_first]
                h, h_first = flat_states, state_rows_before(t, batch, offsets) * row
                if resets.size:
                    masked_rows(t, i_first, i_last, order, resets, (h, h_first, row, width), kept)
                    h, h_first = flat_kept, ZERO
                    if OTHERS:
                        clear_resets(t, i_first, i_last, order, resets, carry)
                a = (h, h_first + i_first * row, row, ONE)
                place = (here + i_first) * sums_row
                if PLAIN:
                    c = (sums, place, sums_row, panel)
                    recurrent_product(
                        team, member, i_last - i_first, width, width, PLAIN, a, w_h, c, c, FROM_START
                    )
                if IS_APART:
                    c = (sums, place + cols, sums_row, panel)
                    start = (bhh, ZERO, ZERO, panel)
                    recurrent_product(
                        team, member, i_last - i_first, width, width, LATE, a, w_late, start, c, FROM_START
                    )
                for part in range(2 if IS_AGAIN else 1):
                    if IS_AGAIN and part:
                        if team[BY_UNITS]:
                            goal = meet(team, goal)
                        a = (flat_operand, i_first * row, row, ONE)
                        c = (sums, place + PLAIN * width, sums_row, panel)
                        recurrent_product(
                            team, member, i_last - i_first, width, width, LATE, a, w_late, c, c, FROM_START
                        )
                    for i in range(i_first, i_last):
                        step = order[i] * steps + t
                        places = (
                            (sums, (here + i) * sums_row + j_first, width),
                            (h, h_first + i * row + j_first, width),
                            (flat_carry, i * others_row + j_first, width),
                            (flat_units, j_first, width),
                            (flat_given, step * given_row + j_first, width),
                            (flat_states, (rows_after + i) * row + j_first, width),
                            (flat_hs, step * width + j_first, width),
                            (flat_operand, i * row + j_first, width),
                        )
                        if IS_AGAIN and part:
                            second_pass(j_last - j_first, places)
                        else:
                            first_pass(j_last - j_first, places)
                if HAS_PRODUCT and team[BY_UNITS]:
                    goal = meet(team, goal)
            goal = meet(team, goal)
        if member == 0:
            clear_ends(offsets, order, hs)
            scatter_last(offsets, order, states, after[0])
            if OTHERS:
                for s in range(OTHERS):
                    scatter_state(order, carry, s * width, after[s + 1])
        end_call(team, member, goal)
        restore_mode(mode_before)

    return forward



def _backward(schedule: Schedule) -> Any:
    cell = schedule.cell
    GATES, PLAIN, LATE = np.int64(len(cell.gates)), np.int64(cell.plain), np.int64(cell.late)
    IS_APART, IS_AGAIN, HAS_PRODUCT = bool(cell.apart), bool(cell.again), cell.product
    OTHERS, HAS_TAPE, PASSES = len(cell.states) - 1, not schedule.in_place, schedule.passes
    HAS_UNITS, HAS_GIVEN, HAS_WANTED = bool(cell.units), bool(cell.given), bool(cell.wanted)
    UNITS, FIRST_UNIT, FIRST_OTHER = len(cell.trained), schedule.unit_gradients, schedule.others
    LATE_GRADIENT = GATES if IS_APART else PLAIN  # the column of what goes back through the second product
    first_pass, second_pass = row_pass(schedule.backward[0]), row_pass(schedule.backward[1])
    remake_first, remake_second = row_pass(schedule.remake[0]), row_pass(schedule.remake[1])

    @spliced
    def remake_block(
        team, member, goal, t_first, t_last, slot, k, given, b, bhh, units, offsets, order, resets, states, starts,
        x_block, h_block, tape, packed_wx, packed_wh, packed_wlate, carry, operand, depth,
    ):  # fmt: skip
        """The tape of one block again, in its slot; the goal after a meeting in between.

        packed_wx, packed_wh, packed_wlate   read, Wx and the two parts of Wh in panels
        starts            (blocks, N, others row)   read, the other states before the block, at k
        x_block, h_block  (block rows, x row or row)   read, the member's inputs and h before each step
        tape              overwritten in the slot
        carry             (N, others row)           scratch
        operand           (block rows, row)         scratch
        """
        batch, steps, cols = order.size, offsets.size - 1, b.size
        width = cols // GATES
        tape_row, row, panel = tape.shape[1], h_block.shape[1], PANEL_BYTES // tape.itemsize
        begin, end = share(offsets[t_last] - offsets[t_first], member, team)
        flat_tape, flat_h, flat_states = tape.reshape(-1), h_block.reshape(-1), states.reshape(-1)
        flat_carry, others_row, flat_units, flat_operand = flat_h, ZERO, flat_h, flat_h
        flat_given, given_row = flat_h, ZERO
        if OTHERS:
            flat_carry, others_row = carry.reshape(-1), carry.shape[1]
        if HAS_UNITS:
            flat_units = units.reshape(-1)
        if HAS_GIVEN:
            flat_given, given_row = given.reshape(-1), given.shape[2]
        if IS_AGAIN:
            flat_operand = operand.reshape(-1)
        input_product(
            begin, end, depth, x_block, packed_view(packed_wx, depth), b, (flat_tape, slot * tape_row, tape_row, panel)
        )
        a, place = (flat_h, begin * row, row, ONE), (slot + begin) * tape_row
        if PLAIN:
            c = (flat_tape, place, tape_row, panel)
            gemm(end - begin, PLAIN * width, width, a, packed_view(packed_wh, width), c, c, FROM_START)
        if IS_APART:
            c, before = (flat_tape, place + cols, tape_row, panel), (bhh, ZERO, ZERO, panel)
            gemm(end - begin, LATE * width, width, a, packed_view(packed_wlate, width), before, c, FROM_START)
        j_first, j_last = ZERO, width
        if OTHERS:
            goal = meet(team, goal)
            i_block, i_end, j_first, j_last = own_part(t_first, t_last, width, offsets, team, member)
            for s in range(OTHERS):
                copy_part((i_block, i_end, s * width + j_first, s * width + j_last), starts[k], carry)
        for part in range(2 if IS_AGAIN else 1):
            if IS_AGAIN and part:
                a = (flat_operand, begin * row, row, ONE)
                c = (flat_tape, place + PLAIN * width, tape_row, panel)
                gemm(end - begin, LATE * width, width, a, packed_view(packed_wlate, width), c, c, FROM_START)
            for t in range(t_first, t_last):
                here, count = offsets[t] - offsets[t_first], offsets[t + 1] - offsets[t]
                first, last = max(begin, here), min(end, here + count)
                if OTHERS:
                    first, last = here + min(i_block, count), here + min(i_end, count)
                    clear_resets(t, first - here, last - here, order, resets, carry)
                for r in range(first, last):
                    i = r - here
                    places = (
                        (flat_tape, (slot + r) * tape_row + j_first, width),
                        (flat_h, r * row + j_first, width),
                        (flat_carry, i * others_row + j_first, width),
                        (flat_units, j_first, width),
                        (flat_given, (order[i] * steps + t) * given_row + j_first, width),
                        (flat_states, (batch + offsets[t] + i) * row + j_first, width),
                        (flat_states, ZERO, width),
                        (flat_operand, r * row + j_first, width),
                    )
                    if IS_AGAIN and part:
                        remake_second(j_last - j_first, places)
                    else:
                        remake_first(j_last - j_first, places)
        return goal

    @kernel_of(cell.fingerprint)
    def backward(
        team, member, xs, ids, words, given, states, tape, starts, intact, dhs, dstates_next, wx, wh, b, bhh, units,
        offsets, order, blocks, resets, adds, dxs, dwords, dgiven, dstates_before, dwx, dwh, db, dbhh, dunits,
        packed_x, packed_h, packed_late, packed_wx, packed_wh, packed_wlate, dts, dstates, x_block, sums, h_block,
        kept, carry, operand,
    ):  # fmt: skip
        """Backpropagation through time: with dt the gradient of a step's pre-activations, dh_{t-1} = dt Wh^T and
        what the formula passes by, dx_t = dt Wx^T, dWx = sum x_t^T dt, dWh = sum h_{t-1}^T dt, db = sum dt.

        team, member                                   as in forward
        xs              (N, T, D)                      read
        ids             (N, T) or None                 read, int64: x_t = words[ids[:, t]]; xs is not read
        words           (V, D)                         read if there are ids
        given           (N, T, K H)                    read
        states          (N + rows, row)                read, as forward left it
        tape            (slots block rows, tape row)   read; overwritten by blocks made again
        starts          (blocks, N, others row)        read
        intact          int                            blocks from this one on are in their slots
        dhs             (N, T, H)                      read, the gradient of each output
        dstates_next    (S, N, H)                      read, the gradient of the states after the last step
        wx, wh, b, bhh, units                          read, as in forward
        offsets, order, blocks, resets                 read, as in forward
        adds            bool                           the gradients of the parameters are accumulated
        dxs             (N, T, D)                      overwritten, zero where a sequence has ended
        dwords          (V, D)                         overwritten if there are ids; accumulated if adds
        dgiven          (N, T, W H)                    overwritten, of those given arrays that have a gradient
        dstates_before  (S, N, H)                      overwritten, the gradient of `before`
        dwx, dwh, db    (D, G H), (H, G H), (G H,)     overwritten; accumulated if adds
        dbhh            (A H,)                         likewise
        dunits          (P, H)                         likewise, of those units that have a gradient
        packed_x        (packed_size(G H, D),)         scratch
        packed_h        (recurrent_packed_size(plain H, H, 1, members),)  scratch
        packed_late     (recurrent_packed_size(late H, H, 1, members),)   scratch
        packed_wx       (packed_size(D, G H),) or (0,)       scratch, needed if a block is made again
        packed_wh       (packed_size(H, plain H),) or (0,)   scratch, likewise
        packed_wlate    (packed_size(H, late H),) or (0,)    scratch, likewise
        dts             (block rows + 1, gradient row) scratch, block rows = block_steps(N) N
        dstates         (N, S H padded)                scratch
        x_block         (block rows, x row)            scratch
        sums            (V + 1, gradient row)          scratch if there are ids
        h_block         (block rows, row)              scratch
        kept, carry     (N, others row)                scratch
        operand         (block rows, row)              scratch if the cell has a second product
        """
        mode_before = flush_denormals()
        goal = begin_call(team, member)
        depth, batch, width = wx.shape[0], order.size, dhs.shape[2]
        steps, cols, members = offsets.size - 1, GATES * width, team[MEMBERS]
        row, dt_row, d_row, panel = states.shape[1], dts.shape[1], dstates.shape[1], PANEL_BYTES // dts.itemsize
        flat_states, flat_dhs, flat_h = states.reshape(-1), dhs.reshape(-1), h_block.reshape(-1)
        flat_dts, flat_d, flat_wx = dts.reshape(-1), dstates.reshape(-1), wx.reshape(-1)
        # What the cell has not is None, and its place is never looked at.
        flat_tape, tape_row, flat_units, flat_operand = flat_h, ZERO, flat_h, flat_h
        flat_given, given_row, flat_dgiven, dgiven_row = flat_h, ZERO, flat_h, ZERO
        flat_starts, flat_kept, others, others_first, others_step = flat_h, flat_h, flat_h, ZERO, ZERO
        if OTHERS:
            flat_starts, flat_kept = starts.reshape(-1), kept.reshape(-1)
        if HAS_TAPE:
            flat_tape, tape_row = tape.reshape(-1), tape.shape[1]
        if HAS_UNITS:
            flat_units = units.reshape(-1)
        if HAS_GIVEN:
            flat_given, given_row = given.reshape(-1), given.shape[2]
        if HAS_WANTED:
            flat_dgiven, dgiven_row = dgiven.reshape(-1), dgiven.shape[2]
        if IS_AGAIN:
            flat_operand = operand.reshape(-1)
        if HAS_PRODUCT:
            flat_wh, flat_dwh = wh.reshape(-1), dwh.reshape(-1)
        pack(member, members, cols, depth, (flat_wx, ZERO, ONE, cols), packed_x)
        if PLAIN:
            w = (flat_wh, ZERO, ONE, cols)
            w_h = recurrent_operand(MANY, team, member, PLAIN * width, width, ONE, w, packed_h)
        if LATE:
            w = (flat_wh, PLAIN * width, ONE, cols)
            w_late = recurrent_operand(MANY, team, member, LATE * width, width, ONE, w, packed_late)
        if HAS_TAPE:
            if intact > 0:
                pack(member, members, depth, cols, (flat_wx, ZERO, cols, ONE), packed_wx)
                if PLAIN:
                    pack(member, members, width, PLAIN * width, (flat_wh, ZERO, cols, ONE), packed_wh)
                if LATE:
                    pack(member, members, width, LATE * width, (flat_wh, PLAIN * width, cols, ONE), packed_wlate)
        if member == 0:
            for s in range(OTHERS + 1):
                gather_state(order, dstates_next[s], dstates, s * width)
            if not offsets[steps] and not adds:
                clear_row(dwx.reshape(-1))
                clear_row(db)
                if HAS_PRODUCT:
                    clear_row(flat_dwh)
                if IS_APART:
                    clear_row(dbhh)
                if UNITS:
                    clear_row(dunits.reshape(-1))
        mode, goal = ADD_TO if adds else OVERWRITE, meet(team, goal)
        for k in range(blocks.size - 2, -1, -1):
            t_first, t_last = blocks[k], blocks[k + 1]
            rows = offsets[t_last] - offsets[t_first]
            if not rows:
                continue
            slot = ZERO
            begin, end = share(rows, member, team)
            if ids is None:
                gather_steps(t_first, t_last, begin, end, offsets, order, xs, x_block)
            elif k < intact:
                gather_words(t_first, t_last, begin, end, offsets, order, ids, words, x_block, ZERO)
            gather_states_before(t_first, t_last, begin, end, offsets, order, resets, states, h_block)
            if HAS_TAPE:
                slot = slot_of_block(k, x_block, tape)
                if k < intact:
                    goal = remake_block(
                        team, member, goal, t_first, t_last, slot, k, given, b, bhh, units, offsets, order, resets,
                        states, starts, x_block, h_block, tape, packed_wx, packed_wh, packed_wlate, carry, operand,
                        depth,
                    )  # fmt: skip
            goal = meet(team, goal)
            i_block, i_end, j_first, j_last = own_part(t_first, t_last, width, offsets, team, member)
            for t in range(t_last - 1, t_first - 1, -1):
                here, count = offsets[t] - offsets[t_first], offsets[t + 1] - offsets[t]
                i_first, i_last = min(i_block, count), min(i_end, count)
                if OTHERS:
                    others, others_step = flat_starts, starts.shape[2]
                    others_first = k * batch * others_step
                    if t > t_first:
                        others, others_step = flat_tape, tape_row
                        others_first = (slot + offsets[t - 1] - offsets[t_first]) * tape_row + FIRST_OTHER * width
                    if resets.size:
                        source = (others, others_first, others_step, OTHERS * width)
                        masked_rows(t, i_first, i_last, order, resets, source, kept)
                        others, others_first, others_step = flat_kept, ZERO, kept.shape[1]
                place, c = (here + i_first) * dt_row, (flat_d, i_first * d_row, d_row, panel)
                for part in range(2 if IS_AGAIN else 1):
                    if IS_AGAIN and part:
                        if team[BY_UNITS]:
                            goal = meet(team, goal)
                        a = (flat_dts, place + PLAIN * width, dt_row, ONE)
                        d = (flat_operand, i_first * row, row, panel)
                        recurrent_product(
                            team, member, i_last - i_first, LATE * width, width, ONE, a, w_late, d, d, OVERWRITE
                        )
                    for i in range(i_first, i_last):
                        here_now = order[i] * steps + t
                        places = (
                            (flat_tape, (slot + here + i) * tape_row + j_first, width),
                            (flat_h, (here + i) * row + j_first, width),
                            (others, others_first + i * others_step + j_first, width),
                            (flat_units, j_first, width),
                            (flat_given, here_now * given_row + j_first, width),
                            (flat_states, (batch + offsets[t] + i) * row + j_first, width),
                            (flat_dhs, here_now * width + j_first, width),
                            (flat_d, i * d_row + j_first, width),
                            (flat_dts, (here + i) * dt_row + j_first, width),
                            (flat_dgiven, here_now * dgiven_row + j_first, width),
                            (flat_operand, i * row + j_first, width),
                        )
                        if IS_AGAIN and part:
                            second_pass(j_last - j_first, places)
                        else:
                            first_pass(j_last - j_first, places)
                if HAS_PRODUCT and team[BY_UNITS]:
                    goal = meet(team, goal)
                if IS_APART:
                    a = (flat_dts, place + cols, dt_row, ONE)
                    how = FROM_START if PASSES else OVERWRITE
                    recurrent_product(team, member, i_last - i_first, LATE * width, width, ONE, a, w_late, c, c, how)
                if PLAIN:
                    a = (flat_dts, place, dt_row, ONE)
                    how = FROM_START if PASSES or IS_APART else OVERWRITE
                    recurrent_product(team, member, i_last - i_first, PLAIN * width, width, ONE, a, w_h, c, c, how)
                clear_resets(t, i_first, i_last, order, resets, dstates)
            goal = meet(team, goal)
            flat_dts[flat_dts.size - 1] = 1
            h = (flat_h, ZERO, row, ONE)
            if PLAIN:
                d, c = last_first(dts, rows, ZERO), (flat_dwh, ZERO, cols, panel)
                weight_gradient(team, member, rows, width, PLAIN * width, h, d, c, mode)
            if LATE:
                a = h if IS_APART else (flat_dts, cols, dt_row, ONE)
                d, c = last_first(dts, rows, LATE_GRADIENT * width), (flat_dwh, PLAIN * width, cols, panel)
                weight_gradient(team, member, rows, width, LATE * width, a, d, c, mode)
            bias_gradient(team, member, rows, cols, last_first(dts, rows, ZERO), db, mode)
            if IS_APART:
                bias_gradient(team, member, rows, LATE * width, last_first(dts, rows, cols), dbhh, mode)
            if UNITS:
                d = last_first(dts, rows, FIRST_UNIT * width)
                bias_gradient(team, member, rows, UNITS * width, d, dunits.reshape(-1), mode)
            block = (t_first, t_last, offsets, order)
            if ids is None:
                goal = inputs_backward(team, member, goal, block, cols, x_block, dts, packed_x, dxs, dwx, mode)
            else:
                goal = words_backward(
                    team, member, goal, block, cols, ids, words, dts, sums, packed_x, dwx, dwords, mode
                )
            goal = meet(team, goal)
            mode = ADD_TO
        if member == 0:
            clear_ends(offsets, order, dxs)
            if HAS_WANTED:
                clear_ends(offsets, order, dgiven)
            for s in range(OTHERS + 1):
                scatter_state(order, dstates, s * width, dstates_before[s])
        end_call(team, member, goal)
        restore_mode(mode_before)

    return backward


def _step(schedule: Schedule) -> Any:
    cell = schedule.cell
    GATES, PLAIN, LATE = np.int64(len(cell.gates)), np.int64(cell.plain), np.int64(cell.late)
    IS_APART, IS_AGAIN = bool(cell.apart), bool(cell.again)
    IN_PLACE, HAS_TAPE = schedule.in_place, not schedule.in_place
    first_pass, second_pass = row_pass(schedule.forward[0]), row_pass(schedule.forward[1])
    COLUMNS = np.int64(schedule.columns)
    HAS_UNITS, HAS_GIVEN = bool(cell.units), bool(cell.given)

    @kernel_of(cell.fingerprint)
    def step(x, states, wx, wh, b, more, scratch, out):
        """One step with the bits of forward, its weights read where they lie; out = h.

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
            copy_row(b, sums[:cols])
            add_product(x[n], wx, 0, sums[:cols])
            if PLAIN:
                add_product(states[0, n], wh, 0, sums[: PLAIN * width])
            if IS_APART:
                copy_row(more[1], sums[cols : cols + LATE * width])
                add_product(states[0, n], wh, PLAIN * width, sums[cols : cols + LATE * width])
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
                add_product(operand[:width], wh, PLAIN * width, sums[PLAIN * width : cols])
                second_pass(width, places)
        restore_mode(mode_before)

    return step
