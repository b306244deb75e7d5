"""The options of `rnnfast bench` and their help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rnnfast.cli.numbers import number, whole

_WHAT, _HOW, _OUTPUT = "What is measured", "How", "Output"

# One line per option, as a table.
# fmt: off
Cells = Annotated[str, typer.Option(
    metavar="LIST", rich_help_panel=_WHAT,
    help="Cells, as for rnnfast train --cell; "
    "the word none leaves the layers out and measures only --models.")]
Shapes = Annotated[str | None, typer.Option(
    metavar="LIST", rich_help_panel=_WHAT, show_default="nine, with --quick three",
    help="Sizes NxTxDxH, for example 20x35x100x100.")]
Random = Annotated[int | None, typer.Option(
    parser=whole("--random", 1), metavar="COUNT", rich_help_panel=_WHAT, show_default=False,
    help="This many random shapes instead: N to 512, T to 400, D to 2,000, H to 512, each log-uniform.")]
Seed = Annotated[int, typer.Option(
    parser=whole("--seed", 0), metavar="SEED", rich_help_panel=_WHAT, help="Draws the shapes of --random.")]
Passes = Annotated[str, typer.Option(
    metavar="LIST", rich_help_panel=_WHAT,
    help="forward: inference; both: forward and backward, including the gradient of the input.")]
Threads = Annotated[str | None, typer.Option(
    metavar="LIST", rich_help_panel=_WHAT, show_default="1,2", help="Numbers of threads, for example 1,4.")]
Peers = Annotated[str | None, typer.Option(
    metavar="LIST", rich_help_panel=_WHAT, show_default="all installed",
    help="Any of torch, jax, onnxruntime; or none.")]
Models = Annotated[bool, typer.Option(
    "--models", rich_help_panel=_WHAT, help="Also language models: their gradients and training steps.")]
Ranks = Annotated[str | None, typer.Option(
    metavar="LIST", rich_help_panel=_WHAT, show_default=False,
    help="Time training steps on these numbers of MPI ranks instead, for example 1,2.")]

Launcher = Annotated[str | None, typer.Option(
    metavar="COMMAND", rich_help_panel=_HOW, show_default="srun in a job of Slurm, else mpiexec",
    help="What starts ranks; -n and their number follow.")]
Seconds = Annotated[float | None, typer.Option(
    parser=number("--seconds", 0), metavar="S", rich_help_panel=_HOW,
    show_default="2, with --random 0.5, with --quick 0.2; with --ranks 4 and 1",
    help="Seconds per line of the tables, with --ranks per round.")]
Quick = Annotated[bool, typer.Option(
    "--quick", rich_help_panel=_HOW, help="Measure three shapes, each for a short time: under a minute.")]
Check = Annotated[bool, typer.Option(
    "--check", rich_help_panel=_HOW, help="Only compare results with the peers, without timing.")]

Goal = Annotated[float | None, typer.Option(
    parser=number("--goal", 0), metavar="RATIO", rich_help_panel=_OUTPUT, show_default="1.1, with --random 1",
    help="List lines whose ratio to the fastest peer is below this; with --random, count them.")]
Out = Annotated[Path | None, typer.Option(
    metavar="FOLDER", rich_help_panel=_OUTPUT, show_default="runs/bench-DATE_TIME",
    help="Folder for bench.json, bench.md and bench.png.")]
Json = Annotated[Path | None, typer.Option(
    "--json", metavar="FILE", rich_help_panel=_OUTPUT, show_default=False,
    help="Another path for the figures.")]
Markdown = Annotated[Path | None, typer.Option(
    "--markdown", metavar="FILE", rich_help_panel=_OUTPUT, show_default=False,
    help="Another path for the tables.")]
Chart = Annotated[Path | None, typer.Option(
    "--chart", metavar="FILE", rich_help_panel=_OUTPUT, show_default=False,
    help="Another path for the picture.")]
# fmt: on
