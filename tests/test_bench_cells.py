"""`rnnfast bench` and cells: each ready one, those that other libraries have, and a user's own."""

import contextlib
import io

import numpy as np
import pytest
import reference
from helpers import relative_distance

from rnnfast.bench import contenders, grid, own, summary
from rnnfast.bench.contenders import PEERS, assert_agree
from rnnfast.bench.grid import Shape
from rnnfast.cells import READY
from rnnfast.cli.app import app
from rnnfast.interop.layouts import LAYOUTS

SMALL = Shape(2, 3, 4, 5)
TINY = ("--shapes", "2x3x4x5", "--threads", "1", "--seconds", "0")


def bench(*arguments):
    """Exit code, stdout and stderr of the command."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as stop:
        app(["bench", *map(str, arguments)], prog_name="rnnfast")
    return stop.value.code, out.getvalue(), err.getvalue()


@pytest.mark.parametrize("cell", grid.CELLS)
def test_rnnfast_as_a_contender_computes_what_the_equations_say(cell):
    problem = grid.layer_problem(cell, SMALL)
    wide = [param.astype(np.float64) for param in problem.params]
    if cell == "gru_after":
        twin = reference.TimeGRU(*wide[:3], reset="after", bhh=wide[3])
    else:
        twin = {"rnn": reference.TimeRNN, "lstm": reference.TimeLSTM}[cell](*wide)
    expected = {"hs": twin.forward(problem.xs.astype(np.float64))}
    expected["dxs"] = twin.backward(problem.dhs.astype(np.float64))
    expected |= dict(zip(("dWx", "dWh", "db", "dbhh"), twin.grads, strict=False))
    runs = own.layer(problem)
    actual = runs.results("both")
    assert list(actual) == list(expected)
    assert {
        name: relative_distance(actual[name], expected[name]) < 1e-5 for name in expected
    } == dict.fromkeys(expected, True)
    assert list(runs.results("forward")) == ["hs"]
    actual["hs"][...] = np.nan
    runs.calls["both"]()
    assert relative_distance(actual["hs"], expected["hs"]) < 1e-5, "the timed call leaves its results behind"


@pytest.mark.parametrize("cell", READY, ids=lambda cell: cell.name)
def test_every_ready_cell_can_be_measured(cell):
    problem = grid.layer_problem(cell.name, SMALL)
    assert [param.shape for param in problem.params] == list(cell.shapes(4, 5).values())
    found = own.layer(problem).results("both")
    assert set(found) == {"hs", "dxs", *(f"d{name}" for name in cell.shapes(4, 5))}
    assert all(np.isfinite(value).all() for value in found.values())
    assert summary.cell_title(cell.name) == cell.title


def test_operations_are_those_of_the_products_that_a_cell_has():
    assert grid.operations("gru_after", SMALL, "forward") == 2 * 2 * 3 * 3 * 5 * (4 + 5)
    assert grid.operations("min_gru", SMALL, "both") == 6 * 2 * 3 * 2 * 5 * 4
    assert grid.operations("ind_rnn", SMALL, "forward") == 2 * 2 * 3 * 1 * 5 * 4


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("cell", [*grid.CELLS, "relu", "gru", "leaky"])
def test_a_library_that_is_installed_computes_the_same(name, cell):
    peer = PEERS[name]
    if peer.missing:
        pytest.skip(f"{peer.title} is not installed")
    module = contenders.load(peer.module)
    assert module.start(1)
    problem = grid.layer_problem(cell, Shape(3, 7, 4, 5))
    theirs, ours = module.layer(problem), own.layer(problem)
    if theirs is None:
        assert cell not in grid.CELLS
        return
    for which in theirs.calls:
        assert assert_agree(name, which, theirs.results(which), ours.results(which)) < 1e-5


def test_cells_of_ones_own_are_measured_too(tmp_path, monkeypatch):
    (tmp_path / "cells_of_this_bench.py").write_text(
        "import rnnfast\nfrom rnnfast.cells import tanh\n"
        "@rnnfast.cell(states=('h',), title='Mine')\ndef Mine(a, h):\n    return tanh(a) - h\n"
    )
    monkeypatch.chdir(tmp_path)
    told = ("--cells", "cells_of_this_bench:Mine,rnn", *TINY, "--peers", "none", "--out", "found")
    code, out, err = bench(*told)
    assert (code, err) == (0, "")
    assert "Mine, 1 thread" in out
    assert "RNN, 1 thread" in out
    code, _, err = bench("--cells", "cells_of_this_bench:yours")
    assert (code, err.count("\n")) == (2, 1)
    assert "rnnfast: --cells must be module:name of a cell of your own, got" in err


@pytest.mark.parametrize(("name", "library"), [("torch", "torch"), ("onnxruntime", "ONNX")])
def test_peers_lay_gates_out_as_conversions_do(name, library, monkeypatch):
    peer = PEERS[name]
    if peer.missing:
        pytest.skip(f"{peer.title} is not installed")
    module, problem = contenders.load(peer.module), grid.layer_problem("lstm", Shape(3, 7, 4, 5))
    swapped = LAYOUTS[library][problem.cell]._replace(gates="fgio")
    monkeypatch.setitem(LAYOUTS[library], problem.cell, swapped)
    actual, expected = module.layer(problem).results("forward"), own.layer(problem).results("forward")
    assert np.abs(actual["hs"] - expected["hs"]).max() > 1e-3
