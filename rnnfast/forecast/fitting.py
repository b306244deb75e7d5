"""Training the network of a forecaster."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np

from rnnfast import _check
from rnnfast.data.sequences import Ragged, Sequences
from rnnfast.forecast.data import Loaded
from rnnfast.forecast.fitted import Fitted, Group
from rnnfast.forecast.panel import Panel
from rnnfast.forecast.preprocessing import Preprocessing, Table
from rnnfast.models.regressor import SequenceRegressor
from rnnfast.optim import Adam
from rnnfast.training.bptt import TruncatedBPTT
from rnnfast.training.processes import joined_ranks
from rnnfast.training.progress import Progress
from rnnfast.training.trainer import Trainer

# Updates and epochs of a training whose epochs are not given.
_STEPS, _LEAST_UPDATES, _MOST_UPDATES = 5, 30, 200
_LEAST_EPOCHS, _MOST_EPOCHS = 2, 200


# Quantiles that are those of the head.
NOT_MEASURED = np.zeros(0)


class Trained(NamedTuple):
    """The result of a training: the network, the series read to their ends, records, and the seed of
    paths."""

    fitted: Fitted
    group: Group
    history: list[dict[str, Any]]
    seed: int


def trained_on(
    settings: Any,
    owner: str,
    data: Loaded,
    val_size: int = 0,
    errors: np.ndarray = NOT_MEASURED,
    checkpoint_file: str | os.PathLike[str] | None = None,
    resume: bool = False,
) -> Trained:
    """Train a network with the settings of a forecaster on all series, and read them."""
    with joined_ranks(settings.ranks) as ranks:
        return _trained_on(settings, owner, data, val_size, errors, checkpoint_file, resume, ranks)


def _trained_on(
    settings: Any,
    owner: str,
    data: Loaded,
    val_size: int,
    errors: np.ndarray,
    checkpoint_file: str | os.PathLike[str] | None,
    resume: bool,
    ranks: Any,
) -> Trained:
    panel = data.panel
    seed = np.random.SeedSequence(settings.random_state).entropy
    seed = seed if ranks is None else ranks.agreed(seed)
    weights, order, paths = np.random.default_rng(seed).spawn(3)
    validated = _check.values.size(owner, "val_size", val_size, 0)
    _check.series.observed_series(owner, panel.ids, panel.values, panel.begins)
    if settings.head.name == "negative_binomial":
        _check.series.counts(owner, panel.ids, panel.values, panel.begins)
    recipe = Preprocessing(
        settings.target,
        settings.season_length,
        settings.train_horizon,
        settings.scaler,
        panel.has_gaps,
        None,
        data.grid,
        data.grid.waves(int(panel.lengths.max())) if settings.calendar else [],
        panel.future.shape[1] + data.static.shape[1],
    )
    counts = settings.head.name == "negative_binomial"
    if counts:
        recipe = recipe._replace(size=0.0)  # the scaler of counts
    scale = recipe.scale_of(panel.until(np.maximum(1, panel.lengths - validated)) if validated else panel)
    if counts:
        recipe = recipe._replace(size=float(np.log(scale.scale).mean()))
    table = Table(recipe, panel, scale, data.static)
    model = SequenceRegressor(
        recipe.width,
        settings.hidden_size,
        recipe.horizon,
        cell=settings.cell,
        layers=settings.layers,
        dropout=0.0 if counts else settings.dropout,  # noise in a logarithm lowers the mean
        head=settings.head,
        rng=weights,
    )
    if counts:
        model.output.params[1][: recipe.horizon] = recipe.size
    targets = np.maximum(0, panel.lengths - recipe.horizon)  # steps that have one
    learned = np.maximum(0, targets - validated)
    train = _sequences(settings, table, panel, learned, model)
    scored = train.weights is None or train.weights.any_above_zero()
    if not (len(train.xs) > 0 and scored):
        raise ValueError(
            f"{owner}: a series needs more than {recipe.least} known values to train on, but none "
            f"of {len(panel.ids)} has them."
        )
    valid = _sequences(settings, table, panel, targets, model, learned) if validated else None
    trainer = _trainer(settings, model, order, valid is not None, ranks)
    history = trainer.fit(
        train,
        epochs=epochs_of(settings, panel, validated),
        batch_size=settings.batch_size,
        valid=valid,
        checkpoint_file=checkpoint_file,
        resume=resume,
    )
    fitted = Fitted(model, recipe, data.futures, data.statics, errors)
    return Trained(fitted, fitted.read(panel, scale, data.static), history, int(paths.integers(2**62)))


def _sequences(
    settings: Any, table: Table, panel: Any, steps: np.ndarray, model: SequenceRegressor, since: Any = None
) -> Sequences:
    """Windows of the first steps (n,) of each series; with `since` (n,), only later steps are scored."""
    windows = Windows(panel.begins, steps, settings.window)
    config = model.config
    xs = Columns(windows, table.inputs, config["input_size"], model.dtype)
    ts = Columns(windows, table.targets, config["output_size"], model.dtype)
    return Sequences(xs, ts, None, windows.weights(table.scored(), since))


def epochs_of(settings: Any, panel: Panel, val_size: int = 0) -> int:
    """The epochs of a training: given, or as many as make an update for every `_STEPS` steps, within
    limits."""
    if settings.max_epochs is not None:
        return settings.max_epochs
    windows = windows_of(settings, panel, val_size)
    updates = min(max(int(windows.lengths.sum()) // _STEPS, _LEAST_UPDATES), _MOST_UPDATES)
    return min(
        max(-(-updates // max(1, -(-len(windows) // settings.batch_size))), _LEAST_EPOCHS), _MOST_EPOCHS
    )


def windows_of(settings: Any, panel: Panel, val_size: int = 0) -> Windows:
    """The windows that a training reads."""
    steps = np.maximum(0, panel.lengths - settings.train_horizon - val_size)
    return Windows(panel.begins, steps, settings.window)


def _trainer(
    settings: Any, model: SequenceRegressor, rng: np.random.Generator, validates: bool, ranks: Any
) -> Trainer:
    optimizer = Adam(lr=settings.learning_rate)

    def fall(progress: Progress) -> None:
        optimizer.lr = settings.learning_rate * (1 - progress.step / (progress.steps + 1))
        if settings.on_update is not None:
            settings.on_update(progress)

    def report(record: dict[str, Any]) -> None:
        if settings.verbose:
            valid = record.get("valid_loss")
            shown = "" if valid is None else f", validation {valid:.4f}"
            print(
                f"epoch {record['epoch']}: loss {record['train_loss']:.4f}{shown}, {record['seconds']:.1f} s"
            )
        for callback in settings.callbacks:
            callback(record)

    return Trainer(
        model,
        optimizer,
        TruncatedBPTT(settings.window),
        clip_norm=settings.clip_norm,
        anneal=None,
        patience=settings.patience if validates else None,
        restore_best=validates,
        rng=rng,
        callback=fall,
        on_epoch=report,
        ranks=ranks,
        blocks=settings.blocks,
    )


# Training data: the series cut into windows, whose inputs and targets are computed when they are read.


# Windows whose weights are computed together.
_PIECE = 2048


class Windows:
    """Windows of the series of a table: `first` (S,) of the series `rows` (S,), of `lengths` (S,) steps.

    A series longer than `size` steps is cut. Each window then begins with `size // 2` steps that only
    prepare the state, and whose targets belong to the window before; the first window scores all its steps.

    Parameters
    ----------
    begins : ndarray of int (n+1,)
        Where the series begin in the flat arrays of their panel.
    steps : ndarray of int (n,)
        The number of steps of each series, from its first one on, that have a target.
    size : int
        The most steps of a window, at least 2.
    """

    def __init__(self, begins: np.ndarray, steps: np.ndarray, size: int) -> None:
        half = size // 2
        counts = np.where(steps > 0, 1 + np.maximum(0, -(-(steps - size) // (size - half))), 0)
        self.rows = np.repeat(np.arange(len(steps)), counts)
        number = np.arange(len(self.rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        self.first = number * (size - half)
        self.lengths = np.minimum(size, steps[self.rows] - self.first)
        self._prepares = np.where(number > 0, half, 0)
        self._begins = begins

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.rows)

    def weights(self, scored: np.ndarray, since: np.ndarray | None = None) -> Ragged | None:
        """The weights of all steps, 1 or 0; None if all are 1.

        `scored` (total,) tells which steps have a known target, and `since` (n,) the first step of each
        series that counts.
        """
        parts = [self._counts(scored, since, slice(at, at + _PIECE)) for at in range(0, len(self), _PIECE)]
        counts = np.concatenate(parts) if parts else np.ones(0, bool)
        return None if counts.all() else Ragged.of_flat(counts.astype(np.float32), self.lengths)

    def _counts(self, scored: np.ndarray, since: np.ndarray | None, piece: slice) -> np.ndarray:
        """Whether each step of some windows counts."""
        rows, begins, lengths = self.rows[piece], self.first[piece], self.lengths[piece]
        first = self._prepares[piece]
        if since is not None:
            first = np.maximum(first, since[rows] - begins)
        inside = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        places = inside + np.repeat(self._begins[rows] + begins, lengths)
        return scored[places] & (inside >= np.repeat(first, lengths))


class Columns(Ragged):
    """Inputs or targets of windows as one array (S, T, columns), computed when it is read.

    Parameters
    ----------
    windows : Windows
    compute : callable
        The values (N, steps, columns) of some series from a step on: `Table.inputs` or `Table.targets`.
    columns : int
    """

    def __init__(self, windows: Windows, compute: Any, columns: int, dtype: Any) -> None:
        self.lengths, self._windows, self._compute = windows.lengths, windows, compute
        self.dtype = np.dtype(dtype)
        self.shape = (len(windows), int(self.lengths.max(initial=0)), columns)
        self.ndim = 3

    def __getitem__(self, places: Any) -> np.ndarray:
        """Some steps of some rows, as in `Ragged`."""
        rows, steps = places if isinstance(places, tuple) else (places, slice(None))
        first, last, _ = steps.indices(self.shape[1])
        picked, windows = np.arange(len(self))[rows], self._windows
        found = self._compute(windows.rows[picked], windows.first[picked] + first, max(0, last - first))
        found[np.arange(first, max(first, last)) >= windows.lengths[picked, np.newaxis]] = 0
        return found.astype(self.dtype)
