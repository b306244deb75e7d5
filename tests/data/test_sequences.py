"""Sequences of unequal lengths, with weights: their batches and windows, training and evaluation on them."""

import itertools
import re

import numpy as np
import pytest
from helpers import assert_same_bits, relative_distance, takes_minutes_interpreted
from hypothesis import given
from hypothesis import strategies as st

import rnnfast
from rnnfast.data import Sequences
from rnnfast.data.batching import SequenceRows, WindowRows, epoch_order
from rnnfast.data.sequences import Batch, Everyone, Ragged

LENGTHS = (9, 2, 7, 5, 9, 1)
every_step = pytest.mark.parametrize("every_step", [True, False])


def model_of(cell="gru", dtype=np.float64, **options):
    return rnnfast.SequenceRegressor(2, 4, 1, cell=cell, rng=np.random.default_rng(0), dtype=dtype, **options)


def data_of(every_step, dtype=np.float64, seed=1):
    """Lists of sequences and of targets, and the same padded with NaN."""
    rng = np.random.default_rng(seed)
    xs = [rng.standard_normal((length, 2)).astype(dtype) for length in LENGTHS]
    padded = np.full((len(LENGTHS), max(LENGTHS), 2), np.nan, dtype)
    for row, x in zip(padded, xs, strict=True):
        row[: len(x)] = x
    if not every_step:
        ts = rng.standard_normal((len(LENGTHS), 1)).astype(dtype)
        return xs, ts, padded, ts
    ts = [rng.standard_normal((length, 1)).astype(dtype) for length in LENGTHS]
    targets = np.full((len(LENGTHS), max(LENGTHS), 1), np.nan, dtype)
    for row, t in zip(targets, ts, strict=True):
        row[: len(t)] = t
    return xs, ts, padded, targets


def gradients_of(model):
    return [grad.copy() for grad in model.grads]


@given(st.lists(st.integers(0, 6), min_size=1, max_size=6), st.integers(0, 6), st.integers(0, 6))
def test_ragged_rows_read_as_the_padded_array(lengths, first, last):
    rng = np.random.default_rng(0)
    rows = [rng.standard_normal((length, 3)) for length in lengths]
    ragged = Ragged(rows)
    padded = np.zeros((len(rows), max(lengths), 3))
    for row, values in zip(padded, rows, strict=True):
        row[: len(values)] = values
    assert ragged.shape == padded.shape
    assert (ragged[:] == padded).all()
    picked = rng.permutation(len(rows))
    assert (ragged[picked, first:last] == padded[picked, first:last]).all()
    assert (ragged[0 : len(rows) // 2, first:] == padded[0 : len(rows) // 2, first:]).all()


@every_step
@pytest.mark.parametrize("as_lists", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("exact", [True, False])
def test_a_window_over_all_steps_has_the_gradients_of_the_whole(every_step, as_lists, weighted, exact):
    xs, ts, padded, targets = data_of(every_step)
    model, other = model_of(), model_of()
    options = {"lengths": np.array(LENGTHS)}
    if weighted:
        options["weights"] = np.random.default_rng(2).random(padded.shape[:2] if every_step else len(xs))
    expected = model.forward(padded, targets, **options)
    model.backward()
    weights = options.get("weights")
    if as_lists and weighted and every_step:
        weights = [row[:length] for row, length in zip(weights, LENGTHS, strict=True)]
    data = Sequences(xs, ts, None, weights) if as_lists else Sequences(padded, targets, LENGTHS, weights)
    bptt = rnnfast.ExactBPTT(chunk=1) if exact else rnnfast.TruncatedBPTT(20)
    (window,) = bptt.windows(other, data, len(xs))
    assert window.loss == pytest.approx(expected, rel=1e-14)
    assert window.tokens == sum(LENGTHS)
    for actual, wanted in zip(other.grads, model.grads, strict=True):
        assert_same_bits(actual, wanted)
    assert other.evaluate(*data[:2], lengths=data.lengths, weights=weights) == pytest.approx(
        expected, rel=1e-14
    )


@every_step
@pytest.mark.parametrize("k1", [1, 2, 4, 9])
def test_windows_that_reach_back_to_the_beginning_add_up_to_the_exact_gradient(every_step, k1):
    xs, ts, padded, targets = data_of(every_step)
    model = model_of()
    expected = model.forward(padded, targets, lengths=LENGTHS)
    model.backward()
    wanted = gradients_of(model)
    found, gradients = [], []
    chain_model = model_of()
    rows = WindowRows(SequenceRows(Sequences(xs, ts), len(xs)), k1)
    counts = []
    for window, _, _ in rows:
        if window.ts is not None:
            inside = window.lengths if every_step else np.minimum(1, window.lengths)
            counts.append(inside.sum() if window.weights is None else (inside * window.weights).sum())
    assert len(counts) == len(rows)
    for window in rnnfast.TruncatedBPTT(k1, k1 + 9).windows(chain_model, (xs, ts), len(xs)):
        found.append(window.loss)
        gradients.append(gradients_of(chain_model))
    assert len(found) == len(counts)
    assert sum(counts) == (sum(LENGTHS) if every_step else len(xs))
    assert np.dot(found, counts) / sum(counts) == pytest.approx(expected, rel=1e-13)
    for number, grad in enumerate(wanted):
        total = sum(count * made[number] for count, made in zip(counts, gradients, strict=True))
        assert relative_distance(total / sum(counts), grad) <= 1e-12


def test_windows_without_a_scored_step_are_read_and_not_counted():
    xs, ts, _, _ = data_of(False)
    weights = np.array([0, 1, 1, 1, 0, 1.0])  # no sequence of 9 steps counts
    rows = WindowRows(SequenceRows(Sequences(xs, ts, None, weights), 6), 3)
    assert [window.ts is None for window, _, _ in rows] == [False, False, False]
    weights[2] = 0  # nor the one of 7
    rows = WindowRows(SequenceRows(Sequences(xs, ts, None, weights), 6), 3)
    assert [window.ts is None for window, _, _ in rows] == [False, False, True]


def test_a_batch_is_as_long_as_its_longest_sequence():
    xs, ts, padded, targets = data_of(True)
    for data in (Sequences(xs, ts), Sequences(padded, targets, LENGTHS)):
        rows = SequenceRows(data, 2, np.array([1, 5, 3, 2, 0, 4]))
        assert [batch.xs.shape[1] for batch in rows] == [2, 7, 9]
        assert rows.tokens == sum(LENGTHS)
        assert len(WindowRows(rows, 4)) == 1 + 2 + 3


@given(st.integers(1, 200), st.integers(1, 9), st.integers(0, 5))
def test_an_order_by_length_is_a_permutation_and_a_function_of_its_arguments(count, batch_size, seed):
    lengths = np.random.default_rng(seed).integers(1, 50, count)
    order = epoch_order(seed, 1, count, lengths, batch_size)
    assert sorted(order) == list(range(count))
    assert (order == epoch_order(seed, 1, count, lengths, batch_size)).all()
    whole = count // batch_size * batch_size
    batches = lengths[order[:whole]].reshape(-1, batch_size)
    if count <= 32 * batch_size:  # one pool
        spans = sorted(zip(batches.min(axis=1), batches.max(axis=1), strict=True))
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))


@takes_minutes_interpreted
@every_step
def test_training_on_lists_learns_and_a_killed_run_ends_in_the_same_bits(every_step, tmp_path):
    rng = np.random.default_rng(5)
    lengths = rng.integers(1, 30, 64)
    xs = [rng.standard_normal((length, 2)).astype(np.float32) for length in lengths]
    sums = [np.cumsum(x[:, :1], axis=0) / 5 for x in xs]
    ts = sums if every_step else np.stack([one[-1] for one in sums])
    data, valid = Sequences(xs[:48], ts[:48]), Sequences(xs[48:], ts[48:])

    class Killed(BaseException):
        pass

    def stop(progress):
        if progress.step == 17:
            raise Killed

    def run(epochs, **options):
        model = model_of("lstm", np.float32)
        trainer = rnnfast.Trainer(
            model, rnnfast.optim.Adam(lr=0.02), rnnfast.TruncatedBPTT(8), clip_norm=1.0, anneal=None,
            rng=np.random.default_rng(3), callback=options.pop("callback", None),
        )  # fmt: skip
        return model, trainer.fit(data, epochs=epochs, batch_size=8, valid=valid, **options)

    model, history = run(12)
    assert history[-1]["valid_loss"] < 0.7 * history[0]["valid_loss"]
    file = tmp_path / "run.safetensors"
    with pytest.raises(Killed):
        run(12, checkpoint_file=file, checkpoint_every=0, callback=stop)
    again, _ = run(12, checkpoint_file=file, resume=True)
    for actual, expected in zip(again.params, model.params, strict=True):
        assert_same_bits(actual, expected)


def test_a_run_does_not_resume_with_other_weights(tmp_path):
    xs, ts, _, _ = data_of(False, np.float32)
    file = tmp_path / "run.safetensors"
    for weights, message in ((np.ones(6), None), (np.arange(1, 7), "other data")):
        trainer = rnnfast.Trainer(model_of(dtype=np.float32), rnnfast.optim.SGD(lr=0.1))
        data = Sequences(xs, ts, None, weights)
        options = {"epochs": 1, "batch_size": 3, "checkpoint_file": file, "resume": True}
        if message is None:
            trainer.fit(data, **options)
        else:
            with pytest.raises(rnnfast.CheckpointError):
                trainer.fit(data, **options)


def test_targets_of_weight_zero_and_padding_are_never_blamed_for_a_divergence():
    _, _, padded, targets = data_of(True, np.float32)
    weights = np.ones(padded.shape[:2])
    weights[0, 3], targets[0, 3] = 0, np.nan
    trainer = rnnfast.Trainer(model_of(dtype=np.float32), rnnfast.optim.SGD(lr=0.1), rnnfast.TruncatedBPTT(4))
    trainer.fit(Sequences(padded, targets, LENGTHS, weights), epochs=1, batch_size=6)
    targets[2, 6] = np.nan
    with pytest.raises(
        rnnfast.TrainingDiverged, match="the targets are not finite: nan in sequence 2 at step 6"
    ):
        trainer.fit(Sequences(padded, targets, LENGTHS, weights), epochs=1, batch_size=6)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"xs": []}, ValueError, "xs must have at least one sequence, got an empty list"),
        ({"xs": [np.ones((3, 2)), [1.0]]}, TypeError, "xs[1] must be a NumPy array, got list"),
        ({"xs": [np.ones((3, 2)), np.ones((3, 4))]}, ValueError, "xs[1] must be (T, 2), got (3, 4)"),
        (
            {"xs": [np.ones((3, 2)), np.ones((3, 2), np.float32)]},
            TypeError,
            "xs[1] must be float64 like the first, got float32",
        ),
        ({"ts": [np.ones((9, 1))] * 6}, ValueError, "ts[1] must have 2 steps like its sequence, got 9"),
        ({"lengths": LENGTHS}, ValueError, "lengths belongs to arrays; those of lists are known"),
        ({"weights": np.ones(5)}, ValueError, "weights must be (6, 9) or (6,), got (5,)"),
        ({"weights": -np.ones(6)}, ValueError, "weights must be finite and at least 0, got -1.0 at (0, 0)"),
    ],
)
def test_wrong_sequences_are_refused_in_one_sentence(change, error, message):
    xs, ts, _, _ = data_of(True)
    trainer = rnnfast.Trainer(model_of(), rnnfast.optim.SGD(lr=0.1))
    with pytest.raises(error, match=re.escape(message)) as caught:
        trainer.fit(Sequences(xs, ts)._replace(**change), epochs=1, batch_size=2)
    assert re.fullmatch(r"Trainer\.fit: [^\n]*\.", str(caught.value))


def test_k2_is_not_measured_on_unequal_lengths():
    xs, ts, _, _ = data_of(True)
    trainer = rnnfast.Trainer(model_of(), rnnfast.optim.SGD(lr=0.1), rnnfast.TruncatedBPTT(2, "auto"))
    with pytest.raises(ValueError, match="measures on sequences of equal lengths; give k2 as a number"):
        trainer.fit((xs, ts), epochs=1, batch_size=2)


@pytest.mark.parametrize("weights", [None, np.array([2.0, 3.0])])
def test_a_window_scores_only_the_sequences_that_end_in_it(weights):
    xs, ts, lengths = np.zeros((2, 9, 1)), np.zeros((2, 1)), np.array([4, 9])
    scale = np.ones(2) if weights is None else weights
    whole = Batch(xs, ts, lengths, weights)
    np.testing.assert_array_equal(whole.window(0, 5).weights, scale * [1, 0])
    np.testing.assert_array_equal(whole.window(5, 9).weights, scale * [0, 1])
    # A process that has the longer one alone also reads the targets of a window in which the other ends.
    own = None if weights is None else weights[1:]
    part = Batch(xs[1:], ts[1:], lengths[1:], own, everyone=Everyone(2, lengths, weights))
    assert part.window(0, 5).ts is not None
    np.testing.assert_array_equal(part.window(0, 5).weights, [0])
    assert part.window(0, 3).ts is None
