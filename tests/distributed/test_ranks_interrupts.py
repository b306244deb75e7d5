"""Ctrl-C on ranks: all stop at the same step, and rank 0 saves once."""

import os
import signal
import threading
from pathlib import Path

import pytest
from helpers import sends_interrupts
from ranks_helpers import end_ranks, library, needs_ranks, run_ranks, start_ranks, wait_for

from rnnfast.files.atomic import remove_leftovers
from rnnfast.training.safety import Interrupts, interrupts_deferred

PROGRAM = Path(__file__).parents[1].joinpath("interrupted_ranks.py")
TRAINING = Path(__file__).parents[1].joinpath("interrupted_training.py")
HAS_USR1 = hasattr(signal, "SIGUSR1")


def test_signals_are_recorded_and_handlers_come_back():
    numbers = [signal.SIGINT, signal.SIGTERM, *([signal.SIGUSR1] if HAS_USR1 else [])]
    before = [signal.getsignal(number) for number in numbers]
    for number in numbers:
        with Interrupts() as interrupts:
            assert not interrupts.asked
            signal.raise_signal(number)
            signal.raise_signal(number)
            assert interrupts.asked
            interrupts.answer()
            assert not interrupts.asked
    assert [signal.getsignal(number) for number in numbers] == before


def test_an_unanswered_interrupt_is_raised_at_the_end():
    reached = []

    def body():
        with Interrupts():
            with interrupts_deferred():
                signal.raise_signal(signal.SIGINT)
            reached.append("the end")

    with pytest.raises(KeyboardInterrupt):
        body()
    assert reached == ["the end"]


def test_an_error_is_not_replaced_by_an_interrupt():
    def body():
        with Interrupts():
            signal.raise_signal(signal.SIGINT)
            raise ValueError("first")

    with pytest.raises(ValueError, match="first"):
        body()


def test_handlers_of_the_program_and_ignored_signals_stay():
    received = []
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    signal.signal(signal.SIGTERM, lambda *_: received.append("own"))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interrupts() as interrupts:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
            assert not interrupts.asked
    finally:
        for number, handler in zip((signal.SIGTERM, signal.SIGINT), before, strict=True):
            signal.signal(number, handler)
    assert received == ["own"]


def test_other_threads_record_nothing():
    handlers = []

    def body():
        with Interrupts() as interrupts:
            handlers.append(signal.getsignal(signal.SIGINT))
            assert not interrupts.asked

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGINT)]


def to_launcher(process, number, folder):
    process.send_signal(number)


def to_its_group(process, number, folder):
    """As a terminal does."""
    os.killpg(process.pid, number)


def to_rank_0(process, number, folder):
    os.kill(int((folder / "running-0").read_text()), number)


def to_one_rank(process, number, folder):
    os.kill(int((folder / "running-1").read_text()), number)


def interrupted(folder, signals, count=3):
    """Code and error output of ranks that get each signal when files of these names are there."""
    process = start_ranks(count, PROGRAM, folder)
    try:
        for names, number, send in signals:
            wait_for(lambda names=names: all((folder / name).exists() for name in names), process)
            send(process, number, folder)
        _, err = process.communicate(timeout=60)
    finally:
        end_ranks(process)
    return process.returncode, err


RUNNING = ["running-0", "running-1", "running-2"]
forwards_interrupts = pytest.mark.skipif("MPICH" not in library(), reason="the launcher ends ranks at Ctrl-C")


@needs_ranks
@sends_interrupts
@pytest.mark.parametrize(
    ("number", "send"),
    [
        pytest.param(signal.SIGINT, to_launcher, marks=forwards_interrupts),
        pytest.param(signal.SIGINT, to_its_group, marks=forwards_interrupts),
        (signal.SIGINT, to_one_rank),
        (signal.SIGTERM, to_one_rank),
        *([(signal.SIGUSR1, to_launcher)] if HAS_USR1 else []),
    ],
)
def test_all_ranks_stop_at_the_same_step_and_rank_0_saves(number, send, tmp_path):
    _, err = interrupted(tmp_path, [(RUNNING, number, send)])
    steps = {(tmp_path / f"stopped-{rank}").read_text() for rank in range(3)}
    assert len(steps) == 1
    assert int(steps.pop()) >= 20
    assert (tmp_path / "saved").read_bytes() == b"0123456789" * 10
    assert "rnnfast" not in err
    assert list(tmp_path.glob("*.tmp")) == []


@needs_ranks
@sends_interrupts
def test_a_second_signal_to_a_rank_that_saves_is_of_no_consequence(tmp_path):
    both = [(RUNNING, signal.SIGINT, to_one_rank), (["saving"], signal.SIGINT, to_rank_0)]
    interrupted(tmp_path, both)
    assert (tmp_path / "saved").read_bytes() == b"0123456789" * 10


@needs_ranks
@sends_interrupts
def test_a_second_ctrl_c_that_kills_all_ranks_leaves_the_old_file(tmp_path):
    (tmp_path / "saved").write_bytes(b"old")
    interrupted(tmp_path, [(RUNNING, signal.SIGINT, to_one_rank), (["saving"], signal.SIGKILL, to_rank_0)])
    assert (tmp_path / "saved").read_bytes() == b"old"
    remove_leftovers(tmp_path)
    assert list(tmp_path.glob(".rnnfast-*")) == []


@needs_ranks
@sends_interrupts
@pytest.mark.parametrize("send", [to_rank_0, to_one_rank])
def test_training_stops_at_one_step_is_written_once_and_goes_on_to_the_same_bits(send, tmp_path):
    (tmp_path / "whole").mkdir()
    ((steps, bits, _),) = results(run_ranks(1, TRAINING, tmp_path / "whole").out)
    process = start_ranks(2, TRAINING, tmp_path, "wait")
    try:
        wait_for(lambda: all((tmp_path / name).exists() for name in RUNNING[:2]), process)
        send(process, signal.SIGINT, tmp_path)
        out, err = process.communicate(timeout=60)
    finally:
        end_ranks(process)
    stopped = results(out)
    assert len({(step, found) for step, found, _ in stopped}) == 1, err
    assert 3 <= int(stopped[0][0]) < int(steps)
    assert sorted(written for _, _, written in stopped) == ["0", "2"]  # at the beginning, and the last
    assert "rnnfast: " not in err
    found = results(run_ranks(4, TRAINING, tmp_path).out)
    assert [(step, end) for step, end, _ in found] == [(steps, bits)] * 4


def results(out):
    """Steps, hash and number of checkpoints of each rank."""
    return [tuple(line.split()) for line in out.splitlines() if line.count(" ") == 2]
