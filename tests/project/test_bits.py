"""Guarantees about bits: results do not depend on the batch, on cuts of a sequence, or on the target."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import hypothesis.strategies as st
import numba
import numpy as np
import pytest
from bits_of_layers import everything
from helpers import DTYPES, JIT, assert_same_bits, normal, sized, target_without_avx512
from hypothesis import given, settings
from rnnfast.kernels._jit import kernel
from rnnfast.kernels.codegen.simd import fma
from rnnfast.kernels.losses.affine import BLOCK_ROWS as AFFINE_BLOCK_ROWS
from rnnfast.kernels.recurrence.sequence import block_steps

from rnnfast import TimeAffine, TimeAffineSoftmaxWithLoss, TimeRNN, TimeSoftmaxWithLoss

D, H, V = 7, 21, sized(300, 140)


def recurrent(dtype, activation="tanh"):
    rng = np.random.default_rng(0)
    Wx, Wh, b = normal(rng, (D, H), dtype), normal(rng, (H, H), dtype) / dtype(5), normal(rng, H, dtype)
    return TimeRNN(Wx, Wh, b, stateful=True, activation=activation)


def fused(dtype):
    rng = np.random.default_rng(1)
    return TimeAffineSoftmaxWithLoss(normal(rng, (H, V), dtype), normal(rng, V, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_of_the_output_layers_does_not_depend_on_the_rest_of_the_batch(dtype):
    rng = np.random.default_rng(3)
    N, T = 29, 3
    layer = fused(dtype)
    affine, softmax = TimeAffine(*layer.params), TimeSoftmaxWithLoss()
    xs, dout, ts = normal(rng, (N, T, H), dtype), normal(rng, (N, T, V), dtype), rng.integers(0, V, (N, T))

    def run(rows):
        # One label counts, that of the first row of the whole: the mean is then the same in every batch.
        only = np.where(rows == 0, 1, -1)[:, None] * np.ones((1, T), int)
        only = np.where(only > 0, ts[rows], -1)
        scores = affine.forward(xs[rows])
        softmax.forward(scores, only)
        layer.forward(xs[rows], only)
        gradients = softmax.backward(), layer.backward()
        return scores, affine.backward(dout[rows]), layer.losses(xs[rows], ts[rows]), *gradients

    expected = run(np.arange(N))
    for rows in ([0], [4, 0], [3, 2, 1, 0], np.arange(13), rng.permutation(N), np.arange(N)[::-1]):
        rows = np.asarray(rows)
        for actual, whole in zip(run(rows), expected, strict=True):
            assert_same_bits(actual, whole[rows])


@kernel
def grid_sums(a, d, rows, block, total):
    """total = a^T d over blocks of `rows` rows: the last block first, in each the last row first."""
    count = a.shape[0]
    last = (count - 1) // rows * rows
    for first in range(last, -1, -rows):
        block[:] = 0
        for r in range(min(first + rows, count) - 1, first - 1, -1):
            for i in range(a.shape[1]):
                for j in range(d.shape[1]):
                    block[i, j] = fma(a[r, i], d[r, j], block[i, j])
        for i in range(a.shape[1]):
            for j in range(d.shape[1]):
                total[i, j] = block[i, j] if first == last else total[i, j] + block[i, j]


def summed(a, d, rows):
    """`grid_sums` of arrays of any layout, with a row of ones below `a` for the bias."""
    a = np.concatenate([a, np.ones((len(a), 1), a.dtype)], axis=1)
    total = np.empty((a.shape[1], d.shape[1]), a.dtype)
    grid_sums(a, np.ascontiguousarray(d), rows, np.empty_like(total), total)
    return total[:-1], total[-1]


@pytest.mark.parametrize("dtype", DTYPES)
def test_weight_gradients_are_summed_over_a_fixed_grid_of_blocks(dtype):
    rng = np.random.default_rng(7)
    N, width, outputs = 3, 4, 5
    T = sized(2, 1) * block_steps(N) + 7
    Wh, b = normal(rng, (width, width), dtype) / dtype(3), normal(rng, width, dtype)
    layer = TimeRNN(np.eye(width, dtype=dtype), Wh, b)
    xs, dhs = normal(rng, (N, T, width), dtype), normal(rng, (N, T, width), dtype)
    hs = layer.forward(xs)
    dts = layer.backward(dhs)  # Wx is the identity
    before = np.concatenate([np.zeros_like(hs[:, :1]), hs[:, :-1]], axis=1)
    time_major = [array.swapaxes(0, 1).reshape(T * N, width) for array in (xs, before, dts)]
    rows = block_steps(N) * N
    for i, a in enumerate(time_major[:2]):
        weights, bias = summed(a, time_major[2], rows)
        assert_same_bits(layer.grads[i], weights)
        assert_same_bits(layer.grads[2], bias)

    affine = TimeAffine(normal(rng, (width, outputs), dtype), normal(rng, outputs, dtype))
    dout = normal(rng, (N, T, outputs), dtype)
    affine.forward(xs)
    affine.backward(dout)
    expected = summed(xs.reshape(N * T, width), dout.reshape(N * T, outputs), AFFINE_BLOCK_ROWS)
    for actual, sums in zip(affine.grads, expected, strict=True):
        assert_same_bits(actual, sums)


@settings(max_examples=sized(30, 5))
@given(st.sampled_from(DTYPES), st.sampled_from(["tanh", "relu"]), st.data())
def test_a_sequence_in_chunks_or_steps_gives_the_bits_of_one_pass(dtype, activation, data):
    N, T = data.draw(st.sampled_from([1, 2, 13])), sized(40, 8)
    cuts = sorted({0, T, *data.draw(st.lists(st.integers(1, T - 1), max_size=6))})
    rng = np.random.default_rng(4)
    xs, ts = normal(rng, (N, T, D), dtype), rng.integers(-1, V, (N, T))
    layer, loss = recurrent(dtype, activation), fused(dtype)
    expected = layer.forward(xs)
    expected_losses = loss.losses(expected, ts)
    layer.reset_state()
    for first, last in itertools.pairwise(cuts):
        part = xs[:, first:last]
        actual = layer.forward(part) if last - first > 1 else layer.step(part[:, 0])[:, None]
        assert_same_bits(actual, expected[:, first:last])
        assert_same_bits(loss.losses(actual, ts[:, first:last]), expected_losses[:, first:last])


@pytest.mark.parametrize("dtype", DTYPES)
def test_steps_alone_give_the_bits_of_one_pass_over_several_blocks(dtype):
    rng = np.random.default_rng(5)
    N, T = 3, sized(200, 12)
    layer = recurrent(dtype)
    xs = normal(rng, (N, T, D), dtype)
    expected = layer.forward(xs)
    layer.reset_state()
    assert_same_bits(np.stack([layer.step(xs[:, t]) for t in range(T)], axis=1), expected)


def test_where_arrays_lie_in_memory_changes_nothing():
    rng = np.random.default_rng(6)
    layer = recurrent(np.float32)
    xs, dhs = normal(rng, (4, 9, D), np.float32), normal(rng, (4, 9, H), np.float32)
    expected = layer.forward(xs), layer.backward(dhs)
    for shift in (1, 3, 8):
        moved = []
        for array in (xs, dhs, expected[0], expected[1]):
            memory = np.zeros(array.size + 16, np.float32)[shift : shift + array.size].reshape(array.shape)
            memory[...] = array
            moved.append(memory)
        layer.reset_state()
        assert_same_bits(layer.forward(moved[0], out=moved[2]), expected[0])
        assert_same_bits(layer.backward(moved[1], out=moved[3]), expected[1])


def bits_on(target, cache, meanwhile):
    """Digests from a process that compiles for `target`, with its own cache, and `meanwhile()`."""
    program = Path(__file__).parents[1].joinpath("bits_of_layers.py")
    environment = {**os.environ, **target, "NUMBA_CACHE_DIR": str(cache)}
    with subprocess.Popen(
        [sys.executable, program],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        here = meanwhile()
        printed, errors = process.communicate()
    assert process.returncode == 0, errors
    return json.loads(printed), here


@pytest.mark.skipif(not JIT, reason="compares compiled code, and NUMBA_DISABLE_JIT is set")
@pytest.mark.skipif(
    target_without_avx512() is None, reason="this processor has no AVX-512 to be compared with AVX2"
)
def test_avx2_and_avx512_give_the_same_bits():
    actual, expected = bits_on(
        target_without_avx512(),
        Path(numba.config.CACHE_DIR) / "avx2",
        lambda: {"panel bytes": 128, **everything(np.float32), **everything(np.float64)},
    )
    assert actual.pop("panel bytes") == 64
    assert expected.pop("panel bytes") == 128
    assert [name for name in expected if actual[name] != expected[name]] == []


def test_the_digests_tell_one_changed_bit():
    from bits_of_layers import digest

    array = np.ones((3, 4), np.float32)
    expected = digest(array)
    array[2, 3] = np.nextafter(array[2, 3], np.float32(2))
    assert digest(array) != expected
