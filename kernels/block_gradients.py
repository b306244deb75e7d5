"""The gradients of a layer's parameters over one block of the time grid; see `backpropagation.py`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ._jit import spliced
from .bfloat16 import NO_FACTOR, NO_TERM, pairs_of, rows_in_pairs
from .gemm import ONE, ZERO, packing
from .inputs import weights_of_inputs
from .schedule import Schedule
from .sequence import bias_gradient, last_first, pairs_first, weight_gradient
from .shares import share
from .strided import weights_by_columns
from .team import meet
from .tile import PANEL_BYTES
from .vectors import clear_span

X, H, D = range(3)  # a block's inputs, states before the steps, and gradients of pre-activations


class BlockGradients(NamedTuple):
    """The functions of `block_gradients`."""

    of_block: Any
    clear: Any


def block_gradients(schedule: Schedule, rounds: bool) -> BlockGradients:
    """The functions for a cell; `rounds` says that operands of products are rounded to bfloat16."""
    cell, ROUNDS, elements = schedule.cell, bool(rounds), packing(rounds).elements
    GATES, PLAIN, LATE = np.int64(len(cell.gates)), np.int64(cell.plain), np.int64(cell.late)
    IS_APART, IS_AGAIN, HAS_PRODUCT = bool(cell.apart), bool(cell.again), cell.product
    UNITS, FIRST_UNIT = len(cell.trained), schedule.unit_gradients
    LATE_GRADIENT = GATES if IS_APART else PLAIN  # the column of the gradient through the second product

    @spliced
    def operands_in_pairs(team, member, goal, rows, ids, cols, blocks, pairs):
        """Round the operands of a block's weight gradients, in pairs of rows. Returns the goal after a
        meeting."""
        if ROUNDS:
            x_block, h_block, dts = blocks
            x_pairs, h_pairs, d_pairs = pairs
            begin, end = share(pairs_of(rows), member, team)
            width = cols // GATES
            if ids is None:
                rows_in_pairs(begin, end, rows, x_block.shape[1], NO_FACTOR, x_block, x_pairs, ZERO)
            if HAS_PRODUCT:
                rows_in_pairs(begin, end, rows, width, NO_FACTOR, h_block, h_pairs, ZERO)
            rows_in_pairs(begin, end, rows, cols, NO_TERM, dts, d_pairs, ZERO)
            if IS_APART:
                rows_in_pairs(begin, end, rows, LATE * width, NO_TERM, dts, d_pairs, cols)
            if IS_AGAIN:
                rows_in_pairs(begin, end, rows, width, NO_FACTOR, dts, d_pairs, cols)
            goal = meet(team, goal)
        return goal

    @spliced
    def operand(rows, number, blocks, pairs, first):
        """The operand for rows of a block, last row first, or for pairs of them, from column `first` on."""
        found = last_first(blocks[number], rows, first)
        if ROUNDS:
            found = pairs_first(pairs[number], first)
        return found

    @spliced
    def gradients_of_block(team, member, goal, turned, rows, ids, blocks, pairs, results, mode):
        """A block's terms of dWx = sum x^T dt for inputs that are vectors, of dWh = sum h_before^T dt, of db,
        and of the gradients of units. Returns the goal after its meetings.

        blocks   (x_block, h_block, dts)   read
        pairs    likewise in pairs of rows, scratch
        results  (dwx, dwh, db, dbhh, dunits)
        """
        dwx, dwh, db, dbhh, dunits = results
        dts = blocks[D]
        goal = operands_in_pairs(team, member, goal, rows, ids, db.size, blocks, pairs)
        deep, cols, panel, flat = elements(rows), db.size, PANEL_BYTES // dts.itemsize, dts.reshape(-1)
        d = operand(rows, D, blocks, pairs, ZERO)
        if ids is None:
            if ROUNDS:
                x = operand(rows, X, blocks, pairs, ZERO)
                weights_of_inputs(team, member, turned, deep, cols, x, d, dwx, mode)
            else:
                weights_by_columns(team, member, turned, rows, cols, blocks[X], d, dwx, mode)
        width = cols // GATES
        flat[flat.size - 1] = 1
        dw_row = width if turned else cols
        if PLAIN:
            h, c = operand(rows, H, blocks, pairs, ZERO), (dwh.reshape(-1), ZERO, dw_row, panel)
            weight_gradient(team, member, turned, deep, width, PLAIN * width, h, d, c, mode)
        if LATE:
            a = operand(rows, H if IS_APART else D, blocks, pairs, ZERO if IS_APART else cols)
            late = operand(rows, D, blocks, pairs, LATE_GRADIENT * width)
            c = (dwh.reshape(-1), PLAIN * width * (width if turned else ONE), dw_row, panel)
            weight_gradient(team, member, turned, deep, width, LATE * width, a, late, c, mode)
        bias_gradient(team, member, rows, cols, last_first(dts, rows, ZERO), db, mode)
        if IS_APART:
            bias_gradient(team, member, rows, LATE * width, last_first(dts, rows, cols), dbhh, mode)
        if UNITS:
            of_units = last_first(dts, rows, FIRST_UNIT * width)
            bias_gradient(team, member, rows, UNITS * width, of_units, dunits.reshape(-1), mode)
        return goal

    @spliced
    def clear_gradients(dwx, dwh, db, dbhh, dunits):
        """Set all gradients to zero, since nothing was read."""
        clear_span(dwx, 0, dwx.size)
        clear_span(db, 0, db.size)
        if HAS_PRODUCT:
            clear_span(dwh, 0, dwh.size)
        if IS_APART:
            clear_span(dbhh, 0, dbhh.size)
        if UNITS:
            clear_span(dunits, 0, dunits.size)

    return BlockGradients(gradients_of_block, clear_gradients)
