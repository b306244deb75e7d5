"""One class for each step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from rnnfast import _check
from rnnfast._check.values import nothing_masked
from rnnfast.cells import Cell
from rnnfast.sklearn.inputs import Series, weights_of
from rnnfast.sklearn.labels import LabelEstimator


class RNNTagger(LabelEstimator):
    """A classifier of the steps of sequences: recurrent layers, and a softmax at each step.

    Sequences and NaN are as in `RNNClassifier`. Labels are an array (N, T), or a list of N arrays (T_i,).

    Parameters
    ----------
    cell, hidden_size, layers, dropout
        The network, as in `RNNClassifier`.
    bidirectional : bool
        Whether the label of a step may depend on later steps.
    max_epochs, batch_size, learning_rate, clip_norm, scale
        The training, as in `RNNClassifier`.
    early_stopping, validation_fraction, patience
        As in `RNNClassifier`, without proportions of classes.
    class_weight, warm_start, random_state, verbose, callbacks, dtype, ranks, blocks
        As in `RNNClassifier`.

    Attributes
    ----------
    classes_, network_, loss_curve_, validation_loss_curve_, n_iter_, n_channels_, n_features_in_
        As in `RNNClassifier`.

    Examples
    --------
    >>> import numpy as np
    >>> from rnnfast.sklearn import RNNTagger
    >>> rng = np.random.default_rng(0)
    >>> X = [rng.normal(size=(length, 1)) for length in rng.integers(5, 15, 60)]
    >>> y = [np.where(x[:, 0].cumsum() > 0, "above", "below") for x in X]
    >>> model = RNNTagger(hidden_size=16, random_state=0).fit(X[:50], y[:50])
    >>> [labels.shape for labels in model.predict(X[50:52])] == [x[:, 0].shape for x in X[50:52]]
    True
    >>> bool(model.score(X[50:], y[50:]) > 0.8)
    True
    """

    pooling = None

    def __init__(
        self,
        *,
        cell: str | Cell = "gru",
        hidden_size: int = 64,
        layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        max_epochs: int | None = None,
        batch_size: int = 8,
        learning_rate: float = 0.005,
        clip_norm: float | None = 1.0,
        scale: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        patience: int = 10,
        class_weight: Mapping[Any, float] | Literal["balanced"] | None = None,
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
        self.class_weight = class_weight

    def _targets(
        self,
        owner: str,
        y: Any,
        series: Series,
        weights: np.ndarray,
        start: bool,
        classes: np.ndarray | None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        numbers, of_classes = self._numbered(owner, _labels(owner, y, series), start, classes)
        return (
            numbers[:, np.newaxis].astype(np.float64),
            np.repeat(weights, series.lengths) * of_classes,
            None,
        )

    def predict(self, X: Any) -> Any:
        """The most probable label of each step: (N, T) for an array, else a list of arrays (T_i,)."""
        scores, series = self._scores("predict", X)
        return series.apart(self._most_probable(scores))

    def predict_proba(self, X: Any) -> Any:
        """The probabilities of the classes at each step: (N, T, K), or a list of arrays (T_i, K)."""
        scores, series = self._scores("predict_proba", X)
        return series.apart(self._probabilities(scores))

    def decision_function(self, X: Any) -> Any:
        """The logarithms of the probabilities: (N, T, K), or a list of arrays (T_i, K).

        Of two classes, it is their difference: (N, T), or a list of arrays (T_i,).
        """
        scores, series = self._scores("decision_function", X)
        return series.apart(self._decisions(scores))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The share of steps with the right label; `sample_weight` (N,) weighs the sequences."""
        scores, series = self._scores("score", X)
        owner = self._owner("score")
        weights = np.repeat(weights_of(owner, sample_weight, series.size), series.lengths)
        _check.series.some_weight(owner, weights)
        return float(np.average(self._most_probable(scores) == _labels(owner, y, series), weights=weights))


def _labels(owner: str, y: Any, series: Series) -> np.ndarray:
    """The labels (steps,) of all steps."""
    y = np.asarray(y) if hasattr(y, "columns") else nothing_masked(owner, "y", y)
    is_whole = not isinstance(y, str) and hasattr(y, "__len__") and all(np.ndim(one) == 1 for one in y)
    arrays = [np.asarray(one) for one in y] if is_whole else []
    found = np.array([len(one) for one in arrays]) if is_whole else None
    steps = _check.series.steps_of_labels(owner, series.lengths, found)
    _check.training.equal_lengths(owner, "y", steps, series.lengths)
    return np.concatenate(arrays)
