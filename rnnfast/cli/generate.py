"""`rnnfast generate`: write text with a trained model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import numpy as np
import typer

from rnnfast import _check
from rnnfast.cli import inputs, options
from rnnfast.cli.errors import BAD_VALUES, one_line
from rnnfast.cli.numbers import share_or_all
from rnnfast.cli.results import print_json
from rnnfast.cli.words import after_a_line_end, encode_prompt, first_words, load_run, stream_text


def generate(
    run: options.Run,
    prompt: Annotated[
        str | None,
        typer.Option(
            help="The text to continue; - reads standard input.", show_default="the beginning of a line"
        ),
    ] = None,
    length: Annotated[
        int, options.whole_option("--length", 1, None, "Number of words (or characters) to write.")
    ] = 100,
    temperature: Annotated[
        float,
        options.number_option(
            "--temperature", 0, None, "Below 1 safer, above 1 more varied; 0 always picks the likeliest word."
        ),
    ] = 0.8,
    top_k: Annotated[
        int | None, options.whole_option("--top-k", 1, None, "Draw from this many likeliest words.", "all")
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(
            parser=share_or_all("--top-p"),
            metavar="SHARE",
            help="Draw from the likeliest words that together have this probability.",
            show_default="all",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        options.whole_option("--seed", 0, None, "The same seed gives the same text.", "a new text each time"),
    ] = None,
    cell: options.OwnCell = None,
    as_json: options.Json = False,
) -> None:
    """Write text; each word is drawn from the model's distribution given all words before it.

    Example: [bold]rnnfast generate runs/first --prompt "the value of" --length 50 --seed 7[/bold]
    """
    with one_line(ValueError):
        for option, value in (("--top-k", top_k), ("--top-p", top_p)):
            if temperature == 0 and value is not None:
                raise _check.values.no_effect(option, "with --temperature 0")
    model, tokenizer, _ = load_run(run, cell)
    start = read = first_words(tokenizer)
    if prompt is not None:
        with one_line(*BAD_VALUES):
            text = inputs.prompt_text(prompt)
        start = encode_prompt(tokenizer, text)
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
    with one_line(FloatingPointError), model.frozen():
        if as_json:
            print_json({"prompt": None if prompt is None else text, "text": "".join(pieces)})
        else:
            _write(pieces)


def _write(pieces: Iterable[str]) -> None:
    """Print each word as it is drawn."""
    try:
        for piece in pieces:
            typer.echo(piece, nl=False)
    finally:
        typer.echo()
