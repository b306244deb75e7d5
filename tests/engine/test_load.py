"""Teams and busy processors: when fewer threads are used, when more are tried, and that no bit changes."""

import numpy as np
import pytest
from cell_cases import Window, make, run
from helpers import assert_same_bits, sized
from rnnfast.kernels.team import team as teams

import rnnfast
from rnnfast.engine import load as _load
from rnnfast.engine import threads
from rnnfast.engine.load import MOST_CREDIT, MOST_REST, REST, SHORT, Load, Pace

CALL = 1_000_000  # ns on two idle processors, without waiting


def spent(load):
    """A load that has lost its credit for teams of two."""
    load.note(2, 2, 2 * MOST_CREDIT, 2 * MOST_CREDIT)
    load._rest.clear()
    return load


def calls_until(load, wanted, members, elapsed):
    """The calls of this length on fewer threads until `members` are tried again."""
    count = 0
    while load.members(wanted) != members:
        load.note(wanted, load.members(wanted), elapsed, 0)
        count += 1
    return count


def test_a_team_whose_members_are_there_stays_together():
    load = Load()
    for _ in range(100):
        assert load.members(2) == 2
        load.note(2, 2, CALL, 0.3 * CALL)


def test_after_a_long_wait_the_caller_works_alone_and_tries_again():
    load = spent(Load())
    load.note(2, 2, 5 * CALL, 4 * CALL)  # two shares of 1 ms, and 4 ms of waiting
    loss = 5 * CALL - 2 * _load.SURE * CALL
    assert calls_until(load, 2, 2, 2 * CALL) == np.ceil(REST * loss / (2 * CALL))
    load.note(2, 2, CALL, 0)  # the processor is free
    assert load.members(2) == 2


def test_failed_tries_take_little_of_the_time():
    load, alone, lost = spent(Load()), 0.0, 0.0
    for wait in (1, 2, 4, 8):
        load.note(2, 2, (1 + wait) * CALL, wait * CALL)
        lost += (1 + wait) * CALL - 2 * CALL
        alone += calls_until(load, 2, 2, 2 * CALL) * 2 * CALL
    assert 0 < lost < alone / REST


def test_one_long_wait_among_good_calls_changes_nothing():
    load = Load()
    for _ in range(20):
        load.note(2, 2, CALL, 0)
    load.note(2, 2, 5 * CALL, 4 * CALL)
    assert load.members(2) == 2
    load.note(2, 2, 5 * CALL, 4 * CALL)
    assert load.members(2) == 1


def test_a_computer_that_was_asleep_does_not_stop_threads_for_long():
    load = Load()
    load.note(2, 2, 1e15, 1e15)
    assert calls_until(load, 2, 2, MOST_REST / 3) == 3


def test_a_big_team_is_halved_until_its_members_are_there():
    load = Load()
    for wanted, members in ((8, 4), (8, 2), (6, 3), (6, 1)):
        load.note(wanted, load.members(wanted), 2e9, 2e9)
        assert load.members(wanted) == members
    assert load.members(8) == 2  # as before
    load.note(8, 2, 10, 0)
    assert calls_until(load, 8, 8, MOST_REST / 2) == 2


def test_short_calls_are_made_alone_at_times_to_compare():
    for elapsed, expected in ((SHORT - 1, [4, 16, 64, 256, 512]), (SHORT, [])):
        load, pace, alone = Load(), Pace(), []
        for call in range(1, 600):
            members = load.members(2, pace)
            load.note(2, members, elapsed, 0, pace)
            if members == 1:
                alone.append(call)
        assert alone == expected
        pace.forget()
        assert load.members(2, pace) == 2


def test_a_team_that_is_slower_than_its_caller_alone_rests_though_nobody_waits():
    for alone, members in ((CALL, 1), (3 * CALL, 2)):
        load, pace = spent(Load()), Pace()
        load.note(2, 1, alone, 0, pace)
        for _ in range(3):
            load.note(2, 2, 2 * CALL, 0, pace)
        assert load.members(2, pace) == members
    load = Load()
    load.note(4, 4, 2 * MOST_CREDIT, 0, pace)
    assert load.members(4, pace) == 2  # half of it may be faster


def test_the_time_of_calls_alone_follows_the_machine():
    pace = Pace()
    for elapsed in (5 * CALL, CALL, 9 * CALL):
        pace.note_alone(elapsed)
    assert pace.alone == pytest.approx(1.01 * CALL)
    for _ in range(100):
        pace.note_alone(2 * CALL)
    assert pace.alone == 2 * CALL


@pytest.fixture
def two_threads(monkeypatch):
    """Two threads for any window, and a fresh load; afterwards as before."""
    before = rnnfast.get_num_threads()
    monkeypatch.setattr(_load, "allowed", lambda: 64)
    monkeypatch.setattr(threads, "LEAST_OPERATIONS", 1.0)
    monkeypatch.setattr(threads, "_pool", threads._Pool())
    rnnfast.set_num_threads(2)
    yield
    rnnfast.set_num_threads(before)


class Clock:
    """A clock that stands still outside kernels, and a kernel whose caller waits for a part of the time."""

    def __init__(self, monkeypatch):
        self.now, self.elapsed, self.waited, self.members = 0, CALL, 0, []
        monkeypatch.setattr(threads.time, "perf_counter_ns", lambda: self.now)

    def kernel(self, team, member, x):
        if member:
            return
        self.members.append(int(team[teams.MEMBERS]))
        self.now += self.elapsed
        if team[teams.MEMBERS] > 1:
            team[teams.WAITED] += self.waited


def test_calls_are_made_alone_beside_a_late_member_and_together_again_later(two_threads, monkeypatch):
    clock = Clock(monkeypatch)

    def call(count):
        clock.members.clear()
        for _ in range(count):
            threads.run(clock.kernel, 2, False, (np.zeros(1),))
        return clock.members

    assert call(3) == [1, 2, 2]  # the first one compiles
    clock.elapsed, clock.waited = 10 * CALL, 9 * CALL
    assert call(5) == [2, 1, 1, 1, 1]
    assert set(call(3 * REST)) == {1, 2}
    clock.elapsed, clock.waited = CALL, 0
    call(20 * REST)
    assert set(call(REST)) == {2}


@pytest.mark.parametrize("N", [3, 21])  # by units, and by sequences
def test_switches_between_sizes_of_teams_change_no_bit_and_no_plan(N, two_threads, monkeypatch):
    rnnfast.set_num_threads(5)
    layer = make("gru-before", 7, 83, np.float32)
    window = Window(layer, N, sized(40, 4))
    monkeypatch.setattr(Load, "members", lambda load, wanted, pace: 1)
    monkeypatch.setattr(Load, "note", lambda *call: None)
    run(layer, window)
    expected = run(layer, window)
    plans = dict(layer.workspace.plans)
    for members in (5, 1, 2, 5, 2, 1):
        monkeypatch.setattr(Load, "members", lambda load, wanted, pace, members=members: members)
        for name, array in run(layer, window).items():
            assert_same_bits(array, expected[name])
        for direction in ("forward", "backward"):
            assert layer.workspace.plans[direction][2] is plans[direction][2]


def test_the_hand_off_counts_as_waiting(two_threads, monkeypatch):
    clock, noted = Clock(monkeypatch), []
    monkeypatch.setattr(Load, "note", lambda load, *call: noted.append(call))

    def post(worker, call):
        clock.now += 7
        worker.calls.put(call)

    monkeypatch.setattr(threads._Worker, "post", post)
    for _ in range(2):
        threads.run(clock.kernel, 2, False, (np.zeros(1),))
    assert noted == [(2, 2, CALL + 7, 7, None)]


def test_the_load_of_a_process_is_not_that_of_its_child():
    before = threads._pool
    try:
        before.load.note(2, 2, 1e9, 1e9)
        threads._after_fork()
        assert threads._pool.load.members(2) == 2
    finally:
        before.load._rest.clear()
        threads._pool = before


def test_a_caller_alone_because_another_has_the_team_says_nothing_about_the_load(two_threads, monkeypatch):
    noted = []
    monkeypatch.setattr(Load, "note", lambda load, *call: noted.append(call))
    kernel = Clock(monkeypatch).kernel
    for _ in range(3):
        threads.run(kernel, 2, False, (np.zeros(1),))
    assert noted == [(2, 2, CALL, 0, None)] * 2
    monkeypatch.setattr(threads._Pool, "take", lambda pool, members: None)
    threads.run(kernel, 2, False, (np.zeros(1),))
    assert len(noted) == 2
