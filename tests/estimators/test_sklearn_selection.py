"""Estimators in the tools of scikit-learn, and their files."""

import numpy as np
import pytest

pytest.importorskip("sklearn")

from helpers import assert_same_bits
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn_helpers import SMALL, rectangle, sequences

from rnnfast import RNNLM, CheckpointError, cell
from rnnfast.cells import sigmoid
from rnnfast.models.network import Network
from rnnfast.models.weights import read_weights
from rnnfast.sklearn import RNNClassifier, RNNRegressor, RNNTagger

X, Y = sequences()
SUMS = np.array([x[:, 0].sum() for x in X])
TAGS = [np.where(x[:, 0].cumsum() > 0, "above", "below") for x in X]


@cell(states=("h",))
def leaky_mean(a, h):
    return 0.5 * h + 0.5 * sigmoid(a)


def test_lists_of_sequences_go_through_model_selection():
    train, test, y_train, y_test = train_test_split(X, Y, stratify=Y, random_state=0)
    model = RNNClassifier(**{**SMALL, "max_epochs": 20}).fit(train, y_train)
    assert model.score(test, y_test) > 0.6
    assert cross_val_score(model, X, Y, cv=3).shape == (3,)
    assert cross_val_predict(model, X, Y, cv=3, method="predict_proba").shape == (60, 2)
    assert cross_val_score(RNNRegressor(**SMALL), X, SUMS, cv=3).shape == (3,)
    assert cross_val_score(RNNTagger(**SMALL), X, TAGS, cv=3).shape == (3,)
    assert make_pipeline(RNNClassifier(**SMALL)).fit(X, Y).predict(X).shape == (60,)


@pytest.mark.parametrize("method", ["sigmoid", "isotonic"])
def test_probabilities_can_be_calibrated(method):
    model = CalibratedClassifierCV(RNNClassifier(**SMALL), method=method, cv=3).fit(X, Y)
    np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1)


def test_a_search_on_two_processes_finds_the_same():
    grid = {"hidden_size": [4, 8], "pooling": ["last", "mean"]}
    found = []
    for jobs in (1, 2):
        search = GridSearchCV(RNNClassifier(**SMALL), grid, cv=3, n_jobs=jobs).fit(X, Y)
        found.append((search.cv_results_["mean_test_score"], search.predict_proba(X)))
    for one, two in zip(*found, strict=True):
        assert_same_bits(one, two)


# Files.


def saved(model, tmp_path):
    model.save(tmp_path / "model.safetensors")
    return type(model).load(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("model", "y"),
    [
        (RNNClassifier(**SMALL, class_weight={"up": 2.0, "down": 1}, callbacks=[lambda *_: None]), Y),
        (RNNClassifier(**{**SMALL, "random_state": None}, cell=leaky_mean, bidirectional=True), SUMS > 0),
        (RNNClassifier(**SMALL, early_stopping=True), np.where(SUMS > 0, 7, -2)),
        (RNNClassifier(**SMALL), np.where(SUMS > 0, 1.0, 2.0)),
        (RNNClassifier(**SMALL), Y.astype(object)),
        (RNNRegressor(**SMALL, loss="absolute_error"), SUMS),
        (RNNRegressor(**SMALL, pooling="max"), np.stack([SUMS, -SUMS], axis=1)),
        (RNNTagger(**SMALL), TAGS),
    ],
)
@pytest.mark.parametrize("form", ["list", "gaps", "table"])
def test_a_saved_estimator_is_the_same(model, y, form, tmp_path):
    data = {"list": X, "gaps": [np.where(x > 1, np.nan, x) for x in X], "table": rectangle(X)[..., 0]}[form]
    if isinstance(y, list) and form == "table":
        y = np.array([tags[:4] for tags in y])
    model.fit(data, y)
    other = saved(model, tmp_path)
    methods = ["predict"] if isinstance(model, RNNRegressor) else ["predict", "predict_proba"]
    for method in methods:
        actual, expected = getattr(other, method)(data), getattr(model, method)(data)
        for one, two in zip(actual, expected, strict=True):
            assert_same_bits(np.asarray(one), np.asarray(two))
    expected = {**model.get_params(), "callbacks": None}
    assert other.get_params() == expected
    for name in ("loss_curve_", "validation_loss_curve_", "n_iter_", "n_channels_"):
        assert getattr(other, name) == getattr(model, name)
    assert getattr(other, "n_features_in_", None) == getattr(model, "n_features_in_", None)
    if hasattr(model, "classes_"):
        assert other.classes_.dtype == model.classes_.dtype
    other.set_params(warm_start=True).fit(data, y)
    assert other.n_iter_ > model.n_iter_
    assert other.loss_curve_[: model.n_iter_] == model.loss_curve_


def test_a_file_may_not_hold_labels_of_other_types(tmp_path):
    model = RNNClassifier(**SMALL).fit(X, Y)
    model.classes_ = np.array([b"up", b"down"], object)
    with pytest.raises(ValueError, match=r"^[^\n]*: classes must be str, int, float or bool, got bytes\.$"):
        model.save(tmp_path / "model.safetensors")


def test_a_file_of_something_else_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    RNNRegressor(**SMALL).fit(X, SUMS).save(path)
    with pytest.raises(CheckpointError, match=r"it holds 'RNNRegressor', not RNNClassifier"):
        RNNClassifier.load(path)
    RNNLM(5, 4, 4).save(path)
    with pytest.raises(CheckpointError, match="it describes the model 'RNNLM', not Network"):
        RNNClassifier.load(path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda notes: notes.pop("parameters"),
        lambda notes: notes["parameters"].update(colour="red"),
        lambda notes: notes["scalings"]["scaling_"].update(mean=[1.0]),
        lambda notes: notes["scalings"].update(scaling_=3),
        lambda notes: notes["scalings"].clear(),
        lambda notes: notes["classes"].update(dtype="nonsense"),
        lambda notes: notes["classes"].update(labels=["up"]),
        lambda notes: notes.pop("classes"),
        lambda notes: notes["fitted"].update(n_channels_=9),
        lambda notes: notes["fitted"].pop("n_channels_"),
    ],
)
def test_damaged_notes_are_refused(damage, tmp_path):
    path = tmp_path / "model.safetensors"
    model = RNNClassifier(**SMALL).fit(X, Y)
    model.save(path)
    notes = read_weights(path, Network.expected_tensors).notes
    damage(notes)
    model.network_.save(path, notes=notes)
    with pytest.raises(CheckpointError, match=r"^[^\n]*holds no RNNClassifier[^\n]*\.$"):
        RNNClassifier.load(path)
