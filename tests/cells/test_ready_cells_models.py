"""Models and combined layers of any cell: exact gradients, resumed training, stacks, saving and loading."""

import gc

import numpy as np
import pytest
from helpers import assert_same_bits, normal, sized
from reference import TimeCell
from user_cells import CELLS, CellWindow, layer_of

import rnnfast
from rnnfast import RNNLM, Bidirectional, CheckpointError, ExactBPTT, SequenceRegressor, Stack, State, cells
from rnnfast.cells import constant, sigmoid, tanh, unit
from rnnfast.cells import normal as noise
from rnnfast.models.loading import load_model
from rnnfast.models.weights import read_weights, write_weights
from rnnfast.optim import Adam
from rnnfast.training import Trainer, TruncatedBPTT

MODELS = [name for name, one in CELLS.items() if all(role.kind != "given" for role in one.roles.values())]
# With noise, with zoneout, and with a tape that is always kept.
FEW = ["leaky", "lstm_zoneout", "twice"]


def leaky_of_mine(rate=0.875):
    @rnnfast.cell(states=("h", "v"))
    def mine(a, h, v, *, alpha=unit(0.25), jitter=noise(0.05)):
        v = rate * v + alpha * a + jitter
        return tanh(v), v

    return mine


# Training.


@pytest.mark.parametrize("name", MODELS)
def test_exact_gradients_in_chunks_have_the_bits_of_plain_ones(name):
    rng, N = np.random.default_rng(0), 3
    T = sized(200, 9)  # two chunks or more
    model = SequenceRegressor(3, 5, 2, cell=CELLS[name], rng=rng)
    xs, ts = normal(rng, (N, T, 3), np.float32), normal(rng, (N, T, 2), np.float32)
    drawn, exact = model.rng_state, ExactBPTT(chunk=1)
    assert exact.plan(model, N, T).chunks >= sized(2, 1)
    loss = model.forward(xs, ts)
    model.backward()
    expected = [grad.copy() for grad in model.grads]
    state, after = model.get_state(), model.rng_state
    model.reset_state()
    model.rng_state = drawn
    assert exact.gradients(model, xs, ts) == loss
    for actual, grad in zip(model.grads, expected, strict=True):
        assert_same_bits(actual, grad)
    assert model.rng_state == after
    for layer, other in zip(model.get_state(), state, strict=True):
        for now, then in zip(layer, other, strict=True):
            assert_same_bits(now, then)


class Killed(BaseException):
    """Nothing is saved when it comes."""


@pytest.mark.parametrize("name", FEW)
def test_a_run_killed_anywhere_goes_on_to_the_bits_of_one_that_was_not(name, tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    rng = np.random.default_rng(1)
    data = normal(rng, (4, 12, 3), np.float32), normal(rng, (4, 12, 2), np.float32)

    def trainer(stop=0):
        def count(report):
            if report.step == stop:
                raise Killed

        model = SequenceRegressor(3, 5, 2, cell=CELLS[name], dropout=0.2, rng=np.random.default_rng(0))
        order = np.random.default_rng(2)
        return Trainer(model, Adam(lr=0.02), TruncatedBPTT(5), callback=count, rng=order)

    def fit(trainer, path, **options):
        trainer.fit(data, epochs=2, batch_size=2, checkpoint_file=path, checkpoint_every=0.0, **options)
        return [
            *(param.tobytes() for param in trainer.model.params),
            trainer.model.rng_state,
            State.of(trainer.model),
        ]

    expected = fit(trainer(), tmp_path / "whole")
    for stop in (1, 4, 7):
        with pytest.raises(Killed):
            fit(trainer(stop), tmp_path / f"{stop}")
        assert fit(trainer(), tmp_path / f"{stop}", resume=True) == expected


def test_dropout_and_noise_draw_from_places_of_their_own():
    model = SequenceRegressor(3, 5, 2, cell="leaky", layers=2, dropout=0.2, rng=np.random.default_rng(0))
    xs, ts = np.ones((2, 6, 3), np.float32), np.ones((2, 6, 2), np.float32)
    before = model.rng_state
    assert len({seed for seed, _ in before}) == len(before) == 5
    first = model.forward(xs, ts)
    assert model.forward(xs, ts) != first
    model.rng_state = before
    assert model.forward(xs, ts) == first
    drawn = model.rng_state
    assert_same_bits(model.predict(xs), model.predict(xs))
    assert model.rng_state == drawn


# Layers of layers.


@pytest.mark.parametrize("name", FEW)
def test_a_stack_and_both_directions_are_those_of_the_naive_layers(name):
    lower, upper = layer_of(name), layer_of(name, 5, 4, seed=1)
    for layer in (lower, upper):
        layer.train_flg = False
    xs = normal(np.random.default_rng(2), (2, 6, 3), np.float32)
    lengths = [6, 4]

    def naive(layer, xs):
        window = CellWindow(layer, 2, 6, state=False)
        window.xs, window.options = xs, {"lengths": lengths}
        means = {
            arg: np.full((2, 6, 5), layer.cell.roles[arg].mean)[..., : layer.hidden_size]
            for arg in layer.cell.random
        }
        return TimeCell(layer).forward(window, means)[0]

    stack = Stack([lower, upper])
    expected = naive(upper, naive(lower, xs).astype(np.float32))
    np.testing.assert_allclose(stack.forward(xs, lengths=lengths), expected, rtol=1e-4, atol=1e-5)
    other = layer_of(name, seed=3)
    other.train_flg = False
    both = Bidirectional(lower, other)
    transposed = xs.copy()
    for n, length in enumerate(lengths):
        transposed[n, :length] = xs[n, :length][::-1]
    backward = naive(other, transposed)
    for n, length in enumerate(lengths):
        backward[n, :length] = backward[n, :length][::-1].copy()
    expected = np.concatenate([naive(lower, xs), backward], axis=-1)
    lower.reset_state()
    hs = both.forward(xs, lengths=lengths)
    np.testing.assert_allclose(hs, expected, rtol=1e-4, atol=1e-5)
    assert both.backward(np.ones_like(hs)).shape == xs.shape
    assert stack.step(xs[:, 0]).shape == (2, 4)


# Language models, saving and loading.


@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_any_cell_comes_back_from_its_file(name, tmp_path):
    model = SequenceRegressor(3, 5, 2, cell=CELLS[name], layers=2, rng=np.random.default_rng(0))
    model.save(tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert loaded.config == model.config
    assert loaded.parameter_names == model.parameter_names
    xs = normal(np.random.default_rng(1), (2, 4, 3), np.float32)
    assert_same_bits(loaded.predict(xs), model.predict(xs))


def test_ready_cells_are_saved_by_name_and_others_by_what_they_say():
    for one in CELLS.values():
        if one in cells.READY:
            assert (
                SequenceRegressor(3, 5, 2, cell=one.name).config
                == SequenceRegressor(3, 5, 2, cell=one).config
            )
            assert SequenceRegressor(3, 5, 2, cell=one).config["cell"] == one.name
    mine = leaky_of_mine()
    assert RNNLM(7, 6, 5, cell=mine).config["cell"] == {"name": "mine", "fingerprint": mine.fingerprint}


def test_a_language_model_of_ones_own_cell_learns_generates_and_comes_back(tmp_path):
    @rnnfast.cell(states=("y", "memory"))
    def mine(keeps, candidate, shows, y, memory):
        """As `coupled_lstm`, whose compiled code it shares."""
        keeps = sigmoid(keeps)
        memory = keeps * memory + (1 - keeps) * tanh(candidate)
        return sigmoid(shows) * tanh(memory), memory

    assert mine.fingerprint == cells.coupled_lstm.fingerprint
    ids = np.arange(120) % 7
    model = RNNLM(7, 6, 5, cell=mine, rng=np.random.default_rng(0))
    before = rnnfast.perplexity(model, ids)
    Trainer(model, Adam(lr=0.02), TruncatedBPTT(5)).fit(ids, epochs=5, batch_size=2)
    assert rnnfast.perplexity(model, ids) < before / 2
    model.save(tmp_path / "model")
    loaded = RNNLM.load(tmp_path / "model")
    assert loaded.config == model.config
    assert rnnfast.perplexity(loaded, ids) == rnnfast.perplexity(model, ids)
    words = [m.generate([0], 8, rng=np.random.default_rng(3)) for m in (model, loaded)]
    np.testing.assert_array_equal(*words)


@pytest.mark.parametrize("load", [RNNLM.load, load_model])
def test_a_file_whose_cell_is_not_defined_or_has_changed_is_refused_in_one_sentence(load, tmp_path):
    mine = leaky_of_mine(0.8125)
    RNNLM(7, 6, 5, cell=mine).save(tmp_path / "model")
    fingerprint = mine.fingerprint[:12]
    del mine
    gc.collect()
    sentence = (
        rf"^{tmp_path / 'model'}: the cell 'mine' \(fingerprint '{fingerprint}'\) is not defined in this "
        r"program, or its equations have changed since; import the module that defines it, "
        r"or make it again and keep it in a variable\.$"
    )
    with pytest.raises(CheckpointError, match=sentence):
        load(tmp_path / "model")
    changed = leaky_of_mine(0.75)
    with pytest.raises(CheckpointError, match=sentence) as error:
        load(tmp_path / "model")
    assert "\n" not in str(error.value)
    again = leaky_of_mine(0.8125)
    assert load(tmp_path / "model").config["cell"]["fingerprint"] == again.fingerprint != changed.fingerprint


def test_a_model_of_a_cell_that_was_renamed_comes_back_with_the_equal_one(tmp_path):
    @rnnfast.cell(states=("h",))
    def first_name(a, h):
        return 0.5625 * h + 0.4375 * tanh(a)

    model = RNNLM(7, 6, 5, cell=first_name, rng=np.random.default_rng(0))
    model.save(tmp_path / "model")
    saved = model.config
    del model, first_name
    gc.collect()

    @rnnfast.cell(states=("h",))
    def second_name(a, h):
        return 0.5625 * h + 0.4375 * tanh(a)

    for load in (RNNLM.load, load_model):
        loaded = load(tmp_path / "model")
        assert loaded.body.cell is second_name
        assert loaded.config == saved
        loaded.save(tmp_path / "again")
        assert (tmp_path / "again").read_bytes() == (tmp_path / "model").read_bytes()


def test_a_run_goes_on_with_a_renamed_cell_and_not_with_another(tmp_path):
    def trainer(step, name):
        step.__name__ = name
        model = RNNLM(7, 6, 5, cell=rnnfast.cell(step, states="h"), rng=np.random.default_rng(0))
        return Trainer(model, Adam(lr=0.02), TruncatedBPTT(5))

    def fit(trainer, epochs):
        options = {"checkpoint_file": tmp_path / "training", "resume": True}
        trainer.fit(np.arange(40) % 7, epochs=epochs, batch_size=2, **options)

    fit(trainer(lambda a, h: 0.6875 * h + 0.3125 * tanh(a), "first"), 1)
    fit(trainer(lambda a, h: 0.6875 * h + 0.3125 * tanh(a), "second"), 2)
    with pytest.raises(CheckpointError, match=r"cell is 'first \(\w{12}\)' and not 'second \(\w{12}\)', so"):
        fit(trainer(lambda a, h: 0.625 * h + 0.375 * tanh(a), "first"), 3)


# Constants.


@rnnfast.cell(states=("h",))
def slow(a, h, *, floor=constant(0.125), rate=constant(0.25)):
    return h + rate * (tanh(a) - h) + floor


def floored(floor=None):
    """A model of the cell above, with another floor in its upper layer."""
    model = SequenceRegressor(3, 4, 1, cell=slow, layers=2, rng=np.random.default_rng(0))
    if floor is not None:
        model.body.layers[1].constants["floor"] = floor
    return model


def test_constants_that_were_set_come_back_from_the_file(tmp_path):
    model, xs = floored(0.7), np.ones((2, 5, 3), np.float32)
    model.save(tmp_path / "model")
    for load in (SequenceRegressor.load, load_model):
        loaded = load(tmp_path / "model")
        assert loaded.constants == [{"floor": 0.125, "rate": 0.25}, {"floor": 0.7, "rate": 0.25}]
        assert_same_bits(loaded.predict(xs), model.predict(xs))


def test_a_file_without_constants_loads_with_those_of_the_cell(tmp_path):
    model = floored()
    arrays = dict(zip(model.parameter_names, model.params, strict=True))
    write_weights(tmp_path / "model", arrays, model.config)
    assert load_model(tmp_path / "model").constants == model.constants
    for cell in ("lstm", "leaky"):
        SequenceRegressor(3, 4, 1, cell=cell).save(tmp_path / "other")
        assert read_weights(tmp_path / "other", SequenceRegressor.expected_tensors).constants == []


@pytest.mark.parametrize(
    ("constants", "message"),
    [
        ([{}], "its constants must be a list of 2, one per layer"),
        ([{}, {"ceiling": 1.0}], "its constants: the cell has no constant 'ceiling'; it has floor, rate"),
        ([{}, {"floor": float("nan")}], "its constants: floor must be finite, got nan"),
        ([{}, {"floor": "1"}], "its constants: floor must be a number, got '1'"),
        ([{}, {"floor": True}], "its constants: floor must be a number, got True"),
    ],
)
def test_wrong_constants_in_a_file_are_one_sentence(constants, message, tmp_path):
    model, path = floored(), tmp_path / "model"
    write_weights(
        path, dict(zip(model.parameter_names, model.params, strict=True)), model.config, {}, constants
    )
    with pytest.raises(CheckpointError) as error:
        load_model(path)
    assert str(error.value).startswith(f"{path}: its configuration is not valid ({message}")


def test_a_run_does_not_go_on_with_other_constants(tmp_path):
    def fit(model, epochs):
        data = np.ones((2, 5, 3), np.float32), np.ones((2, 5, 1), np.float32)
        options = {"checkpoint_file": tmp_path / "training", "resume": True}
        Trainer(model, Adam(lr=0.02), TruncatedBPTT(5)).fit(data, epochs=epochs, batch_size=2, **options)

    fit(floored(0.5), 1)
    fit(floored(0.5), 2)
    with pytest.raises(CheckpointError, match=r"constants is \[.*0\.75.*\] and not \[.*0\.5"):
        fit(floored(0.75), 3)


def test_a_cell_with_given_arrays_is_refused_where_nobody_can_give_them():
    driven, xs = CELLS["driven"], np.ones((2, 4, 3), np.float32)
    for make in (lambda: SequenceRegressor(3, 5, 2, cell=driven), lambda: RNNLM(7, 6, 5, cell=driven)):
        with pytest.raises(
            ValueError, match=r"the cell 'driven' takes the given array drive, which only its layer"
        ):
            make()
    with pytest.raises(TypeError, match="the cell needs the argument drive"):
        Stack([layer_of("driven")]).forward(xs)


def test_an_unknown_name_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"^RNNLM: cell must be one of rnn, relu, .*slstm, got 'leeky'\.$"):
        RNNLM(7, 6, 5, cell="leeky")
