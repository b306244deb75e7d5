"""What `rnnfast train` can be told, and how its help says it."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from rnnfast.training.experiment import OPTIMIZERS

_TEXT, _MODEL, _TRAINING, _BASELINE, _OUTPUT = "Text", "Model", "Training", "Baseline", "Output"

_RATES = ", ".join(f"{name} {rate:g}" for name, (_, rate) in OPTIMIZERS.items())

TokenizerKind = Enum("TokenizerKind", {name: name for name in ("word", "char")}, type=str)
CellKind = Enum("CellKind", {name: name for name in ("rnn",)}, type=str)
OptimizerKind = Enum("OptimizerKind", {name: name for name in OPTIMIZERS}, type=str)
Dtype = Enum("Dtype", {name: name for name in ("float32", "float64")}, type=str)

Files = Annotated[
    list[Path] | None,
    typer.Argument(
        help="UTF-8 text files to learn from, read in this order. Without any: Python's own language reference.",
        show_default=False,
    ),
]
Valid = Annotated[
    list[Path] | None,
    typer.Option(
        "--valid",
        help="A text file to judge the model by; may be given several times. Without it, a share of the text is held out.",
        show_default=False,
        rich_help_panel=_TEXT,
    ),
]
ValidFraction = Annotated[
    float, typer.Option(help="The share to hold out, in paragraphs from all over the text.", rich_help_panel=_TEXT)
]
TokenizerChoice = Annotated[
    TokenizerKind, typer.Option("--tokenizer", help="What the model reads and writes.", rich_help_panel=_TEXT)
]
Lower = Annotated[
    bool, typer.Option("--lower/--no-lower", help="Turn words to lower case.", rich_help_panel=_TEXT)
]
MinCount = Annotated[
    int, typer.Option(min=1, help="Words that occur less often become <unk>.", rich_help_panel=_TEXT)
]
MaxVocab = Annotated[
    int | None,
    typer.Option(min=3, help="The most words to know; the frequent ones stay.", rich_help_panel=_TEXT),
]

Cell = Annotated[CellKind, typer.Option(help="Kind of recurrent layer.", rich_help_panel=_MODEL)]
EmbedSize = Annotated[int, typer.Option("--emsize", min=1, help="Size of word vectors.", rich_help_panel=_MODEL)]
HiddenSize = Annotated[
    int, typer.Option("--nhid", min=1, help="Hidden units in each layer.", rich_help_panel=_MODEL)
]
Layers = Annotated[int, typer.Option("--nlayers", min=1, help="Recurrent layers.", rich_help_panel=_MODEL)]
Dropout = Annotated[
    float,
    typer.Option(help="Share of units dropped while learning; 0 is none.", rich_help_panel=_MODEL),
]
Tied = Annotated[
    bool | None,
    typer.Option(
        "--tied/--no-tied",
        help="Use the word vectors as output weights too.",
        show_default="tied where emsize equals nhid",
        rich_help_panel=_MODEL,
    ),
]
DtypeChoice = Annotated[Dtype, typer.Option("--dtype", help="Precision.", rich_help_panel=_MODEL)]

Epochs = Annotated[int, typer.Option(min=1, help="The most passes over the text.", rich_help_panel=_TRAINING)]
BatchSize = Annotated[
    int, typer.Option(min=1, help="Places of the text read side by side.", rich_help_panel=_TRAINING)
]
Bptt = Annotated[
    int, typer.Option(min=1, help="Words from one update to the next.", rich_help_panel=_TRAINING)
]
Optimizer = Annotated[OptimizerKind, typer.Option(help="How weights are updated.", rich_help_panel=_TRAINING)]
LearningRate = Annotated[
    float | None,
    typer.Option("--lr", help="Learning rate.", show_default=_RATES, rich_help_panel=_TRAINING),
]
WeightDecay = Annotated[float, typer.Option(help="Of adamw; 0 is none.", rich_help_panel=_TRAINING)]
Clip = Annotated[
    float, typer.Option(min=0.0, help="Largest norm of all gradients; 0 is no limit.", rich_help_panel=_TRAINING)
]
ClipValue = Annotated[
    float,
    typer.Option(min=0.0, help="Largest value in a gradient; 0 is no limit.", rich_help_panel=_TRAINING),
]
Anneal = Annotated[
    float,
    typer.Option(
        min=1.0,
        help="Divide the learning rate by this after an epoch that was not the best; 1 leaves it.",
        rich_help_panel=_TRAINING,
    ),
]
Patience = Annotated[
    int,
    typer.Option(
        min=0, help="Stop after this many epochs that were not the best; 0 is never.", rich_help_panel=_TRAINING
    ),
]
Seed = Annotated[
    int, typer.Option(min=0, help="The same seed gives the same numbers.", rich_help_panel=_TRAINING)
]

Window = Annotated[
    int, typer.Option(min=1, help="Words of context the CBOW baseline sees.", rich_help_panel=_BASELINE)
]
Baseline = Annotated[
    bool,
    typer.Option("--baseline/--no-baseline", help="Train the baseline to compare with.", rich_help_panel=_BASELINE),
]

Save = Annotated[
    Path | None,
    typer.Option(
        "--save", help="Folder of the run.", show_default="runs/DATE_TIME", rich_help_panel=_OUTPUT
    ),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace an earlier run in that folder.", rich_help_panel=_OUTPUT)
]
LogInterval = Annotated[
    int, typer.Option(min=1, help="Report every this many windows.", rich_help_panel=_OUTPUT)
]

RunArgument = Annotated[
    Path, typer.Argument(metavar="RUN", help="Folder of a run, as rnnfast train named it.", show_default=False)
]
