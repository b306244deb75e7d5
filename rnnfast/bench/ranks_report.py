"""Results of `rnnfast bench --ranks` as tables and a picture."""

from __future__ import annotations

import os
from typing import Any

from rich.console import Console

from rnnfast.bench import growth
from rnnfast.bench.cluster import Cluster, Link, Machine
from rnnfast.bench.grid import ModelSize
from rnnfast.bench.report import (
    Column,
    Sheet,
    machine_line,
    markdown_table,
    milliseconds,
    ratio_text,
    rich_table,
)
from rnnfast.files.atomic import write_atomically


def sheets(record: dict[str, Any]) -> list[Sheet]:
    """A table of training steps, and one of sums over ranks.

    Parameters
    ----------
    record : dict
        ``steps`` and ``sums``, as from `joined`.
    """
    steps, sums = record["steps"], record["sums"]
    found = [
        Sheet(
            "Training steps, one thread a rank",
            [
                Column("model", [str(ModelSize(**line["model"])) for line in steps], False),
                Column("ranks", [str(line["ranks"]) for line in steps]),
                Column("blocks", [str(line["blocks"]) for line in steps]),
                Column("ms", [milliseconds(line["seconds"]["median"]) for line in steps]),
                Column("times as fast", [ratio_text(line["speedup"]) for line in steps]),
                Column("efficiency", [f"{line['speedup'] / line['ranks']:.0%}" for line in steps]),
                Column("predicted ms", [milliseconds(line["predicted"]) for line in steps]),
                Column("measured / predicted", [ratio_text(line["ratio"]) for line in steps]),
            ],
        )
    ]
    if sums:
        found.append(
            Sheet(
                "Sums over ranks, float32",
                [
                    Column("numbers", [f"{line['numbers']:,}" for line in sums]),
                    Column("ranks", [str(line["ranks"]) for line in sums]),
                    Column("fixed tree ms", [milliseconds(line["tree"]["median"]) for line in sums]),
                    Column("Allreduce ms", [milliseconds(line["allreduce"]["median"]) for line in sums]),
                    Column("times as fast", [ratio_text(line["ratio"]) for line in sums]),
                ],
            )
        )
    return found


def notes(record: dict[str, Any]) -> list[str]:
    """How to read the tables."""
    return [
        f"Medians of {record['settings']['rounds']} rounds, in which the numbers of ranks take turns; N is "
        "the number of rows of all ranks together.",
        "Predictions rest on passes of one rank with few and many rows, on copies in memory and on sums over "
        "ranks, not on training steps.",
    ]


def show(console: Console, record: dict[str, Any]) -> None:
    """Print everything."""
    console.print(machine_line(record["machine"]), soft_wrap=True)
    for sheet in sheets(record):
        console.print()
        console.print(rich_table(sheet))
    for line in notes(record):
        console.print(line, soft_wrap=True)


def markdown(record: dict[str, Any]) -> str:
    """The whole report as a page of Markdown."""
    parts = [f"* {machine_line(record['machine'])}"]
    for sheet in sheets(record):
        parts += [f"### {sheet.heading}", markdown_table(sheet)]
    parts.append("\n".join(f"* {line}" for line in notes(record)))
    return "\n\n".join(parts) + "\n"


def draw(path: str | os.PathLike[str], record: dict[str, Any]) -> None:
    """Draw measured speeds, and predicted ones of a cluster of such machines, as a PNG file.

    Parameters
    ----------
    path
        File to write.
    record : dict
        As in the JSON file.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    models = [ModelSize(**entry["model"]) for entry in record["clusters"]]
    figure = Figure(figsize=(4.8 * len(models), 4.6), dpi=144, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, size, entry in zip(
        figure.subplots(1, len(models), squeeze=False)[0], models, record["clusters"], strict=True
    ):
        growth.draw(axes, size, cluster_of(entry))
        lines = [line for line in record["steps"] if ModelSize(**line["model"]) == size]
        measured = [line for line in lines if line["blocks"] == max(line["blocks"] for line in lines)]
        axes.plot(
            [line["ranks"] for line in measured],
            [line["speedup"] for line in measured],
            "s",
            color="black",
            markersize=5,
            label="measured",
        )
        axes.set_title(f"{size.layers} x {size.cell}, V={size.V} D=H={size.H}\nN={size.N} T={size.T}")
        axes.legend(fontsize="small")
    figure.suptitle(f"Times as fast as one rank\n{record['machine']['processor']}", fontsize=11)
    with write_atomically(path) as file:
        figure.savefig(file, format="png")


def cluster_of(entry: dict[str, Any]) -> Cluster:
    """The cluster of an entry of ``clusters``."""
    values = dict(entry["machine"])
    machine = Machine(**{**values, "local": Link(*values["local"])})
    return Cluster(machine, machine.local, entry["ranks_per_machine"])
