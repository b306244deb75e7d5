"""`rnnfast predict`: what comes next."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from rnnfast.cli.errors import one_line
from rnnfast.cli.options import Run
from rnnfast.cli.words import after_a_line_end, encode_prompt, load_run


def predict(
    run: Run,
    prompt: Annotated[
        str, typer.Argument(metavar="PROMPT", help="The words so far, in quotes.", show_default=False)
    ],
    top: Annotated[int, typer.Option(min=1, help="How many words to list.")] = 10,
) -> None:
    """List the likeliest next words after a prompt, with their probabilities.

    Example: [bold]rnnfast predict runs/first "you say"[/bold]
    """
    model, tokenizer = load_run(run)
    read = after_a_line_end(tokenizer, encode_prompt(tokenizer, prompt))
    with one_line(FloatingPointError):
        proba = model.next_proba(read)
    order = np.argsort(-proba, kind="stable")[:top]
    table = Table("next", "probability", box=SIMPLE_HEAD)
    table.columns[1].justify = "right"
    for index in order:
        token = tokenizer.id_to_token[index]
        table.add_row(token if token.isprintable() and token.strip() else repr(token), f"{proba[index]:.4f}")
    Console(markup=False, highlight=False).print(table)
