"""The checks of scikit-learn itself."""

import pytest

pytest.importorskip("sklearn")

from sklearn.utils.estimator_checks import parametrize_with_checks

from rnnfast.sklearn import RNNClassifier, RNNRegressor

# In float64 and in whole batches, a weight of 2 is a sequence that is there twice, but for rounding.
WHOLE = {"dtype": "float64", "batch_size": 10_000}
SMALL = {"hidden_size": 16, "max_epochs": 60, "learning_rate": 0.02}


@parametrize_with_checks([RNNClassifier(**SMALL, **WHOLE), RNNRegressor(**SMALL, **WHOLE)])
def test_a_check_of_scikit_learn_passes(estimator, check):
    assert check(estimator) is None
