"""What `rnnfast train` can be told, and how its help says it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from rnnfast._check import FLOAT_DTYPES
from rnnfast.cells import READY
from rnnfast.cli.experiment import OPTIMIZERS, TOKENIZERS, WEIGHT_DECAY, optimizers_with
from rnnfast.cli.numbers import below_one, cell, number, own_cell, share, whole, word
from rnnfast.models.cells import MOST_LAYERS

_TEXT, _MODEL, _TRAINING = "Text", "Model", "Training"
_BASELINE, _OUTPUT = "Baseline", "Output"

_RATES = ", ".join(f"{name} {rate:g}" for name, (_, rate) in OPTIMIZERS.items())
DTYPES = tuple(kind.name for kind in FLOAT_DTYPES)
_MOST_UNITS = 1_000_000  # no machine has memory for more


def given_options(context: typer.Context) -> set[str]:
    """The names of the parameters that the command line says something about."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name for name, source in sources.items() if source and source.name != "DEFAULT"}


def _own(option: str) -> str:
    """The defaults of an optimizer's setting, for the help: one value, or one each."""
    found: dict[float, list[str]] = {}
    for name in optimizers_with(option):
        default = inspect.signature(OPTIMIZERS[name][0]).parameters[option].default
        found.setdefault(default, []).append(name)
    return "; ".join(f"{' and '.join(names)} {value:g}" for value, names in found.items())


def _value(
    read: Callable[[Any], Any],
    options: str | tuple[str, ...],
    metavar: str,
    panel: str | None,
    text: str,
    shown: bool | str = True,
) -> Any:
    """An option with a value that `read` refuses in one sentence."""
    names = (options,) if isinstance(options, str) else options
    return typer.Option(
        *names, parser=read, metavar=metavar, rich_help_panel=panel, help=text, show_default=shown
    )


def whole_option(
    option: str, low: int, panel: str | None, text: str, shown: bool | str = True, high: int | None = None
) -> Any:
    """An option with a whole number of at least `low`."""
    return _value(whole(option, low, high), option, "N", panel, text, shown)


def number_option(
    option: str, low: float, panel: str | None, text: str, shown: bool | str = True, metavar: str = "X"
) -> Any:
    """An option with a finite number of at least `low`."""
    return _value(number(option, low), option, metavar, panel, text, shown)


def _kept(option: str, name: str, text: str) -> Any:
    """An option with the share of something that an optimizer keeps."""
    return _value(below_one(option), option, "X", _TRAINING, text, _own(name))


# One line an option: they are a table, and read as one.
# fmt: off
Files = Annotated[list[Path] | None, typer.Argument(
    metavar="FILES", show_default=False,
    help="Text files to learn from, in order; - is standard input. Without any: Python's own language "
    "reference.")]
Valid = Annotated[list[Path] | None, typer.Option(
    "--valid", metavar="FILE", show_default=False, rich_help_panel=_TEXT,
    help="Text to judge the model by; may be given again. Without it, a part of the text is held out.")]
ValidFraction = Annotated[float, _value(
    share("--valid-fraction"), "--valid-fraction", "SHARE", _TEXT,
    "How much to hold out, in blocks from all over.")]
Encoding = Annotated[str, typer.Option(
    "--encoding", metavar="NAME", rich_help_panel=_TEXT,
    help="How the files write characters, as utf-16 or cp1252.")]
Tokenizer = Annotated[str, _value(
    word("--tokenizer", *TOKENIZERS), "--tokenizer", "|".join(TOKENIZERS), _TEXT,
    "What the model reads and writes; whitespace is for text prepared by others, such as the Penn Treebank.")]
Lower = Annotated[bool | None, typer.Option(
    "--lower/--no-lower", rich_help_panel=_TEXT, show_default="lower; whitespace and char no-lower",
    help="Turn words to lower case.")]
MinCount = Annotated[int | None, whole_option(
    "--min-count", 1, _TEXT, "Words that occur less often become <unk>.", "2; whitespace 1")]
MaxVocab = Annotated[int | None, whole_option(
    "--max-vocab", 3, _TEXT, "The most words to know; the frequent ones stay.", "no limit")]

Cell = Annotated[str, _value(
    cell("--cell"), ("--cell", "--model"), "NAME", _MODEL,
    f"Kind of recurrent layer: {', '.join(ready.name for ready in READY)}; module:name for one of your own.")]
EmbedSize = Annotated[int, whole_option("--emsize", 1, _MODEL, "Size of word vectors.", high=_MOST_UNITS)]
HiddenSize = Annotated[int, whole_option(
    "--nhid", 1, _MODEL, "Hidden units in each layer.", high=_MOST_UNITS)]
Layers = Annotated[int, whole_option(
    "--nlayers", 1, _MODEL, "Recurrent layers above each other.", high=MOST_LAYERS)]
Dropout = Annotated[float, _value(
    below_one("--dropout"), "--dropout", "SHARE", _MODEL,
    "Share of units dropped while learning; 0 for none.")]
Tied = Annotated[bool | None, typer.Option(
    "--tied/--no-tied", rich_help_panel=_MODEL, show_default="for words, where emsize equals nhid",
    help="Use the word vectors as output weights too.")]
Dtype = Annotated[str, _value(
    word("--dtype", *DTYPES), "--dtype", "|".join(DTYPES), _MODEL, "Precision.")]

Epochs = Annotated[int, whole_option("--epochs", 1, _TRAINING, "The most passes over the text.")]
BatchSize = Annotated[int, whole_option(
    "--batch-size", 1, _TRAINING, "Places of the text that are read side by side.")]
Bptt = Annotated[int, whole_option(
    "--bptt", 1, _TRAINING, "Words from one update to the next, in each place.")]
Optimizer = Annotated[str, _value(
    word("--optimizer", *OPTIMIZERS), "--optimizer", "NAME", _TRAINING,
    f"How weights are updated: {', '.join(OPTIMIZERS)}.")]
LearningRate = Annotated[float | None, number_option("--lr", 0, _TRAINING, "Learning rate.", _RATES)]
Momentum = Annotated[float | None, _kept(
    "--momentum", "momentum", "How much of its velocity a weight keeps.")]
Beta1 = Annotated[float | None, _kept("--beta1", "beta1", "How much of the mean gradient is kept.")]
Beta2 = Annotated[float | None, _kept("--beta2", "beta2", "How much of the mean squared gradient is kept.")]
Eps = Annotated[float | None, number_option(
    "--eps", 0, _TRAINING, "Added where a step is divided by the size of gradients.", _own("eps"))]
DecayRate = Annotated[float | None, _kept(
    "--decay-rate", "decay_rate", "How much of the mean squared gradient is kept.")]
WeightDecay = Annotated[float | None, number_option(
    "--weight-decay", 0, _TRAINING,
    "How fast adamw shrinks weights; 0 for never.", f"adamw {WEIGHT_DECAY:g}")]
Clip = Annotated[float, number_option(
    "--clip", 0, _TRAINING, "Largest norm of all gradients; 0 for no limit.")]
ClipValue = Annotated[float, number_option(
    "--clip-value", 0, _TRAINING, "Largest value in a gradient; 0 for no limit.")]
Anneal = Annotated[float, number_option(
    "--anneal", 1, _TRAINING,
    "Divide the learning rate by this after each epoch that was not the best; 1 for never.")]
Patience = Annotated[int, whole_option(
    "--patience", 0, _TRAINING, "Stop after this many epochs in a row that were not the best; 0 for never.")]
Seed = Annotated[int, whole_option("--seed", 0, _TRAINING, "The same seed gives the same numbers.")]

Window = Annotated[int, whole_option(
    "--window", 1, _BASELINE, "Words of context the baseline sees.", high=_MOST_UNITS)]
Baseline = Annotated[bool, typer.Option(
    "--baseline/--no-baseline", rich_help_panel=_BASELINE, help="Train a CBOW model to compare with.")]

Save = Annotated[Path | None, typer.Option(
    "--save", metavar="DIR", rich_help_panel=_OUTPUT, show_default="runs/DATE_TIME",
    help="Folder of the run.")]
Overwrite = Annotated[bool, typer.Option(
    "--overwrite", rich_help_panel=_OUTPUT, help="Replace an earlier run in that folder.")]
CheckpointEvery = Annotated[float, number_option(
    "--checkpoint-every", 0, _OUTPUT,
    "How often to write down where training stands, for --resume; 0 for after every window.",
    metavar="SECONDS")]
Resume = Annotated[Path | None, typer.Option(
    "--resume", metavar="RUN", show_default=False, rich_help_panel=_OUTPUT,
    help="Go on with a run that was stopped or killed, to the same numbers; --epochs may be given anew.")]
LogInterval = Annotated[int, whole_option(
    "--log-interval", 1, _OUTPUT, "Report each time this many windows have been read.")]

Run = Annotated[Path, typer.Argument(
    metavar="RUN", show_default=False, help="Folder of a run, as rnnfast train named it.")]
OwnCell = Annotated[str | None, _value(
    own_cell("--cell"), "--cell", "MODULE:NAME", None,
    "The cell of a run that was trained with one of your own.", False)]
Last = Annotated[bool, typer.Option(
    "--last", help="The last weights of a run that stopped early, not its best.")]
Json = Annotated[bool, typer.Option(
    "--json", help="Print one JSON object on standard output, and everything else on standard error.")]
# fmt: on
