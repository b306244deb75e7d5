"""Exact BPTT in parts: the bits of one pass over the whole sequence, in the memory it promised."""

import tracemalloc

import numpy as np
import pytest
from helpers import assert_same_bits, needs_jit, sized

from rnnfast import CBOWLM, RNNLM, ExactBPTT, SequenceRegressor, Trainer, optim
from rnnfast.layers import plans

# All cells have one time loop; in plain Python that of the cell with the most parts stands for them.
CELLS = sized(("rnn", "relu", "lstm", "gru"), ("gru",))


def with_biases(model, rng):
    for param in model.params:
        if param.ndim == 1:
            param[...] = rng.standard_normal(param.shape) * 0.3
    return model


def results(model):
    """Copies of all that a pass leaves: gradients, states, the generators of dropout."""
    states = [array for state in model.get_state() for array in state]
    return [grad.copy() for grad in model.grads] + states, model.rng_state


def assert_exact(model, data, options, chunks, expected_chunks):
    """Gradients, loss and state in chunks equal those of one pass, from a state that is not fresh."""
    model.forward(*data, **options)
    state, masks = model.get_state(), model.rng_state
    loss = model.forward(*data, **options)
    model.backward()
    expected, expected_masks = results(model)
    assert all(np.abs(array).max() > 0 for array in expected)
    counts = []
    for chunk in chunks:
        model.set_state(state)
        model.rng_state = masks
        for grad in model.grads:
            grad[...] = np.nan
        exact = ExactBPTT(chunk=chunk)
        assert exact.gradients(model, *data, **options) == loss
        actual, actual_masks = results(model)
        assert actual_masks == expected_masks
        for name, a, e in zip([*model.parameter_names, *"states" * 9], actual, expected, strict=False):
            assert a.tobytes() == e.tobytes(), (name, chunk)
        counts.append(exact.plan(model, *data[0].shape[:2]).chunks)
    assert tuple(counts) == expected_chunks


# N = 20: blocks of 25 steps in the recurrent layers, of 12 in the loss; both begin anew after 100.
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("kind", ["plain", "tied", "dropout"])
def test_a_language_model_in_chunks_has_the_bits_of_one_pass(cell, kind):
    rng = np.random.default_rng(0)
    options = {"plain": {}, "tied": {"tied": True}, "dropout": {"dropout": 0.4}}[kind]
    model = with_biases(RNNLM(30, 6, 6, cell=cell, layers=2, rng=rng, **options), rng)
    N, T = sized((20, 330), (150, 7))
    xs, ts = rng.integers(0, 30, (N, T)), rng.integers(-1, 30, (N, T))
    period = model.output.period(N)
    expected = (-(-T // period), -(-T // (2 * period)), 1)
    assert expected[0] >= sized(4, 2)
    assert_exact(model, (xs, ts), {}, (1, period + 1, T), expected)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("target", ["every step", "last step"])
@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize("resets", [False, True])
def test_a_regression_in_chunks_has_the_bits_of_one_pass(cell, target, lengths, resets):
    rng = np.random.default_rng(1)
    N, T = sized((7, 230), (180, 7))
    model = with_biases(SequenceRegressor(3, 5, 2, cell=cell, layers=2, dropout=0.3, rng=rng), rng)
    xs = rng.standard_normal((N, T, 3)).astype(np.float32)
    ts = rng.standard_normal((N, T, 2) if target == "every step" else (N, 2)).astype(np.float32)
    options = {}
    if lengths:
        options["lengths"] = rng.integers(0, T - 2, N)
        for n, length in enumerate(options["lengths"]):
            xs[n, length:] = np.nan
    if resets:
        options["reset"] = rng.random((N, T)) < 0.03
    grid = model.output.period(N)
    expected = -(-T // grid), -(-T // (2 * grid)), 1
    assert expected[0] >= 3
    assert_exact(model, (xs, ts), options, (1, grid + 1, T), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_long_sequence_whose_gates_are_made_again(dtype, monkeypatch):
    monkeypatch.setattr(plans, "KEPT_BYTES", 100_000)
    rng = np.random.default_rng(2)
    model = SequenceRegressor(2, 8, 1, rng=rng, dtype=dtype)
    T = sized(3000, 1100)
    xs, ts = (rng.standard_normal((1, T, size)).astype(dtype) for size in (2, 1))
    assert_exact(model, (xs, ts), {}, (512, 1024), (-(-T // 512), -(-T // 1024)))


@needs_jit
@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn", "language model"])
@pytest.mark.parametrize("N", [1, 8])
def test_the_memory_is_as_promised_and_a_tenth_of_that_of_one_pass(kind, N):
    rng = np.random.default_rng(3)
    T = 64_000 // N
    if kind == "language model":
        model = RNNLM(200, 24, 48, cell="lstm", layers=2, dropout=0.2, rng=rng)
        xs, ts = rng.integers(0, 200, (2, N, T))
    else:
        model = SequenceRegressor(16, 48, 2, cell=kind, layers=2, rng=rng)
        xs, ts = (rng.standard_normal((N, T, size), dtype=np.float32) for size in (16, 2))
    whole = ExactBPTT(chunk=T).plan(model, N, T).memory
    exact = ExactBPTT(memory=whole // 10)
    plan = exact.plan(model, N, T)
    assert plan.chunks > 5
    assert plan.memory <= whole // 10
    exact.gradients(model, xs[:, :2], ts[:, :2])  # compiles
    model.restore_tape(None)
    model.output._workspace._buffers.clear()
    model.output._workspace._last.clear()
    model.reset_state()
    tracemalloc.start()
    try:
        exact.gradients(model, xs, ts)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= plan.memory
    assert peak >= 0.8 * plan.memory


def test_memory_is_read_from_texts_and_refused_where_it_is_too_little():
    assert ExactBPTT(memory="256MB").memory == 256_000_000
    assert ExactBPTT(memory="1.5 GiB").memory == 3 << 29
    assert ExactBPTT(memory=10**7).memory == 10**7
    assert repr(ExactBPTT(memory="1kB")) == "ExactBPTT(memory=1000)"
    with pytest.raises(ValueError, match=r'a number of bytes or a text like "256MB", got \'lots\''):
        ExactBPTT(memory="lots")
    with pytest.raises(ValueError, match="chunk belongs to a run without memory="):
        ExactBPTT(chunk=5, memory=10**7)
    model = SequenceRegressor(2, 8, 1)
    with pytest.raises(ValueError, match=r"memory must be at least [\d.]+MB for 1 x 9000 steps"):
        ExactBPTT(memory="1kB").plan(model, 1, 9000)
    least = ExactBPTT(chunk=1).plan(model, 1, 9000).memory
    assert ExactBPTT(memory=least + 100_000).plan(model, 1, 9000).memory <= least + 100_000
    assert ExactBPTT(memory="1GB").plan(model, 1, 9000).chunks == 1
    # A hundred million steps of one sequence: the states at the boundaries count too.
    assert ExactBPTT(memory="50MB").plan(model, 1, 10**8).memory <= 50_000_000


def test_a_model_that_does_not_work_in_parts_is_refused():
    with pytest.raises(TypeError, match="must be an RNNLM or a SequenceRegressor, got CBOWLM"):
        ExactBPTT().gradients(CBOWLM(5, 3), np.zeros((1, 4), int), np.zeros((1, 4), int))
    with pytest.raises(TypeError, match="lengths, reset and carry are for a SequenceRegressor"):
        ExactBPTT().gradients(RNNLM(5, 3, 3), np.zeros((1, 4), int), np.zeros((1, 4), int), lengths=[4])


def test_a_bad_id_in_the_middle_leaves_the_state_as_it_was():
    rng = np.random.default_rng(4)
    model = RNNLM(9, 4, 4, dropout=0.5, rng=rng)
    xs = rng.integers(0, 9, (1, 1500))
    model.forward(xs, xs)
    expected, expected_masks = results(model)
    for bad in (xs.copy(), xs):
        bad[0, 1300] = 9
        with pytest.raises(IndexError, match="must hold ids from 0 to 8, got 9"):
            ExactBPTT(chunk=512).gradients(model, *((bad, xs * 0) if bad is not xs else (xs * 0, bad)))
        actual, masks = results(model)
        assert masks == expected_masks
        for a, e in zip(actual[len(model.grads) :], expected[len(model.grads) :], strict=True):
            assert_same_bits(a, e)


@pytest.mark.parametrize("shape", [(0, 5), (2, 0), (0, 0)])
def test_nothing_to_read_gives_no_loss_and_no_gradient(shape):
    model = SequenceRegressor(3, 4, 1)
    xs, ts = np.zeros((*shape, 3), np.float32), np.zeros((*shape, 1), np.float32)
    assert ExactBPTT().gradients(model, xs, ts) == 0.0
    assert not any(grad.any() for grad in model.grads)
    xs, ts = np.zeros((2, 5, 3), np.float32), np.zeros((2, 1), np.float32)
    assert ExactBPTT().gradients(model, xs, ts, lengths=[0, 0]) == 0.0


@needs_jit
def test_a_memory_map_is_read_chunk_by_chunk(tmp_path):
    T = 200_000
    xs = np.memmap(tmp_path / "xs", dtype=np.float32, mode="w+", shape=(1, T, 16))
    ts = np.memmap(tmp_path / "ts", dtype=np.float32, mode="w+", shape=(1, T, 1))
    xs[0, :, 0] = np.sin(np.arange(T) / 50)
    ts[0, :, 0] = np.cos(np.arange(T) / 50)
    model = SequenceRegressor(16, 8, 1, rng=np.random.default_rng(5))
    exact = ExactBPTT(memory="5MB")
    exact.gradients(model, xs[:, :2], ts[:, :2])
    model.reset_state()
    tracemalloc.start()
    try:
        loss = exact.gradients(model, xs, ts)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5_000_000 < xs.nbytes
    model.reset_state()
    assert loss == ExactBPTT(chunk=T).gradients(model, np.array(xs), np.array(ts))


def test_the_trainer_takes_one_exact_step_a_pass_over_a_text():
    ids = np.arange(401) % 5
    model = RNNLM(5, 8, 8, cell="lstm", rng=np.random.default_rng(6))
    trainer = Trainer(model, optim.Adam(lr=0.02), ExactBPTT(chunk=64))
    history = trainer.fit(ids, epochs=30, batch_size=2, valid=ids)
    assert [record["steps"] for record in history] == list(range(1, 31))
    assert history[-1]["tokens"] == 30 * 400
    assert history[-1]["valid_perplexity"] < 1.5 < history[0]["valid_perplexity"]
