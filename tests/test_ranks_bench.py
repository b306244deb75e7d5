"""`rnnfast bench --ranks` under MPI: one and two ranks, a tiny model."""

import os

import pytest
from ranks_helpers import ALLOWED, ROOT, launcher, needs_ranks

from rnnfast.bench import ranks_runner
from rnnfast.bench.grid import ModelSize

SIZE = ModelSize("lstm", 1, 50, 8, 16, 4)


@needs_ranks
def test_one_and_two_ranks_are_timed_and_compared_with_the_model(monkeypatch):
    for name, value in ALLOWED.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    settings = ranks_runner.Settings([1, 2], [launcher()], [SIZE], 4, [1000, 2000], seconds=0.0, rounds=1)
    record, seen = {}, []
    ranks_runner.measure(settings, record, lambda ranks, event: seen.append((ranks, event["event"])))
    kinds = [entry for entry in seen if entry[1] not in ("compiling", "compiled")]
    assert kinds == [
        *[(1, kind) for kind in ("memory", "rates", "step", "step")],
        *[(2, kind) for kind in ("memory", "sum", "sum", "step")],
    ]
    assert [(line["ranks"], line["blocks"]) for line in record["steps"]] == [(1, 1), (1, 4), (2, 4)]
    assert all(line["ratio"] > 0 for line in record["steps"])
    assert [(line["ranks"], line["numbers"]) for line in record["sums"]] == [(2, 1000), (2, 2000)]


@needs_ranks
def test_a_launcher_that_starts_ranks_apart_is_told(tmp_path):
    """Ranks that do not find each other would each measure one rank."""
    alone = tmp_path / "launcher"
    alone.write_text('#!/bin/sh\nshift 2\nexec "$@"\n')
    alone.chmod(0o755)
    settings = ranks_runner.Settings([1, 2], [str(alone)], [], 8, [10], rounds=1)
    with pytest.raises(ranks_runner.BenchFailed, match="2 ranks were started and 1 found each other"):
        ranks_runner.measure(settings, {}, lambda ranks, event: None)
