"""The options of `rnnfast train` and their help."""

from __future__ import annotations

import inspect
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from rnnfast import _check
from rnnfast._check.arrays import FLOAT_DTYPES
from rnnfast.cells import READY
from rnnfast.cli.experiment import OPTIMIZERS, TOKENIZERS, WEIGHT_DECAY, optimizers_with
from rnnfast.data import Corpus, read_files
from rnnfast.models.weights import MOST_LAYERS, named_cell

# Names of cells on the command line: a built-in cell, or `module:name` of a user's own.


def cell_name(owner: str, option: str, text: str) -> str:
    """The name of a built-in cell, or `module:name`; its module is imported, also from this folder."""
    with _this_folder():
        cell = named_cell(owner, text, option)
    return text if ":" in text else cell.name


@contextmanager
def _this_folder() -> Iterator[None]:
    """Search the current folder first for modules, as `python -m rnnfast` already does."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


# Input of the commands: text from files or standard input, and prompts.


STANDARD_INPUT = "-"
TITLE = "standard input"


@contextmanager
def texts(*groups: Sequence[str | Path] | None, encoding: str = "utf-8") -> Iterator[list[Corpus | None]]:
    """A corpus for each group of files, None for an empty group; `-` is standard input.

    A corpus is read several times, so inside the block a temporary file holds standard input.
    """
    _check.training.encoding("read_files", encoding)
    named = [[str(path) for path in group or ()] for group in groups]
    _check.training.read_once(sum(group.count(STANDARD_INPUT) for group in named))
    with tempfile.TemporaryDirectory(prefix="rnnfast-") as folder:
        kept = Path(folder) / "input.txt"
        if any(STANDARD_INPUT in group for group in named):
            with open(kept, "wb") as file:
                shutil.copyfileobj(_stdin(), file)

        def corpus(group: list[str]) -> Corpus | None:
            if not group:
                return None
            paths = [str(kept) if name == STANDARD_INPUT else name for name in group]
            titles = [TITLE if name == STANDARD_INPUT else name for name in group]
            return read_files(paths, encoding, titles)

        yield [corpus(group) for group in named]


def content(path: str) -> bytes:
    """The bytes of a file; `-` is standard input."""
    return _stdin().read() if path == STANDARD_INPUT else Path(path).read_bytes()


def prompt_text(prompt: str) -> str:
    """A prompt; `-` reads it from standard input, without the final line end."""
    if prompt != STANDARD_INPUT:
        return prompt
    content = _stdin().read()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _check.training.not_text("prompt", TITLE, "utf-8", error.start, content[error.start]) from None
    text = text.replace("\r\n", "\n")
    return text.removesuffix("\n")


def _stdin() -> Any:
    """The bytes of standard input."""
    return sys.stdin.buffer


# Parsers of numbers and words given to options; with them, errors are the same in every release of
# typer.


_OWNER = "option"  # the owner in messages of `_check`, removed again here


class BadOption(typer.BadParameter):
    """An invalid value of an option, reported in a whole sentence."""

    def format_message(self) -> str:
        """The sentence alone, without typer's prefix."""
        return self.message


def whole(option: str, low: int, high: int | None = None) -> Callable[[Any], int]:
    """A parser of whole numbers of at least `low` and, unless it is None, at most `high`.

    Examples
    --------
    >>> whole("--epochs", 1)("3")
    3
    >>> whole("--epochs", 1)("0")
    Traceback (most recent call last):
    rnnfast.cli.options.BadOption: --epochs must be at least 1, got 0.
    """
    return _reader(int, lambda value: _check.values.size(_OWNER, option, value, low, high))


def number(option: str, low: float) -> Callable[[Any], float]:
    """A parser of finite numbers of at least `low`.

    Examples
    --------
    >>> number("--lr", 0.0)("nan")
    Traceback (most recent call last):
    rnnfast.cli.options.BadOption: --lr must be finite, got nan.
    """
    return _reader(float, lambda value: _check.values.number(_OWNER, option, value, low))


def share(option: str) -> Callable[[Any], float]:
    """A parser of numbers between 0 and 1, both excluded."""
    return _reader(float, lambda value: _check.values.fraction(_OWNER, option, value))


def between(option: str, low: float, high: float) -> Callable[[Any], float]:
    """A parser of numbers between `low` and `high`, both excluded."""

    def check(value: Any) -> float:
        found = _check.values.number(_OWNER, option, value, low, high)
        if not low < found < high:
            raise BadOption(f"{option} must be between {low:g} and {high:g}, got {value}.")
        return found

    return _reader(float, check)


def share_or_all(option: str) -> Callable[[Any], float]:
    """A parser of numbers above 0 and at most 1."""

    def check(value: Any) -> float:
        found = _check.values.number(_OWNER, option, value, 0.0, 1.0)
        if not found:
            raise BadOption(f"{option} must be above 0 and at most 1, got {value}.")
        return found

    return _reader(float, check)


def below_one(option: str) -> Callable[[Any], float]:
    """A parser of numbers of at least 0 and below 1."""
    return _reader(float, lambda value: _check.values.number_below(_OWNER, option, value, 0, 1))


def word(option: str, *allowed: str) -> Callable[[Any], str]:
    """A parser of the `allowed` words, in upper or lower case.

    Examples
    --------
    >>> word("--optimizer", "adam", "sgd")("SGD")
    'sgd'
    """
    return _reader(str, lambda value: _check.values.choice(_OWNER, option, value, allowed))


def cell(option: str) -> Callable[[Any], str]:
    """A parser of names of built-in cells, or `module:name` of a user's own cell.

    Examples
    --------
    >>> cell("--cell")("RNN_TANH")
    'rnn'
    """
    return _reader(str, lambda value: cell_name(_OWNER, option, value))


def own_cell(option: str) -> Callable[[Any], str]:
    """A parser of `module:name` of a user's own cell."""

    def check(value: Any) -> str:
        if ":" not in value:
            raise BadOption(f"{option} must be module:name of a cell of your own, got {value!r}.")
        return cell_name(_OWNER, option, value)

    return _reader(str, check)


def _reader(kind: type, check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def read(text: Any) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = text  # the check refuses it
        try:
            return check(value)
        except (TypeError, ValueError) as error:
            raise BadOption(str(error).removeprefix(f"{_OWNER}: ")) from None

    return read


_TEXT, _MODEL, _TRAINING = "Text", "Model", "Training"
_BASELINE, _OUTPUT = "Baseline", "Output"

_RATES = ", ".join(f"{name} {rate:g}" for name, (_, rate) in OPTIMIZERS.items())
DTYPES = tuple(kind.name for kind in FLOAT_DTYPES)
READY_CELLS = (
    f"Recurrent cell: {', '.join(ready.name for ready in READY)}; or module:name of a cell of your own."
)
_MOST_UNITS = 1_000_000  # no machine has memory for more


def given_options(context: typer.Context) -> set[str]:
    """The names of the parameters given on the command line."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name for name, source in sources.items() if source and source.name != "DEFAULT"}


def _own(option: str) -> str:
    """The defaults of an optimizer's setting for the help: one value, or one for each optimizer."""
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
    """An option whose value is parsed by `read`, which raises one sentence for a bad value."""
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


def blocks_option(panel: str | None) -> Any:
    """The option for the number of blocks of a batch, a power of two."""
    return whole_option(
        "--blocks",
        1,
        panel,
        "Blocks of rows whose gradients are summed apart, then in pairs; the number of ranks must divide it.",
        "8, 4, 2 or 1 by the size of the batch, and at least the number of ranks",
    )


def _kept(option: str, name: str, text: str) -> Any:
    """An option for the share of a running mean that an optimizer keeps."""
    return _value(below_one(option), option, "X", _TRAINING, text, _own(name))


# One line per option, as a table.
# fmt: off
Files = Annotated[list[Path] | None, typer.Argument(
    metavar="FILES", show_default=False,
    help="Text files to train on, in order; - is standard input. Default: Python's own language reference.")]
Valid = Annotated[list[Path] | None, typer.Option(
    "--valid", metavar="FILE", show_default=False, rich_help_panel=_TEXT,
    help="Validation text; may be repeated. Default: a part of the text is held out.")]
ValidFraction = Annotated[float, _value(
    share("--valid-fraction"), "--valid-fraction", "SHARE", _TEXT,
    "Share of the text to hold out, in blocks spread over it.")]
Encoding = Annotated[str, typer.Option(
    "--encoding", metavar="NAME", rich_help_panel=_TEXT,
    help="Encoding of the files, for example utf-16 or cp1252.")]
Tokenizer = Annotated[str, _value(
    word("--tokenizer", *TOKENIZERS), "--tokenizer", "|".join(TOKENIZERS), _TEXT,
    "The model's tokens; whitespace is for text that is already split, such as the Penn Treebank.")]
Lower = Annotated[bool | None, typer.Option(
    "--lower/--no-lower", rich_help_panel=_TEXT, show_default="on for word, off for whitespace and char",
    help="Turn words to lower case.")]
MinCount = Annotated[int | None, whole_option(
    "--min-count", 1, _TEXT, "Words that occur less often become <unk>.", "2; whitespace 1")]
MaxVocab = Annotated[int | None, whole_option(
    "--max-vocab", 3, _TEXT, "Largest vocabulary; the most frequent words are kept.", "no limit")]

Cell = Annotated[str, _value(
    cell("--cell"), ("--cell", "--model"), "NAME", _MODEL,
    READY_CELLS)]
EmbedSize = Annotated[int, whole_option("--emsize", 1, _MODEL, "Size of word vectors.", high=_MOST_UNITS)]
HiddenSize = Annotated[int, whole_option(
    "--nhid", 1, _MODEL, "Hidden units in each layer.", high=_MOST_UNITS)]
Layers = Annotated[int, whole_option(
    "--nlayers", 1, _MODEL, "Number of stacked recurrent layers.", high=MOST_LAYERS)]
Dropout = Annotated[float, _value(
    below_one("--dropout"), "--dropout", "SHARE", _MODEL,
    "Share of units dropped in training; 0 for none.")]
Tied = Annotated[bool | None, typer.Option(
    "--tied/--no-tied", rich_help_panel=_MODEL, show_default="for words, where emsize equals nhid",
    help="Also use the word vectors as output weights.")]
Dtype = Annotated[str, _value(
    word("--dtype", *DTYPES), "--dtype", "|".join(DTYPES), _MODEL, "Type of the parameters.")]
Precision = Annotated[str | None, typer.Option(
    "--precision", parser=word("--precision", "bfloat16"), metavar="bfloat16", rich_help_panel=_MODEL,
    show_default="that of the parameters",
    help="Round the operands of products; sums and parameters stay in float32.")]

Epochs = Annotated[int, whole_option("--epochs", 1, _TRAINING, "Largest number of passes over the text.")]
BatchSize = Annotated[int, whole_option(
    "--batch-size", 1, _TRAINING, "Rows of the batch: parts of the text read in parallel.")]
Blocks = Annotated[int | None, blocks_option(_TRAINING)]
Bptt = Annotated[int, whole_option(
    "--bptt", 1, _TRAINING, "Window: words from one update to the next in each row of the batch.")]
Optimizer = Annotated[str, _value(
    word("--optimizer", *OPTIMIZERS), "--optimizer", "NAME", _TRAINING,
    f"Update rule: {', '.join(OPTIMIZERS)}.")]
LearningRate = Annotated[float | None, number_option("--lr", 0, _TRAINING, "Learning rate.", _RATES)]
Momentum = Annotated[float | None, _kept(
    "--momentum", "momentum", "Share of a weight's velocity that is kept.")]
Beta1 = Annotated[float | None, _kept("--beta1", "beta1", "Share of the mean gradient that is kept.")]
Beta2 = Annotated[float | None, _kept("--beta2", "beta2", "Share of the mean squared gradient that is kept.")]
Eps = Annotated[float | None, number_option(
    "--eps", 0, _TRAINING,
    "Small number added to the denominator of the update, against division by zero.", _own("eps"))]
DecayRate = Annotated[float | None, _kept(
    "--decay-rate", "decay_rate", "Share of the mean squared gradient that is kept.")]
WeightDecay = Annotated[float | None, number_option(
    "--weight-decay", 0, _TRAINING,
    "Rate at which adamw shrinks weights; 0 for none.", f"adamw {WEIGHT_DECAY:g}")]
Clip = Annotated[float, number_option(
    "--clip", 0, _TRAINING, "Largest joint norm of the gradients; 0 for no limit.")]
ClipValue = Annotated[float, number_option(
    "--clip-value", 0, _TRAINING, "Largest value in a gradient; 0 for no limit.")]
Anneal = Annotated[float, number_option(
    "--anneal", 1, _TRAINING,
    "Divide the learning rate by this after each epoch without improvement; 1 for never.")]
Patience = Annotated[int, whole_option(
    "--patience", 0, _TRAINING, "Stop after this many epochs in a row without improvement; 0 for never.")]
Seed = Annotated[int, whole_option("--seed", 0, _TRAINING, "The same seed gives the same numbers.")]

Window = Annotated[int, whole_option(
    "--window", 1, _BASELINE, "Words of context the baseline sees.", high=_MOST_UNITS)]
Baseline = Annotated[bool, typer.Option(
    "--baseline/--no-baseline", rich_help_panel=_BASELINE, help="Train a CBOW model to compare with.")]

Save = Annotated[Path | None, typer.Option(
    "--save", metavar="DIR", rich_help_panel=_OUTPUT, show_default="runs/DATE_TIME",
    help="Folder for the run.")]
Overwrite = Annotated[bool, typer.Option(
    "--overwrite", rich_help_panel=_OUTPUT, help="Replace a run that is already in that folder.")]
CheckpointEvery = Annotated[float, number_option(
    "--checkpoint-every", 0, _OUTPUT,
    "How often to save the training state for --resume; 0 for after every window.",
    metavar="SECONDS")]
Resume = Annotated[Path | None, typer.Option(
    "--resume", metavar="RUN", show_default=False, rich_help_panel=_OUTPUT,
    help="Continue a run that was stopped or killed, with the same result; --epochs may change.")]
LogInterval = Annotated[int, whole_option(
    "--log-interval", 1, _OUTPUT, "Windows from one progress report to the next.")]

Run = Annotated[Path, typer.Argument(
    metavar="RUN", show_default=False, help="Folder of a run, as printed by rnnfast train.")]
OwnCell = Annotated[str | None, _value(
    own_cell("--cell"), "--cell", "MODULE:NAME", None,
    "Your own cell, if the run was trained with one.", False)]
CellOfFile = Annotated[str | None, _value(
    cell("--cell"), "--cell", "NAME", None,
    "Cell of the layers, where IN does not tell it: relu, or module:name of your own.", False)]
Last = Annotated[bool, typer.Option(
    "--last", help="Use the last weights of a run that stopped early, not the best.")]
Json = Annotated[bool, typer.Option(
    "--json", help="Print one JSON object on standard output, and everything else on standard error.")]
# fmt: on
