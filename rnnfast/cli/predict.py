"""`rnnfast predict`: the likeliest next words."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from rnnfast.cli import inputs, options
from rnnfast.cli.errors import BAD_VALUES, one_line
from rnnfast.cli.results import numbers_table, print_json
from rnnfast.cli.words import after_a_line_end, encode_prompt, load_run


def predict(
    run: options.Run,
    prompt: Annotated[
        str,
        typer.Argument(
            metavar="PROMPT", help="The words so far, in quotes; - reads standard input.", show_default=False
        ),
    ],
    top: Annotated[int, options.whole_option("--top", 1, None, "Number of words to list.")] = 10,
    cell: options.OwnCell = None,
    as_json: options.Json = False,
) -> None:
    """List the likeliest next words after a prompt, with their probabilities.

    Example: [bold]rnnfast predict runs/first "you say"[/bold]
    """
    model, tokenizer, _ = load_run(run, cell)
    with one_line(*BAD_VALUES):
        text = inputs.prompt_text(prompt)
    read = after_a_line_end(tokenizer, encode_prompt(tokenizer, text))
    with one_line(FloatingPointError):
        proba = model.next_proba(read)
    order = np.argsort(-proba, kind="stable")[:top]
    found = [(tokenizer.id_to_token[index], float(proba[index])) for index in order]
    if as_json:
        print_json({"prompt": text, "next": [{"token": t, "probability": p} for t, p in found]})
        return
    table = numbers_table("next", "probability")
    for token, probability in found:
        shown = token if token.isprintable() and token.strip() else repr(token)
        table.add_row(shown, f"{probability:.4f}")
    Console(markup=False, highlight=False).print(table)
