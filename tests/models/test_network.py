"""The network for whole sequences: gradients, pooling, lengths, and its training."""

import pickle

import numpy as np
import pytest
import reference
from helpers import assert_same_bits, normal, relative_distance, sized, takes_minutes_interpreted

from rnnfast import CheckpointError, SequenceRegressor, Trainer, TruncatedBPTT, optim
from rnnfast.data import Sequences
from rnnfast.heads import categorical
from rnnfast.models import load_model
from rnnfast.models.network import Network
from rnnfast.training import ExactBPTT, StopTraining

POOLINGS = ["last", "mean", "max", None]
STEPS, WIDTH = sized(7, 4), sized(3, 2)
LENGTHS = np.array([STEPS, 1, STEPS // 2])


def network(pooling, *, dtype=np.float64, seed=0, **options):
    given = {"cell": "gru", "layers": 2, "head": categorical(3), **options}
    return Network(2, WIDTH, 1, pooling=pooling, rng=np.random.default_rng(seed), dtype=dtype, **given)


def problem(pooling, dtype=np.float64, N=3, T=STEPS):
    rng = np.random.default_rng(1)
    xs = normal(rng, (N, T, 2), dtype)
    return xs, rng.integers(0, 3, (N, 1) if pooling else (N, T, 1)).astype(dtype)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize("cell", sized(["gru", "lstm"], ["gru"]))
def test_gradients_equal_central_differences(pooling, bidirectional, lengths, cell):
    model = network(pooling, bidirectional=bidirectional, cell=cell)
    xs, ts = problem(pooling)
    options = {"lengths": lengths, "weights": np.array([1.0, 0.5, 2.0])}
    model.forward(xs, ts, **options)
    for grad in model.grads:
        grad[...] = np.nan
    model.backward()
    for name, param, grad in zip(model.parameter_names, model.params, model.grads, strict=True):
        actual = grad.copy()
        expected = reference.central_differences(lambda: model.forward(xs, ts, **options), param)
        assert relative_distance(actual, expected) <= 1e-6, name


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_padding_and_the_rest_of_the_batch_change_no_bit(pooling, bidirectional):
    model = network(pooling, bidirectional=bidirectional, dtype=np.float32)
    xs, _ = problem(pooling, np.float32)
    expected = model.scores(xs, lengths=LENGTHS)
    dirty = xs.copy()
    for row, length in enumerate(LENGTHS):
        dirty[row, length:] = np.nan
        alone = model.scores(np.ascontiguousarray(xs[row : row + 1, :length]))[0]
        assert_same_bits(alone, expected[row] if pooling else expected[row, :length])
    assert_same_bits(model.scores(dirty, lengths=LENGTHS), expected)


def test_the_last_state_is_that_of_both_directions():
    model = network("last", bidirectional=True)
    xs, _ = problem("last")
    top = model.body.layers[1]
    hs = model.body.layers[0].forward(xs, lengths=LENGTHS)
    top.forward(hs, lengths=LENGTHS)
    state = np.concatenate([half.get_state()[0] for half in (top.layer_forward, top.layer_backward)], axis=1)
    W, b = model.output.params
    np.testing.assert_allclose(model.scores(xs, lengths=LENGTHS), state @ W + b, rtol=1e-12)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_sequence_without_steps_has_zeros(pooling):
    model = network(pooling)
    xs, ts = problem(pooling)
    lengths = np.array([STEPS, 0, STEPS // 2])
    if pooling:
        assert_same_bits(model.scores(xs, lengths=lengths)[1], model.output.params[1])
    assert np.isfinite(model.forward(xs, ts, lengths=lengths))
    model.backward()
    assert all(np.isfinite(grad).all() for grad in model.grads)


def test_equal_largest_values_share_the_gradient():
    model = Network(1, 2, 1, pooling="max", cell="relu", dtype=np.float64, rng=np.random.default_rng(0))
    for param, value in zip(model.params, (1, 0, 0, 1, 0), strict=True):
        param[...] = value
    model.forward(np.array([[[2.0], [2.0], [1.0]]]), np.array([[0.0]]))
    model.backward()
    assert model.grads[0].tolist() == [[16.0, 16.0]]  # 2 (4 - 0) x, as with one of the two


@pytest.mark.parametrize("pooling", POOLINGS)
def test_scores_between_forward_and_backward_change_nothing(pooling):
    model, other = network(pooling, dropout=0.5), network(pooling, dropout=0.5)
    xs, ts = problem(pooling)
    assert model.forward(xs, ts) == other.forward(xs, ts)
    assert_same_bits(model.scores(xs), model.scores(xs))  # nothing is dropped
    model.backward()
    other.backward()
    for grad, expected in zip(model.grads, other.grads, strict=True):
        assert_same_bits(grad, expected)
    assert model.forward(xs, ts) != other.evaluate(xs, ts)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("weighted", [False, True])
def test_evaluate_is_the_mean_loss(pooling, weighted):
    model = network(pooling)
    xs, ts = problem(pooling)
    weights = np.array([1.0, 0.25, 3.0]) if weighted else None
    expected = model.forward(xs, ts, lengths=LENGTHS, weights=weights)
    for size in (1, 2, 3):
        actual = model.evaluate(xs, ts, lengths=LENGTHS, weights=weights, batch_size=size)
        assert actual == pytest.approx(expected, rel=1e-13)


def sequences(pooling, dtype=np.float32, count=40):
    """Sequences whose class is the channel with the larger sum, or at each step the larger one."""
    rng = np.random.default_rng(2)
    xs = [normal(rng, (length, 2), dtype) for length in rng.integers(3, 12, count)]
    ts = [(x[:, :1] < x[:, 1:]).astype(dtype) for x in xs]
    pooled = [[x[:, 0].sum() < x[:, 1].sum()] for x in xs]
    return Sequences(xs, np.array(pooled, dtype) if pooling else ts)


@takes_minutes_interpreted
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_trainer_trains_it_and_a_stopped_run_resumes_to_the_same_bits(pooling, bidirectional, tmp_path):
    def trainer(**options):
        model = network(pooling, dtype=np.float32, dropout=0.2, bidirectional=bidirectional)
        rng = np.random.default_rng(3)
        return Trainer(model, optim.Adam(lr=0.03), TruncatedBPTT(12), clip_norm=1.0, rng=rng, **options)

    data, whole = sequences(pooling), trainer()
    options = {"epochs": 6, "batch_size": 8, "valid": data}
    history = whole.fit(data, **options)
    assert history[-1]["valid_loss"] < 0.8 * history[0]["valid_loss"]

    def stop(progress):
        if progress.step == 12:
            raise StopTraining

    path = tmp_path / "run.safetensors"
    trainer(callback=stop).fit(data, checkpoint_file=path, **options)
    again = trainer()
    again.fit(data, checkpoint_file=path, resume=True, **options)
    for param, expected in zip(again.model.params, whole.model.params, strict=True):
        assert_same_bits(param, expected)


@pytest.mark.parametrize("options", [{}, {"bidirectional": True, "cell": "lif", "pooling": None}])
def test_a_saved_and_a_pickled_network_are_the_same(options, tmp_path):
    model = network(**{"pooling": "max", "dtype": np.float32, **options})
    if model.constants:
        model.constants[3]["beta"] = 0.25
    xs, _ = problem("max", np.float32)
    model.save(tmp_path / "network.safetensors")
    for other in (load_model(tmp_path / "network.safetensors"), pickle.loads(pickle.dumps(model))):
        assert type(other) is Network
        assert other.config == model.config
        assert_same_bits(other.scores(xs), model.scores(xs))
    if model.constants:
        assert load_model(tmp_path / "network.safetensors").constants[3]["beta"] == 0.25


def test_a_file_of_another_model_is_refused(tmp_path):
    network("max").save(tmp_path / "network.safetensors")
    with pytest.raises(CheckpointError, match="it describes the model 'Network', not SequenceRegressor"):
        SequenceRegressor.load(tmp_path / "network.safetensors")


def fitted(k1, data=None, k2=None, pooling="last"):
    trainer = Trainer(network(pooling, dtype=np.float32), optim.SGD(lr=0.1), TruncatedBPTT(k1, k2))
    return trainer.fit(sequences("last") if data is None else data, epochs=1, batch_size=4)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: fitted(10), ValueError, "so k1 must be at least 11, the steps of the longest, got 10"),
        (lambda: fitted(11, k2=22), TypeError, "the model must be an RNNLM or a SequenceRegressor, got"),
        (
            lambda: fitted(11, sequences(None)),
            ValueError,
            "fit: ts must be (S, O), one for each sequence, got",
        ),
        (lambda: fitted(11, pooling=None), ValueError, "fit: ts must be (S, T, O), one for each step, got"),
        (lambda: network("first"), ValueError, "pooling must be one of last, mean, max, got 'first'"),
        (lambda: network("last").set_state(()), TypeError, "carries no state; pass None"),
        (lambda: network("last").scores(np.ones((1, 0, 2))), ValueError, "at least one step is needed"),
        (lambda: network("last").backward(), RuntimeError, "forward"),
        (
            lambda: network("last").forward(np.ones((1, 2, 2)), np.zeros((1, 2, 1))),
            ValueError,
            "ts must be (1, 1), got (1, 2, 1)",
        ),
    ],
)
def test_wrong_uses_are_one_sentence(call, error, message):
    with pytest.raises(error, match=r"^[^\n]*\.$") as found:
        call()
    assert message in str(found.value)


def test_exact_bptt_refuses_it():
    trainer = Trainer(network("last", dtype=np.float32), optim.SGD(lr=0.1), ExactBPTT())
    with pytest.raises(TypeError, match=r"^[^\n]*got Network[^\n]*\.$"):
        trainer.fit(sequences("last"), epochs=1, batch_size=4)
