"""Summaries of the measured lines: ratios, shares of the peak, thread speedups, and lines below the goal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from rnnfast.bench.contenders import PEERS
from rnnfast.bench.grid import MODEL_PASS_TITLES, PASS_TITLES, ModelSize, Shape
from rnnfast.models.cells import named_cell

Run = dict[str, Any]

FASTEST = "fastest"  # the fastest peer of a line
MODEL = "model"  # language models, used like the name of a cell
# The share of the peak is meaningful only if products dominate: rows fill the registers, layers are wide.
LEAST_ROWS, LEAST_WIDTH = 12, 128
# From these sizes on, more threads outweigh the cost of sharing the work.
LEAST_BATCH, LEAST_SECONDS = 8, 0.002


def threads_text(threads: int) -> str:
    """A number of threads in words.

    Examples
    --------
    >>> threads_text(1), threads_text(2)
    ('1 thread', '2 threads')
    """
    return f"{threads} thread{'s' * (threads > 1)}"


def title(name: str) -> str:
    """The title of a contender."""
    if name == FASTEST:
        return "the fastest"
    return PEERS[name].title if name in PEERS else name


def cell_title(cell: str) -> str:
    """The title of a cell, or of `MODEL`.

    Examples
    --------
    >>> cell_title("gru_after"), cell_title(MODEL)
    ('GRU (reset after)', 'language model')
    """
    return "language model" if cell == MODEL else named_cell("bench", cell).title


def peers_of(run: Run) -> list[str]:
    """The names of the measured peers, in order."""
    return [name for name in run.get("versions", {}) if name != "rnnfast"]


def geometric_mean(values: Sequence[float]) -> float:
    """The geometric mean of ratios.

    Examples
    --------
    >>> round(geometric_mean([0.5, 2.0]), 6)
    1.0
    """
    return math.exp(math.fsum(map(math.log, values)) / len(values))


def model_size(record: dict[str, Any]) -> ModelSize:
    """The sizes in the record of a language model."""
    return ModelSize(*(record[name] for name in ModelSize._fields))


def place(record: dict[str, Any]) -> str:
    """The name of a record's line in a table."""
    if "shape" in record:
        return f"{Shape(*record['shape'])} {PASS_TITLES[record['pass']]}"
    return f"{model_size(record)} {MODEL_PASS_TITLES[record['pass']]}"


def groups(run: Run) -> dict[str, list[dict[str, Any]]]:
    """The records of a run by cell; language models are under ``model``."""
    found: dict[str, list[dict[str, Any]]] = {}
    for record in run["layers"]:
        found.setdefault(record["cell"], []).append(record)
    if run["models"]:
        found[MODEL] = run["models"]
    return found


def lines(runs: Sequence[Run]) -> Iterator[tuple[Run, dict[str, Any], str]]:
    """Each run with each of its lines and a description of the line."""
    for run in runs:
        for cell, records in groups(run).items():
            for record in records:
                yield run, record, place(record) if cell == MODEL else f"{cell} {place(record)}"


def ratio_to(record: dict[str, Any], peer: str) -> float | None:
    """The time of `peer` (or of the fastest) divided by rnnfast's; None if it was not measured."""
    ratios: dict[str, float] = record.get("ratios", {})
    return min(ratios.values(), default=None) if peer == FASTEST else ratios.get(peer)


def _counted(cell: str, threads: int, values: list[tuple[float, str]]) -> dict[str, Any]:
    least, where = min(values)
    mean = geometric_mean([value for value, _ in values])
    return {
        "cell": cell,
        "threads": threads,
        "least": least,
        "where": where,
        "mean": mean,
        "lines": len(values),
    }


def ratios(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The least ratio, its place and the geometric mean, for each cell, number of threads and peer.

    If there are several peers, `FASTEST` is added as the last one.
    """
    found = []
    for run in runs:
        peers = peers_of(run)
        for cell, records in groups(run).items():
            beside = [*peers, FASTEST] if len(peers) > 1 else peers
            for peer in beside:
                values = [
                    (ratio, place(record))
                    for record in records
                    if (ratio := ratio_to(record, peer)) is not None
                ]
                if values:
                    found.append({**_counted(cell, run["threads"], values), "peer": peer})
    return found


def shares(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The share of the peak for each cell, pass and number of threads, for N >= 12 and H >= 128."""
    found = []
    for run in runs:
        for cell, records in groups(run).items():
            for which in PASS_TITLES:
                values = [
                    (record["share"], place(record))
                    for record in records
                    if "share" in record
                    and record["pass"] == which
                    and record["shape"][0] >= LEAST_ROWS
                    and record["shape"][3] >= LEAST_WIDTH
                ]
                if values:
                    found.append({**_counted(cell, run["threads"], values), "pass": which})
    return found


def gains(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The speedup of more threads over one for each cell, for N >= 8 and times over 2 ms."""
    alone = {
        (cell, place(record)): record["contenders"]["rnnfast"]["median"]
        for run in runs
        if run["threads"] == 1
        for cell, records in groups(run).items()
        for record in records
        if "contenders" in record
    }
    found = []
    for run in runs:
        for cell, records in groups(run).items():
            values = []
            for record in records:
                seconds = alone.get((cell, place(record)), 0.0)
                batch = record["N"] if cell == MODEL else record["shape"][0]
                if run["threads"] > 1 and batch >= LEAST_BATCH and seconds > LEAST_SECONDS:
                    values.append((seconds / record["contenders"]["rnnfast"]["median"], place(record)))
            if values:
                found.append(_counted(cell, run["threads"], values))
    return found


def short_of(runs: Sequence[Run], goal: float) -> list[dict[str, Any]]:
    """The lines whose ratio to the fastest peer is below `goal`, worst first."""
    found = []
    for run, record, what in lines(runs):
        ratio = ratio_to(record, FASTEST)
        if ratio is not None and ratio < goal:
            peer = min(record["ratios"], key=record["ratios"].__getitem__)
            found.append({"what": what, "threads": run["threads"], "peer": peer, "ratio": ratio})
    return sorted(found, key=lambda line: line["ratio"])


def everything(runs: Sequence[Run], goal: float) -> dict[str, Any]:
    """All summaries, as in the JSON file."""
    return {
        "ratios": ratios(runs),
        "share_of_peak": shares(runs),
        "gain_of_threads": gains(runs),
        "below_goal": short_of(runs, goal),
    }


def noise_warning(runs: Sequence[Run]) -> str | None:
    """A warning with advice if the measured peak varied; None on a quiet machine."""
    worst = max((run["noise"] for run in runs if run.get("noisy")), default=None)
    if worst is None:
        return None
    return (
        f"This machine is noisy: repeated measurements of its FMA peak spread over {worst:.0%} of their "
        f"median, so the figures may be off by as much. Close other programs, plug in the mains, let the "
        f"machine cool, or pin the command to quiet cores (taskset), and measure again."
    )
