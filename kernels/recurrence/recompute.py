"""Recomputation of overwritten blocks of the tape; see `backpropagation.py`."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._jit import inline
from ..cell.passes import row_pass
from ..cell.schedule import Schedule
from ..product.bfloat16 import columns_in_pairs
from ..product.gemm import ONE, ZERO, gemm, packed_view, packing
from ..product.tile import FROM_START, PANEL_BYTES
from ..team.team import meet
from .inputs import inputs_of
from .sequence import clear_resets
from .shares import copy_part, own_part, share


def recompute_of(schedule: Schedule, rounds: bool) -> Any:
    """The function that recomputes a block of the tape."""
    cell, ROUNDS = schedule.cell, bool(rounds)
    elements, input_product = packing(rounds).elements, inputs_of(rounds).product
    GATES, PLAIN, LATE = np.int64(len(cell.gates)), np.int64(cell.plain), np.int64(cell.late)
    IS_APART, IS_AGAIN, OTHERS = bool(cell.apart), bool(cell.again), len(cell.states) - 1
    HAS_UNITS, HAS_GIVEN = bool(cell.units), bool(cell.given)
    remake_first, remake_second = row_pass(schedule.recompute[0]), row_pass(schedule.recompute[1])

    @inline
    def recompute_block(
        team, member, goal, t_first, t_last, slot, k, given, b, bhh, units, offsets, order, resets,
        sequence_rows, step_rows, states, starts, x_block, h_before, tape, packed_wx, packed_wh,
        packed_wlate, carry, operand, depth, x_columns, h_columns,
    ):  # fmt: skip
        """Recompute the tape of one block in its slot. Returns the goal after a meeting in between.

        packed_wx, packed_wh, packed_wlate   read, Wx and the two parts of Wh in panels
        starts            (blocks, N, others row)   read, the other states before the block, at k
        x_block, h_before  (block rows + 1, x row or row)   read, the member's inputs and h before each step
        tape              overwritten in the slot
        carry             (N, others row)           scratch
        operand           (block rows, row)         scratch
        x_columns, h_columns   (block rows, ..) or None   scratch for x and h in pairs
        """
        batch, cols = order.size, b.size
        width = cols // GATES
        tape_row, row, panel = tape.shape[1], h_before.shape[1], PANEL_BYTES // tape.itemsize
        begin, end = share(offsets[t_last] - offsets[t_first], member, team)
        flat_tape, flat_h, flat_states = tape.reshape(-1), h_before.reshape(-1), states.reshape(-1)
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
            begin,
            end,
            depth,
            x_block,
            packed_view(packed_wx, elements(depth)),
            b,
            (flat_tape, slot * tape_row, tape_row, panel),
            x_columns,
        )
        deep, place = elements(width), (slot + begin) * tape_row
        a, rows, pair_row = (flat_h, begin * row, row, ONE), end - begin, ZERO
        if ROUNDS:
            pair_row = h_columns.shape[1]
            columns_in_pairs(begin, end, width, (flat_h, ZERO, row), h_columns, ZERO)
            a = (h_columns.reshape(-1), begin * pair_row, pair_row, ONE)
        if PLAIN:
            c = (flat_tape, place, tape_row, panel)
            gemm(rows, PLAIN * width, deep, a, packed_view(packed_wh, deep), c, c, FROM_START)
        if IS_APART:
            c, before = (flat_tape, place + cols, tape_row, panel), (bhh, ZERO, ZERO, panel)
            gemm(rows, LATE * width, deep, a, packed_view(packed_wlate, deep), before, c, FROM_START)
        j_first, j_last = ZERO, width
        if OTHERS:
            goal = meet(team, goal)
            i_block, i_end, j_first, j_last = own_part(t_first, t_last, width, offsets, team, member)
            for s in range(OTHERS):
                own = (i_block, i_end, s * width + j_first, s * width + j_last)
                copy_part(own, starts, k * batch * others_row, carry, 0, others_row)
        for part in range(2 if IS_AGAIN else 1):
            if IS_AGAIN and part:
                o = (flat_operand, begin * row, row, ONE)
                if ROUNDS:
                    columns_in_pairs(begin, end, width, (flat_operand, ZERO, row), h_columns, ZERO)
                    o = (h_columns.reshape(-1), begin * pair_row, pair_row, ONE)
                c = (flat_tape, place + PLAIN * width, tape_row, panel)
                gemm(rows, LATE * width, deep, o, packed_view(packed_wlate, deep), c, c, FROM_START)
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
                        (flat_given, (sequence_rows[i] + step_rows[t]) * given_row + j_first, width),
                        (flat_states, (batch + offsets[t] + i) * row + j_first, width),
                        (flat_states, ZERO, width),
                        (flat_operand, r * row + j_first, width),
                    )
                    if IS_AGAIN and part:
                        remake_second(j_last - j_first, places)
                    else:
                        remake_first(j_last - j_first, places)
        return goal

    return recompute_block
