"""The command `rnnfast` and its sub-commands."""

from __future__ import annotations

from typing import Annotated

import typer

import rnnfast
from rnnfast.cli.errors import OneLineGroup
from rnnfast.cli.evaluate import evaluate
from rnnfast.cli.generate import generate
from rnnfast.cli.predict import predict
from rnnfast.cli.train import train
from rnnfast.cli.warmup import warmup

app = typer.Typer(
    cls=OneLineGroup,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    invoke_without_command=True,
)


@app.callback()
def rnnfast_command(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Train language models with recurrent networks on this machine's CPU, and use them.

    Start with [bold]rnnfast train[/bold]: it needs no files and takes about two minutes. It tells you the folder of the
    run, say runs/first. Then try

    \b
    rnnfast generate runs/first --prompt "the value of"
    rnnfast predict runs/first "the value of"
    rnnfast evaluate runs/first my.txt
    """
    if version:
        typer.echo(f"rnnfast {rnnfast.__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


for command in (train, evaluate, generate, predict, warmup):
    app.command()(command)
