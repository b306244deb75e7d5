"""The operands of the weight gradients of a block: where they lie, packed in panels, or rounded to bfloat16.

A weight gradient is a product A^T B over the rows of a block, last row first. A has the inputs or the states,
and B the gradients of pre-activations; if weights are stored as in PyTorch, it is the other way around. B is
read once for each tile of rows of the result; in place, each of its rows is in another page.

Weight gradients of 512 rows alone with B packed, relative to reading it in place, on Zen 4. With AVX2, the
panels of 650 and 1024 columns were copied for the tiles, which saved a sixth of the time:

| columns of h and dt | AVX-512 | AVX2 |
|---------------------|---------|------|
| 128, 512            | 1.04    | 0.84 |
| 256, 1024           | 0.98    | 0.99 |
| 512, 2048           | 0.93    | 0.97 |
| 650, 2600           | 0.91    | 0.97 |
| 1024, 4096          | 0.90    | 0.96 |

Backward passes of whole layers gain less: LSTM (64, 50, 1024, 1024) takes 0.976 of the time (AVX2 0.987),
(20, 35, 650, 650) 0.992 (0.988). Packing at (32, 128, 64, 128), too, would take 1.03 with AVX2.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from .._jit import inline
from ..cell.schedule import Schedule
from ..product.bfloat16 import NO_FACTOR, pairs_of, rows_in_pairs
from ..product.gemm import ONE, ZERO, packed_shape, packed_view, packing
from ..product.tile import PANEL_BYTES
from ..team.team import MEMBERS, meet
from .sequence import last_first, pairs_first
from .shares import share

# B is packed from these sizes on: columns of all operands A together, and bytes in a row of all operands B.
LEAST_COLUMNS, LEAST_BYTES = 512, 2560

# The columns of each operand in `widths_of`, and the first column of the last one.
INPUTS, STATES, AGAIN, GRADIENTS, LATE, LATE_COLUMN = range(6)


def widths_of(schedule: Schedule, depth: int, width: int) -> np.ndarray:
    """The columns of inputs, of states, of operands of a second product, of gradients of pre-activations and
    of those of a second product, and where the last ones begin; 0 for what a cell lacks.

    Gradients and operands of a second product lie side by side: `late` columns from the last number on, and
    the operands from the gradients' end on.
    """
    cell = schedule.cell
    cols, plain, late = len(cell.gates) * width, cell.plain * width, cell.late * width
    states = width if plain or cell.apart else 0
    again = width if cell.again else 0
    return np.array([depth, states, again, cols, late, cols if cell.apart else plain])


def panels_shape(
    widths: np.ndarray, rounds: bool, transposed: bool, rows: int, dtype: np.dtype
) -> tuple[tuple[int], np.dtype]:
    """The shape and the type of the memory for the panels of a block of `rows` rows; without elements if B is
    read where it lies."""
    of_a, of_b = widths[:GRADIENTS], widths[GRADIENTS:LATE_COLUMN]
    if transposed:
        of_a, of_b = of_b, of_a
    if not rounds and (of_a.sum() < LEAST_COLUMNS or of_b.sum() * dtype.itemsize < LEAST_BYTES):
        return (0,), dtype
    shapes = [packed_shape(rows, int(width), dtype, rounds) for width in of_b]
    return (sum(shape[0] for shape, _ in shapes),), shapes[0][1]


class Operands(NamedTuple):
    """The functions of `operands_of`."""

    prepare: Any
    operand: Any


@functools.cache
def operands_of(rounds: bool) -> Operands:
    """The functions that prepare operands; `rounds` says that they are rounded to bfloat16, in pairs."""
    ROUNDS = bool(rounds)
    pack_weights, _, elements = packing(rounds)

    @inline
    def place_of(index, transposed, rows, widths, panels):
        """Where the panels of an operand begin."""
        width, place = PANEL_BYTES // panels.itemsize, ZERO
        for before in range(ZERO if transposed else GRADIENTS, index):
            place += (widths[before] + width - 1) // width * width * elements(rows)
        return place

    @inline
    def prepare(team, member, goal, transposed, rows, widths, blocks, pairs, panels):
        """Pack the operands B of a block if there is memory for their panels, and round its operands A in
        pairs of rows. Returns the goal after a meeting.

        widths  (6,)                      read, by widths_of
        blocks  (x_block, h_block, dts)   read
        pairs   likewise                  scratch, int32, if operands are rounded
        panels  by panels_shape           scratch
        """
        x_block, h_block, dts = blocks
        x_pairs, h_pairs, d_pairs = pairs
        begin, end = share(pairs_of(rows), member, team)
        cols = widths[GRADIENTS]
        for index in range(LATE + 1):
            block, column, count = dts, ZERO, widths[index]
            if index == INPUTS:
                block = x_block
            elif index == STATES:
                block = h_block
            elif index == AGAIN:
                column = cols
            elif index == LATE:
                column = widths[LATE_COLUMN]
            if (index < GRADIENTS) == transposed:
                if panels.size and count:
                    row = block.shape[1]
                    w = (block.reshape(-1), (rows - 1) * row + column, -row, ONE)
                    target = panels[place_of(index, transposed, rows, widths, panels) :]
                    pack_weights(member, team[MEMBERS], rows, count, w, target)
            elif ROUNDS and (index != LATE or column >= cols):  # else they are among the gradients
                target_of_pairs = d_pairs
                if index == INPUTS:
                    target_of_pairs = x_pairs
                elif index == STATES:
                    target_of_pairs = h_pairs
                rows_in_pairs(begin, end, rows, count, NO_FACTOR, block, target_of_pairs, column)
        if panels.size or ROUNDS:
            goal = meet(team, goal)
        return goal

    @inline
    def operand(index, transposed, rows, widths, blocks, pairs, panels):
        """The operand with this index in `widths`, after `prepare`: rows of a block, last row first, pairs of
        them, or panels."""
        block, column = blocks[2], ZERO
        if index == INPUTS:
            block = blocks[0]
        elif index == STATES:
            block = blocks[1]
        elif index == AGAIN:
            column = widths[GRADIENTS]
        elif index == LATE:
            column = widths[LATE_COLUMN]
        found = last_first(block, rows, column)
        if ROUNDS:
            in_pairs = pairs[2]
            if index == INPUTS:
                in_pairs = pairs[0]
            elif index == STATES:
                in_pairs = pairs[1]
            found = pairs_first(in_pairs, column)
        if panels.size and (index < GRADIENTS) == transposed:
            _, _, row, panel = packed_view(panels, elements(rows))
            found = (panels, place_of(index, transposed, rows, widths, panels), row, panel)
        return found

    return Operands(prepare, operand)
