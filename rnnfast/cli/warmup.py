"""`rnnfast warmup`: compile kernels ahead of time."""

from __future__ import annotations

import time
from typing import Annotated

import numpy as np
import typer

from rnnfast._check.arrays import FLOAT_DTYPES
from rnnfast.cli.numbers import word
from rnnfast.cli.options import DTYPES
from rnnfast.cli.progress import compilations
from rnnfast.training.warmup import cache_folder
from rnnfast.training.warmup import warmup as compile_kernels


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
