"""Steps of a stream: the bits of forward, whatever was kept from the step before, and no memory."""

import copy
import pickle
import tracemalloc

import numpy as np
import pytest
from cell_cases import KINDS, another, make
from helpers import DTYPES, assert_same_bits, needs_jit, normal, poison, poisoned, sized

SIZES = [(1, 1), (3, 17), (17, 3), (33, 33), (2, 130)]
CALLS = 20
LIMIT = 1024  # Python's own objects; no array of a step is smaller
D, H = 5, 18


@pytest.fixture(params=KINDS)
def layer(request):
    return make(request.param, D, H, np.float32)


def inputs(N=2, T=6, dtype=np.float32, seed=1, depth=D):
    return normal(np.random.default_rng(seed), (N, T, depth), dtype)


def steps(layer, xs):
    """All steps, each into an output of its own."""
    outs = [poisoned((xs.shape[0], layer.hidden_size), layer.dtype) for _ in range(xs.shape[1])]
    for t, out in enumerate(outs):
        assert layer.step(np.ascontiguousarray(xs[:, t]), out=out) is out
    return np.stack(outs, axis=1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("depth", "width"), SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_steps_have_the_bits_of_forward(kind, depth, width, dtype):
    layer = make(kind, depth, width, dtype)
    for N in (1, 3):
        xs = inputs(N, 4, dtype, depth=depth)
        layer.reset_state()
        expected = layer.forward(xs)
        state = layer.get_state()
        layer.reset_state()
        poison(layer)
        assert_same_bits(steps(layer, xs), expected)
        for actual, array in zip(layer.get_state(), state, strict=True):
            assert_same_bits(actual, array)


def test_transposed_parameters_give_the_same_bits(layer):
    xs = inputs()
    other = another(layer, [np.asfortranarray(param) for param in layer.params])
    assert_same_bits(steps(other, xs), steps(layer, xs))
    other.params[1][...] *= 2  # in place: no copy of the step before may be used
    layer.params[1][...] *= 2
    assert_same_bits(steps(other, xs), steps(layer, xs))


def test_parameters_written_in_place_count_from_the_next_step_on(layer):
    xs = inputs(T=9)
    fresh = another(layer)
    steps(layer, xs[:, :3])
    for i in range(len(layer.params)):
        layer.params[i][...] *= np.float32(1.5)
        fresh.set_state(*layer.get_state())
        assert_same_bits(layer.step(xs[:, 3]), fresh.step(xs[:, 3]))


def test_parameters_may_become_read_only_between_steps(layer):
    xs = inputs()
    expected = steps(layer, xs)
    layer.reset_state()
    steps(layer, xs[:, :2])
    for param in layer.params:
        param.flags.writeable = False
    assert_same_bits(steps(layer, xs[:, 2:4]), expected[:, 2:4])
    assert_same_bits(steps(layer, xs[:, 4:]), expected[:, 4:])


def test_the_state_may_change_between_steps(layer):
    xs = inputs(T=8)
    expected = another(layer).forward(xs)
    steps(layer, xs[:, :2])
    state = layer.get_state()
    assert_same_bits(layer.forward(xs[:, 2:4]), expected[:, 2:4])
    assert_same_bits(steps(layer, xs[:, 4:]), expected[:, 4:])
    layer.set_state(*state)
    assert_same_bits(steps(layer, xs[:, 2:]), expected[:, 2:])
    layer.reset_state()
    assert_same_bits(steps(layer, xs[:1]), expected[:1])
    layer.set_state(*(array[1:] for array in state))
    assert_same_bits(steps(layer, xs[1:, 2:]), expected[1:, 2:])
    with pytest.raises(ValueError, match=r"\.step: the carried state has 1 rows but the input has 2; call"):
        layer.step(xs[:, 0])


def test_an_output_is_the_callers_and_the_state_the_layers_own(layer):
    xs = inputs()
    expected = another(layer).forward(xs)
    out = poisoned((2, H), np.float32)
    for t in range(xs.shape[1]):
        layer.step(xs[:, t], out=out)
        assert_same_bits(out, expected[:, t])
        out[...] = np.nan
        layer.h[...] = np.nan


@pytest.mark.parametrize("warm", [False, True])
def test_every_unfit_input_or_output_is_refused_as_on_the_first_step(layer, warm):
    x, out = inputs()[:, 0].copy(), np.empty((2, H), np.float32)
    if warm:
        layer.step(x, out=out)
        layer.step(x, out=out)
    state = layer.get_state()
    locked, moved = out.copy(), np.zeros(2 * H * 4 + 1, np.uint8)[1:].view(np.float32).reshape(2, H)
    locked.flags.writeable = False
    why, unlike = "the last axis is the input size of Wx", r"must be a NumPy array, got list; pass np\.array"
    for given, target, error, message in (
        (x[0], out, ValueError, rf"x must be \(N, 5\), got \(5,\); {why}\.$"),
        (x[:, :-1], out, ValueError, rf"x must be \(N, 5\), got \(2, 4\); {why}\.$"),
        (x.astype(np.float64), out, TypeError, r"x must be float32, the dtype of the parameters, got"),
        (x.tolist(), out, TypeError, rf"x {unlike}\(x, np\.float32\)\.$"),
        (np.ma.array(x), out, TypeError, r"x must be a plain NumPy array"),
        (x, out[:1], ValueError, r"out must be \(2, 18\), got \(1, 18\)\.$"),
        (x, out.astype(np.float64), TypeError, r"out must be float32, got float64\.$"),
        (x, out.tolist(), TypeError, rf"out {unlike}\(out\)\.$"),
        (x, locked, ValueError, r"out is read-only"),
        (x, moved, ValueError, r"out must be C-contiguous and aligned"),
        (x, np.empty((H, 2), np.float32).T, ValueError, r"out must be C-contiguous and aligned"),
    ):
        with pytest.raises(error, match=rf"^{type(layer).__name__}\.step: {message}"):
            layer.step(given, out=target)
    for before, after in zip(state or (), layer.get_state() or (), strict=True):
        assert_same_bits(after, before)


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_an_output_in_the_memory_of_an_input_is_refused(kind, warm):
    layer = make(kind, H, H, np.float32)
    x, out = inputs(depth=H)[:, 0].copy(), np.empty((2, H), np.float32)
    if warm:
        layer.step(x, out=out)
        layer.step(x, out=out)
    shared = normal(np.random.default_rng(2), (3, H), np.float32)
    layer.step(shared[:2], out=out)
    for given, target in ((x, x), (shared[:2], shared[1:]), (out, out), (x, layer.params[0][:2, :H])):
        if target.flags.c_contiguous:
            with pytest.raises(ValueError, match=r"\.step: out shares memory with an input"):
                layer.step(given, out=target)
    bias = layer.params[2]
    with pytest.raises(ValueError, match=r"\.step: out shares memory with an input"):
        layer.step(x[:1], out=bias[:H].reshape(1, H))


def test_inputs_of_any_layout_have_the_same_bits(layer):
    xs = inputs(T=7)
    expected = another(layer).forward(xs)
    swapped = xs.dtype.newbyteorder()
    locked = xs[:, 4].copy()
    locked.flags.writeable = False
    given = [xs[:, 0], xs[:, 1].copy(), np.asfortranarray(xs[:, 2]), xs[:, 3].astype(swapped), locked]
    given += [xs[:, 5].view(np.ndarray), xs[:, 6]]
    for t, x in enumerate(given):
        assert_same_bits(layer.step(x), expected[:, t])


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda a: pickle.loads(pickle.dumps(a))])
def test_a_copy_steps_on_with_its_own_parameters(layer, duplicate):
    xs = inputs()
    steps(layer, xs[:, :2])
    other = duplicate(layer)
    for param in other.params:
        param *= np.float32(1.5)
    expected = another(other)
    expected.set_state(*other.get_state())
    assert_same_bits(steps(other, xs[:, 2:]), steps(expected, xs[:, 2:]))


@needs_jit
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_into_the_callers_output_allocates_nothing(kind, dtype):
    layer = make(kind, 64, 128, dtype)
    xs, out = inputs(1, 3, dtype, depth=64), np.empty((1, 128), dtype)
    x = xs[:, 0].copy()
    layer.step(x, out=out)
    held = layer._workspace.nbytes
    tracemalloc.start()
    try:
        for _ in range(sized(CALLS, 1)):
            layer.step(x, out=out)
            layer.step(xs[:, 1], out=out)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= LIMIT
    assert after <= LIMIT
    assert layer._workspace.nbytes == held
