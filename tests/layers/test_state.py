"""State: a value that is copied, cut by rows, saved, loaded and set, for every layer and model."""

import itertools

import numpy as np
import pytest
from cell_cases import KINDS, make
from helpers import DTYPES, assert_same_bits, normal

from rnnfast import CBOWLM, RNNLM, Bidirectional, Stack, State, TimeLSTM
from rnnfast._check import CheckpointError

N, T, D, H = 6, 4, 3, 5


def layers(dtype):
    """Every kind of layer with a state, fresh."""
    one = {kind: make(kind, D, H, dtype) for kind in KINDS}
    pair = Bidirectional(make("lstm", D, H, dtype), make("rnn", D, H, dtype, seed=1))
    stack = Stack([make("gru-after", D, H, dtype), make("lstm", H, 2, dtype)])
    return {**one, "bidirectional": pair, "stack": stack}


def models(dtype=np.float32):
    options = {"dtype": dtype, "rng": np.random.default_rng(0)}
    cells = [RNNLM(9, 4, 4, cell=cell, layers=2, **options) for cell in ("rnn", "lstm", "gru")]
    return [*cells, CBOWLM(9, 4, window=3, **options), CBOWLM(9, 4, window=1, **options)]


def readers():
    """Something with a state, and a call that goes on for some rows."""
    xs, ids = {d: normal(np.random.default_rng(1), (N, T, D), d) for d in DTYPES}, np.arange(N * T) % 9
    for dtype in DTYPES:
        for name, layer in layers(dtype).items():
            yield f"{name} {dtype.__name__}", layer, lambda rows, f=layer, x=xs[dtype]: f.forward(x[rows])
    for number, model in enumerate(models()):
        words = ids.reshape(N, T)
        yield f"{number}", model, lambda rows, f=model, x=words: f.predict(x[rows])


CASES = {name: (owner, go_on) for name, owner, go_on in readers()}


@pytest.mark.parametrize("name", CASES)
def test_rows_of_a_state_go_on_with_the_bits_of_the_whole_batch(name):
    owner, go_on = CASES[name]
    owner.reset_state()
    go_on(slice(None))
    state = State.of(owner)
    expected = go_on(slice(None))
    assert state.rows == N
    for rows in (slice(None), slice(1, 4), [5, 0, 0], np.arange(N) % 2 == 0):
        owner.set_state(state[rows])
        assert_same_bits(go_on(rows), expected[rows])
    owner.set_state(state[-1])
    assert_same_bits(go_on([N - 1]), expected[-1:])
    assert State.of(owner) != state


@pytest.mark.parametrize("name", CASES)
def test_a_saved_state_comes_back_equal_and_goes_on_the_same(name, tmp_path):
    owner, go_on = CASES[name]
    owner.reset_state()
    for rows in (None, slice(None)):  # fresh, then not
        if rows is not None:
            go_on(rows)
        state = State.of(owner)
        state.save(tmp_path / "s")
        loaded = State.load(tmp_path / "s")
        assert loaded == state == state.copy()
        assert repr(loaded) == repr(state)
        expected = go_on(slice(None))
        owner.reset_state()
        owner.set_state(loaded)
        assert_same_bits(go_on(slice(None)), expected)


def test_a_state_is_a_copy_and_its_copy_another():
    layer = make("lstm", D, H, np.float32)
    layer.forward(np.ones((2, 1, D), np.float32))
    state = State.of(layer)
    kept, copy = [array.copy() for array in state.arrays], state.copy()
    layer.forward(np.ones((2, 1, D), np.float32))
    copy.arrays[0][...] = 7
    layer.set_state(state)
    layer.forward(np.ones((2, 1, D), np.float32))
    for actual, expected in zip(state.arrays, kept, strict=True):
        assert_same_bits(actual, expected)


def test_rows_can_be_put_into_a_state():
    layer = make("lstm", D, H, np.float64)
    xs = normal(np.random.default_rng(2), (N, T, D), np.float64)
    layer.forward(xs)
    state, first = State.of(layer), State.of(layer)
    layer.forward(xs)
    second = State.of(layer)
    state[[1, 4]] = second[[4, 1]]
    state[0] = State()
    for actual, old, new in zip(state.arrays, first.arrays, second.arrays, strict=True):
        assert_same_bits(actual[[1, 4]], new[[4, 1]])
        assert_same_bits(actual[[2, 3, 5]], old[[2, 3, 5]])
        assert_same_bits(actual[0], np.zeros(H))
    before = state.copy()
    for wrong in (
        second,
        second[[0]],
        State((np.zeros((2, H)),)),
        State((np.zeros((2, H), np.float32),) * 2),
    ):
        with pytest.raises(ValueError, match="State"):
            state[[1, 4]] = wrong
    with pytest.raises(IndexError):
        state[N] = second[0]
    assert state == before


def test_tuples_of_get_state_still_work():
    for owner in [*layers(np.float32).values(), *models()]:
        state = State.of(owner)
        owner.set_state(state)
        owner.set_state(owner.get_state()) if not hasattr(owner, "STATES") else None
        assert State.of(owner) == state == State(state)
    lstm = make("lstm", D, H, np.float32)
    lstm.forward(np.ones((2, 1, D), np.float32))
    h, c = lstm.get_state()
    lstm.set_state(h, c)
    assert State.of(lstm) == State((h, c))
    assert State((h, c)) != State((c, h))
    assert State((h, c)) != (h, c)


def test_a_state_of_something_else_is_refused_and_changes_nothing():
    owners = [*layers(np.float32).values(), *models()]
    for owner in owners:
        owner.reset_state()
    states = {}
    for owner, (kept_owner, go_on) in zip(owners[:5], itertools.islice(CASES.values(), 5), strict=True):
        go_on(slice(None))
        states[owner] = State.of(kept_owner)
    for owner, wrong in [
        (owners[0], State(np.zeros((2, H), np.float32))),
        (owners[0], states[owners[2]]),
        (owners[2], states[owners[0]]),
        (owners[2], State((np.zeros((2, H)),) * 2)),
        (owners[2], State((np.zeros((2, H + 1), np.float32),) * 2)),
        (owners[5], states[owners[2]]),
        (owners[6], states[owners[0]]),
        (owners[7], states[owners[0]]),
        (owners[10], states[owners[0]]),
        (owners[10], State(np.zeros((2, 2)))),
    ]:
        before = State.of(owner)
        with pytest.raises((TypeError, ValueError)):
            owner.set_state(wrong)
        assert State.of(owner) == before


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ((np.zeros((2, 3)), np.zeros((3, 3))), ValueError, "the same number of rows, got 2 and 3"),
        ((np.zeros((2, 3), np.float16),), TypeError, "float32, float64 or int64"),
        (np.zeros(()), TypeError, r"must be \(N, ...\)"),
        (([[[[np.zeros(2)]]]],), TypeError, "got list in it"),
        ("abc", TypeError, "got str in it"),
        (TimeLSTM, TypeError, "got type in it"),
    ],
)
def test_what_is_no_state_is_refused(value, error, message):
    with pytest.raises(error, match=f"State: .*{message}"):
        State(value)
    with pytest.raises(TypeError, match=r"State\.of: owner must be an object like TimeLSTM or RNNLM"):
        State.of(value)


def test_a_state_that_does_not_fit_its_outline_is_refused(tmp_path):
    from rnnfast.files.tensors import write_tensors

    leaf = {"dtype": "float32", "axes": 2}
    array = {"state.0": np.zeros((2, 3), np.float32)}
    nested = leaf
    for _ in range(5):
        nested = [nested]
    for outline, arrays, message in [
        (leaf, {}, "tensor 'state.0' is missing"),
        (None, array, "does not belong"),
        ([leaf, leaf], {**array, "state.1": np.zeros((3, 3), np.float32)}, "the same number of rows"),
        ({**leaf, "axes": 1}, array, r"must be \(-1,\), got \(2, 3\)"),
        ({**leaf, "dtype": "int64"}, array, "must be int64, got float32"),
        ({**leaf, "dtype": "int32"}, array, "dtype must be one of"),
        ({**leaf, "axes": True}, array, "axes must be a whole number"),
        ({"axes": 2}, array, "lacks the outline of a state"),
        (3, array, "lacks the outline of a state"),
        (nested, array, "lacks the outline of a state"),
    ]:
        write_tensors(tmp_path / "s", "rnnfast-state-1", arrays, {"state": outline})
        with pytest.raises(CheckpointError, match=message):
            State.load(tmp_path / "s")
    write_tensors(tmp_path / "s", "rnnfast-state-1", array, {"state": leaf})
    assert State.load(tmp_path / "s").rows == 2
    CBOWLM(5, 3).save(tmp_path / "model")
    with pytest.raises(CheckpointError, match="format must be 'rnnfast-state-1', got 'rnnfast-1'"):
        State.load(tmp_path / "model")
