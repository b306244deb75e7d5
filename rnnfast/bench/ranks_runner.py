"""Starts the workers of `rnnfast bench --ranks` under MPI, in turn."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rnnfast.bench.grid import ModelSize, words
from rnnfast.bench.growth import FEWEST_BLOCKS
from rnnfast.bench.ranks_results import joined
from rnnfast.bench.runner import BenchFailed, environment

MODELS = (ModelSize("lstm", 1, 10_000, 256, 40, 35), ModelSize("lstm", 2, 10_000, 650, 40, 35))
QUICK_MODELS = MODELS[:1]
NUMBERS = (1_000_000, 10_000_000)  # of float32, for the sums over ranks
_EVENT = '{"event":'  # begins the lines of a worker; MPI may print lines of its own
_LAUNCHERS = ("mpiexec", "mpirun")
_PATIENCE = 10.0  # seconds for a launcher to end its ranks

Watch = Callable[[int, dict[str, Any]], object]


@dataclass(frozen=True)
class Settings:
    """What is measured on ranks, and for how long.

    Parameters
    ----------
    ranks : list of int
        Numbers of ranks, ascending from 1.
    launcher : list of str
        The command that starts them; ``-n`` and the number follow.
    models : list of ModelSize
        `N` rows are those of all ranks together, no fewer than blocks.
    blocks : int
        Of a batch, no fewer than ranks.
    numbers : list of int
        Sizes of the arrays that are summed over ranks.
    seconds : float
        Time of a model on a number of ranks in one round.
    rounds : int
    """

    ranks: list[int]
    launcher: list[str]
    models: list[ModelSize] = field(default_factory=lambda: list(MODELS))
    blocks: int = FEWEST_BLOCKS
    numbers: list[int] = field(default_factory=lambda: list(NUMBERS))
    seconds: float = 4.0
    rounds: int = 5


def rank_counts(text: str) -> list[int]:
    """Numbers of ranks from a typed list; one rank is added, as all others are compared with it.

    Examples
    --------
    >>> rank_counts("2,4"), rank_counts("1 2")
    ([1, 2, 4], [1, 2])
    """
    found = words(text)
    for word in found:
        if not word.isdecimal() or int(word) < 1 or int(word) & (int(word) - 1):
            raise ValueError(f"bench: ranks must be powers of two, as in 1,2,4, got {word!r}.")
    if not found:
        raise ValueError("bench: ranks must name at least one number.")
    return sorted({1, *map(int, found)})


def launcher(named: str | None) -> list[str]:
    """The command that starts ranks: the named one, srun within a job of Slurm, or the mpiexec beside Python.

    Raises
    ------
    ValueError
        It does not exist, or mpi4py is not installed.
    """
    if importlib.util.find_spec("mpi4py") is None:
        raise ValueError('bench: mpi4py is not installed here: pip install "rnnfast[mpi]".')
    if named is not None:
        command = shlex.split(named)
        if not command or shutil.which(command[0]) is None:
            raise ValueError(f"bench: launcher must begin with a program on the PATH, got {named!r}.")
        return command
    if "SLURM_JOB_ID" in os.environ and shutil.which("srun"):
        return ["srun"]
    beside = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    for name in _LAUNCHERS:
        found = shutil.which(name, path=beside)
        if found is not None:
            return [found]
    raise ValueError(
        "bench: no launcher of MPI was found: pip install mpich, or name one with --launcher, as in "
        "--launcher 'srun --mpi=pmix'."
    )


def measure(settings: Settings, record: dict[str, Any], watch: Watch) -> None:
    """Measure each number of ranks in turn, round by round.

    Parameters
    ----------
    settings : Settings
    record : dict
        Filled as by `joined`.
    watch : callable
        Called with the number of ranks and each event.

    Raises
    ------
    BenchFailed
        A worker failed.
    """
    events: list[dict[str, Any]] = []
    for round_number in range(settings.rounds):
        for ranks in settings.ranks:
            plan = {
                "ranks": ranks,
                "models": settings.models,
                "blocks": settings.blocks,
                "numbers": settings.numbers,
                "seconds": settings.seconds,
                "with_rates": ranks == 1 and round_number == 0,
            }
            with closing(_events(settings.launcher, plan)) as found:
                for event in found:
                    events.append({"ranks": ranks, **event})
                    watch(ranks, event)
    record.update(joined(events))


def _events(command: list[str], plan: dict[str, Any]) -> Generator[dict[str, Any], None, None]:
    """The events of the first rank; all ranks are terminated with the caller."""
    worker = [sys.executable, "-m", "rnnfast.bench.ranks_worker", json.dumps(plan)]
    ranks = plan["ranks"]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        process = subprocess.Popen(
            [*command, "-n", str(ranks), *worker],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment(1),
            text=True,
            encoding="utf-8",
        )
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if line.startswith(_EVENT):
                    event = json.loads(line)
                    if event["event"] == "refused":
                        raise BenchFailed(event["message"])
                    yield event
            if process.wait():
                errors.seek(0)
                raise BenchFailed(
                    f"{command[0]} -n {ranks} ended with code {process.returncode}.", errors.read().strip()
                )
        finally:
            process.stdout.close()
            process.terminate()  # the launcher ends its ranks
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
