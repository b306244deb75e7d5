"""Word vectors against their naive twins: values, gradients, carried context."""

import itertools
import tracemalloc

import hypothesis.strategies as st
import numpy as np
import pytest
import reference
from hypothesis import given

from rnnfast.layers.embedding import TimeContextSum, TimeEmbedding

DTYPES = (np.float32, np.float64)


def table(vocab_size=6, embed_size=5, dtype=np.float64, seed=0):
    return np.random.default_rng(seed).standard_normal((vocab_size, embed_size)).astype(dtype)


def tokens(shape, vocab_size=6, seed=0, dtype=np.int64):
    return np.random.default_rng(seed).integers(0, vocab_size, shape).astype(dtype)


def gradient(shape, dtype=np.float64, seed=9):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def relative_distance(actual, expected):
    return np.linalg.norm(actual - expected) / max(np.linalg.norm(expected), 1e-300)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("id_dtype", [np.int64, np.int32, np.uint8])
def test_lookup_and_scatter_equal_the_naive_layer(dtype, id_dtype):
    W, xs = table(dtype=dtype), tokens((4, 9), dtype=id_dtype)
    layer, naive = TimeEmbedding(W), reference.TimeEmbedding(W.astype(np.float64))
    out = np.full((4, 9, 5), np.nan, dtype)
    assert layer.forward(xs, out=out) is out
    np.testing.assert_array_equal(out, naive.forward(xs))
    np.testing.assert_array_equal(layer.forward(xs), out)
    dhs = gradient((4, 9, 5), dtype)
    dW = layer.grads[0]
    dW[...] = np.nan
    assert layer.backward(dhs) is None
    assert layer.grads[0] is dW
    naive.backward(dhs.astype(np.float64))
    assert relative_distance(dW, naive.grads[0]) <= (1e-6 if dtype == np.float32 else 1e-15)


@given(st.integers(1, 20), st.integers(1, 18), st.integers(1, 5), st.integers(1, 9), st.integers(0, 99))
def test_any_shape_equals_the_naive_layer(vocab_size, embed_size, batch, steps, seed):
    W, xs = table(vocab_size, embed_size, seed=seed), tokens((batch, steps), vocab_size, seed)
    layer, naive = TimeEmbedding(W), reference.TimeEmbedding(W)
    for _ in range(2):
        np.testing.assert_array_equal(layer.forward(xs), naive.forward(xs))
        dhs = gradient((batch, steps, embed_size), seed=seed)
        layer.backward(dhs)
        naive.backward(dhs)
        assert relative_distance(layer.grads[0], naive.grads[0]) <= 1e-14


def test_the_gradient_equals_central_differences():
    W, xs, dhs = table(), tokens((3, 4)), gradient((3, 4, 5))
    layer = TimeEmbedding(W)
    expected = reference.central_differences(lambda: float((layer.forward(xs) * dhs).sum()), W)
    layer.backward(dhs)
    assert relative_distance(layer.grads[0], expected) <= 1e-5


@pytest.mark.parametrize("disturb", ["nothing", "clipped", "weight decay", "set to nan", "another added"])
@pytest.mark.parametrize("kind", ["TimeEmbedding", "TimeContextSum"])
def test_each_backward_overwrites_the_gradient_whatever_was_done_to_the_last(kind, disturb):
    """As the book does where two layers share a table: the gradient of one is added to that of the other."""
    W, options = table(160), (2,) if kind == "TimeContextSum" else ()
    layer, naive = globals()[kind](W, *options), getattr(reference, kind)(W, *options)
    for seed in range(4):
        xs, dhs = tokens((1, 3), 160, seed), gradient((1, 3, 5), seed=seed)
        for each in (layer, naive):
            each.forward(xs)
            each.backward(dhs)
        np.testing.assert_allclose(layer.grads[0], naive.grads[0], rtol=1e-15)
        if disturb == "clipped":
            layer.grads[0] *= 0.1
        elif disturb == "weight decay":
            layer.grads[0] += 1e-4 * W
        elif disturb == "set to nan":
            layer.grads[0][...] = np.nan
        elif disturb == "another added":
            other = TimeEmbedding(W)
            other.forward(tokens((1, 3), 160, seed + 99))
            other.backward(dhs)
            layer.grads[0] += other.grads[0]


def test_tied_weights_add_to_the_gradient_of_the_other_layer():
    W, xs, dhs = table(), tokens((2, 7)), gradient((2, 7, 5))
    layer = TimeEmbedding(W)
    layer.forward(xs)
    layer.backward(dhs)
    start = gradient(W.shape, seed=4)
    expected = start + layer.grads[0]
    kept = layer.grads[0].copy()
    for add_to in (start.copy(), np.ascontiguousarray(start.T).T):
        layer.backward(dhs * 1.0, add_to=add_to)
        np.testing.assert_allclose(add_to, expected, rtol=1e-13)
    np.testing.assert_array_equal(layer.grads[0], kept)


def test_a_transposed_table_works():
    W, xs, dhs = table(), tokens((2, 7)), gradient((2, 7, 5))
    layer, plain = TimeEmbedding(np.ascontiguousarray(W.T).T), TimeEmbedding(W)
    np.testing.assert_array_equal(layer.forward(xs), plain.forward(xs))
    layer.backward(dhs)
    plain.backward(dhs)
    np.testing.assert_array_equal(layer.grads[0], plain.grads[0])


def test_ids_changed_after_forward_do_not_change_backward():
    layer, xs, dhs = TimeEmbedding(table()), tokens((2, 7)), gradient((2, 7, 5))
    layer.forward(xs)
    layer.backward(dhs)
    expected = layer.grads[0].copy()
    layer.forward(xs)
    xs[...] = 0
    layer.backward(dhs)
    np.testing.assert_array_equal(layer.grads[0], expected)


def test_the_order_of_float32_sums_is_step_by_step_from_the_last():
    layer = TimeEmbedding(table(2, 1, np.float32))
    layer.forward(np.zeros((2, 500), np.int64))
    dhs = gradient((2, 500, 1), np.float32)
    layer.backward(dhs)
    expected = np.float32(0)
    for value in dhs[:, ::-1, 0].T.ravel():
        expected += value
    assert layer.grads[0][0, 0] == expected


def test_an_id_out_of_range_is_an_index_error_before_anything_is_read():
    for layer in (TimeEmbedding(table()), TimeContextSum(table(), 2)):
        xs = tokens((2, 3))
        for bad in (-1, 6, 2**40):
            xs[1, 2] = bad
            with pytest.raises(IndexError, match=rf"ids from 0 to 5, got {bad} at \(1, 2\)"):
                layer.forward(xs)
        with pytest.raises(RuntimeError, match="call forward first"):
            layer.backward(gradient((2, 3, 5)))


def test_bad_input_is_refused():
    layer, xs = TimeEmbedding(table()), tokens((2, 3))
    with pytest.raises(TypeError, match="integers"):
        layer.forward(xs.astype(float))
    with pytest.raises(ValueError, match=r"xs must be \(N, T\)"):
        layer.forward(xs[0])
    with pytest.raises(ValueError, match=r"out must be \(2, 3, 5\)"):
        layer.forward(xs, out=np.empty((2, 3, 4)))
    layer.forward(xs)
    with pytest.raises(ValueError, match=r"dhs must be \(2, 3, 5\)"):
        layer.backward(gradient((2, 4, 5)))
    with pytest.raises(TypeError, match="dhs must be float64"):
        layer.backward(gradient((2, 3, 5), np.float32))
    with pytest.raises(ValueError, match=r"add_to must be \(6, 5\)"):
        layer.backward(gradient((2, 3, 5)), add_to=np.zeros((5, 6)))
    with pytest.raises(ValueError, match=r"W must be \(V, D\)"):
        TimeEmbedding(np.zeros(3))
    with pytest.raises(ValueError, match="C-contiguous"):
        TimeContextSum(table().T, 2)
    with pytest.raises(ValueError, match="window must be at least 1"):
        TimeContextSum(table(), 0)


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0, 0)])
def test_empty_windows_give_empty_results_and_leave_the_state_alone(shape):
    for layer in (TimeEmbedding(table()), TimeContextSum(table(), 3)):
        layer.forward(tokens((2, 4)))
        layer.backward(gradient((2, 4, 5)))
        before = getattr(layer, "context", None)
        assert layer.forward(np.zeros(shape, np.int64)).shape == (*shape, 5)
        layer.backward(np.zeros((*shape, 5)))
        np.testing.assert_array_equal(layer.grads[0], 0)
        np.testing.assert_array_equal(getattr(layer, "context", None), before)


def test_from_sizes_draws_small_normal_numbers():
    layer = TimeEmbedding.from_sizes(200, 50, rng=np.random.default_rng(0), dtype=np.float64)
    assert layer.W is layer.params[0]
    assert (layer.W.shape, layer.W.dtype) == ((200, 50), np.float64)
    assert layer.W.std() == pytest.approx(0.01, rel=0.05)
    assert TimeContextSum.from_sizes(20, 5, 3, rng=np.random.default_rng(0)).W.dtype == np.float32


def test_the_steady_state_allocates_no_arrays():
    W, xs, dhs = table(500, 64), tokens((8, 16), 500), gradient((8, 16, 64))
    out = np.empty_like(dhs)
    for layer in (TimeEmbedding(W), TimeContextSum(W, 4)):
        for _ in range(3):
            layer.forward(xs, out=out)
            layer.backward(dhs)
        tracemalloc.start()
        layer.forward(xs, out=out)
        layer.backward(dhs)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 8000, "the output alone is 65,536 bytes"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("window", [1, 2, 3, 6])
def test_the_sum_over_the_last_words_equals_the_naive_layer(window, dtype):
    W = table(dtype=dtype)
    layer, naive = TimeContextSum(W, window), reference.TimeContextSum(W.astype(np.float64), window)
    rtol = 16 * np.finfo(dtype).eps
    for seed, steps in enumerate((4, 1, 5)):
        xs, dhs = tokens((3, steps), seed=seed), gradient((3, steps, 5), dtype, seed)
        out = np.full((3, steps, 5), np.nan, dtype)
        layer.forward(xs, out=out)
        assert relative_distance(out, naive.forward(xs)) <= rtol
        layer.backward(dhs)
        naive.backward(dhs.astype(np.float64))
        assert relative_distance(layer.grads[0], naive.grads[0]) <= rtol


def test_the_words_of_a_window_are_added_oldest_first():
    W, xs = table(6, 40, np.float32), np.array([[0, 1, 2, 3]])
    expected = ((W[0] + W[1]) + W[2]) + W[3]
    np.testing.assert_array_equal(TimeContextSum(W, 4).forward(xs)[0, 3], expected)


def test_the_gradient_of_the_sum_equals_central_differences_with_carried_words():
    W, xs, dhs = table(), tokens((3, 4)), gradient((3, 4, 5))
    layer = TimeContextSum(W, 3)
    context = np.array([[0, 1], [-1, 2], [-1, -1]])

    def loss():
        layer.set_state(context)
        return float((layer.forward(xs) * dhs).sum())

    expected = reference.central_differences(loss, W)
    layer.backward(dhs)
    assert relative_distance(layer.grads[0], expected) <= 1e-5


@given(st.integers(1, 6), st.lists(st.integers(0, 5), min_size=1, max_size=5), st.integers(0, 99))
def test_chunks_of_any_size_give_the_bits_of_one_pass(window, chunks, seed):
    W, xs = table(dtype=np.float32), tokens((2, sum(chunks)), seed=seed)
    expected = TimeContextSum(W, window).forward(xs)
    layer, starts = TimeContextSum(W, window), np.cumsum([0, *chunks])
    parts = [layer.forward(xs[:, a:b]) for a, b in itertools.pairwise(starts)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), expected)


def test_the_context_can_be_kept_set_and_forgotten():
    layer, xs = TimeContextSum(table(), 3), tokens((2, 4))
    assert layer.context is None
    fresh = layer.forward(xs)
    context = layer.context
    np.testing.assert_array_equal(context, xs[:, -2:])
    expected = layer.forward(xs)
    assert (fresh != expected).any()
    layer.set_state(context)
    np.testing.assert_array_equal(layer.forward(xs), expected)
    layer.reset_state()
    np.testing.assert_array_equal(layer.forward(xs), fresh)
    with pytest.raises(ValueError, match="reset_state"):
        layer.forward(xs[:1])
    np.testing.assert_array_equal(layer.context, context)
    with pytest.raises(IndexError, match="context"):
        layer.set_state(np.array([[0, 6]]))


def test_a_refused_call_leaves_the_context_and_the_gradient_of_the_last_alone():
    layer, xs, dhs = TimeContextSum(table(), 3), tokens((2, 4)), gradient((2, 4, 5))
    layer.forward(xs)
    layer.backward(dhs)
    expected = layer.grads[0].copy()
    with pytest.raises(ValueError, match="reset_state"):
        layer.forward(tokens((3, 2), seed=5))
    layer.backward(dhs)
    np.testing.assert_array_equal(layer.grads[0], expected)
