"""The load of the other processors, measured by how long callers wait for the members of their teams.

Where another program uses a processor, a member is suspended there for milliseconds, and the others wait:
fewer threads are then faster. Results have the same bits for every number of threads, so it is chosen for
each call. Waiting times are measured inside the kernels, on every system alike. What systems report about
load is an average of seconds, or does not say on which processors.
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


class Load:
    """Gains and losses of teams, by their size; the times are in ns.

    Concurrent callers may lose one another's changes, and interrupts one change. Neither needs repair.
    """

    def __init__(self) -> None:
        self._credit: dict[int, float] = {}
        self._rest: dict[int, float] = {}

    def members(self, wanted: int) -> int:
        """The threads for a call: the number wanted, or after losses its half, a quarter, ... down to 1."""
        while wanted > 1 and self._rest.get(wanted, 0) > 0:
            wanted //= 2
        return wanted

    def note(self, wanted: int, members: int, elapsed: float, waited: float) -> None:
        """Note a call on `members` threads, where `wanted` were worth it, and how long its caller waited."""
        while wanted > members:
            self._rest[wanted] -= elapsed
            wanted //= 2
        if members == 1:
            return
        gain = SURE * (elapsed - waited) * members / (members // 2) - elapsed
        credit = min(MOST_CREDIT, self._credit.get(members, MOST_CREDIT) + gain)
        if credit < 0:
            self._rest[members] = min(MOST_REST, -credit * REST)
        self._credit[members] = max(0, credit)
