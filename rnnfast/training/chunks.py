"""How `ExactBPTT` cuts a sequence into chunks, and the memory the chunks take."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from rnnfast import _check
from rnnfast.kernels.recurrence.sequence import block_steps, time_grid
from rnnfast.layers.footprint import Extent
from rnnfast.layers.rows import falling_order
from rnnfast.layers.window import Part
from rnnfast.models.model import Model

# Chunk lengths to choose from in each octave; each is about 3 % longer than the one before.
_AN_OCTAVE = 25
# Initial states, gradients and generators, in addition to the kept states; in copies of all states.
_COPIES = 6


class Plan(NamedTuple):
    """How a sequence is cut, and the memory that takes.

    Attributes
    ----------
    chunk : int
        The largest number of steps from one kept state to the next.
    chunks : int
        Chunks of the whole sequence.
    memory : int
        The largest number of bytes beyond the input, the parameters and their gradients.
    """

    chunk: int
    chunks: int
    memory: int


class Cut:
    """A batch of sequences, cut between the blocks of its time grid.

    Blocks span more steps after some sequences have ended. A chunk consists of one or more whole blocks.

    Parameters
    ----------
    model : Model
    batch, steps : int
        N and T.
    lengths : array (N,), optional
        Steps of each sequence; T by default.

    Attributes
    ----------
    last : int
        The end of the longest sequence.
    order : array (N,) or None
        The sequences, longest first.
    """

    def __init__(self, model: Model, batch: int, steps: int, lengths: np.ndarray | None) -> None:
        self._model, self._batch = model, batch
        self.last, self.order = (steps if batch else 0), None
        self._grid: np.ndarray | None = None
        self._own = 0  # bytes for computing the time grid
        if lengths is None or not self.last:
            return
        self.last, self.order = int(lengths.max()), falling_order(lengths)
        if int(lengths.min()) < self.last:
            offsets = self._offsets(lengths[self.order[::-1]])
            self._grid = time_grid(offsets, batch)
            self._rows = offsets[self._grid]
            self._own = 3 * offsets.nbytes + 64 * self._grid.size

    def _offsets(self, rising: np.ndarray) -> np.ndarray:
        """The number of rows of all steps before each step, (T + 1,)."""
        offsets = np.zeros(self.last + 1, np.int64)
        ended = np.searchsorted(rising, np.arange(self.last), side="right")
        np.cumsum(np.subtract(self._batch, ended, out=ended), out=offsets[1:])
        return offsets

    def period(self) -> int:
        """Chunk lengths are multiples of this number of steps while no sequence has ended."""
        return self._model.output.period(self._batch)

    def bounds(self, chunk: int) -> np.ndarray:
        """The first step of each chunk of at most `chunk` steps, and the end of the longest sequence."""
        if self._grid is None:
            return np.append(np.arange(0, self.last, chunk), self.last)
        return self._grid[self._places(chunk)]

    def _places(self, chunk: int) -> np.ndarray:
        """The bounds as indices into the time grid."""
        grid, places = self._grid, [0]
        assert grid is not None
        while places[-1] < grid.size - 1:
            first = places[-1]
            reached = int(np.searchsorted(grid, grid[first] + chunk, side="right")) - 1
            places.append(max(first + 1, reached))
        return np.array(places)

    def extents(self, chunk: int) -> tuple[int, list[Extent]]:
        """The number of chunks, and their sizes, the one with the most blocks first."""
        batch, grid_steps = self._batch, block_steps(self._batch)
        if self._grid is None:
            full, rest = max(1, min(chunk, self.last)), self.last % chunk
            sizes = [full, rest] if rest and rest != full else [full]
            found = [Extent(batch, size, size * batch, max(1, -(-size // grid_steps))) for size in sizes]
            return max(1, -(-self.last // chunk)), found
        places = self._places(chunk)
        bounds = self._grid[places]
        steps, rows = int(np.diff(bounds).max()), int(np.diff(self._rows[places]).max())
        blocks = np.unique(np.diff(places))[::-1]
        return bounds.size - 1, [Extent(batch, steps, rows, int(count)) for count in blocks]

    def plan(self, chunk: int) -> tuple[Plan, bool]:
        """The memory for chunks of this length, and whether the activations of each chunk are kept."""
        chunks, extents = self.extents(chunk)
        longest = max(extent.steps for extent in extents)
        if longest > chunk:  # a single block: other chunks may be as long
            return self.plan(longest)
        body, output = self._model.body, self._model.output
        taken = body.footprint(extents)
        kept = (chunks + _COPIES) * body.state_bytes(self._batch)
        used = taken.bytes + output.scratch_bytes(self._batch, longest) + kept
        return Plan(longest, chunks, max(self._own, used)), taken.keeps

    def fitting(self, owner: str, memory: int, what: str) -> Plan:
        """The largest chunk that fits into `memory`. Chunks whose activations are kept come first: these are
        recomputed only once.

        Raises
        ------
        ValueError
            No chunk fits.
        """
        chunks = self._choices()
        whole, _ = self.plan(chunks[-1])
        if whole.memory <= memory:
            return whole
        for wants_kept in (True, False):
            found = self._largest(chunks, memory, wants_kept)
            if found is not None:
                return found
        least = min(self.plan(chunk)[0].memory for chunk in chunks)
        _check.values.memory_enough(owner, memory, least, what)
        return min((self.plan(chunk)[0] for chunk in chunks), key=lambda plan: plan.memory)

    def _choices(self) -> list[int]:
        """Chunk lengths in whole periods, each a little longer than the one before."""
        period = self.period()
        most = -(-max(1, self.last) // period)
        counts = np.geomspace(1, most, 1 + int(_AN_OCTAVE * np.log2(most + 1))).round()
        return (np.unique(counts.astype(int)) * period).tolist()

    def _largest(self, chunks: list[int], memory: int, wants_kept: bool) -> Plan | None:
        """The plan of the largest chunk that fits, by a coarse search and then a fine one."""
        found: Plan | None = None

        def fits(place: int) -> bool:
            nonlocal found
            plan, keeps = self.plan(chunks[place])
            if plan.memory > memory or (wants_kept and not keeps):
                return False
            found = plan
            return True

        above = len(chunks) - 1
        for place in [*range(0, len(chunks), _AN_OCTAVE)][::-1]:
            if fits(place):
                below = place
                break
            above = place
        else:
            return None
        while above - below > 1:
            middle = (above + below) // 2
            below, above = (middle, above) if fits(middle) else (below, middle)
        return found


def parts(cut: Cut, chunk: int, steps: int, lengths: Any, reset: Any, weights: Any = None) -> list[Part]:
    """The chunks of a batch up to the end of its longest sequence; none if no step is read."""
    bounds = cut.bounds(chunk)
    return [
        Part(int(first), int(after), steps, lengths, cut.order, reset, weights)
        for first, after in pairwise(bounds)
        if first < after
    ]
