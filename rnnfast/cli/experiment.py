"""One run: a text, a recurrent model and its baselines, all scored on the same text."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.cells import Cell
from rnnfast.cli.run_folder import TRAIN, TRAINING, VALID, RunFolder, open_run_ids
from rnnfast.data import (
    CharTokenizer,
    Corpus,
    Tokenizer,
    WhitespaceTokenizer,
    WordTokenizer,
    encode_to_memmap,
)
from rnnfast.models.cbow import CBOWLM
from rnnfast.models.rnnlm import RNNLM
from rnnfast.models.weights import named_cell
from rnnfast.optim import SGD, AdaGrad, Adam, AdamW, Momentum, Nesterov, Optimizer, RMSprop
from rnnfast.training.bptt import TruncatedBPTT
from rnnfast.training.checkpoint import Checkpoint, load_tokenizer
from rnnfast.training.fitting import exp_of_mean
from rnnfast.training.processes import LEAST_ROWS, blocks_of
from rnnfast.training.progress import Progress
from rnnfast.training.trainer import Trainer

# Each with its default learning rate, tuned for a model and a text of the default size.
OPTIMIZERS: dict[str, tuple[type[Optimizer], float]] = {
    "adamw": (AdamW, 0.003),
    "adam": (Adam, 0.003),
    "rmsprop": (RMSprop, 0.001),
    "adagrad": (AdaGrad, 0.05),
    "nesterov": (Nesterov, 0.5),
    "momentum": (Momentum, 0.5),
    "sgd": (SGD, 5.0),
}
WEIGHT_DECAY = 0.1  # of adamw
TOKENIZERS = ("word", "whitespace", "char")
# Settings that only some optimizers have.
OPTIMIZER_OPTIONS = ("momentum", "beta1", "beta2", "eps", "decay_rate", "weight_decay")


def optimizers_with(option: str) -> list[str]:
    """The names of the optimizers that have this setting."""
    return [name for name, (kind, _) in OPTIMIZERS.items() if option in kind.hyperparameters]


@dataclass(frozen=True)
class Settings:
    """Every hyperparameter of a run; the defaults are tuned on the default corpus.

    Names follow PyTorch's `word_language_model`. None means: no limit for `max_vocab`; `blocks` by the batch
    size; `lower` with the word tokenizer only; `min_count` 2 (1 for whitespace); `tied` for words if emsize
    equals nhid; `clip`, `clip_value`, `anneal` and `patience` off; and the optimizer's default for `lr` (from
    `OPTIMIZERS`), `weight_decay` (0.1) and its other settings. `cell` is the name of a built-in cell, or
    `module:name` of a user's own.
    """

    tokenizer: str = "word"
    lower: bool | None = None
    min_count: int | None = None
    max_vocab: int | None = None
    cell: str = "rnn"
    emsize: int = 200
    nhid: int = 200
    nlayers: int = 1
    dropout: float = 0.5
    tied: bool | None = None
    dtype: str = "float32"
    precision: str | None = None
    optimizer: str = "adamw"
    lr: float | None = None
    momentum: float | None = None
    beta1: float | None = None
    beta2: float | None = None
    eps: float | None = None
    decay_rate: float | None = None
    weight_decay: float | None = None
    epochs: int = 40
    batch_size: int = 10
    blocks: int | None = None
    bptt: int = 35
    clip: float | None = 0.25
    clip_value: float | None = None
    anneal: float | None = 1.5
    patience: int | None = 3
    window: int = 2
    seed: int = 1111

    def resolved(self) -> Settings:
        """These settings with the defaults of tokenizer and optimizer filled in, checked without the text."""
        owner, values = "Settings", asdict(self)
        tokenizer = _check.values.choice(owner, "tokenizer", self.tokenizer, TOKENIZERS)
        optimizer = _check.values.choice(owner, "optimizer", self.optimizer, tuple(OPTIMIZERS))
        values.update(tokenizer=tokenizer, optimizer=optimizer)
        _check.values.size(owner, "seed", self.seed, 0)
        _check.training.blocks(owner, self.blocks)
        _check.values.above(owner, "clip", self.clip, 0.0)
        _check.values.above(owner, "clip_value", self.clip_value, 0.0)
        _check.values.above(owner, "anneal", self.anneal, 1.0)
        if tokenizer != "word":
            _check.values.absent(owner, "lower", self.lower or None, "tokenizer=word")
        for option in OPTIMIZER_OPTIONS:
            having = optimizers_with(option)
            if optimizer not in having:
                _check.values.absent(owner, option, getattr(self, option), f"optimizer={' or '.join(having)}")
        if self.lower is None:
            values["lower"] = tokenizer == "word"
        if self.min_count is None:
            values["min_count"] = 1 if tokenizer == "whitespace" else 2
        if self.tied is None:
            # Training keeps pushing away the output vectors of characters absent from the training text; as
            # tied input vectors they would then distort the state. With few characters, tying saves nothing.
            values["tied"] = self.emsize == self.nhid and tokenizer != "char"
        if self.blocks is None:
            values["blocks"] = blocks_of(self.batch_size)
        if self.lr is None:
            values["lr"] = OPTIMIZERS[optimizer][1]
        if self.weight_decay is None and optimizer in optimizers_with("weight_decay"):
            values["weight_decay"] = WEIGHT_DECAY
        settings = Settings(**values)
        settings.make_optimizer()
        settings.make_rnn(vocab_size=2)
        return settings

    def check_ranks(self, ranks: int) -> None:
        """ValueError unless this number of ranks can share a batch; the settings must be `resolved`."""
        assert self.blocks is not None
        _check.training.ranks_divide_blocks("Settings", ranks, self.blocks, self.batch_size, LEAST_ROWS)

    def rng(self, purpose: int) -> np.random.Generator:
        """A separate random stream for each purpose: 0 the network, 1 the baseline, 2 the sample."""
        return np.random.default_rng([self.seed, purpose])

    def make_optimizer(self) -> Optimizer:
        """A new optimizer; the settings must be `resolved`."""
        values = {option: getattr(self, option) for option in ("lr", *OPTIMIZER_OPTIONS)}
        given = {option: value for option, value in values.items() if value is not None}
        return OPTIMIZERS[self.optimizer][0](**given)

    def recurrent_cell(self) -> Cell:
        """The cell of the recurrent model; a user's own is imported."""
        return named_cell("Settings", self.cell)

    def make_rnn(self, vocab_size: int) -> RNNLM:
        """The recurrent model with its initial weights."""
        return RNNLM(
            vocab_size,
            self.emsize,
            self.nhid,
            cell=self.recurrent_cell(),
            layers=self.nlayers,
            dropout=self.dropout,
            tied=bool(self.tied),
            rng=self.rng(0),
            dtype=self.dtype,
            precision=self.precision,
        )

    def make_cbow(self, vocab_size: int) -> CBOWLM:
        """The baseline with its initial weights."""
        return CBOWLM(
            vocab_size, self.emsize, self.window, rng=self.rng(1), dtype=self.dtype, precision=self.precision
        )


class Experiment:
    """A run that is ready to train: its text is encoded and everything is checked.

    Parameters
    ----------
    settings : Settings
    train, valid : Corpus
        The training text and the validation text.
    folder : RunFolder
        Receives ids, checkpoints and metrics.
    arguments : dict
        The arguments of the run as JSON values, saved for resuming it.
    checkpoint_every : float
        See `Trainer.fit`.
    watch : callable, optional
        Called with a description of the next step and its corpus; returns the corpus to read, so that it can
        show progress.

    Attributes
    ----------
    text : str
        Name of `train`.
    resumed : bool
        Whether it continues the run of an earlier process.
    tokenizer : Tokenizer
        Learned from `train`.
    train_ids, valid_ids : memmap
        The encoded text.
    unknown_share : float
        Share of `valid` that is not in the vocabulary.

    Raises
    ------
    CorpusError
        The text is empty, not UTF-8, or too short for the batch and the window.
    OSError
        The folder cannot be written.
    """

    def __init__(
        self,
        settings: Settings,
        train: Corpus,
        valid: Corpus,
        folder: RunFolder,
        *,
        arguments: dict[str, Any] | None = None,
        checkpoint_every: float = 60.0,
        watch: Callable[[str, Corpus], Corpus] | None = None,
    ) -> None:
        self.settings = settings = settings.resolved()
        self.folder, self.text, self.resumed = folder, train.name, False
        self.checkpoint_every = checkpoint_every
        watched = watch or (lambda _, text: text)
        try:
            tokenizer = self.tokenizer = _learn(settings, watched("learning the vocabulary", train))
            train_ids = encode_to_memmap(tokenizer, watched("encoding", train), folder.staged / TRAIN)
            valid_ids = encode_to_memmap(tokenizer, watched("encoding", valid), folder.staged / VALID)
            _check.training.run_tokens(
                "Experiment", train.name, len(train_ids), settings.batch_size, settings.bptt
            )
            _check.training.run_tokens("Experiment", valid.name, len(valid_ids), 1, 1)
            del train_ids, valid_ids  # a mapped file cannot be moved on Windows
            Checkpoint(folder.staged, tokenizer=self.tokenizer).save_tokenizer()
            folder.write_settings(arguments or {}, self.text, self.tokenizer.fingerprint(), staged=True)
            folder.begin()
        except BaseException:
            folder.discard()
            raise
        self._open()

    @classmethod
    def resume(cls, settings: Settings, folder: RunFolder, *, checkpoint_every: float) -> Experiment:
        """The experiment of a folder in which a run has begun; its text is already encoded.

        Raises
        ------
        CheckpointError, CorpusError
            A file is missing, damaged, or does not match the others.
        """
        experiment = cls.opened(settings, folder, checkpoint_every=checkpoint_every)
        experiment.resumed = True
        return experiment

    @classmethod
    def opened(cls, settings: Settings, folder: RunFolder, *, checkpoint_every: float) -> Experiment:
        """The experiment that another rank has made in a folder; nothing is trained yet.

        Raises
        ------
        CheckpointError, CorpusError
            As for `resume`.
        """
        told = folder.read_settings()
        experiment = cls.__new__(cls)
        experiment.settings, experiment.folder = settings.resolved(), folder
        experiment.text, experiment.resumed = told["text"], False
        experiment.checkpoint_every = checkpoint_every
        experiment.tokenizer = load_tokenizer(folder.path, None, told["tokenizer"])
        experiment._open()
        return experiment

    def _open(self) -> None:
        folder = self.folder
        size = self.tokenizer.vocab_size
        self.train_ids = open_run_ids(folder.path / TRAIN, size)
        self.valid_ids = open_run_ids(folder.path / VALID, size)
        self.unknown_share = unknown_share(self.tokenizer, self.valid_ids)

    def trainer(
        self,
        model: RNNLM | CBOWLM,
        notes: dict[str, Any],
        callback: Callable[[Progress], object] | None = None,
        on_epoch: Callable[[dict[str, Any]], object] | None = None,
        ranks: Any = None,
    ) -> Trainer:
        """A trainer that saves to the run's or the baseline's folder; `notes` are saved with the settings."""
        settings = self.settings
        place = self.folder.path if isinstance(model, RNNLM) else self.folder.baseline
        kept = {**asdict(settings), **notes}
        saves = ranks is None or ranks.rank == 0
        return Trainer(
            model,
            settings.make_optimizer(),
            TruncatedBPTT(settings.bptt),
            clip_norm=settings.clip,
            clip_value=settings.clip_value,
            anneal=settings.anneal,
            patience=settings.patience,
            checkpoint=Checkpoint(place, tokenizer=self.tokenizer, settings=kept) if saves else None,
            callback=callback,
            on_epoch=on_epoch,
            ranks=ranks,
            blocks=settings.blocks,
        )

    def fit(self, trainer: Trainer) -> list[dict[str, Any]]:
        """Train; see `Trainer.fit`."""
        settings, folder = self.settings, self.folder
        place = folder.path if isinstance(trainer.model, RNNLM) else folder.baseline
        try:
            return trainer.fit(
                self.train_ids,
                epochs=settings.epochs,
                batch_size=settings.batch_size,
                valid=self.valid_ids,
                checkpoint_file=place / TRAINING,
                checkpoint_every=self.checkpoint_every,
                resume=self.resumed,
            )
        except _check.OtherData as error:
            raise _check.CheckpointError(
                f"{folder.path / (TRAIN if error.name == 'text' else VALID)} was changed since "
                "the run began; train again with --overwrite."
            ) from None

    def unigram_perplexity(self) -> float:
        """The validation perplexity of word frequencies alone, with one added to each count."""
        return Unigram(self.train_ids, self.tokenizer.vocab_size).perplexity(self.valid_ids)


def _learn(settings: Settings, train: Corpus) -> Tokenizer:
    assert settings.min_count is not None
    counted = settings.min_count, settings.max_vocab
    if settings.tokenizer == "word":
        return WordTokenizer.fit(train, *counted, lower=bool(settings.lower))
    return (CharTokenizer if settings.tokenizer == "char" else WhitespaceTokenizer).fit(train, *counted)


def unknown_share(tokenizer: Tokenizer, ids: np.ndarray) -> float:
    """Share of a text's tokens, from 0 to 1, that are not in the vocabulary; `ids` is read in pieces."""
    piece = 1 << 20
    unknown = 0
    for start in range(0, len(ids), piece):
        _check.arrays.whole_file("unknown_share", ids)
        unknown += int(np.count_nonzero(ids[start : start + piece] == tokenizer.unk_id))
    return unknown / max(1, len(ids))


# The simplest language model: the frequency of each word. Every other model has to beat it.


_PIECE = 1 << 20  # ids counted at a time


class Unigram:
    """`P(w) = (count(w) + add) / (tokens + add * V)`, independent of the words before.

    Parameters
    ----------
    ids : ndarray of int, (tokens,)
        The training text; a memory map is read in pieces.
    vocab_size : int
        V.
    add : float
        Added to each count, so that words absent from the training text have a probability; 1 is Laplace's
        rule.

    Raises
    ------
    IndexError
        An id is not in the vocabulary.

    Notes
    -----
    Source: Jurafsky and Martin, *Speech and Language Processing*, chapter 3, add-one smoothing.

    Examples
    --------
    >>> model = Unigram(np.array([0, 1, 1, 1]), vocab_size=3)
    >>> model.proba
    array([0.28571429, 0.57142857, 0.14285714])
    >>> round(model.perplexity(np.array([0, 1, 1])), 3)
    1.75
    """

    def __init__(self, ids: np.ndarray, vocab_size: int, add: float = 1.0) -> None:
        self.vocab_size = _check.values.size("Unigram", "vocab_size", vocab_size)
        counts = self._counts("Unigram", ids) + _check.values.number("Unigram", "add", add, 0.0)
        self.proba = counts / counts.sum()

    def _counts(self, owner: str, ids: np.ndarray) -> np.ndarray:
        ids = _check.arrays.ids_1d(owner, "ids", ids)
        _check.arrays.ids_in_vocabulary(owner, "ids", ids, self.vocab_size)
        counts = np.zeros(self.vocab_size)
        for start in range(0, len(ids), _PIECE):
            counts += np.bincount(ids[start : start + _PIECE], minlength=self.vocab_size)
        return counts

    def perplexity(self, ids: np.ndarray) -> float:
        """`exp` of the mean of `-log P` over the words `rnnfast.perplexity` scores: all but the first."""
        _check.training.tokens_enough(
            "Unigram.perplexity", _check.arrays.ids_1d("Unigram.perplexity", "ids", ids), 1, 1
        )
        counts = self._counts("Unigram.perplexity", ids[1:])
        seen = counts > 0
        if not np.all(self.proba[seen] > 0.0):
            return math.inf
        return exp_of_mean(-float(counts[seen] @ np.log(self.proba[seen])), len(ids) - 1)
