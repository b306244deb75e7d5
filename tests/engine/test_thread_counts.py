"""How many threads there are: by the caller, by the environment, by the machine."""

import os
import subprocess
import sys

import numpy as np
import pytest
from cell_cases import Window, make, run
from helpers import assert_same_bits, kernel_calls

import rnnfast
from rnnfast.engine import load as _processors
from rnnfast.engine import threads as _threads


@pytest.fixture(autouse=True)
def threads():
    """Afterwards as many threads as before."""
    before = rnnfast.get_num_threads()
    yield
    rnnfast.set_num_threads(before)


def members_of(monkeypatch, call):
    """On how many threads the kernels of a call are to run."""
    seen = kernel_calls(monkeypatch)
    call()
    return {members for members, _ in seen}


def test_small_problems_stay_on_one_thread(monkeypatch):
    monkeypatch.setattr(_processors, "allowed", lambda: 64)
    rnnfast.set_num_threads(4)
    assert _threads.members_for(1e6, 100) == 1
    assert _threads.members_for(1e12, 100) == 4
    assert _threads.members_for(1e12, 3) == 3
    assert _threads.members_for_bytes(1e5, 100) == 1
    layer = make("lstm", 8, 8, np.float32)
    assert members_of(monkeypatch, lambda: run(layer, Window(layer, 12, 5))) == {1}


def test_no_more_threads_work_than_there_are_processors(monkeypatch):
    rnnfast.set_num_threads(64)
    for processors in (1, 2, 3):
        monkeypatch.setattr(_processors, "allowed", lambda processors=processors: processors)
        assert _threads.members_for(1e12, 100) == processors
        assert _threads.members_for_bytes(1e12, 100) == processors
    assert rnnfast.get_num_threads() == 64
    monkeypatch.undo()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert _processors.allowed() == usable
    rnnfast.set_num_threads(16 * usable)
    monkeypatch.setattr(_threads, "LEAST_OPERATIONS", 1.0)
    layer = make("rnn", 3, 5, np.float32)
    xs = np.zeros((64 * usable, 2, 3), np.float32)
    assert members_of(monkeypatch, lambda: layer.forward(xs)) == {usable}


@pytest.mark.parametrize(
    ("value", "error"),
    [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("2", TypeError), (True, TypeError)],
)
def test_numbers_of_threads_are_checked(value, error):
    with pytest.raises(error, match=r"^set_num_threads: n must be"):
        rnnfast.set_num_threads(value)


def process(program, **environment):
    others = ("RNNFAST_NUM_THREADS", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS")
    kept = {name: value for name, value in os.environ.items() if name not in others}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**kept, **environment})


def test_the_environment_names_the_number_of_threads():
    program = "import rnnfast; print(rnnfast.get_num_threads())"
    done = process(program, RNNFAST_NUM_THREADS="3")
    assert (done.stdout, done.stderr) == ("3\n", "")
    cores = int(process(program).stdout)
    assert cores == min(_processors.allowed(), _processors.quota(_processors.CPU_MAX))
    for variable in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
        assert process(program, **{variable: "1"}).stdout == "1\n"
        assert process(program, **{variable: str(cores + 1)}).stdout == f"{cores}\n"
    assert process(program, RNNFAST_NUM_THREADS="3", OMP_NUM_THREADS="1").stdout == "3\n"


@pytest.mark.parametrize(
    ("environment", "threads"),
    [
        ({}, sys.maxsize),
        ({"OMP_NUM_THREADS": "3"}, 3),
        ({"OMP_NUM_THREADS": "4,2", "NUMBA_NUM_THREADS": "8"}, 4),
        ({"OMP_NUM_THREADS": "many", "NUMBA_NUM_THREADS": "0"}, sys.maxsize),
    ],
)
def test_variables_of_other_libraries_limit_the_threads(environment, threads):
    assert _processors.share(environment) == threads


@pytest.mark.parametrize(
    ("own", "others", "threads"),
    [
        ({0, 1, 2, 3}, [], 4),
        ({0, 1, 2, 3}, [{0, 1, 2, 3}], 2),
        ({0, 1, 2, 3}, [{0, 1, 2, 3}] * 2, 1),
        ({0, 1}, [{2, 3}], 2),  # bound: nothing to share
        ({0, 1}, [{0, 1}, {2, 3}, {2, 3}], 1),
        (set(range(30)), [set(range(30))] * 2, 10),
        ({0}, [{0}] * 7, 1),
    ],
)
def test_ranks_on_a_machine_share_its_processors(own, others, threads, monkeypatch):
    monkeypatch.setattr(_processors, "numbers", lambda: own)
    monkeypatch.setattr(_processors, "quota", lambda path: sys.maxsize)
    for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    assert _processors.worthwhile_beside(others) == threads
    monkeypatch.setattr(_processors, "quota", lambda path: 1 + len(others))
    assert _processors.worthwhile_beside(others) == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert _processors.worthwhile_beside(others) == 1


def test_only_a_number_of_threads_that_nobody_set_is_shared(monkeypatch):
    monkeypatch.setattr(_processors, "worthwhile_beside", lambda others: 7)
    for given, shared in (("", 7), ("3", 3)):
        monkeypatch.setenv("RNNFAST_NUM_THREADS", given)
        monkeypatch.setattr(_threads, "_threads", None)
        _threads.share_with([{0}])
        assert rnnfast.get_num_threads() == shared
    rnnfast.set_num_threads(5)
    _threads.share_with([{0}])
    assert rnnfast.get_num_threads() == 5


BAD = "RNNFAST_NUM_THREADS must be a whole number of at least 1, got {!r}; unset it to use all cores."


@pytest.mark.parametrize("wrong", ["0", "two", "2.5", "-1"])
def test_a_bad_number_in_the_environment_is_one_sentence(wrong, monkeypatch):
    monkeypatch.setenv("RNNFAST_NUM_THREADS", wrong)
    monkeypatch.setattr(_threads, "_threads", None)
    layer = make("rnn", 3, 5, np.float32)
    xs, state = np.ones((2, 3, 3), np.float32), np.full((2, 5), 0.5, np.float32)
    layer.set_state(state)
    for call in (rnnfast.get_num_threads, lambda: layer.forward(xs)):
        with pytest.raises(ValueError, match="RNNFAST_NUM_THREADS") as caught:
            call()
        assert str(caught.value) == BAD.format(wrong)
    assert_same_bits(layer.h, state)  # nothing was done
    rnnfast.set_num_threads(1)
    layer.forward(xs)


def test_the_command_line_says_a_bad_number_in_the_environment_in_one_line():
    program = "import sys; sys.argv = ['rnnfast', *{!r}]; from rnnfast.cli import main; main()"
    for command in (["train", "no such file"], ["warmup"], ["evaluate", "nowhere"]):
        done = process(program.format(command), RNNFAST_NUM_THREADS="two")
        assert (done.returncode, done.stderr) == (2, f"rnnfast: {BAD.format('two')}\n")
        assert done.stdout == ""
    for command in (["--version"], ["train", "--help"]):
        done = process(program.format(command), RNNFAST_NUM_THREADS="two")
        assert (done.returncode, done.stderr) == (0, "")


def test_a_quota_of_a_container_counts(tmp_path, monkeypatch):
    unknown, path = sys.maxsize, tmp_path / "cpu.max"
    for text, cores in (("200000 100000", 2), ("150000 100000", 2), ("max 100000", unknown), ("?", unknown)):
        path.write_text(f"{text}\n")
        assert _processors.quota(str(path)) == cores
    assert _processors.quota(str(tmp_path / "none")) == unknown
    monkeypatch.setattr(_processors, "CPU_MAX", str(path))
    path.write_text("300000 100000\n")
    monkeypatch.setattr(_processors, "allowed", lambda: 64)
    monkeypatch.setattr(_processors, "fast_cores", lambda: 8)
    assert _processors.worthwhile() == 3
    monkeypatch.setattr(_processors, "fast_cores", lambda: 2)
    assert _processors.worthwhile() == 2


@pytest.mark.parametrize(
    ("status", "found", "cores"), [(0, 6, 6), (-1, 0, sys.maxsize), (0, 0, sys.maxsize)], ids=str
)
def test_efficiency_cores_of_a_mac_do_not_count(status, found, cores):
    asked = []

    class Library:
        @staticmethod
        def sysctlbyname(name, value, size, new, new_size):
            asked.append((name, size._obj.value, new.value, new_size.value))
            value._obj.value = found
            return status

    assert _processors.fast_cores("darwin", Library) == cores
    assert asked == [(b"hw.perflevel0.physicalcpu", 4, None, 0)]
    assert _processors.fast_cores("linux", None) == sys.maxsize
