"""The scripts beside `rnnfast bench`, in asv_benchmarks/: random shapes, language models, ranks."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from ranks_helpers import needs_ranks, run_ranks

import rnnfast
from rnnfast.bench import measure
from rnnfast.bench.contenders import Peer, Shape, own
from rnnfast.bench.measure import Line

ROOT = Path(__file__).resolve().parents[2]
SMALL = Shape(2, 3, 4, 5)


def script(name):
    """A module of asv_benchmarks/."""
    spec = importlib.util.spec_from_file_location(f"bench_{name}", ROOT / "asv_benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_random_shapes_repeat_for_a_seed_and_ratios_below_one_are_counted(monkeypatch, capsys):
    random_shapes = script("random_shapes")
    shapes = random_shapes.drawn(300, seed=1)
    assert shapes[:5] == random_shapes.drawn(5, seed=1) != random_shapes.drawn(5, seed=2)
    assert len(set(shapes)) == 300
    assert (np.array(shapes) >= 1).all()
    assert (np.array(shapes) <= random_shapes.LARGEST).all()
    N, T, D, H = np.array(shapes).T
    assert (N * T * H * (D + H)).max() <= random_shapes.MOST_PRODUCTS
    lines = [
        Line("rnn", SMALL, "forward", 1, {"rnnfast": own, "a": 4.0, "b": 6.0}, 0.5, 0.0) for own in (2.0, 8.0)
    ]
    assert list(random_shapes.counts(lines, ["a", "b"])) == [
        "rnn        forward  a 1.00, 1 of 2   b 1.50, 1 of 2   the fastest 1.00, 1 of 2"
    ]
    for module in (measure, random_shapes):
        monkeypatch.setattr(module, "PEERS", {"other": Peer("Other", own, ())})
    random_shapes.main(["--count", "1", "--cells", "rnn", "--seconds", "0"])
    assert "The lowest ratios to the fastest library:" in capsys.readouterr().out


def test_language_models_are_timed_beside_pytorch(monkeypatch, capsys):
    pytest.importorskip("torch")
    language_models = script("language_models")
    monkeypatch.setattr(language_models, "SIZES", [("lstm", 2, 7, 5, 2, 3), ("rnn", 1, 7, 5, 2, 3)])
    before = rnnfast.get_num_threads()
    try:
        language_models.main(["--seconds", "0"])
    finally:
        rnnfast.set_num_threads(before)
    assert capsys.readouterr().out.count("ratio") == 2


@needs_ranks
@pytest.mark.parametrize("count", [1, 2])
def test_steps_and_sums_are_timed_on_ranks(count):
    done = run_ranks(count, "-m", "mpi4py", ROOT / "asv_benchmarks" / "ranks.py", "--quick", "--steps", 5)
    assert done.code == 0, done.err
    assert ("1 blocks" in done.out, "Allreduce" in done.out) == (count == 1, count == 2)
