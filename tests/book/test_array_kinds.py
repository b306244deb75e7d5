"""Arrays of other classes than `numpy.ndarray`: refused in one sentence, or taken for what they hold."""

import numpy as np
import pytest

import rnnfast
from rnnfast import optim, time_layers

XS = np.random.default_rng(0).standard_normal((2, 5, 4))
W, B = np.random.default_rng(1).standard_normal((4, 3)), np.arange(3.0)
LABELS = np.array([[0, 1, 2, 1, 0], [2, 2, 1, 0, 0]])
PROBA = time_layers.softmax(XS[0])


def passed(layer, xs, *dys):
    return [layer.forward(xs), layer.backward(*dys), *(np.array(grad) for grad in layer.grads)]


def loss(layer, xs, ts):
    return [layer.forward(xs, ts), layer.backward(), *(np.array(grad) for grad in layer.grads)]


def updated(optimizer, param, grad):
    for _ in range(3):
        optimizer.update([param], [grad])
    return [np.array(param)]


def clipped(grad):
    return [optim.clip_by_norm([grad], 1.0), optim.global_norm([grad]), optim.all_finite([grad]), grad]


# What takes an array, given it as another class; the arrays are copies, since updates write into them.
CASES = {
    "TimeAffine, W": lambda k: passed(rnnfast.TimeAffine(k(W), k(B)), XS, np.ones((2, 5, 3))),
    "TimeAffine, b": lambda k: passed(rnnfast.TimeAffine(W, k(B)), XS, np.ones((2, 5, 3))),
    "TimeAffine, x": lambda k: passed(rnnfast.TimeAffine(W, B), k(XS), np.ones((2, 5, 3))),
    "TimeAffine, dout": lambda k: passed(rnnfast.TimeAffine(W, B), XS, k(np.ones((2, 5, 3)))),
    "TimeEmbedding, W": lambda k: passed(rnnfast.TimeEmbedding(k(W)), LABELS, np.ones((2, 5, 3))),
    "TimeEmbedding, xs": lambda k: passed(rnnfast.TimeEmbedding(W), k(LABELS), np.ones((2, 5, 3))),
    "TimeEmbedding, dhs": lambda k: passed(rnnfast.TimeEmbedding(W), LABELS, k(np.ones((2, 5, 3)))),
    "TimeContextSum, W": lambda k: passed(rnnfast.TimeContextSum(k(W), 2), LABELS, np.ones((2, 5, 3))),
    "TimeContextSum, xs": lambda k: passed(rnnfast.TimeContextSum(W, 2), k(LABELS), np.ones((2, 5, 3))),
    "TimeDropout, xs": lambda k: rnnfast.TimeDropout(0.5, rng=np.random.default_rng(0)).forward(k(XS)),
    "TimeSoftmaxWithLoss, xs": lambda k: loss(rnnfast.TimeSoftmaxWithLoss(), k(XS), LABELS),
    "TimeSoftmaxWithLoss, ts": lambda k: loss(rnnfast.TimeSoftmaxWithLoss(), XS, k(LABELS)),
    "TimeSoftmaxWithLoss, one-hot": lambda k: loss(rnnfast.TimeSoftmaxWithLoss(), XS, k(np.eye(4)[LABELS])),
    "TimeAffineSoftmaxWithLoss": lambda k: loss(rnnfast.TimeAffineSoftmaxWithLoss(k(W), B), XS, LABELS),
    "TimeAffineSoftmaxWithLoss, ts": lambda k: loss(rnnfast.TimeAffineSoftmaxWithLoss(W, B), XS, k(LABELS)),
    "TimeSigmoidWithLoss, xs": lambda k: loss(rnnfast.TimeSigmoidWithLoss(), k(XS[..., 0]), LABELS % 2),
    "TimeSigmoidWithLoss, ts": lambda k: loss(rnnfast.TimeSigmoidWithLoss(), XS[..., 0], k(LABELS % 2)),
    "TimeAffineSquaredLoss, W": lambda k: loss(rnnfast.TimeAffineSquaredLoss(k(W), B), XS, XS[..., :3]),
    "TimeAffineSquaredLoss, ts": lambda k: loss(rnnfast.TimeAffineSquaredLoss(W, B), XS, k(XS[..., :3])),
    "lengths": lambda k: rnnfast.TimeAffineSquaredLoss(W, B).forward(
        XS, XS[..., :3], lengths=k(np.array([2, 5]))
    ),
    "MatMul, W": lambda k: passed(time_layers.MatMul(k(W)), XS[0], np.ones((5, 3))),
    "MatMul, x": lambda k: passed(time_layers.MatMul(W), k(XS[0]), np.ones((5, 3))),
    "softmax": lambda k: time_layers.softmax(k(XS[0])),
    "sigmoid": lambda k: time_layers.sigmoid(k(XS[0])),
    "Softmax": lambda k: time_layers.Softmax().forward(k(XS[0])),
    "Sigmoid": lambda k: time_layers.Sigmoid().forward(k(XS[0])),
    "cross_entropy_error, y": lambda k: time_layers.cross_entropy_error(k(PROBA), LABELS[0]),
    "cross_entropy_error, t": lambda k: time_layers.cross_entropy_error(PROBA, k(LABELS[0])),
    "cross_entropy_error, one-hot": lambda k: time_layers.cross_entropy_error(PROBA, k(np.eye(4)[LABELS[0]])),
    "SoftmaxWithLoss, t": lambda k: time_layers.SoftmaxWithLoss().forward(XS[0], k(LABELS[0])),
    "SigmoidWithLoss, x": lambda k: time_layers.SigmoidWithLoss().forward(k(XS[0, :, 0]), LABELS[0] % 2),
    "SigmoidWithLoss, t": lambda k: time_layers.SigmoidWithLoss().forward(XS[0, :, 0], k(LABELS[0] % 2)),
    "Dropout": lambda k: time_layers.Dropout(0.0).forward(k(XS[0])),
    "Embedding, idx": lambda k: time_layers.Embedding(W).forward(k(LABELS)),
    "Embedding, dout": lambda k: passed(time_layers.Embedding(W), LABELS, k(np.ones((2, 5, 3)))),
    "SGD, param": lambda k: updated(optim.SGD(lr=0.1), k(W), np.ones_like(W)),
    "Adam, param": lambda k: updated(optim.Adam(lr=0.1), k(W), np.ones_like(W)),
    "Adam, grad": lambda k: updated(optim.Adam(lr=0.1), W.copy(), k(W)),
    "gradients": lambda k: clipped(k(W)),
    "merge_shared": lambda k: optim.merge_shared([k(W)], [np.ones_like(W)])[0],
}


def arrays(results):
    return [np.asarray(value) for value in (results if isinstance(results, list) else [results])]


@pytest.mark.parametrize("case", CASES)
def test_masked_arrays_and_matrices_are_refused(case):
    kinds = {
        "masked array": lambda array: np.ma.array(array.copy()),
        "matrix": lambda array: (array[0] if array.ndim == 3 else array).copy().view(np.matrix),
    }
    for name, kind in kinds.items():
        with pytest.raises(
            TypeError, match=rf"^[\w.]+: \S+ must be a plain NumPy array, got a {name}; .*\.$"
        ):
            CASES[case](kind)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", [type("Own", (np.ndarray,), {}), np.recarray], ids=["own", "recarray"])
def test_other_classes_are_taken_for_what_they_hold(case, kind):
    expected = arrays(CASES[case](np.copy))
    for actual, array in zip(arrays(CASES[case](lambda a: a.copy().view(kind))), expected, strict=True):
        np.testing.assert_array_equal(actual, array)


def test_what_is_no_array_is_refused_in_one_sentence():
    for call, message in (
        (lambda: time_layers.softmax([1.0]), "softmax: x must be a NumPy array, got list"),
        (lambda: time_layers.sigmoid(None), "sigmoid: x must hold numbers, got object"),
        (lambda: time_layers.cross_entropy_error([1.0], [0]), "cross_entropy_error: y must be a NumPy array"),
        (lambda: rnnfast.TimeDropout().forward("xs"), r"TimeDropout\.forward: xs must be a NumPy array"),
    ):
        with pytest.raises(TypeError, match=f"^{message}"):
            call()
    with pytest.raises(ValueError, match=r"^SoftmaxWithLoss\.forward: t must be \(5,\), got \(\)"):
        time_layers.SoftmaxWithLoss().forward(XS[0], np.array(1))
    layer = time_layers.Embedding(W)
    layer.forward(LABELS)
    with pytest.raises(ValueError, match=r"^Embedding\.backward: dout must be \(2, 5, 3\), got"):
        layer.backward(np.ones((2, 5, 2)))


@pytest.mark.parametrize("kind", ["pandas", "polars", "list"])
def test_what_holds_numbers_is_refused_with_the_way(kind):
    if kind == "list":
        value, way = XS[0].tolist(), r"list; pass np\.array\(xs, np\.float32\)"
    else:
        value = pytest.importorskip(kind).DataFrame(XS[0])
        way = r"DataFrame; pass xs\.to_numpy\(" + (
            r"np\.float32\)" if kind == "pandas" else r"\)\.astype\(np\.float32\)"
        )
    with pytest.raises(TypeError, match=rf"^TimeLSTM\.forward: xs must be a NumPy array, got {way}\.$"):
        rnnfast.TimeLSTM.from_sizes(4, 3).forward(value)


def test_masked_entries_are_refused_where_each_is_needed():
    hidden = np.ma.array(np.ones((2, 3)), mask=[[0, 1, 0], [0, 0, 0]])
    head, sequences = rnnfast.heads.gaussian, (XS, XS[..., :1])
    trainer = rnnfast.Trainer(rnnfast.SequenceRegressor(4, 3, 1, dtype=np.float64), optim.SGD(lr=0.1))
    for call, message in (
        (lambda: rnnfast.State((hidden,)), r"State: an array is masked at \(0, 1\)"),
        (lambda: head.values(hidden[:, :2]), r"gaussian\.values: scores is masked at \(0, 1\)"),
        (lambda: head.quantile(hidden[:, :2], 0.5), r"gaussian\.quantile: scores is masked at \(0, 1\)"),
        (
            lambda: trainer.fit(
                rnnfast.data.Sequences(*sequences, None, hidden[:, 0]), epochs=1, batch_size=2
            ),
            "weights must be a plain NumPy array, got a masked array",
        ),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            call()
