"""`rnnfast export`: a trained model as an ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from rnnfast import _check
from rnnfast.cli import options
from rnnfast.cli.errors import BAD_VALUES, one_line
from rnnfast.cli.results import numbers_table, print_json
from rnnfast.cli.words import load_any_run
from rnnfast.interop.onnx_run import export_with_tokenizer, tokenizer_path


def export(
    run: options.Run,
    path: Annotated[
        Path, typer.Argument(metavar="FILE", help="The file to write: .onnx.", show_default=False)
    ],
    cell: options.OwnCell = None,
    last: options.Last = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace FILE if it exists.")] = False,
    as_json: options.Json = False,
) -> None:
    """Write a trained model as an ONNX file, for programs without rnnfast.

    The file runs in ONNX Runtime and in other programs that read ONNX; its states are inputs and outputs.
    The tokenizer of the run, if it has one, goes to model.tokenizer.json beside model.onnx. The command
    compares the file in ONNX Runtime with the model. It prints the largest difference and which array holds
    each parameter. It needs the packages onnx and onnxruntime.

    Example: [bold]rnnfast export runs/first model.onnx[/bold]
    """
    model, tokenizer, _ = load_any_run(run, cell, last=last)
    beside = None if tokenizer is None else tokenizer_path(path)
    with one_line(*BAD_VALUES, ModuleNotFoundError):
        _check_files(run, path, beside, overwrite)
        exported = export_with_tokenizer(model, tokenizer, path)
    if as_json:
        placed = [
            dict(zip(("parameter", "shape", "initializer"), row, strict=True)) for row in exported.placed
        ]
        print_json(
            {
                "file": str(path),
                "tokenizer": None if beside is None else str(beside),
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
    if beside is not None:
        console.print(f"tokenizer: {beside}", soft_wrap=True)


def _check_files(run: Path, path: Path, beside: Path | None, overwrite: bool) -> None:
    """The files that are written have names of their own, and replace others only if they may."""
    if path.suffix.lower() != ".onnx":
        raise _check.interop.unknown_ending(path, (".onnx",))
    exports = (".onnx", ".tokenizer.json")
    of_run = {file.resolve() for file in run.iterdir() if not file.name.lower().endswith(exports)}
    for target in (path, *([] if beside is None else [beside])):
        if target.resolve() in of_run:
            raise ValueError(f"{target}: this is a file of the run; choose another one.")
        if target.exists() and not overwrite:
            raise _check.interop.file_in_the_way(target)
