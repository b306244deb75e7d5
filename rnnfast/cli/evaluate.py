"""`rnnfast evaluate`: how well a run predicts a text."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from rnnfast.cli.errors import BAD_FILES, fail, one_line
from rnnfast.cli.options import Run
from rnnfast.cli.words import load_run
from rnnfast.data import encode_to_memmap, open_ids, read_files
from rnnfast.models import CBOWLM, RNNLM
from rnnfast.training import perplexity
from rnnfast.training.experiment import unknown_share
from rnnfast.training.run_folder import VALID


def evaluate(
    run: Run,
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILES",
            help="UTF-8 text files, scored as one text. Without any: the run's own validation text.",
            show_default=False,
        ),
    ] = None,
    last: Annotated[
        bool, typer.Option("--last", help="The last weights of a run that stopped early, not its best.")
    ] = False,
) -> None:
    """Score a text: perplexity, tokens, bits per token, and the share of words the model does not know.

    Perplexity is about how many words the model wavers between: 1 is certainty, the size of the vocabulary is
    ignorance. Compare it only between models with the same vocabulary.

    Example: [bold]rnnfast evaluate runs/first my.txt[/bold]
    """
    model, tokenizer = load_run(run, last=last)
    if not files:
        path = run / VALID
        if not path.is_file():
            fail(f"{path} does not exist; name text files to evaluate.")
        with one_line(*BAD_FILES):
            ids = open_ids(path)
        _report(model, ids, unknown_share(tokenizer, ids), str(path))
        return
    with tempfile.TemporaryDirectory(prefix="rnnfast-") as folder:
        with one_line(*BAD_FILES):
            corpus = read_files(files)
            ids = encode_to_memmap(tokenizer, corpus, Path(folder) / "text.npy")
        _report(model, ids, unknown_share(tokenizer, ids), corpus.name)
        del ids  # a mapped file cannot be removed on Windows


def _report(model: RNNLM | CBOWLM, ids: np.ndarray, unknown: float, name: str) -> None:
    with one_line(*BAD_FILES):
        value = perplexity(model, ids)
    if math.isnan(value):
        fail("the perplexity is not a number, so the model's parameters are damaged.")
    typer.echo(f"text             {name}")
    typer.echo(f"tokens           {len(ids):,}")
    typer.echo(f"unknown tokens   {unknown:.2%}")
    typer.echo(f"perplexity       {value:.2f}")
    typer.echo(f"bits per token   {math.log2(value):.3f}")
