"""Results of a run, as a table that fits the terminal and as JSON values."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from rnnfast import _check
from rnnfast.cli.errors import BAD_FILES, fail, one_line
from rnnfast.data import CharTokenizer, Tokenizer, WordTokenizer, split_words
from rnnfast.files.atomic import write_atomically
from rnnfast.models import CBOWLM, RNNLM
from rnnfast.models.weights import named_cell
from rnnfast.training import load_checkpoint
from rnnfast.training.checkpoint import LAST, MODEL, finite_or_none


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


# Text for the commands that use a trained model: prompts in, streams of words out.


def load_run(
    folder: Path, cell: str | None = None, *, last: bool = False
) -> tuple[RNNLM | CBOWLM, Tokenizer, dict[str, Any]]:
    """`load_any_run` of a run that has a tokenizer."""
    model, tokenizer, config = load_any_run(folder, cell, last=last)
    if tokenizer is None:
        fail(f"{folder}: this run was saved without a tokenizer, so it cannot read text.")
    return model, tokenizer, config


def load_any_run(folder: Path, cell: str | None = None, *, last: bool = False) -> Any:
    """The model of a run folder, its tokenizer, if it has one, and its `config.json`; a bad folder ends with
    one line.

    `cell` names the user's own cell from the command line; its module has been imported.
    """
    if last and (folder / MODEL).is_file() and not (folder / LAST).exists():
        fail(f"{folder}: this run did not stop early; leave out --last.")
    with one_line(*BAD_FILES):
        try:
            model, tokenizer, config = load_checkpoint(folder, last=last)
        except _check.CellMissing as error:
            if cell is None:
                raise _check.objects.cell_needed(folder, error.name) from None
            raise _check.objects.other_cell(folder, error.name, cell) from None
    if cell is not None:
        saved = model.config.get("cell")
        with one_line(ValueError):
            if not isinstance(saved, dict):
                raise _check.values.no_effect("--cell", "on a run with a ready cell")
            if saved["fingerprint"] != named_cell("rnnfast", cell, "--cell").fingerprint:
                raise _check.objects.other_cell(folder, saved["name"], cell)
    return model, tokenizer, config


def encode_prompt(tokenizer: Tokenizer, text: str) -> np.ndarray:
    """Ids of a prompt; stderr lists unknown words, and a prompt without words ends the command."""
    ids = tokenizer.encode(text)
    if not ids.size:
        fail(f"the prompt has no {'characters' if isinstance(tokenizer, CharTokenizer) else 'words'}.")
    if (ids == tokenizer.unk_id).any():
        words = set(_pieces(tokenizer, text)) - set(tokenizer.special)  # prepared texts contain <unk>
        unknown = sorted(word for word in words if (tokenizer.encode(word) == tokenizer.unk_id).all())
        if unknown:
            typer.echo(f"warning: not in the model's vocabulary: {', '.join(unknown)}", err=True)
    return ids


def _pieces(tokenizer: Tokenizer, text: str) -> Iterable[str]:
    """The words or characters of a text."""
    if isinstance(tokenizer, CharTokenizer):
        return text
    if isinstance(tokenizer, WordTokenizer):
        return split_words(text.lower() if tokenizer.lower else text)
    return text.split()


def stream_text(tokenizer: Tokenizer, prompt: np.ndarray, ids: Iterable[int]) -> Iterator[str]:
    """The prompt, then each new word as it is drawn, with the right spaces between them.

    The space before a word depends only on its line, so only the current line is decoded again.
    """
    line = [int(index) for index in prompt]
    shown = tokenizer.decode(line)
    yield shown
    for index in ids:
        line.append(index)
        text = tokenizer.decode(line)
        yield text[len(shown) :]
        shown = text
        if index == tokenizer.eos_id:
            line, shown = [], ""


def after_a_line_end(tokenizer: Tokenizer, ids: np.ndarray) -> np.ndarray:
    """A prompt after a line end, as words at the beginning of a line occur in training."""
    return np.concatenate([first_words(tokenizer), ids])


def first_words(tokenizer: Tokenizer) -> np.ndarray:
    """The start of generation without a prompt: a line end."""
    return np.array([tokenizer.eos_id], dtype=np.int64)


# The picture of a run.


_COLORS = {"CBOW": "#d9822b"}
_RECURRENT = "#1f5fbf"
_GREY = "#6b6b6b"


def draw_learning_curve(
    path: str | os.PathLike[str],
    histories: Mapping[str, Sequence[Mapping[str, Any]]],
    unigram: float | None,
    title: str,
) -> None:
    """Perplexity over epochs as a PNG file, on a logarithmic scale.

    Parameters
    ----------
    path
        File to write.
    histories
        The records of `Trainer.history` of each model, by name.
    unigram
        Validation perplexity of word frequencies, drawn as a horizontal line.
    title
        Title of the picture.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, ScalarFormatter

    figure = Figure(figsize=(7.2, 4.4), dpi=144, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, records in histories.items():
        _curves(axes, name, records)
    if unigram is not None:
        axes.axhline(unigram, color=_GREY, linewidth=1.2, linestyle=(0, (2, 2)))
        axes.annotate(
            f"unigram {unigram:.1f}",
            (0.995, unigram),
            xycoords=("axes fraction", "data"),
            xytext=(0, 4),
            textcoords="offset points",
            ha="right",
            color=_GREY,
        )
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("epoch")
    axes.set_ylabel("perplexity")
    axes.set_title(title, loc="left", fontsize=11)
    axes.grid(axis="y", color="#dddddd", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    with write_atomically(path) as file:
        figure.savefig(file, format="png")


def _curves(axes: Any, name: str, records: Sequence[Mapping[str, Any]]) -> None:
    """Draw training thin and dashed, validation bold, and mark the best epoch with its value."""
    color = _COLORS.get(name, _RECURRENT)
    epochs = [record["epoch"] for record in records]
    valid = [_drawable(record["valid_perplexity"]) for record in records]
    train = [_drawable(record["train_perplexity"]) for record in records]
    marker = "o" if len(epochs) == 1 else None
    axes.plot(
        epochs,
        train,
        color=color,
        linewidth=1.1,
        linestyle="--",
        alpha=0.6,
        marker=marker,
        label=f"{name}, training",
    )
    axes.plot(epochs, valid, color=color, linewidth=2.2, marker=marker, label=f"{name}, validation")
    finite = [(value, epoch) for value, epoch in zip(valid, epochs, strict=True) if math.isfinite(value)]
    if finite:
        value, epoch = min(finite)
        axes.plot([epoch], [value], "o", color=color, markersize=5)
        axes.annotate(
            f"{value:.1f}",
            (epoch, value),
            xytext=(0, 6),
            textcoords="offset points",
            ha="center",
            color=color,
        )


def _drawable(value: float | None) -> float:
    """The value, or NaN (a gap) for None and the infinite perplexity of a diverged run."""
    return value if value is not None and math.isfinite(value) else math.nan
