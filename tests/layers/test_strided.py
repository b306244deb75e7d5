"""Products with inputs that are read where they lie have the bits of those with gathered rows."""

import numpy as np
import pytest
from helpers import DTYPES, assert_same_bits, normal, poisoned
from rnnfast.kernels._jit import kernel
from rnnfast.kernels.product.gemm import ONE, ZERO, gemm_forward, pack_forward, packed_size, packed_view
from rnnfast.kernels.product.tile import ADD_TO, FROM_START, OVERWRITE, PANEL_BYTES
from rnnfast.kernels.recurrence.sequence import block_steps, last_first, padded_row
from rnnfast.kernels.recurrence.strided import (
    NARROW,
    TURNED_DEPTH,
    forward_of,
    gradients_in_place,
    weights_by_columns,
)
from rnnfast.kernels.team.team import MEMBERS, TEAM_SIZE

inputs_forward = forward_of(False)


@kernel
def run_inputs(
    team, member, t_first, t_last, offsets, sequence_rows, step_rows, xs, x_block, w, packed, in_place, b, c
):
    """`inputs_forward` with W packed, or where it lies."""
    block = (t_first, t_last, offsets, sequence_rows, step_rows)
    panel = np.int64(PANEL_BYTES // b.itemsize)
    operand = packed_view(packed, w.shape[0])
    if in_place:
        operand = (w.reshape(-1), ZERO, w.shape[1] * ONE, panel)
    row = c.shape[1]
    place = (c.reshape(-1), offsets[t_first] * row, row * ONE, panel)
    inputs_forward(team, member, block, w.shape[0], xs, x_block, operand, b, place, None)


def places(layout, N, T):
    """Rows of the sequences and steps in an array of N*T rows."""
    n, t = np.arange(N), np.arange(T)
    return {
        "sequences first": (n * T, t),
        "steps first": (n, t * N),
        "last step first": (n * T + T - 1, -t),
        "any order": (np.random.default_rng(0).permutation(N) * T, t),
        "uneven steps": (n * 2 * T, t + (t > T // 2)),
    }[layout]


def check(layout, shape, dtype, members=1, in_place=False):
    """Returns whether rows were gathered."""
    N, T, D, cols = shape
    rng = np.random.default_rng(1)
    sequence_rows, step_rows = places(layout, N, T)
    rows = 1 + int(sequence_rows.max() + step_rows.max())
    xs, w, b = normal(rng, (1, rows, D), dtype), normal(rng, (D, cols), dtype), normal(rng, cols, dtype)
    panels = poisoned(packed_size(D, cols, np.dtype(dtype)), dtype)
    pack_forward(w, panels)
    x_block = poisoned((block_steps(N) * N + 1, padded_row(D, np.dtype(dtype))), dtype)
    offsets = np.arange(T + 1) * N
    actual, expected = poisoned((N * T, cols + 3), dtype), poisoned((N * T, cols), dtype)
    team = np.zeros(TEAM_SIZE, np.int64)
    team[MEMBERS] = members
    arrays = (offsets, sequence_rows, step_rows, xs, x_block, w, panels, in_place, b, actual)
    for begin in range(0, T, block_steps(N)):
        for member in range(members):
            run_inputs(team, member, begin, min(T, begin + block_steps(N)), *arrays)
    gathered = xs[0, (sequence_rows + step_rows[:, None]).ravel()]
    gemm_forward(gathered, panels, b, expected, FROM_START)
    assert_same_bits(np.ascontiguousarray(actual[:, :cols]), expected)
    assert np.isnan(actual[:, cols:]).all()
    return not np.isnan(x_block).all()


# Sequences, steps, inputs, columns; whether rows are gathered.
SHAPES = [
    ((1, 40, 9, 20), False),  # steps alone
    ((40, 1, 9, 20), False),  # sequences alone
    ((13, 4, 9, 20), False),  # a product for each step
    ((3, 30, 9, 20), False),  # for each sequence
    ((3, 4, 9, 20), True),  # too few rows in each
    ((13, 4, 1024, 20), True),  # rows share cache sets
    ((30, 20, 9, 40), False),  # several blocks
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "is_gathered"), SHAPES)
@pytest.mark.parametrize("layout", ["sequences first", "steps first", "last step first"])
def test_rows_at_regular_distances_are_read_where_they_lie(layout, shape, is_gathered, dtype):
    if layout != "steps first" or shape[2] % 1024 == 0:
        assert check(layout, shape, dtype) == is_gathered
    else:
        assert not check(layout, shape, dtype)  # all rows at one distance


@pytest.mark.parametrize("layout", ["any order", "uneven steps"])
def test_other_rows_are_gathered(layout):
    assert check(layout, (14, 5, 9, 20), np.float32)
    assert check(layout, (14, 5, 40, 1), np.float32)


@pytest.mark.parametrize("members", [2, 3])
@pytest.mark.parametrize(
    "shape", [(70, 4, 9, 20), (2, 90, 9, 20), (1, 50, 40, 2), (100, 3, 40, 1), (3, 4, 5, 6)]
)
def test_each_member_computes_its_rows(shape, members):
    check("sequences first", shape, np.float32, members)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("rows", [16, 17, 31, 32, 45])
@pytest.mark.parametrize("depth", [32, 47, TURNED_DEPTH, TURNED_DEPTH + 1, 3 * TURNED_DEPTH + 5])
def test_few_columns_are_computed_as_the_transpose(depth, rows, in_place, dtype):
    for cols in range(1, NARROW + 2):
        check("sequences first", (rows, 3, depth, cols), dtype, in_place=in_place and cols <= NARROW)


def test_the_transpose_is_used_up_to_its_columns():
    assert check("sequences first", (33, 3, 40, NARROW), np.float32)  # x_block is its scratch
    assert not check("sequences first", (33, 3, 40, NARROW + 1), np.float32)


@kernel
def run_input_gradients(
    team, member, t_first, t_last, offsets, sequence_rows, step_rows, dts, packed, cols, dxs
):
    """`gradients_in_place` of a block whose dts are the first rows."""
    block = (t_first, t_last, offsets, sequence_rows, step_rows)
    return gradients_in_place(team, member, block, cols, (dts, ZERO), packed, dxs)


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize(("shape", "is_scattered"), [*SHAPES, ((40, 12, 40, 2), False)])
@pytest.mark.parametrize("layout", ["sequences first", "steps first", "last step first", "any order"])
def test_gradients_of_inputs_are_written_where_they_belong(layout, shape, is_scattered, members):
    N, T, D, cols = shape
    rng, dtype = np.random.default_rng(2), np.float32
    sequence_rows, step_rows = places(layout, N, T)
    T = min(T, block_steps(N))
    dts, wx = normal(rng, (N * T, padded_row(cols, np.dtype(dtype))), dtype), normal(rng, (cols, D), dtype)
    panels = poisoned(packed_size(cols, D, np.dtype(dtype)), dtype)
    pack_forward(wx, panels)
    dxs = poisoned((1, N * step_rows.size, D), dtype)
    team = np.zeros(TEAM_SIZE, np.int64)
    team[MEMBERS] = members
    arrays = (np.arange(T + 1) * N, sequence_rows, step_rows, dts, panels, cols, dxs)
    done = {run_input_gradients(team, member, 0, T, *arrays) for member in range(members)}
    assert len(done) == 1
    if members == 1 and layout in ("sequences first", "last step first"):
        assert done == {not is_scattered}
    rows = (sequence_rows + step_rows[:T, None]).ravel()
    if done == {True}:
        expected = poisoned((N * T, D), dtype)
        gemm_forward(np.ascontiguousarray(dts[:, :cols]), panels, expected[0], expected, OVERWRITE)
        assert_same_bits(dxs[0, rows], expected)
        rows = np.setdiff1d(np.arange(dxs.shape[1]), rows)
    assert np.isnan(dxs[0, rows]).all()


@kernel
def run_weights(team, member, transposed, rows, cols, x_block, dts, dwx, mode):
    """`weights_by_columns`."""
    x, d = last_first(x_block, rows, ZERO), last_first(dts, rows, ZERO)
    weights_by_columns(team, member, transposed, rows, cols, x, d, dwx, mode)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize("cols", [1, 3, 4, 5, 16, 17])
@pytest.mark.parametrize("depth", [20, 97, 700, 1100])
def test_weight_gradients_have_the_same_bits_in_both_layouts(depth, cols, members, dtype):
    rng, rows = np.random.default_rng(3), 45
    dtype = np.dtype(dtype)
    x_block, dts = (
        np.concatenate(
            [
                normal(rng, (rows, padded_row(size, dtype)), dtype),
                poisoned((1, padded_row(size, dtype)), dtype),
            ]
        )
        for size in (depth, cols)
    )
    team = np.zeros(TEAM_SIZE, np.int64)
    team[MEMBERS] = members
    for mode in (OVERWRITE, ADD_TO):
        before = normal(rng, (depth, cols), dtype) if mode == ADD_TO else poisoned((depth, cols), dtype)
        plain, transposed = before.copy(), before.T.copy()
        for dwx, is_turned in ((transposed, True), (plain, False)):
            for member in range(members):
                run_weights(team, member, is_turned, rows, cols, x_block, dts, dwx, mode)
        assert not np.isnan(plain).any()
        assert_same_bits(plain, np.ascontiguousarray(transposed.T))
