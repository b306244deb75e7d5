"""The division of a window among a team: rows of a block, and sequences or units of the time loop."""

from __future__ import annotations

import numpy as np

from ._jit import inner, spliced
from .gemm import ONE, ZERO, gemm, pack, pack_for, packed_size, packed_view
from .team import BY_UNITS, MEMBERS, share
from .tile import PANEL_BYTES
from .vectors import copy_span


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


@spliced
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


@spliced
def recurrent_operand(uses, team, member, depth, width, gates, w, packed):
    """The operand B of `recurrent_product`; `uses` as in `pack_for`. If the team divides units, each member
    packs its own columns of every gate, as consecutive matrices.

    w       (array, first, row stride, column stride)               (depth, gates width), read
    packed  (recurrent_packed_size(depth, width, gates, members),)  scratch
    """
    array, first, row_stride, col_stride = w
    members = team[MEMBERS]
    if team[BY_UNITS]:
        j_first, j_last = share(width, member, team)
        room = _room(team, depth, width, packed)
        for g in range(gates):
            own = (array, first + (g * width + j_first) * col_stride, row_stride, col_stride)
            pack(ZERO, ONE, depth, j_last - j_first, own, packed[(member * gates + g) * room :])
        _, _, row, panel = packed_view(packed, depth)
        b = (packed, member * gates * room, row, panel)
    else:
        b = pack_for(uses, member, members, depth, gates * width, w, packed)
    return b


@spliced
def _room(team, depth, width, packed):
    """Elements from one of a member's matrices to the next."""
    panel = PANEL_BYTES // packed.itemsize
    return ((width + team[MEMBERS] - 1) // team[MEMBERS] + panel - 1) // panel * panel * depth


@spliced
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


@spliced
def copy_part(part, source, first, target, place, row):
    """target = source in the sequences and units of `part`, (i_first, i_last, j_first, j_last).

    source  (N.., row) from element `first` on   read
    target  (N.., row) from element `place` on   overwritten there
    """
    i_first, i_last, j_first, j_last = part
    for i in range(i_first, i_last):
        copy_span(source, first + i * row + j_first, target, place + i * row + j_first, j_last - j_first)
