"""`rnnfast generate`: let a run write."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import typer

from rnnfast.cli.errors import BAD_VALUES, one_line
from rnnfast.cli.options import Run
from rnnfast.cli.words import after_a_line_end, encode_prompt, first_words, load_run, stream_text


def generate(
    run: Run,
    prompt: Annotated[
        str | None,
        typer.Option(help="The text to go on from.", show_default="the beginning of a line"),
    ] = None,
    length: Annotated[int, typer.Option(min=1, help="How many words (or characters) to write.")] = 100,
    temperature: Annotated[
        float,
        typer.Option(help="Below 1 safer, above 1 more daring; 0 always takes the likeliest word."),
    ] = 0.8,
    top_k: Annotated[
        int | None, typer.Option(min=1, help="Draw among this many likeliest words.", show_default="all")
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(help="Draw among the likeliest words that hold this share.", show_default="all"),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="The same seed gives the same text.", show_default="a new text each time"),
    ] = None,
) -> None:
    """Write text, each word drawn from what the model expects after all words before.

    Example: [bold]rnnfast generate runs/first --prompt "the value of" --length 50 --seed 7[/bold]
    """
    model, tokenizer = load_run(run)
    start = read = first_words(tokenizer)
    if prompt is not None:
        start = encode_prompt(tokenizer, prompt)
        read = after_a_line_end(tokenizer, start)
    with one_line(*BAD_VALUES):
        ids = model.generate_iter(
            read,
            length,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            skip_ids=(tokenizer.unk_id,),
            rng=np.random.default_rng(seed),
        )
    pieces = stream_text(tokenizer, start, ids)
    if prompt is None:
        next(pieces)  # the line end before the text
    with one_line(FloatingPointError):
        try:
            for piece in pieces:
                typer.echo(piece, nl=False)
        finally:
            typer.echo()
