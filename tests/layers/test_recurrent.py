"""What holds for every recurrent layer: values, gradients, lengths, resets, streaming, memory, and errors."""

import itertools
import re
import warnings

import hypothesis.strategies as st
import numba
import numpy as np
import pytest
import reference
from cell_cases import KINDS, Window, another, assert_close, gradients, make, naive_run, naive_twin, run
from helpers import DTYPES, assert_same_bits, needs_jit, relative_distance, sized
from hypothesis import given, settings
from numba.core.registry import cpu_target
from rnnfast.kernels import _jit
from rnnfast.kernels.product.tile import panel_width
from rnnfast.kernels.recurrence.recurrence import time_loop
from rnnfast.kernels.recurrence.sequence import BLOCK_ROWS, block_steps

from rnnfast import TimeGRU, TimeLSTM, cells
from rnnfast.layers import plans

LANES = panel_width(np.dtype(np.float32)) // 2
TOLERANCE = {np.float32: 1e-5, np.float64: 1e-11}

# (N, T, D, H): ones; H around the edges of vectors and panels; T and N around one block of the time grid.
SIZES = [
    (1, 1, 1, 1),
    (1, 3, 2, 1),
    (3, 35, 7, LANES - 1),
    (2, 9, LANES + 1, LANES),
    (13, 4, 2 * LANES + 3, 2 * LANES + 1),
    (sized(100, 40), 7, 3, 4),
    (BLOCK_ROWS + 4, 2, 2, 3),
    (3, 2 * block_steps(3) + 1, 2, 5),
]
OPTIONS = [
    dict(zip(("lengths", "resets", "state", "next_gradient"), chosen, strict=True))
    for chosen in itertools.product((False, True), repeat=4)
]


def named(options):
    return "+".join(name for name, chosen in options.items() if chosen) or "plain"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", [OPTIONS[0], OPTIONS[-1]], ids=named)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_outputs_and_all_gradients_equal_the_reference(size, kind, options, dtype):
    N, T, D, H = size
    layer = make(kind, D, H, dtype)
    window = Window(layer, N, T, **options)
    assert_close(run(layer, window), naive_run(naive_twin(layer), window), TOLERANCE[dtype] * max(1, T / 35))


@pytest.mark.parametrize("options", OPTIONS, ids=named)
@pytest.mark.parametrize("kind", KINDS)
def test_every_combination_of_options_equals_the_reference(kind, options):
    layer = make(kind, 4, 5, np.float64)
    window = Window(layer, 6, 11, **options)
    assert_close(run(layer, window), naive_run(naive_twin(layer), window), 1e-11)


@pytest.mark.parametrize("options", OPTIONS, ids=named)
@pytest.mark.parametrize("kind", KINDS)
def test_every_gradient_equals_central_differences(kind, options):
    layer = make(kind, 3, 4, np.float64, seed=3)
    window = Window(layer, 3, 4, seed=4, **options)
    window.xs = np.where(np.isnan(window.xs), 0, window.xs)
    window.dhs = np.where(np.isnan(window.dhs), 0, window.dhs)

    def loss():
        total = (window.forward(layer) * window.dhs).sum()
        for d, reached in zip(window.next_gradient.values(), layer.get_state(), strict=False):
            total += (reached * d).sum()
        return total

    actual = run(layer, window)
    arrays = {"dxs": window.xs, **dict(zip(gradients(layer), layer.params, strict=True))}
    if window.state:
        arrays |= {f"d{name}": array for name, array in zip(layer.cell.states, window.state, strict=True)}
    for name, array in arrays.items():
        expected = reference.central_differences(loss, array, step=1e-6)
        assert relative_distance(actual[name], expected) <= 1e-5, name


@settings(max_examples=sized(25, 4))
@given(st.sampled_from(KINDS), st.sampled_from(DTYPES), st.booleans(), st.integers(0, 2**32 - 1))
def test_each_row_of_a_padded_batch_equals_that_row_alone(kind, dtype, resets, seed):
    rng = np.random.default_rng(seed)
    N, T = int(rng.integers(1, 16)), int(rng.integers(1, sized(60, 9)))
    layer = make(kind, 3, 19, dtype)
    window = Window(layer, N, T, seed=seed, lengths=True, resets=resets)
    expected = run(layer, window)
    weights = {name: np.zeros(d.shape) for name, d in gradients(layer).items()}
    for n in rng.permutation(N):
        length = int(window.options["lengths"][n])
        row = slice(n, n + 1)
        alone = Window(layer, 1, length)
        alone.xs, alone.dhs = window.xs[row, :length], window.dhs[row, :length]
        alone.state = [array[row] for array in window.state]
        alone.next_gradient = {name: d[row] for name, d in window.next_gradient.items()}
        if resets:
            alone.options["reset"] = window.options["reset"][row, :length]
        actual = run(layer, alone)
        for name in ("hs", "dxs"):
            assert_same_bits(actual[name], expected[name][row, :length])
            assert not expected[name][n, length:].any()
        for name in (*layer.cell.states, *(f"d{state}" for state in layer.cell.states)):
            assert_same_bits(actual[name], expected[name][row])
        for name in weights:
            weights[name] += actual[name]
    for name, total in weights.items():
        assert relative_distance(expected[name], total) <= 50 * np.finfo(dtype).eps, name


@settings(max_examples=sized(25, 4))
@given(st.sampled_from(KINDS), st.sampled_from(DTYPES), st.integers(0, 2**32 - 1))
def test_a_reset_inside_equals_two_separate_sequences(kind, dtype, seed):
    rng = np.random.default_rng(seed)
    T = int(rng.integers(2, sized(300, 12)))
    cut = int(rng.integers(1, T))
    layer = make(kind, 3, 7, dtype)
    window = Window(layer, 1, T, seed=seed)
    window.options["reset"] = np.zeros((1, T), bool)
    window.options["reset"][0, cut] = True
    expected = run(layer, window)
    first, second = (Window(layer, 1, cut), Window(layer, 1, T - cut, state=False))
    first.xs, first.dhs, first.state = window.xs[:, :cut], window.dhs[:, :cut], window.state
    first.next_gradient = {}
    second.xs, second.dhs, second.next_gradient = (
        window.xs[:, cut:],
        window.dhs[:, cut:],
        window.next_gradient,
    )
    parts = run(layer, first), run(layer, second)
    for name in ("hs", "dxs"):
        assert_same_bits(np.concatenate([part[name] for part in parts], axis=1), expected[name])
    for name in layer.cell.states:
        assert_same_bits(parts[1][name], expected[name])
        assert_same_bits(parts[0][f"d{name}"], expected[f"d{name}"])
    for name in gradients(layer):
        assert relative_distance(expected[name], parts[0][name] + parts[1][name]) <= 50 * np.finfo(dtype).eps


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", [OPTIONS[0], OPTIONS[-1]], ids=named)
@pytest.mark.parametrize("kind", ["lstm", "gru-before", "gru-after"])
@pytest.mark.parametrize("why", ["too many", "asked for"])
def test_gates_made_again_have_the_bits_of_those_kept(why, kind, options, dtype, monkeypatch):
    N, T = 5, sized(3 * block_steps(5) + 2, 2 * block_steps(5) + 2)
    layer = make(kind, 3, 9, dtype)
    window = Window(layer, N, T, **options)
    expected = run(layer, window)
    if why == "too many":
        monkeypatch.setattr(plans, "KEPT_BYTES", 0)
    else:
        window.options["keep"] = False
    thrifty = another(layer)
    actual = run(thrifty, window)
    if not options["lengths"]:  # or one block may be enough
        assert thrifty._workspace._buffers["tape"].size < layer._workspace._buffers["tape"].size / 2
    again = {"dxs": thrifty.backward(window.dhs, **window.next_gradient), **gradients(thrifty)}
    for name in expected:
        assert_same_bits(actual[name], expected[name])
    for name in again:
        assert_same_bits(again[name], expected[name])


@pytest.mark.parametrize("kind", ["lstm", "gru-before"])
def test_each_window_keeps_its_gates_or_not_whatever_the_last_one_did(kind):
    layer = make(kind, 3, 9, np.float32)
    window = Window(layer, 5, 2 * block_steps(5) + 2)
    expected = run(layer, window)
    for keep in (False, True, True, True, False, False, True):
        window.options["keep"] = keep
        actual = window.forward(layer)
        assert (layer._run.intact == 0) is keep
        dxs = layer.backward(window.dhs, **window.next_gradient)
        assert_same_bits(actual, expected["hs"])
        assert_same_bits(dxs, expected["dxs"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_plan_serves_other_lengths_with_the_bits_of_a_new_one(kind):
    layer, made = make(kind, 3, 9, np.float32), []
    window = Window(layer, 5, 12)
    for lengths in ([12, 9, 0, 5, 7], [3, 9, 2, 2, 11], [12, 9, 0, 5, 7], [12, 9, 5, 5, 7]):
        window.options["lengths"] = lengths
        actual, expected = run(layer, window), run(another(layer), window)
        for name in expected:
            assert_same_bits(actual[name], expected[name])
        run(layer, window)  # after the arrays of `backward` have grown
        made.append(layer._workspace.plans["forward"][2])
    assert made[0] is made[1] is made[2] is not made[3]


@pytest.mark.parametrize("kind", ["lstm", "gru-before"])
def test_a_long_window_needs_little_more_memory_than_its_outputs(kind, monkeypatch):
    monkeypatch.setattr(plans, "KEPT_BYTES", 2**16)
    layer = make(kind, 8, 16, np.float32)
    window = Window(layer, 4, sized(20_000, 1000))
    hs = window.forward(layer)
    layer.backward(window.dhs)
    assert layer._workspace.nbytes <= 1.25 * hs.nbytes + sized(2**20, 2**21)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("N", "T"), [(0, 3), (3, 0), (0, 0)])
def test_empty_windows_give_empty_results_and_zero_gradients(N, T, kind):
    layer = make(kind, 4, 5, np.float32)
    window = Window(layer, N, T, lengths=True, resets=True)
    actual = run(layer, window)
    for name, initial in zip(layer.cell.states, window.state, strict=True):
        assert_same_bits(actual[name], initial)
        assert_same_bits(actual[f"d{name}"], window.next_gradient[f"d{name}_next"])
    assert not any(d.any() for d in gradients(layer).values())


@pytest.mark.parametrize("kind", KINDS)
def test_sequences_without_a_step_leave_the_state_alone(kind):
    layer = make(kind, 2, 3, np.float64)
    window = Window(layer, 4, 6)
    window.options["lengths"] = [0, 0, 0, 0]
    actual = run(layer, window)
    assert not actual["hs"].any()
    for name, initial in zip(layer.cell.states, window.state, strict=True):
        assert_same_bits(actual[name], initial)
    assert not any(d.any() for d in gradients(layer).values())


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_backward_gives_the_same_bits(kind):
    layer = make(kind, 3, 5, np.float32)
    window = Window(layer, 3, 40)
    expected = run(layer, window)
    layer.backward(-window.dhs)
    actual = {"dxs": layer.backward(window.dhs, **window.next_gradient), **gradients(layer)}
    for name in actual:
        assert_same_bits(actual[name], expected[name])


def test_lstm_starts_from_a_zero_cell_when_only_h_is_set():
    layer = make("lstm", 3, 4, np.float32)
    h = np.ones((2, 4), np.float32)
    layer.set_state(h)
    assert not layer.c.any()
    layer.reset_state()
    assert layer.h is None
    assert layer.c is None
    assert layer.get_state() is None


def test_setting_the_state_of_a_stateless_layer_warns():
    for kind in KINDS:
        layer = make(kind, 3, 4, np.float32, stateful=False)
        xs = np.ones((2, 3, 3), np.float32)
        expected = layer.forward(xs)
        with pytest.warns(UserWarning, match=r"set_state: it will have no effect on forward"):
            layer.set_state(np.ones((2, 4), np.float32))
        assert_same_bits(layer.forward(xs), expected)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            layer.set_state(None)


@pytest.mark.parametrize("kind", KINDS)
def test_lengths_cost_no_more_than_the_steps_they_name(kind):
    """Rows behind an end are not made: the states have none for them."""
    layer = make(kind, 3, 4, np.float32)
    layer.forward(np.ones((4, 50, 3), np.float32), lengths=[50, 1, 0, 2])
    assert layer._run.saved[0].shape[0] == 4 + 53


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"lengths": [1, 2]}, ValueError, r"lengths must be \(3,\), one per row of the batch, got \(2,\)"),
        (
            {"lengths": [1, 2, 6]},
            ValueError,
            r"lengths must be from 0 to 5, the steps of the input, got 6 at 2",
        ),
        (
            {"lengths": [-1, 2, 3]},
            ValueError,
            r"lengths must be from 0 to 5, the steps of the input, got -1 at 0",
        ),
        ({"lengths": [1.0, 2.0, 3.0]}, TypeError, r"lengths must hold integers, got float64"),
        ({"reset": np.zeros((3, 4), bool)}, ValueError, r"reset must be \(3, 5\), got \(3, 4\)"),
        ({"reset": np.zeros((3, 5))}, TypeError, r"reset must hold True and False, got float64"),
        ({"reset": [[True] * 5] * 3}, TypeError, r"reset must be a NumPy array, got list"),
    ],
)
@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru-before"])
def test_wrong_lengths_and_resets_are_refused_and_the_state_stays(kind, arguments, error, message):
    layer = make(kind, 2, 3, np.float32)
    xs = np.ones((3, 5, 2), np.float32)
    layer.forward(xs)
    before = layer.get_state()
    with pytest.raises(error, match=rf"^Time\w+\.forward: {message}"):
        layer.forward(xs, **arguments)
    with pytest.raises(ValueError, match=r"the carried state has 3 rows but the input has 2"):
        layer.forward(xs[:2])
    with pytest.raises(TypeError, match=r"xs must be float32, the dtype of the parameters, got float64"):
        layer.forward(xs.astype(np.float64))
    for actual, expected in zip(layer.get_state(), before, strict=True):
        assert_same_bits(actual, expected)


def test_sizes_in_place_of_arrays_are_refused():
    with pytest.raises(
        TypeError, match=r"^TimeLSTM: takes arrays; for sizes use TimeLSTM\.from_sizes, got 3\.$"
    ):
        TimeLSTM(3, 4, 16)


def test_gates_that_do_not_divide_the_width_are_refused():
    for kind, gates in ((TimeLSTM, 4), (TimeGRU, 3)):
        Wx, b = np.ones((2, 12)), np.ones(12)
        with pytest.raises(
            ValueError,
            match=rf"^{kind.__name__}: Wh must be \(5, {5 * gates}\), got \(5, 16\); {gates} gates",
        ):
            kind(Wx, np.ones((5, 16)), b)
    with pytest.raises(ValueError, match=r'^TimeGRU: bhh belongs to reset="after"'):
        TimeGRU(np.ones((2, 3)), np.ones((1, 3)), np.ones(3), bhh=np.ones(1))
    with pytest.raises(ValueError, match=r"^TimeGRU: reset must be one of before, after, got 'between'"):
        TimeGRU(np.ones((2, 3)), np.ones((1, 3)), np.ones(3), reset="between")
    with pytest.raises(TypeError, match=r"^TimeLSTM: b must be float64 like the other parameters"):
        TimeLSTM(np.ones((2, 4)), np.ones((1, 4)), np.ones(4, np.float32))


def test_dc_next_of_another_size_is_refused():
    layer = make("lstm", 2, 3, np.float32)
    layer.forward(np.ones((3, 5, 2), np.float32))
    with pytest.raises(ValueError, match=r"^TimeLSTM.backward: dc_next must be \(3, 3\), got \(2, 3\)"):
        layer.backward(np.ones((3, 5, 3), np.float32), dc_next=np.ones((2, 3), np.float32))
    with pytest.raises(ValueError, match=r"^TimeLSTM.set_state: c must be \(3, 3\), got \(2, 3\)"):
        layer.set_state(np.ones((3, 3), np.float32), np.ones((2, 3), np.float32))


@needs_jit
def test_cells_are_vectorized_and_call_no_library():
    architecture, _, features = cpu_target.target_context.codegen().magic_tuple()
    if not architecture.startswith("x86_64") or "+avx2" not in features:
        pytest.skip("reads x86 assembly with AVX2")
    if numba.config.BOUNDSCHECK:
        pytest.skip("checked indices, which nobody trains with, keep loops scalar")
    for kind in KINDS:
        layer = make(kind, 3, 5, np.float32)
        run(layer, Window(layer, 2, 3))
    for cell, forward, backward in (
        (cells.rnn, 1, 1),
        (cells.lstm, 6, 6),
        (cells.gru, 4, 6),
        (cells.gru_after, 4, 6),
    ):
        loop = time_loop(cell.equations)
        for kernel, products in ((loop.forward, forward), (loop.backward, backward)):
            signature = next(types for types in kernel.signatures if "float32" in str(types))
            fresh = _jit.inner(kernel.py_func)  # what came from the disk cache cannot be read
            fresh.compile(signature)
            text = fresh.inspect_asm(signature)
            assert len(re.findall(r"vfn?m(?:add|sub)\d+ps\s.*%[yz]mm", text)) >= products, cell
            divides = kernel is loop.forward or cell is cells.lstm
            assert not divides or re.search(r"vdivps\s.*%[yz]mm", text)
            assert not re.search(r"[$\s](fma|exp|expm1|tanh)f?(,|@|$)", text, re.MULTILINE), cell


def test_the_gates_stand_in_the_order_of_the_book():
    assert [cell.gates for cell in (cells.rnn, cells.lstm, cells.gru)] == [
        ("a",),
        ("f", "g", "i", "o"),
        ("z", "r", "n"),
    ]
