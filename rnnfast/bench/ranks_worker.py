"""One rank of `rnnfast bench --ranks`; the first writes its results as one JSON object per line.

The plan is the argument, as JSON.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import rnnfast
from rnnfast import optim
from rnnfast.bench import own
from rnnfast.bench.grid import ModelSize, model_problem
from rnnfast.bench.timing import distribution, in_turn
from rnnfast.models.cells import named_cell

Emit = Callable[[dict[str, Any]], object]
_RATE_ROWS = (1, 4, 16)  # parts of the batch whose times show the cost of a row and of reading the weights
_RATE_SECONDS, _RATE_ROUNDS = 1.0, 3
_MEMORY_NUMBERS = 16 * 2**20  # float32 in each of two arrays, more than caches hold
_SUM_TURNS = 10
_WARM_STEPS, _FEWEST_STEPS = 3, 4


class Worker:
    """Carries out the measurements of a plan on one of the ranks.

    Parameters
    ----------
    plan : dict
        ``ranks``, their number; ``models``; ``blocks`` of a batch; ``numbers``, sizes of the arrays that are
        summed; ``seconds`` for the steps of a model; ``with_rates``, to measure the rates of one rank.
    ranks : Ranks
    allreduce : callable
        Sums an array over the ranks in place, as MPI does it.
    emit : callable
        Called on every rank with each event, a dict whose ``event`` is ``compiled``, ``memory``, ``rates``,
        ``sum`` or ``step``.
    """

    def __init__(
        self, plan: dict[str, Any], ranks: Any, allreduce: Callable[[np.ndarray], object], emit: Emit
    ) -> None:
        self.plan, self.ranks, self.allreduce, self.emit = plan, ranks, allreduce, emit
        self.models = [ModelSize(*sizes) for sizes in plan["models"]]

    def run(self) -> None:
        """Carry out the plan."""
        self._compile()
        self._memory()
        if self.plan["with_rates"]:
            for size in self.models:
                self._rates(size)
        self._sums()
        for size in self.models:
            self._steps(size)

    def _compile(self) -> None:
        """Compile on a tiny model, so that later times exclude the compiler."""
        from rnnfast.cli.progress import compilations

        start = time.perf_counter()
        with compilations(lambda: self.emit({"event": "compiling"})) as compiled:
            for size in self.models:
                self._trained(size._replace(V=7, H=5, T=3), self.plan["blocks"], steps=2)
        if compiled.count:
            self.emit({"event": "compiled", "seconds": time.perf_counter() - start})

    def _memory(self) -> None:
        """Bytes per second to and from memory, while all ranks work."""
        array, other = np.zeros(_MEMORY_NUMBERS, np.float32), np.ones(_MEMORY_NUMBERS, np.float32)
        self.ranks.barrier()
        seconds = in_turn({"add": lambda: np.add(array, other, out=array)}, 0.2, 3)["add"]
        own_rate = 3 * array.nbytes / float(np.median(seconds))
        everyone = self.ranks.rows(np.array([own_rate]))
        beside = self.ranks.local_size
        self.emit({"event": "memory", "local_size": beside, "rates": everyone[:beside].tolist()})

    def _rates(self, size: ModelSize) -> None:
        """Times of forward and backward for fewer and fewer rows."""
        calls = {}
        for part in _RATE_ROWS:
            rows = max(1, size.N // part)
            calls[str(rows)] = own.language_model(model_problem(size._replace(N=rows))).calls["gradients"]
        samples = in_turn(calls, _RATE_SECONDS, _RATE_ROUNDS)
        medians = {rows: distribution(found)["median"] for rows, found in samples.items()}
        self.emit({"event": "rates", "model": list(size), "seconds": medians})

    def _sums(self) -> None:
        """Times of the sums over ranks on the slowest rank, in turn with those of MPI."""
        if self.ranks.size == 1:
            return
        for numbers in self.plan["numbers"]:
            array = np.zeros(numbers, np.float32)
            calls = {"tree": lambda array=array: self.ranks.begin([array]).finish()}
            calls["allreduce"] = lambda array=array: self.allreduce(array)
            times: dict[str, list[float]] = {name: [] for name in calls}
            for _ in range(_SUM_TURNS):
                for name, call in calls.items():
                    call()  # makes room, and fills caches
                    self.ranks.barrier()
                    start = time.perf_counter()
                    call()
                    own_seconds = np.array([time.perf_counter() - start])
                    times[name].append(float(self.ranks.rows(own_seconds).max()))
            self.emit({"event": "sum", "numbers": numbers, **times})

    def _steps(self, size: ModelSize) -> None:
        """Times of training steps; one rank also shows what the blocks cost."""
        for blocks in [1, self.plan["blocks"]][self.ranks.size > 1 :]:
            warm = self._trained(size, blocks, _WARM_STEPS)
            steps = max(_FEWEST_STEPS, math.ceil(self.plan["seconds"] / self.ranks.agreed(warm[-1:])[0]))
            seconds = self._trained(size, blocks, 1 + steps)[1:]
            self.emit({"event": "step", "model": list(size), "blocks": blocks, "seconds": seconds})

    def _trained(self, size: ModelSize, blocks: int, steps: int) -> list[float]:
        """Seconds of each step of a training run, on the first rank."""
        rng = np.random.default_rng(0)
        cell = named_cell("bench", size.cell)
        model = rnnfast.RNNLM(size.V, size.H, size.H, cell=cell, layers=size.layers, rng=rng)
        frequency = 1 / np.arange(1, size.V + 1)
        ids = rng.choice(size.V, size.N * size.T * steps + 1, p=frequency / frequency.sum())
        marks: list[float] = []

        def mark(_: object) -> None:
            marks.append(time.perf_counter())

        bptt = rnnfast.TruncatedBPTT(size.T)
        trainer = rnnfast.Trainer(model, optim.SGD(0.1), bptt, callback=mark, ranks=self.ranks, blocks=blocks)
        self.ranks.barrier()
        marks.append(time.perf_counter())
        trainer.fit(ids, epochs=1, batch_size=size.N)
        return np.diff(marks).tolist()


def main() -> None:
    """Read the plan, measure, and let the first rank write the events; a failure is the last event."""
    from mpi4py import MPI

    from rnnfast.distributed.ranks import Ranks

    ranks = Ranks()

    def emit(event: dict[str, Any]) -> None:
        if ranks.rank == 0:
            print(json.dumps(event), flush=True)

    plan = json.loads(sys.argv[1])
    if ranks.size != plan["ranks"]:
        emit(
            {
                "event": "refused",
                "message": f"bench: {plan['ranks']} ranks were started and {ranks.size} found each other; "
                f"the launcher must belong to the MPI library of mpi4py.",
            }
        )
        sys.exit(1)
    Worker(plan, ranks, lambda array: MPI.COMM_WORLD.Allreduce(MPI.IN_PLACE, array), emit).run()


if __name__ == "__main__":
    main()
