"""`rnnfast bench`: what it compares, times and prints, with fakes in the place of other libraries."""

import contextlib
import csv
import gc
import io
import os
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
from helpers import needs_jit

import rnnfast
from rnnfast.bench import contenders, measure, timing
from rnnfast.bench import contenders as grid
from rnnfast.bench.contenders import PEERS, Peer, Runs, Shape, own
from rnnfast.bench.measure import BenchFailed, Line, assert_agree, measured
from rnnfast.cells import READY, gru_after, ind_rnn, min_gru
from rnnfast.cli import bench as command
from rnnfast.cli.app import app

SMALL = Shape(2, 3, 4, 5)
TINY = ("--cells", "rnn", "--shapes", "2x3x4x5", "--threads", "1", "--quick")


def fake(error=0.0, pause=0.0, raises=None, cells=None, passes=grid.PASSES):
    """Another library: rnnfast again, which sleeps, does something wrong, or lacks cells or passes."""

    def prepare(problem):
        if raises:
            raise raises
        if cells is not None and problem.cell.name not in cells:
            return None
        runs = own(problem)

        def results(which):
            found = {name: value.copy() for name, value in runs.results(which).items()}
            found["hs"] += error
            return found

        calls = {which: lambda which=which: (time.sleep(pause), runs.calls[which]()) for which in passes}
        return Runs(calls, results)

    return prepare


@pytest.fixture
def peers(monkeypatch):
    """Put fakes, by name, in the place of the real libraries."""

    def install(**prepared):
        found = {name: Peer(name.title(), prepare, ()) for name, prepare in prepared.items()}
        for module in (measure, command):
            monkeypatch.setattr(module, "PEERS", found)
        return found

    monkeypatch.setattr(command, "version", lambda name: "9.9")
    monkeypatch.setattr(command, "_QUICK", (0.0, 2))
    return install


def bench(*arguments):
    """Exit code, stdout and stderr of the command."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as stop:
        app(["bench", *map(str, arguments)], prog_name="rnnfast")
    gc.collect()  # a failure's traceback keeps frozen layers
    return stop.value.code, out.getvalue(), err.getvalue()


# Problems and contenders


@pytest.mark.parametrize("cell", READY, ids=lambda cell: cell.name)
def test_every_ready_cell_is_a_problem_with_the_same_values_every_time(cell):
    first, second = (grid.problem(cell.name, SMALL) for _ in range(2))
    assert [param.shape for param in first.params] == list(cell.shapes(4, 5).values())
    assert all((a == b).all() for a, b in zip(first.params, second.params, strict=True))
    assert all(value.dtype == np.float32 for value in (*first.params, first.xs, first.dhs))


def test_operations_are_those_of_the_products_that_a_cell_has():
    assert grid.operations(gru_after, SMALL, "forward") == 2 * 2 * 3 * 3 * 5 * (4 + 5)
    assert grid.operations(min_gru, SMALL, "both") == 6 * 2 * 3 * 2 * 5 * 4
    assert grid.operations(ind_rnn, SMALL, "forward") == 2 * 2 * 3 * 1 * 5 * 4


def test_inference_is_timed_with_frozen_weights(monkeypatch):
    opened, real = [], rnnfast.Recurrent.frozen

    @contextlib.contextmanager
    def frozen(layer):
        opened.append(layer)
        try:
            with real(layer):
                yield
        finally:
            opened.remove(layer)

    monkeypatch.setattr(rnnfast.Recurrent, "frozen", frozen)
    runs = own(grid.problem("rnn", SMALL))
    assert len(opened) == 1
    assert not opened[0].params[0].flags.writeable
    runs.calls["both"]()  # another layer, since gradients are refused inside
    del runs
    gc.collect()
    assert not opened


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("cell", [*grid.CELLS, "relu", "gru", "leaky"])
def test_an_installed_library_computes_the_same(name, cell):
    if PEERS[name].missing:
        pytest.skip(f"{PEERS[name].title} is not installed")
    problem = grid.problem(cell, Shape(3, 7, 4, 5))
    theirs, ours = PEERS[name].prepare(problem), own(problem)
    if theirs is None:
        assert cell not in grid.CELLS
        return
    for which in theirs.calls:
        assert assert_agree(name, which, theirs.results(which), ours.results(which)) < 1e-5


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"dxs": None}, "has no dxs"),
        ({"hs": np.ones((3, 2))}, "returns hs of shape"),
        ({"dxs": np.ones(4) * 1.001}, "another dxs"),
        ({"hs": np.full((2, 3), np.nan)}, "another hs"),
        ({"db": np.array([0.11])}, "another db"),
    ],
)
def test_results_that_differ_are_refused(changed, words):
    expected = {"hs": np.ones((2, 3)), "dxs": np.ones(4), "dWx": np.full(4, 100.0), "db": np.array([0.1])}
    # The terms of a sum may cancel, so db may differ by rounding errors of the largest result.
    close = expected | {"hs": np.ones((2, 3)) + 1e-6, "db": np.array([0.1001])}
    assert assert_agree("Peer", "rnn", close, expected) == pytest.approx(1e-3)
    actual = {name: value for name, value in (expected | changed).items() if value is not None}
    with pytest.raises(BenchFailed, match=words):
        assert_agree("Peer", "rnn", actual, expected)


# Timing


class Clock:
    """A clock that only moves when it is told to, by powers of two, so that sums are exact."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now

    def work(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(timing, "time", clock)
    return clock


LONG, SHORT = 2.0**-4, 2.0**-11  # longer than calls that are warmed up in each turn, and shorter than a turn


def test_contenders_take_turns_and_each_gets_its_rounds(clock):
    order = []
    calls = {name: lambda name=name: (order.append(name), clock.work(LONG)) for name in "ab"}
    samples = timing.in_turn(calls, 0.0, 3, lambda: order.append("-"))
    assert "".join(order) == "-aa-bb" + "-a-b" * 3  # two calls of each to warm up
    assert samples == {"a": [LONG] * 3, "b": [LONG] * 3}
    assert len(timing.in_turn({"a": lambda: clock.work(LONG)}, 10 * LONG, 3)["a"]) == 10


def test_short_calls_are_repeated_within_a_turn_and_a_time_is_that_of_one(clock):
    counts = Counter()
    assert timing.in_turn({"a": lambda: (counts.update("a"), clock.work(SHORT))}, 0.0, 1) == {"a": [SHORT]}
    repeats = -(-timing.TURN // SHORT)
    assert counts["a"] == 4 + 1 + repeats  # the first four find out how many, the fifth wakes threads


def test_slow_first_calls_after_another_contender_are_not_counted(clock):
    usual = 2.0**-6  # longer than a turn
    slow = {"now": 2}

    def call():
        clock.work(16 * usual if slow["now"] else usual)
        slow["now"] = max(0, slow["now"] - 1)

    assert timing.in_turn({"a": call}, 0.0, 3, lambda: slow.update(now=1)) == {"a": [usual] * 3}


def test_the_garbage_collector_is_off_while_timing_and_as_before_after_an_error():
    seen = []

    def fail():
        seen.append(gc.isenabled())
        if not seen[-1]:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        timing.in_turn({"a": fail}, 0.0, 1)
    assert seen[-1] is False
    assert gc.isenabled()


@needs_jit
def test_the_peak_is_a_few_operations_a_cycle_and_counts_every_thread():
    work, operations = timing.peak_work(1)
    seconds = timing.in_turn({"peak": work}, 0.0, 3)["peak"]
    assert 1e9 < operations / min(seconds) < 1e12
    assert 1.2 < timing.peak_work(2)[1] / operations < 3.5


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="this system does not pin threads")
def test_all_threads_are_pinned_and_set_free():
    def allowed():
        return {frozenset(os.sched_getaffinity(int(thread))) for thread in os.listdir("/proc/self/task")}

    rnnfast.TimeRNN.from_sizes(64, 256).forward(np.zeros((64, 32, 64), np.float32))  # starts threads
    with timing.pinned(1):
        assert allowed() == {frozenset(timing.CORES[:1])}
    assert allowed() == {frozenset(timing.CORES)}


# Lines


def test_a_line_has_medians_ratios_and_the_share_of_the_peak(peers, monkeypatch):
    samples = {"rnnfast": [2.0, 1.0, 9.0], "other": [5.0, 6.0, 7.0], "peak": [0.5, 0.5, 0.75]}
    monkeypatch.setattr(measure, "in_turn", lambda calls, *_: {name: list(samples[name]) for name in calls})
    monkeypatch.setattr(measure, "peak_work", lambda threads: (lambda: None, 360))
    peers(other=fake(cells=["rnn"], passes=["both"]))
    before = rnnfast.get_num_threads()
    lines = list(measured(["rnn", "leaky"], [SMALL], 1, ["other"]))
    assert rnnfast.get_num_threads() == before
    assert [(line.cell, line.which, line.ratios) for line in lines] == [
        ("rnn", "forward", {}),
        ("rnn", "both", {"other": 3.0}),
        ("leaky", "forward", {}),
        ("leaky", "both", {}),
    ]
    rate = 6 * 2 * 3 * 5 * (4 + 5) / 2.0
    assert lines[1].share == pytest.approx(rate / (360 / 0.5))
    assert lines[1].noise == pytest.approx(0.4)


# The command


def test_the_table_and_the_file_have_the_same_lines(peers, tmp_path):
    peers(slow=fake(pause=0.01), onnx=fake(passes=["forward"]))
    code, out, err = bench(*TINY, "--csv", tmp_path / "lines.csv")
    assert (code, err) == (0, "")
    assert "Slow 9.9, Onnx 9.9" in out
    table = [line.split() for line in out.splitlines() if line.startswith(("cell ", "rnn  "))]
    with open(tmp_path / "lines.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert table[0] == ["cell", "NxTxDxH", "pass", "threads", "ms", "of", "peak", "Slow", "Onnx"]
    assert [len(line) for line in table[1:]] == [8, 7]
    for line, row in zip(table[1:], rows, strict=True):
        assert line[:4] == [row["cell"], "x".join(row[name] for name in "NTDH"), row["pass"], row["threads"]]
        assert float(line[4]) == pytest.approx(float(row["rnnfast_ms"]), rel=0.01)
        assert float(line[6]) == pytest.approx(float(row["slow_ratio"]), rel=0.01, abs=0.01)
        assert float(row["slow_ms"]) > 10
        assert float(row["slow_ratio"]) > 1
    assert [bool(row["onnx_ms"]) for row in rows] == [True, False]
    assert "rnn, threads 1: geometric mean of ratios to the fastest library" in out


@pytest.mark.parametrize("options", [(), ("--peers", "none")])
def test_without_another_library_there_are_figures_of_rnnfast_alone(peers, options):
    peers()["absent"] = Peer("Absent", fake(), ("no_such_library",))
    code, out, err = bench(*TINY, *options)
    assert (code, err) == (0, "")
    assert "No other library was measured: these are the figures of rnnfast alone." in out
    assert ("not installed here: Absent (pip install no_such_library)" in out) == (not options)


@pytest.mark.parametrize(
    ("special", "words"),
    [
        ({"error": 0.01}, "computes another hs"),
        ({"raises": ArithmeticError("never")}, "ArithmeticError: never"),
    ],
)
def test_a_library_that_fails_or_differs_is_named_in_one_line(peers, special, words):
    peers(bad=fake(**special))
    code, _, err = bench(*TINY)
    assert (code, err.count("\n")) == (1, 1)
    assert err.startswith("rnnfast: Bad ")
    assert words in err


def test_lines_before_an_interruption_are_kept(peers, tmp_path, monkeypatch):
    def one_line(*_):
        yield Line("rnn", SMALL, "forward", 1, {"rnnfast": 1.0}, 0.5, 0.0)
        raise KeyboardInterrupt

    peers()
    monkeypatch.setattr(command, "measured", one_line)
    code, _, err = bench(*TINY, "--csv", tmp_path / "lines.csv")
    assert (code, err.count("\n")) == (130, 1)
    assert len((tmp_path / "lines.csv").read_text().splitlines()) == 2


@pytest.mark.parametrize(("noise", "warned"), [(0.02, False), (0.2, True)])
def test_a_noisy_machine_is_told(noise, warned):
    line = Line("rnn", SMALL, "forward", 1, {"rnnfast": 1.0, "torch": 2.0}, 0.5, noise)
    assert ("This machine is noisy" in command._conclusion([line])[-1]) == warned


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--cells", "rn"), "--cells must be one of rnn, relu, lstm, gru, "),
        (("--cells", "no_such_module:mine"), "--cells must be module:name of a cell of your own, got"),
        (("--shapes", "1x2x3"), "--shapes must be NxTxDxH"),
        (("--shapes", "0x1x1x1"), "--shapes must be NxTxDxH"),
        (("--shapes", ","), "--shapes must name at least one"),
        (("--threads", "0"), "whole numbers of at least 1, got '0'"),
        (("--threads", "9999"), "--threads must be at most"),
        (("--peers", "theano"), "--peers must be among torch, jax, onnxruntime, or none, got 'theano'"),
        (("--peers", "none", "--csv", f"{os.devnull}/x"), "Not a directory"),
        (("--random", "3"), "No such option: --random"),
    ],
)
def test_impossible_options_are_refused_in_one_line(arguments, words):
    code, out, err = bench(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words in err


def test_a_named_peer_that_is_not_installed_is_refused_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(PEERS, "jax", Peer("JAX", contenders.jax, ("no_such_library",)))
    code, _, err = bench("--peers", "jax")
    assert (code, err) == (2, "rnnfast: JAX is not installed here: pip install no_such_library\n")


def test_a_cell_of_ones_own_is_measured_too(peers, tmp_path, monkeypatch):
    (tmp_path / "cells_of_this_bench.py").write_text(
        "import rnnfast\nfrom rnnfast.cells import tanh\n"
        "@rnnfast.cell(states=('h',))\ndef Mine(a, h):\n    return tanh(a) - h\n"
    )
    monkeypatch.chdir(tmp_path)
    peers()
    code, out, err = bench(*TINY, "--cells", "cells_of_this_bench:Mine,rnn")
    assert (code, err) == (0, "")
    assert [
        sum(line.startswith(name) for line in out.splitlines())
        for name in ("cells_of_this_bench:Mine ", "rnn ")
    ] == [2, 2]


def test_no_other_library_is_imported_before_it_is_measured():
    code = "import sys, rnnfast.cli.bench; print(*{'torch', 'jax', 'onnxruntime', 'onnx'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
