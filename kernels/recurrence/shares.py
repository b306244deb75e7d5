"""The division of a window among a team: rows of a block, and sequences or units of the time loop."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from .._jit import inline, inner
from ..codegen.vectors import copy_span
from ..product.bfloat16 import columns_in_pairs
from ..product.gemm import MANY, ONE, READY, ZERO, gemm, packed_size, packed_view, packing
from ..product.tile import PANEL_BYTES
from ..team.team import BY_UNITS, MEMBERS, meet, share


@inner
def _row_bound(rows, part, t_first, t_last, offsets):
    """The first sequence that has at least `part` of the `rows` rows of a block before it."""
    i, t, before = 0, t_last, 0
    while before < part:
        while offsets[t] - offsets[t - 1] <= i:
            t -= 1
        before += t - t_first
        i += 1
    return i


@inline
def own_part(t_first, t_last, width, offsets, team, member):
    """A member's part of the time loop of a block: sequences i_first .. i_last, units j_first .. j_last.

    A team divides the sequences by their rows in the block. If they are few, it divides the units of all
    sequences and meets at each step.
    """
    members = team[MEMBERS]
    i_first, i_last = 0, offsets[t_first + 1] - offsets[t_first]
    j_first, j_last = 0, width
    if members > 1:
        if team[BY_UNITS]:
            j_first, j_last = share(width, member, team)
        else:
            rows = offsets[t_last] - offsets[t_first]
            i_first = _row_bound(rows, rows * member // members, t_first, t_last, offsets)
            i_last = _row_bound(rows, rows * (member + 1) // members, t_first, t_last, offsets)
    return i_first, i_last, j_first, j_last


def recurrent_packed_size(depth: int, width: int, gates: int, members: int, dtype: np.dtype) -> int:
    """Elements that `recurrent_operand` needs for (depth, gates width), for any division of the work among a
    team, its half, its quarter, ... or the caller alone."""
    most = packed_size(depth, gates * width, dtype)
    while members > 1:
        most = max(most, members * gates * packed_size(depth, -(-width // members), dtype))
        members //= 2
    return most


@inline
def _layout(team):
    """The layout of a recurrent operand: the number of parts into which the team divides the units."""
    return team[MEMBERS] if team[BY_UNITS] else ONE


@inline
def uses_of(team, uses, made):
    """The uses of Wx and of Wh, as in `pack_for`.

    uses  those of this call
    made  (2,) or (0,)   read, int64: whether the memory for packed operands holds Wx, and the layout in which
    it holds Wh, 0 for none; (0,) if the weights may change before the next call
    """
    of_x, of_h = uses, uses
    if made.size:
        of_x = READY if made[0] else MANY
        of_h = READY if made[1] == _layout(team) else MANY
    return of_x, of_h


@inline
def record(team, member, made):
    """Record in `made` that all operands are packed; every member has read `made` and packed its part."""
    if member == 0 and made.size:
        made[0], made[1] = ONE, _layout(team)


@inline
def _room(team, depth, width, packed):
    """Elements from one of a member's matrices to the next."""
    panel = PANEL_BYTES // packed.itemsize
    return ((width + team[MEMBERS] - 1) // team[MEMBERS] + panel - 1) // panel * panel * depth


@functools.cache
def recurrent_operands(rounds: bool) -> tuple[Any, Any]:
    """`recurrent_operand` and `rows_of_operand`; `rounds` as in `packing`."""
    ROUNDS = bool(rounds)
    pack_weights, pack_for, elements = packing(rounds)

    @inline
    def recurrent_operand(uses, team, member, depth, width, gates, w, packed):
        """The operand B of `recurrent_product`; `uses` as in `pack_for`. If the team divides units, each
        member packs its own columns of every gate, as consecutive matrices.

        w       (array, first, row stride, column stride)               (depth, gates width), read
        packed  (recurrent_packed_size(depth, width, gates, members),)  scratch; read if
                                                                            `uses` is READY
        """
        array, first, row_stride, col_stride = w
        members = team[MEMBERS]
        if team[BY_UNITS]:
            j_first, j_last = share(width, member, team)
            deep = elements(depth)
            room = _room(team, deep, width, packed)
            for g in range(0 if uses == READY else gates):
                own = (array, first + (g * width + j_first) * col_stride, row_stride, col_stride)
                target = packed[(member * gates + g) * room :]
                pack_weights(ZERO, ONE, depth, j_last - j_first, own, target)
            _, _, row, panel = packed_view(packed, deep)
            b = (packed, member * gates * room, row, panel)
        else:
            b = pack_for(uses, member, members, depth, gates * width, w, packed)
        return b

    @inline
    def rows_of_operand(team, member, goal, columns, i_first, i_last, depth, a, first, column):
        """The operand A of a member's product over some rows: where they lie, or rounded in pairs in
        `columns`. A team that divides units divides the rounding of the rows. Returns the operand, its depth,
        and the goal after a meeting.

        a        (array, first, row)   rows of `depth` floats, read
        columns  (.., row) or None     int32, these rows overwritten from `column` on; row `first` is row 0
                                       of A
        """
        array, place, row = a
        operand, deep = (array, place + i_first * row, row, ONE), depth
        if ROUNDS:
            begin, end = i_first, i_last
            if team[BY_UNITS]:
                begin, end = share(i_last - i_first, member, team)
                begin, end = i_first + begin, i_first + end
            columns_in_pairs(begin, end, depth, a, columns[first:], column)
            if team[BY_UNITS]:
                goal = meet(team, goal)
            row = columns.shape[1]
            operand = (columns.reshape(-1), (first + i_first) * row + column, row, ONE)
            deep = elements(depth)
        return operand, deep, goal

    return recurrent_operand, rows_of_operand


@inline
def recurrent_product(team, member, rows, depth, width, gates, a, b, start, c, mode):
    """C = start + A W in the columns of the member's units; `mode` as in `tile`.

    a      (array, first, row, 1)       (rows, depth), read
    b      by recurrent_operand         read
    start  (array, first, row, panel)   (rows, gates width), read if FROM_START
    c      (array, first, row, panel)   (rows, gates width), overwritten
    """
    if team[BY_UNITS]:
        start_array, start_first, start_row, _ = start
        array, first, row, panel = c
        packed, b_first, b_row, b_panel = b
        j_first, j_last = share(width, member, team)
        room = _room(team, depth, width, packed)
        for g in range(gates):
            place = g * width + j_first
            matrix = (packed, b_first + g * room, b_row, b_panel)
            before, own = (
                (start_array, start_first + place, start_row, panel),
                (array, first + place, row, panel),
            )
            gemm(rows, j_last - j_first, depth, a, matrix, before, own, mode)
    else:
        gemm(rows, gates * width, depth, a, b, start, c, mode)


@inline
def copy_part(part, source, first, target, place, row):
    """target = source in the sequences and units of `part`, (i_first, i_last, j_first, j_last).

    source  (N.., row) from element `first` on   read
    target  (N.., row) from element `place` on   overwritten there
    """
    i_first, i_last, j_first, j_last = part
    for i in range(i_first, i_last):
        copy_span(source, first + i * row + j_first, target, place + i * row + j_first, j_last - j_first)
