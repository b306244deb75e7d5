"""Backpropagation through time for any cell, block by block of the time grid, last block first.

Every step needs a row of the tape. Rows are kept in slots of one block each: block k of the time grid is in
slot k % slots. If there are fewer slots than blocks, overwritten blocks are recomputed from h, which is kept
for all steps, and from the other states before the block. With h known, pre-activations are products over
whole blocks, and only the elementwise passes go step by step. Recomputed blocks have the same bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._jit import inline, kernel_of
from ..cell.definition import Cell
from ..cell.passes import row_pass
from ..cell.schedule import Schedule
from ..codegen.denormals import flush_denormals, restore_mode
from ..product.bfloat16 import pairs_of
from ..product.gemm import MANY, ONE, ZERO, packing
from ..product.tile import ADD_TO, FROM_START, OVERWRITE, PANEL_BYTES
from ..team.team import BY_UNITS, MEMBERS, begin_call, end_call, meet
from .block_gradients import block_gradients
from .inputs import gather_words, inputs_of
from .recompute import recompute_of
from .sequence import (
    clear_ends,
    clear_resets,
    gather_state,
    gather_steps,
    masked_rows,
    scatter_state,
    slot_of_block,
    states_before,
    strides_of,
)
from .shares import own_part, recurrent_operands, recurrent_product, share
from .strided import input_gradients_of


def content_of(cell: Cell, rounds: bool) -> str:
    """What distinguishes the functions of a cell from others."""
    return f"{cell.fingerprint} bfloat16" if rounds else cell.fingerprint


def backward_of(schedule: Schedule, rounds: bool) -> Any:
    """The compiled backward function of a cell; `rounds` as in `time_loop`."""
    cell = schedule.cell
    GATES, PLAIN, LATE = np.int64(len(cell.gates)), np.int64(cell.plain), np.int64(cell.late)
    IS_APART, IS_AGAIN, HAS_PRODUCT = bool(cell.apart), bool(cell.again), cell.product
    OTHERS, HAS_TAPE, PASSES = len(cell.states) - 1, not schedule.in_place, schedule.passes
    HAS_UNITS, HAS_GIVEN, HAS_WANTED = bool(cell.units), bool(cell.given), bool(cell.wanted)
    FIRST_OTHER = schedule.others
    first_pass, second_pass = row_pass(schedule.backward[0]), row_pass(schedule.backward[1])
    recompute_block = recompute_of(schedule, rounds)
    gradients_of_block, clear_gradients = block_gradients(schedule, rounds)
    pack_weights, _, elements = packing(rounds)
    recurrent_operand, rows_of_operand = recurrent_operands(rounds)
    inputs_backward, words_backward = input_gradients_of(rounds), inputs_of(rounds).words_backward

    @inline
    def weights_of(
        team, member, intact, wx, wh, transposed, cols, wants_inputs, packed_x, packed_h, packed_late,
        packed_wx, packed_wh, packed_wlate,
    ):  # fmt: skip
        """The operands of the products with Wh^T; also packs Wx^T and the weights for recomputed blocks."""
        width, members, flat_wx, again = cols // GATES, team[MEMBERS], wx.reshape(-1), intact > 0
        depth = wx.size // cols
        down, across = strides_of(transposed, depth, cols)
        if wants_inputs:
            pack_weights(member, members, cols, depth, (flat_wx, ZERO, across, down), packed_x)
        w_h = w_late = (flat_wx, ZERO, ZERO, ZERO)
        if HAS_TAPE and again:
            pack_weights(member, members, depth, cols, (flat_wx, ZERO, down, across), packed_wx)
        if PLAIN or LATE:
            flat_wh = wh.reshape(-1)
            down, across = strides_of(transposed, width, cols)
            late = PLAIN * width * across
        if PLAIN:
            w = (flat_wh, ZERO, across, down)
            w_h = recurrent_operand(MANY, team, member, PLAIN * width, width, ONE, w, packed_h)
            if HAS_TAPE and again:
                w = (flat_wh, ZERO, down, across)
                pack_weights(member, members, width, PLAIN * width, w, packed_wh)
        if LATE:
            w = (flat_wh, late, across, down)
            w_late = recurrent_operand(MANY, team, member, LATE * width, width, ONE, w, packed_late)
            if HAS_TAPE and again:
                w = (flat_wh, late, down, across)
                pack_weights(member, members, width, LATE * width, w, packed_wlate)
        return w_h, w_late

    @inline
    def backward_step(
        team, member, goal, step, part, weights, places, h_before, others, sequence_rows, step_rows, columns
    ):
        """The passes and products of one step back. Returns the goal after its meetings.

        step    (t, first row in the block, first row of the tape, of the states and of the gradients)
        part    sequences and units (i_first, i_last, j_first, j_last)
        h_before  (block rows.., row)   read, h before each step
        others  (array, first, row)   the other states before the step
        places  (array, row) of: tape, gradients, dstates, outputs and their width, given, dgiven; flat
                arrays: states, units, operand
        columns  (block rows, ..) or None   the gradients in pairs, overwritten
        """
        t, here, on_tape, rows, there = step
        i_first, i_last, j_first, j_last = part
        w_h, w_late = weights
        tape, states, dts, d, units, dhs, given, dgiven, operand = places
        width, row, d_row, flat_h = dhs[1], h_before.shape[1], d[1], h_before.reshape(-1)
        own, panel = i_last - i_first, PANEL_BYTES // dts[0].itemsize
        place, c = there * dts[1], (d[0], i_first * d_row, d_row, panel)
        for part_of_step in range(2 if IS_AGAIN else 1):
            if IS_AGAIN and part_of_step:
                if team[BY_UNITS]:
                    goal = meet(team, goal)
                a, o = (dts[0], place + PLAIN * width, dts[1]), (operand, i_first * row, row, panel)
                a, deep, goal = rows_of_operand(
                    team,
                    member,
                    goal,
                    columns,
                    i_first,
                    i_last,
                    LATE * width,
                    a,
                    here,
                    pairs_of(PLAIN * width),
                )
                recurrent_product(team, member, own, deep, width, ONE, a, w_late, o, o, OVERWRITE)
            for i in range(i_first, i_last):
                at = sequence_rows[i] + step_rows[t]
                of_row = (
                    (tape[0], (on_tape + i) * tape[1] + j_first, width),
                    (flat_h, (here + i) * row + j_first, width),
                    (others[0], others[1] + i * others[2] + j_first, width),
                    (units, j_first, width),
                    (given[0], at * given[1] + j_first, width),
                    (states, (rows + i) * row + j_first, width),
                    (dhs[0], at * width + j_first, width),
                    (d[0], i * d_row + j_first, width),
                    (dts[0], (there + i) * dts[1] + j_first, width),
                    (dgiven[0], at * dgiven[1] + j_first, width),
                    (operand, i * row + j_first, width),
                )
                if IS_AGAIN and part_of_step:
                    second_pass(j_last - j_first, of_row)
                else:
                    first_pass(j_last - j_first, of_row)
        if HAS_PRODUCT and team[BY_UNITS]:
            goal = meet(team, goal)
        if IS_APART:
            a, how = (dts[0], place + GATES * width, dts[1]), FROM_START if PASSES else OVERWRITE
            a, deep, goal = rows_of_operand(
                team, member, goal, columns, i_first, i_last, LATE * width, a, here, pairs_of(GATES * width)
            )
            recurrent_product(team, member, own, deep, width, ONE, a, w_late, c, c, how)
        if PLAIN:
            a, how = (dts[0], place, dts[1]), FROM_START if PASSES or IS_APART else OVERWRITE
            wide = PLAIN * width
            if IS_APART and width % 2 == 0:
                wide = GATES * width  # all gates, for inputs_backward
            a, _, goal = rows_of_operand(team, member, goal, columns, i_first, i_last, wide, a, here, ZERO)
            deep = elements(PLAIN * width)
            recurrent_product(team, member, own, deep, width, ONE, a, w_h, c, c, how)
        return goal

    @inline
    def others_before(t, t_first, k, slot, part, offsets, order, resets, memory, kept, width):
        """The other states before a step of block k, as (array, first, row): from the tape of the step
        before, or from the states before the block; zero after a reset. Not read if there are none.

        memory  (array, row) of starts, tape and kept
        """
        starts, tape, masked = memory
        others = (starts[0], k * order.size * starts[1], starts[1])
        if OTHERS and t > t_first:
            before = slot + offsets[t - 1] - offsets[t_first]
            others = (tape[0], before * tape[1] + FIRST_OTHER * width, tape[1])
        if OTHERS and resets.size:
            masked_rows(t, part[0], part[1], order, resets, (*others, OTHERS * width), kept)
            others = (masked[0], ZERO, masked[1])
        return others

    @inline
    def places_of(tape, states, dts, dstates, units, dhs, given, dgiven, operand):
        """The arrays of backward_step. Arrays that the cell lacks are replaced by others and not read."""
        none, width = (states.reshape(-1), states.shape[1]), dhs.shape[2]
        flat_tape, flat_units, flat_given, flat_dgiven, flat_operand = none, none[0], none, none, none[0]
        if HAS_TAPE:
            flat_tape = (tape.reshape(-1), tape.shape[1])
        if HAS_UNITS:
            flat_units = units.reshape(-1)
        if HAS_GIVEN:
            flat_given = (given.reshape(-1), given.shape[2])
        if HAS_WANTED:
            flat_dgiven = (dgiven.reshape(-1), dgiven.shape[2])
        if IS_AGAIN:
            flat_operand = operand.reshape(-1)
        gradients, d = (dts.reshape(-1), dts.shape[1]), (dstates.reshape(-1), dstates.shape[1])
        outputs = (dhs.reshape(-1), width)
        flat_states = states.reshape(-1)
        return (
            flat_tape,
            flat_states,
            gradients,
            d,
            flat_units,
            outputs,
            flat_given,
            flat_dgiven,
            flat_operand,
        )

    @inline
    def memory_of(starts, tape, kept):
        """The arrays of others_before; the tape in place of those that the cell lacks."""
        memory = (tape, tape, tape)
        if OTHERS:
            memory = ((starts.reshape(-1), starts.shape[2]), tape, (kept.reshape(-1), kept.shape[1]))
        return memory

    @kernel_of(content_of(cell, rounds))
    def cell_backward(
        team, member, xs, ids, words, given, states, tape, starts, intact, dhs, dstates_next, wx, wh, b, bhh,
        units, transposed, offsets, order, blocks, resets, sequence_rows, step_rows, adds, apart, dxs, dwords,
        dgiven, dstates_before, dwx, dwh, db, dbhh, dunits, packed_x, packed_h, packed_late, packed_wx,
        packed_wh, packed_wlate, dts, dstates, x_block, sums, h_block, kept, carry, operand, x_columns,
        h_columns, d_columns, x_pairs, h_pairs, d_pairs, widths, panels,
    ):  # fmt: skip
        """Backpropagation through time: with dt the gradient of a step's pre-activations, dh_{t-1} = dt Wh^T
        plus the gradient through the formula, dx_t = dt Wx^T, dWx = sum x_t^T dt, dWh = sum h_{t-1}^T dt,
        db = sum dt.

        team, member                                   as in cell_forward
        xs              (.., .., D)                    read, rows as in cell_forward
        ids             (N, T) or None                 read, int64: x_t = words[ids[:, t]]; xs is not read
        words           (V, D)                         read if there are ids
        given           (.., .., K H)                  read, rows as of xs
        states          (N + rows, row)                read, as cell_forward left it
        tape            (slots block rows, tape row)   read; overwritten by recomputed blocks
        starts          (blocks, N, others row)        read
        intact          int                            blocks from this one on are in their slots
        dhs             (.., .., H)                    read, rows as of xs, gradients of the outputs
        dstates_next    (S, N, H)                      read, the gradient of the states after the last step
        wx, wh, b, bhh, units, transposed              read, as in cell_forward
        offsets, order, blocks, resets, sequence_rows, step_rows   read, as in cell_forward
        adds            bool                           the gradients of the parameters are accumulated
        apart           bool                           only dts is left, for the gradients of the parameters
                                                       and of the words, which are then not written
        dxs             (.., .., D)                    overwritten, rows as of xs; zero after the end of a
                                                       sequence; no elements if it is not wanted
        dwords          (V, D)                         overwritten if there are ids; accumulated if adds
        dgiven          (.., .., W H)                  overwritten, rows as of xs, for the given arrays that
                                                       have a gradient
        dstates_before  (S, N, H)                      overwritten, the gradient of `before`
        dwx, dwh, db    (D, G H), (H, G H), (G H,)     overwritten; accumulated if adds; the first two have
                                                       the layout of wx and wh
        dbhh            (A H,)                         likewise
        dunits          (P, H)                         likewise, for the units that have a gradient
        packed_x        (packed_size(G H, D),)         scratch
        packed_h        (recurrent_packed_size(plain H, H, 1, members),)  scratch
        packed_late     (recurrent_packed_size(late H, H, 1, members),)   scratch
        packed_wx       (packed_size(D, G H),) or (0,)       scratch, needed if a block is recomputed
        packed_wh       (packed_size(H, plain H),) or (0,)   scratch, likewise
        packed_wlate    (packed_size(H, late H),) or (0,)    scratch, likewise
        dts             (block rows + 1, gradient row) scratch, block rows = block_steps(N) N; if apart, the
                                                       rows of all steps, overwritten
        dstates         (N, S H padded)                scratch
        x_block         (block rows + 1, x row)        scratch
        sums            (V + 1, gradient row)          scratch if there are ids
        h_block         (block rows + 1, row)          scratch
        kept, carry     (N, others row)                scratch
        operand         (block rows, row)              scratch if the cell has a second product
        x_columns, h_columns, d_columns   (block rows, ..) or None        int32, scratch: see cell_forward
        x_pairs, h_pairs, d_pairs   (block rows / 2 + 1, ..) or None      int32, scratch, likewise; with the
                                                       row lengths of x_block, h_block and dts
        widths          (6,)                           read, by widths_of
        panels          by panels_shape                scratch
        """
        mode_before = flush_denormals()
        goal = begin_call(team, member)
        batch, width = order.size, dhs.shape[2]
        places = places_of(tape, states, dts, dstates, units, dhs, given, dgiven, operand)
        memory = memory_of(starts, places[0], kept)
        weights = weights_of(
            team, member, intact, wx, wh, transposed, b.size, ids is not None or dxs.size > 0, packed_x,
            packed_h, packed_late, packed_wx, packed_wh, packed_wlate,
        )  # fmt: skip
        if member == 0:
            for s in range(OTHERS + 1):
                gather_state(order, dstates_next, s, width, dstates, s * width)
            if not offsets[offsets.size - 1] and not adds and not apart:
                clear_gradients(dwx, dwh, db, dbhh, dunits)
        mode, goal = ADD_TO if adds else OVERWRITE, meet(team, goal)
        for k in range(blocks.size - 2, -1, -1):
            t_first, t_last = blocks[k], blocks[k + 1]
            rows, slot = offsets[t_last] - offsets[t_first], ZERO
            if not rows:
                continue
            (begin, end), first_dt = share(rows, member, team), offsets[t_first] if apart else ZERO
            if ids is None:
                if k < intact or not apart:
                    gather_steps(t_first, t_last, begin, end, offsets, sequence_rows, step_rows, xs, x_block)
            elif k < intact:
                gather_words(t_first, t_last, begin, end, offsets, order, ids, words, x_block, ZERO)
            h_before = states_before(t_first, t_last, begin, end, offsets, order, resets, states, h_block)
            if HAS_TAPE:
                slot = slot_of_block(k, x_block, tape)
                if k < intact:
                    goal = recompute_block(
                        team, member, goal, t_first, t_last, slot, k, given, b, bhh, units, offsets, order,
                        resets, sequence_rows, step_rows, states, starts, x_block, h_before, tape, packed_wx,
                        packed_wh, packed_wlate, carry, operand, wx.size // b.size, x_columns, h_columns,
                    )  # fmt: skip
            goal = meet(team, goal)
            i_block, i_end, j_first, j_last = own_part(t_first, t_last, width, offsets, team, member)
            for t in range(t_last - 1, t_first - 1, -1):
                here, count = offsets[t] - offsets[t_first], offsets[t + 1] - offsets[t]
                part = (min(i_block, count), min(i_end, count), j_first, j_last)
                others = others_before(t, t_first, k, slot, part, offsets, order, resets, memory, kept, width)
                goal = backward_step(
                    team, member, goal, (t, here, slot + here, batch + offsets[t], first_dt + here), part,
                    weights, places, h_before, others, sequence_rows, step_rows, d_columns,
                )  # fmt: skip
                clear_resets(t, part[0], part[1], order, resets, dstates)
            goal = meet(team, goal)
            if not apart:
                goal = gradients_of_block(
                    team, member, goal, transposed, rows, ids, widths, (x_block, h_before, dts),
                    (x_pairs, h_pairs, d_pairs), panels, (dwx, dwh, db, dbhh, dunits), mode,
                )  # fmt: skip
            if ids is None:
                goal = inputs_backward(
                    team, member, goal, (t_first, t_last, offsets, sequence_rows, step_rows), b.size, x_block,
                    (dts, first_dt), packed_x, dxs, d_columns,
                    HAS_PRODUCT and (PLAIN == GATES or width % 2 == 0),
                )  # fmt: skip
            elif not apart:
                goal = words_backward(
                    team, member, goal, (t_first, t_last, offsets, order), b.size, ids, words, dts, sums,
                    packed_x, dwx, dwords, mode, x_pairs, d_pairs, d_columns,
                )  # fmt: skip
            goal, mode = meet(team, goal), ADD_TO
        if member == 0:
            clear_ends(offsets, sequence_rows, step_rows, dxs)
            if HAS_WANTED:
                clear_ends(offsets, sequence_rows, step_rows, dgiven)
            for s in range(OTHERS + 1):
                scatter_state(order, dstates, s * width, dstates_before, s, width)
        end_call(team, member, goal)
        restore_mode(mode_before)

    return cell_backward
