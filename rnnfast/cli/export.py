"""`rnnfast export`: a trained model as an ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from rnnfast.cli import options
from rnnfast.cli.errors import BAD_VALUES, one_line
from rnnfast.cli.results import numbers_table, print_json
from rnnfast.cli.words import load_run
from rnnfast.interop.onnx_run import export_with_tokenizer, tokenizer_path


def export(
    run: options.Run,
    path: Annotated[
        Path, typer.Argument(metavar="FILE", help="The file, such as model.onnx.", show_default=False)
    ],
    cell: options.OwnCell = None,
    last: options.Last = False,
    as_json: options.Json = False,
) -> None:
    """Write a trained model as an ONNX file, for programs without rnnfast.

    The file runs in ONNX Runtime and in other programs that read ONNX; its states are inputs and outputs.
    The tokenizer is written beside it: model.tokenizer.json beside model.onnx. The command compares the file
    in ONNX Runtime with the model, and prints the largest difference and which array holds each parameter. It
    needs the packages onnx and onnxruntime.

    Example: [bold]rnnfast export runs/first model.onnx[/bold]
    """
    model, tokenizer, _ = load_run(run, cell, last=last)
    with one_line(*BAD_VALUES, ModuleNotFoundError):
        exported = export_with_tokenizer(model, tokenizer, path, verbose=False)
    beside = tokenizer_path(path)
    if as_json:
        placed = [
            dict(zip(("parameter", "shape", "initializer"), row, strict=True)) for row in exported.placed
        ]
        print_json(
            {
                "file": str(path),
                "tokenizer": str(beside),
                "largest_difference": exported.difference,
                "parameters": placed,
            }
        )
        return
    table = numbers_table("parameter", "shape", "initializer")
    for row in exported.placed:
        table.add_row(row.parameter, " x ".join(map(str, row.shape)), row.initializer)
    console = Console(markup=False, highlight=False)
    console.print(table)
    console.print(f"largest difference to ONNX Runtime: {exported.difference:.1e}", soft_wrap=True)
    console.print(f"model:     {path}", soft_wrap=True)
    console.print(f"tokenizer: {beside}", soft_wrap=True)
