"""Squared error and the regression model around it, against the naive twins."""

import numpy as np
import pytest
import reference
from helpers import DTYPES, assert_same_bits, normal, poisoned, relative_distance, sized
from hypothesis import given
from hypothesis import strategies as st
from rnnfast.kernels.recurrence.sequence import BLOCK_ROWS, block_steps

from rnnfast import ExactBPTT, SequenceRegressor, State, TimeAffineSquaredLoss, Trainer, TruncatedBPTT, optim
from rnnfast.models import load_model


def wide(*arrays):
    return [array.astype(np.float64) for array in arrays]


def check_layer(N, T, H, size, dtype, seed, every_step, lengths, limit):
    """Losses and gradients of the layer equal those of its twin; what is not scored may be NaN."""
    rng = np.random.default_rng(seed)
    W, b = normal(rng, (H, size), dtype), normal(rng, size, dtype)
    xs, ts = normal(rng, (N, T, H), dtype), normal(rng, (N, T, size) if every_step else (N, size), dtype)
    options = {"lengths": rng.integers(0, T + 1, N)} if lengths else {}
    naive = reference.TimeAffineSquaredLoss(*wide(W, b))
    expected_losses = naive.losses(*wide(xs, ts), **options)
    expected = naive.forward(*wide(xs, ts), **options)
    expected_dxs = naive.backward(0.5)
    for n, length in enumerate(options.get("lengths", ())):
        xs[n, length:] = np.nan
    layer = TimeAffineSquaredLoss(W, b)
    for grad in layer.grads:
        grad[...] = np.nan
    assert layer.forward(xs, ts, **options) == pytest.approx(expected, rel=limit)
    dxs = poisoned(xs.shape, dtype)
    assert layer.backward(0.5, out=dxs) is dxs
    assert relative_distance(dxs, expected_dxs) <= limit
    for actual, wanted in zip(layer.grads, naive.grads, strict=True):
        assert relative_distance(actual, wanted) <= limit
    losses = layer.losses(xs, ts, **options)
    assert losses.dtype == np.float64
    assert relative_distance(losses, expected_losses) <= limit


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("every_step", [True, False])
@pytest.mark.parametrize("lengths", [True, False])
def test_losses_and_gradients_over_several_blocks_equal_the_twin(dtype, every_step, lengths):
    N = 3
    T = sized(2 * (BLOCK_ROWS // N) + 9, BLOCK_ROWS // N + 2)
    check_layer(N, T, 5, 3, dtype, 0, every_step, lengths, 2e-6 if dtype == np.float32 else 1e-13)


@given(
    *(st.integers(1, 9),) * 2, *(st.integers(1, 35),) * 2, st.integers(0, 99), st.booleans(), st.booleans()
)
def test_any_shape_equals_the_twin(N, T, H, size, seed, every_step, lengths):
    check_layer(N, T, H, size, np.float64, seed, every_step, lengths, 1e-11)


@pytest.mark.parametrize("cell", ["rnn", "relu", "lstm", "gru"])
@pytest.mark.parametrize("every_step", [True, False])
def test_the_model_equals_its_twin_and_central_differences(cell, every_step):
    rng = np.random.default_rng(1)
    model = SequenceRegressor(3, 4, 2, cell=cell, layers=2, rng=rng, dtype=np.float64)
    twin = reference.SequenceRegressor([param.copy() for param in model.params], cell)
    xs, ts = rng.standard_normal((3, 6, 3)), rng.standard_normal((3, 6, 2) if every_step else (3, 2))
    options = {"lengths": np.array([6, 2, 5]), "reset": rng.random((3, 6)) < 0.2}
    assert model.forward(xs, ts, **options) == pytest.approx(twin.forward(xs, ts, **options), rel=1e-13)
    model.backward()
    twin.backward()
    for name, actual, expected in zip(model.parameter_names, model.grads, twin.grads, strict=True):
        assert relative_distance(actual, expected) <= 1e-11, name

    def loss():
        model.reset_state()
        return model.forward(xs, ts, **options)

    for index in (1, -2):
        expected = reference.central_differences(loss, model.params[index])
        assert relative_distance(twin.grads[index], expected) <= 1e-5
    # Sequences start fresh unless they go on from the call before, in both.
    first = twin.forward(xs, ts)
    assert [model.forward(xs, ts) for _ in range(2)] == pytest.approx([first, first], rel=1e-13)
    second = twin.forward(xs, ts, carry=True)
    assert abs(second - first) > 1e-6 * first
    assert model.forward(xs, ts, carry=True) == pytest.approx(second, rel=1e-13)


def test_predictions_are_those_the_loss_is_made_of():
    rng = np.random.default_rng(2)
    model = SequenceRegressor(3, 4, 2, dropout=0.5, rng=rng)
    xs, ts = normal(rng, (3, 6, 3), np.float32), normal(rng, (3, 6, 2), np.float32)
    y = model.predict(xs)
    model.train_flg = False
    assert model.forward(xs, ts) == pytest.approx(float(((y - ts) ** 2).mean()), rel=1e-5)
    with pytest.raises(RuntimeError, match="call forward first"):
        SequenceRegressor(3, 4, 2).backward()


def test_reading_between_forward_and_backward_changes_no_bit():
    rng = np.random.default_rng(2)
    xs, ts = normal(rng, (3, 6, 3), np.float32), normal(rng, (3, 6, 2), np.float32)
    models = [SequenceRegressor(3, 4, 2, dropout=0.5, rng=np.random.default_rng(0)) for _ in range(3)]
    for model, read in zip(
        models, (lambda m: None, lambda m: m.predict(xs), lambda m: m.evaluate(xs, ts)), strict=True
    ):
        model.forward(xs, ts)
        read(model)
        model.backward()
        for actual, expected in zip(model.grads, models[0].grads, strict=True):
            assert_same_bits(actual, expected)


def test_predictions_start_fresh_unless_they_go_on():
    rng = np.random.default_rng(2)
    model = SequenceRegressor(3, 4, 2, rng=rng)
    xs = normal(rng, (3, 6, 3), np.float32)
    expected = model.predict(xs)
    assert_same_bits(model.predict(xs), expected)
    assert State.of(model) == State(model.get_state())
    assert model.get_state() == (None,)
    pieces = [model.predict(xs[:, part], carry=True) for part in (slice(0, 2), slice(2, 6))]
    assert_same_bits(np.concatenate(pieces, axis=1), expected)
    state = State.of(model)
    assert_same_bits(model.predict(xs[:1]), expected[:1])
    assert State.of(model) == state
    with pytest.raises(ValueError, match="the carried state has 3 rows but the input has 1"):
        model.predict(xs[:1], carry=True)


@pytest.mark.parametrize("read", ["predict", "evaluate"])
def test_reading_without_a_backward_keeps_no_gates(read):
    rng = np.random.default_rng(3)
    shape = 2, 2 * block_steps(2) + 3
    xs, ts = normal(rng, (*shape, 3), np.float32), normal(rng, (*shape, 2), np.float32)
    sizes = []
    for method in ("forward", read):
        model = SequenceRegressor(3, 4, 2, cell="lstm", rng=np.random.default_rng(0))
        getattr(model, method)(*((xs,) if method == "predict" else (xs, ts)))
        worker = model if method == "forward" else model._reader
        sizes.append(worker.body.layers[0]._workspace._buffers["tape"].size)
    assert 3 * sizes[1] <= sizes[0]


def test_a_model_is_saved_and_loaded(tmp_path):
    rng = np.random.default_rng(3)
    model = SequenceRegressor(3, 4, 2, cell="gru", layers=2, rng=rng)
    xs = normal(rng, (3, 6, 3), np.float32)
    model.save(tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert isinstance(loaded, SequenceRegressor)
    np.testing.assert_array_equal(loaded.predict(xs), model.predict(xs))


def test_bad_input_is_refused_and_leaves_the_state_as_it_was():
    model = SequenceRegressor(3, 4, 2)
    xs, ts = np.ones((2, 5, 3), np.float32), np.ones((2, 5, 2), np.float32)
    model.forward(xs, ts)
    before = model.get_state()[0][0]
    for wrong, message in (
        ((xs[..., :2], ts), r"xs must be \(N, T, 3\)"),
        ((xs, ts[:, :4]), r"ts must be \(2, 5, 2\), got \(2, 4, 2\)"),
        ((xs, ts[:, 0, :1]), r"ts must be \(2, 2\), got \(2, 1\)"),
        ((xs[:1], ts[:1]), "the carried state has 2 rows but the input has 1"),
    ):
        with pytest.raises(ValueError, match=message):
            model.forward(*wrong, carry=True)
    with pytest.raises(TypeError, match="ts must be float32"):
        model.forward(xs, ts.astype(np.float64))
    np.testing.assert_array_equal(model.get_state()[0][0], before)
    with pytest.raises(ValueError, match="dropout must be"):
        SequenceRegressor(3, 4, 2, dropout=1.0)
    with pytest.raises(
        ValueError, match=r"must be \(S, T, D\) and \(S, T, O\).* got \(4, 5, 3\) and \(3, 1\)"
    ):
        next(TruncatedBPTT(2).windows(model, (np.zeros((4, 5, 3)), np.zeros((3, 1))), 2))


@pytest.mark.parametrize("bptt", [ExactBPTT(), TruncatedBPTT(20), TruncatedBPTT(8, 20)])
@pytest.mark.parametrize("every_step", [True, False])
def test_the_trainer_learns_to_add_up(bptt, every_step):
    """The target is the sum of the inputs so far; also where the loss is far above that of any text."""
    rng = np.random.default_rng(4)
    xs = normal(rng, (64, 20, 1), np.float32)
    sums = np.cumsum(xs, axis=1) * np.float32(12)
    ts = sums if every_step else sums[:, -1]
    model = SequenceRegressor(1, 16, 1, rng=rng)
    trainer = Trainer(model, optim.Adam(lr=0.1), bptt, clip_norm=None, anneal=None, rng=rng)
    history = trainer.fit((xs, ts), epochs=sized(60, 2), batch_size=16, valid=(xs[:8], ts[:8]))
    assert history[0]["train_loss"] > 700
    k1 = getattr(bptt, "k1", 20)
    scored = 20 if every_step else 20 - (20 - 1) // k1 * k1  # steps of the windows that have targets
    assert history[0]["steps"] == 4 * (-(-20 // k1) if every_step else 1)
    assert history[0]["tokens"] == 64 * scored
    if len(history) > 2:
        assert history[-1]["best_valid_loss"] < 0.5 * history[0]["best_valid_loss"]
    y = model.predict(xs[:8])
    errors = y - sums[:8] if every_step else y[:, -1] - ts[:8]
    assert model.evaluate(xs[:8], ts[:8], batch_size=3) == pytest.approx(float((errors**2).mean()), rel=1e-5)
