"""Figures of `rnnfast bench --ranks` from the events of all rounds, beside those of the model of a step."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rnnfast.bench.cluster import FREE, Cluster, Link, Machine
from rnnfast.bench.grid import ModelSize
from rnnfast.bench.step_model import TREE, compared, rates
from rnnfast.bench.timing import distribution

_CACHE = 32 * 2**20  # bytes of the last cache, which systems do not tell alike


def joined(events: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of all rounds.

    Parameters
    ----------
    events : list of dict
        Events of the workers, each with the number of ``ranks``.

    Returns
    -------
    dict
        ``steps``: for each model, number of blocks and number of ranks the ``model``, ``blocks``, ``ranks``,
        the distribution of its ``seconds``, ``speedup`` over one rank with the most blocks, ``predicted``
        seconds and ``ratio``, measured over predicted.

        ``sums``: for each number of ranks and floats the seconds of the ``tree`` and of ``allreduce``, and
        their ``ratio``.

        ``clusters``: the rates on which the predictions for each model rest.
    """
    sums = _sums(events)
    samples: dict[ModelSize, dict[int, dict[int, list[float]]]] = {}
    for event in _of_kind(events, "step"):
        of_blocks = samples.setdefault(ModelSize(*event["model"]), {}).setdefault(event["blocks"], {})
        of_blocks.setdefault(event["ranks"], []).extend(event["seconds"])
    steps, clusters = [], []
    for size, found in samples.items():
        cluster = _cluster(events, size, sums)
        clusters.append({"model": size._asdict(), **asdict(cluster)})
        alone = distribution(found[max(found)][1])["median"]
        for blocks, by_ranks in sorted(found.items()):
            times = {ranks: distribution(seconds) for ranks, seconds in by_ranks.items()}
            measured = {ranks: seconds["median"] for ranks, seconds in times.items()}
            for line in compared(measured, size, blocks, cluster):
                steps.append(
                    {
                        "model": size._asdict(),
                        "ranks": line.ranks,
                        "blocks": blocks,
                        "seconds": times[line.ranks],
                        "speedup": alone / line.measured,
                        "predicted": line.predicted,
                        "ratio": line.ratio,
                    }
                )
    return {"steps": steps, "sums": sums, "clusters": clusters}


def _of_kind(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["event"] == kind]


def _sums(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Times of the sums over ranks, and their ratios."""
    samples: dict[tuple[int, int], dict[str, list[float]]] = {}
    for event in _of_kind(events, "sum"):
        kinds = samples.setdefault((event["ranks"], event["numbers"]), {"tree": [], "allreduce": []})
        for kind, values in kinds.items():
            values += event[kind]
    found = []
    for (ranks, numbers), kinds in samples.items():
        tree, allreduce = distribution(kinds["tree"]), distribution(kinds["allreduce"])
        ratio = allreduce["median"] / tree["median"]
        found.append(
            {"ranks": ranks, "numbers": numbers, "tree": tree, "allreduce": allreduce, "ratio": ratio}
        )
    return found


def _cluster(events: list[dict[str, Any]], size: ModelSize, sums: list[dict[str, Any]]) -> Cluster:
    """The machine and its messages, from measurements other than those of steps."""
    passes = {event["ranks"]: event for event in _of_kind(events, "memory")}
    memory = max(sum(event["rates"]) for event in passes.values())
    [rows] = [e["seconds"] for e in _of_kind(events, "rates") if ModelSize(*e["model"]) == size]
    rate, stream = rates({int(count): seconds for count, seconds in rows.items()}, size)
    alone = passes[1]["rates"][0]
    machine = Machine(rate, stream, alone, memory, _CACHE, link_of(sums, alone, memory))
    return Cluster(machine, machine.local, max(event["local_size"] for event in passes.values()))


def link_of(sums: list[dict[str, Any]], memory: float, all_memory: float) -> Link:
    """The latency and bandwidth of messages, from the sums over the fewest ranks.

    Each rank sends and receives twice (n - 1) / n of the bytes and adds as much; latencies are those of twice
    n - 1 messages.

    Parameters
    ----------
    sums : list of dict
        Times of at least two sizes, or none.
    memory, all_memory : float
        Bytes per second of one rank alone, and of all ranks of a machine.
    """
    if not sums:
        return Link(FREE, 0.0)
    ranks = min(line["ranks"] for line in sums)
    times = sorted((line["numbers"], line["tree"]["median"]) for line in sums if line["ranks"] == ranks)
    (few, short), (many, long) = times[0], times[-1]
    share = (ranks - 1) / ranks
    of_number = (long - short) / (many - few) if many > few else long / many
    of_message = of_number / share - TREE / min(memory, all_memory / ranks)
    bandwidth = 8 / of_message if of_message > 0 else FREE
    latency = max(short - few * of_number, 0.0) / (2 * (ranks - 1))
    return Link(bandwidth, latency)
