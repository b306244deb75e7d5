"""Classes: their numbers, their weights, and their probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils import assert_all_finite, compute_class_weight
from sklearn.utils.multiclass import check_classification_targets

from rnnfast import _check
from rnnfast._check.values import is_missing, nothing_masked
from rnnfast.heads import Head, categorical
from rnnfast.sklearn.base import SequenceEstimator
from rnnfast.sklearn.inputs import ordinary


class LabelEstimator(SequenceEstimator):
    """Base of the estimators of classes."""

    classes_: np.ndarray
    class_weight: Any

    def head_and_outputs(self) -> tuple[Head, int]:
        """The head of the network and its number of outputs."""
        return categorical(len(self.classes_)), 1

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Any:
        """Train for one epoch on some of the data, without early stopping.

        The first call decides the classes and the scale of the inputs. Parameters are those of `fit`, and
        `classes`, all labels that may come, on the first call.
        """
        owner, start = self._owner("partial_fit"), not self._is_fitted
        if self.class_weight == "balanced":
            raise ValueError(
                f'{owner}: class_weight="balanced" needs all labels at once; pass a dict of weights.'
            )
        found = None if classes is None else np.unique(nothing_masked(owner, "classes", classes))
        if start and found is None:
            raise ValueError(
                f"{owner}: classes must be passed on the first call; later calls may hold fewer."
            )
        if not start and found is not None and not np.array_equal(found, self.classes_):
            raise ValueError(f"{owner}: classes must be those of the first call.")
        return self._fit(
            "partial_fit", X, y, sample_weight, start=start, epochs=1, stops_early=False, classes=found
        )

    def _numbered(
        self, owner: str, labels: np.ndarray, start: bool, classes: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The number of the class of each label (m,), and its weight."""
        if labels.dtype == object:
            for place in [place for place, one in enumerate(labels) if is_missing(one)][:1]:
                raise ValueError(
                    f"{owner}: Input y contains NaN, or another missing label: {labels[place]!r} at {place}; "
                    "leave such sequences out."
                )
        assert_all_finite(labels, input_name="y")
        check_classification_targets(labels)
        if not start:
            classes = self.classes_
        elif classes is None:
            classes = np.unique(labels)
        if len(classes) < 2:
            raise ValueError(f"{owner}: at least two classes are needed, got {len(classes)} class.")
        _check.series.known_classes(owner, np.isin(labels, classes), labels, classes)
        self.classes_, numbers = classes, np.searchsorted(classes, labels)
        if self.class_weight is None:
            return numbers, np.ones(len(labels))
        return numbers, ordinary(compute_class_weight(self.class_weight, classes=classes, y=labels))[numbers]

    def _probabilities(self, scores: np.ndarray) -> np.ndarray:
        return self.network_.head.values(scores)["probabilities"]

    def _decisions(self, scores: np.ndarray) -> np.ndarray:
        if scores.shape[1] == 2:
            return scores[:, 1] - scores[:, 0]
        above = scores - scores.max(axis=1, keepdims=True)
        return above - np.log(np.exp(above).sum(axis=1, keepdims=True))

    def _most_probable(self, scores: np.ndarray) -> np.ndarray:
        return self.classes_[scores.argmax(axis=1)]
