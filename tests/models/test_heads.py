"""Heads: their losses and derived gradients against the naive twins, and the layer around them."""

import math
import pickle

import numpy as np
import pytest
import reference
from helpers import DTYPES, assert_same_bits, needs_jit, normal, poisoned, relative_distance
from rnnfast.kernels.cell.node import FormulaError
from rnnfast.kernels.losses.affine_loss import affine_loss_of

import rnnfast
from rnnfast import cells, heads
from rnnfast.heads import losses as _head_losses
from rnnfast.models import load_model

LEVELS = (0.1, 0.5, 0.75)
HEADS = [
    heads.squared,
    heads.absolute,
    heads.gaussian,
    heads.student_t,
    heads.negative_binomial,
    heads.quantiles(*LEVELS),
    heads.categorical(12),
]
every_head = pytest.mark.parametrize("head", HEADS, ids=lambda head: head.name)


def targets_of(head, rng, shape, dtype):
    if head.name == "negative_binomial":
        return rng.poisson(3, shape).astype(dtype)
    if head.name == "categorical":
        return rng.integers(0, head.options, shape).astype(dtype)
    return normal(rng, shape, dtype)


def problem(head, dtype, N=3, T=7, H=5, size=2, seed=0):
    rng = np.random.default_rng(seed)
    cols = len(head.parameters) * size
    W, b = normal(rng, (H, cols), dtype), normal(rng, cols, dtype)
    return rng, W, b, normal(rng, (N, T, H), dtype), targets_of(head, rng, (N, T, size), dtype)


@every_head
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("every_step", [True, False])
def test_weighted_losses_equal_the_twin_and_targets_of_weight_zero_are_not_read(head, dtype, every_step):
    rng, W, b, xs, ts = problem(head, dtype)
    weights = rng.random((3, 7) if every_step else 3).astype(dtype)
    weights[1] = 0
    if every_step:
        weights[0, 6] = weights[2, 1] = 0
    else:
        ts = ts[:, 0]
    options = {"lengths": np.array([7, 5, 3]), "weights": weights}
    naive = reference.TimeAffineWithLoss(*(array.astype(np.float64) for array in (W, b)), head.name, LEVELS)
    expected = naive.forward(xs.astype(np.float64), ts.astype(np.float64), **options)
    losses = naive.losses(xs.astype(np.float64), ts.astype(np.float64), **options)
    ts[weights == 0] = np.nan
    if every_step:
        ts[2, 3:] = np.nan
    limit = 1e-5 if dtype == np.float32 else 1e-11
    layer = rnnfast.TimeAffineWithLoss(W, b, head)
    assert layer.forward(xs, ts, **options) == pytest.approx(expected, rel=limit)
    dxs = layer.backward(out=poisoned(xs.shape, dtype))
    assert np.isfinite(dxs).all()
    assert (dxs[1] == 0).all()
    assert (dxs[2, 3:] == 0).all()
    assert relative_distance(layer.losses(xs, ts, **options), losses) <= limit


@every_head
@pytest.mark.parametrize("every_step", [True, False])
def test_gradients_equal_central_differences(head, every_step):
    rng, W, b, xs, ts = problem(head, np.float64, seed=1)
    ts = ts if every_step else ts[:, 0]
    weights = rng.random(3)
    layer = rnnfast.TimeAffineWithLoss(W, b, head)
    layer.forward(xs, ts, weights=weights)
    dxs = layer.backward()
    for array, gradient in ((W, layer.grads[0]), (b, layer.grads[1]), (xs, dxs)):
        actual = gradient.copy()
        expected = reference.central_differences(lambda: layer.forward(xs, ts, weights=weights), array)
        assert relative_distance(actual, expected) <= 1e-7


@every_head
def test_float32_gradients_are_those_of_float64(head):
    found = []
    for dtype in DTYPES:
        _, W, b, xs, ts = problem(head, np.float32, N=4, T=50, seed=2)
        layer = rnnfast.TimeAffineWithLoss(W.astype(dtype), b.astype(dtype), head)
        layer.forward(xs.astype(dtype), ts.astype(dtype))
        found.append([layer.backward(), *layer.grads])
    for single, double in zip(*found, strict=True):
        assert relative_distance(single, double) <= 1e-5


def test_the_log_of_gamma_and_its_derivative_are_exact_in_all_magnitudes():
    for x in (1e-3, 0.5, 1.0, 3.7, 7.999, 8.0, 20.5, 1e3, 1e6):
        assert float(_head_losses._log_gamma(np.float64(x))) == pytest.approx(
            math.lgamma(x), rel=1e-12, abs=1e-13
        )
        assert float(_head_losses._log_gamma(np.float32(x))) == pytest.approx(
            math.lgamma(x), rel=1e-6, abs=1e-5
        )


def test_large_counts_have_finite_losses_and_gradients_in_float32():
    layer = rnnfast.TimeAffineWithLoss.from_sizes(3, 1, head="negative_binomial")
    ts = np.array([[[0.0], [1e4], [1e6]]], np.float32)
    assert np.isfinite(layer.forward(np.ones((1, 3, 3), np.float32), ts))
    assert np.isfinite(layer.backward()).all()


@pytest.mark.parametrize("classes", [2, 3, 300])
def test_large_scores_of_classes_have_finite_losses_and_gradients_in_float32(classes):
    W = np.zeros((1, classes), np.float32)
    W[0, 0], W[0, -1] = 1e4, -1e4
    layer = rnnfast.TimeAffineWithLoss(W, np.zeros(classes, np.float32), heads.categorical(classes))
    ts = np.array([[[0.0], [classes - 1]]], np.float32)
    assert layer.losses(np.ones((1, 2, 1), np.float32), ts)[0].tolist() == [0.0, 2e4]
    layer.forward(np.ones((1, 2, 1), np.float32), ts)
    layer.backward()
    assert layer.grads[1].tolist() == [0.5, *[0.0] * (classes - 2), -0.5]


def test_probabilities_of_classes_sum_to_one_and_the_mean_is_the_most_probable_class():
    scores = np.random.default_rng(3).normal(0, 100, (4, 5, 7))
    values = heads.categorical(7).values(scores)
    assert values["probabilities"].shape == (4, 5, 7)
    np.testing.assert_allclose(values["probabilities"].sum(axis=-1), 1, rtol=1e-15)
    assert (values["mean"][..., 0] == scores.argmax(axis=-1)).all()
    two = heads.categorical(2).values(np.arange(4.0))  # of two outputs, each class is a block
    assert two["mean"].tolist() == [1, 1]
    assert two["probabilities"][0] + two["probabilities"][2] == pytest.approx(1, rel=1e-15)


def test_all_numbers_of_classes_share_their_code():
    two, five = heads.categorical(2), heads.categorical(5)
    assert two.equations == five.equations
    assert (two == five, two == heads.categorical(2)) == (False, True)
    assert len(heads.categorical(10_000).parameters) == 10_000
    assert repr(five) == "rnnfast.heads.categorical(5)"
    assert pickle.loads(pickle.dumps(five)) == five


@needs_jit
def test_all_numbers_of_classes_are_one_kernel():
    assert affine_loss_of(heads.categorical(3).equations) is affine_loss_of(heads.categorical(4).equations)
    assert affine_loss_of(heads.categorical(3).equations) is not affine_loss_of(heads.squared.equations)


@pytest.mark.parametrize("label", [-1.0, 3.0, 0.5, np.nan, np.inf])
def test_a_target_that_is_no_class_is_one_sentence_where_it_is_read(label):
    layer = rnnfast.TimeAffineWithLoss.from_sizes(2, 1, head=heads.categorical(3), dtype=np.float64)
    xs, ts = np.ones((2, 3, 2)), np.zeros((2, 3, 1))
    ts[1, 2] = label
    message = rf"^[^\n]*: ts must hold class numbers from 0 to 2, got {label:g} at \(1, 2, 0\)\.$"
    with pytest.raises(ValueError, match=message):
        layer.forward(xs, ts)
    with pytest.raises(ValueError, match=r"at \(1, 0, 0\)"):
        layer.forward(xs, np.ascontiguousarray(ts[:, 2]))
    expected = layer.forward(xs[:, :2], ts[:, :2])
    assert layer.forward(xs, ts, lengths=[2, 2]) == expected
    weights = np.ones((2, 3))
    weights[:, 2] = 0
    assert layer.forward(xs, ts, weights=weights) == expected
    assert np.isfinite(layer.forward(xs, np.ascontiguousarray(ts[:, 2]), lengths=[3, 0]))


def test_quantiles_never_cross():
    scores = np.random.default_rng(3).normal(0, 30, (200, 3))
    rising = heads.quantiles(*LEVELS).values(scores)["quantiles"]
    assert rising.shape == (3, 200, 1)
    assert (np.diff(rising, axis=0) >= 0).all()


def test_heads_with_equal_options_are_equal_and_share_their_code():
    one, two = heads.quantiles(*LEVELS), heads.quantiles(*LEVELS)
    other = heads.quantiles(0.5)
    assert (one == two, one == other, hash(one) == hash(two)) == (True, False, True)
    assert one.equations == two.equations != other.equations
    close = heads.quantiles(0.1, 0.5, 0.75 + 1e-12)
    assert close.equations != one.equations  # all digits of a constant count
    assert repr(other) == "rnnfast.heads.quantiles([0.5])"
    assert repr(heads.gaussian) == "rnnfast.heads.gaussian"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: heads.quantiles(), "levels must rise between 0 and 1, got ()"),
        (lambda: heads.quantiles(0.5, 0.1), "levels must rise between 0 and 1, got (0.5, 0.1)"),
        (lambda: heads.quantiles(0.0, 0.5), "levels must rise between 0 and 1, got (0.0, 0.5)"),
        (lambda: heads.categorical(1), "categorical: classes must be at least 2, got 1"),
        (
            lambda: rnnfast.TimeAffineWithLoss.from_sizes(2, 1, head={"classes": 3}),
            "or one of rnnfast.heads, got {'classes': 3}",
        ),
        (
            lambda: rnnfast.TimeAffineWithLoss.from_sizes(2, 1, head="normal"),
            "gaussian, student_t, negative_binomial, or one of rnnfast.heads, got 'normal'",
        ),
        (
            lambda: rnnfast.TimeAffineWithLoss(np.zeros((2, 3)), np.zeros(3), "gaussian"),
            "the columns of W must be a multiple of 2 for the head gaussian, got 3",
        ),
        (lambda: scored(np.ones((2, 2))), "weights must be (2, 3) or (2,), got (2, 2)"),
        (lambda: scored(np.array([1.0, -1.0])), "weights must be finite and at least 0, got -1.0 at (1, 0)"),
        (lambda: scored(np.array([1.0, np.nan])), "weights must be finite and at least 0, got nan at (1, 0)"),
    ],
)
def test_wrong_arguments_are_one_sentence(call, message):
    with pytest.raises(ValueError, match=r"^[^\n]*\.$") as error:
        call()
    assert message in str(error.value)


def scored(weights):
    layer = rnnfast.TimeAffineWithLoss.from_sizes(2, 1, dtype=np.float64)
    return layer.forward(np.ones((2, 3, 2)), np.ones((2, 3, 1)), weights=weights)


@every_head
@pytest.mark.parametrize("every_step", [True, False])
def test_a_model_learns_with_its_head_and_is_the_same_after_saving(head, every_step, tmp_path):
    rng = np.random.default_rng(4)
    model = rnnfast.SequenceRegressor(2, 6, 1, cell="gru", head=head, rng=rng)
    xs = normal(rng, (60, 9, 2), np.float32)
    ts = np.abs(np.round(2 * xs[..., :1])) + 1
    ts = ts if every_step else np.ascontiguousarray(ts[:, -1])
    trainer = rnnfast.Trainer(model, rnnfast.optim.Adam(lr=0.02), rnnfast.TruncatedBPTT(9), rng=rng)
    history = trainer.fit((xs, ts), epochs=6, batch_size=10)
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    model.save(tmp_path / "model.safetensors")
    again, copy = load_model(tmp_path / "model.safetensors"), pickle.loads(pickle.dumps(model))
    for other in (again, copy):
        assert other.head == head
        for name, values in model.distribution(xs).items():
            assert (other.distribution(xs)[name] == values).all()
    predictions = model.predict(xs)
    assert predictions.shape == (60, 9, 1)
    assert model.evaluate(xs, ts) == pytest.approx(model.forward(xs, ts), rel=1e-6)


@every_head
def test_gradients_of_a_model_by_chunks_have_the_bits_of_one_pass(head):
    rng = np.random.default_rng(5)
    model = rnnfast.SequenceRegressor(2, 4, 1, cell="rnn", head=head, rng=rng)
    xs, ts = normal(rng, (2, 600, 2), np.float32), np.ones((2, 600, 1), np.float32)
    loss = model.forward(xs, ts)
    model.backward()
    expected = [grad.copy() for grad in model.grads]
    assert rnnfast.ExactBPTT(chunk=256).gradients(model, xs, ts) == loss
    for actual, wanted in zip(model.grads, expected, strict=True):
        assert_same_bits(actual, wanted)


def test_weights_of_a_model_leave_out_targets():
    rng = np.random.default_rng(6)
    model = rnnfast.SequenceRegressor(2, 4, 1, rng=rng, dtype=np.float64)
    xs, ts = rng.standard_normal((3, 8, 2)), rng.standard_normal((3, 8, 1))
    weights = np.ones((3, 8))
    weights[:, 5:] = 0
    expected = model.forward(xs[:, :5], ts[:, :5])
    ts[:, 5:] = np.nan
    assert model.forward(xs, ts, weights=weights) == pytest.approx(expected, rel=1e-14)
    model.backward()
    assert all(np.isfinite(grad).all() for grad in model.grads)


def test_a_head_of_ones_own_works_in_a_layer_and_not_in_a_model():
    huber = heads.Head("huber", _huber, _location)
    layer = rnnfast.TimeAffineWithLoss(np.zeros((2, 1)), np.zeros(1), huber)
    ts = np.array([[[0.5], [3.0]]])
    assert layer.forward(np.ones((1, 2, 2)), ts) == (0.125 + 2.5) / 2
    layer.backward()
    assert layer.grads[1].tolist() == [-0.75]
    assert pickle.loads(pickle.dumps(huber)) == huber
    with pytest.raises(ValueError, match=r"huber is a head of your own; models take those of rnnfast\.heads"):
        rnnfast.SequenceRegressor(2, 3, 1, head=huber)
    with pytest.raises(FormulaError, match="the loss of the head flat does not depend on b"):
        rnnfast.TimeAffineWithLoss.from_sizes(2, 1, head=heads.Head("flat", _flat, _location))


def _huber(location, t):
    error = abs(location - t)
    return cells.where(error < 1, 0.5 * error * error, error - 0.5)


def _flat(a, b, t):
    return a - t


def _location(location):
    return {"mean": location}
