"""Commands of trained models, `rnnfast evaluate`, `generate` and `predict`; and `rnnfast warmup`."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from rnnfast import _check
from rnnfast._check.arrays import FLOAT_DTYPES
from rnnfast.cli import options
from rnnfast.cli.errors import BAD_FILES, BAD_VALUES, fail, one_line
from rnnfast.cli.experiment import unknown_share
from rnnfast.cli.options import DTYPES, share_or_all, word
from rnnfast.cli.progress import compilations
from rnnfast.cli.results import (
    after_a_line_end,
    encode_prompt,
    first_words,
    load_run,
    numbers_table,
    print_json,
    stream_text,
)
from rnnfast.cli.run_folder import VALID, open_run_ids
from rnnfast.data import encode_to_memmap
from rnnfast.models import CBOWLM, RNNLM
from rnnfast.training import perplexity
from rnnfast.training.warmup import cache_folder
from rnnfast.training.warmup import warmup as compile_kernels


def evaluate(
    context: typer.Context,
    run: options.Run,
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILES",
            help="Text files, scored as one text; - is standard input. Default: the run's validation text.",
            show_default=False,
        ),
    ] = None,
    encoding: options.Encoding = "utf-8",
    cell: options.OwnCell = None,
    last: options.Last = False,
    as_json: options.Json = False,
) -> None:
    """Score a text: perplexity, tokens, bits per token, and the share of words the model does not know.

    Perplexity is roughly the number of words the model hesitates between: 1 means certainty, the size of the
    vocabulary means ignorance. Compare it only between models with the same vocabulary.

    Example: [bold]rnnfast evaluate runs/first my.txt[/bold]
    """
    with one_line(ValueError):
        if not files and "encoding" in options.given_options(context):
            raise _check.values.no_effect("--encoding", "without files")
    model, tokenizer, _ = load_run(run, cell, last=last)
    if not files:
        path = run / VALID
        if not path.is_file():
            fail(f"{path} does not exist; name text files to evaluate.")
        with one_line(*BAD_FILES):
            ids = open_run_ids(path, tokenizer.vocab_size)
        _report(_scored(model, ids, unknown_share(tokenizer, ids), str(path)), as_json)
        return
    with one_line(*BAD_VALUES), tempfile.TemporaryDirectory(prefix="rnnfast-") as folder:
        with options.texts(files, encoding=encoding) as (corpus,):
            assert corpus is not None
            ids = encode_to_memmap(tokenizer, corpus, Path(folder) / "text.npy")
        found = _scored(model, ids, unknown_share(tokenizer, ids), corpus.name)
        del ids  # a mapped file cannot be removed on Windows
    _report(found, as_json)


def _scored(model: RNNLM | CBOWLM, ids: np.ndarray, unknown: float, name: str) -> dict[str, Any]:
    if len(ids) < 2:
        fail(f"{name} must have at least 2 tokens, got {len(ids)}.")
    value = perplexity(model, ids)
    if math.isnan(value):
        fail("the perplexity is not a number, so the model's parameters are damaged.")
    return {
        "text": name,
        "tokens": len(ids),
        "unknown_share": unknown,
        "perplexity": value,
        "bits_per_token": math.log2(value),
    }


def _report(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    typer.echo(f"text             {found['text']}")
    typer.echo(f"tokens           {found['tokens']:,}")
    typer.echo(f"unknown tokens   {found['unknown_share']:.2%}")
    typer.echo(f"perplexity       {found['perplexity']:.2f}")
    typer.echo(f"bits per token   {found['bits_per_token']:.3f}")


# `rnnfast generate`: write text with a trained model.


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
            text = options.prompt_text(prompt)
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


# `rnnfast predict`: the likeliest next words.


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
        text = options.prompt_text(prompt)
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


# `rnnfast warmup`: compile kernels ahead of time.


def warmup(
    dtype: Annotated[
        str | None,
        typer.Option(
            parser=word("--dtype", *DTYPES),
            metavar="|".join(DTYPES),
            help="Type of the parameters.",
            show_default="both",
        ),
    ] = None,
) -> None:
    """Compile the layers RNN, LSTM and GRU, the losses and the optimizers, so that later commands do not
    wait for the compiler.

    Compiled kernels are cached on disk. Other cells, and products in bfloat16, are compiled at their first
    use.

    Example: [bold]rnnfast warmup --dtype float32[/bold]
    """
    kinds = FLOAT_DTYPES if dtype is None else (np.dtype(dtype),)
    began = time.perf_counter()
    with compilations(lambda: typer.echo("compiling kernels, once")) as compiled:
        for kind in kinds:
            compile_kernels(kind)
    seconds = time.perf_counter() - began
    typer.echo(f"ready after {seconds:.1f} s ({compiled.count} functions compiled)")
    folder = cache_folder()
    if folder is None:
        typer.echo("compiled kernels are not cached on disk, so each process compiles what it needs")
    else:
        typer.echo(f"compiled kernels are cached in {folder}")
