"""`rnnfast evaluate`: how well a run predicts a text."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from rnnfast import _check
from rnnfast.cli import inputs, options
from rnnfast.cli.errors import BAD_FILES, BAD_VALUES, fail, one_line
from rnnfast.cli.experiment import unknown_share
from rnnfast.cli.results import print_json
from rnnfast.cli.run_folder import VALID, open_run_ids
from rnnfast.cli.words import load_run
from rnnfast.data import encode_to_memmap
from rnnfast.models import CBOWLM, RNNLM
from rnnfast.training import perplexity


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
        with inputs.texts(files, encoding=encoding) as (corpus,):
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
