"""The steady state: calls with the caller's outputs allocate nothing and compile nothing."""

import tracemalloc

import numba
import numpy as np
import pytest
from helpers import DTYPES, needs_jit, normal, sized
from rnnfast.kernels.losses.affine import affine_backward, affine_forward
from rnnfast.kernels.losses.fused_loss import affine_softmax_loss
from rnnfast.kernels.losses.softmax import softmax_loss_backward, softmax_loss_forward
from rnnfast.kernels.recurrence.recurrence import time_loop

from rnnfast import TimeAffine, TimeAffineSoftmaxWithLoss, TimeRNN, cells

N, T, D, H, V = 4, sized(64, 3), 32, 48, sized(300, 40)
CALLS = 20

# What 20 calls may hold at their peak beside the arrays given to them: Python's own objects, such as views.
# Every array that a layer works in is larger.
LIMIT = 4096


def window(dtype, width_in, width_out):
    rng = np.random.default_rng(0)
    return [normal(rng, shape, dtype) for shape in ((N, T, width_in), (N, T, width_out))]


def rnn_calls(dtype):
    layer = TimeRNN.from_sizes(D, H, rng=np.random.default_rng(1), dtype=dtype, stateful=True)
    xs, dhs = window(dtype, D, H)
    hs, dxs, dh_next, h = (
        np.empty_like(dhs),
        np.empty_like(xs),
        np.zeros_like(dhs[:, 0]),
        np.empty_like(dhs[:, 0]),
    )
    x = xs[:, 0].copy()

    def calls():
        layer.forward(xs, out=hs)
        layer.backward(dhs, out=dxs)
        layer.backward(dhs, dh_next=dh_next, out=dxs)
        layer.step(x, out=h)

    return layer, calls


def affine_calls(dtype):
    rng = np.random.default_rng(1)
    layer = TimeAffine(normal(rng, (D, H), dtype), normal(rng, H, dtype))
    xs, dout = window(dtype, D, H)
    y, dx = np.empty_like(dout), np.empty_like(xs)

    def calls():
        layer.forward(xs, out=y)
        layer.backward(dout, out=dx)

    return layer, calls


def fused_calls(dtype, transposed=False):
    rng = np.random.default_rng(1)
    W = normal(rng, (V, H), dtype).T if transposed else normal(rng, (H, V), dtype)
    layer = TimeAffineSoftmaxWithLoss(W, normal(rng, V, dtype))
    xs = window(dtype, H, 1)[0]
    ts, dxs = rng.integers(0, V, (N, T)), np.empty_like(xs)

    def calls():
        layer.forward(xs, ts)
        layer.backward(0.5, out=dxs)

    return layer, calls


def tied_calls(dtype):
    return fused_calls(dtype, transposed=True)


@needs_jit
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("make", [rnn_calls, affine_calls, fused_calls, tied_calls])
def test_the_steady_state_allocates_nothing(make, dtype):
    layer, calls = make(dtype)
    for _ in range(2):
        calls()
    held = layer._workspace.nbytes
    tracemalloc.start()
    try:
        for _ in range(CALLS):
            calls()
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= LIMIT
    assert after <= LIMIT
    assert layer._workspace.nbytes == held


@pytest.mark.parametrize("make", [rnn_calls, affine_calls, fused_calls])
def test_scratch_memory_is_that_of_the_largest_window_and_is_kept(make):
    layer, calls = make(np.float32)
    calls()
    held = layer._workspace.nbytes
    assert held > 0
    for _ in range(3):
        calls()
        assert layer._workspace.nbytes == held


def test_smaller_windows_between_larger_ones_allocate_no_scratch():
    layer = TimeRNN.from_sizes(D, H, rng=np.random.default_rng(2))
    xs, dhs = window(np.float32, D, H)
    layer.forward(xs)
    layer.backward(dhs)
    held = layer._workspace.nbytes
    for rows, steps in ((1, T), (N, 1), (2, 2), (N, T)):
        layer.forward(xs[:rows, :steps])
        layer.backward(dhs[:rows, :steps])
        assert layer._workspace.nbytes <= 2 * held


@needs_jit
def test_every_kernel_is_compiled_for_one_signature_a_dtype_whatever_the_layout_of_the_inputs():
    for dtype in DTYPES:
        for make in (rnn_calls, affine_calls, fused_calls, tied_calls):
            make(dtype)[1]()
        layer = TimeRNN(*(np.asfortranarray(p) for p in TimeRNN.from_sizes(D, H, dtype=dtype).params))
        xs, dhs = window(dtype, D, H)
        for array in (
            xs[::-1],
            xs[:, ::2],
            np.asfortranarray(xs),
            xs.astype(xs.dtype.newbyteorder(">")),
            xs[:1, :1],
        ):
            layer.forward(array)
            layer.step(array[:, 0])
            layer.backward(dhs[: array.shape[0], : array.shape[1]])
    loop = time_loop(cells.rnn.equations)
    kernels = [loop.forward, loop.backward, loop.step, affine_forward, affine_backward, affine_softmax_loss]
    for kernel in (*kernels, softmax_loss_forward, softmax_loss_backward):
        reads_words = kernel in (loop.forward, loop.backward)  # compiled apart for inputs that are vectors
        for words in (False, True):
            compiled = [
                kinds
                for kinds in kernel.signatures
                if not reads_words or (kinds[3] == numba.types.none) is not words
            ]
            assert len(compiled) <= 2, kernel.__name__
