"""Sums over ranks, the processes of one training run, by a pairwise tree.

Ranks are added in pairs of neighbours, then pairs of pairs: (r0 + r1) + (r2 + r3) for four. So their number,
a power of two, changes no bit of a sum that continues the same tree below.

Ranks on one machine exchange arrays through a window of shared memory. An array passes in chunks: each rank
puts its chunk into the window, adds up one slice of it from all ranks, and takes the other slices from those
who added them up. Flags count the chunks that a rank has put, added and taken since the window was made, so
a rank is never more than `depth` chunks ahead of another. All that a rank puts into the window is streamed
past the caches: one million float32 on two ranks took 0.5 ms, and 1.9 through the caches of cores that share
none (0.5 and 0.3 ms where they do).
"""

from __future__ import annotations

from .._jit import inner, kernel
from ..codegen.denormals import flush_denormals, restore_mode
from ..codegen.vectors import copy_span, stream_span
from .flags import pause, post, seen

# Flags of a rank, 128 bytes from each other: see `team.py`.
PUT, ADDED, TAKEN, MET = 16, 32, 48, 64
FLAGS = 80

# A chunk in bytes. One million float32, 2 ranks: 0.54 ms with 128 KB, 0.50 with 256, 0.47 with 1 MB.
CHUNK_BYTES = 1 << 20

# Bytes of all chunks of all ranks, if that is at least two chunks a rank. On an idle machine two are as fast
# as more. Where other programs take the cores, ranks take turns, and each turn fills the window: ten million
# float32 took 82, 54, 33 and 30 ms with 2, 4, 8 and 16 chunks a rank (`Allreduce` 67).
WINDOW_BYTES = 1 << 24

# Columns of a sum that are added up at once: with 8 rows they stay in the L1 cache.
BLOCK = 512

# Slices begin at multiples of this many elements, 128 bytes or more, so that no line has two writers.
GRAIN = 32

# Turns of a waiting loop before a kernel returns, so that Python may answer signals: some 20 us.
LOOKS = 500


@inner
def _add_rows(rows, first, count):
    """rows[0] = the tree sum of all rows, in `count` columns from `first`; other rows are scratch."""
    apart = 1
    while apart < rows.shape[0]:
        for r in range(0, rows.shape[0], 2 * apart):
            to, of = rows[r, first : first + count], rows[r + apart, first : first + count]
            for j in range(to.size):
                to[j] += of[j]
        apart *= 2


@kernel
def tree_sum(rows):
    """`rows[0] = (rows[0] + rows[1]) + (rows[2] + rows[3])`, and so on for any power of two.

    rows  (n, m)  row 0 overwritten, the others scratch
    """
    mode_before = flush_denormals()
    for first in range(0, rows.shape[1], BLOCK):
        _add_rows(rows, first, min(BLOCK, rows.shape[1] - first))
    restore_mode(mode_before)


@inner
def _least(flags, which):
    """The least of the ranks' flags of a kind."""
    least = seen(flags, which)
    for r in range(1, flags.shape[0]):
        least = min(least, seen(flags, r * FLAGS + which))
    return least


@inner
def _slice(count, ranks, r):
    """The part of 0 .. count that rank r adds up."""
    width = ((count + ranks - 1) // ranks + GRAIN - 1) // GRAIN * GRAIN
    return min(count, r * width), min(count, (r + 1) * width)


@inner
def _put(array, start, count, rank, place, window):
    """Put the slices of other ranks into the window."""
    ranks, depth, chunk = window.shape
    base = (rank * depth + place) * chunk
    for r in range(ranks):
        first, last = _slice(count, ranks, r)
        if r != rank:
            stream_span(array, start + first, window, base + first, last - first)


@inner
def _add(array, start, count, rank, place, window, scratch):
    """Add up the own slice, in the array and in the window."""
    ranks, depth, chunk = window.shape
    first, last = _slice(count, ranks, rank)
    for at in range(first, last, BLOCK):
        columns = min(BLOCK, last - at)
        for r in range(ranks):
            if r == rank:
                copy_span(array, start + at, scratch, r * BLOCK, columns)
            else:
                copy_span(window, (r * depth + place) * chunk + at, scratch, r * BLOCK, columns)
        _add_rows(scratch, 0, columns)
        copy_span(scratch, 0, array, start + at, columns)
        stream_span(scratch, 0, window, (rank * depth + place) * chunk + at, columns)


@inner
def _take(array, start, count, rank, place, window):
    """Take the slices that other ranks have added up."""
    ranks, depth, chunk = window.shape
    for r in range(ranks):
        first, last = _slice(count, ranks, r)
        if r != rank:
            copy_span(window, (r * depth + place) * chunk + first, array, start + first, last - first)


@kernel
def tree_exchange(rank, before, flags, window, array, scratch):
    """`array = the tree sum of the ranks' arrays`; returns whether it is complete, else call it again.

    It returns after LOOKS turns of waiting for another rank, and a further call with the same arguments
    continues; the flags tell where. All ranks exchange arrays of the same sizes in the same order.

    rank                                  this rank's number
    before                                chunks exchanged before this array
    flags    (n, FLAGS)         int64     shared; zeros at first, and row `rank` accumulated
    window   (n, depth, chunk)            shared; row `rank` overwritten; starts at a whole vector
    array    (m,)                         overwritten by the sum
    scratch  (n, BLOCK)                   scratch
    """
    mode_before = flush_denormals()
    depth, chunk = window.shape[1:]
    own = rank * FLAGS
    end = before + (array.size + chunk - 1) // chunk
    put, added, taken = seen(flags, own + PUT), seen(flags, own + ADDED), seen(flags, own + TAKEN)
    looks = 0
    while taken < end and looks < LOOKS:
        looks += 1
        if taken < added and _least(flags, ADDED) > taken:
            start = (taken - before) * chunk
            _take(array, start, min(chunk, array.size - start), rank, taken % depth, window)
            taken += 1
            post(flags, own + TAKEN, taken)
            looks = 0
        if put < end and _least(flags, TAKEN) > put - depth:
            start = (put - before) * chunk
            _put(array, start, min(chunk, array.size - start), rank, put % depth, window)
            put += 1
            post(flags, own + PUT, put)
            looks = 0
        if added < put and _least(flags, PUT) > added:
            start = (added - before) * chunk
            _add(array, start, min(chunk, array.size - start), rank, added % depth, window, scratch)
            added += 1
            post(flags, own + ADDED, added)
            looks = 0
        if looks:
            pause()
    restore_mode(mode_before)
    return taken == end


@kernel
def ranks_met(rank, count, flags):
    """Whether all ranks have come to their meeting number `count`; this one has. Call it until they have.

    It returns after LOOKS turns of waiting. Everyone then sees what the others wrote before the meeting.

    rank                        this rank's number
    count                       1 for the first meeting
    flags  (n, FLAGS)  int64    shared; row `rank` overwritten
    """
    post(flags, rank * FLAGS + MET, count)
    for _ in range(LOOKS):
        if _least(flags, MET) >= count:
            return True
        pause()
    return False
