"""`rnnfast convert` and `rnnfast export`: models from one file format to another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from rnnfast import _check
from rnnfast.cli import options
from rnnfast.cli.errors import BAD_VALUES, one_line
from rnnfast.cli.results import load_any_run, numbers_table, print_json
from rnnfast.interop.formats import Converted, Entry, format_of
from rnnfast.interop.formats import convert as convert_files
from rnnfast.interop.onnx_export import export_with_tokenizer, tokenizer_path
from rnnfast.models.weights import named_cell

_FORMATS = ".safetensors, .onnx, .npz, .pt or .pkl"


def convert(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help=f"The file to read: {_FORMATS}.", show_default=False)
    ],
    target: Annotated[
        Path, typer.Argument(metavar="OUT", help=f"The file to write: {_FORMATS}.", show_default=False)
    ],
    cell: options.CellOfFile = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it exists.")] = False,
    as_json: options.Json = False,
) -> None:
    """Convert a model or recurrent layers from one file format to another.

    The endings of the files tell their formats. .safetensors and .npz hold our names, .pt a state_dict of
    PyTorch, .pkl the list of "Deep Learning from Scratch 2". A file cannot run code. The command prints where
    each parameter came from and went, and compares both files on random input.

    Example: [bold]rnnfast convert BetterRnnlm.pkl model.safetensors[/bold]
    """
    with one_line(*BAD_VALUES, ModuleNotFoundError):
        for path in (source, target):
            format_of(path)
        if target.exists() and not overwrite:
            raise _check.interop.file_in_the_way(target)
        chosen = None if cell is None else named_cell("rnnfast", cell, "--cell")
        converted = convert_files(source, target, cell=chosen)
    if as_json:
        print_json(_summary(source, target, converted))
    else:
        _report(source, target, converted)


def _summary(source: Path, target: Path, converted: Converted) -> dict[str, Any]:
    """The JSON object of --json."""
    rows = [
        {
            "parameter": row.parameter,
            "shape": row.shape,
            "in": [entry._asdict() for entry in row.read],
            "out": [entry._asdict() for entry in row.written],
        }
        for row in converted.rows
    ]
    return {
        "in": str(source),
        "out": str(target),
        "model": repr(converted.model),
        "parameters": rows,
        "largest_difference": converted.difference,
        "notes": converted.notes,
    }


def _report(source: Path, target: Path, converted: Converted) -> None:
    console = Console(markup=False, highlight=False)
    console.print(repr(converted.model), soft_wrap=True)
    table = numbers_table(source.name, "parameter", target.name)
    for column in table.columns:
        column.justify, column.overflow = "left", "fold"
    for row in converted.rows:
        table.add_row(_told(row.read), row.parameter, _told(row.written))
    console.print(table)
    console.print(f"largest difference on random input: {converted.difference:.1e}", soft_wrap=True)
    for note in converted.notes:
        console.print(f"note: {note}", soft_wrap=True)


def _told(entries: Sequence[Entry]) -> str:
    """Arrays with their shapes, one a line."""
    return "\n".join(f"{entry.name} {entry.shape}" for entry in entries)


# `rnnfast export`: a trained model as an ONNX file.


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
