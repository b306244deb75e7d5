"""Ranks that are threads of one process, with an exchange by naive sums, for tests without MPI."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from unittest.mock import patch

import numpy as np


def tree(terms):
    """((0 + 1) + (2 + 3)) + ...; as many terms as a power of two."""
    terms = list(terms)
    while len(terms) > 1:
        terms = [first + second for first, second in zip(terms[::2], terms[1::2], strict=True)]
    return terms[0]


class Meeting:
    """What the ranks of one run share."""

    def __init__(self, size):
        self.size, self.barrier, self.given = size, threading.Barrier(size, timeout=120), [None] * size


class Rank:
    """One thread's `Ranks`."""

    def __init__(self, meeting, rank):
        self.rank, self.size, self.local_size, self._meeting = rank, meeting.size, meeting.size, meeting

    def _all(self, value):
        meeting = self._meeting
        meeting.given[self.rank] = value
        meeting.barrier.wait()
        found = list(meeting.given)
        meeting.barrier.wait()
        return found

    def rows(self, own):
        return np.concatenate(self._all(own))

    def agreed(self, value):
        return self._all(value)[0]

    def gathered(self, value):
        found = self._all(value)
        return None if self.rank else found

    def any(self, flag):
        return any(self._all(flag))

    def barrier(self):
        self._all(None)

    def begin(self, arrays):
        return Pending(self, arrays)


class Pending:
    def __init__(self, rank, arrays):
        self._rank, self._arrays = rank, arrays

    def finish(self):
        for array in self._arrays:
            with np.errstate(all="ignore"):  # scratch beside the gradients
                array[...] = tree(self._rank._all(array.copy()))


def on_ranks(size, work):
    """The results of `work(rank)` on threads, in the order of ranks."""
    meeting, results = Meeting(size), [None] * size

    def run(number):
        try:
            results[number] = work(Rank(meeting, number))
        except BaseException as error:
            results[number] = error
            meeting.barrier.abort()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(size)]
    # A watcher would end the process of the tests when one thread fails.
    with patch("rnnfast.distributed.watchdog.Watchdog", lambda *_: nullcontext()):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    errors = [result for result in results if isinstance(result, BaseException)]
    if errors:
        raise next((e for e in errors if not isinstance(e, threading.BrokenBarrierError)), errors[0])
    return results


def without_times(history):
    """The records of a `Trainer` that do not depend on the speed."""
    times = ("seconds", "tokens_per_second")
    return [{name: value for name, value in record.items() if name not in times} for record in history]
