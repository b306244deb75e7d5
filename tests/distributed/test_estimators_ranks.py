"""The ranks of estimators: clones keep them; copies, pickles and files do not."""

import copy
import pickle

import numpy as np
import pytest

from rnnfast.forecast import RNNForecaster


class Communicator:
    """It belongs to one process, as those of mpi4py."""

    rank, size, local_size = 0, 1, 1

    def __reduce_ex__(self, protocol):
        raise TypeError("a communicator cannot be copied")

    def agreed(self, value):
        return value

    def rows(self, own):
        return own

    def close(self):
        pytest.fail("made elsewhere")


@pytest.mark.parametrize("name", ["RNNClassifier", "RNNRegressor", "RNNTagger"])
def test_clones_of_estimators_keep_the_ranks(name):
    sklearn = pytest.importorskip("sklearn")
    ours = Communicator()
    model = getattr(pytest.importorskip("rnnfast.sklearn"), name)(hidden_size=4, ranks=ours, blocks=2)
    twin = sklearn.base.clone(model)
    assert twin is not model
    assert twin.get_params() == model.get_params()
    assert twin.ranks is model.ranks is ours
    assert sklearn.base.clone(model.set_params(ranks="world")).ranks == "world"


def test_copies_and_files_of_estimators_have_no_ranks(tmp_path):
    pytest.importorskip("sklearn")
    from rnnfast.sklearn import RNNClassifier

    rng, ours = np.random.default_rng(0), Communicator()
    X, y = rng.normal(size=(12, 5, 2)), np.arange(12) % 2
    options = {"hidden_size": 4, "max_epochs": 2, "random_state": 0, "blocks": 2}
    model = RNNClassifier(**options, ranks=ours).fit(X, y)
    expected = RNNClassifier(**options).fit(X, y).predict_proba(X)
    np.testing.assert_array_equal(model.predict_proba(X), expected)
    model.save(tmp_path / "model.safetensors")
    for twin in (
        copy.copy(model),
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        RNNClassifier.load(tmp_path / "model.safetensors"),
    ):
        assert twin.ranks is None
        assert twin.blocks == 2
        np.testing.assert_array_equal(twin.predict_proba(X), expected)
    assert model.ranks is ours


def test_copies_and_files_of_forecasters_have_no_ranks(tmp_path):
    ours, series = Communicator(), np.sin(np.arange(60) / 3)
    options = {"hidden_size": 4, "max_epochs": 2, "random_state": 0, "blocks": 2}
    model = RNNForecaster(**options, ranks=ours).fit(series)
    expected = RNNForecaster(**options).fit(series).predict(3)
    np.testing.assert_array_equal(model.predict(3), expected)
    model.save(tmp_path / "model.safetensors")
    for twin in (
        copy.copy(model),
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        RNNForecaster.load(tmp_path / "model.safetensors"),
    ):
        assert twin.ranks is None
        assert twin.blocks == 2
        np.testing.assert_array_equal(twin.predict(3), expected)
    assert model.ranks is ours


def test_calibration_trains_on_the_same_ranks():
    from rnnfast.forecast import PredictionIntervals

    asked = []

    class Counted(Communicator):
        def agreed(self, value):
            asked.append(value)
            return value

    series = np.sin(np.arange(60) / 3)
    model = RNNForecaster(hidden_size=4, max_epochs=2, ranks=Counted())
    model.fit(series, prediction_intervals=PredictionIntervals(h=3))
    assert len(asked) == 2  # a seed of each network
