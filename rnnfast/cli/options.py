"""What `rnnfast train` can be told, and how its help says it."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Annotated

import typer

from rnnfast.training.experiment import OPTIMIZERS, WEIGHT_DECAY, optimizers_with

_TEXT, _MODEL, _TRAINING = "Text", "Model", "Training"
_BASELINE, _OUTPUT = "Baseline", "Output"

_RATES = ", ".join(f"{name} {rate:g}" for name, (_, rate) in OPTIMIZERS.items())
# PyTorch's word_language_model calls two cells otherwise.
_CELLS = {"rnn_tanh": "rnn", "rnn_relu": "relu"}


def cell_name(text: str) -> str:
    """A cell as `RNNLM` names it, from any spelling that PyTorch's word_language_model takes too.

    Examples
    --------
    >>> cell_name("LSTM"), cell_name("RNN_TANH")
    ('lstm', 'rnn')
    """
    return _CELLS.get(text.lower(), text.lower())


def _own(option: str) -> str:
    """The defaults of an optimizer's setting, for the help: one value, or one each."""
    found: dict[float, list[str]] = {}
    for name in optimizers_with(option):
        default = inspect.signature(OPTIMIZERS[name][0]).parameters[option].default
        found.setdefault(default, []).append(name)
    return "; ".join(f"{' and '.join(names)} {value:g}" for value, names in found.items())


# One line an option: they are a table, and read as one.
# fmt: off
Files = Annotated[list[Path] | None, typer.Argument(
    metavar="FILES", show_default=False,
    help="UTF-8 text files to learn from, in order. Without any: Python's own language reference.")]
Valid = Annotated[list[Path] | None, typer.Option(
    "--valid", metavar="FILE", show_default=False, rich_help_panel=_TEXT,
    help="Text to judge the model by; may be given again. Without it, a part of the text is held out.")]
ValidFraction = Annotated[float, typer.Option(
    metavar="SHARE", rich_help_panel=_TEXT, help="How much to hold out, in blocks from all over.")]
Tokenizer = Annotated[str, typer.Option(
    metavar="word|char", rich_help_panel=_TEXT, help="What the model reads and writes.")]
Lower = Annotated[bool, typer.Option(
    "--lower/--no-lower", rich_help_panel=_TEXT, help="Turn words to lower case.")]
MinCount = Annotated[int, typer.Option(
    metavar="N", min=1, rich_help_panel=_TEXT, help="Words that occur less often become <unk>.")]
MaxVocab = Annotated[int | None, typer.Option(
    metavar="N", min=3, rich_help_panel=_TEXT, show_default="no limit",
    help="The most words to know; the frequent ones stay.")]

Cell = Annotated[str, typer.Option(
    "--cell", "--model", metavar="rnn|relu|lstm|gru", rich_help_panel=_MODEL,
    help="Kind of recurrent layer; also RNN_TANH, RNN_RELU, LSTM, GRU.")]
EmbedSize = Annotated[int, typer.Option(
    "--emsize", metavar="N", min=1, rich_help_panel=_MODEL, help="Size of word vectors.")]
HiddenSize = Annotated[int, typer.Option(
    "--nhid", metavar="N", min=1, rich_help_panel=_MODEL, help="Hidden units in each layer.")]
Layers = Annotated[int, typer.Option(
    "--nlayers", metavar="N", min=1, rich_help_panel=_MODEL, help="Recurrent layers above each other.")]
Dropout = Annotated[float, typer.Option(
    metavar="SHARE", rich_help_panel=_MODEL, help="Share of units dropped while learning; 0 for none.")]
Tied = Annotated[bool | None, typer.Option(
    "--tied/--no-tied", rich_help_panel=_MODEL, show_default="tied where emsize equals nhid",
    help="Use the word vectors as output weights too.")]
Dtype = Annotated[str, typer.Option(metavar="float32|float64", rich_help_panel=_MODEL, help="Precision.")]

Epochs = Annotated[int, typer.Option(
    metavar="N", min=1, rich_help_panel=_TRAINING, help="The most passes over the text.")]
BatchSize = Annotated[int, typer.Option(
    metavar="N", min=1, rich_help_panel=_TRAINING, help="Places of the text that are read side by side.")]
Bptt = Annotated[int, typer.Option(
    metavar="N", min=1, rich_help_panel=_TRAINING, help="Words from one update to the next, in each place.")]
Optimizer = Annotated[str, typer.Option(
    metavar="NAME", rich_help_panel=_TRAINING, help=f"How weights are updated: {', '.join(OPTIMIZERS)}.")]
LearningRate = Annotated[float | None, typer.Option(
    "--lr", metavar="X", rich_help_panel=_TRAINING, show_default=_RATES, help="Learning rate.")]
Momentum = Annotated[float | None, typer.Option(
    metavar="X", rich_help_panel=_TRAINING, show_default=_own("momentum"),
    help="How much of its velocity a weight keeps.")]
Beta1 = Annotated[float | None, typer.Option(
    "--beta1", metavar="X", rich_help_panel=_TRAINING, show_default=_own("beta1"),
    help="How much of the mean gradient is kept.")]
Beta2 = Annotated[float | None, typer.Option(
    "--beta2", metavar="X", rich_help_panel=_TRAINING, show_default=_own("beta2"),
    help="How much of the mean squared gradient is kept.")]
Eps = Annotated[float | None, typer.Option(
    metavar="X", rich_help_panel=_TRAINING, show_default=_own("eps"),
    help="Added where a step is divided by the size of gradients.")]
DecayRate = Annotated[float | None, typer.Option(
    metavar="X", rich_help_panel=_TRAINING, show_default=_own("decay_rate"),
    help="How much of the mean squared gradient is kept.")]
WeightDecay = Annotated[float | None, typer.Option(
    metavar="X", min=0.0, rich_help_panel=_TRAINING, show_default=f"adamw {WEIGHT_DECAY:g}",
    help="How fast adamw shrinks weights; 0 for never.")]
Clip = Annotated[float, typer.Option(
    metavar="X", min=0.0, rich_help_panel=_TRAINING, help="Largest norm of all gradients; 0 for no limit.")]
ClipValue = Annotated[float, typer.Option(
    metavar="X", min=0.0, rich_help_panel=_TRAINING, help="Largest value in a gradient; 0 for no limit.")]
Anneal = Annotated[float, typer.Option(
    metavar="X", min=1.0, rich_help_panel=_TRAINING,
    help="Divide the learning rate by this after each epoch that was not the best; 1 for never.")]
Patience = Annotated[int, typer.Option(
    metavar="N", min=0, rich_help_panel=_TRAINING,
    help="Stop after this many epochs in a row that were not the best; 0 for never.")]
Seed = Annotated[int, typer.Option(
    metavar="N", min=0, rich_help_panel=_TRAINING, help="The same seed gives the same numbers.")]

Window = Annotated[int, typer.Option(
    metavar="N", min=1, rich_help_panel=_BASELINE, help="Words of context the baseline sees.")]
Baseline = Annotated[bool, typer.Option(
    "--baseline/--no-baseline", rich_help_panel=_BASELINE, help="Train a CBOW model to compare with.")]

Save = Annotated[Path | None, typer.Option(
    "--save", metavar="DIR", rich_help_panel=_OUTPUT, show_default="runs/DATE_TIME",
    help="Folder of the run.")]
Overwrite = Annotated[bool, typer.Option(
    "--overwrite", rich_help_panel=_OUTPUT, help="Replace an earlier run in that folder.")]
CheckpointEvery = Annotated[float, typer.Option(
    metavar="SECONDS", min=0.0, rich_help_panel=_OUTPUT,
    help="How often to write down where training stands, for --resume; 0 for after every window.")]
Resume = Annotated[Path | None, typer.Option(
    "--resume", metavar="RUN", show_default=False, rich_help_panel=_OUTPUT,
    help="Go on with a run that was stopped or killed, to the same numbers; --epochs may be given anew.")]
LogInterval = Annotated[int, typer.Option(
    metavar="N", min=1, rich_help_panel=_OUTPUT, help="Report each time this many windows have been read.")]

Run = Annotated[Path, typer.Argument(
    metavar="RUN", show_default=False, help="Folder of a run, as rnnfast train named it.")]
# fmt: on
