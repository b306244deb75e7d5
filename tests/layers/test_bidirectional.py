"""Bidirectional layers and stacks against the reference and central differences, and what they refuse."""

import numpy as np
import pytest
import reference
from cell_cases import KINDS, Window, make, naive_twin
from helpers import DTYPES, assert_same_bits, poisoned, relative_distance
from rnnfast.kernels.recurrence.sequence import block_steps

from rnnfast import Bidirectional, Stack, TimeBiLSTM, TimeLSTM

TOLERANCE = {np.float32: 1e-5, np.float64: 1e-11}


def pair(kinds, D, H, dtype):
    """A bidirectional layer with two kinds of cell, and its twin."""
    halves = [
        make(kind, D, width, dtype, seed=seed)
        for seed, (kind, width) in enumerate(zip(kinds, H, strict=True))
    ]
    return Bidirectional(*halves), reference.Bidirectional(*map(naive_twin, halves))


def inputs(layer, N, T, width, **options):
    window = Window(layer, N, T, **options)
    rng = np.random.default_rng(9)
    dhs = rng.standard_normal((N, T, width)).astype(layer.dtype)
    if "lengths" in window.options:
        dhs[np.isnan(window.dhs[:, :, 0])] = 0
        window.xs[np.isnan(window.xs)] = 0
    return window.xs, dhs, window.options


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize("resets", [False, True])
@pytest.mark.parametrize("kinds", [("lstm", "lstm"), ("gru-before", "rnn"), ("gru-after", "lstm")])
def test_both_directions_equal_the_reference(kinds, resets, lengths, dtype):
    layer, twin = pair(kinds, 3, (5, 4), dtype)
    xs, dhs, options = inputs(layer.layer_forward, 6, 13, 9, lengths=lengths, resets=resets)
    hs = layer.forward(xs, out=poisoned(dhs.shape, dtype), **options)
    expected = twin.forward(xs.astype(np.float64), **options)
    assert relative_distance(hs, expected) <= TOLERANCE[dtype]
    for grad in layer.grads:
        grad[...] = np.nan
    dxs = layer.backward(dhs, out=poisoned(xs.shape, dtype))
    assert relative_distance(dxs, twin.backward(dhs.astype(np.float64))) <= TOLERANCE[dtype]
    for actual, grad in zip(layer.grads, twin.grads, strict=True):
        assert relative_distance(actual, grad) <= TOLERANCE[dtype]


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_a_bidirectional_stack_equal_central_differences(kind):
    rng = np.random.default_rng(0)
    lower = Bidirectional(make(kind, 2, 3, np.float64), make(kind, 2, 2, np.float64, seed=1))
    layer = Stack([lower, make("lstm", 5, 3, np.float64, seed=2)], dropout=0.3, rng=rng)
    xs, dhs = rng.standard_normal((3, 5, 2)), rng.standard_normal((3, 5, 3))
    options = {"lengths": [5, 2, 4], "reset": rng.random((3, 5)) < 0.3}

    def loss():
        for dropout in layer.dropouts:
            dropout.rng_state = dropout.rng_state[0], 0
        layer.reset_state()
        return (layer.forward(xs, **options) * dhs).sum()

    loss()
    dxs = layer.backward(dhs)
    actual = [dxs, *(grad.copy() for grad in layer.grads)]
    for array, gradient in zip([xs, *layer.params], actual, strict=True):
        assert relative_distance(gradient, reference.central_differences(loss, array, step=1e-6)) <= 1e-5


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_stack_equals_the_reference(dtype):
    layers = [make(kind, D, H, dtype) for kind, D, H in (("rnn", 3, 4), ("gru-before", 4, 6), ("lstm", 6, 2))]
    layer, twin = Stack(layers), reference.Stack([naive_twin(each) for each in layers])
    xs, dhs, options = inputs(layers[0], 4, 9, 2, lengths=True, resets=True)
    assert (
        relative_distance(layer.forward(xs, **options), twin.forward(xs.astype(np.float64), **options))
        <= 1e-5
    )
    dxs, expected = layer.backward(dhs), twin.backward(dhs.astype(np.float64))
    assert relative_distance(dxs, expected) <= TOLERANCE[dtype]
    for actual, grad in zip(layer.grads, twin.grads, strict=True):
        assert relative_distance(actual, grad) <= TOLERANCE[dtype]


def test_a_row_of_a_padded_batch_equals_that_row_alone():
    layer, _ = pair(("lstm", "gru-before"), 3, (5, 4), np.float32)
    xs, _, options = inputs(layer.layer_forward, 7, 11, 9, lengths=True)
    expected = layer.forward(xs, **options)
    for n, length in enumerate(options["lengths"]):
        layer.reset_state()
        assert_same_bits(layer.forward(xs[n : n + 1, :length]), expected[n : n + 1, :length])
        assert not expected[n, length:].any()


def test_a_reset_inside_equals_two_separate_sequences_in_both_directions():
    layer, _ = pair(("lstm", "lstm"), 3, (5, 4), np.float32)
    xs = np.random.default_rng(1).standard_normal((1, 9, 3)).astype(np.float32)
    reset = np.zeros((1, 9), bool)
    reset[0, 4] = True
    layer.reset_state()
    expected = layer.forward(xs, reset=reset)
    for part in (slice(0, 4), slice(4, 9)):
        layer.reset_state()
        assert_same_bits(layer.forward(xs[:, part]), expected[:, part])


def test_the_books_bidirectional_lstm_reads_from_both_ends():
    halves = [make("lstm", 3, 4, np.float32, seed=seed, stateful=False) for seed in (0, 1)]
    layer = TimeBiLSTM(*halves[0].params, *halves[1].params)
    assert all(
        kept is given for kept, given in zip(layer.params, halves[0].params + halves[1].params, strict=True)
    )
    xs = np.random.default_rng(2).standard_normal((2, 6, 3)).astype(np.float32)
    hs = layer.forward(xs)
    assert_same_bits(hs[..., :4], halves[0].forward(xs))
    assert_same_bits(hs[..., 4:], np.ascontiguousarray(halves[1].forward(xs[:, ::-1])[:, ::-1]))
    assert layer.forward_lstm is layer.layer_forward


def test_streams_chunks_and_states_of_a_stack():
    rng = np.random.default_rng(3)
    layer = Stack([make("gru-before", 3, 4, np.float32), make("lstm", 4, 5, np.float32)])
    xs = rng.standard_normal((2, 7, 3)).astype(np.float32)
    expected = layer.forward(xs)
    state = layer.get_state()
    following = layer.forward(xs)
    layer.reset_state()
    assert layer.get_state() == (None, None)
    assert_same_bits(np.stack([layer.step(xs[:, t]) for t in range(7)], axis=1), expected)
    layer.set_state(state)
    assert_same_bits(layer.forward(xs), following)
    layer.set_state(None)
    assert_same_bits(layer.forward(xs), expected)


def test_gradients_arrive_at_the_final_states_of_a_stack():
    layers = [make("rnn", 3, 4, np.float64), make("lstm", 4, 5, np.float64)]
    layer = Stack(layers)
    rng = np.random.default_rng(4)
    xs, dhs = rng.standard_normal((2, 4, 3)), rng.standard_normal((2, 4, 5))
    arriving = [{"dh_next": rng.standard_normal((2, 4))}, {"dc_next": rng.standard_normal((2, 5))}]

    def loss():
        layer.reset_state()
        total = (layer.forward(xs) * dhs).sum()
        return (
            total
            + (layers[0].h * arriving[0]["dh_next"]).sum()
            + (layers[1].c * arriving[1]["dc_next"]).sum()
        )

    loss()
    actual = layer.backward(dhs, dstate_next=arriving)
    assert relative_distance(actual, reference.central_differences(loss, xs, step=1e-6)) <= 1e-5


def test_dropout_between_layers_acts_while_training_only():
    layer = Stack(
        [make("rnn", 3, 30, np.float32, stateful=False), make("rnn", 30, 4, np.float32, stateful=False)], 0.5
    )
    xs = np.ones((2, 5, 3), np.float32)
    assert not np.array_equal(layer.forward(xs), layer.forward(xs))
    layer.train_flg = False
    assert_same_bits(layer.forward(xs), layer.layers[1].forward(layer.layers[0].forward(xs)))


def test_parts_that_do_not_fit_are_refused():
    small, wide = make("lstm", 3, 4, np.float32), make("lstm", 4, 4, np.float32)
    double = make("lstm", 3, 4, np.float64)
    with pytest.raises(ValueError, match=r"^Bidirectional: input sizes must be equal, got 3 and 4"):
        Bidirectional(small, wide)
    with pytest.raises(ValueError, match=r"^Bidirectional: dtypes must be equal, got float32 and float64"):
        Bidirectional(small, double)
    with pytest.raises(TypeError, match=r"^Bidirectional: layers must be Recurrent, got str"):
        Bidirectional(small, "lstm")
    with pytest.raises(
        ValueError, match=r"^Stack: a hidden size and the input size above must be equal, got 4 and 3"
    ):
        Stack([small, make("lstm", 3, 4, np.float32, seed=1)])
    with pytest.raises(
        TypeError, match=r"^Stack: layers must be a list, as in Stack\(\[lower, upper\]\), got"
    ):
        Stack(small, small)
    with pytest.raises(ValueError, match=r"^Stack: at least one layer is needed, got none"):
        Stack([])
    layer = Bidirectional(small, make("lstm", 3, 4, np.float32))
    xs = np.ones((2, 5, 3), np.float32)
    layer.forward(xs)
    before = layer.get_state()
    with pytest.raises(ValueError, match=r"^Bidirectional.forward: lengths must be from 0 to 5"):
        layer.forward(xs, lengths=[9, 1])
    with pytest.raises(ValueError, match=r"^Bidirectional.forward: the carried state has 2 rows"):
        layer.forward(xs[:1])
    for actual, expected in zip(layer.get_state(), before, strict=True):
        for one, other in zip(actual, expected, strict=True):
            assert_same_bits(one, other)


def test_a_bidirectional_layer_of_no_steps_gives_nothing():
    layer = Bidirectional(*(TimeLSTM.from_sizes(3, 4, rng=np.random.default_rng(0)) for _ in range(2)))
    for N, T in ((0, 3), (2, 0)):
        assert layer.forward(np.ones((N, T, 3), np.float32)).shape == (N, T, 8)
        assert layer.backward(np.ones((N, T, 8), np.float32)).shape == (N, T, 3)
        assert not any(grad.any() for grad in layer.grads)


def test_the_output_may_not_lie_in_an_input():
    layer = Bidirectional(make("lstm", 8, 4, np.float64), make("lstm", 8, 4, np.float64, seed=1))
    xs = np.random.default_rng(5).standard_normal((2, 5, 8))
    hs = layer.forward(xs)
    with pytest.raises(ValueError, match=r"^Bidirectional.backward: out shares memory with an input"):
        layer.backward(hs, out=hs)


def test_a_layer_may_stand_in_one_place_only():
    layer = make("gru-before", 4, 4, np.float64)
    for composite in (lambda: Stack([layer, layer]), lambda: Bidirectional(layer, layer)):
        with pytest.raises(ValueError, match=r"each layer may be used only once"):
            composite()


def test_what_a_composite_refuses_leaves_all_its_states_alone():
    layers = [make("rnn", 3, 4, np.float32), make("lstm", 4, 5, np.float32)]
    layer = Stack(layers)
    layers[1].set_state(np.ones((3, 5), np.float32))
    for call in (
        lambda: layer.forward(np.ones((2, 6, 3), np.float32)),
        lambda: layer.step(np.ones((2, 3), np.float32)),
    ):
        with pytest.raises(ValueError, match=r"the carried state has 3 rows but the input has 2"):
            call()
        assert layers[0].h is None
    with pytest.raises(ValueError, match=r"h must be \(N, 5\)"):
        layer.set_state(((np.ones((2, 4), np.float32),), (np.ones((2, 9), np.float32),)))
    assert layers[0].h is None
    with pytest.raises(ValueError, match=r"layers and states must be equal, got 2 and 1"):
        layer.set_state((None,))
    with pytest.raises(ValueError, match=r"^TimeLSTM.set_state: c belongs to h"):
        layers[1].set_state(None, np.ones((2, 5), np.float32))
    assert layers[1].h.shape == (3, 5)


def test_a_stream_cannot_be_read_from_its_end():
    both = Bidirectional(make("rnn", 3, 4, np.float32), make("rnn", 3, 4, np.float32, seed=1))
    for layer in (both, Stack([both])):
        with pytest.raises(TypeError, match=r"Bidirectional cannot step"):
            layer.step(np.ones((2, 3), np.float32))


def test_a_reset_mask_may_be_written_to_after_forward():
    layer = make("gru-before", 3, 4, np.float64)
    window = Window(layer, 3, 9, resets=True)
    window.forward(layer)
    expected = layer.backward(window.dhs)
    window.options["reset"][...] = True
    assert_same_bits(layer.backward(window.dhs), expected)


def test_a_composite_that_keeps_no_gates_gives_the_same_bits_in_less_memory():
    def built():
        below = Bidirectional(*(make("lstm", 3, 4, np.float32, seed=seed) for seed in (0, 1)))
        return Stack([below, make("gru-before", 8, 5, np.float32, seed=2)])

    rng = np.random.default_rng(3)
    xs = rng.standard_normal((2, 2 * block_steps(2) + 3, 3)).astype(np.float32)
    results, sizes = [], []
    for keep in (True, False):
        stack = built()
        hs = stack.forward(xs, keep=keep)
        layers = [stack.layers[0].layer_forward, stack.layers[0].layer_backward, stack.layers[1]]
        sizes.append([layer._workspace._buffers["tape"].size for layer in layers])
        results.append([hs, stack.backward(np.ones_like(hs)), *stack.grads])
    for actual, expected in zip(*results, strict=True):
        assert_same_bits(actual, expected)
    assert all(3 * fewer == more for more, fewer in zip(*sizes, strict=True))
