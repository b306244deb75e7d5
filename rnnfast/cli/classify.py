"""`rnnfast classify`: a classifier of sequences from `.ts` files, and how often it is right."""

from __future__ import annotations

import importlib
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from rich.console import Console

from rnnfast import _check
from rnnfast.cli import options
from rnnfast.cli.errors import BAD_VALUES, counted, one_line
from rnnfast.cli.options import cell as cell_parser
from rnnfast.cli.options import word
from rnnfast.cli.processes import Processes
from rnnfast.cli.progress import clock, compilations, show_steps
from rnnfast.cli.results import numbers_table
from rnnfast.cli.resumable import Resumable
from rnnfast.cli.series_files import write_csv
from rnnfast.data import read_ts
from rnnfast.models.weights import MOST_LAYERS, named_cell

PREDICTIONS, MODEL, _TRAINING = "predictions.csv", "model.safetensors", "model.training"
FILES = (PREDICTIONS, MODEL, _TRAINING)
_POOLINGS = ("last", "mean", "max")


class Part(NamedTuple):
    """Sequences (T_i, D) and their classes (N,)."""

    xs: list[np.ndarray]
    labels: np.ndarray


# One line per option, as a table.
# fmt: off
Train = Annotated[Path | None, typer.Argument(
    metavar="TRAIN", show_default=False, help="A .ts file of sequences with classes to learn from.")]
Test = Annotated[Path | None, typer.Argument(
    metavar="TEST", show_default=False, help="A .ts file of sequences to classify.")]
Cell = Annotated[str, typer.Option(
    "--cell", parser=cell_parser("--cell"), metavar="NAME", help=options.READY_CELLS)]
HiddenSize = Annotated[int, options.whole_option(
    "--hidden-size", 1, None, "Units of each layer.", high=1_000_000)]
Layers = Annotated[int, options.whole_option("--layers", 1, None, "Recurrent layers.", high=MOST_LAYERS)]
Bidirectional = Annotated[bool, typer.Option(
    "--bidirectional/--forward", help="Read each sequence backwards too, or forward only.")]
Pooling = Annotated[str, typer.Option(
    "--pooling", parser=word("--pooling", *_POOLINGS), metavar="|".join(_POOLINGS),
    help="The vector of a sequence: the final state, or the mean or maximum over its steps.")]
MaxEpochs = Annotated[int | None, options.whole_option(
    "--max-epochs", 1, None, "Passes over the sequences.", "as many as make 500 updates, 30 to 300")]
Blocks = Annotated[int | None, options.blocks_option(None)]
Seed = Annotated[int, options.whole_option("--seed", 0, None, "The same seed gives the same numbers.")]
Out = Annotated[Path | None, typer.Option(
    "--out", metavar="FOLDER", show_default="runs/DATE_TIME",
    help="Folder for the predictions and the model.")]
Overwrite = Annotated[bool, typer.Option(
    "--overwrite", help="Replace earlier results of the command in that folder.")]
Resume = Annotated[Path | None, typer.Option(
    "--resume", metavar="FOLDER", show_default=False,
    help="Continue a command that was stopped or killed, with the same result.")]
# fmt: on


def classify(
    context: typer.Context,
    train: Train = None,
    test: Test = None,
    cell: Cell = "gru",
    hidden_size: HiddenSize = 64,
    layers: Layers = 1,
    bidirectional: Bidirectional = True,
    pooling: Pooling = "mean",
    max_epochs: MaxEpochs = None,
    blocks: Blocks = None,
    seed: Seed = 0,
    out: Out = None,
    overwrite: Overwrite = False,
    resume: Resume = None,
) -> None:
    """Train a classifier of sequences on one .ts file, and judge it on another.

    The files are those of the UCR and UEA archives. Sequences may differ in length, and ? is a value that was
    not observed. The accuracy stands beside that of always answering the most common class. The folder
    holds predictions.csv and the model. The command needs scikit-learn.

    \b
    Examples:
    [bold]rnnfast classify GunPoint_TRAIN.ts GunPoint_TEST.ts --out runs/gun[/bold]
    [bold]rnnfast classify --resume runs/gun[/bold]
    """
    console = context.obj.console()
    with ExitStack() as stack:
        with one_line(*BAD_VALUES, ImportError):
            call = Resumable(context, FILES)
            for name in ("train", "test"):
                if call.told[name] is None:
                    context.fail(f"Missing argument {name.upper()!r}.")
            work = Classifying(call, console, context.obj)
            folder = call.folder(stack)
        context.obj.say_blocks(console)
        with compilations(lambda: console.print("compiling kernels, once")):
            call.run(lambda: work.run(folder.path, resumes=call.resumes), folder)


class Classifying:
    """One run of `rnnfast classify`.

    Parameters
    ----------
    call : Resumable
        The options.
    console : Console
    processes : Processes

    Raises
    ------
    ValueError, OSError
        The files cannot be used.
    ImportError
        scikit-learn is not installed.
    """

    def __init__(self, call: Resumable, console: Console, processes: Processes) -> None:
        classifier_of = importlib.import_module("rnnfast.sklearn").RNNClassifier
        told = self._told = call.told
        self._console, self._processes = console, processes
        self._learned, self._judged = processes.of_first(
            lambda: (Part(*read_ts(told["train"])), Part(*read_ts(told["test"])))
        )
        _check_parts(told["test"], self._learned, self._judged)
        network = ("hidden_size", "layers", "bidirectional", "pooling", "max_epochs")
        self._classifier = classifier_of(
            cell=named_cell("classify", told["cell"]),
            random_state=told["seed"],
            ranks=processes.ranks,
            **{name: told[name] for name in network},
        )
        rows = min(self._classifier.batch_size, len(self._learned.xs))
        self._classifier.blocks = call.choose_blocks(rows)

    def run(self, folder: Path, *, resumes: bool) -> None:
        """Train, judge, write the files, and print the results."""
        _describe(self._console, self._learned, self._judged)
        self._train(folder / _TRAINING, resumes)
        if self._processes.is_first:
            _report(self._console, self._classifier, self._learned, self._judged, folder)

    def _train(self, file: Path, resumes: bool) -> None:
        classifier, told = self._classifier, self._told
        name = f"{classifier.cell.title}, {told['layers']} x {told['hidden_size']}"
        epochs = told["max_epochs"] or classifier.planned_epochs(len(self._learned.xs))
        seconds = []
        with show_steps(self._console, name) as display:

            def report(record: dict[str, Any], _: Any) -> None:
                seconds.append(record["seconds"])
                display.reached(record["epoch"], epochs, record["epoch"], epochs, record["train_loss"])

            classifier.set_params(callbacks=[report])
            classifier.fit(*self._learned, checkpoint_file=file, resume=resumes)
        if seconds:
            self._console.print(f"{name}: {counted(epochs, 'epoch')} in {clock(seconds[-1])}", soft_wrap=True)


def _check_parts(test: Path, learned: Part, judged: Part) -> None:
    channels = [part.xs[0].shape[1] for part in (learned, judged)]
    if channels[0] != channels[1]:
        raise _check.series.bad_file(
            "classify", test, f"must have {channels[0]} channels, as TRAIN has, got {channels[1]}"
        )


def _describe(console: Console, learned: Part, judged: Part) -> None:
    """Print one line: sequences, lengths, channels, classes."""
    lengths = [len(x) for part in (learned, judged) for x in part.xs]
    steps = counted(max(lengths), "step")
    steps = steps if min(lengths) == max(lengths) else f"{min(lengths):,} to {steps}"
    missing = sum(int(np.isnan(x).sum()) for part in (learned, judged) for x in part.xs)
    console.print(
        f"{counted(len(learned.xs), 'sequence')} to learn, {len(judged.xs):,} to judge: {steps}, "
        f"{counted(learned.xs[0].shape[1], 'channel')}, {len(set(learned.labels)):,} classes"
        + (f", {counted(missing, 'value')} missing" if missing else ""),
        soft_wrap=True,
    )


def _report(console: Console, classifier: Any, learned: Part, judged: Part, folder: Path) -> None:
    """Print how often the classifier is right, and write its predictions and itself."""
    shares = classifier.predict_proba(judged.xs)
    predicted = classifier.classes_[shares.argmax(axis=1)]
    common = _most_common(learned.labels)
    table = numbers_table("", "training", "test")
    right = (np.mean(classifier.predict(learned.xs) == learned.labels), np.mean(predicted == judged.labels))
    table.add_row("accuracy", *(f"{share:.1%}" for share in right))
    guessed = (np.mean(part.labels == common) for part in (learned, judged))
    table.add_row(f"always {common}, the most common class", *(f"{share:.1%}" for share in guessed))
    console.print(table)
    table = numbers_table("class", "training", "test", "recall in test")
    for label in sorted({*learned.labels.tolist(), *judged.labels.tolist()}):
        ours = judged.labels == label
        found = f"{np.mean(predicted[ours] == label):.1%}" if ours.any() else ""
        table.add_row(label, f"{np.sum(learned.labels == label):,}", f"{ours.sum():,}", found)
    console.print(table)
    columns = {
        "sequence": np.arange(1, len(predicted) + 1),
        "class": judged.labels,
        "predicted": predicted,
        "probability": shares.max(axis=1).round(6),
    }
    write_csv(folder / PREDICTIONS, columns)
    classifier.save(folder / MODEL)
    console.print(f"written to {folder}: {PREDICTIONS}, {MODEL}", soft_wrap=True)
    again = f"RNNClassifier.load({str(folder / MODEL)!r}).predict(xs)"
    console.print(f"use the model in Python: {again}", soft_wrap=True)


def _most_common(labels: np.ndarray) -> str:
    names, counts = np.unique(labels, return_counts=True)
    return str(names[np.argmax(counts)])
