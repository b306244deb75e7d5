"""What the estimators share: their parameters, training, and reading."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted

from rnnfast import _check
from rnnfast.cells import Cell
from rnnfast.data.sequences import Sequences
from rnnfast.heads import Head
from rnnfast.models.encoder import Pooling
from rnnfast.models.network import Network
from rnnfast.models.weights import SavedModel
from rnnfast.optim import Adam
from rnnfast.sklearn.inputs import Scaling, Series, check_parameters, read, scaled, weights_of
from rnnfast.sklearn.saving import load_estimator, save_estimator
from rnnfast.training.bptt import TruncatedBPTT
from rnnfast.training.processes import joined_ranks
from rnnfast.training.trainer import Trainer

# Updates of a training whose epochs are not given, and its limits.
_UPDATES, _LEAST_EPOCHS, _MOST_EPOCHS = 500, 30, 300


class SequenceEstimator(BaseEstimator):
    """Base of the estimators: a network for whole sequences, trained with Adam."""

    network_: Network
    pooling: Pooling | None
    _optimizer: Adam
    _rng: np.random.Generator

    def __init__(
        self,
        *,
        cell: str | Cell,
        hidden_size: int,
        layers: int,
        bidirectional: bool,
        dropout: float,
        max_epochs: int | None,
        batch_size: int,
        learning_rate: float,
        clip_norm: float | None,
        scale: bool,
        early_stopping: bool,
        validation_fraction: float,
        patience: int,
        warm_start: bool,
        random_state: Any,
        verbose: int,
        callbacks: Sequence[Callable[[dict[str, Any], Any], object]] | None,
        dtype: str,
        ranks: Any,
        blocks: int | None,
    ) -> None:
        self.cell = cell
        self.hidden_size = hidden_size
        self.layers = layers
        self.bidirectional = bidirectional
        self.dropout = dropout
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.clip_norm = clip_norm
        self.scale = scale
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose
        self.callbacks = callbacks
        self.dtype = dtype
        self.ranks = ranks
        self.blocks = blocks

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = tags.input_tags.three_d_array = True
        tags.input_tags.allow_nan = True
        tags.target_tags.required = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the ranks, which belong to this process: a copy trains alone, to the same bits."""
        return {**super().__getstate__(), "ranks": None}

    def __sklearn_clone__(self) -> Any:
        alone = copy.copy(self)  # since a communicator cannot be copied
        return super(SequenceEstimator, alone).__sklearn_clone__().set_params(ranks=self.ranks)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if self._is_fitted and not all(param.flags.writeable for param in self.network_.params):
            self._take_out_of_memory_map()

    def _take_out_of_memory_map(self) -> None:
        """Copy the network: joblib hands large arrays to its workers as read-only memory maps."""
        mapped, optimizer = self.network_, Adam()
        arrays = {
            name: np.array(param) for name, param in zip(mapped.parameter_names, mapped.params, strict=True)
        }
        network = Network.from_saved(SavedModel(mapped.config, arrays, {}, mapped.constants))
        network.rng_state = mapped.rng_state
        optimizer.load_state_dict(self._optimizer.state_dict())
        self._begin(network, self._rng)
        self._optimizer = optimizer

    # What an estimator defines.

    def _targets(
        self,
        owner: str,
        y: Any,
        series: Series,
        weights: np.ndarray,
        start: bool,
        classes: np.ndarray | None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Targets (N, O) or (steps, O) in float64, their weights (N,) or (steps,), and labels to stratify by.

        With `start`, they decide the scales, or the classes unless these are given.
        """
        raise NotImplementedError

    def head_and_outputs(self) -> tuple[Head, int]:
        """The head of the network and its number of outputs."""
        raise NotImplementedError

    # Training.

    def _owner(self, method: str) -> str:
        return f"{type(self).__name__}.{method}"

    @property
    def _is_fitted(self) -> bool:
        return hasattr(self, "network_")

    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        checkpoint_file: str | os.PathLike[str] | None = None,
        resume: bool = False,
    ) -> Any:
        """Train the network.

        Parameters
        ----------
        X : array (N, T, D) or (N, T), or list of N arrays (T_i, D) or (T_i,)
            The sequences; NaN, or a masked value, was not observed.
        y
            The labels or targets, as the class describes them.
        sample_weight : array (N,), optional
            The weight of each sequence in the loss, at least 0.
        checkpoint_file, resume
            As in `Trainer.fit`: a file from which a stopped training continues to the same bits. They need
            `warm_start=False`, and with `early_stopping` a `random_state` that holds back the same sequences.

        Returns
        -------
        self
            The estimator itself.

        Raises
        ------
        ValueError, TypeError
            The sequences, the labels or targets, or a parameter are not valid.
        CheckpointError, OSError
            `checkpoint_file` is damaged, belongs to another training, or cannot be written.
        TrainingDiverged
            The loss is not finite.
        """
        if self.warm_start:
            _check.values.absent(self._owner("fit"), "checkpoint_file", checkpoint_file, "warm_start=False")
        return self._fit(
            "fit",
            X,
            y,
            sample_weight,
            start=not (self.warm_start and self._is_fitted),
            epochs=self.max_epochs,
            stops_early=self.early_stopping,
            checkpoint_file=checkpoint_file,
            resume=resume,
        )

    def _fit(
        self,
        method: str,
        X: Any,
        y: Any,
        sample_weight: Any,
        *,
        start: bool,
        epochs: int | None,
        stops_early: bool,
        classes: np.ndarray | None = None,
        checkpoint_file: str | os.PathLike[str] | None = None,
        resume: bool = False,
    ) -> Any:
        """Train for some epochs, with `start` from the beginning."""
        owner = self._owner(method)
        if y is None:
            raise ValueError(f"{owner} requires y to be passed, but the target y is None.")
        check_parameters(owner, self)
        before = dict(self.__dict__)
        with joined_ranks(self.ranks) as ranks:
            try:
                series = read(self, method, X, reset=start)
                weights = weights_of(owner, sample_weight, series.size)
                ts, weights, strata = self._targets(owner, y, series, weights, start, classes)
                lengths, total, of_steps = series.lengths, weights, self.pooling is None
                if of_steps:
                    total = np.add.reduceat(weights, np.cumsum(lengths) - lengths)
                _check.series.some_weight(owner, total)
                if start:
                    self._start(series, weights if of_steps else np.repeat(weights, lengths), ranks)
                series = scaled(owner, series, self.scaling_, self.network_.dtype)
                rows, valid = np.flatnonzero(total), None
                if stops_early:
                    rows, held = self._split(rows, None if strata is None else strata[rows])
                    valid = self._data(series, ts, weights, held)
                data = self._data(series, ts, weights, rows)
            except BaseException:
                self.__dict__ = before  # a fitted estimator stays as it was
                raise
            self._train(data, valid, epochs, checkpoint_file, resume, ranks)
        return self

    def _start(self, series: Series, weights: np.ndarray, ranks: Any) -> None:
        """A new network on the channels of the sequences, whose steps have these weights."""
        seed = self._seed()
        rng = np.random.default_rng(seed if ranks is None else ranks.agreed(seed))
        self.n_channels_ = series.flat.shape[1]
        self.scaling_ = Scaling.of(series.flat, weights, active=self.scale)
        head, outputs = self.head_and_outputs()
        network = Network(
            self.scaling_.channels,
            self.hidden_size,
            outputs,
            cell=self.cell,
            layers=self.layers,
            bidirectional=self.bidirectional,
            dropout=self.dropout,
            pooling=self.pooling,
            head=head,
            rng=rng,
            dtype=self.dtype,
        )
        self._begin(network, rng)
        self.loss_curve_: list[float] = []
        self.validation_loss_curve_: list[float] = []
        self.n_iter_ = 0

    def _seed(self) -> int:
        return check_random_state(self.random_state).randint(2**31 - 1)

    def _begin(self, network: Network, rng: np.random.Generator) -> None:
        """Take a network; the optimizer is fresh."""
        self.network_, self._optimizer, self._rng = network, Adam(), rng

    def _split(self, rows: np.ndarray, strata: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Sequences for training and for validation."""
        from sklearn.model_selection import train_test_split

        seed = int(self._rng.integers(2**31))
        train, held = train_test_split(
            rows, test_size=self.validation_fraction, stratify=strata, random_state=seed
        )
        return np.sort(train), np.sort(held)

    def _data(self, series: Series, ts: np.ndarray, weights: np.ndarray, rows: np.ndarray) -> Sequences:
        """Some of the scaled sequences, with targets and weights."""
        own, dtype = series.take(rows), self.network_.dtype
        xs = own.for_training(own.flat)
        places = series.steps_of(rows) if self.pooling is None else rows
        ts, weights = ts[places].astype(dtype), weights[places]
        as_given = own.for_training if self.pooling is None else np.asarray
        # Equal weights are none, which takes less time.
        own_weights = None if (weights == weights[0]).all() else as_given(weights)
        return Sequences(xs, as_given(ts), None, own_weights)

    def planned_epochs(self, sequences: int) -> int:
        """The epochs of a training with `max_epochs=None` on this number of sequences."""
        batches = -(-sequences // self.batch_size)
        return min(max(-(-_UPDATES // batches), _LEAST_EPOCHS), _MOST_EPOCHS)

    def _train(
        self,
        data: Sequences,
        valid: Sequences | None,
        epochs: int | None,
        checkpoint_file: str | os.PathLike[str] | None,
        resume: bool,
        ranks: Any,
    ) -> None:
        epochs = self.planned_epochs(len(data.xs)) if epochs is None else epochs
        self._optimizer.lr = float(self.learning_rate)
        longest = max(len(x) for x in data.xs)
        earlier = self.loss_curve_, self.validation_loss_curve_, self.n_iter_

        def count() -> None:
            """Add the epochs of this training, also those before a resume, to the earlier ones."""
            history = trainer.history
            self.loss_curve_ = earlier[0] + [record["train_loss"] for record in history]
            of_valid = history if valid is not None else []
            self.validation_loss_curve_ = earlier[1] + [record["valid_loss"] for record in of_valid]
            self.n_iter_ = earlier[2] + len(history)

        def report(record: dict[str, Any]) -> None:
            count()
            if self.verbose:
                losses = f"loss {record['train_loss']:.4g}"
                if valid is not None:
                    losses += f", validation loss {record['valid_loss']:.4g}"
                began = trainer.history[-2]["seconds"] if len(trainer.history) > 1 else 0.0
                print(f"epoch {self.n_iter_}: {losses}, {record['seconds'] - began:.2f} s")
            for callback in self.callbacks or ():
                callback(record, self)

        trainer = Trainer(
            self.network_,
            self._optimizer,
            TruncatedBPTT(longest),
            clip_norm=self.clip_norm,
            anneal=None,
            patience=None if valid is None else self.patience,
            restore_best=valid is not None,
            rng=self._rng,
            on_epoch=report,
            ranks=ranks,
            blocks=self.blocks,
        )
        trainer.fit(
            data,
            epochs=epochs,
            batch_size=self.batch_size,
            valid=valid,
            checkpoint_file=checkpoint_file,
            resume=resume,
        )
        count()

    # Reading.

    def _scores(self, method: str, X: Any) -> tuple[np.ndarray, Series]:
        """The scores (N, P) of sequences, or (steps, P) of their steps, in float64, and the sequences."""
        check_is_fitted(self)
        series, network = read(self, method, X, reset=False), self.network_
        whole = scaled(self._owner(method), series, self.scaling_, network.dtype)
        of_steps = network.config["pooling"] is None
        scores = np.empty((len(series.flat) if of_steps else series.size, network.output.params[1].size))
        with network.reading():
            for rows, xs, lengths in whole.padded():
                found = network.scores(xs, lengths=lengths)
                if of_steps:
                    inside = np.arange(xs.shape[1]) < lengths[:, np.newaxis]
                    scores[series.steps_of(rows)] = found[inside]
                else:
                    scores[rows] = found
        return scores, series

    # Files.

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted estimator to one safetensors file, atomically and without a pickle.

        It holds the parameters, the network and what prediction needs; not `callbacks`, `ranks`, the state of
        the optimizer, or a `random_state` other than a number.
        """
        check_is_fitted(self)
        save_estimator(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Any:
        """Load an estimator from a file of `save`; its predictions have the same bits.

        Raises
        ------
        CheckpointError
            The file is damaged, or holds something else; the message names it.
        OSError
            The file cannot be read.
        """
        _check.training.readable(f"{cls.__name__}.load", path)
        estimator, network = load_estimator(cls, path)
        estimator._begin(network, np.random.default_rng(estimator._seed()))
        return estimator
