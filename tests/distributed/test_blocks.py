"""Gradients by blocks of rows: the tree sum of the gradients of each block alone, bit for bit."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from helpers import assert_same_bits, kernel_calls
from threads_as_ranks import on_ranks, tree

import rnnfast
from rnnfast import cells
from rnnfast.heads import categorical
from rnnfast.layers import plans
from rnnfast.layers.window import Blocks
from rnnfast.models import CBOWLM, RNNLM
from rnnfast.models.network import Network
from rnnfast.training.processes import BatchBlocks, blocks_of

CELLS = {
    "lstm": (cells.lstm, np.float32),
    "gru reset after": (cells.gru_after, np.float32),
    "diagonal": (cells.ind_rnn, np.float32),
    "noise": (cells.leaky, np.float32),
    "units": (cells.lif, np.float32),
    "float64, a late product": (cells.gru, np.float64),
}
SHAPES = {"several blocks of steps": (16, 130), "rows left over": (13, 7), "fewer rows than blocks": (3, 9)}


def bounds_of(rows, number):
    return np.concatenate(([0], np.cumsum([part.size for part in np.array_split(np.arange(rows), number)])))


def assert_adds_blocks(cell, dtype, shape, number, lengths):
    """A pass has the bits of passes over each block alone, and their gradients added by the tree."""
    (N, T), rng = shape, np.random.default_rng(0)
    xs, dhs = (rng.standard_normal((N, T, width)).astype(dtype) for width in (5, 9))
    given = {"reset": rng.random((N, T)) < 0.1}
    given |= {"lengths": rng.integers(0, T + 1, N)} if lengths else {}
    bounds = bounds_of(N, number)

    def layer():
        made = cell.layer(5, 9, rng=np.random.default_rng(1), dtype=dtype)
        made.train_flg = False
        return made

    whole = layer()
    whole.read(xs, blocks=Blocks(bounds), **given)
    for grad in whole.grads:
        grad[...] = np.nan
    dxs, parts = whole.backpropagate(dhs), []
    for first, last in itertools.pairwise(bounds):
        one, rows = layer(), slice(first, last)
        one.forward(xs[rows], **{name: array[rows] for name, array in given.items()})
        assert_same_bits(dxs[rows], one.backward(dhs[rows]))
        parts.append([grad.copy() for grad in one.grads])
    for index, parameter in enumerate(whole.parameter_names):
        role = cell.roles.get(parameter)
        if role is None or role.kind != "scalar":
            assert_same_bits(whole.grads[index], tree(part[index] for part in parts))


@pytest.mark.parametrize("lengths", [False, True], ids=["equal", "lengths"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", CELLS)
def test_a_layer_adds_the_gradients_of_each_block_alone(name, shape, lengths):
    assert_adds_blocks(*CELLS[name], SHAPES[shape], 4, lengths)


@pytest.mark.parametrize("lengths", [False, True], ids=["equal", "lengths"])
def test_tapes_that_are_recomputed_change_no_bit(lengths, monkeypatch):
    monkeypatch.setattr(plans, "KEPT_BYTES", 0)
    assert_adds_blocks(*CELLS["lstm"], (16, 130), 8, lengths)


# Models on several ranks. Each case: a model, the rows of a batch, and its batches.

RNG = np.random.default_rng(0)


def text(V, N, T=9):
    return [{"xs": RNG.integers(0, V, (N, T)), "ts": RNG.integers(-1, V, (N, T))} for _ in range(2)]


def sequences(N, T, targets, dtype=np.float32, lengths=True):
    """Weights are those of steps where every step has a target, else of sequences."""
    batches = []
    for _ in range(2):
        ts = RNG.standard_normal((N, 1) if targets == "last" else (N, T, 1))
        ts = RNG.integers(0, 4, (N, 1)) if targets == "classes" else ts
        batch = {"xs": RNG.standard_normal((N, T, 3)).astype(dtype), "ts": ts.astype(dtype)}
        if lengths:
            batch |= {"lengths": RNG.integers(0, T + 1, N), "weights": RNG.random(ts.shape[:-1])}
        batches.append(batch)
    return batches


def seeded():
    return {"rng": np.random.default_rng(1)}


MODELS = {
    "dropout": (lambda: RNNLM(50, 8, 8, cell="lstm", layers=2, dropout=0.3, **seeded()), text(50, 20)),
    "words looked up": (lambda: RNNLM(9, 8, 8, cell="lstm", **seeded()), text(9, 24, 20)),
    "tied": (lambda: RNNLM(50, 8, 8, cell="lstm", tied=True, **seeded()), text(50, 21)),
    "cbow": (lambda: CBOWLM(50, 8, **seeded()), text(50, 20)),
    "empty ranks": (lambda: RNNLM(50, 8, 8, cell="lstm", dropout=0.3, **seeded()), text(50, 5)),
    "regressor": (
        lambda: rnnfast.SequenceRegressor(3, 8, 1, dropout=0.2, head="gaussian", **seeded()),
        sequences(19, 11, "steps"),
    ),
    "float64": (
        lambda: rnnfast.SequenceRegressor(3, 8, 1, cell="gru", dtype=np.float64, **seeded()),
        sequences(19, 11, "steps", np.float64),
    ),
    "last step": (lambda: rnnfast.SequenceRegressor(3, 8, 1, **seeded()), sequences(3, 11, "last")),
    "network": (
        lambda: Network(3, 8, 1, head=categorical(4), bidirectional=True, layers=2, dropout=0.2, **seeded()),
        sequences(17, 11, "classes"),
    ),
    "noise": (
        lambda: rnnfast.SequenceRegressor(3, 8, 1, cell=cells.leaky, **seeded()),
        sequences(16, 40, "last", lengths=False),
    ),
    "units": (
        lambda: rnnfast.SequenceRegressor(3, 8, 1, cell=cells.lif, **seeded()),
        sequences(3, 40, "last", lengths=False),
    ),
}


def passes(make, batches, size):
    """Losses and gradients of every batch on each rank; carried states and random numbers go on."""
    count = len(batches[0]["xs"])

    def work(rank):
        model, found = make(), []
        cut = BatchBlocks(8, rank).cut(count)
        for batch in batches:
            own = {name: array[cut.rows] for name, array in batch.items()}
            found.append(np.array(model.forward(own.pop("xs"), own.pop("ts"), blocks=cut.blocks, **own)))
            for grad in model.grads:
                grad[...] = np.nan
            model.backward()
            found += [grad.copy() for grad in model.grads]
        return found

    return on_ranks(size, work)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_has_the_same_losses_and_gradients_on_any_number_of_ranks(name):
    make, batches = MODELS[name]
    expected = passes(make, batches, 1)[0]
    for size in (2, 4, 8):
        for found in passes(make, batches, size):
            for one, two in zip(expected, found, strict=True):
                assert_same_bits(one, two)


@pytest.mark.usefixtures("shared_windows")
@pytest.mark.parametrize("name", ["words looked up", "regressor", "float64", "network", "tied"])
def test_threads_change_no_bit_of_gradients_by_blocks(name, monkeypatch):
    make, batches = MODELS[name]
    found, seen = [], kernel_calls(monkeypatch)
    for threads in (1, 2, 2):  # a kernel's first call compiles it on one
        rnnfast.set_num_threads(threads)
        seen.clear()
        found.append(passes(make, batches, 1)[0])
        assert {members for members, _ in seen} >= {threads}
    for actual in found[1:]:
        for one, two in zip(found[0], actual, strict=True):
            assert_same_bits(one, two)


@pytest.mark.parametrize("name", ["tied", "regressor", "network", "cbow", "words looked up"])
def test_blocks_change_gradients_by_rounding_only(name):
    make, batches = MODELS[name]
    expected, batch = passes(make, batches, 1)[0], dict(batches[0])
    model = make()
    loss = model.forward(batch.pop("xs"), batch.pop("ts"), **batch)
    model.backward()
    np.testing.assert_allclose(loss, expected[0], rtol=1e-12)
    for one, two in zip(model.grads, expected[1:], strict=False):
        assert np.abs(one - two).max() <= 1e-5 * np.abs(one).max()


# How batches are cut.


def test_the_number_of_blocks_follows_from_the_batch_size():
    assert [blocks_of(size) for size in (1, 9, 10, 19, 20, 39, 40, 1000)] == [1, 1, 2, 2, 4, 4, 8, 8]


@pytest.mark.parametrize("count", [0, 1, 5, 8, 21])
@pytest.mark.parametrize("lengths", [False, True])
def test_every_row_is_in_one_block_and_blocks_have_equal_work(count, lengths):
    steps = np.random.default_rng(0).integers(0, 50, count) if lengths else None
    whole = BatchBlocks(8).cut(count, steps)
    assert sorted(whole.rows) == list(range(count))
    sizes = np.diff(whole.blocks.bounds)
    assert sizes.size == 8
    assert sizes.max() - sizes.min() <= 1
    assert whole.blocks.least == sizes.min()
    if steps is not None:
        work = [steps[whole.rows[rows]].sum() for rows in whole.blocks.rows()]
        assert max(work) - min(work) <= steps.max(initial=0)

    def parts(rank):
        cut = BatchBlocks(8, rank).cut(count, steps)
        assert cut.blocks.first == cut.among.start
        assert cut.blocks.bounds[-1] == cut.rows.size
        return cut.rows

    for size in (2, 4, 8):
        assert np.concatenate(on_ranks(size, parts)).tolist() == whole.rows.tolist()
