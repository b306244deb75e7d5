"""`rnnfast train`: from text to a run folder."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from rnnfast import _check
from rnnfast.cli import options
from rnnfast.cli.errors import BAD_FILES, BAD_VALUES, one_line
from rnnfast.cli.session import Session
from rnnfast.data import Corpus, default_corpus, read_files
from rnnfast.training.experiment import Experiment, Settings
from rnnfast.training.run_folder import RunFolder, dated_folder

_DEFAULT = Settings()


def train(
    files: options.Files = None,
    valid: options.Valid = None,
    valid_fraction: options.ValidFraction = 0.1,
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
    epochs: options.Epochs = _DEFAULT.epochs,
    batch_size: options.BatchSize = _DEFAULT.batch_size,
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
    log_interval: options.LogInterval = 200,
) -> None:
    """Train a language model and save it to a run folder.

    Without any files it learns from the language reference that every Python carries; that takes about two
    minutes. A part of the text is held out, and perplexity on that part says how good the model is: about how
    many words it wavers between. To show what a memory is worth, a baseline without one (CBOW, which sees no
    more than the sum of the last few words) is trained with the same settings.

    \b
    Examples:
    [bold]rnnfast train[/bold]
    [bold]rnnfast train book.txt --save runs/book --epochs 10[/bold]
    [bold]rnnfast train part1.txt part2.txt --valid part3.txt --nhid 400 --nlayers 2[/bold]
    [bold]rnnfast train book.txt --tokenizer char --bptt 100[/bold]

    The run folder holds the model, metrics.jsonl, a learning curve as PNG, and the baseline in cbow/. Ctrl-C
    ends a run early, and what was learned is kept.
    """
    settings = Settings(
        tokenizer=tokenizer,
        lower=lower,
        min_count=min_count,
        max_vocab=max_vocab,
        cell=options.cell_name(cell),
        emsize=emsize,
        nhid=nhid,
        nlayers=nlayers,
        dropout=dropout,
        tied=tied,
        dtype=dtype,
        optimizer=optimizer,
        lr=lr,
        momentum=momentum,
        beta1=beta1,
        beta2=beta2,
        eps=eps,
        decay_rate=decay_rate,
        weight_decay=weight_decay,
        epochs=epochs,
        batch_size=batch_size,
        bptt=bptt,
        clip=clip or None,
        clip_value=clip_value or None,
        anneal=anneal if anneal > 1.0 else None,
        patience=patience or None,
        window=window,
        seed=seed,
    )
    with one_line(*BAD_VALUES):
        settings = settings.resolved()
        _check.fraction("train", "valid_fraction", valid_fraction)
    with one_line(*BAD_FILES):
        learned, judged = _texts(files, valid, valid_fraction)
        folder = RunFolder(dated_folder() if save is None else save, overwrite=overwrite)
        experiment = Experiment(settings, learned, judged, folder)
    text = {"text": learned.name, "files": [str(path) for path in files or ()]}
    Session(experiment, {**asdict(settings), **text}, log_interval).run(baseline=baseline)


def _texts(files: list[Path] | None, valid: list[Path] | None, fraction: float) -> tuple[Corpus, Corpus]:
    """The text to learn from and the text to validate on."""
    text = read_files(files) if files else default_corpus()
    return (text, read_files(valid)) if valid else text.split(fraction)
