"""The Elman network against its naive twin and central differences: values, gradients, windows, one step."""

import itertools

import numpy as np
import pytest
import reference
from helpers import DTYPES, assert_same_bits, normal, poison, poisoned, relative_distance, sized
from rnnfast.kernels.product.tile import panel_width
from rnnfast.kernels.recurrence.sequence import BLOCK_ROWS, block_steps, padded_row

from rnnfast import RNN, TimeRNN

LANES = panel_width(np.dtype(np.float32)) // 2
ACTIVATIONS = ["tanh", "relu"]
TOLERANCE = {np.float32: 1e-5, np.float64: 1e-11}

# (N, T, D, H): ones; H around the edges of vectors and panels; T and N around one block of the time grid.
SIZES = [
    (1, 1, 1, 1),
    (1, 2, 3, 1),
    (2, 3, 1, 5),
    (3, 35, 7, LANES - 1),
    (2, 35, LANES + 1, LANES),
    (12, 9, 5, LANES + 1),
    (13, 4, 2 * LANES + 3, 2 * LANES - 1),
    (2, 3, 4, 2 * LANES + 1),
    (sized(100, 64), 2, 3, 4),
    (sized(100, 64), 3, 3, 4),
    (sized(100, 64), 5, 3, 4),
    (BLOCK_ROWS, 2, 2, 3),
    (BLOCK_ROWS + 44, 3, 2, 3),
]
LONG_SIZES = [
    (1, BLOCK_ROWS - 1, 3, 4),
    (1, BLOCK_ROWS + 1, 3, 4),
    (3, 2 * block_steps(3), 3, 4),
    (3, 2 * block_steps(3) + 1, 2, 5),
]


def make(D, H, dtype, seed=0, **options):
    """A layer with a bias that matters."""
    rng = np.random.default_rng(seed)
    layer = TimeRNN.from_sizes(D, H, rng=rng, dtype=dtype, **options)
    layer.params[2][...] = rng.standard_normal(H) * 0.5
    return layer


def naive_twin(layer):
    wide = [param.astype(np.float64) for param in layer.params]
    return reference.TimeRNN(*wide, layer.stateful, activation=layer.activation)


def window(N, T, D, H, dtype, seed=1):
    """xs, dhs, h0, dh_next."""
    rng = np.random.default_rng(seed)
    return [normal(rng, shape, dtype) for shape in ((N, T, D), (N, T, H), (N, H), (N, H))]


def run(layer, xs, dhs, dh_next):
    """Every result of one forward and backward; all that must be overwritten is poisoned first."""
    out, dxs = poisoned(dhs.shape, xs.dtype), poisoned(xs.shape, xs.dtype)
    poison(layer)
    hs = layer.forward(xs, out=out)
    assert hs is out
    h = layer.h
    poison(layer, keep=layer._run.saved)
    assert layer.backward(dhs, dh_next=dh_next, out=dxs) is dxs
    return {"hs": hs, "h": h, "dxs": dxs, "dh": layer.dh, **named_gradients(layer)}


def named_gradients(layer):
    return {name: grad.copy() for name, grad in zip(("dWx", "dWh", "db"), layer.grads, strict=True)}


def naive_run(twin, xs, dhs, dh_next):
    wide = [array.astype(np.float64) for array in (xs, dhs)]
    hs = twin.forward(wide[0])
    h = twin.h
    dxs = twin.backward(wide[1], dh_next=None if dh_next is None else dh_next.astype(np.float64))
    return {"hs": hs, "h": h, "dxs": dxs, "dh": twin.dh, **named_gradients(twin)}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("size", SIZES + LONG_SIZES, ids=str)
def test_outputs_and_all_gradients_equal_the_reference(size, activation, dtype):
    N, T, D, H = size
    layer = make(D, H, dtype, stateful=True, activation=activation)
    twin = naive_twin(layer)
    xs, dhs, h0, dh_next = window(N, T, D, H, dtype)
    if activation == "relu":
        dhs, dh_next = dhs * dtype(0.1), dh_next * dtype(0.1)
    for given_state, given_gradient in ((h0, dh_next), (None, None)):
        layer.set_state(given_state)
        twin.set_state(None if given_state is None else given_state.astype(np.float64))
        actual = run(layer, xs, dhs, given_gradient)
        expected = naive_run(twin, xs, dhs, given_gradient)
        for name in expected:
            limit = TOLERANCE[dtype] * max(1, T / 35)  # errors grow with the window
            assert relative_distance(actual[name], expected[name]) <= limit, name


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("with_dh_next", [False, True])
def test_every_gradient_equals_central_differences(activation, with_dh_next):
    N, T, D, H = 2, 4, 3, 5
    layer = make(D, H, np.float64, seed=3, stateful=True, activation=activation)
    xs, dhs, h0, dh_next = window(N, T, D, H, np.float64, seed=4)

    def loss():
        layer.set_state(h0)
        total = (layer.forward(xs) * dhs).sum()
        return total + (layer.h * dh_next).sum() if with_dh_next else total

    loss()
    actual = [layer.backward(dhs, dh_next=dh_next if with_dh_next else None), layer.dh]
    actual += [grad.copy() for grad in layer.grads]
    names = ["xs", "h0", "Wx", "Wh", "b"]
    for name, array, gradient in zip(names, (xs, h0, *layer.params), actual, strict=True):
        expected = reference.central_differences(loss, array, step=1e-6)
        assert relative_distance(gradient, expected) <= 1e-5, name


def test_relu_has_gradient_zero_at_zero_and_below():
    layer = TimeRNN(np.eye(3), np.zeros((3, 3)), np.zeros(3), activation="relu")
    hs = layer.forward(np.array([[[-1.0, 0.0, 2.0]]]))
    np.testing.assert_array_equal(hs, [[[0.0, 0.0, 2.0]]])
    np.testing.assert_array_equal(layer.backward(np.ones((1, 1, 3))), [[[0.0, 0.0, 1.0]]])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_nan_in_one_row_reaches_its_later_outputs_and_no_other_row(activation, dtype):
    layer = make(3, 4, dtype, activation=activation)
    xs = window(3, 5, 3, 4, dtype)[0]
    expected = layer.forward(xs)
    xs[1, 2, 0] = np.nan
    actual = layer.forward(xs)
    assert np.isnan(actual[1, 2:]).all()
    actual[1, 2:] = expected[1, 2:]
    assert_same_bits(actual, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_windows_with_carried_state_add_up_to_one_pass(dtype):
    N, D, H, cuts = 3, 4, 6, [0, 2, 3, 9, 14]
    whole = make(D, H, dtype, stateful=True)
    xs, dhs, h0, dh_next = window(N, cuts[-1], D, H, dtype)
    whole.set_state(h0)
    expected = run(whole, xs, dhs, dh_next)

    parts, actual_hs = [], []
    state = h0
    for first, last in itertools.pairwise(cuts):
        part = TimeRNN(*whole.params, stateful=True)
        part.set_state(state)
        actual_hs.append(part.forward(xs[:, first:last]))
        state = part.h
        parts.append(part)
    assert_same_bits(np.concatenate(actual_hs, axis=1), expected["hs"])
    assert_same_bits(state, expected["h"])

    dh, actual_dxs = dh_next, []
    for part, first, last in reversed(list(zip(parts, cuts[:-1], cuts[1:], strict=True))):
        actual_dxs.insert(0, part.backward(dhs[:, first:last], dh_next=dh))
        dh = part.dh
    assert_same_bits(np.concatenate(actual_dxs, axis=1), expected["dxs"])
    assert_same_bits(dh, expected["dh"])
    for i, name in enumerate(("dWx", "dWh", "db")):
        total = sum(part.grads[i].astype(np.float64) for part in parts)
        assert relative_distance(total, expected[name]) <= 20 * np.finfo(dtype).eps, name


def test_without_dh_next_no_gradient_crosses_the_border_of_a_window():
    layer = make(3, 4, np.float64, stateful=True)
    xs, dhs, h0, _ = window(2, 6, 3, 4, np.float64)
    layer.set_state(h0)
    state = layer.forward(xs[:, :3])[:, -1]
    layer.forward(xs[:, 3:])
    layer.backward(dhs[:, 3:])
    actual = named_gradients(layer)
    twin = naive_twin(layer)
    twin.set_state(state)
    expected = naive_run(twin, xs[:, 3:], dhs[:, 3:], None)
    for name, gradient in actual.items():
        assert relative_distance(gradient, expected[name]) <= 1e-13, name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_one_step_layer_equals_the_reference(activation, dtype):
    N, D, H = 5, 3, LANES + 1
    params = make(D, H, dtype).params
    layer, twin = RNN(*params), reference.RNN(*[p.astype(np.float64) for p in params])
    xs, dhs, h0, _ = window(N, 1, D, H, dtype)
    assert layer.params[0] is params[0]
    assert relative_distance(layer.forward(xs[:, 0], h0), twin.forward(xs[:, 0], h0)) <= TOLERANCE[dtype]
    for actual, expected in zip(layer.backward(dhs[:, 0]), twin.backward(dhs[:, 0]), strict=True):
        assert relative_distance(actual, expected) <= TOLERANCE[dtype]
    for actual, expected in zip(layer.grads, twin.grads, strict=True):
        assert relative_distance(actual, expected) <= TOLERANCE[dtype]


@pytest.mark.parametrize(("N", "T"), [(0, 3), (3, 0), (0, 0)])
def test_empty_windows_give_empty_results_and_zero_gradients(N, T):
    layer = make(4, 5, np.float32, stateful=True)
    xs, dhs, h0, dh_next = window(N, T, 4, 5, np.float32)
    layer.set_state(h0)
    actual = run(layer, xs, dhs, dh_next)
    assert actual["hs"].shape == (N, T, 5)
    assert actual["dxs"].shape == (N, T, 4)
    assert_same_bits(actual["h"], h0)
    assert_same_bits(actual["dh"], dh_next)
    for name in ("dWx", "dWh", "db"):
        assert not actual[name].any(), name


@pytest.mark.parametrize("dtype", DTYPES)
def test_state_rows_are_whole_cache_lines_and_never_a_kibibyte_apart(dtype):
    itemsize = np.dtype(dtype).itemsize
    for H in range(1, 1100):
        row = padded_row(H, np.dtype(dtype))
        assert H <= row < H + 2 * 64 // itemsize
        assert row * itemsize % 64 == 0
        assert row * itemsize % 1024 != 0


def test_the_time_grid_depends_on_the_batch_alone():
    actual = [block_steps(batch) for batch in (0, 1, 2, 3, 256, 257, 512, 513, 10_000)]
    assert actual == [512, 512, 256, 170, 2, 1, 1, 1, 1]
