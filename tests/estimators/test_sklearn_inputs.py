"""The forms of sequences that estimators read, missing values, and bad input."""

import warnings

import numpy as np
import pytest

pytest.importorskip("sklearn")

from helpers import assert_same_bits
from sklearn.exceptions import NotFittedError
from sklearn_helpers import SMALL, rectangle, sequences

from rnnfast.sklearn import RNNClassifier, RNNRegressor, RNNTagger
from rnnfast.sklearn.inputs import Scaling

X, Y = sequences()


def objects(arrays):
    result = np.empty(len(arrays), object)
    result[:] = arrays
    return result


def test_all_forms_of_the_same_sequences_give_the_same_bits():
    table = rectangle(X, 4)
    expected = RNNClassifier(**SMALL).fit(table, Y).predict_proba(table)
    for form in (list(table), tuple(table), objects(list(table)), [x.tolist() for x in table]):
        model = RNNClassifier(**SMALL).fit(form, Y)
        assert_same_bits(model.predict_proba(form), expected)
        assert_same_bits(model.predict_proba(table), expected)
        assert not hasattr(model, "n_features_in_")
    one = table[:, :, 0]
    expected = RNNClassifier(**SMALL).fit(one, Y).predict_proba(one)
    for form in (one[..., np.newaxis], list(one[..., np.newaxis]), one.tolist()):
        assert_same_bits(RNNClassifier(**SMALL).fit(form, Y).predict_proba(form), expected)


def test_sequences_of_one_channel_may_be_flat_and_differ_in_length():
    flat = [x[:, 0] for x in X]
    model = RNNClassifier(**SMALL).fit(flat, Y)
    expected = model.predict_proba(flat)
    assert_same_bits(model.predict_proba([x[:, :1] for x in X]), expected)
    assert_same_bits(model.predict_proba(flat[:1]), expected[:1])


def test_other_sequences_and_their_order_change_no_bit():
    model = RNNClassifier(**SMALL).fit(X, Y)
    expected = model.predict_proba(X)
    order = np.random.default_rng(1).permutation(len(X))
    assert_same_bits(model.predict_proba([X[i] for i in order]), expected[order])
    assert_same_bits(model.predict_proba(X[7:8]), expected[7:8])


def test_features_are_the_columns_of_a_table():
    table = rectangle(X, 4)[:, :, 0]
    model = RNNClassifier(**SMALL).fit(table, Y)
    assert (model.n_features_in_, model.n_channels_) == (4, 1)
    with pytest.raises(ValueError, match="X has 3 features, but RNNClassifier is expecting 4 features"):
        model.predict(table[:, :3])
    model.fit(X, Y)  # the features of the table are forgotten
    assert not hasattr(model, "n_features_in_")
    assert model.n_channels_ == 2


def test_float32_stays_float32_and_large_offsets_lose_nothing():
    table = rectangle(X, 4) + 1e4
    model = RNNClassifier(**SMALL).fit(table, Y)
    assert model.scaling_.mean == pytest.approx(table.mean(axis=(0, 1)), rel=1e-12)
    single = RNNClassifier(**SMALL).fit(table.astype(np.float32), Y)
    assert single.scaling_.mean == pytest.approx(table.mean(axis=(0, 1)), rel=1e-6)


# Missing values.


def test_a_missing_value_is_the_mean_with_a_flag():
    values = np.array([[1.0, 5.0], [np.nan, 7.0], [3.0, 6.0]])
    scaling = Scaling.of(values, np.ones(3))
    assert scaling.mean.tolist() == [2.0, 6.0]
    assert scaling.flagged.tolist() == [True, False]
    scaled = scaling.apply(np.array([[np.nan, 6.0], [4.0, np.nan]]), np.dtype(np.float64))
    assert scaled.tolist() == [[0.0, 0.0, 0.0], [2.0, 0.0, 1.0]]


def test_scales_are_weighted_and_constant_or_unobserved_channels_stay():
    values = np.array([[1.0, 0.1, np.nan], [2.0, 0.1, np.nan], [3.0, 0.1, np.nan]])
    twice = Scaling.of(values[[0, 0, 1, 2]], np.ones(4))
    weighted = Scaling.of(values, np.array([2.0, 1.0, 1.0]))
    for actual, expected in zip(weighted, twice, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-15)
    assert weighted.scale[1:].tolist() == [1.0, 1.0]
    assert weighted.mean[2] == 0
    known = Scaling.of(values[:, :2], np.ones(3))
    np.testing.assert_allclose(known.undo(known.apply(values[:, :2], np.dtype(np.float64))), values[:, :2])
    off = Scaling.of(values, np.ones(3), active=False)
    assert (off.mean.tolist(), off.scale.tolist()) == ([0.0] * 3, [1.0] * 3)


def test_a_classifier_learns_from_what_is_observed():
    rng = np.random.default_rng(2)
    table = np.ones((80, 5, 2))
    table[:, :, 1] = rng.normal(size=(80, 5))
    y = np.arange(80) % 2
    table[y == 1, 3, 0] = np.nan  # the only difference
    table[7] = np.nan  # nothing observed is a sequence too
    model = RNNClassifier(hidden_size=8, learning_rate=0.02, random_state=0).fit(table, y)
    assert model.network_.config["input_size"] == 4
    assert (model.predict(table) == y)[np.arange(80) != 7].all()
    assert np.isfinite(model.predict_proba(np.full((1, 5, 2), np.nan))).all()


def masked(array):
    """A masked array with garbage in a third of its entries, and the same with NaN there."""
    mask = np.random.default_rng(3).random(array.shape) < 1 / 3
    return np.ma.array(np.where(mask, 1e6, array), mask=mask), np.where(mask, np.nan, array)


@pytest.mark.parametrize(
    "form",
    [lambda a: a, lambda a: a[..., 0], list, lambda a: [x[: 2 + i % 3] for i, x in enumerate(a)]],
    ids=["array", "table", "list", "unequal"],
)
def test_masked_values_are_not_observed(form):
    hidden, missing = map(form, masked(rectangle(X)))
    model = RNNClassifier(**SMALL).fit(hidden, Y)
    expected = RNNClassifier(**SMALL).fit(missing, Y).predict_proba(missing)
    assert_same_bits(model.predict_proba(hidden), expected)
    assert model.score(hidden, Y) == model.score(missing, Y)


@pytest.mark.parametrize("name", ["y", "sample_weight", "classes"])
@pytest.mark.parametrize("estimator", [RNNClassifier, RNNRegressor, RNNTagger])
def test_what_must_be_known_is_not_masked(estimator, name):
    table, y = rectangle(X), np.arange(60) % 2
    if estimator is RNNTagger:
        y = np.repeat(y[:, np.newaxis], 4, axis=1)
    model, at = estimator(**SMALL).fit(table, y), (5,) * y.ndim
    hidden = np.ma.array(y, mask=np.zeros(y.shape, bool))
    assert_same_bits(model.fit(table, hidden).predict(table), model.fit(table, y).predict(table))
    hidden[(5, 1)[: y.ndim]] = np.ma.masked
    weights = np.ma.array(np.ones(60), mask=np.arange(60) == 5)
    calls = {
        "y": [lambda: model.fit(table, hidden), lambda: model.score(table, hidden)],
        "sample_weight": [lambda: model.fit(table, y, weights), lambda: model.score(table, y, weights)],
        "classes": [lambda: estimator().partial_fit(table, y, classes=np.ma.array([0, 1], mask=[0, 1]))],
    }[name if name != "classes" or estimator is not RNNRegressor else "y"]
    place = {"y": r"\(5, 1\)" if len(at) > 1 else "5", "sample_weight": "5", "classes": "1|5"}[name]
    for call in calls:
        with pytest.raises(
            ValueError, match=rf"^{estimator.__name__}\.\w+: \w+ is masked at ({place}), [^\n]*\.$"
        ):
            call()


@pytest.mark.parametrize("factor", [2.0**660, 2.0**990, 2.0**-660, 2.0**-1030])
def test_very_large_and_very_small_values_change_no_bit(factor):
    table, y = rectangle(X).round(3), np.arange(60.0) % 7
    if factor < 2.0**-1000:  # few digits are left: take numbers that have few
        table = np.round(table * 8) / 8
    one, same = (RNNClassifier(**SMALL).fit(table * k, Y).predict_proba(table * k) for k in (1.0, factor))
    assert_same_bits(one, same)
    tags = (table[..., 0] > 0).astype(int)
    one, same = (RNNTagger(**SMALL).fit(table * k, tags).predict_proba(table * k) for k in (1.0, factor))
    assert_same_bits(one, same)
    one, same = (RNNRegressor(**SMALL).fit(table, y * k).predict(table) for k in (1.0, factor))
    np.testing.assert_allclose(same / factor, one, rtol=1e-4 if factor < 2.0**-1000 else 1e-15)
    weights = np.linspace(1, 2, 60)
    one, same = (
        RNNClassifier(**SMALL).fit(table, Y, weights * k).predict_proba(table) for k in (1.0, factor)
    )
    np.testing.assert_allclose(same, one, rtol=1e-6)


@pytest.mark.parametrize("constant", [1e17, 1e200, -1e300])
def test_huge_constants_are_constants(constant):
    table = np.full((60, 4, 1), constant)
    assert np.isfinite(RNNClassifier(**SMALL).fit(table, Y).predict_proba(table)).all()
    assert np.allclose(RNNRegressor(**SMALL).fit(table, table[:, 0, 0]).predict(table), constant)


def frames():
    """Tables of pandas and polars, and the array that each holds."""
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    table = rectangle(X)[..., 0]
    gaps = np.where(table > 1, np.nan, table)
    frame = pandas.DataFrame(table, columns=list("abcd"))
    return {
        "pandas": (frame, table),
        "index twice": (frame.set_axis([0] * 60), table),
        "levels of columns": (frame.set_axis(pandas.MultiIndex.from_product([[0, 1]] * 2), axis=1), table),
        "Float64 with NA": (frame.astype("Float64").mask(frame > 1), gaps),
        "objects with None": (frame.astype(object).mask(frame > 1, None), gaps),
        "Series of arrays": (pandas.Series(list(table)), table),
        "list of frames with NA": ([pandas.DataFrame({"a": x}).convert_dtypes() for x in gaps], gaps),
        "polars": (polars.DataFrame(table), table),
        "null": (polars.DataFrame(gaps).with_columns(polars.all().fill_nan(None)), gaps),
        "lists with None": ([[None if v != v else v for v in x] for x in gaps.tolist()], gaps),
    }


@pytest.mark.parametrize("kind", list("0123456789"))
def test_frames_are_read_as_their_arrays(kind):
    given, array = list(frames().values())[int(kind)]
    actual = RNNClassifier(**SMALL).fit(given, Y).predict_proba(given)
    assert_same_bits(actual, RNNClassifier(**SMALL).fit(array, Y).predict_proba(array))


def test_frames_that_are_no_numbers_are_refused_in_one_sentence():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(rectangle(X)[..., 0], columns=list("abcd"))
    na = pandas.Series(pandas.array([pandas.NA, *Y[1:]], dtype="string"))
    for X_, y, words in (
        (frame.assign(b=pandas.Timestamp("2024-01-01")), Y, "got Timestamp.* at row 0, column 'b'"),
        (frame.astype("datetime64[s]"), Y, "got Timestamp.* at row 0, column 'a'"),
        (frame.assign(b=pandas.Categorical(["u"] * 60)), Y, "got 'u' at row 0, column 'b'"),
        (frame.astype(object).mask(frame == frame.iloc[0], pandas.NA), Y, "got <NA> at row 0, column 'a'"),
        (frame, na, "another missing label: <NA> at 0"),
    ):
        with pytest.raises(ValueError, match=rf"^RNNClassifier\.fit: [^\n]*{words}[^\n]*\.$"):
            RNNClassifier(**SMALL).fit(X_, y)
    numbers = pandas.Series(pandas.array(np.arange(60) % 2, dtype="Int64"))
    assert RNNClassifier(**SMALL).fit(frame, numbers).predict(frame).dtype.kind == "i"


def test_a_channel_without_gaps_in_training_has_no_flag():
    model = RNNClassifier(**SMALL).fit(X, Y)
    assert model.network_.config["input_size"] == 2
    gap = X[0].copy()
    gap[1] = np.nan
    assert np.isfinite(model.predict_proba([gap])).all()


# Bad input.


def empty_at(index):
    return [x[:0] if i == index else x for i, x in enumerate(X)]


def changed(index, step, value):
    copies = [x.copy() for x in X]
    copies[index][step, 1] = value
    return copies


FITTED = RNNClassifier(**SMALL).fit(X, Y)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: FITTED.fit(empty_at(3), Y),
            "fit: X[3] has no steps; leave empty sequences out",
        ),
        (lambda: FITTED.predict(empty_at(0)), "RNNClassifier.predict: X[0] has no steps"),
        (lambda: FITTED.fit([*X[:-1], X[0][:, :1]], Y), "X[59] must be (T, 2) like X[0], got"),
        (lambda: FITTED.predict([x[:, :1] for x in X]), "X[0] must be (T, 2) as in fit, got 1 channels"),
        (lambda: FITTED.predict(rectangle(X)[:, :, :1]), "X[0] must be (T, 2) as in fit, got 1 channels"),
        (lambda: FITTED.fit(changed(5, 2, np.inf), Y), "X holds inf in sequence 5 at step 2"),
        (lambda: FITTED.predict(changed(59, 3, -np.inf)), "X holds inf in sequence 59 at step 3"),
        (
            lambda: FITTED.fit([*X[:-1], [[1.0], [2.0, 3.0]]], Y),
            "X[59] must be numbers (T, D) or (T,), got",
        ),
        (
            lambda: FITTED.fit([*X[:-1], [["a", "b"]]], Y),
            "X[59] must hold numbers, got 'a' at step 0, channel 0",
        ),
        (
            lambda: FITTED.fit([["abc", 1], [2, 3]], [0, 1]),
            "fit: X[0] must hold numbers, got 'abc' at step 0",
        ),
        (
            lambda: FITTED.fit(np.array([[1, "abc"], [2, 3]], object), [0, 1]),
            "fit: X must hold numbers, got 'abc' at row 0, column 1; encode texts and dates as numbers",
        ),
        (lambda: FITTED.fit(rectangle(X) * 1j, Y), "X must hold numbers, got (-0"),
        (lambda: FITTED.fit(rectangle(X).astype("M8[s]"), Y), "X must hold numbers, got datetime"),
        (
            lambda: FITTED.fit([x.astype("M8[ns]") for x in X], Y),
            "X[0] must hold numbers, got datetime64[ns]",
        ),
        (lambda: FITTED.fit(rectangle(X)[..., 0].astype("M8[s]"), Y), "X must hold numbers, got datetime"),
        (lambda: FITTED.fit(X, [None, *Y[1:]]), "fit: Input y contains NaN, or another missing label: None"),
        (lambda: RNNRegressor().fit(X, ["abc"] * 60), "RNNRegressor.fit: y must hold numbers, got 'abc' at"),
        (lambda: RNNRegressor().fit(X, np.zeros(60, "M8[s]")), "y must hold numbers, got datetime"),
        (lambda: FITTED.fit(changed(5, 2, 1e301), Y), "X holds 1e+301 (above 1e+300 in size) in sequence 5"),
        (
            lambda: FITTED.predict(changed(5, 2, 1e200)),
            "X holds 1e+200 in sequence 5 at step 2, too far from",
        ),
        (lambda: RNNClassifier(scale=False).fit(changed(5, 2, 1e200), Y), "X holds 1e+200 in sequence 5"),
        (lambda: RNNRegressor().fit(X, np.full(60, 1e301)), "y holds 1e+301 at 0"),
        (lambda: FITTED.fit(np.zeros((0, 5, 2)), Y[:0]), "X must not be empty, got (0, 5, 2)"),
        (lambda: FITTED.fit(X, Y, sample_weight=np.ones(3)), "sample_weight must be (60,), got (3,)"),
        (
            lambda: FITTED.fit(X, Y, -np.ones(60)),
            "must be finite and at least 0, got -1.0 at 0",
        ),
        (lambda: FITTED.fit(X, Y, np.zeros(60)), "all sample weights are zero"),
        (lambda: FITTED.fit(X, ["up"] * 60), "at least two classes are needed, got 1 class"),
        (lambda: RNNClassifier(batch_size=0).fit(X, Y), "batch_size must be at least 1, got 0"),
        (lambda: RNNClassifier(hidden_size=0).fit(X, Y), "RNNClassifier.fit: hidden_size must be at least 1"),
        (lambda: RNNClassifier(dropout=1).fit(X, Y), "fit: dropout must be at least 0 and below 1, got 1"),
        (lambda: RNNClassifier(learning_rate=0).fit(X, Y), "fit: learning_rate must be above 0"),
        (
            lambda: RNNClassifier(pooling="first").fit(X, Y),
            "must be one of last, mean, max, got 'first'",
        ),
        (lambda: RNNClassifier(pooling=None).fit(X, Y), "must be one of last, mean, max, got None"),
        (lambda: RNNClassifier(cell="tree").fit(X, Y), "cell must be one of"),
        (
            lambda: RNNClassifier(validation_fraction=1).fit(X, Y),
            "validation_fraction must lie between",
        ),
        (
            lambda: RNNRegressor(loss="huber").fit(X, np.ones(60)),
            "loss must be one of squared_error, absol",
        ),
    ],
)
def test_bad_input_is_one_sentence(call, message):
    with pytest.raises(ValueError, match=r"^[^\n]*\.$") as error:
        call()
    assert message in str(error.value)


def test_a_failed_call_leaves_a_fitted_estimator_usable():
    model = RNNClassifier(**SMALL).fit(X, Y)
    expected = model.predict_proba(X)
    for wrong in ((empty_at(3), Y), (X, np.arange(60) % 1), (X, [None, *Y[1:]]), (X[0], Y)):
        with pytest.raises((TypeError, ValueError)):
            model.fit(*wrong)
        assert_same_bits(model.predict_proba(X), expected)
    assert model.classes_.tolist() == ["down", "up"]


@pytest.mark.parametrize("method", ["predict", "predict_proba", "decision_function"])
def test_an_estimator_that_is_not_fitted_says_so(method):
    with pytest.raises(NotFittedError, match="This RNNClassifier instance is not fitted yet"):
        getattr(RNNClassifier(), method)(X)
    with pytest.raises(NotFittedError, match="This RNNRegressor instance is not fitted yet"):
        RNNRegressor().predict(X)


def test_swapped_axes_are_a_warning():
    table = rectangle(X, 4)
    with pytest.warns(UserWarning, match=r"of 2 steps with 4 channels; the axis order is \(N, T, D\)"):
        model = RNNClassifier(**SMALL).fit(table.transpose(0, 2, 1), Y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.predict(table.transpose(0, 2, 1))
