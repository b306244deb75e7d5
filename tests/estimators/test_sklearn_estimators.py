"""The classifier, the regressor and the tagger: training, its options, and predictions."""

import copy
import pickle

import numpy as np
import pytest

pytest.importorskip("sklearn")

from helpers import assert_same_bits
from sklearn.base import clone
from sklearn_helpers import SMALL, rectangle, sequences

import rnnfast
from rnnfast.sklearn import RNNClassifier, RNNRegressor, RNNTagger
from rnnfast.training import StopTraining

X, Y = sequences()
SUMS = np.array([x[:, 0].sum() for x in X])
TAGS = [np.where(x[:, 0].cumsum() > 0, "above", "below") for x in X]


def made(kind, **options):
    return kind(**{**SMALL, **options})


EVERY = pytest.mark.parametrize(
    ("kind", "y"),
    [(RNNClassifier, Y), (RNNRegressor, SUMS), (RNNTagger, TAGS)],
    ids=["classifier", "regressor", "tagger"],
)


def flat(predictions):
    return np.concatenate(predictions) if isinstance(predictions, list) else predictions


def outputs(model):
    """Everything a model predicts, as numbers."""
    return flat(model.predict_proba(X) if hasattr(model, "predict_proba") else model.predict(X))


@EVERY
def test_an_estimator_learns(kind, y):
    model = kind(hidden_size=24, learning_rate=0.02, random_state=0).fit(X, y)
    assert model.score(X, y) > 0.9
    assert model.n_iter_ == len(model.loss_curve_) == model.planned_epochs(len(X))
    assert model.loss_curve_[-1] < 0.5 * model.loss_curve_[0]
    assert model.validation_loss_curve_ == []


@EVERY
def test_the_same_random_state_gives_the_same_bits(kind, y):
    model = made(kind).fit(X, y)
    expected = outputs(model)
    assert_same_bits(outputs(made(kind).fit(X, y)), expected)
    assert_same_bits(outputs(clone(model).fit(X, y)), expected)
    assert_same_bits(outputs(model.fit(X, y)), expected)
    state = np.random.RandomState(0)
    assert_same_bits(outputs(made(kind, random_state=state).fit(X, y)), expected)
    assert (outputs(made(kind, random_state=1).fit(X, y)) != expected).any()
    threads = rnnfast.get_num_threads()
    try:
        rnnfast.set_num_threads(2 if threads == 1 else 1)
        assert_same_bits(outputs(made(kind).fit(X, y)), expected)
    finally:
        rnnfast.set_num_threads(threads)


@EVERY
@pytest.mark.parametrize("again", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_predicts_and_continues_with_the_same_bits(kind, y, again):
    model = made(kind, warm_start=True, dropout=0.2).fit(X, y)
    other = again(model)
    assert_same_bits(outputs(other), outputs(model))
    assert_same_bits(outputs(other.fit(X, y)), outputs(model.fit(X, y)))


@EVERY
@pytest.mark.parametrize("early_stopping", [False, True])
def test_a_stopped_fit_continues_to_the_same_bits(kind, y, early_stopping, tmp_path):
    options = {"max_epochs": 6, "dropout": 0.2, "early_stopping": early_stopping, "patience": 6}
    whole, file = made(kind, **options).fit(X, y), tmp_path / "training"

    def stop(record, model):
        assert model.n_iter_ == len(model.loss_curve_) == record["epoch"]
        if record["epoch"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made(kind, callbacks=[stop], **options).fit(X, y, checkpoint_file=file)
    seen = []
    resumed = made(kind, callbacks=[lambda record, model: seen.append(model.n_iter_)], **options)
    for new_epochs in ([4, 5, 6], []):  # a training that is complete has none
        seen.clear()
        resumed.fit(X, y, checkpoint_file=file, resume=True)
        assert seen == new_epochs
        assert_same_bits(outputs(resumed), outputs(whole))
        assert resumed.n_iter_ == 6
        assert resumed.loss_curve_ == whole.loss_curve_
        assert resumed.validation_loss_curve_ == whole.validation_loss_curve_
    # The next training has the same random numbers and the same state of the optimizer.
    again = [model.partial_fit(X, y) for model in (resumed, whole)]
    assert_same_bits(*map(outputs, again))
    assert again[0].loss_curve_ == again[1].loss_curve_


@EVERY
def test_a_fit_that_cannot_resume_is_refused(kind, y, tmp_path):
    file = tmp_path / "training"
    made(kind).fit(X, y, checkpoint_file=file)
    with pytest.raises(rnnfast.CheckpointError, match="hidden_size is 9 and not 8"):
        made(kind, hidden_size=9).fit(X, y, checkpoint_file=file, resume=True)
    with pytest.raises(rnnfast.CheckpointError, match="sequences has changed"):
        made(kind).fit(X[1:], y[1:], checkpoint_file=file, resume=True)
    with pytest.raises(ValueError, match="resume=True belongs to a run with checkpoint_file"):
        made(kind).fit(X, y, resume=True)
    with pytest.raises(ValueError, match=r"RNN\w+.fit: checkpoint_file belongs to warm_start=False"):
        made(kind, warm_start=True).fit(X, y, checkpoint_file=file)


@EVERY
def test_a_warm_start_continues(kind, y):
    model = made(kind, warm_start=True).fit(X, y)
    first = list(model.loss_curve_)
    network = model.network_
    model.fit(X, y)
    assert model.network_ is network
    assert model.loss_curve_[:4] == first
    assert model.n_iter_ == len(model.loss_curve_) == 8
    assert model.loss_curve_[-1] < first[-1]
    assert made(kind).fit(X, y).fit(X, y).n_iter_ == 4


@EVERY
def test_early_stopping_returns_to_the_best_epoch(kind, y):
    options = {"early_stopping": True, "validation_fraction": 0.25, "patience": 2, "max_epochs": 60}
    model = made(kind, learning_rate=0.1, **options).fit(X, y)
    losses = model.validation_loss_curve_
    assert len(losses) == model.n_iter_ < 60
    assert min(losses) not in losses[-2:]
    best = made(kind, learning_rate=0.1, **{**options, "max_epochs": int(np.argmin(losses)) + 1}).fit(X, y)
    assert_same_bits(outputs(model), outputs(best))


@EVERY
def test_weights_of_zero_leave_sequences_out(kind, y):
    weights = np.ones(len(X))
    weights[::3] = 0
    kept = np.flatnonzero(weights)
    changed = [x if weight else 100 * x for x, weight in zip(X, weights, strict=True)]
    actual = outputs(made(kind).fit(changed, y, sample_weight=weights))
    expected = outputs(made(kind).fit([X[i] for i in kept], [y[i] for i in kept]))
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


@EVERY
def test_callbacks_see_each_epoch_and_may_stop(kind, y, capsys):
    seen = []

    def stop(record, estimator):
        seen.append((record["epoch"], record["train_loss"], estimator.n_iter_))
        if len(seen) == 2:
            raise StopTraining

    model = made(kind, callbacks=[stop], verbose=1).fit(X, y)
    assert [(epoch, count) for epoch, _, count in seen] == [(1, 1), (2, 2)]
    assert [loss for _, loss, _ in seen] == model.loss_curve_
    assert [line[:13] for line in capsys.readouterr().out.splitlines()] == ["epoch 1: loss", "epoch 2: loss"]
    made(kind, verbose=1, early_stopping=True, max_epochs=1).fit(X, y)
    assert ", validation loss " in capsys.readouterr().out
    made(kind).fit(X, y)
    assert capsys.readouterr().out == ""


def test_a_callback_may_use_the_estimator():
    scores = []
    model = made(RNNClassifier, callbacks=[lambda record, estimator: scores.append(estimator.score(X, Y))])
    model.fit(X, Y)
    assert len(scores) == 4
    assert scores[-1] == model.score(X, Y)
    assert_same_bits(outputs(model), outputs(made(RNNClassifier).fit(X, Y)))


@EVERY
@pytest.mark.parametrize(
    "options",
    [
        {"cell": "lstm", "layers": 2, "bidirectional": True},
        {"cell": rnnfast.cells.li_gru, "dropout": 0.3},
        {"dtype": "float64", "clip_norm": None, "scale": False},
    ],
)
def test_the_options_of_the_network_reach_it(kind, y, options):
    model = made(kind, **options).fit(X, y)
    config = model.network_.config
    for name in {"layers", "bidirectional", "dropout", "dtype"} & set(options):
        assert config[name] == options[name]
    assert model.network_.body.recurrent[0].cell.name == getattr(
        options.get("cell", "gru"), "name", options.get("cell", "gru")
    )
    assert np.isfinite(outputs(model)).all()


# Classes.


def test_probabilities_and_decisions_agree_with_the_labels():
    three = np.array(["a", "b", "c"])[np.digitize(SUMS, [-1, 1])]
    model = made(RNNClassifier).fit(X, three)
    assert model.classes_.tolist() == ["a", "b", "c"]
    probabilities, decisions = model.predict_proba(X), model.decision_function(X)
    assert probabilities.shape == decisions.shape == (60, 3)
    np.testing.assert_allclose(np.log(probabilities), decisions, rtol=1e-10)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-12)
    assert (model.classes_[probabilities.argmax(axis=1)] == model.predict(X)).all()
    two = made(RNNClassifier).fit(X, Y)
    odds = np.diff(np.log(two.predict_proba(X)), axis=1)[:, 0]
    np.testing.assert_allclose(two.decision_function(X), odds, rtol=1e-8)


@pytest.mark.parametrize("labels", [[True, False], [3, 1], [0.5, 2.5], ["x", "y"]])
def test_labels_of_any_type_come_back(labels):
    y = np.array(labels)[(SUMS > 0).astype(int)]
    if y.dtype == float:
        y = y.astype(object).astype(str)  # numbers that are no whole numbers are targets of a regression
    predictions = made(RNNClassifier).fit(X, y).predict(X)
    assert predictions.dtype == y.dtype
    assert set(predictions) <= set(y)


def test_class_weights_move_the_answers():
    rare = np.where(np.quantile(SUMS, 0.85) < SUMS, "up", "down")
    counts = {}
    for weight in (None, "balanced", {"up": 50.0, "down": 1.0}):
        model = made(RNNClassifier, class_weight=weight, max_epochs=2).fit(X, rare)
        counts[str(weight)[:4]] = (model.predict(X) == "up").sum()
    assert counts["None"] < counts["bala"] < counts["{'up"]


def test_classes_come_in_parts():
    model = made(RNNClassifier)
    order = np.argsort(Y)  # the first part holds only one class
    for _ in range(6):
        for rows in np.array_split(order, 3):
            model.partial_fit([X[i] for i in rows], Y[rows], classes=["up", "down", "aside"])
    assert model.classes_.tolist() == ["aside", "down", "up"]
    assert model.n_iter_ == 18
    assert (model.predict(X) == Y).mean() > 0.6


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.partial_fit(X, Y), "classes must be passed on the first call"),
        (
            lambda m: m.partial_fit(X, Y, classes=["up", "left"]),
            "y holds 'down', a class that is not",
        ),
        (lambda m: m.fit(X, Y).partial_fit(X, Y, classes=["up"]), "classes must be those of the first call"),
        (lambda m: m.fit(X, Y).partial_fit(X, ["?"] * 60), "y holds '?', a class that is not"),
        (
            lambda m: m.set_params(class_weight="balanced").partial_fit(X, Y, ["up", "down"]),
            'class_weight="balanced" needs all labels at once; pass a dict of weights',
        ),
    ],
)
def test_wrong_classes_are_one_sentence(call, message):
    with pytest.raises(ValueError, match=r"^[^\n]*\.$") as error:
        call(made(RNNClassifier))
    assert message in str(error.value)


# Numbers.


def test_a_regression_does_not_depend_on_the_scale_of_the_targets():
    plain = made(RNNRegressor).fit(X, SUMS)
    large = made(RNNRegressor).fit(X, 1e6 * SUMS + 1e9)
    np.testing.assert_allclose(large.predict(X), 1e6 * plain.predict(X) + 1e9, rtol=1e-9)
    assert large.loss_curve_ == pytest.approx(plain.loss_curve_, rel=1e-4)


def test_a_regression_has_several_outputs_and_two_losses():
    several = np.stack([SUMS, -SUMS, np.ones(60)], axis=1)
    model = made(RNNRegressor, max_epochs=30).fit(X, several)
    assert model.n_outputs_ == 3
    predictions = model.predict(X)
    assert predictions.shape == (60, 3)
    assert np.corrcoef(predictions[:, 0], -predictions[:, 1])[0, 1] > 0.9
    np.testing.assert_allclose(predictions[:, 2], 1, atol=0.3)
    with pytest.raises(ValueError, match="the targets in y and in the first fit must be equal, got 1 and 3"):
        model.partial_fit(X, SUMS)
    wild = SUMS.copy()
    wild[:3] = 1e4
    errors = {}
    for loss in ("squared_error", "absolute_error"):
        found = made(RNNRegressor, loss=loss, max_epochs=30).fit(X, wild).predict(X)
        errors[loss] = np.median(np.abs(found - wild))
    assert errors["absolute_error"] < errors["squared_error"]


def test_a_regression_learns_in_parts():
    model = made(RNNRegressor)
    for _ in range(20):
        model.partial_fit(X, SUMS)
    assert model.score(X, SUMS) > 0.8


# Labels of steps.


def test_tags_have_the_form_of_the_sequences():
    model = made(RNNTagger).fit(X, TAGS)
    lists = model.predict(X)
    assert [len(labels) for labels in lists] == [len(x) for x in X]
    assert [p.shape for p in model.predict_proba(X)] == [(len(x), 2) for x in X]
    assert [p.shape for p in model.decision_function(X)] == [(len(x),) for x in X]
    table, tags = rectangle(X), np.array([labels[:4] for labels in TAGS])
    model = made(RNNTagger).fit(table, tags)
    assert model.predict(table).shape == (60, 4)
    assert model.predict_proba(table).shape == (60, 4, 2)
    assert model.predict(table[:, :, 0] if model.n_channels_ == 1 else table).tolist() == [
        labels.tolist() for labels in model.predict(list(table))
    ]
    assert model.score(table, tags) == (model.predict(table) == tags).mean()


def test_the_score_of_tags_is_weighted():
    model = made(RNNTagger).fit(X, TAGS)
    right = [(found == tags).mean() for found, tags in zip(model.predict(X), TAGS, strict=True)]
    weights = np.zeros(60)
    weights[4] = 3
    assert model.score(X, TAGS, sample_weight=weights) == pytest.approx(right[4])


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (Y, "y must be 60 sequences of labels (T_i,), got single labels"),
        (TAGS[:5], "y must be 60 sequences of labels (T_i,), got 5 sequences"),
        ([TAGS[0][:1], *TAGS[1:]], f"y[0] must have {len(X[0])} steps like its sequence, got 1"),
        (None, "RNNTagger.fit requires y to be passed, but the target y is None"),
    ],
)
def test_wrong_tags_are_one_sentence(y, message):
    with pytest.raises(ValueError, match=r"^[^\n]*\.$") as error:
        made(RNNTagger).fit(X, y)
    assert message in str(error.value)


def test_a_refused_fit_leaves_the_estimator_as_it_was():
    model = made(RNNClassifier, max_epochs=2).fit(X, Y)
    before, classes = model.predict_proba(X), model.classes_
    with pytest.raises(ValueError, match="weight"):
        model.fit(X, np.arange(len(X)) % 3, sample_weight=np.zeros(len(X)))
    np.testing.assert_array_equal(model.predict_proba(X), before)
    np.testing.assert_array_equal(model.classes_, classes)
