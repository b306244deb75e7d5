"""`rnnfast train`: from text to a run folder."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from rnnfast import _check
from rnnfast.cli import options
from rnnfast.cli.errors import BAD_FILES, BAD_VALUES, one_line, wording
from rnnfast.cli.experiment import Experiment, Settings
from rnnfast.cli.processes import Processes
from rnnfast.cli.progress import show_reading
from rnnfast.cli.run_folder import SETTINGS, Reached, RunFolder, dated_folder
from rnnfast.cli.session import Session
from rnnfast.data import default_corpus

_DEFAULT = Settings()


def train(
    context: typer.Context,
    files: options.Files = None,
    valid: options.Valid = None,
    valid_fraction: options.ValidFraction = 0.1,
    encoding: options.Encoding = "utf-8",
    tokenizer: options.Tokenizer = _DEFAULT.tokenizer,
    lower: options.Lower = _DEFAULT.lower,
    min_count: options.MinCount = _DEFAULT.min_count,
    max_vocab: options.MaxVocab = _DEFAULT.max_vocab,
    cell: options.Cell = _DEFAULT.cell,
    emsize: options.EmbedSize = _DEFAULT.emsize,
    nhid: options.HiddenSize = _DEFAULT.nhid,
    nlayers: options.Layers = _DEFAULT.nlayers,
    dropout: options.Dropout = _DEFAULT.dropout,
    tied: options.Tied = _DEFAULT.tied,
    dtype: options.Dtype = _DEFAULT.dtype,
    precision: options.Precision = _DEFAULT.precision,
    epochs: options.Epochs = _DEFAULT.epochs,
    batch_size: options.BatchSize = _DEFAULT.batch_size,
    blocks: options.Blocks = _DEFAULT.blocks,
    bptt: options.Bptt = _DEFAULT.bptt,
    optimizer: options.Optimizer = _DEFAULT.optimizer,
    lr: options.LearningRate = _DEFAULT.lr,
    momentum: options.Momentum = _DEFAULT.momentum,
    beta1: options.Beta1 = _DEFAULT.beta1,
    beta2: options.Beta2 = _DEFAULT.beta2,
    eps: options.Eps = _DEFAULT.eps,
    decay_rate: options.DecayRate = _DEFAULT.decay_rate,
    weight_decay: options.WeightDecay = _DEFAULT.weight_decay,
    clip: options.Clip = _DEFAULT.clip or 0.0,
    clip_value: options.ClipValue = _DEFAULT.clip_value or 0.0,
    anneal: options.Anneal = _DEFAULT.anneal or 1.0,
    patience: options.Patience = _DEFAULT.patience or 0,
    seed: options.Seed = _DEFAULT.seed,
    window: options.Window = _DEFAULT.window,
    baseline: options.Baseline = True,
    save: options.Save = None,
    overwrite: options.Overwrite = False,
    resume: options.Resume = None,
    checkpoint_every: options.CheckpointEvery = 60.0,
    log_interval: options.LogInterval = 200,
    as_json: options.Json = False,
) -> None:
    """Train a language model and save it to a run folder.

    Without files it trains on the language reference that comes with Python, which takes about two minutes. A
    part of the text is held out. The perplexity on that part measures the model: it is roughly the number of
    words the model hesitates between. A baseline without memory (CBOW, which sees only the sum of the last
    few words) is trained with the same settings for comparison.

    \b
    Examples:
    [bold]rnnfast train[/bold]
    [bold]rnnfast train book.txt --save runs/book --epochs 10[/bold]
    [bold]rnnfast train part1.txt part2.txt --valid part3.txt --nhid 400 --nlayers 2[/bold]
    [bold]rnnfast train book.txt --tokenizer char --bptt 100[/bold]
    [bold]zcat books.gz | rnnfast train - --json[/bold]
    [bold]rnnfast train --resume runs/book[/bold]

    The run folder holds the model, metrics.jsonl, a learning curve as PNG, and the baseline in cbow/. Ctrl-C
    stops a run early and keeps the trained model; --resume continues the run, also after a crash.
    """
    told = {name: _plain(value) for name, value in context.params.items()}
    given = options.given_options(context)
    if resume is None:
        _begin(told, given, context.obj)
    else:
        _go_on(told, given, context.obj)


def _plain(value: Any) -> Any:
    """A value of the command line as a JSON value."""
    if isinstance(value, list | tuple):
        return [str(part) for part in value]
    return str(value) if isinstance(value, Path) else value


def _begin(told: dict[str, Any], given: set[str], processes: Processes) -> None:
    """Begin a new run; `given` has the names of the options on the command line."""
    console = processes.console(stderr=told["as_json"])
    with ExitStack() as stack:
        with one_line(*BAD_VALUES):
            _refuse_unused(told, given)
            told = {**told, "blocks": processes.blocks(told["blocks"], told["batch_size"])}
            settings = _settings(told)
            settings.check_ranks(processes.size)
            told = {**told, "blocks": settings.blocks}
            path = processes.agreed(told["save"] or dated_folder())
        experiment = processes.first_then(
            lambda: _prepared(told, settings, Path(path), stack, console),
            lambda: Experiment.opened(
                settings, RunFolder.beside(path), checkpoint_every=told["checkpoint_every"]
            ),
        )
        processes.say_blocks(console)
        _session(experiment, told, {}, console, processes).run(baseline=told["baseline"])


def _prepared(
    told: dict[str, Any], settings: Settings, path: Path, stack: ExitStack, console: Console
) -> Experiment:
    """The experiment in a new folder, which stays locked as long as `stack`."""
    with one_line(*BAD_VALUES):
        texts = options.texts(told["files"], told["valid"], encoding=told["encoding"])
        text, valid = stack.enter_context(texts)
        text = text or default_corpus()
        learned, judged = (text, valid) if valid else text.split(told["valid_fraction"])
    with one_line(*BAD_FILES):
        folder = _locked(RunFolder(path, overwrite=told["overwrite"]), stack)
        with show_reading(console) as reading:
            return Experiment(
                settings,
                learned,
                judged,
                folder,
                arguments=_of_the_run(told),
                checkpoint_every=told["checkpoint_every"],
                watch=reading.watch,
            )


def _refuse_unused(told: dict[str, Any], given: set[str]) -> None:
    """Refuse options that have no effect with the other options given."""
    texts = told["files"] or told["valid"]
    for name, is_unused, when in (
        ("valid_fraction", told["valid"], "with --valid"),
        ("window", not told["baseline"], "with --no-baseline"),
        ("overwrite", told["save"] is None, "without --save, since each run then has a new folder"),
        ("encoding", not texts, "without files"),
    ):
        if name in given and is_unused:
            raise _check.values.no_effect("--" + name.replace("_", "-"), when)


def _go_on(told: dict[str, Any], given: set[str], processes: Processes) -> None:
    """Continue the run of an earlier process; `given` has the names of the options on the command line."""
    with ExitStack() as stack:
        with one_line(*BAD_VALUES):
            for name in sorted(given & {"save", "overwrite"}):
                _check.values.absent("train", f"--{name}", told[name], "a run that begins, not to --resume")
            folder = processes.first_then(
                lambda: _locked(RunFolder.resume(told["resume"]), stack),
                lambda: RunFolder.beside(told["resume"]),
            )
            told = {**told, **_agreed(folder, told, given)}
            if ":" in str(told["cell"]) and "cell" not in given:
                raise _check.objects.cell_needed(folder.path, told["cell"], told["cell"])
            settings = _checked(folder, told)
            settings.check_ranks(processes.size)
            experiment = Experiment.resume(settings, folder, checkpoint_every=told["checkpoint_every"])
            try:
                reached = {False: folder.reached(), True: folder.reached(baseline=True)}
            except _check.CellMissing as error:
                raise _check.objects.other_cell(folder.path, error.name, told["cell"]) from None
            for place in filter(None, reached.values()):
                _check.training.more_epochs("--epochs", folder.path, settings.epochs, place.epoch)
            fingerprint = experiment.tokenizer.fingerprint()
            processes.of_first(lambda: folder.write_settings(_of_the_run(told), experiment.text, fingerprint))
        console = processes.console(stderr=told["as_json"])
        _session(experiment, told, reached, console, processes).run(baseline=told["baseline"])


def _locked(folder: RunFolder, stack: ExitStack) -> RunFolder:
    """The folder, which stays locked as long as `stack`."""
    stack.enter_context(folder.alone())
    return folder


def _of_the_run(told: dict[str, Any]) -> dict[str, Any]:
    """The options saved with the run: all except those of a single call."""
    of_one_call = ("save", "overwrite", "resume", "as_json")
    return {name: value for name, value in told.items() if name not in of_one_call}


def _agreed(folder: RunFolder, told: dict[str, Any], given: set[str]) -> dict[str, Any]:
    """The options the run began with, updated by the given ones that may change."""
    # Once, all rows were one block, and products had the precision of the parameters.
    saved = {"blocks": 1, "precision": None, **folder.read_settings()["arguments"]}
    if set(saved) != set(_of_the_run(told)):
        raise _check.training.malformed(
            folder.path / SETTINGS, "not the arguments of this version of rnnfast train"
        )
    may_change = given & {"epochs", "checkpoint_every"}
    for name in sorted(given - may_change - {"resume", "as_json"}):
        flag = "FILES" if name == "files" else "--" + name.replace("_", "-")
        _check.training.same_option(folder.path, flag, saved[name], told[name])
    return {**saved, **{name: told[name] for name in may_change}}


def _checked(folder: RunFolder, told: dict[str, Any]) -> Settings:
    """The settings from the run's file, checked since anybody may have edited it."""
    try:
        _check.values.boolean("settings", "baseline", told["baseline"])
        _check.values.size("settings", "log_interval", told["log_interval"])
        _check.values.number("settings", "checkpoint_every", told["checkpoint_every"], 0.0)
        return _settings(told)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise _check.training.malformed(
            folder.path / SETTINGS, f"not the settings of a run ({wording(error)})"
        ) from None


def _settings(told: dict[str, Any]) -> Settings:
    values = {field.name: told[field.name] for field in fields(Settings)}
    for name in ("clip", "clip_value", "patience"):
        values[name] = told[name] or None
    anneal = _check.values.number("train", "anneal", told["anneal"], 1.0)
    values["anneal"] = anneal if anneal > 1.0 else None
    return Settings(**values).resolved()


def _session(
    experiment: Experiment,
    told: dict[str, Any],
    reached: dict[bool, Reached | None],
    console: Console,
    processes: Processes,
) -> Session:
    settings = {**asdict(experiment.settings), "text": experiment.text, "files": told["files"] or []}
    return Session(
        experiment,
        settings,
        told["log_interval"],
        reached,
        console,
        as_json=told["as_json"],
        processes=processes,
    )
