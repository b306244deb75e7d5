"""One class for each sequence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils import check_consistent_length, column_or_1d

from rnnfast._check.values import nothing_masked
from rnnfast.cells import Cell
from rnnfast.models.encoder import Pooling
from rnnfast.sklearn.inputs import Series
from rnnfast.sklearn.labels import LabelEstimator


class RNNClassifier(ClassifierMixin, LabelEstimator):
    """A classifier of sequences: recurrent layers, one vector for each sequence, a softmax.

    Sequences are an array (N, T, D), a list of N arrays (T_i, D) of unequal lengths, or an array (N, T) of
    one channel. NaN, or a masked value, was not observed: it counts as the mean of its channel, and each
    channel with NaN in training has a second input, 1 where it was observed and 0 elsewhere.

    Parameters
    ----------
    cell : str or Cell
        The recurrent layers: a name in `rnnfast.cells`, or a cell of your own.
    hidden_size, layers : int
        Units of each recurrent layer, and the number of layers.
    bidirectional : bool
        Whether each layer also reads backwards, with as many units again.
    dropout : float
        Share of units dropped in training, before each recurrent layer and before the output.
    pooling : {"last", "mean", "max"}
        The vector of a sequence: the final states, or the mean or maximum over its steps.
    max_epochs : int, optional
        Passes over the data; by default as many as make 500 updates, at least 30 and at most 300.
    batch_size : int
        Sequences in a batch; batches hold sequences of similar length. Larger ones are faster.
    learning_rate : float
        That of Adam.
    clip_norm : float or None
        The largest norm of the gradient.
    scale : bool
        Whether each channel is scaled to mean 0 and standard deviation 1 over the training data.
    early_stopping : bool
        Whether to hold back a part of the data, stop after `patience` epochs without a better loss on it, and
        return to the best epoch.
    validation_fraction : float
        The share that is held back, with the classes in proportion.
    patience : int
        With early stopping, training ends after this number of epochs without a better loss.
    class_weight : dict, "balanced" or None
        The weight of each class, as elsewhere in scikit-learn.
    warm_start : bool
        Whether `fit` continues from the last `fit`.
    random_state : int, RandomState or None
        A number gives the same bits in each run, for any number of threads.
    verbose : int
        1 prints a line for each epoch.
    callbacks : list of callable or None
        Each is called after an epoch with its record, a dict as in `rnnfast.Trainer`, and the estimator; it
        may raise `rnnfast.training.StopTraining`.
    dtype : {"float32", "float64"}
        Of the network.
    ranks : "world", communicator of mpi4py, or None
        The processes that train together, with the bits of one process: "world" for all that `mpiexec`
        started. Each calls `fit` with the same sequences; the first alone prints and calls `callbacks`.
        Pickles and files hold no ranks.
    blocks : int, optional
        The number of parts of a batch whose gradients are summed in a fixed order, as in `rnnfast.Trainer`.

    Attributes
    ----------
    classes_ : ndarray (K,)
        The labels.
    network_ : Network
        The trained model.
    loss_curve_, validation_loss_curve_ : list of float
        The mean loss of each epoch, and with early stopping that of the validation data.
    n_iter_ : int
        Epochs so far.
    n_channels_ : int
        D.
    n_features_in_ : int
        T, if the sequences were an array (N, T).

    Notes
    -----
    The defaults come from cross-validation on the training sets of JapaneseVowels, BasicMotions, GunPoint,
    ItalyPowerDemand and PickupGestureWiimoteZ.

    Examples
    --------
    >>> import numpy as np
    >>> from rnnfast.sklearn import RNNClassifier
    >>> rng = np.random.default_rng(0)
    >>> X = [rng.normal(size=(length, 2)) for length in rng.integers(5, 15, 60)]
    >>> y = ["up" if x[:, 0].sum() > 0 else "down" for x in X]
    >>> model = RNNClassifier(hidden_size=16, random_state=0).fit(X[:50], y[:50])
    >>> model.predict(X[50:]).shape, model.predict_proba(X[50:]).shape
    ((10,), (10, 2))
    >>> bool(model.score(X[50:], y[50:]) > 0.6)
    True
    """

    def __init__(
        self,
        *,
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
        self.pooling = pooling
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
        y = nothing_masked(owner, "y", y)
        labels = column_or_1d(y.to_numpy() if hasattr(y, "to_numpy") else y, warn=True)
        check_consistent_length(series.lengths, labels)
        numbers, of_classes = self._numbered(owner, labels, start, classes)
        return numbers[:, np.newaxis].astype(np.float64), weights * of_classes, numbers

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The share of sequences with the right label."""
        owner = self._owner("score")
        weights = nothing_masked(owner, "sample_weight", sample_weight)
        return super().score(X, nothing_masked(owner, "y", y), weights)

    def predict(self, X: Any) -> np.ndarray:
        """The most probable label (N,) of each sequence."""
        return self._most_probable(self._scores("predict", X)[0])

    def predict_proba(self, X: Any) -> np.ndarray:
        """The probability (N, K) of each class, in the order of `classes_`."""
        return self._probabilities(self._scores("predict_proba", X)[0])

    def decision_function(self, X: Any) -> np.ndarray:
        """The logarithms (N, K) of the probabilities; of two classes, their difference (N,)."""
        return self._decisions(self._scores("decision_function", X)[0])
