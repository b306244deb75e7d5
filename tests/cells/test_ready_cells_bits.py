"""Bits of every ready cell and of cells as users write them: batches, chunks, threads, lengths, tapes."""

import copy
import itertools
import pickle

import numpy as np
import pytest
from helpers import assert_same_bits, needs_jit, sized
from user_cells import CELLS, RANDOM, CellWindow, layer_of, run_all

import rnnfast
from rnnfast.engine import load
from rnnfast.engine import threads as _threads
from rnnfast.layers import plans


@pytest.fixture
def teams(monkeypatch):
    """Any window is worth a team, on any machine; which ones ran."""
    before, seen, original = rnnfast.get_num_threads(), [], _threads.run
    monkeypatch.setattr(load, "allowed", lambda: 64)
    monkeypatch.setattr(_threads, "LEAST_OPERATIONS", 1.0)
    monkeypatch.setattr(plans, "LEAST_STEP_OPERATIONS", 0.0)

    def noted(kernel, members, by_units, *rest):
        seen.append((members, by_units))
        return original(kernel, members, by_units, *rest)

    monkeypatch.setattr(_threads, "run", noted)
    yield seen
    rnnfast.set_num_threads(before)


def assert_same(actual, expected):
    assert actual.keys() == expected.keys()
    for name, array in expected.items():
        assert_same_bits(actual[name], array)


def of_rows(result, chosen):
    """The results that belong to sequences, of some of them."""
    of_weights = {"dWx", "dWh", "db", "dbhh", "dalpha", "dgain", "dpeep", "dpf", "dpi", "dpo"}
    return {name: array[chosen] for name, array in result.items() if name not in of_weights}


@pytest.mark.parametrize("name", CELLS)
def test_a_row_does_not_depend_on_the_rest_of_the_batch(name):
    """Random numbers are those of the row's number, so only rows behind it may go."""
    layer = layer_of(name)
    window = CellWindow(layer, 13, sized(6, 3), lengths=True, resets=True)
    whole = run_all(layer, window)
    for count in (1, 3, 12):
        assert_same(
            of_rows(run_all(layer, window.rows(slice(count))), slice(None)), of_rows(whole, slice(count))
        )
    if name not in RANDOM:
        for chosen in ([5], [12, 0, 7], np.arange(13)[::-1]):
            assert_same(of_rows(run_all(layer, window.rows(chosen)), slice(None)), of_rows(whole, chosen))


@pytest.mark.parametrize("name", CELLS)
def test_windows_and_single_steps_give_the_bits_of_one_pass(name):
    N, T = 3, sized(190, 9)  # two blocks of the time grid
    layer = layer_of(name)
    window = CellWindow(layer, N, T)
    expected = window.forward(layer)
    state, drawn = layer.get_state(), layer.rng_state
    layer.set_state(*window.state)
    layer.rng_state = layer.rng_state[0], 0
    for first, last in itertools.pairwise((0, 1, 2, T // 2, T - 2, T - 1, T)):
        given = {arg: array[:, first:last] for arg, array in window.given.items()}
        if last - first == 1:
            given = {arg: array[:, 0] for arg, array in given.items()}
            actual = layer.step(window.xs[:, first], **given)[:, np.newaxis]
        else:
            actual = layer.forward(window.xs[:, first:last], **given)
        assert_same_bits(actual, expected[:, first:last])
    assert layer.rng_state == drawn
    for now, then in zip(layer.get_state(), state, strict=True):
        assert_same_bits(now, then)


@needs_jit
@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize(("N", "H"), [(9, 19), (2, 35)], ids=["by sequences", "by units"])
def test_two_threads_give_the_bits_of_one(name, N, H, teams):
    layer = layer_of(name, 7, H)
    window = CellWindow(layer, N, 130 // N + 3, lengths=N > 8)
    rnnfast.set_num_threads(1)
    expected = run_all(layer, window)
    rnnfast.set_num_threads(2)
    run_all(layer, window)  # the first call on threads runs alone
    teams.clear()
    assert_same(run_all(layer, window), expected)
    assert set(teams) == {(2, N < 8)}


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("threads", [1, 2])
def test_a_tape_made_again_gives_the_bits_of_the_one_kept(name, threads, monkeypatch, teams):
    N, T = 3, sized(400, 7)  # three blocks of the time grid
    rnnfast.set_num_threads(threads)
    layer = layer_of(name, 4, 35 if threads == 2 else 5)
    lengths = [T, T // 2, T - 1] if threads == 1 else False
    window = CellWindow(layer, N, T, lengths=lengths, resets=threads == 1)
    expected = run_all(layer, window)
    assert layer._run.intact == 0
    monkeypatch.setattr(plans, "KEPT_BYTES", 0)
    actual = run_all(layer, window)
    schedule, blocks = layer.loop.schedule, layer._run.rows.blocks.size - 1
    assert (layer._run.intact > 0) == (blocks > 1 and schedule.columns > 0 and schedule.can_remake)
    assert blocks > sized(1, 0)
    assert_same(actual, expected)
    monkeypatch.undo()
    layer.rng_state = layer.rng_state[0], 0
    layer.set_state(*window.state)
    hs = layer.forward(window.xs, keep=False, **window.options, **window.given)
    assert_same_bits(hs, expected["hs"])
    dxs = layer.backward(window.dhs, **window.next_gradient)
    assert_same_bits(dxs, expected["dxs"])
    for parameter, grad in zip(layer.parameter_names, layer.grads, strict=True):
        assert_same_bits(grad, expected[f"d{parameter}"])


@pytest.mark.parametrize("name", CELLS)
def test_a_second_backward_gives_the_same_bits(name):
    layer = layer_of(name)
    window = CellWindow(layer, 3, 5)
    expected = run_all(layer, window)
    dxs = layer.backward(window.dhs, **window.next_gradient)
    assert_same_bits(dxs, expected["dxs"])
    for parameter, grad in zip(layer.parameter_names, layer.grads, strict=True):
        assert_same_bits(grad, expected[f"d{parameter}"])


# Lengths and resets.


@pytest.mark.parametrize("name", CELLS)
def test_rows_behind_their_end_stay_untouched_and_states_are_those_of_the_last_step(name):
    layer = layer_of(name)
    window = CellWindow(layer, 5, 6, lengths=[3, 0, 6, 1, 3])
    result = run_all(layer, window)
    for n, length in enumerate(window.options["lengths"]):
        for array in (result["hs"], result["dxs"], *(result[f"d{given}"] for given in window.given)):
            assert not array[n, length:].any()
        for state, before in zip(layer.cell.states, window.state, strict=True):
            if not length:
                assert_same_bits(result[state][n], before[n])
                assert_same_bits(result[f"d{state}"][n], window.next_gradient[f"d{state}_next"][n])
        if length:
            assert_same_bits(result[layer.cell.states[0]][n], result["hs"][n, length - 1])
    assert all(np.isfinite(array).all() for array in result.values())


@pytest.mark.parametrize("name", CELLS)
def test_no_gradient_crosses_a_reset(name):
    """What lies before a reset sees nothing of what follows, and starts afresh behind it."""
    T, cut = 7, 4
    layer = layer_of(name)
    window = CellWindow(layer, 2, T)
    window.options["reset"] = np.zeros((2, T), bool)
    window.options["reset"][:, cut] = True
    whole = run_all(layer, window)
    layer.rng_state = layer.rng_state[0], 0
    layer.set_state(*window.state)
    first = {arg: array[:, :cut] for arg, array in window.given.items()}
    second = {arg: array[:, cut:] for arg, array in window.given.items()}
    assert_same_bits(layer.forward(window.xs[:, :cut], **first), whole["hs"][:, :cut])
    assert_same_bits(layer.backward(window.dhs[:, :cut]), whole["dxs"][:, :cut])
    for state, d in zip(layer.cell.states, layer.get_state_gradients(), strict=True):
        assert_same_bits(d, whole[f"d{state}"])
    layer.reset_state()
    assert_same_bits(layer.forward(window.xs[:, cut:], **second), whole["hs"][:, cut:])
    assert_same_bits(layer.backward(window.dhs[:, cut:], **window.next_gradient), whole["dxs"][:, cut:])
    for arg in window.given:
        assert_same_bits(layer.given_gradients[arg], whole[f"d{arg}"][:, cut:])


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize(("N", "T"), [(0, 3), (3, 0)])
def test_an_empty_window_changes_nothing(name, N, T):
    layer = layer_of(name)
    full, empty = CellWindow(layer, 3, 4), CellWindow(layer, N, T)
    full.forward(layer)
    before, drawn = layer.get_state(), layer.rng_state
    hs = layer.forward(empty.xs, **empty.given)
    assert hs.shape == (N, T, 5)
    assert layer.backward(hs).shape == (N, T, 3)
    assert not any(grad.any() for grad in layer.grads)
    assert layer.rng_state == drawn
    for now, then in zip(layer.get_state(), before, strict=True):
        assert_same_bits(now, then)


# Copies.


@pytest.mark.parametrize("name", ["lif", "driven", *RANDOM])
def test_copies_go_on_with_the_bits_of_the_original(name):
    layer = layer_of(name)
    window = CellWindow(layer, 2, 5)
    for constant in layer.constants:
        layer.constants[constant] *= 1.5
    window.forward(layer)
    copies = [copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), copy.copy(layer)]
    expected = layer.forward(window.xs, **window.given)
    for copied in copies:
        assert copied.cell is layer.cell
        assert copied.constants == layer.constants
        assert_same_bits(copied.forward(window.xs, **window.given), expected)
        assert copied.rng_state == layer.rng_state
        assert_same_bits(copied.backward(window.dhs), layer.backward(window.dhs))
