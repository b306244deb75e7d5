"""One or more numbers for each sequence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.utils import Tags, check_array, check_consistent_length

from rnnfast import _check
from rnnfast._check.values import nothing_masked, oversized
from rnnfast.cells import Cell
from rnnfast.heads import Head, absolute, squared
from rnnfast.models.encoder import Pooling
from rnnfast.sklearn.base import SequenceEstimator
from rnnfast.sklearn.inputs import FURTHEST, Scaling, Series, checked_numbers, too_far

_LOSSES = {"squared_error": squared, "absolute_error": absolute}


class RNNRegressor(RegressorMixin, SequenceEstimator):
    """A regression on sequences: recurrent layers, one vector for each sequence, an affine layer.

    Sequences and NaN are as in `RNNClassifier`. Targets are numbers (N,) or (N, O); the network learns them
    scaled to mean 0 and standard deviation 1.

    Parameters
    ----------
    loss : {"squared_error", "absolute_error"}
        The loss of the scaled targets.
    cell, hidden_size, layers, bidirectional, dropout, pooling
        The network, as in `RNNClassifier`.
    max_epochs, batch_size, learning_rate, clip_norm, scale
        The training, as in `RNNClassifier`.
    early_stopping, validation_fraction, patience, warm_start, random_state, verbose, callbacks
        As in `RNNClassifier`.
    dtype, ranks, blocks
        As in `RNNClassifier`.

    Attributes
    ----------
    n_outputs_ : int
        O.
    network_, loss_curve_, validation_loss_curve_, n_iter_, n_channels_, n_features_in_
        As in `RNNClassifier`; losses are those of the scaled targets.

    Examples
    --------
    >>> import numpy as np
    >>> from rnnfast.sklearn import RNNRegressor
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(60, 8, 2))
    >>> y = X[:, :, 0].mean(axis=1)
    >>> model = RNNRegressor(hidden_size=16, random_state=0).fit(X[:50], y[:50])
    >>> model.predict(X[50:]).shape
    (10,)
    >>> bool(model.score(X[50:], y[50:]) > 0.5)
    True
    """

    n_outputs_: int

    def __init__(
        self,
        *,
        loss: Literal["squared_error", "absolute_error"] = "squared_error",
        cell: str | Cell = "gru",
        hidden_size: int = 64,
        layers: int = 1,
        bidirectional: bool = True,
        dropout: float = 0.0,
        pooling: Pooling = "mean",
        max_epochs: int | None = None,
        batch_size: int = 8,
        learning_rate: float = 0.005,
        clip_norm: float | None = 1.0,
        scale: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        patience: int = 10,
        warm_start: bool = False,
        random_state: Any = None,
        verbose: int = 0,
        callbacks: Sequence[Callable[[dict[str, Any], Any], object]] | None = None,
        dtype: str = "float32",
        ranks: Any = None,
        blocks: int | None = None,
    ) -> None:
        super().__init__(
            cell=cell,
            hidden_size=hidden_size,
            layers=layers,
            bidirectional=bidirectional,
            dropout=dropout,
            max_epochs=max_epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            clip_norm=clip_norm,
            scale=scale,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            patience=patience,
            warm_start=warm_start,
            random_state=random_state,
            verbose=verbose,
            callbacks=callbacks,
            dtype=dtype,
            ranks=ranks,
            blocks=blocks,
        )
        self.pooling = pooling
        self.loss = loss

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def head_and_outputs(self) -> tuple[Head, int]:
        """The head of the network and its number of outputs."""
        owner = type(self).__name__
        return _LOSSES[_check.values.choice(owner, "loss", self.loss, tuple(_LOSSES))], self.n_outputs_

    def _targets(
        self,
        owner: str,
        y: Any,
        series: Series,
        weights: np.ndarray,
        start: bool,
        classes: np.ndarray | None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        y = nothing_masked(owner, "y", y)
        options = {"ensure_2d": False, "dtype": np.float64, "input_name": "y"}
        values = checked_numbers(owner, "y", y, lambda y: check_array(y, **options))
        check_consistent_length(series.lengths, values)
        table = values.reshape(len(values), -1)
        for place in np.argwhere(oversized(table))[:1]:
            raise too_far(owner, "y", table[tuple(place)], f"at {place[0]}")
        if start:
            _check.series.some_weight(owner, weights)
            self.n_outputs_, self._is_flat = table.shape[1], values.ndim == 1
            self.target_scaling_ = Scaling.of(table, weights)
        _check.objects.equal(owner, "the targets in y and in the first fit", table.shape[1], self.n_outputs_)
        scaled = self.target_scaling_.apply(table, np.dtype(np.float64))
        for place in np.argwhere(np.abs(scaled) > FURTHEST)[:1]:
            raise too_far(owner, "y", table[tuple(place)], f"at {place[0]}")
        return scaled, weights, None

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> RNNRegressor:
        """Train for one epoch on some of the data, without early stopping.

        The first call decides the scales of inputs and targets. Parameters are those of `fit`.
        """
        start = not self._is_fitted
        return self._fit("partial_fit", X, y, sample_weight, start=start, epochs=1, stops_early=False)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The coefficient of determination, as in scikit-learn."""
        owner = self._owner("score")
        weights = nothing_masked(owner, "sample_weight", sample_weight)
        return super().score(X, nothing_masked(owner, "y", y), weights)

    def predict(self, X: Any) -> np.ndarray:
        """The predicted numbers, (N,) or (N, O) as in `fit`."""
        scores, _ = self._scores("predict", X)
        found = self.target_scaling_.undo(scores)
        return found[:, 0] if self._is_flat else found
