"""The gradients of a layer's parameters over one block of the time grid; see `backpropagation.py`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .._jit import inline
from ..cell.schedule import Schedule
from ..codegen.vectors import clear_span
from ..product.gemm import ONE, ZERO, packing
from ..product.tile import PANEL_BYTES
from .inputs import weights_of_inputs
from .operands import AGAIN, GRADIENTS, INPUTS, LATE, STATES, operands_of
from .sequence import bias_gradient, last_first, weight_gradient
from .strided import weights_by_columns


class BlockGradients(NamedTuple):
    """The functions of `block_gradients`."""

    of_block: Any
    clear: Any


def block_gradients(schedule: Schedule, rounds: bool) -> BlockGradients:
    """The functions for a cell; `rounds` says that operands of products are rounded to bfloat16."""
    cell, ROUNDS, elements = schedule.cell, bool(rounds), packing(rounds).elements
    prepare, operand = operands_of(rounds)
    GATES, PLAIN, LATES = np.int64(len(cell.gates)), np.int64(cell.plain), np.int64(cell.late)
    IS_APART, HAS_PRODUCT = bool(cell.apart), cell.product
    UNITS, FIRST_UNIT = len(cell.trained), schedule.unit_gradients
    SECOND_OPERAND = STATES if IS_APART else AGAIN

    @inline
    def gradients_of_block(
        team, member, goal, transposed, rows, ids, widths, blocks, pairs, panels, results, mode
    ):
        """A block's terms of dWx = sum x^T dt for inputs that are vectors, of dWh = sum h_before^T dt, of db,
        and of the gradients of units. Returns the goal after its meetings.

        widths, blocks, pairs, panels   as in `operands_of`
        results                         (dwx, dwh, db, dbhh, dunits)
        """
        dwx, dwh, db, dbhh, dunits = results
        dts = blocks[2]
        deep, cols, panel, flat = elements(rows), db.size, PANEL_BYTES // dts.itemsize, dts.reshape(-1)
        goal = prepare(team, member, goal, transposed, rows, widths, blocks, pairs, panels)
        d = operand(GRADIENTS, transposed, rows, widths, blocks, pairs, panels)
        if ids is None:
            x = operand(INPUTS, transposed, rows, widths, blocks, pairs, panels)
            if ROUNDS:
                weights_of_inputs(team, member, transposed, deep, cols, x, d, dwx, mode)
            else:
                weights_by_columns(team, member, transposed, rows, cols, x, d, dwx, mode)
        width = cols // GATES
        flat[flat.size - 1] = 1
        dw_row = width if transposed else cols
        if PLAIN:
            h = operand(STATES, transposed, rows, widths, blocks, pairs, panels)
            c = (dwh.reshape(-1), ZERO, dw_row, panel)
            weight_gradient(team, member, transposed, deep, width, PLAIN * width, h, d, c, mode)
        if LATES:
            a = operand(SECOND_OPERAND, transposed, rows, widths, blocks, pairs, panels)
            late = operand(LATE, transposed, rows, widths, blocks, pairs, panels)
            c = (dwh.reshape(-1), PLAIN * width * (width if transposed else ONE), dw_row, panel)
            weight_gradient(team, member, transposed, deep, width, LATES * width, a, late, c, mode)
        bias_gradient(team, member, rows, cols, last_first(dts, rows, ZERO), db, mode)
        if IS_APART:
            bias_gradient(team, member, rows, LATES * width, last_first(dts, rows, cols), dbhh, mode)
        if UNITS:
            of_units = last_first(dts, rows, FIRST_UNIT * width)
            bias_gradient(team, member, rows, UNITS * width, of_units, dunits.reshape(-1), mode)
        return goal

    @inline
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
