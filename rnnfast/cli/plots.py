"""The picture of a run."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from rnnfast.files.atomic import write_atomically

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
