"""With `np.seterr(all="raise")` nothing raises where a number is too small for a float and 0 is right."""

import numpy as np
import pytest
from helpers import DTYPES, needs_jit

import rnnfast
from rnnfast import CBOWLM, RNNLM, ExactBPTT, SequenceRegressor, Trainer, TruncatedBPTT, optim, time_layers
from rnnfast.models.language_model import probabilities

pytestmark = needs_jit  # kernels in plain Python are NumPy, which counts their underflow

LABELS = np.random.default_rng(0).integers(0, 4, (2, 5))


def values(dtype, scale):
    """Ordinary numbers, and numbers of another size among them, (2, 5, 4)."""
    rng = np.random.default_rng(1)
    xs = rng.standard_normal((2, 5, 4))
    with np.errstate(all="ignore"):
        return np.where(rng.random(xs.shape) < 0.5, xs, xs * scale).astype(dtype)


def small(dtype):
    """A number near the smallest that is not denormal."""
    return float(np.finfo(dtype).tiny) * 3


def affine(dtype):
    return np.random.default_rng(2).standard_normal((4, 4)).astype(dtype), np.zeros(4, dtype)


LOSSES = {
    "TimeSoftmaxWithLoss": lambda xs: (rnnfast.TimeSoftmaxWithLoss(), xs, LABELS),
    "TimeSigmoidWithLoss": lambda xs: (rnnfast.TimeSigmoidWithLoss(), xs[..., 0].copy(), LABELS % 2),
    "TimeAffineSoftmaxWithLoss": lambda xs: (
        rnnfast.TimeAffineSoftmaxWithLoss(*affine(xs.dtype)),
        xs,
        LABELS,
    ),
    "TimeAffineSquaredLoss": lambda xs: (rnnfast.TimeAffineSquaredLoss(*affine(xs.dtype)), xs, xs.copy()),
    "SoftmaxWithLoss": lambda xs: (time_layers.SoftmaxWithLoss(), xs[0], LABELS[0]),
    "SigmoidWithLoss": lambda xs: (time_layers.SigmoidWithLoss(), xs[0, :, 0], LABELS[0] % 2),
}
LAYERS = {
    "TimeRNN": lambda xs: (rnnfast.TimeRNN.from_sizes(4, 3, dtype=xs.dtype), xs),
    "TimeLSTM": lambda xs: (rnnfast.TimeLSTM.from_sizes(4, 3, dtype=xs.dtype), xs),
    "TimeGRU": lambda xs: (rnnfast.TimeGRU.from_sizes(4, 3, dtype=xs.dtype), xs),
    "TimeBiLSTM": lambda xs: (
        rnnfast.Bidirectional(*(rnnfast.TimeLSTM.from_sizes(4, 3, dtype=xs.dtype) for _ in range(2))),
        xs,
    ),
    "TimeAffine": lambda xs: (rnnfast.TimeAffine(*affine(xs.dtype)), xs),
    "TimeDropout": lambda xs: (rnnfast.TimeDropout(0.5), xs),
    "locked": lambda xs: (rnnfast.TimeDropout(0.5, per_step=False), xs),
    "TimeEmbedding": lambda xs: (rnnfast.TimeEmbedding(xs[0]), LABELS),
    "TimeContextSum": lambda xs: (rnnfast.TimeContextSum(xs[0].copy(), 3), LABELS),
    "MatMul": lambda xs: (time_layers.MatMul(affine(xs.dtype)[0]), xs[0]),
    "Softmax": lambda xs: (time_layers.Softmax(), xs[0]),
    "Sigmoid": lambda xs: (time_layers.Sigmoid(), xs[0]),
    "Dropout": lambda xs: (time_layers.Dropout(0.3), xs[0]),
    "book's TimeDropout": lambda xs: (time_layers.TimeDropout(0.3), xs),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LOSSES)
def test_losses_of_large_and_of_tiny_scores_raise_nothing(name, dtype):
    for scale in (1.0, 200.0, 1e4, 1e10, 1e-20, small(dtype)):
        layer, xs, ts = LOSSES[name](values(dtype, scale))
        with np.errstate(all="raise"):
            assert np.isfinite(layer.forward(xs, ts))
            for dout in (1.0, 0.3, 1e-30):
                assert np.isfinite(layer.backward(dout)).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LAYERS)
def test_layers_raise_nothing(name, dtype):
    for scale in (1.0, 200.0, 1e4, 1e-20, small(dtype)):
        layer, xs = LAYERS[name](values(dtype, scale))
        with np.errstate(all="raise"):
            ys = layer.forward(xs)
            assert np.isfinite(ys).all()
            for dys in (np.ones_like(ys), ys.copy()):
                layer.backward(dys)
        assert all(np.isfinite(grad).all() for grad in layer.grads)


@pytest.mark.parametrize("dtype", DTYPES)
def test_functions_raise_nothing(dtype):
    for scale in (200.0, 1e4, float(np.finfo(dtype).max) / 10, small(dtype)):
        xs = values(dtype, scale)
        with np.errstate(all="raise"):
            proba = time_layers.softmax(xs[0])
            assert np.isfinite(time_layers.sigmoid(xs)).all()
            assert np.isfinite(time_layers.cross_entropy_error(proba, LABELS[0]))
            time_layers.Dropout(0.3).forward(xs[0], train_flg=False)
        np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-6)


def test_softmax_of_scores_further_apart_than_a_float_reaches_is_still_exact():
    limit = np.finfo(np.float32).max
    with np.errstate(all="raise"):
        actual = time_layers.softmax(np.array([[-limit, limit]], np.float32))
    np.testing.assert_array_equal(actual, [[0, 1]])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", sorted({n for n in optim.__all__ if n[0].isupper()} - {"Optimizer"}))
def test_optimizers_and_clipping_raise_nothing(kind, dtype):
    for scale in (1.0, 1e4, 1e-20, small(dtype)):
        for lr in (0.01, 1e-30, 1e-50):
            param, optimizer = values(dtype, scale), getattr(optim, kind)(lr=lr)
            with np.errstate(all="raise"):
                for _ in range(3):
                    grad = values(dtype, scale)
                    optim.clip_by_norm([grad], 1e-30)
                    optim.clip_by_value([grad], 1e-60)
                    optimizer.update([param], [values(dtype, scale)])
            assert np.isfinite(param).all()


def test_a_probability_below_the_smallest_number_is_zero():
    with np.errstate(all="raise"):
        np.testing.assert_array_equal(probabilities(np.array([0.0, 0.0, -745.0])), [0.5, 0.5, 0.0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "bptt", [TruncatedBPTT(4), TruncatedBPTT(4, 8), TruncatedBPTT(4, "auto"), ExactBPTT()]
)
def test_training_raises_nothing(bptt, dtype):
    rng, ids = np.random.default_rng(3), np.arange(80) % 7
    models = [
        RNNLM(7, 5, 5, cell=cell, layers=2, dropout=0.3, tied=True, rng=rng, dtype=dtype)
        for cell in ("rnn", "relu", "lstm", "gru")
    ]
    models += [CBOWLM(7, 4, 3, rng=rng, dtype=dtype)] if repr(bptt) == "TruncatedBPTT(4)" else []
    with np.errstate(all="raise"):
        for model in models:
            trainer = Trainer(model, optim.SGD(lr=5.0), bptt, rng=rng)
            assert trainer.fit(ids, epochs=3, batch_size=2, valid=ids)
            assert len(model.generate([1], 5, temperature=0.01, rng=rng))
    xs = values(dtype, 30.0)
    with np.errstate(all="raise"):
        model = SequenceRegressor(4, 5, 4, dropout=0.2, rng=rng, dtype=dtype)
        trainer = Trainer(model, optim.Adam(lr=0.01), bptt, rng=rng)
        assert trainer.fit((xs, xs), epochs=3, batch_size=2, valid=(xs, xs))
