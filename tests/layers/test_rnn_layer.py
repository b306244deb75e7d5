"""TimeRNN as an object: what it keeps, what it accepts, and what an error leaves untouched."""

import numpy as np
import pytest
from helpers import DTYPES, assert_same_bits, normal, poisoned

from rnnfast import RNN, TimeRNN

N, T, D, H = 3, 4, 5, 6


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def layer(rng):
    return TimeRNN.from_sizes(D, H, rng=rng, dtype=np.float32, stateful=True)


@pytest.fixture
def xs(rng):
    return normal(rng, (N, T, D), np.float32)


@pytest.fixture
def dhs(rng):
    return normal(rng, (N, T, H), np.float32)


def test_weights_are_drawn_as_in_the_book():
    rng = np.random.default_rng(5)
    layer = TimeRNN.from_sizes(200, 300, rng=np.random.default_rng(5), dtype=np.float64)
    np.testing.assert_array_equal(layer.params[0], rng.standard_normal((200, 300)) / np.sqrt(200))
    np.testing.assert_array_equal(layer.params[1], rng.standard_normal((300, 300)) / np.sqrt(300))
    assert not layer.params[2].any()
    assert TimeRNN.from_sizes(2, 3).params[0].dtype == np.float32


def test_params_and_grads_keep_their_identity(rng, xs, dhs):
    Wx, Wh, b = (normal(rng, shape, np.float32) for shape in ((D, H), (H, H), (H,)))
    layer = TimeRNN(Wx, Wh, b)
    assert all(kept is given for kept, given in zip(layer.params, (Wx, Wh, b), strict=True))
    grads = list(layer.grads)
    for _ in range(2):
        layer.forward(xs)
        layer.backward(dhs)
    assert all(kept is given for kept, given in zip(layer.grads, grads, strict=True))
    before = layer.forward(xs)
    Wh *= 0.5  # as an optimizer does
    assert not np.array_equal(layer.forward(xs), before)


def test_transposed_parameters_are_read_as_they_are_at_each_call(layer, xs, dhs):
    views = [np.asfortranarray(param) for param in layer.params]
    other = TimeRNN(*views, stateful=True)
    assert_same_bits(other.forward(xs), layer.forward(xs))
    assert_same_bits(other.backward(dhs), layer.backward(dhs))
    for param in (*views, *layer.params):
        param *= 2
    assert_same_bits(other.forward(xs), layer.forward(xs))
    assert_same_bits(other.step(xs[:, 0]), layer.step(xs[:, 0]))


def test_a_stateful_layer_carries_its_state_and_a_stateless_one_starts_from_zero(layer, xs):
    fresh = TimeRNN(*layer.params)
    expected = fresh.forward(xs)
    assert_same_bits(layer.forward(xs), expected)
    assert not np.array_equal(layer.forward(xs), expected)
    assert_same_bits(fresh.forward(xs), expected)
    layer.reset_state()
    assert layer.h is None
    assert_same_bits(layer.forward(xs), expected)


def test_set_state_copies_and_is_where_the_next_window_starts(layer, xs):
    layer.forward(xs[:, :2])
    h = layer.h
    expected = layer.forward(xs[:, 2:])
    layer.set_state(h)
    h[...] = np.nan
    assert_same_bits(layer.forward(xs[:, 2:]), expected)
    layer.set_state(None)
    assert layer.h is None


def test_h_and_dh_are_copies(layer, xs, dhs):
    assert layer.h is None
    assert layer.dh is None
    hs = layer.forward(xs)
    assert_same_bits(layer.h, np.ascontiguousarray(hs[:, -1]))
    layer.backward(dhs)
    dh = layer.dh
    layer.h[...] = np.nan
    layer.dh[...] = np.nan
    assert_same_bits(layer.dh, dh)
    hs[...] = np.nan  # the caller's: neither backward nor the next window reads it
    assert np.isfinite(layer.backward(dhs)).all()
    assert np.isfinite(layer.forward(xs)).all()


def test_a_second_backward_gives_the_same_bits(layer, xs, dhs):
    layer.forward(xs)
    expected = [layer.backward(dhs), layer.dh, *(grad.copy() for grad in layer.grads)]
    actual = [layer.backward(dhs), layer.dh, *layer.grads]
    for first, second in zip(expected, actual, strict=True):
        assert_same_bits(second, first)


def test_results_of_earlier_calls_are_not_written_again(layer, xs, dhs):
    hs, first_dxs = layer.forward(xs), None
    expected = hs.copy()
    first_dxs = layer.backward(dhs)
    expected_dxs = first_dxs.copy()
    layer.forward(-xs)
    layer.backward(-dhs)
    assert_same_bits(hs, expected)
    assert_same_bits(first_dxs, expected_dxs)


def test_steps_and_windows_share_one_state(layer, xs):
    expected = TimeRNN(*layer.params).forward(xs)
    actual = [layer.step(xs[:, 0]), layer.step(xs[:, 1], out=poisoned((N, H), np.float32))]
    actual += [layer.forward(xs[:, 2:3])[:, 0], layer.step(xs[:, 3])]
    assert_same_bits(np.stack(actual, axis=1), expected)
    assert_same_bits(layer.h, actual[-1])


@pytest.mark.parametrize("dtype", DTYPES)
def test_other_memory_layouts_give_the_same_bits(dtype, rng):
    layer = TimeRNN.from_sizes(D, H, rng=rng, dtype=dtype)
    xs, dhs, dh_next = (normal(rng, shape, dtype) for shape in ((N, T, D), (N, T, H), (N, H)))
    expected = layer.forward(xs)
    expected_dxs = layer.backward(dhs, dh_next=dh_next)

    def read_only(array):
        array = array.copy()
        array.flags.writeable = False
        return array

    def misaligned(array):
        raw = np.zeros(array.nbytes + 1, np.uint8)
        view = raw[1:].view(array.dtype).reshape(array.shape)
        view[...] = array
        return view

    layouts = {
        "Fortran order": np.asfortranarray,
        "every other element": lambda array: np.repeat(array, 2, axis=-1)[..., ::2],
        "reversed": lambda array: array[::-1, ..., ::-1].copy()[::-1, ..., ::-1],
        "big-endian": lambda array: array.astype(array.dtype.newbyteorder(">")),
        "read-only": read_only,
        "misaligned": misaligned,
        "subclass": lambda array: array.view(type("Sub", (np.ndarray,), {})),
    }
    for name, relaid in layouts.items():
        actual = layer.forward(relaid(xs))
        assert type(actual) is np.ndarray, name
        assert_same_bits(actual, expected)
        assert_same_bits(layer.backward(relaid(dhs), dh_next=relaid(dh_next)), expected_dxs)
        layer.set_state(None)
        assert_same_bits(layer.step(relaid(xs[:, 0])), expected[:, 0])


WRONG_INPUTS = {
    "batch": (
        lambda xs: xs[:2],
        ValueError,
        "the carried state has 3 rows but the input has 2; call reset_state",
    ),
    "input size": (
        lambda xs: xs[:, :, :4],
        ValueError,
        r"xs must be \(N, T, 5\), got \(3, 4, 4\); the last axis is the input",
    ),
    "rank": (lambda xs: xs[0], ValueError, r"xs must be \(N, T, 5\), got \(4, 5\)"),
    "dtype": (lambda xs: xs.astype(np.float64), TypeError, r"xs must be float32.*got float64; convert it"),
    "integers": (lambda xs: xs.astype(np.int64), TypeError, "xs must be float32.*got int64"),
    "list": (lambda xs: xs.tolist(), TypeError, "xs must be a NumPy array, got list"),
    "masked": (np.ma.masked_array, TypeError, "xs must be a plain NumPy array, got a masked array"),
}


@pytest.mark.parametrize("case", WRONG_INPUTS)
def test_a_wrong_input_is_refused_and_nothing_changes(layer, xs, dhs, case):
    spoil, error, message = WRONG_INPUTS[case]
    layer.forward(xs)
    state, expected = layer.h, layer.backward(dhs)
    grads = [grad.copy() for grad in layer.grads]
    with pytest.raises(error, match=rf"^TimeRNN\.forward: .*{message}"):
        layer.forward(spoil(xs))
    assert_same_bits(layer.h, state)
    for actual, kept in zip(layer.grads, grads, strict=True):
        assert_same_bits(actual, kept)
    assert_same_bits(layer.backward(dhs), expected)


def test_a_wrong_output_is_refused_and_nothing_changes(layer, xs, dhs):
    layer.forward(xs)
    state = layer.h
    read_only = np.empty((N, T, H), np.float32)
    read_only.flags.writeable = False
    for out, error, message in (
        (np.empty((N, T, D), np.float32), ValueError, r"out must be \(3, 4, 6\), got \(3, 4, 5\)"),
        (np.empty((N, T, H), np.float64), TypeError, "out must be float32, got float64"),
        (read_only, ValueError, "out is read-only"),
        (np.empty((N, T, 2 * H), np.float32)[..., ::2], ValueError, "out must be C-contiguous"),
    ):
        with pytest.raises(error, match=rf"^TimeRNN\.forward: {message}"):
            layer.forward(xs, out=out)
    small, one = TimeRNN.from_sizes(1, 1), np.ones((1, 1, 1), np.float32)
    for out in (one, *small.params):
        with pytest.raises(ValueError, match=r"^TimeRNN\.forward: out shares memory with an input"):
            small.forward(one, out=out.reshape(1, 1, 1))
    assert_same_bits(layer.h, state)


def test_a_gradient_is_not_written_over_what_backward_still_reads():
    memory = np.zeros((2, T, H), np.float32)
    layer = TimeRNN.from_sizes(H, H)
    xs, dhs = memory[:1], memory[1:]
    layer.forward(xs)
    for out in (xs, dhs):
        with pytest.raises(ValueError, match=r"^TimeRNN\.backward: out shares memory with an input"):
            layer.backward(dhs, out=out)
    small = TimeRNN.from_sizes(1, 1)
    one = np.ones((1, 1, 1), np.float32)
    small.forward(one)
    for out in (*small.params, *small.grads):
        with pytest.raises(ValueError, match=r"^TimeRNN\.backward: out shares memory with an input"):
            small.backward(one, out=out.reshape(1, 1, 1))


def test_backward_needs_a_forward_and_gradients_of_its_shape(layer, xs, dhs):
    with pytest.raises(RuntimeError, match=r"^TimeRNN\.backward: call forward first\.$"):
        layer.backward(dhs)
    layer.forward(xs)
    with pytest.raises(ValueError, match=r"^TimeRNN\.backward: dhs must be \(3, 4, 6\), got \(3, 3, 6\)"):
        layer.backward(dhs[:, 1:])
    with pytest.raises(TypeError, match=r"^TimeRNN\.backward: dhs must be float32"):
        layer.backward(dhs.astype(np.float64))
    with pytest.raises(ValueError, match=r"^TimeRNN\.backward: dh_next must be \(3, 6\), got \(2, 6\)"):
        layer.backward(dhs, dh_next=np.zeros((2, H), np.float32))


def test_a_step_refuses_another_batch_size_and_keeps_the_state(layer, xs):
    layer.step(xs[:, 0])
    state = layer.h
    with pytest.raises(ValueError, match=r"^TimeRNN\.step: the carried state has 3 rows but the input has 1"):
        layer.step(xs[:1, 0])
    with pytest.raises(ValueError, match=r"^TimeRNN\.step: x must be \(N, 5\), got \(3, 4, 5\)"):
        layer.step(xs)
    with pytest.raises(ValueError, match=r"^TimeRNN\.step: out must be \(3, 6\)"):
        layer.step(xs[:, 0], out=np.empty((2, H), np.float32))
    assert_same_bits(layer.h, state)
    with pytest.raises(ValueError, match=r"^TimeRNN\.set_state: h must be \(N, 6\), got \(6,\)"):
        layer.set_state(np.zeros(H, np.float32))
    with pytest.raises(TypeError, match=r"^TimeRNN\.set_state: h must be float32"):
        layer.set_state(np.zeros((N, H)))
    assert_same_bits(layer.h, state)


def test_parameters_that_do_not_fit_are_refused():
    Wx, Wh, b = np.zeros((D, H)), np.zeros((H, H)), np.zeros(H)
    for params, error, message in (
        ((Wx, np.zeros((H, H + 1)), b), ValueError, r"Wh must be \(6, 6\), got \(6, 7\)"),
        ((Wx[:, :-1], Wh, b), ValueError, r"Wx must be \(D, 6\), got \(5, 5\)"),
        ((Wx, Wh, b[:-1]), ValueError, r"b must be \(6,\), got \(5,\)"),
        ((Wx, Wh, b[None]), ValueError, r"b must be \(6,\), got \(1, 6\)"),
        ((Wx, Wh.astype(np.float16), b), TypeError, "Wh must be float32 or float64, got float16"),
        (
            (Wx.astype(np.float32), Wh, b),
            TypeError,
            "Wx must be float64 like the other parameters, got float32",
        ),
        ((Wx.tolist(), Wh, b), TypeError, "Wx must be a NumPy array, got list"),
    ):
        with pytest.raises(error, match=rf"^TimeRNN: {message}"):
            TimeRNN(*params)
    with pytest.raises(ValueError, match=r"^TimeRNN: activation must be one of tanh, relu, got 'sigmoid'"):
        TimeRNN(Wx, Wh, b, activation="sigmoid")


def test_the_one_step_layer_names_itself_in_its_errors():
    layer = RNN(np.zeros((D, H)), np.zeros((H, H)), np.zeros(H))
    with pytest.raises(RuntimeError, match=r"^RNN\.backward: call forward first"):
        layer.backward(np.zeros((N, H)))
    with pytest.raises(ValueError, match=r"^RNN\.forward: h_prev must be \(2, 6\), got \(3, 6\)"):
        layer.forward(np.zeros((2, D)), np.zeros((3, H)))
    layer.forward(np.zeros((2, D)), np.zeros((2, H)))
    with pytest.raises(ValueError, match=r"^RNN\.backward: dh_next must be \(2, 6\), got \(3, 6\)"):
        layer.backward(np.zeros((3, H)))
