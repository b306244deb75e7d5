"""`ExactBPTT(memory=...)`: the limit is kept, whatever the model, the lengths and the resets."""

import os
import re

import numpy as np
import pytest
from helpers import needs_jit, peak_of

from rnnfast import RNNLM, ExactBPTT, SequenceRegressor
from rnnfast.layers.base import Workspace

CELLS = ("rnn", "relu", "lstm", "gru")
# 38 and 47 are language models whose last chunk is short.
SEEDS = sorted({38, 47, *range(int(os.environ.get("RNNFAST_PLANS", "12")))})
# Python's own objects are not planned one by one, and count where the limit is below a megabyte.
TOLERANCE = 1.05


def uneven_lengths(rng, N, T):
    shape = rng.choice(["one long", "uniform", "falling", "none or all"])
    if shape == "one long":
        return np.where(np.arange(N) == rng.integers(N), T, rng.integers(0, T // 50 + 2, N))
    if shape == "falling":
        return np.maximum(1, T * 0.7 ** np.arange(N)).astype(int)
    return rng.integers(0, T + 1, N) if shape == "uniform" else np.where(rng.random(N) < 0.5, 0, T)


def random_setting(rng):
    """A model, its data and options."""
    N = int(rng.choice([1, 1, 2, 3, 5, 8, 20, 33, 64, 200, 600]))
    T = max(52, int(np.exp(rng.uniform(np.log(3000), np.log(30_000)))) // N)
    H, depth = int(rng.choice([4, 8, 16, 31, 48, 64, 100])), int(rng.choice([1, 3, 16, 64]))
    common = {
        "cell": str(rng.choice(CELLS)),
        "layers": int(rng.integers(1, 4)),
        "dropout": float(rng.choice([0, 0, 0.3])),
        "dtype": rng.choice([np.float32, np.float64]),
        "rng": rng,
    }
    if rng.random() < 0.4:
        V, tied = int(rng.choice([5, 30, 200, 1000, 3000])), bool(rng.random() < 0.3)
        model = RNNLM(V, H if tied else depth, H, tied=tied, **common)
        return model, tuple(rng.integers(0, V, (2, N, T))), {}
    O = int(rng.choice([1, 2, 10, 50]))  # noqa: E741
    model = SequenceRegressor(depth, H, O, **common)
    shape = (N, T, O) if rng.random() < 0.6 else (N, O)
    data = tuple(rng.standard_normal(s).astype(model.dtype) for s in ((N, T, depth), shape))
    options = {"lengths": uneven_lengths(rng, N, T)} if rng.random() < 0.75 else {}
    return model, data, options | ({"reset": rng.random((N, T)) < 0.02} if rng.random() < 0.4 else {})


def emptied(model):
    """The model as it was made, without scratch memory."""
    model.restore_tape(None)
    model.output._workspace = Workspace()
    model.output._gradients = None
    model.reset_state()
    for layer in model.body.layers:
        layer._full_rows = layer._dstate = None
    return model


def kept_limit(model, data, options, memory):
    """The limit, or the least one where it is refused as too low; and the largest memory in use."""
    try:
        ExactBPTT(memory=memory).gradients(model, *data, **options)
    except ValueError as error:
        found = re.fullmatch(r"ExactBPTT: memory must be at least ([\d.e+]+)MB for .*\.", str(error))
        memory = int(float(found[1]) * 1e6)
    exact = ExactBPTT(memory=memory)
    exact.gradients(model, *data, **options)  # compiles
    emptied(model)
    return memory, peak_of(lambda: exact.gradients(model, *data, **options))


@needs_jit
@pytest.mark.parametrize("seed", SEEDS)
def test_the_limit_is_kept(seed):
    rng = np.random.default_rng(seed)
    model, data, options = random_setting(rng)
    size = data[0].shape[:2]
    least = ExactBPTT(chunk=1).plan(model, *size).memory
    whole = ExactBPTT(chunk=size[1]).plan(model, *size).memory
    wanted = int(least + (whole - least) * rng.choice([0, 0.05, 0.3, 0.7, 1]))
    memory, peak = kept_limit(model, data, options, wanted)
    assert peak <= TOLERANCE * memory, (peak, memory, model.config, size, options)


@needs_jit
@pytest.mark.parametrize(("limit", "enough"), [(20_000_000, False), (80_000_000, True)])
def test_the_limit_is_kept_where_one_sequence_is_much_longer_than_the_others(limit, enough):
    rng = np.random.default_rng(1)
    N, T = 128, 2000
    model = SequenceRegressor(8, 32, 1, cell="lstm", rng=rng)
    data = tuple(rng.standard_normal((N, T, size)).astype(np.float32) for size in (8, 1))
    lengths = np.where(np.arange(N) == 5, T, 20)  # behind step 20 a block of the time grid has 512 steps
    memory, peak = kept_limit(model, data, {"lengths": lengths}, limit)
    assert (memory == limit) is enough
    assert 0.5 * memory < peak <= memory
    if enough:
        assert ExactBPTT(memory=limit).plan(model, N, T, lengths=lengths).chunks > 1


@needs_jit
def test_sequences_without_steps_take_no_memory_for_what_lies_behind_their_ends():
    model = SequenceRegressor(16, 32, 1, cell="lstm", rng=np.random.default_rng(2))
    xs, ts = np.ones((4, 20_000, 16), np.float32), np.ones((4, 20_000, 1), np.float32)
    options = {"lengths": [0] * 4, "reset": np.zeros((4, 20_000), bool)}
    memory, peak = kept_limit(model, (xs, ts), options, 3_000_000)
    assert peak <= memory == 3_000_000
    assert ExactBPTT().gradients(model, xs, ts, **options) == 0.0
    state = model.get_state()
    model.reset_state()
    assert model.forward(xs, ts, **options) == 0.0
    assert all(np.array_equal(a, e) for a, e in zip(state[0], model.get_state()[0], strict=True))


def test_the_least_memory_that_is_named_is_enough():
    model = SequenceRegressor(2, 8, 1)
    for steps in (900, 9000, 12_345, 70_001):
        with pytest.raises(ValueError, match="memory must be at least") as refused:
            ExactBPTT(memory="1kB").plan(model, 1, steps)
        least = re.search(r"[\d.]+MB", str(refused.value))[0]
        assert ExactBPTT(memory=least).plan(model, 1, steps).memory <= ExactBPTT(memory=least).memory
