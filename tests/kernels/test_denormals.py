"""Denormal numbers count as zero inside kernels, and only there."""

import numpy as np
import pytest
from cell_cases import KINDS, make
from helpers import DTYPES, assert_same_bits, needs_jit
from numba.core.registry import cpu_target
from rnnfast.kernels.codegen.activations import exp_forward, tanh_forward

import rnnfast
from rnnfast import TimeAffineSoftmaxWithLoss, optim

pytestmark = [
    needs_jit,
    pytest.mark.skipif(
        not cpu_target.target_context.codegen().magic_tuple()[0].startswith(("x86_64", "aarch64", "arm64")),
        reason="no flush-to-zero known for this processor",
    ),
]


def tiny(shape, dtype, seed=0):
    """Denormal numbers of both signs."""
    return (np.random.default_rng(seed).standard_normal(shape) * np.finfo(dtype).tiny / 64).astype(dtype)


def assert_denormals_are_left_alone():
    for dtype in DTYPES:
        value = np.array([np.finfo(dtype).tiny])
        assert (value * dtype(0.25))[0] > 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_layers_take_them_for_zeros(kind, dtype):
    layer = make(kind, 5, 21, dtype)
    assert tiny((9,), dtype).all()

    def call(make_input):
        layer.reset_state()
        hs = layer.forward(make_input((3, 7, 5), dtype))
        dxs = layer.backward(make_input((3, 7, 21), dtype))
        return hs, dxs, *(grad.copy() for grad in layer.grads), layer.step(make_input((3, 5), dtype))

    for actual, expected in zip(call(tiny), call(np.zeros), strict=True):
        assert_same_bits(np.abs(actual), np.abs(expected))  # a product of zeros may be -0
    assert_denormals_are_left_alone()


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_fused_loss_takes_them_for_zeros(dtype):
    layer = TimeAffineSoftmaxWithLoss.from_sizes(5, 40, rng=np.random.default_rng(0), dtype=dtype)
    ts = np.arange(21).reshape(3, 7)
    expected = layer.forward(np.zeros((3, 7, 5), dtype), ts), layer.backward()
    assert layer.forward(tiny((3, 7, 5), dtype), ts) == expected[0]
    assert_same_bits(layer.backward(), expected[1])
    assert_denormals_are_left_alone()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["SGD", "Momentum", "Nesterov", "AdaGrad", "RMSprop", "Adam", "AdamW"])
def test_updates_leave_no_denormals(name, dtype):
    rule = getattr(optim, name)(lr=0.5)
    params = [np.zeros(100, dtype)]
    for _ in range(3):
        rule.update(params, [tiny(100, dtype)])
    assert not ((params[0] != 0) & (np.abs(params[0]) < np.finfo(dtype).tiny)).any()
    assert_denormals_are_left_alone()


@pytest.mark.parametrize("dtype", DTYPES)
def test_activations_keep_their_accuracy(dtype):
    x = tiny(300, dtype)
    y = np.empty_like(x)
    tanh_forward(x, y)
    assert_same_bits(y, x)
    exp_forward(x, y)
    assert_same_bits(y, np.ones_like(x))
    assert_denormals_are_left_alone()


def test_threads_of_a_team_put_the_mode_back(monkeypatch):
    monkeypatch.setattr(rnnfast.engine.threads, "LEAST_OPERATIONS", 1.0)
    monkeypatch.setattr(rnnfast.engine.load, "allowed", lambda: 2)
    before = rnnfast.get_num_threads()
    rnnfast.set_num_threads(2)
    try:
        layer = make("lstm", 5, 21, np.float32)
        xs = tiny((16, 7, 5), np.float32)
        expected = layer.forward(np.zeros_like(xs))
        for _ in range(2):
            layer.reset_state()
            assert_same_bits(layer.forward(xs), expected)
        assert_denormals_are_left_alone()
    finally:
        rnnfast.set_num_threads(before)
