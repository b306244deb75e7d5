"""`rnnfast bench`: what it measures and says, with fakes where no other library is installed."""

import contextlib
import gc
import importlib.util
import io
import json
import os
import subprocess
import sys

import matplotlib.image
import numpy as np
import pytest

import rnnfast
from rnnfast.bench import contenders, grid, own, report, runner, summary, worker
from rnnfast.bench.contenders import PEERS, Peer, WrongResult, assert_agree
from rnnfast.bench.grid import ModelSize, Shape
from rnnfast.cli.app import app

SMALL = Shape(2, 3, 4, 5)
SMALL_MODEL = ModelSize("lstm", 2, 7, 5, 2, 3)
TINY = ("--cells", "rnn", "--shapes", "2x3x4x5", "--threads", "1", "--seconds", "0")

# Another library: rnnfast again, which sleeps, or does something wrong.
FAKE = """
import os, time
from rnnfast.bench import own
from rnnfast.bench.contenders import Runs

def start(threads):
    if {dies}:
        os._exit(7)
    return "9.9"

def _slower(runs):
    def results(which):
        found = {{name: value.copy() for name, value in runs.results(which).items()}}
        next(iter(found.values()))[...] += {error}
        return found
    def slow(call):
        return lambda: (time.sleep({pause}), call())
    if {raises}:
        raise ArithmeticError("it cannot")
    return Runs({{name: slow(call) for name, call in runs.calls.items()}}, results)

def layer(problem):
    if {cells} and problem.cell.name not in {cells}:
        return None
    return _slower(own.layer(problem))

def language_model(problem):
    return _slower(own.language_model(problem)) if {models} else None
"""


@pytest.fixture
def fake_peer(tmp_path, monkeypatch):
    """Put fake libraries, by name with what is special about each, in the place of the real ones."""

    def install(**libraries):
        for name, special in libraries.items():
            settings = {
                "dies": False,
                "error": 0.0,
                "pause": 0.0,
                "raises": False,
                "models": False,
                "cells": [],
                **special,
            }
            (tmp_path / f"fake_{name}.py").write_text(FAKE.format(**settings))
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        for name in libraries:
            monkeypatch.delitem(sys.modules, f"fake_{name}", raising=False)
        peers = {name: Peer(name.title(), f"fake_{name}", ()) for name in libraries}
        for module in (contenders, report, runner, summary):
            monkeypatch.setattr(module, "PEERS", peers)
        return {name: {"title": peer.title, "module": peer.module} for name, peer in peers.items()}

    return install


def plan(**changes):
    """What a worker is told, for one tiny layer."""
    given = {"threads": 1, "peers": {}, "cells": ["rnn"], "shapes": [SMALL], "passes": ["forward", "both"]}
    return {**given, "models": [], "seconds": 0.0, "rounds": 3, "check": False, **changes}


def events_of(given):
    """What a worker says, run in this process."""
    events = []
    worker.Worker(given, events.append).run()
    return events


def of_kind(events, kind):
    return [event for event in events if event["event"] == kind]


def rnnfast_bench(*arguments):
    """Exit code, stdout and stderr of the command."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as exit_info,
    ):
        app(["bench", *map(str, arguments)], prog_name="rnnfast")
    return exit_info.value.code, out.getvalue(), err.getvalue()


# The grid


def test_the_grid_is_three_cells_nine_shapes_and_two_passes():
    assert (grid.CELLS, grid.PASSES) == (("rnn", "lstm", "gru_after"), ("forward", "both"))
    assert len(set(grid.SHAPES)) == 9
    assert set(grid.QUICK_SHAPES) <= set(grid.SHAPES)
    assert [(m.cell, m.layers, m.V, m.H) for m in grid.MODELS] == [
        ("rnn", 1, 10_000, 100),
        ("lstm", 1, 10_000, 100),
        ("lstm", 2, 10_000, 650),
        ("lstm", 2, 65, 128),
    ]


def test_a_problem_has_the_same_values_every_time_and_the_threads_it_was_given():
    first, second = (grid.layer_problem("gru_after", SMALL, threads=2) for _ in range(2))
    assert [p.shape for p in first.params] == [(4, 15), (5, 15), (15,), (5,)]
    assert all((a == b).all() for a, b in zip(first.params, second.params, strict=True))
    assert (first.xs == second.xs).all()
    assert (first.threads, first.xs.dtype) == (2, np.float32)


def test_the_gradients_of_a_language_model_change_no_weight_and_a_step_changes_all():
    runs = own.language_model(grid.model_problem(SMALL_MODEL))
    before = runs.results("gradients")
    runs.calls["gradients"]()
    again = runs.results("gradients")
    assert all((before[name] == again[name]).all() for name in before)
    runs.calls["step"]()
    assert runs.results("step")["loss"] < before["loss"]


def test_inference_is_timed_with_frozen_weights(monkeypatch):
    def frozen(layer):
        opened.append(layer)
        try:
            with real(layer):
                yield
        finally:
            opened.remove(layer)

    opened, real = [], rnnfast.Recurrent.frozen
    monkeypatch.setattr(rnnfast.Recurrent, "frozen", contextlib.contextmanager(frozen))
    runs = own.layer(grid.layer_problem("rnn", SMALL))
    assert len(opened) == 1
    assert not opened[0].params[0].flags.writeable
    runs.calls["both"]()  # another layer, since gradients are refused inside
    del runs
    gc.collect()
    assert not opened


# Agreement before timing


def test_results_that_differ_are_refused_whatever_is_wrong_with_them():
    expected = {"hs": np.ones((2, 3)), "dxs": np.ones(4)}
    assert assert_agree(
        "P", "w", {"hs": np.ones((2, 3)) + 1e-6, "dxs": np.ones(4)}, expected
    ) == pytest.approx(1e-6)
    wrong = {
        "no dxs": {"hs": np.ones((2, 3))},
        "returns hs of shape": {"hs": np.ones((3, 2)), "dxs": np.ones(4)},
        "another dxs": {"hs": np.ones((2, 3)), "dxs": np.ones(4) * 1.001},
        "another hs": {"hs": np.full((2, 3), np.nan), "dxs": np.ones(4)},
    }
    for words, actual in wrong.items():
        with pytest.raises(WrongResult, match=words):
            assert_agree("P", "w", actual, expected)


# What a worker says


def test_a_worker_compares_and_then_times_each_line_in_turn_with_the_others(fake_peer):
    peers = fake_peer(slow={"pause": 0.01})
    events = events_of(plan(peers=peers))
    assert [event["event"] for event in events if event["event"] not in ("compiling", "compiled")] == [
        "started",
        *["measuring", "layer"] * 2,
        "done",
    ]
    assert of_kind(events, "started")[0]["versions"]["slow"] == "9.9"
    for line, which in zip(of_kind(events, "layer"), ("forward", "both"), strict=True):
        times = line["contenders"]
        assert (line["cell"], line["shape"], line["pass"]) == ("rnn", list(SMALL), which)
        assert line["ratios"]["slow"] == times["slow"]["median"] / times["rnnfast"]["median"] > 1
        assert times["slow"]["median"] > 0.01
        expected = grid.operations("rnn", SMALL, which) / times["rnnfast"]["median"] / line["peak"]
        assert line["share"] == expected
        assert line["differences"] == {"slow": 0.0}
    assert len(of_kind(events, "done")[0]["peaks"]) >= 2


def test_a_language_model_is_compared_with_the_peers_that_have_one(fake_peer):
    peers = fake_peer(able={"models": True, "pause": 0.001}, unable={})
    lines = of_kind(events_of(plan(peers=peers, cells=[], models=[SMALL_MODEL])), "model")
    assert [line["pass"] for line in lines] == ["gradients", "step"]
    for line in lines:
        assert set(line["ratios"]) == {"able"}
        assert line["tokens_per_second"]["able"] == 6 / line["contenders"]["able"]["median"]
        assert ModelSize(*(line[name] for name in ModelSize._fields)) == SMALL_MODEL


def test_a_library_that_computes_something_else_is_not_timed(fake_peer):
    with pytest.raises(WrongResult, match=r"Wrong computes another hs for rnn \(2, 3, 4, 5\) forward"):
        events_of(plan(peers=fake_peer(wrong={"error": 0.01})))


def test_sums_whose_terms_cancel_may_differ_by_rounding():
    expected = {"hs": np.ones(3), "dWx": np.full(4, 100.0), "db": np.array([0.1])}
    actual = {**expected, "db": np.array([0.1001])}
    assert assert_agree("Peer", "rnn", actual, expected) == pytest.approx(1e-3)
    for wrong in (0.0, 0.11, np.nan):
        with pytest.raises(WrongResult, match="another db"):
            assert_agree("Peer", "rnn", {**expected, "db": np.array([wrong])}, expected)


def test_a_library_without_a_cell_is_left_out_where_it_is_measured(fake_peer):
    peers = fake_peer(able={}, unable={"cells": ["rnn"]})
    lines = of_kind(events_of(plan(peers=peers, cells=["rnn", "leaky"], passes=["both"])), "layer")
    assert [(line["cell"], set(line["ratios"])) for line in lines] == [
        ("rnn", {"able", "unable"}),
        ("leaky", {"able"}),
    ]


def test_a_library_that_fails_is_named_with_its_reason(fake_peer):
    with pytest.raises(worker.ContenderFailed, match="Bad failed with ArithmeticError: it cannot"):
        events_of(plan(peers=fake_peer(bad={"raises": True})))


def test_a_check_times_nothing(fake_peer):
    lines = of_kind(events_of(plan(peers=fake_peer(same={}), check=True)), "layer")
    assert [sorted(line) for line in lines] == [
        sorted(["event", "cell", "shape", "pass", "operations", "differences"])
    ] * 2


def test_the_environment_of_a_worker_binds_every_library_to_its_threads(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--mine")
    one, three = runner.environment(1), runner.environment(3)
    assert {one[n] for n in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NPROC", "RNNFAST_NUM_THREADS")} == {"1"}
    assert three["OMP_NUM_THREADS"] == "3"
    assert one["XLA_FLAGS"] == "--mine --xla_cpu_multi_thread_eigen=false"
    assert three["XLA_FLAGS"] == "--mine"


# The command


def test_without_another_library_the_command_gives_figures_of_rnnfast_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(grid, "MODELS", (SMALL_MODEL,))
    for module in (contenders, report, runner, summary):
        monkeypatch.setattr(module, "PEERS", {"absent": Peer("Absent", "absent", ("no_such_library",))})
    code, out, err = rnnfast_bench(*TINY, "--models", "--out", tmp_path)
    assert (code, err) == (0, "")
    assert "No other library was measured: these are the figures of rnnfast alone." in out
    assert "not installed here: Absent (pip install no_such_library)" in out
    assert {path.name for path in tmp_path.iterdir()} == {"bench.json", "bench.md", "bench.png"}
    found = json.loads((tmp_path / "bench.json").read_text())
    assert found["complete"] is True
    assert [line["pass"] for run in found["runs"] for line in run["layers"]] == ["forward", "both"]
    assert [line["pass"] for run in found["runs"] for line in run["models"]] == ["gradients", "step"]
    assert found["summary"]["ratios"] == []
    assert found["machine"]["versions"]["numpy"] == np.__version__
    assert "### RNN, 1 thread" in (tmp_path / "bench.md").read_text()
    assert matplotlib.image.imread(tmp_path / "bench.png").shape[0] > 300


def test_peers_that_are_named_take_part_and_files_go_where_they_are_sent(fake_peer, tmp_path):
    fake_peer(slow={"pause": 0.01}, idle={})
    files = {name: tmp_path / "deep" / name for name in ("json", "markdown", "chart")}
    options = [word for name, path in files.items() for word in (f"--{name}", path)]
    code, out, err = rnnfast_bench(*TINY, "--peers", "slow", "--goal", "0.5", *options)
    assert (code, err) == (0, "")
    assert "1 thread, 2/2: rnn (2, 3, 4, 5) fwd + bwd: " in out
    assert "No ratio to the fastest peer is below 0.5." in out
    assert "the fastest  " not in out
    assert [path.exists() for path in files.values()] == [True] * 3
    assert set(json.loads(files["json"].read_text())["runs"][0]["versions"]) == {"rnnfast", "slow"}


def test_a_check_says_how_well_results_agree_and_writes_nothing(fake_peer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fake_peer(same={"error": 1e-7})
    code, out, _ = rnnfast_bench(*TINY[:-2], "--check")
    assert code == 0
    assert "Same computes the same in all 2 cases; the largest difference is " in out
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("special", "words"),
    [
        ({"error": 0.01}, "computes another hs"),
        ({"raises": True}, "ArithmeticError"),
        ({"dies": True}, "code 7"),
    ],
)
def test_what_a_library_does_wrong_is_said_in_one_line(fake_peer, tmp_path, special, words):
    fake_peer(bad=special)
    code, _, err = rnnfast_bench(*TINY, "--out", tmp_path)
    assert code == 1
    assert err.count("\n") == 1
    assert err.startswith("rnnfast: ")
    assert words in err


def test_figures_before_an_interruption_are_kept(tmp_path, monkeypatch):
    def measure(settings, runs, watch):
        runs.append({"threads": 1, "layers": [{"cell": "rnn"}], "models": []})
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "measure", measure)
    code, _, err = rnnfast_bench(*TINY, "--peers", "none", "--out", tmp_path)
    assert (code, err.count("\n")) == (130, 1)
    assert str(tmp_path / "bench.json") in err
    found = json.loads((tmp_path / "bench.json").read_text())
    assert (found["complete"], len(found["runs"][0]["layers"])) == (False, 1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--cells", "rn"), "cells must be one of rnn, relu, lstm, gru, "),
        (("--cells", "none"), "nothing to measure without --models"),
        (("--shapes", "1x2x3"), "--shapes must be NxTxDxH"),
        (("--shapes", "0x1x1x1"), "--shapes must be NxTxDxH"),
        (("--shapes", ","), "at least one"),
        (("--passes", "back"), "passes must be one of forward, both"),
        (("--threads", "0"), "whole numbers of at least 1, got '0'"),
        (("--threads", "9999"), "--threads must be at most"),
        (("--peers", "theano"), "peers must be among torch, jax, onnxruntime, or none, got 'theano'"),
        (("--seconds", "-1"), "--seconds must be at least 0, got -1"),
        (("--peers", "none", "--out", f"{os.devnull}/x"), "Not a directory"),
    ],
)
def test_options_that_cannot_be_are_refused_in_one_line(arguments, words):
    code, out, err = rnnfast_bench(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words in err


def test_a_peer_that_is_not_installed_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(PEERS, "jax", Peer("JAX", "rnnfast.bench.jax_peer", ("no_such_library",)))
    code, _, err = rnnfast_bench("--peers", "jax")
    assert (code, err) == (2, "rnnfast: JAX is not installed here: pip install no_such_library\n")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not pin processes")
def test_a_worker_is_pinned_and_its_parent_is_not_changed(monkeypatch):
    before = os.sched_getaffinity(0)
    core = min(before)
    asked, real = [], os.sched_setaffinity

    def noted(pid, cores):
        asked.append(set(cores))
        real(pid, cores)

    monkeypatch.setattr(os, "sched_setaffinity", noted)
    with runner._pinned([core]):
        code = "import os; print(*os.sched_getaffinity(0))"
        seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert seen.split() == [str(core)]
    assert asked == [{core}, before]
    assert os.sched_getaffinity(0) == before


def test_only_a_contender_that_is_used_is_imported():
    code = "import sys, rnnfast.cli.bench; print(*{'torch', 'jax', 'onnxruntime', 'onnx'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
    assert importlib.util.find_spec("rnnfast.bench.torch_peer") is not None
