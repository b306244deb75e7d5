"""Estimators of scikit-learn for sequences.

* `RNNClassifier` gives each sequence a class, `RNNRegressor` one or more numbers.
* `RNNTagger` gives each step a class.

Sequences may differ in length, and NaN is a value that was not observed.
"""

from __future__ import annotations

try:
    from sklearn.utils.validation import validate_data as _needed  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "rnnfast.sklearn needs scikit-learn: pip install 'rnnfast[sklearn]', or, in a clone, "
        "pip install -e '.[sklearn]'."
    ) from error
except ImportError as error:
    raise ImportError("rnnfast.sklearn needs scikit-learn 1.6 or newer.") from error

from rnnfast.sklearn.classifier import RNNClassifier
from rnnfast.sklearn.regressor import RNNRegressor
from rnnfast.sklearn.tagger import RNNTagger

__all__ = ["RNNClassifier", "RNNRegressor", "RNNTagger"]
