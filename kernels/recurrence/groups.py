"""Gradients of parameters by groups of sequences, added by a pairwise tree.

The gradient of a group has the bits of a backward pass over the sequences of this group alone: the same sums
in the same order, on the group's own time grid. Groups are added in pairs, then pairs of pairs, and so on:
((0 + 1) + (2 + 3)) + ... . So the sum does not depend on which groups are computed here and which by other
processes. The gradients of pre-activations come from the backward pass over all sequences at once.

Partial sums lie on a stack. Level 0 is the result, the other levels are in `partial`. While group g is
computed, the stack has one level for each bit that is set in g; log2(groups) levels in `partial` are enough.
The odd group of a pair is added to the even one as it is computed, if it has one block of steps.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._jit import inline, kernel, kernel_of
from ..cell.schedule import Schedule
from ..codegen.denormals import flush_denormals, restore_mode
from ..codegen.vectors import clear_span, copy_span
from ..product.gemm import packing
from ..product.tile import ADD_TO, OVERWRITE, PANEL_BYTES
from ..team.team import begin_call, end_call, meet
from .inputs import inputs_of
from .operands import AGAIN, GRADIENTS, INPUTS, LATE, STATES, operands_of
from .sequence import bias_gradient, gather_steps, last_first, state_rows_before, weight_gradient
from .shares import share

# The columns of a term: two operands as in `operands.py`, or ONES and the first column of a sum over rows;
# the number of columns; the target, the place in it and its row. Then the targets.
ONES = -1
OPERAND, OF, COLUMNS, TARGET, PLACE, ROW = range(6)
WX, WH, B, BHH, UNITS, WORDS = range(6)


def terms_of(schedule: Schedule, depth: int, width: int, transposed: bool) -> np.ndarray:
    """The terms of a cell's gradient, whose columns are named above."""
    cell = schedule.cell
    cols, plain, late = len(cell.gates) * width, cell.plain * width, cell.late * width
    terms = [(INPUTS, GRADIENTS, cols, WX, 0, depth if transposed else cols)]
    row = width if transposed else cols
    if plain:
        terms.append((STATES, GRADIENTS, plain, WH, 0, row))
    if late:
        second = STATES if cell.apart else AGAIN
        terms.append((second, LATE, late, WH, plain * (width if transposed else 1), row))
    terms.append((ONES, 0, cols, B, 0, cols))
    if cell.apart:
        terms.append((ONES, cols, late, BHH, 0, late))
    if cell.trained:
        units = len(cell.trained) * width
        terms.append((ONES, schedule.unit_gradients * width, units, UNITS, 0, units))
    return np.array(terms, np.int64)


@inline
def _target(number, level, results, regions, partial):
    """The memory of a target at a level of the stack.

    results  flat arrays of the six targets   read or overwritten
    regions  (7,)                             where each target begins in a level of `partial`, and the end
    """
    dwx, dwh, db, dbhh, dunits, dwords = results
    array = dwx
    if level > 0:
        first = (level - 1) * regions[6]
        array = partial[first + regions[number] : first + regions[number + 1]]
    elif number == WH:
        array = dwh
    elif number == B:
        array = db
    elif number == BHH:
        array = dbhh
    elif number == UNITS:
        array = dunits
    elif number == WORDS:
        array = dwords
    return array


@inline
def _add_level(team, member, level, results, regions, partial):
    """The level below += this level; each member adds its elements."""
    for number in range(6):
        below = _target(number, level - 1, results, regions, partial)
        above = _target(number, level, results, regions, partial)
        begin, end = share(above.size, member, team)
        total, term = below[begin:end], above[begin:end]
        for i in range(total.size):
            total[i] += term[i]


@inline
def _gather_rows(rows, before, order, resets, packed, block):
    """block[begin : end] = the rows of a group in steps t_first .. t_last of a packed array.

    rows     (t_first, t_last, begin, end, starts, places, offsets)
    starts   (T+1,)      first row of each step in the group
    places   (n,)        places of the group's sequences among the batch's, longest first
    before   bool        the rows of the states before each step, zero after a reset
    packed   (.., row)   read
    block    (.., row)   rows overwritten
    """
    t_first, t_last, begin, end, starts, places, offsets = rows
    row, count = block.shape[1], places.size
    adjoin = count > 0 and places[count - 1] - places[0] == count - 1
    for t in range(t_first, t_last):
        here = starts[t] - starts[t_first]
        first = state_rows_before(t, order.size, offsets) if before else offsets[t]
        r, last = max(begin, here), min(end, starts[t + 1] - starts[t_first])
        if adjoin and r < last:
            copy_span(packed, (first + places[r - here]) * row, block, r * row, (last - r) * row)
            if not (before and resets.size):
                r = last
        while r < last:
            place = places[r - here]
            if before and resets.size and resets[order[place], t]:
                clear_span(block, r * row, row)
            elif not adjoin:
                copy_span(packed, (first + place) * row, block, r * row, row)
            r += 1


@kernel
def add_gradients(team, member, total, term):
    """total += term; each member adds its elements.

    team, member       the threads at work, and which this is: see team.py
    total         (n,)  accumulated
    term          (n,)  read
    """
    mode_before = flush_denormals()
    goal = begin_call(team, member)
    begin, end = share(total.size, member, team)
    sums, terms = total[begin:end], term[begin:end]
    for i in range(sums.size):
        sums[i] += terms[i]
    end_call(team, member, goal)
    restore_mode(mode_before)


def _group_gradients(rounds: bool) -> Any:
    """The kernel; `rounds` says that operands of products are rounded to bfloat16."""
    elements, words_backward = packing(rounds).elements, inputs_of(rounds).words_backward
    prepare, operand = operands_of(rounds)

    @inline
    def add_terms(
        team, member, rows, ids, transposed, widths, terms, blocks, pairs, panels, level, targets, mode
    ):
        """The terms of a block of steps, overwritten or accumulated at a level of the stack.

        targets  (results, regions, partial)
        """
        results, regions, partial = targets
        deep, d_block = elements(rows), blocks[2]
        panel = PANEL_BYTES // d_block.itemsize
        for index in range(0 if ids is None else 1, terms.shape[0]):
            term = terms[index]
            target = _target(term[TARGET], level, results, regions, partial)
            if term[OPERAND] == ONES:
                ones = last_first(d_block, rows, term[OF])
                bias_gradient(team, member, rows, term[COLUMNS], ones, target, mode)
            else:
                a = operand(term[OPERAND], transposed, rows, widths, blocks, pairs, panels)
                d = operand(term[OF], transposed, rows, widths, blocks, pairs, panels)
                c = (target, term[PLACE], term[ROW], panel)
                depth, cols = widths[term[OPERAND]], term[COLUMNS]
                weight_gradient(team, member, transposed, deep, depth, cols, a, d, c, mode)

    @kernel_of("bfloat16" if rounds else "full")
    def group_gradients(
        team, member, xs, ids, words, states, dts, offsets, order, resets, transposed, bounds, places, orders,
        sequence_rows, step_rows, starts, grids, counts, widths, terms, regions, dwx, dwh, db, dbhh, dunits,
        dwords, partial, packed_x, x_block, h_block, d_block, sums, x_pairs, h_pairs, d_pairs, panels,
        columns,
    ):  # fmt: skip
        """The gradients of a recurrent layer's parameters, as the tree sum over groups of sequences.

        team, member                              the threads at work, and which this is: see team.py
        xs             (.., .., D)                read, as in cell_backward
        ids            (N, T) or None             read, int64: x_t = words[ids[:, t]]; xs is not read
        words          (V, D)                     read if there are ids
        states         (N + rows, row)            read, as cell_forward left it
        dts            (rows + 1, gradient row)   read, as cell_backward left it for all steps
        offsets, order, resets                    read, as in cell_backward
        transposed     bool                       dwx and dwh are stored as (G H, D) and (G H, H)
        bounds         (groups + 1,)              read, where each group begins in the next three arrays
        places         (N,)                       read, each group's places in `order`, longest sequence first
        orders         (N,)                       read, `order` at these places
        sequence_rows  (N,)                       read, the caller's rows of these sequences
        step_rows      (T,)                       read, as in cell_backward
        starts         (groups, T + 1)            read, the first row of each step in the group
        grids          (groups, most + 1)         read, the time grid of each group
        counts         (groups,)                  read, the blocks of each time grid
        widths         (6,)                       read, by widths_of; no INPUTS if there are ids
        terms          (terms, 6)                 read, by terms_of
        regions        (7,)                       read, where each target begins in a level of `partial`
        dwx, dwh, db   flat                       overwritten, in the layout of the parameters; without
                                                  elements if the cell has no such array
        dbhh, dunits   flat                       likewise
        dwords         (V D,)                     overwritten if there are ids
        partial        (levels regions[6],)       scratch, one level for each doubling of the groups
        packed_x       (packed_size(G H, D),)     read if there are ids, Wx^T in panels
        x_block        (block rows + 1, x row)    scratch, block rows = those of the largest group
        h_block        (block rows + 1, row)      scratch
        d_block        (block rows + 1, gradient row)   scratch
        sums           (V + 1, gradient row)      scratch if there are ids
        x_pairs, h_pairs, d_pairs   (block rows / 2 + 1, ..) or None   int32, scratch, as in cell_backward
        panels         by panels_shape            scratch
        columns        (V, ..) or None            int32, scratch if there are ids, likewise
        """
        mode_before = flush_denormals()
        goal = begin_call(team, member)
        results, cols, flat = (dwx, dwh, db, dbhh, dunits, dwords), db.size, d_block.reshape(-1)
        flat[flat.size - 1] = 1
        blocks_of_steps, pairs = (x_block, h_block, d_block), (x_pairs, h_pairs, d_pairs)
        top = 0  # the level of the next group
        for group in range(counts.size):
            first, last = bounds[group], bounds[group + 1]
            begins, own_order = starts[group], orders[first:last]
            own_places, own_rows = places[first:last], sequence_rows[first:last]
            blocks = 0
            for k in range(counts[group]):
                blocks += begins[grids[group, k + 1]] > begins[grids[group, k]]
            joins = group % 2 == 1 and blocks == 1
            level, mode = top - 1 if joins else top, ADD_TO if joins else OVERWRITE
            if not blocks and member == 0:
                for number in range(6):
                    array = _target(number, level, results, regions, partial)
                    clear_span(array, 0, array.size)
            for k in range(counts[group] - 1, -1, -1):
                t_first, t_last = grids[group, k], grids[group, k + 1]
                rows = begins[t_last] - begins[t_first]
                if not rows:
                    continue
                begin, end = share(rows, member, team)
                if ids is None:
                    gather_steps(t_first, t_last, begin, end, begins, own_rows, step_rows, xs, x_block)
                rows_here = t_first, t_last, begin, end, begins, own_places, offsets
                _gather_rows(rows_here, True, order, resets, states, h_block)
                _gather_rows(rows_here, False, order, resets, dts, d_block)
                goal = meet(team, goal)
                goal = prepare(team, member, goal, transposed, rows, widths, blocks_of_steps, pairs, panels)
                targets = results, regions, partial
                add_terms(
                    team, member, rows, ids, transposed, widths, terms, blocks_of_steps, pairs, panels, level,
                    targets, mode,
                )  # fmt: skip
                if ids is not None:
                    in_group = t_first, t_last, begins, own_order
                    goal = words_backward(
                        team, member, goal, in_group, cols, ids, words, d_block, sums, packed_x,
                        _target(WX, level, results, regions, partial),
                        _target(WORDS, level, results, regions, partial), mode, x_pairs, d_pairs, columns,
                    )  # fmt: skip
                goal, mode = meet(team, goal), ADD_TO
            top = level + 1
            count = group + 1
            if joins:
                count //= 2
            goal = meet(team, goal)
            while count % 2 == 0:
                top -= 1
                _add_level(team, member, top, results, regions, partial)
                goal, count = meet(team, goal), count // 2
        end_call(team, member, goal)
        restore_mode(mode_before)

    return group_gradients


group_gradients, rounded_group_gradients = (_group_gradients(rounds) for rounds in (False, True))
