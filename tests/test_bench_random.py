"""`rnnfast bench --random`: the drawn shapes, what is counted, and what is shown."""

import contextlib
import io
import itertools
import json

import matplotlib.image
import numpy as np
import pytest

from rnnfast.bench import grid, random_report, runner
from rnnfast.cli.app import app

PEERS = {"torch": 4.0, "jax": 6.0}  # their milliseconds for each shape


def bench(*arguments):
    """Exit code, stdout and stderr of the command."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as stop:
        app(["bench", *map(str, arguments)], prog_name="rnnfast")
    return stop.value.code, out.getvalue(), err.getvalue()


def measured(cells, shapes, seconds, threads=1):
    """A run in which rnnfast takes these seconds, in turn, for each cell, shape and pass."""
    layers, times = [], iter(seconds)
    for cell in cells:
        for shape in shapes:
            for which in grid.PASSES:
                own = next(times)
                layers.append(
                    {
                        "cell": cell,
                        "shape": list(shape),
                        "pass": which,
                        "share": 0.5,
                        "contenders": {
                            "rnnfast": {"median": own},
                            **{name: {"median": value / 1e3} for name, value in PEERS.items()},
                        },
                        "ratios": {name: value / 1e3 / own for name, value in PEERS.items()},
                        "differences": {},
                    }
                )
    return {
        "threads": threads,
        "pinned": [0],
        "versions": {"rnnfast": "1", **dict.fromkeys(PEERS, "2")},
        "layers": layers,
        "models": [],
        "peak": {"median": 1e11},
        "noise": 0.01,
        "noisy": False,
    }


def test_random_shapes_are_log_uniform_within_their_bounds_and_repeat_for_a_seed():
    shapes = grid.random_shapes(300, seed=1)
    assert shapes == grid.random_shapes(300, seed=1)
    assert shapes[:5] == grid.random_shapes(5, seed=1)
    assert shapes != grid.random_shapes(300, seed=2)
    assert len(set(shapes)) == 300
    sizes = np.array(shapes)
    assert (sizes >= 1).all()
    assert (sizes <= grid.RANDOM_SIZES).all()
    N, T, D, H = sizes.T
    assert (N * T * H * (D + H)).max() <= grid.MOST_PRODUCTS
    assert (N * T * D).max() <= grid.MOST_INPUTS
    assert max(grid.operations("lstm", shape, "both") for shape in shapes) <= 24 * grid.MOST_PRODUCTS
    # Half of log-uniform sizes are below the root of the largest, more where large shapes are drawn again.
    below = (sizes < np.sqrt(grid.RANDOM_SIZES)).mean(axis=0)
    assert (below > 0.45).all()
    assert (below < 0.75).all()


def test_ratios_to_the_fastest_peer_are_counted_by_cell_threads_and_pass():
    shapes = grid.random_shapes(2, seed=0)
    runs = [measured(["rnn"], shapes, [0.002, 0.001, 0.008, 0.004])]
    found = {entry["pass"]: entry for entry in random_report.counts(runs, goal=1.0)}
    assert {which: (entry["lines"], entry["below"]) for which, entry in found.items()} == {
        "forward": (2, 1),
        "both": (2, 0),
        None: (4, 1),
    }
    assert found["forward"]["mean"] == pytest.approx((2 * 0.5) ** 0.5)
    assert found["both"]["mean"] == pytest.approx((4 * 1) ** 0.5)
    assert found[None]["least"] == pytest.approx(0.5)
    assert found[None]["where"] == f"{shapes[1]} forward"
    assert random_report.counts(runs, goal=1.001)[-1]["below"] == 2


def test_the_command_measures_the_drawn_shapes_and_shows_the_lowest_ratios(tmp_path, monkeypatch):
    def measure(settings, runs, watch):
        asked.append(settings)
        seconds = (0.001 * np.arange(1, 1 + 4 * len(settings.shapes))).tolist()
        runs.append(measured(settings.cells, settings.shapes, seconds))

    asked = []
    monkeypatch.setattr(runner, "measure", measure)
    options = ("--cells", "rnn,lstm", "--peers", "none", "--out", tmp_path)
    code, out, err = bench("--random", 9, "--seed", 5, *options)
    assert (code, err) == (0, "")
    assert asked[0].shapes == grid.random_shapes(9, seed=5)
    assert "9 random shapes, the same for each cell, from seed 5: N from 1 to 512, T to 400, " in out
    assert "RNN, 1 thread: the 10 lowest ratios" in out
    found = json.loads((tmp_path / "bench.json").read_text())
    assert (found["settings"]["random"], found["settings"]["seed"]) == (9, 5)
    assert [entry["below"] for entry in found["summary"]["random"]] == [7, 7, 14, 9, 9, 18]
    parts = (tmp_path / "bench.md").read_text().split("\n\n")
    tables = dict(itertools.pairwise(parts))
    lowest = tables["### LSTM, 1 thread: the 10 lowest ratios"].split("\n")[2:]
    assert len(lowest) == 10
    assert lowest[0] == f"| {asked[0].shapes[-1]} | fwd + bwd | 36.0 | PyTorch | 4.00 | 0.11 | 50% |"
    assert len(tables["### LSTM, 1 thread"].split("\n")) == 20
    assert matplotlib.image.imread(tmp_path / "bench.png").shape[0] > 300


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--random", "0"), "--random must be at least 1, got 0"),
        (("--random", "2", "--shapes", "1x1x1x1"), "--shapes has no effect with --random"),
        (("--seed", "2"), "--seed has no effect without --random"),
        (("--random", "2", "--ranks", "1"), "--random has no effect with --ranks"),
    ],
)
def test_options_that_do_not_go_with_random_shapes_are_refused(arguments, words):
    code, out, err = bench(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words in err
