"""Frozen weights are packed once, and give the bits of others."""

import numpy as np
import pytest
from cell_cases import KINDS, make
from helpers import DTYPES, assert_same_bits, kernel_calls, normal, sized
from user_cells import layer_of as user_layer

import rnnfast
from rnnfast import CBOWLM, RNNLM, Bidirectional, SequenceRegressor, Stack, TimeAffine, TimeLSTM, perplexity
from rnnfast.engine import threads as _threads
from rnnfast.forecast import RNNForecaster
from rnnfast.layers import plans, streaming
from rnnfast.models.network import Network

D, H = 5, 51


def layer_of(kind, dtype=np.float32):
    return make(kind, D, H, dtype) if kind in KINDS else user_layer(kind, D, H, dtype)


def rng():
    return np.random.default_rng(0)


def lstm(depth=D, width=H, **options):
    return TimeLSTM.from_sizes(depth, width, rng=rng(), **options)


def windows(dtype, sizes=((2, 4), (2, 9), (9, 5), (1, 1), (30, 40), (2, 4))):
    """Windows in which W is read in place, packed, and divided by units and by sequences."""
    for N, T in sizes:
        xs = normal(rng(), (N, sized(T, min(T, 5)), D), dtype)
        yield xs, {}
        yield xs, {"lengths": rng().integers(0, xs.shape[1] + 1, N)}
        yield xs, {"reset": rng().random(xs.shape[:2]) < 0.3}


# The bits.


@pytest.mark.usefixtures("shared_windows")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", [*KINDS, "slstm", "peephole_lstm", "ind_rnn"])
def test_a_frozen_layer_has_the_bits_of_others_on_any_number_of_threads(kind, dtype, monkeypatch):
    layer = layer_of(kind, dtype)
    layer.stateful = False
    expected = [layer.forward(xs, **options) for xs, options in windows(dtype)]
    for threads in (1, 2, 3):
        rnnfast.set_num_threads(threads)
        with layer.frozen(), monkeypatch.context() as patch:
            seen = kernel_calls(patch)
            for _ in range(2):
                actual = [layer.forward(xs, keep=False, **options) for xs, options in windows(dtype)]
                for one, other in zip(actual, expected, strict=True):
                    assert_same_bits(one, other)
        assert {(threads, True), (threads, False)} <= set(seen)


@pytest.mark.usefixtures("shared_windows")
def test_a_call_whose_team_is_busy_does_not_read_the_operands_of_a_team(monkeypatch):
    rnnfast.set_num_threads(2)
    layer, xs = lstm(), normal(rng(), (2, 6, D), np.float32)
    expected = layer.forward(xs)
    layer.forward(xs)  # the first call runs alone
    with layer.frozen():
        for busy in (False, True, True, False, False):
            with monkeypatch.context() as patch:
                if busy:
                    patch.setattr(_threads._pool, "take", lambda count: None)
                assert_same_bits(layer.forward(xs), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_frozen_chunks_and_steps_have_the_bits_of_one_window(kind, monkeypatch):
    monkeypatch.setattr(streaming, "LEAST_PRODUCTS", 0)
    layer, xs = layer_of(kind), normal(rng(), (3, 12, D), np.float32)
    expected = layer.forward(xs)
    layer.reset_state()
    with layer.frozen():
        chunks = [layer.forward(np.ascontiguousarray(xs[:, t : t + 5])) for t in range(0, 12, 5)]
        layer.reset_state()
        steps = [layer.step(np.ascontiguousarray(xs[:, t])) for t in range(12)]
    assert_same_bits(np.concatenate(chunks, axis=1), expected)
    assert_same_bits(np.stack(steps, axis=1), expected)


def test_steps_of_a_frozen_layer_keep_the_window_for_backward(monkeypatch):
    monkeypatch.setattr(streaming, "LEAST_PRODUCTS", 0)
    layer, xs = lstm(), normal(rng(), (3, 6, D), np.float32)
    dhs = np.ones_like(layer.forward(xs))
    expected = layer.backward(dhs), [grad.copy() for grad in layer.grads]
    layer.forward(xs)
    with layer.frozen():
        layer.step(xs[:, 0].copy())
    assert_same_bits(layer.backward(dhs), expected[0])
    for actual, grad in zip(layer.grads, expected[1], strict=True):
        assert_same_bits(actual, grad)


@pytest.mark.parametrize("kind", ["driven", "twice", "everything"])
def test_steps_of_many_rows_use_constants_given_arrays_and_noise_as_others_do(kind, monkeypatch):
    layer, xs = user_layer(kind, D, H), normal(rng(), (40, 4, D), np.float32)
    given = {name: normal(rng(), (40, H), np.float32) for name in layer.given_names}
    results = []
    for least in (np.inf, 0):
        monkeypatch.setattr(streaming, "LEAST_PRODUCTS", least)
        layer.reset_state()
        layer.rng_state = 1, 0
        states = []
        for factor, t in ((1.0, 0), (1.0, 1), (0.5, 2), (2.0, 3)):
            layer.constants = {name: value * factor for name, value in layer.constants.items()}
            states += [layer.step(xs[:, t].copy(), **given), *layer.get_state()]
        results.append(states)
    for one, other in zip(*results, strict=True):
        assert_same_bits(one, other)


@pytest.mark.parametrize("rows", [1, 2, 3, 8, 30])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_frozen_affine_layer_has_the_bits_of_others(rows, transposed, dtype):
    W = normal(rng(), (70, 45) if transposed else (45, 70), dtype)
    layer = TimeAffine(W.T if transposed else W, normal(rng(), (70,), dtype))
    x = normal(rng(), (rows, 45), dtype)
    expected = layer.forward(x)
    with layer.frozen():
        for _ in range(2):
            assert_same_bits(layer.forward(x), expected)


# Packing once.


def test_weights_are_packed_once(lent):
    layer, affine = lstm(), TimeAffine.from_sizes(H, 3, rng=rng())
    xs = normal(rng(), (2, 6, D), np.float32)
    affine.forward(layer.forward(xs))
    with layer.frozen(), affine.frozen():
        for _ in range(3):
            affine.forward(layer.forward(xs))
    affine.forward(layer.forward(xs))
    assert lent == [[]] * 2 + [[0, 0]] * 2 + [[1, 1], [1, 0]] * 2 + [[]] * 2


def test_packed_weights_are_what_frozen_layers_read():
    for layer in (lstm(), TimeAffine.from_sizes(D, 3, rng=rng())):
        old = layer.params[0][:]  # a view from before
        xs = normal(rng(), (2, 20, D), np.float32)
        expected = layer.forward(xs)
        with layer.frozen():
            layer.forward(xs)
            old[...] = np.nan
            assert_same_bits(layer.forward(xs), expected)
        assert np.isnan(layer.forward(xs)).all()


def test_a_call_that_fails_leaves_no_record(lent, monkeypatch):
    layer, xs = lstm(), normal(rng(), (2, 6, D), np.float32)
    expected = layer.forward(xs)

    def failing(*_):
        raise KeyboardInterrupt

    with layer.frozen():
        layer.forward(xs)
        with monkeypatch.context() as patch:
            patch.setattr(_threads, "run", failing)
            with pytest.raises(KeyboardInterrupt):
                layer.forward(xs)
        assert_same_bits(layer.forward(xs), expected)
    assert lent == [[], [0, 0], [1, 1], [0, 0]]


def test_every_layer_below_is_frozen(lent):
    xs = normal(rng(), (2, 6, D), np.float32)
    both = Bidirectional(lstm(), lstm())
    for layer in (both, Stack([Bidirectional(lstm(), lstm()), lstm(2 * H)])):
        expected = layer.forward(xs)
        lent.clear()
        with layer.frozen():
            for _ in range(2):
                assert_same_bits(layer.forward(xs), expected)
        count = len(layer.recurrent)
        assert lent == [[0, 0]] * count + [[1, 1]] * count


def models():
    options = {"cell": "lstm", "rng": rng()}
    ids = rng().integers(9, size=(2, 30))
    xs = normal(rng(), (2, 30, D), np.float32)
    yield "RNNLM", RNNLM(9, 8, 8, layers=2, tied=True, **options), lambda model: model.predict(ids), 3
    yield "CBOWLM", CBOWLM(9, 8, rng=rng()), lambda model: model.predict(ids), 1
    yield "regressor", SequenceRegressor(D, H, 2, **options), lambda model: model.predict(xs), 2
    network = Network(D, H, 2, bidirectional=True, **options)
    yield "network", network, lambda model: model.scores(xs), 3


@pytest.mark.parametrize(("model", "read", "packing"), [pytest.param(*m[1:], id=m[0]) for m in models()])
def test_a_frozen_model_packs_once_for_all_its_predictions(model, read, packing, lent):
    model.reset_state()
    expected = []
    for _ in range(3):
        expected.append(read(model))
    model.reset_state()
    lent.clear()
    with model.frozen() as same:
        assert same is model
        for one in expected:
            assert_same_bits(read(model), one)
    assert lent[:packing] == [[0, 0]] * packing
    assert len(lent) == 3 * packing
    assert all(made[0] == 1 for made in lent[packing:])


def test_texts_are_written_and_scored_with_weights_packed_once(lent):
    model = RNNLM(9, 8, 8, cell="gru", tied=True, rng=rng())
    ids = rng().integers(9, size=400)
    for call in (
        lambda: model.generate([1, 2, 3], 20, rng=rng()),
        lambda: perplexity(model, ids, 2, 10),
        lambda: model.log_prob(np.tile(ids, 3)),
    ):
        lent.clear()
        first = call()
        assert len(lent) > 2
        assert all(made[0] == 1 for made in lent[2:])
        with model.frozen():
            assert call() == first
            lent.clear()
            assert call() == first
        assert all(made[0] == 1 for made in lent)
    assert model.freezes == ()


def test_evaluations_and_forecasts_pack_once(lent):
    xs, ts = normal(rng(), (9, 7, D), np.float32), normal(rng(), (9, 2), np.float32)
    regressor, network = SequenceRegressor(D, H, 2, rng=rng()), Network(D, H, 2, rng=rng())
    for model in (regressor, network):
        lent.clear()
        model.evaluate(xs, ts, batch_size=2)
        assert [made == [0, 0] for made in lent] == [True, *[False] * 4]
        assert all(lent)
    forecaster = RNNForecaster(hidden_size=8, layers=2, max_epochs=1, random_state=0)
    forecaster.fit(normal(rng(), (3, 40), np.float32))
    lent.clear()
    forecaster.predict(12)
    assert len(lent) > 3
    assert all(made[0] == 1 for made in lent[3:])


def test_estimators_pack_once(lent):
    pytest.importorskip("sklearn")
    from rnnfast.sklearn import RNNClassifier

    X, y = normal(rng(), (600, D, D), np.float32), np.arange(600) % 2
    classifier = RNNClassifier(hidden_size=4, max_epochs=1, random_state=0).fit(X, y)
    lent.clear()
    classifier.predict(X)  # two directions and the output
    assert lent[:3] == [[0, 0]] * 3
    assert len(lent) > 3
    assert all(made[0] == 1 for made in lent[3:])


def test_memory_does_not_grow(monkeypatch):
    monkeypatch.setattr(plans, "KEPT_BYTES", 0)
    layer, xs = lstm(), normal(rng(), (9, 20, D), np.float32)
    layer.forward(xs)
    layer.backward(np.ones((9, 20, H), np.float32))
    before = layer.workspace.nbytes
    with layer.frozen():
        layer.forward(xs)
        layer.forward(xs)
        assert layer.workspace.nbytes == before
