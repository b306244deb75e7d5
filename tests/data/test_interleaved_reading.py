"""Reading changes no bit of training, in any order, beside a twin that only trains."""

import copy
import os
import pickle

import numpy as np
import pytest
from helpers import assert_same_bits, normal, sized

from rnnfast import CBOWLM, RNNLM, ExactBPTT, SequenceRegressor, State, TruncatedBPTT, optim, perplexity
from rnnfast.diagnostics import (
    gate_saturation,
    gradient_by_lag,
    spectral_radius,
    truncation_bias,
    truncation_curve,
)

CASES = int(os.environ.get("RNNFAST_INTERLEAVINGS", sized(150, 8)))
V, D, OUTPUTS = 7, 3, 2
CELLS = ("rnn", "relu", "lstm", "gru")


def other_text(rng, rows=1):
    return rng.integers(V, size=(rows, int(rng.integers(4, 12))))


def carried_on(model, read):
    """A reading that carries the state on, which the caller puts back."""
    state = State.of(model)
    model.reset_state()
    read()
    model.set_state(state)


TEXT_READERS = {
    "next_proba": lambda m, rng: m.next_proba(other_text(rng)[0]),
    "generate": lambda m, rng: m.generate([1, 2], 4, rng=np.random.default_rng(0)),
    "log_prob": lambda m, rng: m.log_prob(other_text(rng)[0]),
    "perplexity": lambda m, rng: perplexity(m, other_text(rng)[0]),
    "predict": lambda m, rng: carried_on(m, lambda: m.predict(other_text(rng, 3))),
    "predict_proba": lambda m, rng: carried_on(m, lambda: m.predict_proba(other_text(rng, 2))),
    "losses": lambda m, rng: carried_on(m, lambda: m.losses(*[other_text(rng, 2)] * 2)),
}
SERIES_READERS = {
    "predict": lambda m, rng: m.predict(normal(rng, (3, 8, D), m.dtype)),
    "predict, carried on": lambda m, rng: carried_on(
        m, lambda: m.predict(normal(rng, (3, 8, D), m.dtype), carry=True)
    ),
    "predict, uneven": lambda m, rng: m.predict(
        normal(rng, (2, 8, D), m.dtype), lengths=[8, 3], reset=rng.random((2, 8)) < 0.3
    ),
    "evaluate": lambda m, rng: m.evaluate(
        normal(rng, (3, 8, D), m.dtype), normal(rng, (3, 8, OUTPUTS), m.dtype), batch_size=2
    ),
}
ANY_READERS = {
    "state": lambda m, rng: State.of(m),
    "deepcopy": lambda m, rng: train_once(copy.deepcopy(m), rng),
    "pickle": lambda m, rng: train_once(pickle.loads(pickle.dumps(m)), rng),
    "copy": lambda m, rng: read_once(copy.copy(m), rng),
    "repr": lambda m, rng: repr(m),
}


def pair(model, rng, rows=2, steps=9):
    """Inputs and targets of another window."""
    if isinstance(model, SequenceRegressor):
        return normal(rng, (rows, steps, D), model.dtype), normal(rng, (rows, steps, OUTPUTS), model.dtype)
    ids = rng.integers(V, size=(rows, steps + 1))
    return ids[:, :-1], ids[:, 1:]


DIAGNOSTICS = {
    "truncation_bias": lambda m, rng: truncation_bias(m, *pair(m, rng), 2, int(rng.integers(2, 6))),
    "truncation_curve": lambda m, rng: truncation_curve(m, *pair(m, rng), ks=[2, 4]),
    "gradient_by_lag": lambda m, rng: gradient_by_lag(m, *pair(m, rng), lags=3),
    "gate_saturation": lambda m, rng: gate_saturation(m, pair(m, rng)[0]),
    "spectral_radius": lambda m, rng: spectral_radius(m),
}


def train_once(model, rng):
    model.reset_state()
    model.forward(*pair(model, rng))
    model.backward()
    optim.SGD(lr=0.1).update(model.params, model.grads)


def read_once(model, rng):
    model.reset_state()
    model.predict(pair(model, rng)[0])


def readers_of(model):
    readers = dict(ANY_READERS)
    readers |= SERIES_READERS if isinstance(model, SequenceRegressor) else TEXT_READERS
    return readers | ({} if isinstance(model, CBOWLM) else DIAGNOSTICS)


def a_model(rng):
    seed, dtype = int(rng.integers(1000)), rng.choice([np.float32, np.float64])
    own = {"rng": np.random.default_rng(seed), "dtype": dtype}
    kind = rng.choice(["text", "series", "cbow"], p=[0.5, 0.4, 0.1])
    if kind == "cbow":
        return CBOWLM(V, 4, window=2, **own)
    own |= {
        "cell": str(rng.choice(CELLS)),
        "layers": int(rng.integers(1, 3)),
        "dropout": float(rng.choice([0.0, 0.3])),
    }
    if kind == "series":
        return SequenceRegressor(D, 5, OUTPUTS, **own)
    tied = bool(rng.random() < 0.5)
    return RNNLM(V, 5, 5 if tied else 4, tied=tied, **own)


def a_way(model, rng):
    """Windows of a random way of training, or None for forward and backward by hand."""
    ways = [None, TruncatedBPTT(int(rng.integers(2, 7)))]
    if not isinstance(model, CBOWLM):
        k1 = int(rng.integers(2, 7))
        ways += [
            TruncatedBPTT(k1, k1 + int(rng.integers(1, 12))),
            TruncatedBPTT(k1, "auto", tolerance=0.5),
            ExactBPTT(),
            ExactBPTT(chunk=int(rng.integers(1, 9))),
        ]
    return ways[int(rng.integers(len(ways)))]


def some_data(model, rng):
    if isinstance(model, SequenceRegressor):
        xs = normal(rng, (4, 21, D), model.dtype)
        return xs, normal(rng, (4, 21, OUTPUTS) if rng.random() < 0.5 else (4, OUTPUTS), model.dtype)
    return rng.integers(V, size=60)


def update(model):
    optim.clip_by_norm(model.grads, 1.0)  # diagnostics refuse a model that has diverged
    optim.SGD(lr=0.05).update(model.params, model.grads)


def train(model, way, data, read):
    """One pass; `read` is called at every point where a user could read."""
    if way is None:
        rng = np.random.default_rng(3)
        options = {"carry": True} if isinstance(model, SequenceRegressor) else {}
        model.reset_state()
        for _ in range(4):
            losses = [model.forward(*pair(model, rng), **options)]
            read(model)
            model.backward()
            read(model)
            update(model)
            read(model)
        return losses
    losses = []
    for window in way.windows(model, data, batch_size=2):
        read(model)
        update(model)
        losses.append(window.loss)
        read(model)
    return losses


def check_case(seed):
    rng = np.random.default_rng(seed)
    model = a_model(rng)
    way, data = a_way(model, rng), some_data(model, rng)
    twin = copy.deepcopy(model)
    readers, done = readers_of(model), []

    def read(model):
        for name in rng.choice(list(readers), size=int(rng.integers(0, 3))):
            done.append(str(name))
            readers[str(name)](model, np.random.default_rng(int(rng.integers(1 << 30))))

    losses = train(model, way, data, read)
    about = f"seed {seed}: {type(model).__name__} {model.config}, {way}, {done}"
    assert losses == train(twin, way, data, lambda model: None), about
    assert State.of(model) == State.of(twin), about
    for actual, expected in zip(model.params + model.grads, twin.params + twin.grads, strict=True):
        assert_same_bits(actual, expected)


@pytest.mark.filterwarnings("ignore:.*invalid value:RuntimeWarning")
def test_any_reading_between_any_steps_of_training_changes_no_bit():
    for seed in range(CASES):
        check_case(seed)
