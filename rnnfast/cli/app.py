"""The command `rnnfast` and its sub-commands."""

from __future__ import annotations

import inspect
from typing import Annotated

import typer

import rnnfast
from rnnfast.cli.bench import bench
from rnnfast.cli.classify import classify
from rnnfast.cli.diagnose import diagnose
from rnnfast.cli.errors import OneLineGroup, ThreadedCommand
from rnnfast.cli.files import convert, export
from rnnfast.cli.forecast import forecast
from rnnfast.cli.models import evaluate, generate, predict, warmup
from rnnfast.cli.train import train

_INTRODUCTION = """Train recurrent networks on this machine's CPU: language models, forecasts, classifiers.

Start with [bold]rnnfast train[/bold]: it needs no files, takes about two minutes, and prints the folder of
the run. Pass that folder to the other commands:

\b
Examples:
[bold]rnnfast train --save runs/first[/bold]
[bold]rnnfast generate runs/first --prompt "the value of"[/bold]
[bold]rnnfast predict runs/first "the value of"[/bold]
[bold]rnnfast evaluate runs/first my.txt[/bold]
[bold]rnnfast export runs/first model.onnx[/bold]
[bold]rnnfast convert BetterRnnlm.pkl model.safetensors[/bold]
[bold]rnnfast forecast sales.csv --h 12[/bold]
[bold]rnnfast classify GunPoint_TRAIN.ts GunPoint_TEST.ts[/bold]
"""

app = typer.Typer(
    cls=OneLineGroup,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def help_text(docstring: str | None) -> str:
    """A docstring as help: each paragraph on one line, for the terminal to wrap.

    Blocks that begin with a backspace character are kept unchanged.
    """
    paragraphs = inspect.cleandoc(docstring or "").split("\n\n")
    return "\n\n".join(p if p.startswith("\b") else p.replace("\n", " ") for p in paragraphs)


@app.callback(help=help_text(_INTRODUCTION))
def rnnfast_command(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """The command without a sub-command: --version, or the help."""
    if version:
        typer.echo(f"rnnfast {rnnfast.__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


for command in (
    train,
    evaluate,
    generate,
    predict,
    diagnose,
    export,
    convert,
    forecast,
    classify,
    bench,
    warmup,
):
    app.command(cls=ThreadedCommand, help=help_text(command.__doc__))(command)
