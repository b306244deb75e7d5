"""The measuring process, one for each number of threads, since libraries read that number when loaded.

It reads a plan as JSON from standard input and writes its results as one JSON object per line.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from rnnfast.bench import contenders, grid
from rnnfast.bench.contenders import OWN, Runs, WrongResult, assert_agree
from rnnfast.bench.timing import PeakMeter, distribution, in_turn, settle
from rnnfast.kernels._jit import jit_is_disabled

Emit = Callable[[dict[str, Any]], object]
_PEAKS = 20  # measurements at the beginning and at the end, so that a short run also measures the noise


class ContenderFailed(RuntimeError):
    """Another library raised an exception."""


class Worker:
    """Carries out the measurements of a plan.

    Parameters
    ----------
    plan : dict
        ``threads``; ``peers``, which has title and module by name; ``cells``, ``shapes``, ``passes`` and
        ``models``; ``seconds`` and ``rounds`` for each line of the table; ``check``, to compare results
        without timing.
    emit : callable
        Called with each event, a dict whose ``event`` is one of ``started``, ``compiling``, ``compiled``,
        ``measuring``, ``layer``, ``model``, ``done``.
    """

    def __init__(self, plan: dict[str, Any], emit: Emit) -> None:
        self.plan, self.emit = plan, emit
        self.threads: int = plan["threads"]
        self.titles = {"rnnfast": OWN.title, **{name: peer["title"] for name, peer in plan["peers"].items()}}
        self.modules: dict[str, ModuleType] = {"rnnfast": contenders.load(OWN.module)}
        self.peak = PeakMeter(self.threads)

    def run(self) -> None:
        """Carry out the plan."""
        versions = {"rnnfast": self.modules["rnnfast"].start(self.threads)}
        for name, peer in self.plan["peers"].items():
            versions[name] = self._ask(name, lambda peer=peer: self._start(peer))  # type: ignore[misc]
            self.modules[name] = contenders.load(peer["module"])
        self.emit({"event": "started", "threads": self.threads, "versions": versions})
        self._compile()
        gc.collect()
        gc.freeze()  # later collections skip everything that is loaded by now
        self._measure_peak()
        for cell in self.plan["cells"]:
            for sizes in self.plan["shapes"]:
                self._layer(cell, grid.Shape(*sizes))
        for sizes in self.plan["models"]:
            self._model(grid.ModelSize(*sizes))
        self._measure_peak()
        self.peak.close()
        self.emit({"event": "done", "peaks": self.peak.samples, "noise": self.peak.noise})

    def _start(self, peer: dict[str, str]) -> str:
        return str(contenders.load(peer["module"]).start(self.threads))

    def _measure_peak(self) -> None:
        for _ in range(1 if jit_is_disabled() else _PEAKS):
            self._between()

    def _between(self) -> None:
        if self.threads > 1:
            settle()
        self.peak.measure()

    def _compile(self) -> None:
        """Compile rnnfast's kernels on a tiny problem, so that later times exclude the compiler."""
        from rnnfast.cli.progress import compilations

        start = time.perf_counter()
        own = self.modules["rnnfast"]
        with compilations(lambda: self.emit({"event": "compiling"})) as compiled:
            self.peak.measure()
            for cell in self.plan["cells"]:
                own.layer(grid.layer_problem(cell, grid.Shape(2, 3, 4, 5))).calls["both"]()
            for sizes in self.plan["models"]:
                small = grid.ModelSize(*sizes)._replace(V=7, H=5, N=2, T=3)
                own.language_model(grid.model_problem(small)).calls["step"]()
        if compiled.count:
            self.emit({"event": "compiled", "seconds": time.perf_counter() - start})

    def _ask(self, name: str, call: Callable[[], Any]) -> Any:
        """Call another library; the error for its exceptions names the library."""
        try:
            return call()
        except (KeyboardInterrupt, WrongResult):
            raise
        except Exception as error:
            if name == "rnnfast":
                raise
            title, kind = self.titles[name], type(error).__name__
            raise ContenderFailed(
                f"{title} failed with {kind}: {error}; leave it out with --peers to measure the others."
            ) from error

    def _layer(self, cell: str, shape: grid.Shape) -> None:
        problem = grid.layer_problem(cell, shape, self.threads)
        found = {name: self._ask(name, lambda m=m: m.layer(problem)) for name, m in self.modules.items()}  # type: ignore[misc]
        runs = {name: value for name, value in found.items() if value is not None}
        for which in self.plan["passes"]:
            what = f"{cell} {shape} {grid.PASS_TITLES[which]}"
            record = self._compare(runs, which, what)
            record |= {"event": "layer", "cell": cell, "shape": list(shape), "pass": which}
            record["operations"] = grid.operations(cell, shape, which)
            if "contenders" in record:
                seconds = record["contenders"]["rnnfast"]["median"]
                record["share"] = record["operations"] / seconds / record["peak"]
            self.emit(record)

    def _model(self, size: grid.ModelSize) -> None:
        problem = grid.model_problem(size)
        found = {
            name: self._ask(name, lambda m=m: m.language_model(problem))  # type: ignore[misc]
            for name, m in self.modules.items()
        }
        runs = {name: value for name, value in found.items() if value is not None}
        for which, heading in grid.MODEL_PASS_TITLES.items():
            record = self._compare(runs, which, f"{size}, {heading}")
            times = record.get("contenders", {})
            record["tokens_per_second"] = {
                name: size.N * size.T / found["median"] for name, found in times.items()
            }
            self.emit({"event": "model", **size._asdict(), "pass": which, **record})

    def _compare(self, runs: dict[str, Runs], which: str, what: str) -> dict[str, Any]:
        """Compare the results of all contenders, then time them."""
        self.emit({"event": "measuring", "what": what})
        able = {name: run for name, run in runs.items() if which in run.calls}
        expected = {name: np.array(value) for name, value in able["rnnfast"].results(which).items()}
        differences = {}
        for name, run in able.items():
            if name != "rnnfast":
                actual = self._ask(name, lambda run=run: run.results(which))  # type: ignore[misc]
                differences[name] = assert_agree(self.titles[name], what, actual, expected)
        record: dict[str, Any] = {"differences": differences}
        if self.plan["check"]:
            return record
        before = len(self.peak.samples)
        samples = in_turn(
            {name: run.calls[which] for name, run in able.items()},
            self.plan["seconds"],
            self.plan["rounds"],
            rest=settle if self.threads > 1 else None,
            between=self._between,
        )
        times = {name: distribution(found) for name, found in samples.items()}
        own = times["rnnfast"]["median"]
        record["contenders"] = times
        record["ratios"] = {name: found["median"] / own for name, found in times.items() if name != "rnnfast"}
        record["peak"] = float(np.median(self.peak.samples[before:]))
        return record


def main() -> None:
    """Read the plan, measure, and write the events; a failure is the last event."""
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # output of libraries must not mix with the lines

    def emit(event: dict[str, Any]) -> None:
        lines.write(json.dumps(event) + "\n")
        lines.flush()

    plan = json.load(sys.stdin)
    try:
        Worker(plan, emit).run()
    except (WrongResult, ContenderFailed) as error:
        emit({"event": "refused", "message": str(error)})
        sys.exit(1)
    except MemoryError as error:
        emit({"event": "refused", "message": f"not enough memory: {error}; choose smaller --shapes."})
        sys.exit(1)
    except BrokenPipeError:
        sys.exit(1)


if __name__ == "__main__":
    main()
