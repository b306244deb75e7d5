"""Starts a worker for each number of threads, pins it, and collects its results."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from rnnfast.bench import machine
from rnnfast.bench.contenders import PEERS
from rnnfast.bench.grid import ModelSize, Shape
from rnnfast.bench.timing import distribution, spread

NOISY = 0.05  # spread of repeated work above which the figures are reported as uncertain

_THREAD_VARIABLES = (
    "RNNFAST_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
    "NPROC",  # for XLA
)

Watch = Callable[[int, dict[str, Any]], object]


class BenchFailed(RuntimeError):
    """A worker failed; the message has the reason.

    Attributes
    ----------
    details : str
        Its output before an unexpected end.
    """

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details


@dataclass(frozen=True)
class Settings:
    """The problems to measure, and for how long.

    Parameters
    ----------
    cells, shapes, passes, models
        The grid.
    threads : list of int
        A worker for each.
    peers : list of str
        Names of `contenders.PEERS`.
    seconds : float
        Time for each line of the table, all contenders together.
    rounds : int
        Least number of turns of each contender.
    check : bool
        Whether to compare results without timing.
    """

    cells: list[str]
    shapes: list[Shape]
    passes: list[str]
    threads: list[int]
    peers: list[str]
    models: list[ModelSize] = field(default_factory=list)
    seconds: float = 2.0
    rounds: int = 5
    check: bool = False


def measure(settings: Settings, runs: list[dict[str, Any]], watch: Watch) -> None:
    """Measure the grid first, then the language models, whose times depend on earlier allocations.

    Parameters
    ----------
    settings : Settings
    runs : list of dict
        A dict is appended for each worker and filled while it works: ``threads``, ``pinned`` (cores, or None
        if pinning is impossible), ``versions`` by contender, ``layers`` and ``models`` (the lines of the
        tables, see `worker.py`), ``peak``, ``noise`` and ``noisy``.
    watch : callable
        Called with the number of threads and each event.

    Raises
    ------
    BenchFailed
        A contender failed, or its results differ.
    """
    plan = asdict(settings)
    plan["peers"] = {
        name: {"title": PEERS[name].title, "module": PEERS[name].module} for name in settings.peers
    }
    parts: list[dict[str, Any]] = []
    if settings.cells:
        parts.append({"models": []})
    if settings.models:
        parts.append({"cells": []})
    for part in parts:
        for threads in settings.threads:
            allowed = machine.cores()
            pinned = None if allowed is None else allowed[:threads]
            run: dict[str, Any] = {"threads": threads, "pinned": pinned, "layers": [], "models": []}
            runs.append(run)
            _work({**plan, **part, "threads": threads}, run, watch)


def _work(plan: dict[str, Any], run: dict[str, Any], watch: Watch) -> None:
    """Run one worker from start to end."""
    with closing(_events(plan, run["pinned"])) as events:
        for event in events:
            kind = event.pop("event")
            if kind == "started":
                run["versions"] = event["versions"]
            elif kind == "compiled":
                run["compile_seconds"] = event["seconds"]
            elif kind in ("layer", "model"):
                run[f"{kind}s"].append(event)
            elif kind == "done":
                run["peak"] = distribution(event["peaks"])
                run["noise"] = spread(event["noise"])
                run["noisy"] = run["noise"] > NOISY
            watch(run["threads"], {"event": kind, **event})


def _events(plan: dict[str, Any], cores: Sequence[int] | None) -> Generator[dict[str, Any], None, None]:
    """The events of a worker; it is terminated with the caller."""
    command = [sys.executable, "-m", "rnnfast.bench.worker"]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        with _pinned(cores):
            worker = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment(plan["threads"]),
                text=True,
                encoding="utf-8",
            )
        assert worker.stdin is not None
        assert worker.stdout is not None
        try:
            with suppress(BrokenPipeError), worker.stdin:
                json.dump(plan, worker.stdin)
            for line in worker.stdout:
                event = json.loads(line)
                if event["event"] == "refused":
                    raise BenchFailed(event["message"])
                yield event
            if worker.wait():
                errors.seek(0)
                raise BenchFailed(
                    f"the process that measures {plan['threads']} thread{'s' * (plan['threads'] > 1)} ended "
                    f"with code {worker.returncode}.",
                    errors.read().strip(),
                )
        finally:
            worker.stdout.close()
            worker.kill()
            worker.wait()


@contextmanager
def _pinned(cores: Sequence[int] | None) -> Iterator[None]:
    """Pin processes started inside the block, with all their threads, to these cores."""
    if cores is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def environment(threads: int) -> dict[str, str]:
    """The environment of a worker: thread counts for all libraries, JAX without an accelerator."""
    found = {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(threads)), "JAX_PLATFORMS": "cpu"}
    flags = found.get("XLA_FLAGS", "").split()
    if threads == 1:
        flags.append("--xla_cpu_multi_thread_eigen=false")
    found["XLA_FLAGS"] = " ".join(flags)
    return found
