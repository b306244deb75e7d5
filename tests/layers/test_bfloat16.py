"""Products with operands in bfloat16: rounding, pairs, the tile, layers against the rounding reference."""

import numpy as np
import pytest
import reference
from cell_cases import KINDS, Window, another, make, naive_run, naive_twin, run
from helpers import assert_same_bits, normal, relative_distance
from rnnfast.kernels._jit import kernel
from rnnfast.kernels.product import bfloat16
from rnnfast.kernels.product.bfloat16 import (
    NO_FACTOR,
    NO_TERM,
    PAIRS,
    columns_in_pairs,
    halves_of,
    pack_pairs,
    rows_in_pairs,
)
from rnnfast.kernels.product.gemm import ONE, ZERO, gemm, packed_size, packed_view
from rnnfast.kernels.product.tile import ADD_TO, FROM_START, OVERWRITE, panel_width

import rnnfast
from rnnfast.layers import plans
from rnnfast.layers.window import Blocks

F32 = np.dtype(np.float32)


@kernel
def pack_all(depth, cols, w, row_stride, col_stride, packed):
    """packed = w in panels of pairs."""
    pack_pairs(ZERO, ONE, depth, cols, (w, ZERO, row_stride, col_stride), packed)


@kernel
def round_columns(depth, a, row, target, column):
    """target = rows of a in pairs of columns."""
    columns_in_pairs(0, target.shape[0], depth, (a, ZERO, row), target, column)


@kernel
def round_rows(rows, cols, low, source, target, column):
    """target = rows of the source in pairs, last row first."""
    rows_in_pairs(0, (rows + 1) // 2, rows, cols, low, source, target, column)


@kernel
def product(rows, cols, pairs, a, packed, start, c, mode):
    """C = start + A B of pairs."""
    width = panel_width_of(c)
    gemm(
        rows, cols, pairs, (a.reshape(-1), ZERO, np.int64(a.shape[1]), ONE), packed_view(packed, pairs),
        (start.reshape(-1), ZERO, np.int64(cols), width), (c.reshape(-1), ZERO, np.int64(cols), width), mode,
    )  # fmt: skip


PANEL = np.int64(panel_width(F32))


def _panel(c):
    return PANEL


panel_width_of = kernel(_panel)


def special():
    """Numbers that test rounding: ties, the ends of the range, infinity and NaN."""
    bits = np.array(
        [0x3F808000, 0x3F818000, 0x3F808001, 0x3F807FFF, 0x7F7FFFFF, 0x7F7F7FFF, 0x00800000], np.uint32
    )
    found = np.concatenate([bits.view(np.float32), np.float32([0, 1, np.inf, np.nan, 1e-30, 3e38])])
    return np.concatenate([found, -found])


def bits_of_pairs(high, low):
    return bfloat16._pairs_twin(np.ascontiguousarray(high), np.ascontiguousarray(low))


def test_rounding_is_to_nearest_and_ties_to_even():
    values = np.concatenate([special(), normal(np.random.default_rng(0), (1000,), np.float32)])
    rounded = bfloat16.round_to_bfloat16(values)
    finite = np.isfinite(values) & (np.abs(values) < 3.3e38)
    assert np.array_equal(rounded[finite], reference.bfloat16(values[finite]).astype(np.float32))
    assert np.isnan(rounded[np.isnan(values)]).all()
    assert np.array_equal(rounded[np.isinf(values)], values[np.isinf(values)])
    assert rounded[list(values).index(np.float32(3.4028235e38))] == np.inf
    quiet = np.array([0x7F800001], np.uint32).view(np.float32)  # a NaN with nothing in its high half
    assert np.isnan(bfloat16.round_to_bfloat16(quiet)).all()


@pytest.mark.parametrize("depth", [1, 2, 31, 64, 75])
@pytest.mark.parametrize("cols", [1, 17, 32, 70])
@pytest.mark.parametrize("transposed", [False, True])
def test_packed_pairs_hold_each_number_rounded(depth, cols, transposed):
    rng = np.random.default_rng(depth + cols)
    w = normal(rng, (depth, cols), np.float32)
    w.reshape(-1)[: min(w.size, special().size)] = special()[: w.size]
    flat, strides = (w.T.copy().reshape(-1), (1, depth)) if transposed else (w.reshape(-1), (cols, 1))
    pairs = -(-depth // 2)
    packed = np.full(packed_size(pairs, cols, PAIRS), -1, PAIRS)
    pack_all(depth, cols, flat, *map(np.int64, strides), packed)
    panels = packed.reshape(-1, pairs, panel_width(F32)).transpose(1, 0, 2).reshape(pairs, -1)
    expected = np.zeros((2 * pairs, panels.shape[1]), np.float32)
    expected[:depth, :cols] = w
    expected[depth:, :cols] = -0.0
    assert_same_bits(panels, bits_of_pairs(expected[::2], expected[1::2]))


@pytest.mark.parametrize("depth", [1, 2, 33, 70])
def test_pairs_of_columns_and_of_rows(depth):
    rng = np.random.default_rng(depth)
    block = normal(rng, (depth, 40), np.float32)
    columns = np.full((5, 3 + -(-depth // 2)), -1, PAIRS)
    a = normal(rng, (5, depth), np.float32)
    round_columns(depth, a.reshape(-1), np.int64(depth), columns, np.int64(2))
    wide = np.zeros((5, 2 * (-(-depth // 2))), np.float32)
    wide[:, :depth] = a
    assert_same_bits(columns[:, 2:-1], bits_of_pairs(wide[:, ::2], wide[:, 1::2]))
    assert (columns[:, [0, 1, -1]] == -1).all()
    for low, last in ((NO_FACTOR, 0.0), (NO_TERM, -0.0)):
        target = np.full((-(-depth // 2), 40), -1, PAIRS)
        round_rows(np.int64(depth), np.int64(21), low, block, target, np.int64(9))
        tall = np.full((2 * len(target), 21), last, np.float32)
        tall[:depth] = block[::-1, 9:30]
        assert_same_bits(target[:, 9:30], bits_of_pairs(tall[::2], tall[1::2]))
        assert (np.delete(target, range(9, 30), axis=1) == -1).all()


@pytest.mark.parametrize("mode", [OVERWRITE, FROM_START, ADD_TO, FROM_START | ADD_TO])
@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 7, 33), (13, 64, 40), (30, 33, 100)])
def test_the_product_is_one_chain_of_float32_over_rounded_operands(shape, mode):
    rows, depth, cols = shape
    rng = np.random.default_rng(rows)
    a, w, start, c = (
        normal(rng, s, np.float32) for s in ((rows, depth), (depth, cols), (rows, cols), (rows, cols))
    )
    pairs = -(-depth // 2)
    packed, left = np.empty(packed_size(pairs, cols, PAIRS), PAIRS), np.empty((rows, pairs + 1), PAIRS)
    pack_all(depth, cols, w.reshape(-1), np.int64(cols), np.int64(1), packed)
    round_columns(depth, a.reshape(-1), np.int64(depth), left, np.int64(0))
    total = start.copy() if mode & FROM_START else np.zeros_like(c)
    for k in range(depth):  # a product of two of these is exact in float64, and so is its sum with a float32
        terms = reference.bfloat16(a[:, k : k + 1]) * reference.bfloat16(w[k])
        total = (total.astype(np.float64) + terms).astype(np.float32)
    expected = c + total if mode & ADD_TO else total
    product(np.int64(rows), np.int64(cols), np.int64(pairs), left, packed, start, c, mode)
    assert np.array_equal(c, expected)


def test_halves_are_the_rounded_numbers():
    values = special()
    high, low = halves_of(bits_of_pairs(values, values[::-1]))
    assert_same_bits(high, bfloat16.round_to_bfloat16(values))
    assert_same_bits(low, bfloat16.round_to_bfloat16(values[::-1]))


def rounding(kind, D, H, **options):
    layer = make(kind, D, H, np.float32, **options)
    layer.precision = "bfloat16"
    return layer


# Operands next to a tie may be rounded apart in float32 and in the reference: 1e-5 to 1e-4. Without rounding,
# the distance is 2e-3.
LIMIT = 5e-4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", [(1, 1, 1), (3, 5, 7), (9, 6, 32), (20, 33, 18)])
def test_layers_have_the_values_of_the_rounding_reference(kind, sizes):
    N, D, H = sizes
    layer = rounding(kind, D, H)
    window = Window(layer, N, 12, lengths=True, resets=True)
    actual, expected = run(layer, window), naive_run(naive_twin(layer), window)
    for name, value in expected.items():
        assert relative_distance(actual[name], np.asarray(value)) <= LIMIT, name


def test_rounding_matters():
    layer = rounding("lstm", 6, 32)
    window = Window(layer, 9, 12)
    actual, layer.precision = run(layer, window), None
    assert relative_distance(actual["hs"], naive_run(naive_twin(layer), window)["hs"]) > 2 * LIMIT


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", [(3, 5, 7), (10, 4, 16)])
def test_chunks_steps_and_threads_change_no_bit(kind, sizes, monkeypatch):
    monkeypatch.setattr("rnnfast.engine.threads.LEAST_OPERATIONS", 1.0)
    monkeypatch.setattr(plans, "LEAST_STEP_OPERATIONS", 1.0)
    N, D, H = sizes
    layer, T = rounding(kind, D, H), 70
    window = Window(layer, N, T)
    whole = run(layer, window)
    before = rnnfast.get_num_threads()
    try:
        for threads in (1, 2, 3):
            rnnfast.set_num_threads(threads)
            again = another(layer)
            for name, value in run(again, window).items():
                assert_same_bits(value, whole[name])
    finally:
        rnnfast.set_num_threads(before)
    again.set_state(*window.state)
    parts = [again.forward(window.xs[:, first : first + 9]) for first in range(0, T, 9)]
    assert_same_bits(np.concatenate(parts, axis=1), whole["hs"])
    again.set_state(*window.state)
    for t in range(5):
        assert_same_bits(again.step(window.xs[:, t].copy()), whole["hs"][:, t])


@pytest.mark.parametrize("kind", KINDS)
def test_a_recomputed_tape_and_units_split_among_threads_change_no_bit(kind, monkeypatch):
    layer = rounding(kind, 5, 33)
    window = Window(layer, 4, 300, lengths=True, resets=True)
    whole = run(layer, window)
    monkeypatch.setattr(plans, "KEPT_BYTES", 0)
    again = another(layer)
    for name, value in run(again, window).items():
        assert_same_bits(value, whole[name])


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_of_rows_have_the_gradients_of_their_own(kind):
    N, T, D, H = 6, 9, 5, 7
    layer = rounding(kind, D, H, stateful=False)
    rng = np.random.default_rng(2)
    xs, dhs = normal(rng, (N, T, D), np.float32), normal(rng, (N, T, H), np.float32)
    layer.read(xs, blocks=Blocks(np.array([0, 3, 6]), 0, N))
    layer.backpropagate(dhs)
    both = [grad.copy() for grad in layer.grads]
    parts = []
    for rows in (slice(0, 3), slice(3, 6)):
        layer.forward(xs[rows])
        layer.backward(dhs[rows])
        parts.append([grad.copy() for grad in layer.grads])
    for total, first, second in zip(both, *parts, strict=True):
        assert_same_bits(total, first + second)


@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (5, 30, 33, 513), (4, 9, 16, 300)])
@pytest.mark.parametrize("tied", [False, True])
def test_the_fused_loss_has_the_values_of_the_rounding_reference(shape, tied):
    N, T, H, V = shape
    rng = np.random.default_rng(V)
    E = normal(rng, (V, H), np.float32) / np.float32(4)
    W, b = E.T if tied else np.ascontiguousarray(E.T), normal(rng, (V,), np.float32)
    layer = rnnfast.TimeAffineSoftmaxWithLoss(W, b, precision="bfloat16")
    twin = reference.TimeAffineSoftmaxWithLoss(
        W.astype(np.float64).view(reference.Rounded), b.astype(np.float64)
    )
    xs, ts = normal(rng, (N, T, H), np.float32), rng.integers(-1, V, (N, T))
    assert abs(layer.forward(xs, ts) - twin.forward(xs.astype(np.float64).view(reference.Rounded), ts)) < 1e-6
    assert relative_distance(layer.backward(), np.asarray(twin.backward())) < LIMIT
    assert relative_distance(layer.grads[0], np.asarray(twin.grads[0])) < LIMIT
    # The bias is a row of the product, so its gradient sums rounded gradients.
    assert relative_distance(layer.grads[1], np.asarray(twin.grads[1])) < 4e-3
    first = [grad.copy() for grad in layer.grads]
    before = rnnfast.get_num_threads()
    try:
        rnnfast.set_num_threads(1)
        layer.forward(xs, ts)
        layer.backward()
    finally:
        rnnfast.set_num_threads(before)
    for one, other in zip(first, layer.grads, strict=True):
        assert_same_bits(one, other)


def test_words_of_a_small_vocabulary_have_the_bits_of_vectors():
    kwargs = {"cell": "lstm", "rng": np.random.default_rng(0), "precision": "bfloat16"}
    model = rnnfast.RNNLM(6, 5, 8, **kwargs)
    ids = np.random.default_rng(1).integers(0, 6, (4, 9))
    hs = model.body.read(ids, drop=False)
    assert model.body.layers[0].reads_words
    layer = another(model.body.layers[0])
    layer.stateful = False
    assert_same_bits(layer.forward(model.params[0][ids]), hs)
