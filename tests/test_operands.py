"""The operands of weight gradients, packed or where they lie: the same bits, for layers and for groups."""

from __future__ import annotations

import numpy as np
import pytest
from cells import KINDS, Window, make, run
from helpers import assert_same_bits
from rnnfast.kernels import operands

from rnnfast import _threads
from rnnfast.layers.blocks import Blocks

N, T, D, H = 6, 100, 21, 37  # two blocks of the time grid


@pytest.fixture(params=[1, 2])
def threads(request, monkeypatch):
    monkeypatch.setattr(_threads, "LEAST_OPERATIONS", 1.0)
    monkeypatch.setattr(_threads, "_threads", request.param)


def always_packed(monkeypatch):
    monkeypatch.setattr(operands, "LEAST_ROWS", 0)
    monkeypatch.setattr(operands, "LEAST_BYTES", 0)


def turned_around(layer):
    """The layer with weights and gradients as (G H, D) and (G H, H), as in PyTorch."""
    wx, wh, *biases = layer._kernel_params()
    turned = [wx.T.copy(), wh.T.copy(), *biases]
    layer.turned, layer._kernel_params = True, lambda: turned
    layer._kernel_grads = [None if array is None else np.full_like(array, np.nan) for array in turned]
    return layer


@pytest.mark.parametrize(
    "options", [{}, {"lengths": True, "resets": True}], ids=["full", "lengths and resets"]
)
@pytest.mark.parametrize("kind", KINDS)
def test_packed_operands_change_no_bit(kind, options, threads, monkeypatch):
    window = Window(make(kind, D, H, np.float32), N, T, **options)
    expected = run(make(kind, D, H, np.float32), window)
    always_packed(monkeypatch)
    layer = make(kind, D, H, np.float32)
    actual = run(layer, window)
    assert layer._workspace.plans["backward"][2].scratch.panels.size
    assert actual.keys() == expected.keys()
    for name, array in expected.items():
        assert_same_bits(actual[name], array)


@pytest.mark.parametrize("precision", [None, "bfloat16"])
@pytest.mark.parametrize("kind", ["lstm", "gru-before", "gru-after"])
def test_weights_of_pytorch_have_the_same_gradients(kind, precision, threads, monkeypatch):
    always_packed(monkeypatch)
    plain, layer = (make(kind, D, H, np.float32) for _ in range(2))
    plain.precision = layer.precision = precision
    window = Window(plain, N, T)
    run(plain, window)
    turned_around(layer)
    window.forward(layer)
    layer.backward(window.dhs, **window.next_gradient)
    dwx, dwh, *biases = layer._kernel_grads
    assert_same_bits(dwx.T.copy(), plain.grads[0])
    assert_same_bits(dwh.T.copy(), plain.grads[1])
    for actual, expected in zip(biases, plain.grads[2:], strict=False):
        assert_same_bits(actual, expected)


@pytest.mark.parametrize("kind", ["lstm", "gru-before", "gru-after"])
def test_groups_of_sequences_read_packed_operands_too(kind, threads, monkeypatch):
    def gradients():
        layer = make(kind, D, H, np.float32, stateful=False)
        window = Window(layer, N, T)
        layer.read(window.xs, blocks=Blocks(np.array([0, 3, 6])))
        layer.go_back(window.dhs)
        return [grad.copy() for grad in layer.grads]

    expected = gradients()
    always_packed(monkeypatch)
    for actual, grad in zip(gradients(), expected, strict=True):
        assert_same_bits(actual, grad)


def test_small_layers_read_operands_where_they_lie():
    layer = make("lstm", D, H, np.float32)
    run(layer, Window(layer, N, T))
    assert not layer._workspace.plans["backward"][2].scratch.panels.size
