"""The load of the other processors, measured by what teams of threads gain and lose.

Where another program uses a processor, a member is suspended there for milliseconds, and the others wait:
fewer threads are then faster. Results have the same bits for every number of threads, so it is chosen for
each call. Times are measured, on every system alike. What systems report about load is an average of seconds,
or does not say on which processors.
"""

from __future__ import annotations

# The shares of a team are about equal. So half the members would take twice the time in which the caller did
# not wait, if they had a processor each. A team has to be faster than this part of the estimate, because
# threads share caches and memory. On two idle cores callers wait for up to a third of a call, beside a busy
# loop for 0.5 to 0.9 of it.
SURE = 0.8

# After a loss, the time in ns for which calls do without this size of team, as a multiple of the loss: tries
# cost 3 % of the time. Not more than MOST_REST, should the computer itself have been asleep.
REST = 32
MOST_REST = 30_000_000_000

# Gains in ns that a team may lose before it rests: a process that wakes for a moment makes no difference.
MOST_CREDIT = 5_000_000

# Calls shorter than this, in ns, are made alone at times, for comparison: those with the numbers in ALONE and
# each 256th. Two threads on cores that share no cache can be slower than one although nobody waits.
SHORT = 1_000_000
ALONE = frozenset((4, 16, 64))


class Pace:
    """Times of calls of one kind: one kernel on arrays of the same shapes."""

    __slots__ = ("alone", "calls", "is_short")

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin with calls of another kind."""
        self.calls, self.alone, self.is_short = 0, 0.0, False

    def compares(self) -> bool:
        """Whether to make the next call alone, for comparison."""
        self.calls += 1
        return self.is_short and (not self.calls & 255 or self.calls in ALONE)

    def note_alone(self, elapsed: float) -> None:
        """Note the time of a call alone. The least counts, and slowly gives way to longer ones."""
        self.alone = min(elapsed, 1.01 * self.alone) if self.alone else elapsed


class Load:
    """Gains and losses of teams, by their size; the times are in ns.

    Concurrent callers may lose one another's changes, and interrupts one change. Neither needs repair.
    """

    def __init__(self) -> None:
        self._credit: dict[int, float] = {}
        self._rest: dict[int, float] = {}

    def members(self, wanted: int, pace: Pace | None = None) -> int:
        """The threads for a call: the number wanted, or after losses its half, a quarter, ... down to 1."""
        members = wanted
        while members > 1 and self._rest.get(members, 0) > 0:
            members //= 2
        return 1 if members > 1 and pace is not None and pace.compares() else members

    def note(
        self, wanted: int, members: int, elapsed: float, waited: float, pace: Pace | None = None
    ) -> None:
        """Note a call on `members` threads, where `wanted` were worth it, and how long its caller waited."""
        while wanted > members:
            self._rest[wanted] = self._rest.get(wanted, 0) - elapsed
            wanted //= 2
        if members == 1:
            if pace is not None:
                pace.note_alone(elapsed)
            return
        fewer = SURE * (elapsed - waited) * members / (members // 2)
        if pace is not None:
            pace.is_short = elapsed - waited < SHORT
            if pace.alone:
                fewer = pace.alone if members == 2 else min(fewer, pace.alone)
        credit = min(MOST_CREDIT, self._credit.get(members, MOST_CREDIT) + fewer - elapsed)
        if credit < 0:
            self._rest[members] = min(MOST_REST, -credit * REST)
        self._credit[members] = max(0, credit)
