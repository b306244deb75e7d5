"""The affine layer against its naive twin and central differences, and the layouts W may have."""

import numpy as np
import pytest
import reference
from helpers import DTYPES, assert_same_bits, normal, poison, poisoned, relative_distance, sized
from rnnfast.kernels.losses.affine import BLOCK_ROWS
from rnnfast.kernels.product.tile import panel_width

from rnnfast import TimeAffine

LANES = panel_width(np.dtype(np.float32)) // 2
TOLERANCE = {np.float32: 1e-5, np.float64: 1e-11}

# Leading axes, D, O: around the edges of vectors and panels, and around one and two blocks of rows.
SIZES = [
    ((1, 1), 1, 1),
    ((2, 3), 1, 5),
    ((2, 3), 5, 1),
    ((13,), LANES - 1, LANES),
    ((3, 5), LANES + 1, 2 * LANES - 1),
    ((2, 3, 2), 2 * LANES + 1, 2 * LANES),
    ((2, 1, 2, 3), 3, 2 * LANES + 1),
    ((2, 3), 7, 4 * LANES + 3),
    ((BLOCK_ROWS - 1,), 3, 4),
    ((BLOCK_ROWS,), 3, 4),
    ((2, BLOCK_ROWS // 2 + 1), 3, 4),
    ((2 * BLOCK_ROWS + 1,), 3, sized(LANES + 1, 2)),
]


def make(D, outputs, dtype, seed=0):
    rng = np.random.default_rng(seed)
    return TimeAffine(normal(rng, (D, outputs), dtype), normal(rng, outputs, dtype))


def run(layer, x, dout):
    """Results of one forward and backward; all that must be overwritten is poisoned first."""
    y, dx = poisoned(dout.shape, x.dtype), poisoned(x.shape, x.dtype)
    poison(layer)
    assert layer.forward(x, out=y) is y
    poison(layer)
    assert layer.backward(dout, out=dx) is dx
    return {"y": y, "dx": dx, "dW": layer.grads[0].copy(), "db": layer.grads[1].copy()}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_outputs_and_all_gradients_equal_the_reference(size, dtype):
    leading, D, outputs = size
    layer = make(D, outputs, dtype)
    rng = np.random.default_rng(1)
    x, dout = normal(rng, (*leading, D), dtype), normal(rng, (*leading, outputs), dtype)
    actual = run(layer, x, dout)
    twin = reference.TimeAffine(*(param.astype(np.float64) for param in layer.params))
    expected = {"y": twin.forward(x.astype(np.float64)), "dx": twin.backward(dout.astype(np.float64))}
    expected |= {"dW": twin.grads[0], "db": twin.grads[1]}
    for name in expected:
        assert relative_distance(actual[name], expected[name]) <= TOLERANCE[dtype], name


def test_every_gradient_equals_central_differences():
    layer = make(3, 4, np.float64)
    rng = np.random.default_rng(2)
    x, dout = rng.standard_normal((2, 3, 3)), rng.standard_normal((2, 3, 4))

    def loss():
        return (layer.forward(x) * dout).sum()

    loss()
    actual = [layer.backward(dout), *layer.grads]
    for name, array, gradient in zip("xWb", (x, *layer.params), actual, strict=True):
        expected = reference.central_differences(loss, array, step=1e-6)
        assert relative_distance(gradient, expected) <= 1e-5, name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [(2 * LANES + 3, LANES + 1), (LANES, 2 * LANES), (1, 3), (3, 1)], ids=str)
def test_w_may_be_a_transposed_or_a_strided_view(size, dtype):
    D, outputs = size
    plain = make(D, outputs, dtype)
    rng = np.random.default_rng(3)
    x, dout = normal(rng, (2, 5, D), dtype), normal(rng, (2, 5, outputs), dtype)
    expected = run(plain, x, dout)
    table = np.ascontiguousarray(plain.params[0].T)
    spread = poisoned((2 * D, 3 * outputs), dtype)
    spread[::2, ::3] = plain.params[0]
    for W in (table.T, spread[::2, ::3]):
        layer = TimeAffine(W, plain.params[1])
        assert layer.params[0] is W
        for _ in range(2):  # the second time with the memory changed in place
            actual = run(layer, x, dout)
            for name in expected:
                assert_same_bits(actual[name], expected[name])
            W *= 2
            assert_same_bits(
                layer.forward(x), TimeAffine(np.ascontiguousarray(W), plain.params[1]).forward(x)
            )
            W /= 2


def test_a_transposed_table_stays_shared_with_the_layer():
    table, b = np.zeros((4, 3)), np.zeros(4)
    layer = TimeAffine(table.T, b)
    assert np.shares_memory(layer.params[0], table)
    table[2] = 1.0
    np.testing.assert_array_equal(layer.forward(np.ones((1, 3))), [[0.0, 0.0, 3.0, 0.0]])


@pytest.mark.parametrize("leading", [(0,), (0, 3), (3, 0)])
def test_no_rows_give_zero_gradients(leading):
    layer = make(3, 4, np.float32)
    actual = run(layer, np.zeros((*leading, 3), np.float32), np.zeros((*leading, 4), np.float32))
    assert actual["y"].shape == (*leading, 4)
    assert actual["dx"].shape == (*leading, 3)
    assert not actual["dW"].any()
    assert not actual["db"].any()


def test_a_second_backward_gives_the_same_bits_and_params_and_grads_keep_their_identity():
    layer = make(3, 4, np.float32)
    params, grads = list(layer.params), list(layer.grads)
    x, dout = np.ones((2, 5, 3), np.float32), np.ones((2, 5, 4), np.float32)
    layer.forward(x)
    expected = [layer.backward(dout), *(grad.copy() for grad in grads)]
    for first, second in zip(expected, [layer.backward(dout), *layer.grads], strict=True):
        assert_same_bits(second, first)
    assert all(a is b for a, b in zip([*layer.params, *layer.grads], [*params, *grads], strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
def test_other_memory_layouts_give_the_same_bits(dtype):
    layer = make(3, 4, dtype)
    rng = np.random.default_rng(4)
    x, dout = normal(rng, (2, 5, 3), dtype), normal(rng, (2, 5, 4), dtype)
    expected, expected_dx = layer.forward(x), layer.backward(dout)
    for relaid in (
        np.asfortranarray,
        lambda a: a.astype(a.dtype.newbyteorder(">")),
        lambda a: np.repeat(a, 2, 0)[::2],
    ):
        assert_same_bits(layer.forward(relaid(x)), expected)
        assert_same_bits(layer.backward(relaid(dout)), expected_dx)


def test_an_output_that_shares_memory_with_what_is_read_is_refused():
    layer = make(3, 3, np.float64)
    x, dout = np.ones((3, 3)), np.ones((3, 3))
    layer.forward(x)
    for out in (x, layer.params[0], np.broadcast_to(layer.params[1], (3, 3))):
        with pytest.raises(ValueError, match=r"^TimeAffine\.forward: out (shares memory|is read-only)"):
            layer.forward(x, out=out)
    for out in (x, dout, layer.params[0], layer.grads[0]):
        with pytest.raises(ValueError, match=r"^TimeAffine\.backward: out shares memory"):
            layer.backward(dout, out=out)


def test_wrong_inputs_are_refused_and_the_last_forward_stays_valid():
    layer = make(3, 4, np.float64)
    with pytest.raises(RuntimeError, match=r"^TimeAffine\.backward: call forward first\.$"):
        layer.backward(np.ones((2, 4)))
    layer.forward(np.ones((2, 3)))
    expected = layer.backward(np.ones((2, 4)))
    for x, error, message in (
        (
            np.ones((2, 4)),
            ValueError,
            r"x must be \(\.\.\., 3\), got \(2, 4\); the last axis is the rows of W",
        ),
        (np.ones((2, 5, 4)), ValueError, r"x must be \(\.\.\., 3\), got \(2, 5, 4\)"),
        (np.ones(3), ValueError, r"x must be \(\.\.\., 3\), got \(3,\)"),
        (
            np.ones((2, 3), np.float32),
            TypeError,
            "x must be float64, the dtype of the parameters, got float32",
        ),
        ([[1.0, 1.0, 1.0]], TypeError, "x must be a NumPy array, got list"),
    ):
        with pytest.raises(error, match=rf"^TimeAffine\.forward: {message}"):
            layer.forward(x)
    with pytest.raises(ValueError, match=r"^TimeAffine\.backward: dout must be \(2, 4\), got \(2, 3\)"):
        layer.backward(np.ones((2, 3)))
    assert_same_bits(layer.backward(np.ones((2, 4))), expected)
    with pytest.raises(ValueError, match=r"^TimeAffine: b must be \(4,\), got \(3,\)"):
        TimeAffine(np.ones((3, 4)), np.ones(3))
    with pytest.raises(
        TypeError, match=r"^TimeAffine: b must be float64 like the other parameters, got float32"
    ):
        TimeAffine(np.ones((3, 4)), np.ones(4, np.float32))


@pytest.mark.parametrize(("D", "outputs", "wrong"), [(0, 3, "D, the rows"), (3, 0, "O, the columns")])
def test_a_matrix_without_rows_or_columns_is_refused(D, outputs, wrong):
    with pytest.raises(ValueError, match=rf"^TimeAffine: {wrong} of W, must be at least 1, got 0\.$"):
        TimeAffine(np.ones((D, outputs)), np.ones(outputs))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("is_transposed", [False, True])
@pytest.mark.parametrize(("D", "outputs"), [(1, 1), (3, 5), (7, 16), (16, 33), (65, 700), (300, 130)])
def test_a_row_has_the_same_bits_in_any_number_of_rows(D, outputs, is_transposed, dtype):
    """Few rows read the weights where they lie, or block by block; many read them packed."""
    rng = np.random.default_rng(11)
    W = normal(rng, (outputs, D) if is_transposed else (D, outputs), dtype)
    layer = TimeAffine(W.T if is_transposed else W, normal(rng, outputs, dtype))
    x = normal(rng, (20, D), dtype)
    expected = layer.forward(x)
    for rows in (1, 2, 3, 8, 9):
        assert_same_bits(layer.forward(x[:rows], out=poisoned((rows, outputs), dtype)), expected[:rows])
