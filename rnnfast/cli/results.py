"""Results of a run, as a table that fits the terminal and as JSON values."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from rnnfast.training.checkpoint import finite_or_none


class Result(NamedTuple):
    """The result of one model; None for values of training if it is not trained."""

    title: str
    perplexity: float
    parameters: int
    best_epoch: int | None = None
    epochs: int | None = None
    tokens_per_second: float | None = None


_COLUMNS = {
    "validation\nperplexity": lambda result: f"{result.perplexity:.2f}",
    "best epoch": lambda result: "" if result.best_epoch is None else str(result.best_epoch),
    "tokens/s": lambda r: "" if r.tokens_per_second is None else f"{r.tokens_per_second:,.0f}",
    "parameters": lambda result: f"{result.parameters:,}",
}


def show_results(console: Console, results: Sequence[Result]) -> None:
    """Print one table, or two if the console is too narrow."""
    names = list(_COLUMNS)
    whole = _table(results, names)
    wide = console.options.update(max_width=1000)
    if console.measure(whole, options=wide).maximum <= console.width:
        console.print(whole)
        return
    for part in (names[:2], names[2:]):
        console.print(_table(results, part))


def _table(results: Sequence[Result], columns: Sequence[str]) -> Table:
    table = numbers_table("model", *columns)
    for result in results:
        table.add_row(result.title, *(_COLUMNS[name](result) for name in columns))
    return table


def numbers_table(*names: str) -> Table:
    """A table of right-aligned numbers; its first column is text."""
    table = Table(*names, box=SIMPLE_HEAD)
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def print_json(value: dict[str, Any]) -> None:
    """Print one JSON object on standard output; infinity and NaN, which JSON lacks, become null."""
    typer.echo(json.dumps(_finite(value), indent=1, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return finite_or_none(value)
